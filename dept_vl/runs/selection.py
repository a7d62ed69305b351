"""What picks a run's best checkpoint, which way it is better, and what the references say about it. No torch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TypeVar

from dept_vl.data.manifest import has_targets, read_references
from dept_vl.errors import ConfigError, DataError
from dept_vl.evaluators import (
    EVALUATORS,
    LOSS,
    Concern,
    Reference,
    check_available,
    concerns,
    display_scale,
    evaluator_name,
    fitting,
    is_loss,
    score_name,
    warn_of,
)
from dept_vl.runs.refusals import check_prepared
from dept_vl.settings.schema import TrainConfig
from dept_vl.tasks import Task
from dept_vl.tasks.mixture import MEAN

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class Selection:
    """How checkpoints are compared.

    Attributes:
        evaluators: What is computed at every evaluation on ``val``.
        metric: What picks the best: a score among theirs, or the validation loss; of several tasks with the task's name
            before it, or their mean.
        concerns: What the evaluators assume and the references do not keep.
        primary: The task's own score, or the one that fits, whatever picks the best.
    """

    evaluators: tuple[str, ...]
    metric: str
    concerns: dict[str, list[Concern]]
    primary: str = ""

    @property
    def lower_is_better(self) -> bool:
        """Whether it is so, as of the loss; of every score, higher is."""
        return self.metric.rsplit("/", 1)[-1] == LOSS

    def is_better(self, value: float, best: float | None) -> bool:
        """Returns whether a value is better than the best before; any is where there is none yet."""
        if best is None:
            return True
        return value < best if self.lower_is_better else value > best

    def best(self, candidates: Iterable[T], value: Callable[[T], float]) -> T:
        """Returns the candidate of the best value, the first of equals."""
        return (min if self.lower_is_better else max)(candidates, key=value)

    def describe(self, step: int, value: float, best: float | None, best_step: int) -> str:
        """Returns a line about an evaluation on ``val``: its value and whether it is the best so far.

        Args:
            step: Optimiser steps done.
            value: Of `metric`, in the scorer's own scale.
            best: The best value before; None at the first evaluation.
            best_step: Where that was.
        """
        scale = display_scale(self.metric)
        beside = "the best so far"
        if best is not None and not self.is_better(value, best):
            beside = f"the best is {scale.printed(best)} at step {best_step:,}"
        return f"step {step:,}: {self.metric} on val {scale.printed(value)} {scale.text} ({beside})"

    def check_targets(self, has_targets: Callable[[], bool]) -> None:
        """Refuses to compare checkpoints by the loss on rows without targets.

        Args:
            has_targets: Whether a row of ``val`` that is evaluated has one; asked where it matters.

        Raises:
            DataError: None has.
        """
        if self.lower_is_better and not has_targets():
            raise DataError(
                "loop.best_metric: the loss is taken of targets, and no row of val that is evaluated has one; choose a "
                "score, or prepare val with answers"
            )


def check_best_metric(config: TrainConfig) -> None:
    """Refuses a ``loop.best_metric`` that is neither the loss nor a score of an evaluator, or cannot be computed here.

    Raises:
        ConfigError: It is one; or, of several tasks, does not say whose score it is.
    """
    asked = config.loop.best_metric
    if asked is None or is_loss(asked):
        return
    if config.is_mix:
        owner, _, metric = asked.partition("/")
        if asked != MEAN and (owner not in config.task_names or not metric):
            names = config.task_names
            raise ConfigError(
                f"loop.best_metric: {asked!r} does not say of which task; give TASK/SCORE, such as {names[0]}/accuracy "
                f"(tasks: {', '.join(names)}), or {MEAN}, or {LOSS}"
            )
        for one in config.each_task():
            check_best_metric(one)
        return
    try:
        check_available([asked])
    except ConfigError as error:
        raise ConfigError(f"loop.best_metric: {error}") from None


def choose_selection(config: TrainConfig, task: Task, references: Sequence[Reference]) -> Selection:
    """Returns how a run's checkpoints are compared.

    By ``loop.best_metric``, a score or the loss; else by the task's own; else, where the references make that score the
    same whatever is predicted or nearly so, by the one that fits (`Concern.instead`).

    Args:
        config: The run's settings.
        task: Its task, under the run's protocol.
        references: What checkpoints are scored against.

    Raises:
        ConfigError: There is no such score.
        DataError: An evaluator cannot score against these references.
    """
    check_best_metric(config)
    asked = config.loop.best_metric
    own = _by_score(task, task.selection_metric, references)
    if asked is None:
        return own
    if is_loss(asked):
        return Selection(task.evaluators, LOSS, concerns(task.evaluators, references), own.primary)
    return replace(_by_score(task, score_name(asked), references, is_asked=True), primary=own.primary)


def _by_score(task: Task, metric: str, references: Sequence[Reference], *, is_asked: bool = False) -> Selection:
    """Returns how checkpoints are compared by a score, or by one that fits unless this one was asked for."""
    owners = [name for name in task.evaluators if metric in EVALUATORS[name].scores]
    owner = owners[0] if owners else evaluator_name(metric)
    names = tuple(dict.fromkeys((*task.evaluators, owner)))
    found = concerns(names, references)
    fits = fitting({owner: found[owner]})
    if is_asked or not fits:
        return Selection(names, metric, found, metric)
    names = tuple(dict.fromkeys((*names, fits[0])))
    return Selection(names, score_name(fits[0]), found, score_name(fits[0]))


def join_selections(config: TrainConfig, each: Mapping[str, Selection]) -> Selection:
    """Returns how the checkpoints of a run of several tasks are compared.

    By the mean of the tasks' own scores; or by ``loop.best_metric``: one task's score or loss, or the mean of their
    losses.

    Args:
        config: The run's settings, checked by `check_best_metric`.
        each: Task name to how its checkpoints would be compared alone, under `TrainConfig.for_task`.
    """
    asked = config.loop.best_metric
    metric = MEAN if asked is None or asked == MEAN else LOSS
    if metric == LOSS and asked is not None and not is_loss(asked):
        owner = asked.partition("/")[0]
        metric = f"{owner}/{each[owner].metric}"
    evaluators = tuple(dict.fromkeys(name for one in each.values() for name in one.evaluators))
    found = {f"{task}: {name}": several for task, one in each.items() for name, several in one.concerns.items()}
    return Selection(evaluators, metric, found, MEAN)


def join_scores(scores: Mapping[str, Mapping[str, float]], primary: Mapping[str, str]) -> dict[str, float]:
    """Returns the scores of several tasks under ``task/score``, and `MEAN`.

    Args:
        scores: Task name to its scores, in the scorers' own scales.
        primary: Task name to the score that counts. Their mean is of values as papers print them (accuracy in %, CIDEr
            times 100), as in the averages of the paper's tables.

    Returns:
        All of them; also the mean of the losses where every task has one.
    """
    joined = {f"{task}/{name}": value for task, found in scores.items() for name, value in found.items()}
    shown = [scores[task][name] * display_scale(name).factor for task, name in primary.items()]
    joined[MEAN] = fmean(shown)
    losses = [found[LOSS] for found in scores.values() if LOSS in found]
    return {**joined, LOSS: fmean(losses)} if len(losses) == len(scores) else joined


def read_selection(config: TrainConfig, data_dir: Path) -> Selection:
    """Returns how a run's checkpoints are compared, by the references of its ``val`` splits on disk.

    Raises:
        ConfigError: As `choose_selection`.
        DataError: As `choose_selection` and `Selection.check_targets`; or the split cannot be read.
    """
    if config.is_mix:
        check_best_metric(config)
        each = {one.task: read_selection(one, data_dir) for one in config.each_task()}
        return join_selections(config, each)
    task = config.resolve_task()
    rows = read_references(data_dir, task, "val", limit=config.loop.eval_rows)
    selection = choose_selection(config, task, [Reference(**row) for row in rows])
    selection.check_targets(lambda: has_targets(data_dir, task, "val", limit=config.loop.eval_rows))
    return selection


def check_data(config: TrainConfig, data_dir: Path, splits: Sequence[str]) -> None:
    """Refuses data that a run cannot be trained on, warns of scores that say less than they seem to on ``val``.

    It says too by which score the best checkpoint is kept, where that is not the task's own.

    Raises:
        ConfigError, DataError: As `check_prepared` and `read_selection`.
    """
    check_prepared(config, data_dir, splits)
    selection = read_selection(config, data_dir)
    warn_of(selection.concerns, "val")
    own = MEAN if config.is_mix else config.resolve_task().selection_metric
    if selection.metric != own:
        logger.warning("val: the best checkpoint is kept by %s, not by %s", selection.metric, own)
