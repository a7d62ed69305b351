"""What a scored run answered, row by row, with what a page needs of the prepared data beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dept_vl.data.manifest import read_references, split_info
from dept_vl.errors import CheckpointError, DataError
from dept_vl.evaluators import display_scale
from dept_vl.evaluators.base import Scale
from dept_vl.evaluators.paired import CORRECT, Answered, interval
from dept_vl.experiments.scores import read_results
from dept_vl.reports.page.thumbnails import images_of
from dept_vl.reports.scored_answers import RowAnswers, is_right, read_answers
from dept_vl.reports.scored_runs import ScoredRun
from dept_vl.tasks import Task


@dataclass(frozen=True)
class RunRows:
    """A scored run and its rows.

    Attributes:
        run: The run.
        task: Its task.
        results: The content of its file of scores.
        answers: What it answered.
        metric: The score that the page is about.
        each: What each row scores; None where rows have no score of their own.
        row_scale: How that is printed, and what it is.
        right: Of each row whether its answer is right; None where no answer is right or wrong, as a caption.
        types: Kind of type (``answer type``) -> the type of each row; None for a row without.
        image_root: The folder that paths of images start from; None where nothing says it.
        notes: What is not there, and what to do about it.
    """

    run: ScoredRun
    task: Task
    results: Mapping[str, Any]
    answers: RowAnswers
    metric: str
    each: tuple[float, ...] | None
    row_scale: Scale
    right: tuple[bool, ...] | None
    types: Mapping[str, tuple[str | None, ...]]
    image_root: Path | None
    notes: tuple[str, ...]

    @property
    def right_means(self) -> str | None:
        """What an answer that is marked right is; None where none is."""
        if self.right is None:
            return None
        if CORRECT in self.answers.scores:
            return "the label is that of the data"
        return "three people, or as many as agree at all, gave this answer"

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.run.path.parent

    def interval(self) -> tuple[float, float] | None:
        """Returns the 95 % bootstrap interval of the score over the rows; None where it cannot be computed."""
        answered = Answered(self.run.scores[self.metric], self.each, (self.answers.inputs(),))
        return interval(self.metric, answered)


def read_rows(run: ScoredRun, images: Path | None = None) -> RunRows:
    """Reads what a page needs of a run.

    Args:
        run: The run.
        images: The folder of its images, where that is not the one it was trained with.

    Raises:
        CheckpointError: There are no answers, or they are not those of the scores.
    """
    if not run.path.name.startswith("results-"):
        raise CheckpointError(
            f"{run.path}: sums up runs of which one has lost its own scores; score each run again with `dept-vl eval`"
        )
    task, answers, results = run.config.resolve_task(), read_answers(run.path), read_results(run.path)
    if not answers.ids:
        raise CheckpointError(f"{run.path}: has no answers; score the run again with `dept-vl eval`")
    metric = task.primary_metric if task.primary_metric in run.scores else next(iter(run.scores))
    is_own = metric in answers.scores
    types, root, notes = _prepared(run, task, results, answers)
    return RunRows(
        run, task, results, answers, metric, answers.each(metric),
        display_scale(metric) if is_own else Scale(100.0, "% right"),
        _right(task, answers), types, images or root, notes,
    )  # fmt: skip


def _right(task: Task, answers: RowAnswers) -> tuple[bool, ...] | None:
    """Returns which rows are right: as their evaluator says, else as people agree; of captions none is."""
    if (correct := answers.scores.get(CORRECT)) is not None:
        return tuple(value > 0 for value in correct)
    if not (task.labels or task.input_columns):
        return None
    pairs = zip(answers.predictions, answers.references, strict=True)
    return tuple(bool(is_right(text, reference.references)) for text, reference in pairs)


def _prepared(
    run: ScoredRun, task: Task, results: Mapping[str, Any], answers: RowAnswers
) -> tuple[dict[str, tuple[str | None, ...]], Path | None, tuple[str, ...]]:
    """Returns the types of the rows, the folder of their images, and what is missing of both."""
    given = run.config.data.image_dir
    folder, split = Path(str(results.get("data_dir", ""))), str(results.get("split") or "test")
    try:
        rows = read_references(folder, task, split)
        root = given or split_info(folder, task, split).image_root
    except (DataError, OSError) as error:
        lost = "the scores by type" + (" and the folder of the images" if images_of(answers.asked[0]) else "")
        return (
            {},
            Path(given) if given else None,
            (f"The prepared data cannot be read, so that {lost} are lost: {error}",),
        )
    where = None if root is None else Path(root)
    if [row["references"] for row in rows] != [list(one.references) for one in answers.references]:
        return {}, where, (f"{folder} holds other rows now than those that were scored: there are no scores by type.",)
    kinds = {"answer type": "answer_type", "question type": "question_type"}
    types = {kind: tuple(row.get(column) for row in rows) for kind, column in kinds.items()}
    return {kind: names for kind, names in types.items() if any(names)}, where, ()
