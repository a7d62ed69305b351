"""A run's settings to everything it works with, for whoever trains, scores or answers.

A run of several tasks is one of these for each task, all with one model.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch

from dept_vl.data.dataset import TaskDataset
from dept_vl.data.few_shot import FewShot
from dept_vl.data.mixture import MixDataset
from dept_vl.data.text_codec import TextCodec
from dept_vl.errors import CheckpointError, ConfigError, DataError
from dept_vl.evaluators import Reference
from dept_vl.models.adapted_model import AdaptedModel
from dept_vl.models.adapter.files import read_adapter_config
from dept_vl.models.adapter.presence import projection_source
from dept_vl.models.build import build_model, load_model
from dept_vl.models.language.vision_language import VisionLanguageBackbone
from dept_vl.models.sharding import place_model
from dept_vl.runs.backbone_images import BackboneImages, open_backbone_images
from dept_vl.runs.decoding import Decoding, choose_decoding
from dept_vl.runs.hub import find_run
from dept_vl.runs.session import Session
from dept_vl.runs.visual_input import VisualInput
from dept_vl.settings.own_encoder import has_own_image_encoder
from dept_vl.settings.schema import DataConfig, TrainConfig
from dept_vl.system.processes import process_state
from dept_vl.tasks import Task
from dept_vl.tasks.mixture import sampling_rates

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)

OWN_IMAGES = "own images"
"""Key of `RunParts.visual` where no split is opened."""

_LABELS: Mapping[str, Literal["drawn", "heaviest"]] = {"train": "drawn", "val": "heaviest"}
"""Split -> the targets that a model in training reads of it: what it trains on, and what its loss is taken of."""


@dataclass(frozen=True)
class RunParts:
    """Everything a run works with, all of one piece.

    Attributes:
        task: The task, under the run's protocol.
        task_id: Its place among those the model was trained on together; None where it was trained on one.
        model: On this process's device, the backbone in shards where the launch asks for it.
        codec: Makes token ids from text, the backbone's way.
        visual: Each split's visual input; empty for a task without images.
        datasets: Each split as batches.
        decoding: How answers are made.
        device: This process's.
    """

    task: Task
    model: AdaptedModel
    codec: TextCodec
    visual: Mapping[str, VisualInput]
    datasets: Mapping[str, TaskDataset]
    decoding: Decoding
    device: torch.device
    task_id: int | None = None

    def references(self, split: str, limit: int | None = None) -> list[Reference]:
        """Returns what people wrote for the rows of a split, the first `limit` of them."""
        return [Reference(**row) for row in self.datasets[split].references()[:limit]]


def open_run(
    config: TrainConfig,
    data_dir: Path | None,
    splits: Sequence[str],
    session: Session | None = None,
    *,
    adapter: Path | None = None,
    device: torch.device | None = None,
) -> RunParts:
    """Opens everything a run of one task works with, or one task of a run of several; see `open_tasks`.

    Raises:
        ConfigError, DataError, CheckpointError: As `open_tasks`.
    """
    (parts,) = open_tasks(config, data_dir, splits, session, adapter=adapter, device=device).values()
    return parts


def open_tasks(
    config: TrainConfig,
    data_dir: Path | None,
    splits: Sequence[str],
    session: Session | None = None,
    *,
    adapter: Path | None = None,
    device: torch.device | None = None,
    is_resumed: bool = False,
) -> dict[str, RunParts]:
    """Opens everything a run works with, by task; what is cheap to refuse comes first.

    Args:
        config: The run's settings.
        data_dir: Prepared data and, unless the encoder runs on the fly, a feature store; None for images of the user's
            own, with no splits.
        splits: Which splits; for a fresh model ``"train"`` is opened for training, ``"val"`` for the validation loss.
        session: Frozen models and data shared with other runs of this process.
        adapter: A run's or an adapter's folder; None for a fresh model.
        device: Where the models are; None for this process's.
        is_resumed: Whether the values of a checkpoint are loaded after, so that runs which the method builds on are not
            read again.

    Raises:
        ConfigError, DataError, CheckpointError: Settings, data and adapter do not fit together.
    """
    session = session or Session()
    session.check_precision(config.loop.precision)
    device = device or process_state().device
    session.check_device(device)
    each = {one.task: (one, one.resolve_task()) for one in config.each_task()}
    decodings = {name: choose_decoding(one, task) for name, (one, task) in each.items()}
    trained_on = _trained_on(config, adapter)
    visual: dict[str, Mapping[str, VisualInput]] = {name: {} for name in each}
    for name, (one, task) in each.items():
        if data_dir is not None:
            for split in splits:
                session.rows(task, data_dir, split)
        if task.uses_images:
            visual[name] = _open_visual(one, task, data_dir, splits, session, device)
        for side in visual[name].values():
            side.check_trained_on(*trained_on)
    seen = [side for sides in visual.values() for side in sides.values()]
    model, codec = _open_model(
        config, [task for _, task in each.values()], session, next(iter(seen), None), adapter, is_resumed=is_resumed
    )
    if adapter is None:
        for _, task in each.values():
            _warn_of_images(task, model)
    datasets: dict[str, dict[str, TaskDataset]] = {name: {} for name in each}
    for name, (one, task) in each.items():
        if data_dir is None:
            continue
        for split in splits:
            datasets[name][split] = _open_dataset(
                one, task, codec, visual[name].get(split), session.rows(task, data_dir, split),
                split=split, labels=_LABELS.get(split, "none") if adapter is None else "none",
            )  # fmt: skip
    place_model(model, device)
    return {
        name: RunParts(
            task, model, codec, visual[name], datasets[name], decodings[name], device, _task_id(model, name, adapter)
        )
        for name, (_, task) in each.items()
    }


def _trained_on(config: TrainConfig, adapter: Path | None) -> tuple[Mapping[str, Any], Path]:
    """Returns the fingerprint of the features that an adapter, or a new run's frozen projection, was trained on.

    And the folder that says so; nothing where there is none.
    """
    folder = adapter
    if folder is None and config.uses_images and config.model.frozen_projection is not None:
        folder = projection_source(config.model, find_run)
    return ({}, Path()) if folder is None else (read_adapter_config(folder).features or {}, folder)


def _task_id(model: AdaptedModel, task: str, adapter: Path | None) -> int | None:
    """Returns a task's place among those a model was trained on together; None where it was trained on one.

    Raises:
        CheckpointError: The task is not among them.
    """
    if not model.tasks:
        return None
    if task not in model.tasks:
        raise CheckpointError(f"{adapter}: was trained on {', '.join(model.tasks)} together, and not on {task!r}")
    return model.tasks.index(task)


def training_set(config: TrainConfig, tasks: Mapping[str, RunParts]) -> TaskDataset | MixDataset:
    """Returns what a run trains on: the task's own rows, or those of several tasks, as its settings mix them.

    Args:
        config: The run's settings.
        tasks: From `open_tasks`, with their training splits.
    """
    datasets = [parts.datasets["train"] for parts in tasks.values()]
    if not config.is_mix:
        return datasets[0]
    mix, counts = config.mix, [len(dataset.indices) for dataset in datasets]
    rates = sampling_rates(counts, mix.temperature or 1.0, mix.max_rows)
    if mix.rates is not None:
        rates = [mix.rates[name] / sum(mix.rates.values()) for name in tasks]
    shown = (
        f"{name} {100 * rate:.1f} % ({count:,} rows)"
        for name, rate, count in zip(tasks, rates, counts, strict=True)
    )  # fmt: skip
    logger.info("training on %s", ", ".join(shown))
    pad_token_id = next(iter(tasks.values())).codec.pad_token_id
    return MixDataset(datasets, rates, pad_token_id, batches=mix.batches or "mixed")


def _open_visual(
    config: TrainConfig,
    task: Task,
    data_dir: Path | None,
    splits: Sequence[str],
    session: Session,
    device: torch.device,
) -> Mapping[str, VisualInput]:
    """Returns the visual input of each split of a task with images, or of the user's own."""
    model, encoder = config.model, config.model.image_encoder
    if data_dir is None and config.data.visual_features == "zero":
        raise ConfigError(
            "data.visual_features: the run saw nothing in its images ('zero'), and would here; `dept-vl eval` scores it"
        )
    if has_own_image_encoder(config):
        backbone = cast(VisionLanguageBackbone, session.backbone(model)[0])
        if data_dir is None:
            return {OWN_IMAGES: BackboneImages.of(backbone.image_processing(model.system_prompt), model, None)}
        return open_backbone_images(task, config.data, model, data_dir, splits, backbone)
    if data_dir is None:
        return {OWN_IMAGES: session.own_images(encoder, device)}
    return session.visual(task, config.data, encoder, data_dir, splits, device)


def _warn_of_images(task: Task, model: AdaptedModel) -> None:
    """Says where a model that is to be trained cannot tell the images of a row apart."""
    if task.num_images > 1 and not model.tells_images_apart:
        logger.warning(
            "%s: the model cannot tell which of a row's %d images is which, as model.visual_projection=%s does not say "
            "it and visual tokens have no positions; set model.visual_position_bias=sequential",
            task.name, task.num_images, model.config.visual_projection,
        )  # fmt: skip


def _open_model(
    config: TrainConfig,
    tasks: Sequence[Task],
    session: Session,
    visual: VisualInput | None,
    adapter: Path | None,
    *,
    is_resumed: bool,
) -> tuple[AdaptedModel, TextCodec]:
    backbone = session.backbone(config.model)
    if adapter is not None:
        return load_model(
            adapter,
            config.model,
            max_source_length=config.data.max_source_length,
            answer_cue=config.data.answer_cue,
            answer_form=config.data.answer_form,
            backbone=backbone,
            find_run=find_run,
        )
    task, cues = tasks[0], {task.answer_cue for task in tasks}
    form = config.data.answer_form or task.answer_form
    has_cue = backbone[0].codec_class.has_forms and form == "plain"
    if len(cues) > 1 and has_cue and config.data.answer_cue is None:
        each = ", ".join(f"{one.name} {one.answer_cue!r}" for one in tasks)
        raise ConfigError(
            f"data.answer_cue: a decoder-only backbone reads one cue before every answer, and these tasks have others "
            f"({each}); give one for all"
        )
    return build_model(
        config.model,
        config.tuner,
        max_source_length=config.data.max_source_length,
        feature_dim=None if visual is None else visual.feature_dim,
        seed=config.seed,
        answer_cue=config.data.answer_cue,
        answer_form=form,
        task_cue=task.answer_cue,
        tasks=[one.name for one in tasks] if len(tasks) > 1 else (),
        backbone=backbone,
        find_run=find_run,
        takes_prompts=not is_resumed,
    )


def _open_dataset(
    config: TrainConfig,
    task: Task,
    codec: TextCodec,
    visual: VisualInput | None,
    rows: Dataset,
    *,
    split: str,
    labels: Literal["none", "drawn", "heaviest"],
) -> TaskDataset:
    """Opens a split as batches and reports, or refuses, texts that are too long.

    For training, ``data.few_shot`` leaves the chosen rows only.
    """
    data = config.data
    dataset = TaskDataset(
        rows,
        task,
        codec,
        max_source_length=data.max_source_length,
        max_target_length=data.max_target_length,
        seed=config.seed,
        visual=visual.source if visual else None,
        labels=labels,
        padding=data.padding,
        target_sampling=data.target_sampling,
        loss_weighting=data.loss_weighting,
        words_before=data.words_before or (),
        rows_per_image=data.rows_per_image if labels == "drawn" else None,
    )
    skipped, is_training = len(dataset) - len(dataset.indices), labels == "drawn"
    if is_training and data.few_shot is not None:
        few_shot = FewShot(data.few_shot, data.few_shot_rule, config.seed)
        dataset.keep_few(few_shot, task.few_shot_classes or task.labels or ())
    report_long(dataset.count_long(), len(dataset.indices), f"{task.name} {split}", data)
    if skipped:
        fate = "left out" if is_training else "scored as unanswered"
        logger.warning("%s %s: %d rows whose image could not be read are %s", task.name, split, skipped, fate)
    return dataset


def report_long(number: int, total: int, where: str, data: DataConfig) -> None:
    """Says how many source texts are cut, or refuses them, as ``data.on_long`` has it.

    Args:
        number: Texts of more than ``data.max_source_length`` tokens.
        total: Texts in all.
        where: What they are of, for the message.
        data: The run's settings.

    Raises:
        DataError: There are some, and ``data.on_long`` is ``"error"``.
    """
    if not number:
        return
    message = (
        f"{where}: {number} of {total} source texts have more than "
        f"data.max_source_length={data.max_source_length} tokens"
    )
    if data.on_long == "error":
        raise DataError(f"{message}; raise the length, or set data.on_long=truncate")
    logger.warning("%s; they are truncated", message)
