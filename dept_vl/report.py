"""Scores, budgets and predictions as people read them. The one place that rescales and rounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dept_vl.evaluate import EvaluationResult
    from dept_vl.models.parameter_budget import ParameterBudget
    from dept_vl.predict import Prediction
    from dept_vl.train import TrainResult

_PERCENT = "of 100"
_TIMES_100 = "x 100, as papers print it"

_DISPLAY = {
    "vqa_accuracy": (1.0, _PERCENT),
    "vqa_accuracy_legacy_vlt5": (1.0, _PERCENT),
    "CIDEr": (100.0, _TIMES_100),
    "BLEU-1": (100.0, _TIMES_100),
    "BLEU-2": (100.0, _TIMES_100),
    "BLEU-3": (100.0, _TIMES_100),
    "BLEU-4": (100.0, _TIMES_100),
    "ROUGE-L": (100.0, _TIMES_100),
    "METEOR": (100.0, _TIMES_100),
    "SPICE": (100.0, _TIMES_100),
}
"""Metric -> factor from the scorer's scale to the printed one, and what the printed one is."""

_DETAIL = "/question_type/"


def format_score(name: str, value: float) -> tuple[str, str]:
    """Returns a score as papers print it, and the name of that scale.

    Args:
        name: Evaluator key; what follows a slash is a detail.
        value: In the scorer's own scale.
    """
    factor, scale = _DISPLAY.get(name.split("/", 1)[0], (1.0, ""))
    return f"{value * factor:.1f}", scale


def format_table(rows: Sequence[Sequence[str]]) -> str:
    """Returns rows as text, columns padded to their widest cell; the second column is right-aligned."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [c.rjust(w) if i == 1 else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        lines.append(("  " + "  ".join(cells)).rstrip())
    return "\n".join(lines)


def format_metrics(metrics: Mapping[str, float], *, question_types: bool = False) -> str:
    """Returns a table of scores as papers print them, the scale named beside each."""
    shown = {name: value for name, value in metrics.items() if question_types or _DETAIL not in name}
    return format_table([(name, *format_score(name, value)) for name, value in shown.items()])


def format_budget(budget: ParameterBudget) -> str:
    """Returns trainable parameters by group, their share of the backbone and of the whole, and m, r, s, d and l."""
    tuner = budget.tuner
    rows = [(name, f"{count:,}", "") for name, count in budget.groups.items()]
    share = (
        f"{100 * budget.share_of_backbone:.2f} % of the frozen {budget.frozen:,} (the paper's way), "
        f"{100 * budget.share:.2f} % of all"
    )
    rows.append(("trainable", f"{budget.trainable:,}", share))
    shape = (
        f"  m = {tuner.num_virtual_tokens}, r = {tuner.rank}, s = {tuner.max_source_length}, d = {tuner.d_model}, "
        f"l = {tuner.budget_tokens}: the tuner has {tuner.total:,} parameters, l x d = {tuner.target:,}"
    )
    return f"{format_table(rows)}\n{shape}"


def describe_training(result: TrainResult) -> str:
    """Returns the summary of a finished run."""
    progress = result.progress
    best = "no evaluation"
    if progress.best_metric is not None:
        score, scale = format_score(result.metric_name, progress.best_metric)
        how = f"{scale}; decode: {result.decode}"
        best = f"best {result.metric_name} on val {score} ({how}) at step {progress.best_step:,}"
    return "\n".join(
        [
            f"trained {progress.step:,} steps in {progress.train_seconds:.0f} s: {best}",
            "trainable parameters:",
            format_budget(result.budget),
            f"run folder: {result.run_dir}",
            f"score it:   dept-vl eval --task {result.task} --checkpoint {result.run_dir}",
        ]
    )


def describe_evaluation(result: EvaluationResult, *, question_types: bool = False) -> str:
    """Returns the scores of an evaluation and where they were written."""
    split = f" {result.split}" if result.split else ""
    decode = f", decode: {result.decode}" if result.decode else ""
    lines = [
        f"{result.task}{split}: {result.num_scored:,} scored in {result.seconds:.0f} s{decode}",
        format_metrics(result.metrics, question_types=question_types),
    ]
    if result.decode_agreement is not None:
        lines.append(f"score and generate give the same answer in {100 * result.decode_agreement:.1f} % of rows")
    if result.budget is not None:
        lines += ["trainable parameters:", format_budget(result.budget)]
    lines += [f"{name}: {path}" for name, path in result.files.items()]
    return "\n".join(lines)


def describe_predictions(predictions: Sequence[Prediction]) -> str:
    """Returns one block a prediction: image, what was asked, and the answers with the labels' log-likelihoods."""
    return "\n".join(_describe_prediction(item) for item in predictions)


def _describe_prediction(item: Prediction) -> str:
    lines = [str(item.image)] if item.image else []
    lines += [f"  {name}: {value}" for name, value in (*item.columns.items(), *item.answers.items())]
    if item.log_likelihoods is not None:
        ranked = sorted(item.log_likelihoods.items(), key=lambda pair: -pair[1])
        lines.append(f"  log-likelihoods: {', '.join(f'{label} {value:.3f}' for label, value in ranked)}")
    return "\n".join(lines)
