"""A sweep: Optuna proposes, every trial is an ordinary run, the best on validation is scored on test once.

``<output_dir>/optuna.journal`` is Optuna's own storage. A running trial holds a lock that dies with its process: what a
killed sweep left running is gone on with, from its last checkpoint, by the next one started with ``resume``. Several
processes may work in one folder.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import optuna
from filelock import FileLock, Timeout
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, Trial, TrialState

from dept_vl.errors import CheckpointError, ConfigError, DivergenceError, PrunedError
from dept_vl.experiments.folder import open_experiment
from dept_vl.experiments.runs import FinishedRun, finish, score
from dept_vl.experiments.space import Range, SweepConfig, SweepPlan, Value
from dept_vl.experiments.sweep_report import write_outcome
from dept_vl.runs.callbacks import Callback
from dept_vl.runs.selection import Selection, read_selection
from dept_vl.runs.session import Session
from dept_vl.settings.schema import TrainConfig
from dept_vl.system.atomic import write_bytes
from dept_vl.system.processes import process_state

logger = logging.getLogger(__name__)

_STUDY = "sweep"
_JOURNAL = "optuna.journal"


@dataclass(frozen=True)
class SweepResult:
    """What a sweep found.

    Attributes:
        folder: Its folder.
        selection: How runs were compared on ``val``.
        trials: Every trial as Optuna knows it.
        best: The best run, scored on ``test``; None when other processes are still at work, or no run ended.
        files: Table, plot and summary.
    """

    folder: Path
    selection: Selection
    trials: tuple[FrozenTrial, ...]
    best: FinishedRun | None
    files: dict[str, Path]


def run_sweep(
    plan: SweepPlan, data_dir: Path, *, resume: bool = False, overwrite: bool = False, session: Session | None = None
) -> SweepResult:
    """Runs every trial that is left, then scores the best one on ``test``.

    Args:
        plan: What is tried.
        data_dir: Prepared data.
        resume: Go on in the folder: after a kill, or beside another process.
        overwrite: Replace an earlier sweep.
        session: Shared with other runs of this process.

    Raises:
        ConfigError, DataError, CheckpointError: As `train`; or this is one of several processes of one launch.
    """
    if process_state().num_processes > 1:
        raise ConfigError(
            "a sweep runs one trial a process: start `dept-vl sweep --resume` several times on one folder instead of "
            "launching several processes"
        )
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder, selection = plan.folder, read_selection(plan.config({}), data_dir)
    open_experiment(folder, "sweep", plan.record, resume=resume, overwrite=overwrite)
    session = session or Session()
    try:
        study = _open_study(plan, folder, selection)
        while True:
            with _next_trial(study, plan, folder) as trial:
                if trial is None:
                    break
                _run_trial(trial, plan, folder, data_dir, session)
        return _conclude(study, plan, folder, data_dir, session, selection)
    except json.JSONDecodeError as error:  # what Optuna says of its journal
        raise CheckpointError(f"{folder / _JOURNAL}: damaged, or replaced while the sweep ran: {error}") from None


def _open_study(plan: SweepPlan, folder: Path, selection: Selection) -> optuna.Study:
    """Opens the storage; a grid is queued there whole, in order, so that any process takes the next point."""
    journal = folder / _JOURNAL
    with FileLock(folder / ".lock"), _JournalLock(folder):
        _drop_cut_line(journal)
    storage = JournalStorage(JournalFileBackend(str(journal), _JournalLock(folder)))
    with FileLock(folder / ".lock"):
        study = optuna.create_study(
            study_name=_STUDY,
            storage=storage,
            direction="minimize" if selection.lower_is_better else "maximize",
            load_if_exists=True,
            sampler=_sampler(plan.sweep, 0),
            pruner=_pruner(plan),
        )
        if plan.sweep.sampler == "grid":
            for point in plan.points[len(study.get_trials(deepcopy=False)) :]:
                study.enqueue_trial(dict(point))
    return study


class _JournalLock(JournalFileOpenLock):
    """Guards Optuna's journal by a lock that dies with its process; Optuna's own outlives a killed one."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder / _JOURNAL))
        self._lock = FileLock(folder / ".journal.lock")

    def acquire(self) -> bool:
        self._lock.acquire()
        return True

    def release(self) -> None:
        self._lock.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


def _drop_cut_line(journal: Path) -> None:
    """Removes a last line that a full disk or a crash cut short: Optuna could not read what comes after it."""
    if not journal.is_file():
        return
    content = journal.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        logger.warning("%s: dropped a line that was cut short", journal)
        write_bytes(journal, whole)


def _sampler(sweep: SweepConfig, number: int) -> optuna.samplers.BaseSampler:
    """Returns the sampler of one trial: its draws depend on (seed, number) and the trials before it alone."""
    seed = (sweep.seed * 1_000_003 + number) % 2**32
    if sweep.sampler == "tpe":
        return optuna.samplers.TPESampler(seed=seed)
    return optuna.samplers.RandomSampler(seed=seed)  # a grid's values are queued and never drawn


def _pruner(plan: SweepPlan) -> optuna.pruners.BasePruner:
    """Returns the pruner; it counts in evaluations on ``val``."""
    if plan.sweep.pruner == "median":
        return optuna.pruners.MedianPruner()
    if plan.sweep.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner(max_resource=plan.num_evaluations)
    return optuna.pruners.NopPruner()


@contextmanager
def _next_trial(study: optuna.Study, plan: SweepPlan, folder: Path) -> Iterator[Trial | None]:
    """Yields a trial to run, locked as long as the block lasts: one a dead process left, else the next, else None."""
    own: FileLock | None = None
    trial: Trial | None = None
    with FileLock(folder / ".lock"):
        for left in study.get_trials(states=(TrialState.RUNNING,)):
            own = _try_lock(folder, left.number)
            if own:
                logger.info("%s: its process is gone; going on with it", _name(left.number))
                trial = Trial(study, left._trial_id)
                break
        else:
            known = study.get_trials(deepcopy=False)
            if any(one.state == TrialState.WAITING for one in known) or len(known) < plan.num_trials:
                trial = study.ask()
                own = _try_lock(folder, trial.number)
    try:
        yield trial
    finally:
        if own:
            own.release()


def _try_lock(folder: Path, number: int) -> FileLock | None:
    """Takes a trial's lock, or returns None when a living process has it."""
    lock = FileLock(folder / f".{_name(number)}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    return lock


def _name(number: int) -> str:
    return f"trial-{number:04d}"


def _run_trial(trial: Trial, plan: SweepPlan, folder: Path, data_dir: Path, session: Session) -> None:
    study = trial.study
    study.sampler = _sampler(plan.sweep, trial.number)
    values = {key: _suggest(trial, key, space) for key, space in plan.sweep.space.items()}
    config = plan.config(values, folder / _name(trial.number))
    metric = read_selection(config, data_dir).metric
    logger.info("%s of %d: %s", _name(trial.number), plan.num_trials, values)

    try:
        run = finish(config, data_dir, session, callbacks=[_Reports(trial, metric)])
    except PrunedError:
        study.tell(trial, state=TrialState.PRUNED)
    except DivergenceError as error:
        logger.warning("%s failed: %s", _name(trial.number), error)
        study.tell(trial, state=TrialState.FAIL)
    else:
        study.tell(trial, run.val)


class _Reports(Callback):
    """Tells Optuna of every evaluation, and ends a run that it would not go on with."""

    def __init__(self, trial: Trial, metric: str) -> None:
        self._trial = trial
        self._metric = metric
        self._known = set(trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values)

    def on_evaluation(self, config: TrainConfig, step: int, metrics: Mapping[str, float]) -> None:
        assert config.loop.eval_every_steps is not None  # the trainer's settings are in steps
        evaluation = math.ceil(step / config.loop.eval_every_steps)
        if evaluation not in self._known:  # a trial gone on with repeats what came after its last checkpoint
            self._trial.report(metrics[self._metric], evaluation)
        if self._trial.should_prune():
            raise PrunedError


def _suggest(trial: Trial, key: str, space: list[Value] | Range) -> Value:
    if isinstance(space, list):
        chosen: Value = trial.suggest_categorical(key, space)
        return chosen
    if isinstance(space.low, int) and isinstance(space.high, int):
        return trial.suggest_int(key, space.low, space.high, log=space.log)
    return trial.suggest_float(key, space.low, space.high, log=space.log)


def _conclude(
    study: optuna.Study, plan: SweepPlan, folder: Path, data_dir: Path, session: Session, selection: Selection
) -> SweepResult:
    """Scores the best run and writes table and plot; the process that ends last does."""
    with FileLock(folder / ".lock"):
        trials = tuple(study.get_trials())
        if any(trial.state == TrialState.RUNNING for trial in trials):
            logger.info("other processes are still at work; the last one scores the best run")
            return SweepResult(folder, selection, trials, None, {})
        done = [trial for trial in trials if trial.state == TrialState.COMPLETE]
        best = None
        if done:
            first = selection.best(done, lambda trial: float(trial.value or 0.0))
            config = plan.config(first.params, folder / _name(first.number))
            best = score(finish(config, data_dir, session), data_dir, session)
        files = write_outcome(study, folder, selection.metric, list(plan.sweep.space), best)
    return SweepResult(folder, selection, trials, best, files)
