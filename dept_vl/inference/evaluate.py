"""Scores a trained run on a split, or a file of predictions in an official format without any model."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dept_vl.data.feature_format import hash_file
from dept_vl.data.manifest import split_path
from dept_vl.errors import ConfigError
from dept_vl.evaluators import Reference, TokenizerName, align, check_available, evaluate
from dept_vl.evaluators.official_files import load_caption_references, load_results, load_vqa_references, write_results
from dept_vl.inference.decoding import Decoding, choose_decoding
from dept_vl.models.adapter.presence import WEIGHTS_FILE, require_adapter
from dept_vl.runs.folder import describe_run
from dept_vl.runs.refusals import check_prepared
from dept_vl.settings.load import TrainConfig
from dept_vl.system.atomic import write_json
from dept_vl.tasks import get_task

if TYPE_CHECKING:
    from dept_vl.runs.session import Session

REFERENCE_READERS: dict[tuple[str, ...], Callable[..., dict[int, Reference]]] = {
    ("questions", "annotations"): load_vqa_references,
    ("references",): load_caption_references,
}
"""Official reference files, as ``Task.reference_files`` names them -> what reads them."""

_SCALE = (
    "as the reference implementation returns it: VQA accuracy and squad_* 0-100, caption scores 0-1 (CIDEr 0-10), "
    "other scores of text tasks at most 1"
)


@dataclass(frozen=True)
class EvaluationResult:
    """What an evaluation found.

    Attributes:
        task: Task name.
        metrics: Scores in the scorers' own scale, unrounded.
        num_scored: Examples scored, those without a prediction among them.
        files: Where predictions and scores were written.
        seconds: Time taken.
        budget: Trainable parameters, when a model was evaluated.
        split: The split, when a model was evaluated.
        protocol: The protocol of a text task.
        decode: How its answers were made, ``"generate"`` or ``"score"``.
        decode_agreement: Share of rows, 0 to 1, that both ways answer alike, when that was asked for.
    """

    task: str
    metrics: dict[str, float]
    num_scored: int
    files: dict[str, Path] = field(default_factory=dict)
    seconds: float = 0.0
    budget: Any = None
    split: str | None = None
    protocol: str | None = None
    decode: str | None = None
    decode_agreement: float | None = None


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
    check_evaluation(config, run_dir, metrics=metrics, tokenizer=tokenizer, with_agreement=with_agreement)
    check_prepared(config, data_dir, [split])

    from dept_vl.inference.answer import Answerer, agreement, predict_split, to_references
    from dept_vl.models.adapted_model import CLIPT5
    from dept_vl.models.sharding import place_model
    from dept_vl.runs.open import check_features, open_dataset
    from dept_vl.runs.session import Session
    from dept_vl.system.processes import process_state

    session = session or Session()
    started = time.perf_counter()
    task, state = get_task(config.task), process_state()
    names, ways = list(metrics or task.evaluators), _choose_ways(config, with_agreement=with_agreement)
    decoding = next(iter(ways.values()))
    model, codec = CLIPT5.from_pretrained(
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
        _write_scores(
            result, names, tokenizer, run=str(run_dir), data_dir=str(data_dir), decoding=_described(decoding),
            config=asdict(config), sha256=hashes,
        )  # fmt: skip
    return result


def check_evaluation(
    config: TrainConfig,
    run_dir: Path,
    *,
    metrics: Sequence[str] | None = None,
    tokenizer: TokenizerName = "ptb",
    with_agreement: bool = False,
) -> None:
    """Refuses what `evaluate_run` cannot do, whatever the data, without torch.

    Raises:
        ConfigError: A metric is unknown or cannot run here, or answers cannot be made in that way.
        CheckpointError: There is no adapter in `run_dir`.
    """
    check_available(list(metrics or get_task(config.task).evaluators), tokenizer)
    _choose_ways(config, with_agreement=with_agreement)
    require_adapter(run_dir)


def _choose_ways(config: TrainConfig, *, with_agreement: bool) -> dict[str, Decoding]:
    """Returns how answers are made, by method: the settings' way, and behind it the other one if both are compared."""
    task = get_task(config.task)
    chosen = choose_decoding(config, task)
    ways: dict[str, Decoding] = {chosen.method: chosen}
    if with_agreement:
        other: Literal["generate", "score"] = "generate" if chosen.method == "score" else "score"
        ways[other] = choose_decoding(config, task, other)
    return ways


def evaluate_file(
    task_name: str,
    predictions: Path,
    references: Mapping[str, Path],
    *,
    metrics: Sequence[str] | None = None,
    tokenizer: TokenizerName = "ptb",
    allow_missing: bool = False,
    output: Path | None = None,
) -> EvaluationResult:
    """Scores a results file in the task's official format.

    Args:
        task_name: The task.
        predictions: The results file.
        references: Official reference files by the names in ``Task.reference_files``.
        metrics: Evaluator names; None for the task's own.
        tokenizer: How captions are tokenised.
        allow_missing: Score absent predictions as empty instead of refusing.
        output: Where the scores go as JSON; None writes none.

    Raises:
        ConfigError: A reference file was not named, or a metric is unknown.
        DataError: A file is missing or malformed, or predictions do not match the references.
    """
    started = time.perf_counter()
    task = get_task(task_name)
    names = list(metrics or task.evaluators)
    check_available(names, tokenizer)
    if set(references) != set(task.reference_files) or not task.reference_files:
        needed = " and ".join(f"--{name}" for name in task.reference_files) or "a trained run (--checkpoint)"
        given = ", ".join(f"--{name}" for name in references) or "none of them"
        raise ConfigError(f"task {task.name!r} with --predictions needs {needed}; given: {given}")
    known = REFERENCE_READERS[task.reference_files](*(references[name] for name in task.reference_files))
    id_key, text_key = task.result_keys
    texts, aligned = align(
        load_results(predictions, id_key, text_key), known, allow_missing=allow_missing, noun=id_key.removesuffix("_id")
    )
    scores = evaluate(names, texts, aligned, tokenizer=tokenizer)
    result = EvaluationResult(
        task.name, scores, len(aligned), {"scores": output} if output else {}, time.perf_counter() - started
    )
    if output:
        scored = {"predictions": predictions, **references}
        _write_scores(
            result, names, tokenizer, predictions=str(predictions), allow_missing=allow_missing,
            references={name: str(path) for name, path in references.items()},
            sha256={name: hash_file(path) for name, path in scored.items()},
        )  # fmt: skip
    return result


def _described(decoding: Decoding) -> dict[str, Any]:
    """Returns how answers were made, without the labels, which are the task's."""
    return {key: value for key, value in asdict(decoding).items() if key != "labels"}


def _write_scores(
    result: EvaluationResult, evaluators: Sequence[str], tokenizer: TokenizerName, **details: Any
) -> None:
    """Writes scores with what is needed to re-make them (`dept_vl.inference.verify`)."""
    content = {
        "task": result.task,
        "split": result.split,
        "protocol": result.protocol,
        "metrics": result.metrics,
        "scale": _SCALE,
        "num_scored": result.num_scored,
        "evaluators": list(evaluators),
        "caption_tokenizer": tokenizer,
        "seconds": result.seconds,
        **{name: getattr(result, name) for name in ("decode", "decode_agreement") if getattr(result, name) is not None},
        **details,
        "made_by": describe_run(),
    }
    path = result.files["scores"]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, content)
