"""A run's settings to the objects it works with: task, data, frozen encoder, model. Shared by every application."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dept_vl.data.collator import Batch
from dept_vl.data.dataset import TaskDataset
from dept_vl.data.features import FeatureStore, find_store
from dept_vl.data.few_shot import FewShot
from dept_vl.data.manifest import open_split, split_info
from dept_vl.data.text_codec import TextCodec
from dept_vl.data.visual import CachedFeatures, ImagePixels, VisualSource, ZeroFeatures
from dept_vl.errors import CheckpointError, DataError
from dept_vl.models.adapter.files import read_adapter_config
from dept_vl.models.vision.clip_encoder import ClipEncoder
from dept_vl.models.vision.clip_weights import read_settings
from dept_vl.settings.schema import TrainConfig
from dept_vl.tasks import Task, get_task

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)

_VERSION_KEY = "open_clip"
"""The one part of a fingerprint that says who computed the features and not what they are."""


@dataclass(frozen=True)
class VisualInput:
    """The visual side of a run.

    Attributes:
        source: Reads a batch's features or pixels.
        encoder: The frozen CLIP tower when it runs on the fly, else None.
        feature_dim: Width of one visual token.
        fingerprint: What made the features; recorded in the adapter.
    """

    source: VisualSource
    encoder: ClipEncoder | None
    feature_dim: int
    fingerprint: dict[str, Any]

    def features(self, batch: Batch) -> Tensor | None:
        """Returns (batch, visual, feature_dim) float32, encoding pixels if that is what the batch carries."""
        if batch.pixel_values is None or self.encoder is None:
            return batch.visual_features
        features: Tensor = self.encoder(batch.pixel_values)
        return features


def open_visual(
    config: TrainConfig, data_dir: Path, splits: Sequence[str], device: torch.device
) -> dict[str, VisualInput | None]:
    """Returns the visual input of each split, None for a task without images; encoder or store are opened once.

    Raises:
        DataError: No matching feature store, or one of another encoder.
    """
    if not get_task(config.task).uses_images:
        return dict.fromkeys(splits)
    if config.data.visual_features == "encode":
        encoder = ClipEncoder.load(config.model.clip, device)
        pixels = {split: ImagePixels(image_root(config, data_dir, split), encoder.preprocess) for split in splits}
        return {
            split: VisualInput(source, encoder, encoder.feature_dim, encoder.fingerprint)
            for split, source in pixels.items()
        }
    store = _open_store(config, data_dir)
    source: VisualSource = CachedFeatures(store)
    if config.data.visual_features == "zero":
        source = ZeroFeatures(store.num_visual_tokens, store.feature_dim, store.skipped)
    return dict.fromkeys(splits, VisualInput(source, None, store.feature_dim, store.fingerprint))


def _open_store(config: TrainConfig, data_dir: Path) -> FeatureStore:
    """Opens the store in ``data.feature_dir``, or the one in `data_dir` that was made with the run's settings."""
    wanted = read_settings(config.model.clip)
    folder = config.data.feature_dir
    if folder is None:
        return find_store(data_dir, wanted)
    store = FeatureStore.open(Path(folder))
    differing = [
        f"{key} is {store.fingerprint.get(key)!r}, this run wants {value!r}"
        for key, value in wanted.items()
        if store.fingerprint.get(key) != value
    ]
    if differing:
        raise DataError(f"data.feature_dir: {folder} holds features made otherwise: {'; '.join(differing)}")
    return store


def image_root(config: TrainConfig, data_dir: Path, split: str) -> Path:
    """Returns the folder that image paths of a split start from.

    Raises:
        DataError: Neither the settings nor the prepared split name one that exists.
    """
    recorded = split_info(data_dir, config.task, split, config.data.protocol).image_root
    root = config.data.image_dir or recorded
    if root is None or not Path(root).is_dir():
        raise DataError(
            f"image folder {root}: not there (recorded by `dept-vl prepare`: {recorded}); set data.image_dir"
        )
    return Path(root)


def open_rows(config: TrainConfig, data_dir: Path, split: str) -> Dataset:
    """Opens a prepared split of the run's task, memory-mapped.

    Raises:
        DataError: As `open_split`.
    """
    return open_split(data_dir, config.task, split, config.data.protocol)


def open_dataset(
    config: TrainConfig,
    data_dir: Path,
    split: str,
    codec: TextCodec,
    visual: VisualInput | None,
    *,
    is_training: bool = False,
    rows: Dataset | None = None,
) -> TaskDataset:
    """Opens a split as batches and reports, or refuses, texts that are too long.

    For training, ``data.few_shot`` leaves the chosen rows only.

    Args:
        config: The run's settings.
        data_dir: Prepared data.
        split: Which split.
        codec: Makes token ids from text, the backbone's way.
        visual: The split's visual input.
        is_training: Whether batches carry labels.
        rows: What `open_rows` returns, if it is open already.

    Raises:
        ConfigError: The few-shot choice cannot be made.
        DataError: As `open_split` and `TaskDataset`; or texts exceed ``data.max_source_length`` and ``data.on_long`` is
            ``"error"``.
    """
    task: Task = get_task(config.task)
    dataset = TaskDataset(
        open_rows(config, data_dir, split) if rows is None else rows,
        task,
        codec,
        protocol=config.data.protocol,
        max_source_length=config.data.max_source_length,
        max_target_length=config.data.max_target_length,
        seed=config.seed,
        visual=visual.source if visual else None,
        is_training=is_training,
        padding=config.data.padding,
        target_sampling=config.data.target_sampling,
        loss_weighting=config.data.loss_weighting,
    )
    skipped = len(dataset) - len(dataset.indices)
    if is_training and config.data.few_shot is not None:
        few_shot = FewShot(config.data.few_shot, config.data.few_shot_rule, config.seed)
        dataset.keep_few(few_shot, task.few_shot_classes or task.label_set(config.data.protocol) or ())
    long = dataset.count_long()
    if long:
        message = (
            f"{task.name} {split}: {long} of {len(dataset.indices)} source texts have more than "
            f"data.max_source_length={config.data.max_source_length} tokens"
        )
        if config.data.on_long == "error":
            raise DataError(f"{message}; raise the length, or set data.on_long=truncate")
        logger.warning("%s; they are truncated", message)
    if skipped:
        fate = "left out" if is_training else "scored as unanswered"
        logger.warning("%s %s: %d rows whose image could not be read are %s", task.name, split, skipped, fate)
    return dataset


def check_features(run_dir: Path, visual: VisualInput | None) -> None:
    """Refuses visual input made otherwise than what an adapter was trained on.

    Raises:
        CheckpointError: Encoder, weights, preprocessing or pooling differ; the message names both sides.
    """
    recorded = read_adapter_config(run_dir).features or {}
    if visual is None or not recorded:
        return
    differing = [
        f"{key}: trained on {recorded.get(key)!r}, given {visual.fingerprint.get(key)!r}"
        for key in sorted(set(recorded) | set(visual.fingerprint))
        if recorded.get(key) != visual.fingerprint.get(key) and key != _VERSION_KEY
    ]
    if differing:
        raise CheckpointError(f"{run_dir}: the visual features are not those of the training: {'; '.join(differing)}")
