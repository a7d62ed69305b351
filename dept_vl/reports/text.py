"""Scores, budgets and predictions as people read them."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from dept_vl.evaluators import display_scale
from dept_vl.settings.load import flat_settings, nested_settings
from dept_vl.tuners.recipes import recipe_of

if TYPE_CHECKING:
    from dept_vl.experiments.runs import FinishedRun
    from dept_vl.experiments.scores import Spread
    from dept_vl.experiments.seeds import SeedsResult
    from dept_vl.experiments.sweep import SweepResult
    from dept_vl.experiments.transfer import TransferResult
    from dept_vl.inference.predict import Prediction
    from dept_vl.inference.results import EvaluationResult
    from dept_vl.models.parameter_budget import ParameterBudget
    from dept_vl.settings.schema import TrainConfig
    from dept_vl.tasks import RenderedExample, Task
    from dept_vl.training.result import TrainResult
    from dept_vl.tuners.base import Fact

_DETAIL = "/question_type/"

MAX_SHOWN = 20
"""Predictions that are printed where a file has them all."""


def format_score(name: str, value: float) -> tuple[str, str]:
    """Returns a score as papers print it, and the name of that scale.

    Args:
        name: Evaluator key; what follows a slash is a detail.
        value: In the scorer's own scale.
    """
    scale = display_scale(name)
    return scale.printed(value), scale.text


def format_spread(name: str, value: Spread) -> str:
    """Returns ``mean +- std`` as papers print it, the mean alone for one run."""
    mean, _ = format_score(name, value.mean)
    return mean if value.std is None else f"{mean} +- {format_score(name, value.std)[0]}"


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


def format_budget(budget: ParameterBudget, as_table_3: ParameterBudget | None = None) -> str:
    """Returns trainable parameters by group, their share of all, and the tuner's facts.

    Args:
        budget: The model's.
        as_table_3: The same counted as in Table 3 of the paper (`dept_vl.runs.info.count_as_table_3`), for a line more.
    """
    rows = [(name, f"{count:,}", "") for name, count in budget.groups.items()]
    rows.append(("trainable", f"{budget.trainable:,}", f"{_of_all(budget)}; the backbone has {budget.backbone:,}"))
    if as_table_3 is not None:
        note = f"{_of_all(as_table_3)}, whose T5 has the vocabulary of Sung et al."
        rows.append(("as Table 3 counts", f"{as_table_3.trainable:,}", note))
    if budget.num_tasks > 1:
        of_all = f"{100 * budget.per_task / budget.total:.2f} % of all; trained for {budget.num_tasks} tasks together"
        rows.append(("per task", f"{budget.per_task:,.0f}", of_all))
    facts = ", ".join(f"{name} = {_format_fact(fact)}" for name, fact in budget.facts.items())
    aimed = budget.facts.get("l x d", budget.tuner)  # a pair that misses the budget, as MultiRC's of the paper
    over = budget.tuner - int(aimed)
    beside = f", {abs(over):,} {'more' if over > 0 else 'fewer'} than l x d, which the paper counts" if over else ""
    return (
        f"{format_table(rows)}\n  {f'{facts}: ' if facts else ''}the tuner trains {budget.tuner:,} parameters{beside}"
    )


def format_recipe(config: TrainConfig) -> str:
    """Returns the method's own settings of a run, where they come from, and what was given instead; empty for none."""
    tree = nested_settings(config)
    method = recipe_of(tree["tuner"])
    if method is None or not method.recipe:
        return ""
    settings = flat_settings(tree)
    lines = []
    for key, value in flat_settings(method.recipe).items():
        now = "null" if settings[key] is None else settings[key]
        lines.append(f"  {key} {value}" if settings[key] == value else f"  {key} {now} (the recipe: {value})")
    return "\n".join([f"recipe of {method.name}, its own defaults ({method.recipe_source}):", *lines])


def _of_all(budget: ParameterBudget) -> str:
    return f"{100 * budget.share:.2f} % of all {budget.total:,}"


def _format_fact(fact: Fact) -> str:
    return f"{fact:,}" if isinstance(fact, int) else str(fact)


def describe_training(result: TrainResult) -> str:
    """Returns the summary of a finished run."""
    progress = result.progress
    best = "no evaluation"
    if progress.best_metric is not None:
        score, scale = format_score(result.metric_name, progress.best_metric)
        how = f"{scale}; decode: {result.decode}"
        best = f"best {result.metric_name} on val {score} ({how}) at step {progress.best_step:,}"
    skipped = f" ({progress.skipped_steps:,} of them skipped: loss or gradient bad)" if progress.skipped_steps else ""
    return "\n".join(
        [
            f"trained {progress.step:,} steps{skipped} in {progress.train_seconds:.0f} s: {best}",
            "trainable parameters:",
            format_budget(result.budget),
            f"run folder: {result.run_dir}",
            f"score it:   dept-vl eval --task {result.task} --checkpoint {shlex.quote(str(result.run_dir))}",
        ]
    )


def describe_evaluation(result: EvaluationResult, *, question_types: bool = False) -> str:
    """Returns the scores of an evaluation and where they were written; of several tasks each one's and their mean."""
    if result.by_task:
        return _describe_each(result, question_types=question_types)
    protocol = f" (protocol {result.protocol})" if result.protocol else ""
    split = f" {result.split}" if result.split else ""
    decode = f", decode: {result.decode}" if result.decode else ""
    lines = [
        f"{result.task}{split}{protocol}: {result.num_scored:,} scored in {result.seconds:.0f} s{decode}",
        format_metrics(result.metrics, question_types=question_types),
    ]
    if result.decode_agreement is not None:
        lines.append(f"score and generate give the same answer in {100 * result.decode_agreement:.1f} % of rows")
    if result.budget is not None:
        lines += ["trainable parameters:", format_budget(result.budget)]
    lines += [f"{name}: {path}" for name, path in result.files.items()]
    return "\n".join(lines)


def _describe_each(result: EvaluationResult, *, question_types: bool) -> str:
    each = [replace(one, budget=None) for one in result.by_task.values()]
    joined = {name: value for name, value in result.metrics.items() if "/" not in name}
    lines = [describe_evaluation(one, question_types=question_types) for one in each]
    lines += [f"{result.task} {result.split}:", format_metrics(joined)]
    if result.budget is not None:
        lines += ["trainable parameters:", format_budget(result.budget)]
    return "\n".join([*lines, *(f"{name}: {path}" for name, path in result.files.items())])


def describe_seeds(result: SeedsResult) -> str:
    """Returns the scores of several seeds, one column a seed, and their mean and standard deviation."""
    runs = result.runs
    rows = [("test", "mean +- std", *(f"seed {run.config.seed}" for run in runs), "")]
    for name, value in result.test.items():
        if _DETAIL not in name:
            each = [format_score(name, number) for number in value.values]
            rows.append((name, format_spread(name, value), *(text for text, _ in each), each[0][1]))
    metric = runs[0].metric
    return "\n".join(
        [
            f"{runs[0].config.task}: {len(runs)} seeds, best {metric} on val {format_spread(metric, result.val)}",
            format_table(rows),
            "  (+- is the sample standard deviation, n - 1)",
            f"written: {result.path}",
            _score_again(runs[0]),
        ]
    )


def describe_sweep(result: SweepResult) -> str:
    """Returns the trials of a sweep, best first, and the test scores of the best."""
    keys = sorted({key for trial in result.trials for key in trial.params})
    metric, sign = result.selection.metric, 1 if result.selection.lower_is_better else -1
    rows = [("trial", f"val {metric}", "state", *keys)]
    for trial in sorted(result.trials, key=lambda t: (t.value is None, sign * (t.value or 0.0), t.number)):
        value = "-" if trial.value is None else format_score(metric, trial.value)[0]
        rows.append((str(trial.number), value, trial.state.name.lower(), *(str(trial.params.get(k)) for k in keys)))
    lines = [f"{len(result.trials)} trials in {result.folder}", format_table(rows)]
    if result.best is None:
        lines.append("no best run: other processes are still at work, or no trial ended")
    else:
        lines += [f"best on val: {result.best.run_dir}; on test:", format_metrics(result.best.test or {})]
    lines += [f"{name}: {path}" for name, path in result.files.items()]
    return "\n".join(lines if result.best is None else [*lines, _score_again(result.best)])


def describe_transfer(result: TransferResult) -> str:
    """Returns what each source gave on val, and test scores of the chosen one and of the control without a source."""
    metric = result.scratch.runs[0].metric
    rows = [("from", f"val {metric}", "")]
    for start in (*result.sources, result.scratch):
        chosen = "chosen on val" if start.source == result.best.source else ""
        rows.append((start.source, format_spread(metric, start.val), chosen))
    scored = [("test", f"from {result.best.source}", "from scratch", "")]
    for name, value in (result.best.test or {}).items():
        control = (result.scratch.test or {})[name]
        scored.append(
            (name, format_spread(name, value), format_spread(name, control), format_score(name, value.mean)[1])
        )
    runs = len(result.best.runs)
    return "\n".join(
        [
            f"{result.target.task}: {len(result.sources)} sources, {runs} run{'s' if runs > 1 else ''} each",
            format_table(rows),
            format_table(scored),
            f"written: {result.path}",
            _score_again(result.best.runs[0]),
        ]
    )


def _score_again(run: FinishedRun) -> str:
    """Returns the command that scores one run of several."""
    return f"next: dept-vl eval --task {run.config.task} --checkpoint {shlex.quote(str(run.run_dir))}"


def describe_predictions(predictions: Sequence[Prediction], limit: int | None = None) -> str:
    """Returns one block a prediction: image, what was asked, and the answers with the labels' log-likelihoods.

    Args:
        predictions: In the order of the inputs.
        limit: Most that are described, where a file has them all.
    """
    lines = [_describe_prediction(item) for item in predictions[:limit]]
    if len(lines) < len(predictions):
        lines.append(f"... and {len(predictions) - len(lines):,} more")
    return "\n".join(lines)


def _describe_prediction(item: Prediction) -> str:
    lines = list(map(str, item.images))
    answers = item.answers
    if len(answers) > 1 and len(set(answers.values())) == 1:
        answers = {" = ".join(answers): item.answer}
    lines += [f"  {name}: {value}" for name, value in (*item.columns.items(), *answers.items())]
    if item.log_likelihoods is not None:
        ranked = sorted(item.log_likelihoods.items(), key=lambda pair: -pair[1])
        lines.append(f"  log-likelihoods: {', '.join(f'{label} {value:.3f}' for label, value in ranked)}")
    return "\n".join(lines)


def describe_tasks(tasks: Iterable[Task]) -> str:
    """Returns a table of tasks: rows of each complete split, metrics, lengths in tokens, source.

    A task's protocols share a line where their splits are equally large.
    """
    rows = [("task", "train / val / test rows", "metrics", "source, target tokens", "source")]
    for task in tasks:
        evaluators = ", ".join(task.evaluators)
        lengths = f"{task.max_source_length}, {task.max_target_length}"
        source = str(task.source or ("rows of your own" if task.is_own else "official files"))
        by_size: dict[str, list[str]] = {}
        for way in task.ways():
            sizes = " / ".join(f"{size.rows:,}" for size in way.split_sizes.values())
            by_size.setdefault(sizes, []).append(way.protocol or "")
        for sizes, protocols in by_size.items():
            only = f" ({protocols[0]})" if len(by_size) > 1 else ""
            rows.append((f"{task.name}{only}", sizes, evaluators, lengths, source))
    return format_table(rows)


def describe_examples(task: Task, examples: Sequence[Sequence[RenderedExample]], origin: str) -> str:
    """Returns rendered examples, source -> target, one block a row; protocols that agree share a line.

    Args:
        task: The task.
        examples: For each row, what each protocol makes of it.
        origin: Where the rows are from.
    """
    blocks = [f"{task.name}: {task.paper}\nrows: {origin}"]
    for number, rendered in enumerate(examples, start=1):
        by_text: dict[str, list[str]] = {}
        for example in rendered:
            answer = " | ".join(map(repr, example.targets)) if example.targets else "what people answered"
            by_text.setdefault(f"{example.source!r} -> {answer}", []).append(example.protocol or "")
        blocks += [f"{number} {', '.join(protocols)}".rstrip() + f"\n  {text}" for text, protocols in by_text.items()]
    return "\n".join(blocks)
