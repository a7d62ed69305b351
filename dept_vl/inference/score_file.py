"""Scores a file of predictions, in a task's official format or as another tool writes it, without any model."""

from __future__ import annotations

import logging
import pkgutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dept_vl.data.manifest import OWN_ID, REFERENCE_COLUMNS, open_split, split_path
from dept_vl.errors import ConfigError, DataError
from dept_vl.evaluators import (
    EvaluationInput,
    Reference,
    TokenizerName,
    align,
    score,
    score_each,
)
from dept_vl.inference.response_files import read_responses
from dept_vl.inference.result_files import files_beside
from dept_vl.inference.results import (
    EvaluationResult,
    add_fitting,
    check_metrics,
    warn_if_constant,
    write_answers,
    write_scores,
)
from dept_vl.system.bounded_reading import hash_file
from dept_vl.system.text_files import is_stream
from dept_vl.tasks import Task

logger = logging.getLogger(__name__)


def evaluate_file(
    task: Task,
    predictions: Path,
    references: Mapping[str, Path],
    *,
    metrics: Sequence[str] | None = None,
    tokenizer: TokenizerName = "ptb",
    allow_missing: bool = False,
    output: Path | None = None,
) -> EvaluationResult:
    """Scores a results file in the task's official format, or one that `read_responses` takes.

    Args:
        task: The task.
        predictions: The results file.
        references: Official reference files by the names in ``Task.reference_files``; none for a file of another tool
            that holds what people wrote.
        metrics: Names of evaluators or of scores; None for the task's own, and those that fit where they do not.
        tokenizer: How captions are tokenised.
        allow_missing: Score absent predictions as empty instead of refusing.
        output: Where the scores go as JSON, with what each example scored beside them; None writes none.

    Raises:
        ConfigError: A reference file was not named, or a metric is unknown.
        DataError: A file is missing or malformed, or predictions do not match the references.
    """
    started = time.perf_counter()
    scored = {"predictions": predictions, **references}
    if output is not None:
        _check_output(output, scored)
    names = check_metrics(task, metrics, tokenizer)
    known = _known(task, references)
    id_key, text_key = task.result_keys
    id_kind = type(next(iter(known or {}), 0))
    given = read_responses(predictions, id_key, text_key, id_kind=id_kind, questions=references.get("questions"))
    if known is None:
        known = given.references
        if known is None:
            raise _lacks_references(task, references)
        logger.warning("%s: scored against the answers in the file itself, as %s has them", predictions, given.tool)
    texts, aligned = align(given.texts, known, allow_missing=allow_missing, noun=id_key.removesuffix("_id"))
    names = add_fitting(names, aligned, is_asked=metrics is not None)
    inputs = EvaluationInput(texts, aligned, tokenizer)
    warn_if_constant(texts)
    files = {name: path for name, path in files_beside(output).items() if name != "predictions"} if output else {}
    result = EvaluationResult(task.name, score(names, inputs), len(aligned), files, time.perf_counter() - started)
    if output:
        by_id = dict(zip(known, texts, strict=True))
        write_answers(files, task.result_keys, by_id, aligned, score_each(names, inputs), [{} for _ in aligned])
        write_scores(
            result, names, tokenizer, predictions=str(predictions.absolute()), allow_missing=allow_missing,
            references={name: str(path.absolute()) for name, path in references.items()},
            sha256={name: hash_file(path) for name, path in scored.items()}, data={"rows": len(aligned)},
        )  # fmt: skip
    return result


def _known(task: Task, references: Mapping[str, Path]) -> dict[Any, Reference] | None:
    """Returns what people wrote by id; None where no file is named."""
    if not references and task.reference_files:
        return None
    if set(references) != set(task.reference_files) or task.reference_reader is None:
        raise _lacks_references(task, references)
    read: Callable[..., dict[Any, Reference]] = pkgutil.resolve_name(task.reference_reader)
    return read(**references) if task.declaration is None else read(task, **references)


def _lacks_references(task: Task, references: Mapping[str, Path]) -> ConfigError:
    needed = " and ".join(f"--{name}" for name in task.reference_files) or "a trained run (--checkpoint)"
    given = ", ".join(f"--{name}" for name in references) or "none of them"
    return ConfigError(f"task {task.name!r} with --predictions needs {needed}; given: {given}")


def _check_output(output: Path, scored: Mapping[str, Path]) -> None:
    """Refuses to record what files were scored where one is a pipe, or would be replaced."""
    for name, path in scored.items():
        if is_stream(path):
            raise ConfigError("--output: records which files were scored, and a pipe is none; write it to a file first")
        if path.resolve() == output.resolve():
            raise ConfigError(f"--output: {output} is the file of --{name}; choose another")


def prepared_references(task: Task, references: Path) -> dict[int, Reference] | dict[str, Reference]:
    """Returns what people wrote for the rows of a prepared split, by the ids that results call them by.

    Args:
        task: A declared task.
        references: ``DATA/<task>/<split>.parquet``.

    Raises:
        DataError: It is not such a file, is damaged, or is of another task.
    """
    data_dir, split = references.absolute().parent.parent, references.stem
    if split_path(data_dir, task, split) != references.absolute():
        raise DataError(
            f"--references {references}: task {task.name!r} is scored against a split that `dept-vl prepare` wrote, "
            f"such as {split_path(Path('DATA'), task, 'test')}"
        )
    rows = open_split(data_dir, task, split)
    columns = [name for name in REFERENCE_COLUMNS if name in rows.column_names]
    found = [Reference(**row) for row in rows.select_columns(columns)]
    return dict(zip(rows[OWN_ID if OWN_ID in rows.column_names else "example_id"], found, strict=True))
