"""Scores a trained run on a split."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dept_vl.data.feature_format import hash_file
from dept_vl.data.manifest import split_path
from dept_vl.evaluators import TokenizerName, evaluate
from dept_vl.evaluators.official_files import write_results
from dept_vl.inference.results import EvaluationResult, check_metrics, write_scores
from dept_vl.models.adapter.presence import WEIGHTS_FILE, require_adapter
from dept_vl.runs.decoding import choose_decoding
from dept_vl.runs.refusals import check_prepared
from dept_vl.settings.load import absolute_config
from dept_vl.settings.schema import TrainConfig
from dept_vl.tasks import get_task

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

    Args:
        config: The run's settings, overrides laid over them.
        data_dir: Prepared data.
        run_dir: Holds the adapter.
        split: Which split.
        metrics: Evaluator names; None for the task's own.
        tokenizer: How captions are tokenised.
        output: Where the scores go; None for ``results-<split>.json`` in `run_dir`.
        with_agreement: Answer by the other method too, and report the share of rows with equal answers.
        session: Frozen models and data shared with other runs of this process.
        folder: Where predictions and scores go; None for `run_dir`.

    Raises:
        ConfigError, DataError, CheckpointError: Settings, data and adapter do not fit together.
    """
    names = check_evaluation(config, run_dir, metrics=metrics, tokenizer=tokenizer, with_agreement=with_agreement)
    check_prepared(config, data_dir, [split])
    from dept_vl.runs.open import open_run
    from dept_vl.system.processes import process_state

    started = time.perf_counter()
    parts = open_run(config, data_dir, (split,), session, adapter=run_dir)
    predictions, shared = _answer(parts, config, split, with_agreement=with_agreement)
    references = parts.references(split)
    scores = evaluate(names, predictions, references, tokenizer=tokenizer, label_set=parts.task.labels)
    folder = folder or run_dir
    files = {"predictions": folder / f"predictions-{split}.json", "scores": output or folder / f"results-{split}.json"}
    result = EvaluationResult(
        parts.task.name, scores, len(references), files, time.perf_counter() - started, parts.model.parameter_budget(),
        split, parts.task.protocol, parts.decoding.method, shared,
    )  # fmt: skip
    if process_state().is_main_process:
        ids = parts.datasets[split].example_ids()
        write_results(result.files["predictions"], dict(zip(ids, predictions, strict=True)), *parts.task.result_keys)
        write_scores(
            result, names, tokenizer, run=str(run_dir.absolute()), data_dir=str(data_dir.absolute()),
            decoding=parts.decoding.record(), config=asdict(absolute_config(config)),
            sha256=_hashes(result, data_dir, run_dir),
        )  # fmt: skip
    return result


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
        ConfigError: A metric is unknown or cannot run here, or answers cannot be made in that way.
        CheckpointError: There is no adapter in `run_dir`.
    """
    task = get_task(config.task).under(config.data.protocol)
    names = check_metrics(task, metrics, tokenizer)
    choose_decoding(config, task, "score" if with_agreement else None)
    require_adapter(run_dir)
    return names


def _hashes(result: EvaluationResult, data_dir: Path, run_dir: Path) -> dict[str, str]:
    """Returns the sha256 of what was made and what it was made from."""
    assert result.split is not None
    data = split_path(data_dir, result.task, result.split, result.protocol)
    files = {"predictions": result.files["predictions"], "data": data, "adapter": run_dir / WEIGHTS_FILE}
    return {name: hash_file(path) for name, path in files.items()}


def _answer(
    parts: RunParts, config: TrainConfig, split: str, *, with_agreement: bool
) -> tuple[list[str], float | None]:
    """Returns every row's answer and, if it is asked for, the share of rows that the other method answers alike."""
    from dept_vl.inference.answer import Answerer, agreement, predict_split

    def answers(method: Literal["generate", "score"]) -> list[str]:
        decoding = choose_decoding(config, parts.task, method)
        return predict_split(
            Answerer(parts.model, parts.codec, parts.visual.get(split), decoding),
            parts.datasets[split],
            batch_size=config.data.eval_batch_size,
            num_workers=config.data.num_workers,
        )

    own = answers(parts.decoding.method)
    if not with_agreement:
        return own, None
    other = answers("generate" if parts.decoding.method == "score" else "score")
    scored, generated = (own, other) if parts.decoding.method == "score" else (other, own)
    return own, agreement(scored, generated, parts.codec, parts.task.labels or ())
