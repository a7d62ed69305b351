"""How a run's answers are made, from its settings and its task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from dept_vl.errors import ConfigError
from dept_vl.settings.schema import TrainConfig
from dept_vl.tasks import Task


@dataclass(frozen=True)
class Decoding:
    """How answers are made.

    Attributes:
        method: ``"generate"``, or ``"score"``: the most likely of `labels`.
        labels: The label strings of ``"score"``; empty for ``"generate"``.
        num_beams: Of ``"generate"``; 1 for greedy.
        max_new_tokens: Generated tokens at most, or tokens of a label at most, the end of sequence included.
        precision: ``"bf16"`` for autocast.
    """

    method: Literal["generate", "score"]
    labels: tuple[str, ...]
    num_beams: int
    max_new_tokens: int
    precision: str = "float32"

    def record(self) -> dict[str, Any]:
        """Returns what a results file says of it: all but the labels, which are the task's."""
        return {key: value for key, value in vars(self).items() if key != "labels"}


def choose_decoding(
    config: TrainConfig, task: Task, method: Literal["auto", "generate", "score"] | None = None
) -> Decoding:
    """Returns how a run's answers are made: the settings' method, or another one that is asked for.

    Args:
        config: The run's settings.
        task: Its task, under the run's protocol.
        method: Instead of ``decode.method``.

    Raises:
        ConfigError: Scoring was asked for, and the task has no label set.
    """
    asked = method or config.decode.method
    if asked == "score" and task.labels is None:
        raise ConfigError(
            f"decode.method: 'score' needs a label set, and task {task.name!r} answers with free text; use 'generate'"
        )
    is_scored = asked == "score" or (asked == "auto" and task.labels is not None)
    max_new_tokens = None if is_scored else config.decode.max_new_tokens
    return Decoding(
        method="score" if is_scored else "generate",
        labels=task.labels if is_scored and task.labels else (),
        num_beams=config.decode.num_beams,
        max_new_tokens=max_new_tokens or config.data.max_target_length,
        precision=config.loop.precision,
    )
