"""What an evaluation found, and the files it writes: scores, predictions, and answers for people to read."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dept_vl.evaluators import (
    Reference,
    TokenizerName,
    check_available,
    concerns,
    display_scale,
    evaluator_names,
    fitting,
    warn_of,
)
from dept_vl.evaluators.official_files import write_results
from dept_vl.runs.folder import describe_run
from dept_vl.system.atomic import encode_json, write_json, write_text
from dept_vl.tasks import Row, Task

logger = logging.getLogger(__name__)

FORMAT_VERSION = 2
"""Files without a version are of format 1: they do not say what their scores are of."""

CONFIDENCE = "confidence"
"""Key of an answer's line: the probability that the model gave to the answer, 0 to 1; not of answers of beams."""


@dataclass(frozen=True)
class EvaluationResult:
    """What an evaluation found.

    Attributes:
        task: Task name.
        metrics: Scores in the scorers' own scale, unrounded.
        num_scored: Examples scored, those without a prediction among them.
        files: What was written, ``scores``, ``predictions`` and ``answers`` -> where.
        seconds: Time taken.
        budget: Trainable parameters, when a model was evaluated.
        split: The split, when a model was evaluated.
        protocol: The protocol of a text task.
        decode: How its answers were made, ``"generate"`` or ``"score"``.
        decode_agreement: Share of rows, 0 to 1, that both ways answer alike, when that was asked for.
        answer_seconds: Time that the answers alone took, models and data being open, when a model was evaluated.
        by_task: Of a run of several tasks, what each task's evaluation found.
    """

    task: str
    metrics: dict[str, float]
    num_scored: int
    files: dict[str, Path] = field(default_factory=dict)
    seconds: float = 0.0
    budget: Any = None
    split: str | None = None
    protocol: str | None = None
    decode: str | None = None
    decode_agreement: float | None = None
    answer_seconds: float | None = None
    by_task: Mapping[str, EvaluationResult] = field(default_factory=dict)


_WHERE_KNOWN = ("decode", "decode_agreement", "answer_seconds")


def check_metrics(task: Task, metrics: Sequence[str] | None, tokenizer: TokenizerName) -> list[str]:
    """Returns the evaluators to run, all known and able to run here, before any model is loaded."""
    names = evaluator_names(metrics or task.evaluators)
    check_available(names, tokenizer)
    return names


def add_fitting(names: list[str], references: Sequence[Reference], *, is_asked: bool) -> list[str]:
    """Warns of scores that say less than they seem to, and adds the evaluators that fit unless these were asked for."""
    found = concerns(names, references)
    warn_of(found)
    return names if is_asked else evaluator_names([*names, *fitting(found)])


def write_answers(
    files: Mapping[str, Path],
    keys: tuple[str, str],
    predictions: Mapping[Any, str],
    references: Sequence[Reference],
    each: Mapping[str, Sequence[float]],
    inputs: Sequence[Row],
    confidences: Sequence[float] | None = None,
) -> None:
    """Writes predictions in the official format and, a line each, with what they answer and what people said.

    Args:
        files: From `dept_vl.inference.result_files`; without ``predictions`` where those were given.
        keys: Names of id and text in the official format.
        predictions: Id, as results name it, to text.
        references: What people wrote, in the same order.
        each: Scores of each example, in the same order.
        inputs: Image and columns of each example, in the same order.
        confidences: Probability of each prediction, 0 to 1, in the same order; None where that is not known.
    """
    files["answers"].parent.mkdir(parents=True, exist_ok=True)
    if "predictions" in files:
        write_results(files["predictions"], predictions, *keys)
    lines = []
    for index, ((example_id, text), reference) in enumerate(zip(predictions.items(), references, strict=True)):
        scores = {name: values[index] for name, values in each.items()}
        record = {keys[0]: example_id, **inputs[index], keys[1]: text}
        sure = {} if confidences is None else {CONFIDENCE: confidences[index]}
        record |= {"references": list(reference.references), "scores": scores, **sure}
        lines.append(encode_json(record) + "\n")
    write_text(files["answers"], "".join(lines))


def write_scores(result: EvaluationResult, evaluators: Sequence[str], tokenizer: TokenizerName, **details: Any) -> None:
    """Writes scores with what they are of and what is needed to re-make them (`dept_vl.inference.verify`)."""
    content = {
        "format_version": FORMAT_VERSION,
        "task": result.task,
        "split": result.split,
        "protocol": result.protocol,
        "metrics": result.metrics,
        "scale": _describe_scales(result.metrics),
        "scales": {name: _scale(name) for name in result.metrics if "/" not in name},
        "num_scored": result.num_scored,
        "evaluators": list(evaluators),
        "caption_tokenizer": tokenizer,
        "seconds": result.seconds,
        **{name: getattr(result, name) for name in _WHERE_KNOWN if getattr(result, name) is not None},
        **details,
        "made_by": describe_run(),
    }
    path = result.files["scores"]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, content)


def _scale(name: str) -> dict[str, Any]:
    scale = display_scale(name)
    return {"factor": scale.factor, "text": scale.text}


def _describe_scales(metrics: Iterable[str]) -> str:
    """Returns the scale of scores in words; details (behind a slash) have that of their score."""
    factors = {name: display_scale(name).factor for name in metrics if "/" not in name}
    printed = ", ".join(f"{name} x {factor:g}" for name, factor in factors.items())
    return f"as the reference implementation returns it, unrounded; reports print {printed}"


def warn_if_constant(predictions: Sequence[str]) -> None:
    """Warns where one text is predicted for everything: correlations count that as 0, other scores say little."""
    if len(predictions) > 1 and len(set(predictions)) == 1:
        text = predictions[0] if len(predictions[0]) <= 60 else f"{predictions[0][:57]}..."
        logger.warning(
            "all %d predictions are %r; a correlation is undefined then and counts as 0", len(predictions), text
        )
