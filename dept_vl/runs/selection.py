"""Which score picks a run's best checkpoint, and what its references say about that score. No torch."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dept_vl.data.manifest import read_references
from dept_vl.errors import ConfigError
from dept_vl.evaluators import (
    EVALUATORS,
    Concern,
    Reference,
    check_available,
    concerns,
    evaluator_name,
    fitting,
    score_name,
    warn_of,
)
from dept_vl.settings.schema import TrainConfig
from dept_vl.tasks import Task

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Selection:
    """How checkpoints are compared.

    Attributes:
        evaluators: What is computed at every evaluation on ``val``.
        metric: The score among theirs that picks the best.
        concerns: What the evaluators assume and the references do not keep.
    """

    evaluators: tuple[str, ...]
    metric: str
    concerns: dict[str, list[Concern]]


def check_best_metric(config: TrainConfig) -> None:
    """Refuses a ``loop.best_metric`` that no evaluator gives, or that cannot be computed here.

    Raises:
        ConfigError: It is one.
    """
    if config.loop.best_metric is None:
        return
    try:
        check_available([config.loop.best_metric])
    except ConfigError as error:
        raise ConfigError(f"loop.best_metric: {error}") from None


def choose_selection(config: TrainConfig, task: Task, references: Sequence[Reference]) -> Selection:
    """Returns how a run's checkpoints are compared.

    By ``loop.best_metric``; else by the task's own score; else, where the references make that one the same whatever is
    predicted or nearly so, by the one that fits (`Concern.instead`).

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
    metric = task.selection_metric if asked is None else score_name(asked)
    owners = [name for name in task.evaluators if metric in EVALUATORS[name].scores]
    owner = owners[0] if owners else evaluator_name(metric)
    names = tuple(dict.fromkeys((*task.evaluators, owner)))
    found = concerns(names, references)
    fits = fitting({owner: found[owner]})
    if asked is not None or not fits:
        return Selection(names, metric, found)
    names = tuple(dict.fromkeys((*names, fits[0])))
    return Selection(names, score_name(fits[0]), found)


def read_selection(config: TrainConfig, data_dir: Path) -> Selection:
    """Returns how a run's checkpoints are compared, by the references of its ``val`` split on disk.

    Raises:
        ConfigError: As `choose_selection`.
        DataError: As `choose_selection`; or the split cannot be read.
    """
    task = config.resolve_task()
    rows = read_references(data_dir, task, "val", limit=config.loop.eval_rows)
    return choose_selection(config, task, [Reference(**row) for row in rows])


def warn_of_selection(config: TrainConfig, data_dir: Path) -> None:
    """Warns of scores that say less than they seem to on ``val``, and says by which one the best checkpoint is kept.

    Raises:
        ConfigError, DataError: As `read_selection`.
    """
    selection = read_selection(config, data_dir)
    warn_of(selection.concerns, "val")
    own = config.resolve_task().selection_metric
    if selection.metric != own:
        logger.warning("val: the best checkpoint is kept by %s, not by %s", selection.metric, own)
