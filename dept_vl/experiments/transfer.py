"""Transfer: train on each source task, start the target from each, choose the source on validation.

Shi & Lipani 2024, section 3.4; with ``prompt-tuning`` it is SPoT (Vu et al. 2022, arXiv 2110.07904).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from dept_vl.experiments.folder import open_experiment, settings_tree
from dept_vl.experiments.plan import check_seeds, check_transfer, transfer_record
from dept_vl.experiments.runs import FinishedRun, finish, run_record, score
from dept_vl.experiments.scores import STD, Spread, spread, spread_records, spreads
from dept_vl.experiments.seeds import seed_configs
from dept_vl.experiments.sources import fit_sources
from dept_vl.runs.folder import SUMMARY_FILE, describe_run
from dept_vl.runs.open import open_run
from dept_vl.runs.refusals import check_prepared
from dept_vl.runs.selection import read_selection
from dept_vl.runs.session import Session
from dept_vl.settings.schema import InitConfig, TrainConfig
from dept_vl.system.atomic import write_json
from dept_vl.system.processes import process_state
from dept_vl.training.batches import check_batch_size

SCRATCH = "scratch"
TRANSFER_FILE = "transfer.json"


@dataclass(frozen=True)
class Start:
    """The target trained from one starting point.

    Attributes:
        source: Source task, or `SCRATCH`.
        runs: One a seed.
        val: The metric that chooses, on ``val``.
        test: Every metric on ``test``; None for sources that were not chosen.
    """

    source: str
    runs: tuple[FinishedRun, ...]
    val: Spread
    test: dict[str, Spread] | None = None


@dataclass(frozen=True)
class TransferResult:
    """What transfer to one target found.

    Attributes:
        target: Its settings.
        sources: Every source's outcome, in the order given.
        best: The source chosen on ``val``, scored on ``test``.
        scratch: The control without a source, scored on ``test``.
        path: Where all of it was written.
    """

    target: TrainConfig
    sources: tuple[Start, ...]
    best: Start
    scratch: Start
    path: Path


def transfer(
    target: TrainConfig,
    sources: Mapping[str, TrainConfig | Path],
    data_dir: Path,
    *,
    seeds: Sequence[int] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    session: Session | None = None,
) -> TransferResult:
    """Trains what is missing of sources, target runs and control, and writes ``<output_dir>/transfer.json``.

    Args:
        target: The target's settings; `InitConfig.parts` says what is taken of a source.
        sources: Source task -> settings to train it with, into ``<output_dir>/source-<task>``, or a finished run. Sizes
            that the settings leave open are the target's (`fit_sources`).
        data_dir: Prepared data of target and sources.
        seeds: Of the target's runs, each in ``<output_dir>/from-<task>/seed-<n>``; None for the settings' own.
        resume: Go on in the folder: finished runs are kept.
        overwrite: Replace an earlier transfer.
        session: Shared with other runs of this process.

    Raises:
        ConfigError, DataError, CheckpointError: As `train`; before anything is trained: a source is the target, cannot
            be started from, has no prepared data, or is a run without an adapter.
    """
    seeds = [target.seed] if seeds is None else seeds
    check_seeds(seeds)
    check_transfer(target, sources)
    for config in (target, *(given for given in sources.values() if isinstance(given, TrainConfig))):
        check_prepared(config, data_dir, ["train", "val", "test"] if config is target else ["train", "val"])
    fitted = fit_sources(target, sources)
    folder, session = target.run_dir, session or Session()
    _check_target(target, fitted, data_dir, session)
    open_experiment(folder, "transfer", transfer_record(target, sources), resume=resume, overwrite=overwrite)
    trained = {name: _source_run(name, given, folder, data_dir, session) for name, given in fitted.items()}
    starts = tuple(_train_from(name, run, target, seeds, data_dir, session) for name, run in trained.items())
    scratch = _train_from(SCRATCH, None, target, seeds, data_dir, session)
    best = read_selection(target, data_dir).best(starts, lambda start: start.val.mean)  # in the order given
    result = TransferResult(
        target,
        starts,
        _score(best, data_dir, session),
        _score(scratch, data_dir, session),
        folder / TRANSFER_FILE,
    )
    if process_state().is_main_process:
        _write(result, trained)
    return result


def _check_target(
    target: TrainConfig, sources: Mapping[str, TrainConfig | Path], data_dir: Path, session: Session
) -> None:
    """Opens the target once while a source is still to be trained: what it refuses, it refuses before that."""
    folders = [target.run_dir / f"source-{name}" for name, given in sources.items() if isinstance(given, TrainConfig)]
    if all((folder / SUMMARY_FILE).is_file() for folder in folders):
        return
    parts = open_run(target, data_dir, ("train", "val"), session)
    check_batch_size(target.data, target.loop, len(parts.datasets["train"].indices), process_state().num_processes)


def _source_run(name: str, given: TrainConfig | Path, folder: Path, data_dir: Path, session: Session) -> Path:
    if isinstance(given, Path):
        return given
    return finish(replace(given, output_dir=str(folder / f"source-{name}")), data_dir, session).run_dir


def _train_from(
    name: str, source: Path | None, target: TrainConfig, seeds: Sequence[int], data_dir: Path, session: Session
) -> Start:
    init = InitConfig() if source is None else replace(target.init, source=str(source))
    start = replace(target, init=init, output_dir=str(target.run_dir / f"from-{name}"))
    runs = tuple(finish(config, data_dir, session) for config in seed_configs(start, seeds))
    return Start(name, runs, spread([run.val for run in runs]))


def _score(start: Start, data_dir: Path, session: Session) -> Start:
    runs = tuple(score(run, data_dir, session) for run in start.runs)
    return replace(start, runs=runs, test=spreads([run.test or {} for run in runs]))


def _write(result: TransferResult, trained: Mapping[str, Path]) -> None:
    write_json(
        result.path,
        {
            "target": result.target.task,
            "chosen_on": "val",
            "best_source": result.best.source,
            "starts": {start.source: _start_record(start) for start in (*result.sources, result.best, result.scratch)},
            "source_runs": {name: str(run) for name, run in trained.items()},
            "std": STD,
            "config": settings_tree(result.target),
            "made_by": describe_run(),
        },
    )


def _start_record(start: Start) -> dict[str, object]:
    return {
        "val": asdict(start.val),
        "test": None if start.test is None else spread_records(start.test),
        "runs": [run_record(run) for run in start.runs],
    }
