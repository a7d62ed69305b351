"""How answers are made: by generating, or by scoring the labels of the task. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dept_vl.errors import ConfigError
from dept_vl.settings.load import TrainConfig
from dept_vl.tasks import Task


@dataclass(frozen=True)
class Decoding:
    """How answers are made.

    Attributes:
        method: ``"generate"``, or ``"score"``: the most likely of `labels`.
        labels: The label strings of ``"score"``; empty for ``"generate"``.
        num_beams: Of ``"generate"``; 1 for greedy.
        max_new_tokens: Generated tokens at most, and tokens of a label at most, the end of sequence included.
        precision: ``"bf16"`` for autocast.
    """

    method: Literal["generate", "score"]
    labels: tuple[str, ...]
    num_beams: int
    max_new_tokens: int
    precision: str = "float32"


def choose_decoding(
    config: TrainConfig, task: Task, method: Literal["auto", "generate", "score"] | None = None
) -> Decoding:
    """Returns how a run's answers are made: the settings' method, or another one that is asked for.

    Raises:
        ConfigError: Scoring was asked for, and the task has no label set.
    """
    asked, labels = method or config.decode.method, task.label_set(config.data.protocol)
    if asked == "score" and labels is None:
        raise ConfigError(
            f"decode.method: 'score' needs a label set, and task {task.name!r} answers with free text; use 'generate'"
        )
    is_scored = asked == "score" or (asked == "auto" and labels is not None)
    return Decoding(
        method="score" if is_scored else "generate",
        labels=labels if is_scored and labels else (),
        num_beams=config.decode.num_beams,
        max_new_tokens=config.data.max_target_length,
        precision=config.loop.precision,
    )
