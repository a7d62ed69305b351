"""What an evaluation found, and the file of scores it writes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dept_vl.evaluators import TokenizerName, check_available, display_scale
from dept_vl.runs.folder import describe_run
from dept_vl.system.atomic import write_json
from dept_vl.tasks import Task


@dataclass(frozen=True)
class EvaluationResult:
    """What an evaluation found.

    Attributes:
        task: Task name.
        metrics: Scores in the scorers' own scale, unrounded.
        num_scored: Examples scored, those without a prediction among them.
        files: Where predictions and scores were written.
        seconds: Time taken.
        budget: Trainable parameters, when a model was evaluated.
        split: The split, when a model was evaluated.
        protocol: The protocol of a text task.
        decode: How its answers were made, ``"generate"`` or ``"score"``.
        decode_agreement: Share of rows, 0 to 1, that both ways answer alike, when that was asked for.
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


def check_metrics(task: Task, metrics: Sequence[str] | None, tokenizer: TokenizerName) -> list[str]:
    """Returns the evaluators to run, all known and able to run here, before any model is loaded."""
    names = list(metrics or task.evaluators)
    check_available(names, tokenizer)
    return names


def write_scores(result: EvaluationResult, evaluators: Sequence[str], tokenizer: TokenizerName, **details: Any) -> None:
    """Writes scores with what is needed to re-make them (`dept_vl.inference.verify`)."""
    content = {
        "task": result.task,
        "split": result.split,
        "protocol": result.protocol,
        "metrics": result.metrics,
        "scale": _describe_scales(result.metrics),
        "num_scored": result.num_scored,
        "evaluators": list(evaluators),
        "caption_tokenizer": tokenizer,
        "seconds": result.seconds,
        **{name: getattr(result, name) for name in ("decode", "decode_agreement") if getattr(result, name) is not None},
        **details,
        "made_by": describe_run(),
    }
    path = result.files["scores"]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, content)


def _describe_scales(metrics: Iterable[str]) -> str:
    """Returns the scale of scores in words; details (behind a slash) have that of their score."""
    factors = {name: display_scale(name).factor for name in metrics if "/" not in name}
    printed = ", ".join(f"{name} x {factor:g}" for name, factor in factors.items())
    return f"as the reference implementation returns it, unrounded; reports print {printed}"
