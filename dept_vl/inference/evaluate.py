"""Scores a trained run on a split."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dept_vl.data.feature_format import hash_file
from dept_vl.data.manifest import split_path
from dept_vl.evaluators import TokenizerName, evaluate
from dept_vl.evaluators.official_files import write_results
from dept_vl.inference.results import EvaluationResult, check_metrics, write_scores
from dept_vl.settings.schema import TrainConfig
from dept_vl.tasks import get_task

if TYPE_CHECKING:
    from dept_vl.inference.answer import Decoding
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
    from dept_vl.inference.answer import Answerer, agreement, choose_decoding, predict_split, to_references
    from dept_vl.models.adapted_model import AdaptedModel
    from dept_vl.models.adapter.files import WEIGHTS_FILE
    from dept_vl.models.sharding import place_model
    from dept_vl.runs.open import check_features, open_dataset
    from dept_vl.runs.session import Session
    from dept_vl.system.processes import process_state

    session = session or Session()
    started = time.perf_counter()
    task, state = get_task(config.task), process_state()
    names = check_metrics(task, metrics, tokenizer)
    decoding = choose_decoding(config, task)
    methods = (decoding.method, *({"generate", "score"} - {decoding.method} if with_agreement else ()))
    ways = {method: choose_decoding(config, task, method) for method in methods}
    model, codec = AdaptedModel.from_pretrained(
        run_dir,
        config.model,
        max_source_length=config.data.max_source_length,
        answer_cue=config.data.answer_cue,
        backbone=session.backbone(config.model),
    )
    place_model(model, state.device)
    visual = session.visual(config, data_dir, (split,), state.device)[split]
    check_features(run_dir, visual)
    rows = session.rows(config, data_dir, split)
    dataset = open_dataset(config, data_dir, split, codec, visual, rows=rows)
    references = dataset.references()
    answers = {
        method: predict_split(
            Answerer(model, codec, visual, way),
            dataset,
            batch_size=config.data.eval_batch_size,
            num_workers=config.data.num_workers,
        )
        for method, way in ways.items()
    }
    predictions = answers[decoding.method]
    shared = None
    if with_agreement:
        shared = agreement(answers["score"], answers["generate"], codec, ways["score"].labels)
    protocol = config.data.protocol
    labels = task.label_set(protocol)
    scores = evaluate(names, predictions, to_references(references), tokenizer=tokenizer, label_set=labels)
    folder = folder or run_dir
    files = {
        "predictions": folder / f"predictions-{split}.json",
        "scores": output or folder / f"results-{split}.json",
    }
    seconds = time.perf_counter() - started
    budget = model.parameter_budget()
    result = EvaluationResult(
        task.name, scores, len(references), files, seconds, budget, split, protocol, decoding.method, shared
    )
    if state.is_main_process:
        by_id = {row["example_id"]: text for row, text in zip(references, predictions, strict=True)}
        write_results(files["predictions"], by_id, *task.result_keys)
        hashes = {
            "predictions": hash_file(files["predictions"]),
            "data": hash_file(split_path(data_dir, task.name, split, protocol)),
            "adapter": hash_file(run_dir / WEIGHTS_FILE),
        }
        write_scores(
            result, names, tokenizer, run=str(run_dir), data_dir=str(data_dir), decoding=_described(decoding),
            config=asdict(config), sha256=hashes,
        )  # fmt: skip
    return result


def _described(decoding: Decoding) -> dict[str, Any]:
    """Returns how answers were made, without the labels, which are the task's."""
    return {key: value for key, value in asdict(decoding).items() if key != "labels"}
