"""The parts of a page as the template takes them: texts and numbers that are ready to be shown."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dept_vl.errors import CheckpointError
from dept_vl.evaluators import display_scale
from dept_vl.evaluators.base import Scale
from dept_vl.reports.drawing import draw_inline
from dept_vl.reports.figures import Panel, Point, Series
from dept_vl.reports.page.cards import text_of
from dept_vl.reports.page.curves import say_sizes, training_panels
from dept_vl.reports.page.rows import RunRows
from dept_vl.reports.page.statistics import (
    OTHER,
    Calibration,
    Group,
    Summary,
    calibrate,
    confusions,
    score_groups,
    summarise,
    words_of,
)
from dept_vl.reports.scored_answers import count_trained, read_metrics
from dept_vl.runs.folder import RECORD_FILE, read_record
from dept_vl.settings.load import flat_settings, nested_settings

_MOST_LABELS = 30
_NO_CONFIDENCE = (
    "How sure the model was of its answers is not recorded in this run's answers, so there is no calibration. "
    "dept-vl eval records it of labels and of greedy answers, not of answers of beam search; earlier versions recorded "
    "it of labels alone."
)
_NO_RIGHT = "There is no right and wrong answer to these rows, and so no calibration."

Section = dict[str, Any]


def run_section(rows: RunRows, name: str) -> Section:
    """Returns everything about one run but its cards.

    Args:
        rows: The run.
        name: What no other run of the page is called, for figures.
    """
    records = read_metrics(rows.folder)
    panels = training_panels(records, rows.task.name)
    sizes, warning = say_sizes(records)
    settings = flat_settings(nested_settings(rows.run.config))
    return {
        **headline(rows),
        "commands": _commands(rows),
        "budget": _budget(rows),
        "scores": [(key, *_printed(key, value)) for key, value in rows.run.scores.items() if "/" not in key],
        "figures": [(panel.title, draw_inline(panel, f"{name}-{number}")) for number, panel in enumerate(panels)],
        "sizes": sizes,
        "warning": warning,
        "groups": _groups(rows),
        "row_scale": rows.row_scale.text,
        "calibration": _calibration(rows, name),
        "confusion": _confusion(rows),
        "lengths": _lengths(rows),
        "settings": [(key, "" if value is None else str(value)) for key, value in sorted(settings.items())],
        "versions": _versions(rows),
        "notes": rows.notes,
    }  # fmt: skip


def headline(rows: RunRows) -> Section:
    """Returns what a run is and what it scores."""
    run, scale = rows.run, display_scale(rows.metric)
    ends, trained = rows.interval(), count_trained(rows.folder)
    return {
        "folder": str(rows.folder),
        "task": rows.task.name,
        "protocol": rows.task.protocol,
        "method": run.config.tuner.label,
        "seed": run.config.seed,
        "metric": rows.metric,
        "score": scale.printed(run.scores[rows.metric]),
        "scale": scale.text,
        "interval": None if ends is None else tuple(map(scale.printed, ends)),
        "rows": len(rows.answers.ids),
        "split": rows.results.get("split") or "test",
        "decode": run.decode,
        "is_complete": run.is_complete,
        "trained": None if trained is None else f"{trained:,}",
    }


def _printed(key: str, value: float) -> tuple[str, str]:
    scale = display_scale(key)
    return scale.printed(value), scale.text


def _record(rows: RunRows) -> Mapping[str, Any]:
    """Returns what ``run.json`` says; nothing where it is not there, as in a folder that holds an adapter alone."""
    try:
        return read_record(rows.folder / RECORD_FILE)
    except CheckpointError:
        return {}


def _commands(rows: RunRows) -> list[tuple[str, str]]:
    """Returns what each command was for, and the command."""
    made_by = rows.results.get("made_by") or {}
    found = [("trained with", _record(rows).get("command")), ("scored with", made_by.get("command"))]
    verify = f"dept-vl eval --verify {shlex.quote(str(rows.run.path))}"
    return [(what, _typed(str(command))) for what, command in found if command] + [("score it again with", verify)]


def _typed(command: str) -> str:
    """Returns a recorded command as it would be typed."""
    program, _, rest = command.partition(" ")
    return f"python -m dept_vl {rest}" if program == "__main__.py" else command


def _budget(rows: RunRows) -> list[tuple[str, str, str]]:
    """Returns trained parameters by group and together, each with its share of all where that is recorded."""
    sizes = rows.results.get("parameters") or {}
    if not sizes:
        trained = count_trained(rows.folder)
        return [] if trained is None else [("trained", f"{trained:,}", "")]
    share = {name: f"{100 * count / sizes['all']:.2f} % of all" for name, count in sizes["groups"].items()}
    lines = [(name, f"{count:,}", share[name]) for name, count in sizes["groups"].items()]
    lines.append(("trained", f"{sizes['trained']:,}", f"{100 * sizes['trained'] / sizes['all']:.2f} % of all"))
    return [*lines, ("all, the frozen ones too", f"{sizes['all']:,}", "")]


def _groups(rows: RunRows) -> list[Section]:
    """Returns a table of scores for each way to group the rows."""
    kinds = dict(rows.types)
    if rows.task.labels:
        kinds["label"] = tuple(reference.references[0] for reference in rows.answers.references)
    if rows.each is None:
        return []
    found = [(f"by {kind}", score_groups(names, rows.each)) for kind, names in kinds.items()]
    most = max(rows.each)
    return [
        {"title": title, "lines": [_group_line(group, rows.row_scale, most) for group in groups]}
        for title, groups in found
    ]


def _group_line(group: Group, scale: Scale, most: float) -> Section:
    ends = (group.mean, group.low, group.high)
    mean, low, high = (100 * end / most if most > 0 else 0.0 for end in ends)
    return {
        "name": group.name, "count": f"{group.count:,}", "score": scale.printed(group.mean),
        "low": scale.printed(group.low), "high": scale.printed(group.high),
        "bar": f"--mean:{mean:.1f}%;--low:{low:.1f}%;--width:{high - low:.1f}%",
    }  # fmt: skip


def _calibration(rows: RunRows, name: str) -> Section:
    if rows.right is None:
        return {"note": _NO_RIGHT}
    if rows.answers.confidences is None:
        return {"note": _NO_CONFIDENCE}
    found: Calibration = calibrate(rows.answers.confidences, rows.right)
    points = tuple(Point(sure, right) for _, sure, right in found.bins)
    even = Series("as sure as right", (Point(0, 0), Point(1, 1)), False)
    panel = Panel("reliability", "mean confidence", "share right", (Series("answers", points, True), even), "lines")
    return {
        "error": f"{found.error:.3f}",
        "figure": draw_inline(panel, f"{name}-reliability"),
        "bins": [(f"{count:,}", f"{sure:.2f}", f"{right:.2f}") for count, sure, right in found.bins],
    }


def _confusion(rows: RunRows) -> Section | None:
    labels = rows.task.labels
    if not labels:
        return None
    if len(labels) > _MOST_LABELS:
        return {"note": f"The task has {len(labels)} labels, too many for a matrix of them."}
    golds = [reference.references[0] for reference in rows.answers.references]
    found = confusions(golds, rows.answers.predictions, labels)
    columns = [*labels, *([OTHER] if any(OTHER in counts for counts in found.values()) else [])]
    lines = []
    for label, counts in found.items():
        total = max(1, sum(counts.values()))
        cells = [(f"{counts[column]:,}", f"--share:{100 * counts[column] / total:.0f}%") for column in columns]
        lines.append((label, cells))
    return {"columns": columns, "lines": lines}


def _lengths(rows: RunRows) -> list[tuple[str, ...]]:
    """Returns how long texts are, in words between blanks."""
    columns = [name for name in rows.answers.asked[0] if name != "image"]
    texts = {name: [text_of(asked.get(name, "")) for asked in rows.answers.asked] for name in columns}
    texts["reference"] = [text for one in rows.answers.references for text in one.references]
    texts["answer of the model"] = list(rows.answers.predictions)
    return [summary_line(name, found) for name, of_it in texts.items() if (found := words_of(of_it)) is not None]


def summary_line(name: str, summary: Summary) -> tuple[str, ...]:
    """Returns a line of the table of lengths and sizes."""
    numbers = (f"{value:g}" for value in (summary.least, summary.median, round(summary.mean, 1), summary.most))
    return (name, f"{summary.count:,}", *numbers)


def size_lines(sizes: Sequence[tuple[int, int]]) -> list[tuple[str, ...]]:
    """Returns the widths and heights of images, in pixels, as lines of that table."""
    names = ("width, pixels", "height, pixels")
    return [summary_line(name, summarise(side)) for name, side in zip(names, zip(*sizes, strict=True), strict=False)]


def _versions(rows: RunRows) -> list[tuple[str, str, str]]:
    """Returns machine and versions, of the training and of the scoring."""
    columns = [_flat_record(_record(rows)), _flat_record(rows.results.get("made_by") or {})]
    names = dict.fromkeys(name for column in columns for name in column)
    return [(name, columns[0].get(name, ""), columns[1].get(name, "")) for name in names]


def _flat_record(record: Mapping[str, Any]) -> dict[str, str]:
    plain = {name: record.get(name) for name in ("commit", "machine", "python")}
    found = {**plain, **(record.get("versions") or {})}
    return {name: str(value) for name, value in found.items() if value is not None}


def run_names(folders: Sequence[Path]) -> list[str]:
    """Returns a short name for each folder: its last part, or all of it where two end alike."""
    last = [folder.resolve().name for folder in folders]
    return [name if last.count(name) == 1 else str(folder) for name, folder in zip(last, folders, strict=True)]
