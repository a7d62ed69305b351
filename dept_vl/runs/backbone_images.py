"""The visual side of a run on a vision-language backbone, which encodes its images itself."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image

from dept_vl.data.collator import Batch, VisualTensors, by_rows
from dept_vl.data.feature_format import finished_stores, read_index
from dept_vl.data.image_processing import ImageProcessing
from dept_vl.data.image_rows import ImageRows, ProcessedImage, VisualFeatures
from dept_vl.data.record_store import CONNECTOR, RecordStore, find_record_store, open_record_store
from dept_vl.data.visual import CachedRecords, ProcessedImages, VisualSource
from dept_vl.errors import DataError
from dept_vl.models.config import ModelConfig
from dept_vl.models.language.backbone_encoder import backbone_fingerprint
from dept_vl.models.language.vision_language import VisionLanguageBackbone
from dept_vl.runs.visual_input import VisualInput, split_source
from dept_vl.settings.schema import DataConfig
from dept_vl.tasks import Task

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class BackboneImages(VisualInput):
    """Hands a batch's images to the model as the backbone's processor gives them.

    Attributes:
        processing: The backbone's.
        is_unseen: Whether the model is to see nothing in its images (``data.visual_features=zero``).
    """

    processing: ImageProcessing
    is_unseen: bool = False

    @classmethod
    def of(
        cls, processing: ImageProcessing, model: ModelConfig, source: VisualSource | None, *, is_unseen: bool = False
    ) -> BackboneImages:
        """Returns the images of a split.

        Args:
            processing: The backbone's.
            model: The run's; pictures are opened as its ``image_encoder`` is set by default.
            source: As `VisualInput`.
            is_unseen: As above.
        """
        fingerprint, settings = processing.fingerprint(), model.image_encoder
        return cls(source, None, None, fingerprint, settings, processing=processing, is_unseen=is_unseen)

    def features(self, batch: Batch) -> VisualFeatures | None:
        """Returns a batch's images, for the model to encode."""
        images = batch.images
        return images.unseen() if images is not None and self.is_unseen else images

    def zeroed(self) -> VisualInput:
        """See `VisualInput.zeroed`."""
        return replace(self, is_unseen=True)

    def encode(self, images: Iterable[Image.Image], device: torch.device) -> Sequence[ProcessedImage]:
        """Returns images of the user's own as the processor gives them; the model encodes each once a batch."""
        return [self.process(image) for image in images]

    def process(self, image: Image.Image) -> ProcessedImage:
        """Returns an image as the processor gives it.

        Raises:
            DataError: The processor refuses it.
        """
        return self.processing(image)

    def stacked(self, features: Sequence[ProcessedImage], num_rows: int) -> VisualTensors:
        """See `VisualInput.stacked`."""
        return by_rows({"images": ImageRows.one_each(features)}, num_rows)


def open_backbone_images(
    task: Task,
    data: DataConfig,
    model: ModelConfig,
    data_dir: Path,
    splits: Sequence[str],
    backbone: VisionLanguageBackbone,
) -> dict[str, VisualInput]:
    """Returns the visual input of each split of a task with images: stored, where they are, or as pictures.

    A store is read where ``data.feature_dir`` names it, or ``data.visual_features`` is ``"cache"`` (or ``"zero"``) and
    one of this backbone is finished in the data folder. The log says which of the two a run reads.

    Args:
        task: Its rows name the images.
        data: The run's settings.
        model: The run's settings.
        data_dir: Prepared data.
        splits: Which.
        backbone: The run's.

    Raises:
        DataError: The images are not there; or the store is of another backbone or processor, damaged, or holds what
            a connector that is trained is to make.
    """
    processing = backbone.image_processing(model.system_prompt)
    is_unseen = data.visual_features == "zero"
    store, others = _find_store(data, model, data_dir, backbone, processing)
    if store is not None:
        if model.train_connector and store.where == CONNECTOR:
            raise DataError(
                f"{store.folder}: holds what images become behind the connector, which model.train_connector trains; "
                "store what goes into it (`dept-vl cache-features --where tower`), or set data.visual_features=encode"
            )
        logger.info("%s: images are read from %s (%s)", task.name, store.folder, store.fingerprint["dtype"])
        images = BackboneImages.of(processing, model, CachedRecords(store), is_unseen=is_unseen)
        return dict.fromkeys(splits, images)
    why = f"stores of others: {others}" if others else "`dept-vl cache-features` stores what they become"
    logger.info("%s: images are encoded as they are read; %s", task.name, why)
    return {
        split: BackboneImages.of(
            processing, model,
            ProcessedImages(
                **split_source(task, data, data_dir, split), preprocess=processing, exif=model.image_encoder.exif
            ),
            is_unseen=is_unseen,
        )
        for split in splits
    }  # fmt: skip


def _find_store(
    data: DataConfig,
    model: ModelConfig,
    data_dir: Path,
    backbone: VisionLanguageBackbone,
    processing: ImageProcessing,
) -> tuple[RecordStore | None, str]:
    """Returns the store to read, and what others differ in; weights are looked at only where there may be one."""
    has_any = data.feature_dir is not None or any(read_index(path).is_ragged for path in finished_stores(data_dir))
    if data.visual_features == "encode" or not has_any:
        return None, ""
    wanted = backbone_fingerprint(backbone, processing, model.image_encoder.exif)
    if data.feature_dir is not None:
        return open_record_store(Path(data.feature_dir), wanted), ""
    return find_record_store(data_dir, wanted)
