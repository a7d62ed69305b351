"""What each part of a trained run contributes: set to its start or left out, all else as trained, and scored again."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dept_vl.data.manifest import hash_rows, read_references
from dept_vl.errors import ConfigError
from dept_vl.evaluators import EvaluationInput, Reference, check_available, evaluator_name, is_loss, score
from dept_vl.evaluators.paired import Answered, Comparison, compare_answers, row_scores
from dept_vl.inference.result_files import folder_of_results, results_name, settings_sha256
from dept_vl.models.adapter.presence import WEIGHTS_FILE, require_adapter
from dept_vl.registry import suggest
from dept_vl.runs.decoding import choose_decoding
from dept_vl.runs.folder import describe_run
from dept_vl.runs.hub import find_run
from dept_vl.runs.refusals import check_prepared
from dept_vl.runs.selection import choose_selection
from dept_vl.settings.load import absolute_config
from dept_vl.settings.schema import TrainConfig
from dept_vl.system.atomic import can_be_written, check_output_file, write_json
from dept_vl.system.bounded_reading import hash_file

if TYPE_CHECKING:
    from torch import Tensor

    from dept_vl.models.adapted_model import AdaptedModel
    from dept_vl.runs.open import RunParts
    from dept_vl.runs.session import Session
    from dept_vl.runs.visual_input import VisualInput

logger = logging.getLogger(__name__)

State = Literal["start", "nothing", "zero"]
"""What a part is set to: its first values; left out, so that it does nothing; of features, zeros."""

STATES: tuple[State, ...] = ("start", "nothing")
FEATURES = "features"


@dataclass(frozen=True)
class AblatedScore:
    """What a run scores with one part set back.

    Attributes:
        part: A group, a method of a stack, the whole method, the projection, or ``features``.
        state: What it was set to.
        parameters: How many the part trains.
        metrics: Scores in the scorers' own scale.
        answers: One a row of the split.
        same_answers: Share of rows, 0 to 1, answered as the trained run answers them.
        beside: The metric beside that of the trained run.
    """

    part: str
    state: State
    parameters: int
    metrics: dict[str, float]
    answers: tuple[str, ...]
    same_answers: float
    beside: Comparison


@dataclass(frozen=True)
class AblationResult:
    """What the parts of a run contribute.

    Attributes:
        run_dir: The run.
        task: Task name.
        split: Which split was answered.
        metric: The score that is compared.
        rows: How many rows.
        decode: How answers were made.
        method: The method's name.
        trained: Scores of the run as it was trained.
        ablated: One for each part and state.
        path: Where all of it was written.
        seconds: Time taken.
    """

    run_dir: Path
    task: str
    split: str
    metric: str
    rows: int
    decode: str
    method: str
    trained: dict[str, float]
    ablated: tuple[AblatedScore, ...]
    path: Path
    seconds: float


def check_ablation(
    config: TrainConfig, data_dir: Path, run_dir: Path, *, split: str, output: Path | None = None
) -> str:
    """Refuses what cannot be ablated, without torch.

    Returns:
        The score that is compared: ``loop.best_metric`` where that is a score, else the task's own, or the one that
        fits its references.

    Raises:
        ConfigError: The output cannot be written (`check_output_file`), or settings that cannot be.
        CheckpointError: There is no adapter in `run_dir`.
        DataError: Data or features are not prepared.
    """
    require_adapter(run_dir)
    if output is not None:
        check_output_file("--output", output)
    elif not can_be_written(run_dir):
        raise ConfigError(f"{run_dir}: cannot be written into; give --output FILE")
    task = config.resolve_task()
    choose_decoding(config, task)
    check_prepared(config, data_dir, [split])
    chosen = config.loop.best_metric
    if chosen is not None and is_loss(chosen):
        config = replace(config, loop=replace(config.loop, best_metric=None))
    references = [Reference(**row) for row in read_references(data_dir, task, split)]
    metric = choose_selection(config, replace(task, selected_by=None), references).metric
    check_available([metric])
    return metric


def ablate(
    config: TrainConfig,
    data_dir: Path,
    run_dir: Path,
    *,
    split: str = "val",
    states: Sequence[State] = STATES,
    only: Sequence[str] | None = None,
    output: Path | None = None,
    session: Session | None = None,
) -> AblationResult:
    """Sets each part of a run back, alone, answers a split with the others as trained, and compares row by row.

    Everything is opened once; the split is answered once as trained and once for each part and state.

    Args:
        config: The run's settings, overrides laid over them.
        data_dir: Prepared data.
        run_dir: Holds the adapter.
        split: Which split; what is decided by the outcome should be decided on ``val``.
        states: ``"start"``, ``"nothing"`` or both.
        only: Names of parts; None for all.
        output: Where the outcome goes as JSON; None for ``ablation-<split>.json`` in `run_dir`, or where
            `folder_of_results` puts the results of a run from the hub.
        session: Frozen models and data shared with other runs of this process.

    Raises:
        ConfigError, DataError, CheckpointError: As `check_ablation` and `open_run`; no part has such a name.
    """
    metric = check_ablation(config, data_dir, run_dir, split=split, output=output)
    from dept_vl.runs.info import meta_model
    from dept_vl.runs.open import open_run
    from dept_vl.runs.session import Session
    from dept_vl.system.processes import process_state

    if only is not None:
        _check_names(meta_model(config), only)
    started = time.perf_counter()
    session = session or Session()
    parts = open_run(config, data_dir, (split,), session, adapter=run_dir)
    references = parts.references(split)
    visual = parts.visual.get(split)
    trained, trained_metrics = _answer(parts, config, split, metric, references, visual)
    found = []
    for change in _changes(parts, config, split, states, only, session):
        logger.info("%s: %s set to %s", run_dir, change.part, change.state)
        with change.made:
            answered, metrics = _answer(parts, config, split, metric, references, change.visual)
        found.append(_beside_trained(metric, change, answered, metrics, trained))
    name = results_name(split, None if parts.task_id is None else parts.task.name)
    path = output or folder_of_results(run_dir) / f"ablation-{name}.json"
    result = AblationResult(
        run_dir, parts.task.name, split, metric, len(references), parts.decoding.method, config.tuner.label,
        trained_metrics, tuple(found), path, time.perf_counter() - started,
    )  # fmt: skip
    if process_state().is_main_process:
        _write(result, config, hash_rows(data_dir, parts.task, split))
    return result


@dataclass(frozen=True)
class _Change:
    """One part set to one state: what brings it about, and the visual input that is answered with."""

    part: str
    state: State
    parameters: int
    made: AbstractContextManager[None]
    visual: VisualInput | None


def _beside_trained(
    metric: str, change: _Change, answered: Answered, metrics: dict[str, float], trained: Answered
) -> AblatedScore:
    answers, own = (tuple(side.inputs[0].predictions) for side in (answered, trained))
    same = sum(a == b for a, b in zip(answers, own, strict=True)) / len(own)
    beside = compare_answers(metric, answered, trained)
    return AblatedScore(change.part, change.state, change.parameters, metrics, answers, same, beside)


def _changes(
    parts: RunParts,
    config: TrainConfig,
    split: str,
    states: Sequence[State],
    only: Sequence[str] | None,
    session: Session,
) -> Iterator[_Change]:
    """Yields each part in each state."""
    from dept_vl.models.parts import left_out, model_parts, set_to_start

    visual = parts.visual.get(split)
    frozen: dict[str, Tensor] = dict(session.backbone(config.model)[0].model.named_parameters())
    start = _start(parts, config, session) if "start" in states else {}
    for part in model_parts(parts.model):
        if only is not None and part.name not in only:
            continue
        if "start" in states:
            yield _Change(part.name, "start", part.parameters, set_to_start(parts.model, part, start), visual)
        if "nothing" in states and part.is_projection:
            yield _Change(part.name, "nothing", part.parameters, nullcontext(), None)
        elif "nothing" in states:
            yield _Change(part.name, "nothing", part.parameters, left_out(parts.model, part, frozen), visual)
    if _has_features(parts, config, split) and (only is None or FEATURES in only) and visual is not None:
        yield _Change(FEATURES, "zero", 0, nullcontext(), visual.zeroed())


def _has_features(parts: RunParts, config: TrainConfig, split: str) -> bool:
    """Returns whether a run sees anything in its images."""
    return parts.visual.get(split) is not None and config.data.visual_features != "zero"


def _check_names(model: AdaptedModel, only: Sequence[str]) -> None:
    """Refuses names of parts that a model, of any device, has not."""
    from dept_vl.models.language.vision_language import VisionLanguageBackbone
    from dept_vl.models.parts import model_parts

    known = [part.name for part in model_parts(model)]
    has_features = model.feature_dim is not None or isinstance(model.backbone, VisionLanguageBackbone)
    known += [FEATURES] if has_features else []
    for name in only:
        if name not in known:
            raise ConfigError(
                f"--parts: the run has no part {name!r}{suggest(name, known)} (it has: {', '.join(known)})"
            )


def _start(parts: RunParts, config: TrainConfig, session: Session) -> Mapping[str, Tensor]:
    """Returns the first values of everything that a run trains: by its seed, or from the run that it started from.

    Raises:
        CheckpointError: That run is not there.
    """
    from dept_vl.models.adapter.warm_start import warm_start
    from dept_vl.models.build import build_model

    fresh, _ = build_model(
        config.model, config.tuner, max_source_length=config.data.max_source_length,
        feature_dim=parts.model.feature_dim, seed=config.seed, tasks=parts.model.tasks,
        backbone=session.backbone(config.model), find_run=find_run,
    )  # fmt: skip
    if config.init.source is not None:
        source = find_run(config.init.source)
        if not (source / WEIGHTS_FILE).is_file():
            raise ConfigError(
                f"init.from: the run started from {config.init.source}, and no adapter is there; give --set-to nothing "
                "to leave parts out alone"
            )
        warm_start(fresh, source, config.init.parts)
    return fresh.trainable_state()


def _answer(
    parts: RunParts,
    config: TrainConfig,
    split: str,
    metric: str,
    references: Sequence[Reference],
    visual: VisualInput | None,
) -> tuple[Answered, dict[str, float]]:
    """Returns a split's answers as the model is now, and their scores."""
    from dept_vl.inference.answer import Answerer, answer_split

    answers = answer_split(
        Answerer(parts.model, parts.codec, visual, parts.decoding, parts.task_id),
        parts.datasets[split],
        batch_size=config.data.eval_batch_size,
        num_workers=config.data.num_workers,
    )
    inputs = EvaluationInput(answers.predictions, references)
    metrics = score([evaluator_name(metric)], inputs, label_set=parts.task.labels)
    return Answered(metrics[metric], row_scores(metric, inputs), (inputs,)), metrics


def _write(result: AblationResult, config: TrainConfig, rows_sha256: str) -> None:
    content: dict[str, Any] = {
        "task": result.task,
        "split": result.split,
        "protocol": config.data.protocol,
        "run": str(result.run_dir.absolute()),
        "tuner": result.method,
        "metric": result.metric,
        "num_scored": result.rows,
        "decode": result.decode,
        "trained": result.trained,
        "ablated": [_record(one) for one in result.ablated],
        "seconds": result.seconds,
        "rows_sha256": rows_sha256,
        "settings_sha256": settings_sha256(config),
        "sha256": {"adapter": hash_file(result.run_dir / WEIGHTS_FILE)},
        "config": asdict(absolute_config(config)),
        "made_by": describe_run(),
    }
    result.path.parent.mkdir(parents=True, exist_ok=True)
    write_json(result.path, content)


def _record(one: AblatedScore) -> dict[str, Any]:
    return {key: value for key, value in asdict(one).items() if key != "answers"}
