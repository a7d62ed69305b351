"""A table of the paper, every row of it, with ours below each: as text, Markdown or CSV."""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from dept_vl.evaluators import display_scale
from dept_vl.experiments.scores import spread
from dept_vl.reports.paper_numbers import PaperRow, PaperTable
from dept_vl.reports.paper_settings import fits_place, paper_row, what_it_is
from dept_vl.reports.scored_answers import count_trained
from dept_vl.reports.scored_runs import ScoredRun
from dept_vl.tasks import get_task

TableFormat = Literal["text", "markdown", "csv"]

_WIDTH = 100
_SHORT = "superglue-"
_NOT_THERE = "not in the paper"
_SPEED = "samples/s"


@dataclass(frozen=True)
class Number:
    """A cell: a number as it is printed, and its deviation; ours with how many runs it is of."""

    mean: str
    std: str = ""
    runs: int = 0


@dataclass(frozen=True)
class GridLine:
    """One line of a table.

    Attributes:
        group: How it was trained, where the table says so; ``not in the paper`` for our other methods.
        method: The row's name.
        source: Whose numbers they are.
        params: Trained parameters as the table prints them, ours too: a share of all, or how many the method trains.
        cells: By column: a task, a mean, the speed.
        few_shot: k.
        backbone: Where it is not the table's own.
    """

    group: str
    method: str
    source: Literal["paper", "ours"]
    params: str
    cells: Mapping[str, Number]
    few_shot: int | None
    backbone: str | None

    @property
    def section(self) -> tuple[int | None, str | None]:
        """What it shares with the other lines of its section."""
        return self.few_shot, self.backbone


def grid_lines(table: PaperTable, runs: Sequence[ScoredRun]) -> list[GridLine]:
    """Returns every row of a table, each followed by ours, and at the end of a section our methods without a row.

    Args:
        table: The paper's.
        runs: Those that have a place in it. Runs of one cell that do not agree get a line each.
    """
    lines: list[GridLine] = []
    sections = list(dict.fromkeys((row.few_shot, row.backbone) for row in table.rows))
    for section in sections:
        rows = [row for row in table.rows if (row.few_shot, row.backbone) == section]
        left = [run for run in runs if fits_place(rows[0], run.config)]
        for row in rows:
            lines.append(_printed(row))
            here = [run for run in left if row_of(rows, run) is row]
            lines += _ours(table, here, row.group or "", row.method, section)
        rest = [run for run in left if row_of(rows, run) is None]
        for method in dict.fromkeys(paper_row(run).method for run in rest):
            here = [run for run in rest if paper_row(run).method == method]
            lines += _ours(table, here, _NOT_THERE, method, section)
    return lines


def row_of(rows: Sequence[PaperRow], run: ScoredRun) -> PaperRow | None:
    """Returns the row that a run stands beside: of its method, k, backbone and, where rows have one, group."""
    place = paper_row(run)
    return next(
        (
            row
            for row in rows
            if row.method == place.method and row.group in (None, place.group) and fits_place(row, run.config)
        ),
        None,
    )


def _printed(row: PaperRow) -> GridLine:
    cells = {
        task: Number(f"{value}", f"{row.std[task]}" if task in row.std else "") for task, value in row.values.items()
    }
    cells |= {_mean_name(name): Number(f"{value}") for name, value in row.means.items()}
    if row.samples_per_s is not None:
        cells[_SPEED] = Number(f"{row.samples_per_s}")
    percent = "" if row.updated_params_percent is None else f"{row.updated_params_percent} %"
    params = (row.params or percent).partition(" (")[0]
    return GridLine(row.group or "", row.method, "paper", params, cells, row.few_shot, row.backbone)


def _ours(
    table: PaperTable, runs: Sequence[ScoredRun], group: str, method: str, section: tuple[int | None, str | None]
) -> list[GridLine]:
    """Returns our lines of one row: as many as its fullest cell has groups of runs that agree."""
    cells: dict[str, list[tuple[Number, list[ScoredRun]]]] = {}
    for task in table.tasks:
        metric = get_task(task).primary_metric
        agreeing: dict[str, list[ScoredRun]] = {}
        for run in runs:
            if run.task == task and metric in run.scores:
                agreeing.setdefault(json.dumps(what_it_is(run), sort_keys=True), []).append(run)
        cells[task] = [(_number(metric, same), same) for same in agreeing.values()]
    lines = []
    for number in range(max((len(found) for found in cells.values()), default=0)):
        here = {task: found[number] for task, found in cells.items() if number < len(found)}
        numbers = {task: cell for task, (cell, _) in here.items()} | _means(table, {t: r for t, (_, r) in here.items()})
        every = [run for _, same in here.values() for run in same]
        lines.append(GridLine(group, method, "ours", _trained(table, every), numbers, *section))
    return lines


def _trained(table: PaperTable, runs: Sequence[ScoredRun]) -> str:
    """Returns what runs train, as the table counts; "" if that is not known.

    That is a share of all parameters, or how many the method has, over the tasks that share them.
    """
    if any(row.updated_params_percent is not None for row in table.rows):
        shares = [run.share for run in runs if run.share is not None]
        return f"{100 * statistics.fmean(shares):.2f} %" if shares else ""
    counts = [(count_trained(run.path.parent, with_projection=False), len(run.together) or 1) for run in runs]
    known = [count / tasks for count, tasks in counts if count is not None]
    return f"{statistics.fmean(known):,.0f}" if known else ""


def _number(metric: str, runs: Sequence[ScoredRun]) -> Number:
    scale, found = display_scale(metric), spread([run.scores[metric] for run in runs])
    return Number(scale.printed(found.mean), "" if found.std is None else scale.printed(found.std), len(runs))


def _means(table: PaperTable, cells: Mapping[str, Sequence[ScoredRun]]) -> dict[str, Number]:
    """Returns the means over groups of tasks of which every one has runs, in the printed scale."""
    found = {}
    for name, tasks in table.means.items():
        if tasks and all(task in cells for task in tasks):
            metrics = {task: get_task(task).primary_metric for task in tasks}
            values = [
                spread([run.scores[metrics[task]] for run in cells[task]]).mean * display_scale(metrics[task]).factor
                for task in tasks
            ]
            found[_mean_name(name)] = Number(f"{statistics.fmean(values):.1f}")
    return found


def _mean_name(name: str) -> str:
    return f"mean {name}"


def columns(table: PaperTable) -> list[list[str]]:
    """Returns the columns of a table in blocks: tasks of one mean with it, the others together, the speed."""
    blocks = [[*tasks, _mean_name(name)] for name, tasks in table.means.items() if tasks]
    named = {task for tasks in table.means.values() for task in tasks}
    rest = [task for task in table.tasks if task not in named]
    rest += [_SPEED] if any(row.samples_per_s is not None for row in table.rows) else []
    return [*blocks, rest] if rest else blocks


def format_grid(table: PaperTable, lines: Sequence[GridLine], form: TableFormat = "text") -> str:
    """Returns the lines of a table as text of at most 100 columns, as Markdown, or as CSV, a number a line."""
    if form == "csv":
        return _as_csv(table, lines)
    parts = []
    for section in dict.fromkeys(line.section for line in lines):
        here = [line for line in lines if line.section == section]
        title = ", ".join(f"k = {one}" if isinstance(one, int) else one for one in section if one is not None)
        if form == "markdown":
            parts.append("\n".join([f"**{title}**\n"] * bool(title) + _as_markdown(table, here)))
        else:
            parts += ["\n".join([f"  {title}"] * bool(title) + _as_text(block, here)) for block in columns(table)]
    return "\n\n".join(parts)


def _as_text(block: Sequence[str], lines: Sequence[GridLine]) -> list[str]:
    """Returns one block of a section; deviations stand behind their means, or below them where that is too wide."""
    has_params = any(line.params for line in lines)
    for is_inline in (True, False):
        rows = [["", *(["params"] if has_params else []), *(_head(name) for name in block)]]
        groups = [""]
        for line in lines:
            cells = [line.cells.get(name, Number("")) for name in block]
            if line.source == "ours" and not any(cell.mean for cell in cells):
                continue
            name = line.method if line.source == "paper" or line.group == _NOT_THERE else "  ours"
            label = [name, *([line.params] if has_params else [])]
            rows.append([*label, *(f"{c.mean} +- {c.std}" if is_inline and c.std else c.mean for c in cells)])
            groups.append(line.group)
            if not is_inline and any(cell.std for cell in cells):
                rows.append(["    +-", *([""] if has_params else []), *(cell.std for cell in cells)])
                groups.append(line.group)
        text = _align(rows)
        if max(map(len, text)) <= _WIDTH:
            break
    said: list[str] = []
    for number, (line_text, group) in enumerate(zip(text, groups, strict=True)):
        if group and group != groups[number - 1]:
            said.append(f"  {group}")
        said.append(line_text)
    return said


def _align(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        (
            "  " + "  ".join(c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        ).rstrip()
        for row in rows
    ]


def _head(column: str) -> str:
    """Returns the head of a column: SuperGLUE's tasks without its name, a mean without what it is over."""
    return "mean" if column.startswith("mean ") else column.removeprefix(_SHORT)


def _as_markdown(table: PaperTable, lines: Sequence[GridLine]) -> list[str]:
    names = [name for block in columns(table) for name in block]
    has_groups = any(line.group for line in lines)
    heads = [*(["group"] if has_groups else []), "method", "whose", "params", *(n.removeprefix(_SHORT) for n in names)]
    rows = [heads, ["---"] * len(heads)]
    for line in lines:
        cells = [line.cells.get(name, Number("")) for name in names]
        label = [*([line.group] if has_groups else []), line.method, line.source, line.params]
        rows.append([*label, *(f"{cell.mean} ± {cell.std}" if cell.std else cell.mean for cell in cells)])
    return [f"| {' | '.join(row)} |" for row in rows]


def _as_csv(table: PaperTable, lines: Sequence[GridLine]) -> str:
    names = [name for block in columns(table) for name in block]
    content = io.StringIO()
    writer = csv.writer(content, lineterminator="\n")
    writer.writerow(
        ["table", "few_shot", "backbone", "group", "method", "source", "params", "column", "mean", "std", "runs"]
    )
    for line in lines:
        start = [
            table.title.partition(":")[0],
            line.few_shot or "",
            line.backbone or "",
            line.group,
            line.method,
            line.source,
            line.params,
        ]
        for name in names:
            if (cell := line.cells.get(name)) is not None:
                writer.writerow([*start, name, cell.mean, cell.std, cell.runs or ""])
    return content.getvalue().rstrip("\n")
