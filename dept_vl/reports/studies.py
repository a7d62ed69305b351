"""Ablations and comparisons as people read them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from dept_vl.evaluators import display_scale
from dept_vl.evaluators.paired import Comparison
from dept_vl.reports.text import format_score, format_spread, format_table

if TYPE_CHECKING:
    from dept_vl.experiments.ablation import AblationResult
    from dept_vl.reports.comparison import Cell, MethodComparison

_FOOTERS = {
    "mcnemar": "a : b: rows that it alone has right and that the other alone has; p: McNemar's exact test",
    "bootstrap": "low .. high: 95 % interval of the difference; p: paired bootstrap over the rows",
}
_CORRECTION = "p is two-sided and not corrected for several tests"


def format_difference(metric: str, value: float) -> str:
    """Returns a difference of scores in the printed scale, with its sign where it rounds to more than 0."""
    scale = display_scale(metric)
    text = f"{value * scale.factor:+.{scale.digits}f}"
    return text[1:] if float(text) == 0 else text


def format_p(p: float) -> str:
    """Returns a p as three digits, or that it is smaller."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def format_evidence(metric: str, beside: Comparison) -> str:
    """Returns what p is of: the rows that differ, or an interval."""
    if beside.test == "mcnemar":
        return f"{beside.better:,} : {beside.worse:,}"
    assert beside.low is not None
    assert beside.high is not None
    return " .. ".join(format_difference(metric, end) for end in (beside.low, beside.high))


def footers(comparisons: Iterable[Comparison]) -> list[str]:
    """Returns lines that explain the tests there are."""
    tests = dict.fromkeys(one.test for one in comparisons)
    return [f"  {_FOOTERS[test]}" for test in tests] + ([f"  {_CORRECTION}"] if tests else [])


def describe_ablation(result: AblationResult) -> str:
    """Returns a table of what a run scores with each of its parts set back."""
    metric = result.metric
    trained, scale = format_score(metric, result.trained[metric])
    rows: list[tuple[str, ...]] = [
        ("part", metric, "set to", "difference", "", "p", "same", "parameters"),
        ("(as trained)", trained, "", "", "", "", "", ""),
    ]
    for one in result.ablated:
        rows.append(
            (
                one.part, format_score(metric, one.metrics[metric])[0], one.state,
                format_difference(metric, one.beside.difference), format_evidence(metric, one.beside),
                format_p(one.beside.p), f"{100 * one.same_answers:.1f} %",
                f"{one.parameters:,}" if one.parameters else "",
            )
        )  # fmt: skip
    return "\n".join(
        [
            f"{result.task} {result.split}, {result.method}: {result.run_dir} with one part set back, the others as "
            "trained",
            format_table(rows),
            f"  {result.rows:,} rows; {metric} {scale}; decode: {result.decode}; same: rows answered as when trained",
            *footers(one.beside for one in result.ablated),
            f"written: {result.path}",
        ]
    )


def describe_comparison(result: MethodComparison) -> str:
    """Returns a table of methods x tasks, and the tests against one of the methods below it."""
    tasks = list(result.metrics)
    heads = {"parameters": "parameters", "trained_per_s": "trained/s", "answered_per_s": "answered/s"}
    shown = [name for name in heads if any(getattr(row, name) is not None for row in result.methods)]
    rows: list[tuple[str, ...]] = [("method", *tasks, *(heads[name] for name in shown))]
    for row in result.methods:
        cells = [_cell(result.metrics[task], row.cells.get(task)) for task in tasks]
        values = [getattr(row, name) for name in shown]
        rows.append((row.label, *cells, *("" if v is None else format(v, ",.0f") for v in values)))
    lines = [format_table(rows), *_explain(result)]
    if any(name.endswith("_per_s") for name in shown):
        lines.append("  speeds are each run's own, on the machine that it was trained or scored on")
    tested = [(task, row, row.cells[task]) for task in tasks for row in result.methods if task in row.cells]
    tests = [(task, row, cell.beside) for task, row, cell in tested if cell.beside is not None]
    if tests:
        table: list[tuple[str, ...]] = [("task", "difference", "method", "", "p")]
        for task, row, beside in tests:
            metric = result.metrics[task]
            evidence = format_evidence(metric, beside)
            table.append((task, format_difference(metric, beside.difference), row.label, evidence, format_p(beside.p)))
        lines += [f"against {result.against}:", format_table(table), *footers(beside for *_, beside in tests)]
    untested = [(task, row.label) for task, row, cell in tested if cell.beside is None and row.label != result.against]
    lines += [
        f"  {label} on {task} is not tested: {result.against} has no run there, or answers are gone"
        for task, label in untested
    ]
    return "\n".join(lines)


def _cell(metric: str, cell: Cell | None) -> str:
    if cell is None:
        return ""
    several = f" ({len(cell.runs)})" if len(cell.runs) > 1 else ""
    return f"{format_spread(metric, cell.scores)}{several}"


def _explain(result: MethodComparison) -> list[str]:
    """Returns what the numbers of the table are."""
    lines = []
    for task, metric in result.metrics.items():
        rows = result.rows[task]
        scale = display_scale(metric)
        of = f", {rows:,} test rows" if rows is not None else ""
        lines.append(f"  {task}: {metric} {scale.text}{of}")
    if any(len(cell.runs) > 1 for row in result.methods for cell in row.cells.values()):
        lines.append("  +- is the sample standard deviation over seeds (n - 1), how many in brackets")
    return lines
