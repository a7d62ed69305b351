"""The visual side of a run: a feature store, or the frozen image encoder on the fly."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor

from dept_vl.data.collator import Batch, VisualTensors, by_rows
from dept_vl.data.feature_format import UNRECORDED, describe_differences, differences
from dept_vl.data.features import FeatureStore, find_store
from dept_vl.data.image_rows import ProcessedImage, VisualFeatures
from dept_vl.data.manifest import split_images, split_info
from dept_vl.data.visual import CachedFeatures, ImagePixels, VisualSource, ZeroFeatures, find_unreadable
from dept_vl.errors import CheckpointError, ConfigError, DataError
from dept_vl.models.vision.base import ImageEncoder
from dept_vl.models.vision.settings import ImageEncoderSettings
from dept_vl.settings.schema import DataConfig
from dept_vl.tasks import Task

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class VisualInput:
    """Reads a batch's images as features.

    Attributes:
        source: Reads a batch's features or pixels; None for images of the user's own, which are given to `encode`.
        encoder: The frozen image encoder when it runs on the fly, else None.
        feature_dim: Width of one visual token; None where the backbone's own image encoder makes them.
        fingerprint: What made the features; recorded in the adapter.
        settings: Of the encoder.
    """

    source: VisualSource | None
    encoder: ImageEncoder | None
    feature_dim: int | None
    fingerprint: dict[str, Any]
    settings: ImageEncoderSettings

    @property
    def exif(self) -> Literal["apply", "ignore"]:
        """How images are opened."""
        return self.settings.exif

    def features(self, batch: Batch) -> VisualFeatures | None:
        """Returns what the model reads of a batch's images, encoding pixels if that is what the batch carries."""
        pixels = batch.pixel_values
        if pixels is None or self.encoder is None:
            return batch.visual_features
        features: Tensor = self.encoder(pixels.flatten(0, -4))  # (images of the batch, visual, feature_dim)
        return features.unflatten(0, pixels.shape[:-3])

    def encode(self, images: Iterable[Image.Image], device: torch.device) -> Tensor | Sequence[ProcessedImage]:
        """Returns the features of images of the user's own, from `open_image`, (images, visual, feature_dim) float32.

        All at once: measured on one core, one at a time costs an RN50 a tenth of its time, and makes a ViT-B-32 take
        twice and the demo's encoder six times as long. A batch of another size rounds a few of the 16-bit features to
        the number beside. An image is let go once its pixels are taken.
        """
        assert self.encoder is not None  # `open_own_images` made it
        features: Tensor = self.encoder(torch.stack([self.encoder.preprocess(image) for image in images]).to(device))
        return features

    def stacked(self, features: Sequence[Any], num_rows: int) -> VisualTensors:
        """Returns what `encode` returned, of the images of some rows one after the other, as `collate` takes it."""
        read: VisualTensors = {"visual_features": torch.stack(list(features))}
        return by_rows(read, num_rows) if len(features) > num_rows else read

    def zeroed(self) -> VisualInput:
        """Returns the same input with nothing to be seen in it."""
        return ZeroedInput(self.source, self.encoder, self.feature_dim, self.fingerprint, self.settings)

    def check_trained_on(self, recorded: Mapping[str, Any], where: Path) -> None:
        """Refuses to stand in for the features that an adapter was trained on where it makes others.

        Args:
            recorded: The fingerprint in the adapter; empty where there is none.
            where: The adapter's folder, for the message.

        Raises:
            CheckpointError: Encoder, weights, preprocessing or pooling differ; the message names both sides.
        """
        if not recorded:
            return
        found = differences(recorded, {**dict.fromkeys(recorded), **UNRECORDED, **self.fingerprint})
        keys = found.keys() - set(self.settings.packages)
        if keys and self._has_same_weights(recorded, keys):
            keys -= {"weights_sha256", *self.settings.names}
        differing = [f"{key}: trained on {found[key][0]!r}, given {found[key][1]!r}" for key in sorted(keys)]
        if differing:
            raise CheckpointError(f"{where}: the visual features are not those of the training: {'; '.join(differing)}")

    def _has_same_weights(self, recorded: Mapping[str, Any], differing: Collection[str]) -> bool:
        """Returns whether weights are the same, whatever they are called, or under an earlier way to hash them.

        The encoder itself is asked only where nothing but hash and names differ.
        """
        if "weights_sha256" not in differing:
            return recorded.get("weights_sha256") is not None
        if not set(differing) <= {"weights_sha256", *self.settings.names}:
            return False
        try:
            encoder: ImageEncoder = self.encoder or self.settings.load()
        except ConfigError:  # not at hand: they cannot be told to be the same
            return False
        known = {print_["weights_sha256"] for print_ in (encoder.fingerprint, encoder.earlier_fingerprint)}
        return {recorded.get("weights_sha256"), self.fingerprint.get("weights_sha256")} <= known


class ZeroedInput(VisualInput):
    """The same features, all at zero: what a run scores that reads its visual tokens and sees nothing in them."""

    def features(self, batch: Batch) -> VisualFeatures | None:
        """Returns zeros in the shape of `VisualInput.features`."""
        features = super().features(batch)
        return torch.zeros_like(features) if isinstance(features, Tensor) else None


def open_visual(
    task: Task,
    data: DataConfig,
    settings: ImageEncoderSettings,
    data_dir: Path,
    splits: Sequence[str],
    device: torch.device,
    running: ImageEncoder | None = None,
) -> dict[str, VisualInput]:
    """Returns the visual input of each split of a task with images; encoder or store are opened once.

    `running` is the encoder where it is loaded already.

    Raises:
        DataError: No matching feature store, or one of another encoder.
    """
    if data.visual_features == "encode":
        encoder: ImageEncoder = running or settings.load(device)
        sources = {split: split_source(task, data, data_dir, split) for split in splits}
        return {
            split: _encoded(settings, encoder, ImagePixels(preprocess=encoder.preprocess, exif=encoder.exif, **source))
            for split, source in sources.items()
        }
    store = _open_store(data, settings, data_dir)
    source: VisualSource = CachedFeatures(store)
    if data.visual_features == "zero":
        source = ZeroFeatures(store.num_visual_tokens, store.feature_dim, store.skipped)
    return dict.fromkeys(splits, VisualInput(source, None, store.feature_dim, store.fingerprint, settings))


def open_own_images(settings: ImageEncoderSettings, device: torch.device) -> VisualInput:
    """Returns visual input for images of the user's own.

    Raises:
        ConfigError: The encoder cannot be loaded.
    """
    encoder: ImageEncoder = settings.load(device)
    return _encoded(settings, encoder, None)


def _encoded(settings: ImageEncoderSettings, encoder: ImageEncoder, source: VisualSource | None) -> VisualInput:
    return VisualInput(source, encoder, encoder.feature_dim, encoder.fingerprint, settings)


def split_source(task: Task, data: DataConfig, data_dir: Path, split: str) -> dict[str, Any]:
    """Returns where a split's images lie and which of them cannot be read, as `ImagePixels` takes it.

    The latter are found first where ``data.on_image_error`` skips them.

    Raises:
        DataError: As `image_root`.
    """
    root = image_root(task, data, data_dir, split)
    skipped: Mapping[int, str] = {}
    if data.on_image_error == "skip":
        images = split_images(data_dir, task, split)
        skipped = find_unreadable({image_id: root / image for image_id, image in images.items()})
        if skipped:
            reasons = "; ".join(list(skipped.values())[:3])
            logger.warning(
                "%s %s: %d of %d images cannot be read (%s%s)",
                task.name, split, len(skipped), len(images), reasons, "; ..." if len(skipped) > 3 else "",
            )  # fmt: skip
    return {"image_root": root, "skipped": skipped.keys()}


def _open_store(data: DataConfig, settings: ImageEncoderSettings, data_dir: Path) -> FeatureStore:
    """Opens the store in ``data.feature_dir``, or the one in `data_dir` that was made with the run's settings."""
    wanted = settings.known_fingerprint()
    folder = data.feature_dir
    if folder is None:
        return find_store(data_dir, wanted)
    store = FeatureStore.open(Path(folder))
    differing = describe_differences(store.fingerprint, wanted)
    if differing:
        raise DataError(f"data.feature_dir: {folder} holds features made otherwise: {differing}")
    return store


def image_root(task: Task, data: DataConfig, data_dir: Path, split: str) -> Path:
    """Returns the folder that image paths of a split start from.

    Raises:
        DataError: Neither the settings nor the prepared split name one that exists.
    """
    recorded = split_info(data_dir, task, split).image_root
    root = data.image_dir or recorded
    if root is None or not Path(root).is_dir():
        raise DataError(
            f"image folder {root}: not there (recorded by `dept-vl prepare`: {recorded}); set data.image_dir"
        )
    return Path(root)
