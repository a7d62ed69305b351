"""Scores a trained run on a split."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dept_vl.data.manifest import is_complete, read_references, split_path
from dept_vl.errors import ConfigError
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
    results_name,
    rows_sha256_of,
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
from dept_vl.runs.selection import check_best_metric, choose_selection, join_scores
from dept_vl.settings.load import absolute_config
from dept_vl.settings.schema import TrainConfig
from dept_vl.system.atomic import can_be_written
from dept_vl.system.bounded_reading import hash_file

if TYPE_CHECKING:
    from dept_vl.inference.answer import SplitAnswers
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
    task: str | None = None,
) -> EvaluationResult:
    """Makes predictions with a run's adapter, writes them in the official results format, and scores them.

    A run of several tasks is scored on each, into files of their own, and the mean of their scores is written beside
    them (`dept_vl.runs.selection.join_scores`).

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
        task: One task of a run of several; None for all of them.

    Raises:
        ConfigError, DataError, CheckpointError: Settings, data and adapter do not fit together.
    """
    asked = check_evaluation(
        config, run_dir, metrics=metrics, tokenizer=tokenizer, with_agreement=with_agreement, task=task
    )
    whole, config = config, config if task is None else config.for_task(task)
    check_prepared(config, data_dir, [split])
    rows_sha256 = rows_sha256_of(config, data_dir, split)
    one = task if whole.is_mix else None
    destination = Destination(files_beside(output) if output else files_of(folder or run_dir, results_name(split, one)))
    if output is None and folder is None:
        destination = choose_destination(whole, folder_of_results(run_dir), split, rows_sha256, one)
    where = destination.files["scores"].parent
    if not can_be_written(where):
        raise ConfigError(f"{where}: cannot be written into; name another place with --output FILE")
    if config.is_mix:
        destination = Destination({"scores": destination.files["scores"]}, destination.moves)
        return _evaluate_each(
            config, data_dir, run_dir, destination, rows_sha256, split=split, tokenizer=tokenizer, output=output,
            with_agreement=with_agreement, session=session, folder=folder,
        )  # fmt: skip
    names = _with_fitting(config, data_dir, split, asked, is_asked=metrics is not None)
    from dept_vl.runs.open import open_run
    from dept_vl.system.processes import process_state

    started = time.perf_counter()
    parts = open_run(config, data_dir, (split,), session, adapter=run_dir)
    answered, shared, answer_seconds = _answer(parts, config, split, with_agreement=with_agreement)
    predictions = answered.predictions
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
        write_answers(
            destination.files, parts.task.result_keys, by_id, inputs.references, each, dataset.inputs(),
            answered.confidences,
        )  # fmt: skip
        write_scores(result, names, tokenizer, **_describe(whole, parts, result, data_dir, run_dir, rows_sha256))
    return result


def _evaluate_each(
    config: TrainConfig,
    data_dir: Path,
    run_dir: Path,
    destination: Destination,
    rows_sha256: str,
    *,
    split: str,
    tokenizer: TokenizerName,
    output: Path | None,
    session: Session | None,
    **options: Any,
) -> EvaluationResult:
    """Scores a run of several tasks on each, and writes the mean of what counts; arguments are `evaluate_run`'s."""
    from dept_vl.runs.session import Session
    from dept_vl.system.processes import process_state

    session = session or Session()
    if process_state().is_main_process:
        destination.clear()
    each = {
        name: evaluate_run(
            config, data_dir, run_dir, task=name, split=split, tokenizer=tokenizer, session=session,
            output=output and output.with_name(f"{output.name.removesuffix('.json')}-{name}.json"), **options,
        )
        for name in config.task_names
    }  # fmt: skip
    primary = {one.task: _primary(one, data_dir, split) for one in config.each_task()}
    result = EvaluationResult(
        config.task, join_scores({name: found.metrics for name, found in each.items()}, primary),
        sum(found.num_scored for found in each.values()), destination.files,
        sum(found.seconds for found in each.values()), next(iter(each.values())).budget, split,
        decode=" and ".join(sorted({found.decode or "" for found in each.values()})), by_task=each,
    )  # fmt: skip
    if process_state().is_main_process:
        files = {f"predictions-{name}": found.files["predictions"] for name, found in each.items()}
        complete = all(is_complete(data_dir, one.resolve_task(), split) for one in config.each_task())
        rows = {"complete": complete, "rows": result.num_scored, "complete_rows": None, "rows_sha256": rows_sha256}
        write_scores(
            result, [], tokenizer, **_describe_run(config, data_dir, run_dir), data=rows, primary_metrics=primary,
            results={name: found.files["scores"].name for name, found in each.items()},
            sha256={name: hash_file(path) for name, path in {**files, "adapter": run_dir / WEIGHTS_FILE}.items()},
        )  # fmt: skip
    return result


def _primary(config: TrainConfig, data_dir: Path, split: str) -> str:
    """Returns the score of one task that counts in the mean."""
    task = config.resolve_task()
    rows = read_references(data_dir, task, split)
    return choose_selection(config, task, [Reference(**row) for row in rows]).primary


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
    assert result.split is not None
    expected, budget = parts.task.split_sizes.get(result.split), parts.model.parameter_budget()
    return {
        **_describe_run(config, data_dir, run_dir),
        "decoding": parts.decoding.record(),
        "sha256": _hashes(result, split_path(data_dir, parts.task, result.split), run_dir),
        "parameters": {"groups": dict(budget.groups), "trained": budget.trainable, "all": budget.total},
        "data": {
            "complete": is_complete(data_dir, parts.task, result.split),
            "rows": result.num_scored,
            "complete_rows": expected.rows if expected else None,
            "rows_sha256": rows_sha256,
        },
    }


def _describe_run(config: TrainConfig, data_dir: Path, run_dir: Path) -> dict[str, Any]:
    """Returns what a results file says of the run, whatever of it was scored."""
    from dept_vl.models.adapter.files import read_adapter_config

    adapter = read_adapter_config(run_dir)
    frozen = adapter.visual.frozen_projection_sha256 if adapter.visual else None
    return {
        "run": str(run_dir.absolute()),
        "data_dir": str(data_dir.absolute()),
        "config": asdict(absolute_config(config)),
        "tuner": config.tuner.label,
        "backbone": asdict(adapter.backbone),
        **({} if frozen is None else {"frozen_projection_sha256": frozen}),
        "settings_sha256": settings_sha256(config),
    }


def check_evaluation(
    config: TrainConfig,
    run_dir: Path,
    *,
    metrics: Sequence[str] | None = None,
    tokenizer: TokenizerName = "ptb",
    with_agreement: bool = False,
    task: str | None = None,
) -> list[str]:
    """Refuses what `evaluate_run` cannot do, whatever the data, without torch.

    Returns:
        The evaluators to run; of several tasks all of theirs.

    Raises:
        ConfigError: A metric is unknown or cannot run here, or is asked for of several tasks; answers cannot be made in
            that way; or what computes the method is not installed.
        CheckpointError: There is no adapter in `run_dir`.
    """
    check_best_metric(config)
    each = config.each_task() if task is None else (config.for_task(task),)
    if metrics and len(each) > 1:
        raise ConfigError(
            f"--metric: the tasks {', '.join(config.task_names)} have scores of their own, whose mean is taken; name "
            "one task with --task to choose its scores"
        )
    names: list[str] = []
    for one in each:
        own = one.resolve_task()
        names += check_metrics(own, metrics or (*own.evaluators, *own.also_scored), tokenizer)
        choose_decoding(one, own, "score" if with_agreement else None)
    config.tuner.check_packages()
    require_adapter(run_dir)
    return names


def _hashes(result: EvaluationResult, data: Path, run_dir: Path) -> dict[str, str]:
    """Returns the sha256 of what was made and what it was made from."""
    files = {"predictions": result.files["predictions"], "data": data, "adapter": run_dir / WEIGHTS_FILE}
    return {name: hash_file(path) for name, path in files.items()}


def _answer(
    parts: RunParts, config: TrainConfig, split: str, *, with_agreement: bool
) -> tuple[SplitAnswers, float | None, float]:
    """Returns every row's answer, the share of rows that the other method answers alike, if asked for, and seconds.

    The seconds are those of the answers that count.
    """
    from dept_vl.inference.answer import Answerer, agreement, answer_split

    def answers(method: Literal["generate", "score"]) -> SplitAnswers:
        decoding = choose_decoding(config, parts.task, method)
        return answer_split(
            Answerer(parts.model, parts.codec, parts.visual.get(split), decoding, parts.task_id),
            parts.datasets[split],
            batch_size=config.data.eval_batch_size,
            num_workers=config.data.num_workers,
        )

    started = time.perf_counter()
    own = answers(parts.decoding.method)
    seconds = time.perf_counter() - started
    if not with_agreement:
        return own, None, seconds
    other = answers("generate" if parts.decoding.method == "score" else "score")
    scored, generated = (own, other) if parts.decoding.method == "score" else (other, own)
    return own, agreement(scored.predictions, generated.predictions, parts.codec, parts.task.labels or ()), seconds
