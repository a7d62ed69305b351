"""Ablations and comparisons as people read them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from dept_vl.evaluators import display_scale
from dept_vl.evaluators.paired import Comparison
from dept_vl.reports.text import format_score, format_table

if TYPE_CHECKING:
    from dept_vl.experiments.ablation import AblationResult

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
            f"  {result.rows:,} rows; {metric} {scale}; decode: {result.decode}; same: rows answered as the trained run does",
            *footers(one.beside for one in result.ablated),
            f"written: {result.path}",
        ]
    )
