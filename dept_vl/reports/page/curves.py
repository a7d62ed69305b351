"""What a run measured while it trained: its ``metrics.jsonl`` as figures, and what they say in a sentence."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dept_vl.evaluators import LOSS, display_scale
from dept_vl.models.shares import describe_shares, embedding_shares, warning_about
from dept_vl.reports.figures import Panel, Point, Series

_MOST_LINES = 6
"""Of one figure: as many as there are colours."""

Record = Mapping[str, Any]


def training_panels(records: Sequence[Record], task: str) -> list[Panel]:
    """Returns loss, validation scores, rates, and the sizes of prompt and update, where they are recorded.

    Args:
        records: The lines of ``metrics.jsonl``.
        task: The task that the page is about; of a run of several its scores and their mean are drawn.
    """
    keys = list(dict.fromkeys(key for record in records for key in record))
    scores = [key for key in keys if _is_score(key, task)]
    rates = {key: key.removeprefix("lr/") for key in keys if key.startswith("lr/")}
    losses = {"loss": "training", f"val/{LOSS}": "validation"}
    panels = [
        Panel("loss", "step", "nats a token", _lines(records, losses), "lines"),
        Panel(
            "validation score", "step", "as papers print it",
            _lines(records, {key: key.removeprefix("val/") for key in scores}, _printed), "lines",
        ),
        Panel("learning rates", "step", "rate", _lines(records, rates, _above_zero), "lines", is_log_y=True),
        Panel(
            "size beside the frozen embeddings", "step", "times the embeddings",
            _shares(records), "lines", is_log_y=True,
        ),
    ]  # fmt: skip
    return [panel for panel in panels if panel.series]


def _is_score(key: str, task: str) -> bool:
    kind, _, name = key.partition("/")
    name = name.removeprefix(f"{task}/")
    return kind == "val" and "/" not in name and name != LOSS


def _printed(key: str, value: float) -> float:
    return value * display_scale(key.removeprefix("val/")).factor


def _above_zero(_: str, value: float) -> float | None:
    return value if value > 0 else None


def _lines(
    records: Sequence[Record], names: Mapping[str, str], scale: Callable[[str, float], float | None] | None = None
) -> tuple[Series, ...]:
    """Returns a line a key that was recorded; the validation's are solid, what has no place in a figure is left out."""
    lines = []
    for key, name in list(names.items())[:_MOST_LINES]:
        points = []
        for record in records:
            value = _number(record.get(key))
            shown = value if value is None or scale is None else scale(key, value)
            if shown is not None and (step := _number(record.get("step"))) is not None:
                points.append(Point(step, shown))
        lines += [Series(name, tuple(points), True)] if points else []
    return tuple(lines)


def _shares(records: Sequence[Record]) -> tuple[Series, ...]:
    measured = [{"step": record.get("step"), **shares_of(record)} for record in records]
    return _lines(measured, {"prompt": "prompt", "update": "what is added to the text"})


def shares_of(record: Record) -> dict[str, float]:
    """Returns prompt and update of a line of metrics as multiples of the embeddings."""
    sizes = {key.removeprefix("rms/"): _number(record.get(key)) for key in record if key.startswith("rms/")}
    return embedding_shares({name: size for name, size in sizes.items() if size is not None})


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_number else None


def say_sizes(records: Sequence[Record]) -> tuple[str | None, str | None]:
    """Returns how large prompt and update are at the end, and a warning where what is added does nothing."""
    measured = [shares for record in records if (shares := shares_of(record))]
    if not measured:
        return None, None
    return describe_shares(measured[-1]), warning_about(measured[-1])
