"""Scores a trained run on a split."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dept_vl.data.manifest import hash_rows, is_complete, read_references, split_path
from dept_vl.evaluators import (
    EvaluationInput,
    Reference,
    TokenizerName,
    evaluator_names,
    is_loss,
    score,
    score_each,
)
from dept_vl.inference.result_files import (
    Destination,
    choose_destination,
    files_beside,
    files_of,
    folder_of_results,
    settings_sha256,
)
from dept_vl.inference.results import (
    EvaluationResult,
    add_fitting,
    check_metrics,
    warn_if_constant,
    write_answers,
    write_scores,
)
from dept_vl.models.adapter.presence import WEIGHTS_FILE, require_adapter
from dept_vl.runs.decoding import choose_decoding
from dept_vl.runs.refusals import check_prepared
from dept_vl.runs.selection import check_best_metric
from dept_vl.settings.load import absolute_config
from dept_vl.settings.schema import TrainConfig
from dept_vl.system.bounded_reading import hash_file

if TYPE_CHECKING:
    from dept_vl.runs.open import RunParts
    from dept_vl.runs.session import Session


def evaluate_run(
    config: TrainConfig,
    data_dir: Path,
    run_dir: Path,
    *,
    split: str = "test",
    metrics: Sequence[str] | None = None,
    tokenizer: TokenizerName = "ptb",
    output: Path | None = None,
    with_agreement: bool = False,
    session: Session | None = None,
    folder: Path | None = None,
) -> EvaluationResult:
    """Makes predictions with a run's adapter, writes them in the official results format, and scores them.

    Without `output`, nothing of other settings or data is replaced (`choose_destination`).

    Args:
        config: The run's settings, overrides laid over them.
        data_dir: Prepared data.
        run_dir: Holds the adapter.
        split: Which split.
        metrics: Names of evaluators or of scores; None for the task's own, and those that fit where they do not.
        tokenizer: How captions are tokenised.
        output: Where the scores go, the rest beside them; None for ``results-<split>.json`` in `run_dir`, or where
            `folder_of_results` puts those of a run from the hub.
        with_agreement: Answer by the other method too, and report the share of rows with equal answers.
        session: Frozen models and data shared with other runs of this process.
        folder: Where predictions and scores go; None for `run_dir`.

    Raises:
        ConfigError, DataError, CheckpointError: Settings, data and adapter do not fit together.
    """
    asked = check_evaluation(config, run_dir, metrics=metrics, tokenizer=tokenizer, with_agreement=with_agreement)
    check_prepared(config, data_dir, [split])
    names = _with_fitting(config, data_dir, split, asked, is_asked=metrics is not None)
    rows_sha256 = hash_rows(data_dir, config.resolve_task(), split)
    destination = Destination(files_beside(output) if output else files_of(folder or run_dir, split))
    if output is None and folder is None:
        destination = choose_destination(config, folder_of_results(run_dir), split, rows_sha256)
    from dept_vl.runs.open import open_run
    from dept_vl.system.processes import process_state

    started = time.perf_counter()
    parts = open_run(config, data_dir, (split,), session, adapter=run_dir)
    predictions, shared, answer_seconds = _answer(parts, config, split, with_agreement=with_agreement)
    dataset, inputs = parts.datasets[split], EvaluationInput(predictions, parts.references(split), tokenizer)
    result = EvaluationResult(
        parts.task.name, score(names, inputs, label_set=parts.task.labels), len(predictions), destination.files,
        time.perf_counter() - started, parts.model.parameter_budget(), split, parts.task.protocol,
        parts.decoding.method, shared, answer_seconds,
    )  # fmt: skip
    if process_state().is_main_process:
        warn_if_constant(predictions)
        by_id = dict(zip(dataset.result_ids(), predictions, strict=True))
        each = score_each(names, inputs)
        destination.clear()
        write_answers(destination.files, parts.task.result_keys, by_id, inputs.references, each, dataset.inputs())
        write_scores(result, names, tokenizer, **_describe(config, parts, result, data_dir, run_dir, rows_sha256))
    return result


def _with_fitting(config: TrainConfig, data_dir: Path, split: str, names: list[str], *, is_asked: bool) -> list[str]:
    """Warns of scores that say less than they seem to, and adds those that fit unless others were asked for."""
    rows = read_references(data_dir, config.resolve_task(), split)
    fitting = add_fitting(names, [Reference(**row) for row in rows], is_asked=is_asked)
    chosen = config.loop.best_metric
    if is_asked or not chosen or is_loss(chosen):
        return fitting
    return evaluator_names([*names, chosen, *fitting])


def _describe(
    config: TrainConfig, parts: RunParts, result: EvaluationResult, data_dir: Path, run_dir: Path, rows_sha256: str
) -> dict[str, Any]:
    """Returns what the results file of a run says of it, beside its scores."""
    from dept_vl.models.adapter.files import read_adapter_config

    assert result.split is not None
    expected, budget = parts.task.split_sizes.get(result.split), parts.model.parameter_budget()
    return {
        "run": str(run_dir.absolute()),
        "data_dir": str(data_dir.absolute()),
        "decoding": parts.decoding.record(),
        "config": asdict(absolute_config(config)),
        "sha256": _hashes(result, split_path(data_dir, parts.task, result.split), run_dir),
        "tuner": config.tuner.label,
        "backbone": asdict(read_adapter_config(run_dir).backbone),
        "parameters": {"groups": dict(budget.groups), "trained": budget.trainable, "all": budget.total},
        "settings_sha256": settings_sha256(config),
        "data": {
            "complete": is_complete(data_dir, parts.task, result.split),
            "rows": result.num_scored,
            "complete_rows": expected.rows if expected else None,
            "rows_sha256": rows_sha256,
        },
    }


def check_evaluation(
    config: TrainConfig,
    run_dir: Path,
    *,
    metrics: Sequence[str] | None = None,
    tokenizer: TokenizerName = "ptb",
    with_agreement: bool = False,
) -> list[str]:
    """Refuses what `evaluate_run` cannot do, whatever the data, without torch.

    Returns:
        The evaluators to run.

    Raises:
        ConfigError: A metric is unknown or cannot run here, answers cannot be made in that way, or what computes the
            method is not installed.
        CheckpointError: There is no adapter in `run_dir`.
    """
    task = config.resolve_task()
    names = check_metrics(task, metrics or (*task.evaluators, *task.also_scored), tokenizer)
    check_best_metric(config)
    choose_decoding(config, task, "score" if with_agreement else None)
    config.tuner.check_packages()
    require_adapter(run_dir)
    return names


def _hashes(result: EvaluationResult, data: Path, run_dir: Path) -> dict[str, str]:
    """Returns the sha256 of what was made and what it was made from."""
    files = {"predictions": result.files["predictions"], "data": data, "adapter": run_dir / WEIGHTS_FILE}
    return {name: hash_file(path) for name, path in files.items()}


def _answer(
    parts: RunParts, config: TrainConfig, split: str, *, with_agreement: bool
) -> tuple[list[str], float | None, float]:
    """Returns every row's answer, the share of rows that the other method answers alike, if asked for, and seconds.

    The seconds are those of the answers that count.
    """
    from dept_vl.inference.answer import Answerer, agreement, answer_split

    def answers(method: Literal["generate", "score"]) -> list[str]:
        decoding = choose_decoding(config, parts.task, method)
        return answer_split(
            Answerer(parts.model, parts.codec, parts.visual.get(split), decoding),
            parts.datasets[split],
            batch_size=config.data.eval_batch_size,
            num_workers=config.data.num_workers,
        ).predictions

    started = time.perf_counter()
    own = answers(parts.decoding.method)
    seconds = time.perf_counter() - started
    if not with_agreement:
        return own, None, seconds
    other = answers("generate" if parts.decoding.method == "score" else "score")
    scored, generated = (own, other) if parts.decoding.method == "score" else (other, own)
    return own, agreement(scored, generated, parts.codec, parts.task.labels or ()), seconds
