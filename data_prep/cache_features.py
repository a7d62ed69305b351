"""Images -> frozen grid features -> one feature store per encoder, shared by every task on the same images.

Loader workers decode while the encoder runs and a thread writes the shard before. Under ``accelerate launch`` each
process writes its own shards of the same store; the main one writes the index when all are done.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from data_prep.encodings import Encoding, RecordEncoder, grid_encoding, record_encoding
from data_prep.feature_writer import FeatureWriter, ShardPlan, SkippedImage
from dept_vl.data.feature_format import fingerprint_key
from dept_vl.data.images import open_image
from dept_vl.data.manifest import split_images, split_info, split_path
from dept_vl.errors import DataError
from dept_vl.models.vision.base import ImageEncoder
from dept_vl.models.vision.settings import ImageEncoderSettings
from dept_vl.system.free_space import check_free_space
from dept_vl.system.loading import read_loaded
from dept_vl.system.memory import reused_memory
from dept_vl.system.processes import process_state
from dept_vl.system.progress import Meter
from dept_vl.tasks import Task
from dept_vl.tasks.splits import SPLITS

logger = logging.getLogger(__name__)


def cache_features(
    encoder: ImageEncoderSettings | RecordEncoder,
    data_dir: Path,
    task: Task,
    *,
    batch_size: int = 64,
    num_workers: int = 2,
    on_error: Literal["stop", "skip"] = "stop",
    device: str | torch.device | None = None,
    image_dir: Path | None = None,
    rows_per_shard: int | None = None,
) -> Path:
    """Encodes every image of a prepared task once; returns the store, ``data_dir/features/<encoder>-<key>``.

    May be stopped or killed at any moment and run again: finished shards are kept, and the result has the same bytes.

    Args:
        encoder: An image encoder's settings, its preprocessing and the stored dtype; or a vision-language backbone on
            the device where it is to compute.
        data_dir: The folder `dept-vl prepare` wrote to.
        task: A prepared task with images.
        batch_size: Images encoded at a time, in each process.
        num_workers: Decoding processes of each process; 0: none.
        on_error: ``"stop"`` at an image that cannot be read, or ``"skip"`` it and list it in ``skipped.jsonl``.
        device: Where an image encoder runs; None: a GPU if there is one (this process's own under ``accelerate
            launch``).
        image_dir: Root of the images; None: where `prepare` found them.
        rows_per_shard: Images a shard; None: about 128 MiB.

    Raises:
        DataError: The task is not prepared or has no images, an image cannot be read or was replaced, the disk has no
            room for the features, or the store is in use or damaged.
        ConfigError: The encoder cannot be loaded.
    """
    images = collect_images(data_dir, task, image_dir)
    state = process_state()
    target = state.device if device is None else torch.device(device)
    encoding = (
        grid_encoding(encoder, target)
        if isinstance(encoder, ImageEncoderSettings)
        else record_encoding(encoder, list(images.values()))
    )
    fingerprint, folder = find_place(data_dir / "features", encoding.label, encoding)
    owner, skip = state.is_main_process, on_error == "skip"
    writer = FeatureWriter(
        folder, fingerprint, list(images), layout=encoding.layout, rows_per_shard=rows_per_shard, allow_skipped=skip,
        is_owner=owner,
    )  # fmt: skip
    if not owner:
        state.wait_for_everyone()  # the owner locks and cleans first
    with writer:
        if owner:
            _refuse_changed(writer, images)
            _refuse_too_large(writer, encoding)
            state.wait_for_everyone()
        plans = writer.pending(state.process_index, state.num_processes)
        state.wait_for_everyone()  # every process has planned before anything changes
        with reused_memory():
            job = _Job(encoding, target, writer, images, batch_size, num_workers, on_error)
            job.run(plans, show_progress=owner)
        state.wait_for_everyone()
        if owner:
            store = writer.finish()
            logger.info("%s: %d images, %s each, %d skipped", folder, len(store), encoding.words, len(store.skipped))
    state.wait_for_everyone()
    return folder


def _refuse_too_large(writer: FeatureWriter, encoding: Encoding) -> None:
    """Says what is still to be written, and refuses what the disk has no room for."""
    missing = sum(len(plan.image_ids) for plan in writer.pending())
    if missing:
        check_free_space(
            writer.folder, missing * encoding.layout.row_bytes, f"{missing:,} images of {encoding.words}",
            "store numbers of fewer bytes (int8), or take a data folder on another disk",
        )  # fmt: skip


def find_place(stores: Path, label: str, encoder: ImageEncoder | Encoding) -> tuple[dict[str, Any], Path]:
    """Returns the fingerprint and the folder of an encoder's store; one begun under an earlier fingerprint goes on."""
    places = [
        (found, stores / store_name(label, found)) for found in (encoder.fingerprint, encoder.earlier_fingerprint)
    ]
    return next((place for place in places if place[1].is_dir()), places[0])


def store_name(label: str, fingerprint: Mapping[str, Any]) -> str:
    """Returns the folder name of an encoder's store: what the encoder is called and a key of its fingerprint."""
    return f"{label.replace('/', '-')}-{fingerprint_key(fingerprint)}"


def collect_images(data_dir: Path, task: Task, image_dir: Path | None = None) -> dict[int, Path]:
    """Returns the file of every image of a prepared task, over all splits it has, in order of the ids.

    Args:
        data_dir: The folder `dept-vl prepare` wrote to.
        task: The task.
        image_dir: Root of the images; None: where `prepare` found them.

    Raises:
        DataError: The task has no images or no prepared split, or an image has two files.
    """
    if not task.uses_images:
        raise DataError(f"task {task.name!r} has no images: there is nothing to cache")
    images: dict[int, Path] = {}
    prepared = [split for split in SPLITS if split_path(data_dir, task, split).is_file()]
    for split in prepared or SPLITS:
        root = image_dir if image_dir is not None else Path(split_info(data_dir, task, split).image_root or "")
        for image_id, image in split_images(data_dir, task, split).items():
            place = root / image
            if images.setdefault(image_id, place) != place:
                path = split_path(data_dir, task, split)
                raise DataError(f"{path}: image {image_id} is {place}, but {images[image_id]} in another split")
    return dict(sorted(images.items()))


def _refuse_changed(writer: FeatureWriter, images: dict[int, Path]) -> None:
    """Raises if an image's file has another size than when its stored features were made."""
    for image_id, size in writer.stored_sizes().items():
        path = images.get(image_id)
        if path is not None and path.is_file() and path.stat().st_size != size:
            raise DataError(
                f"{path}: has {path.stat().st_size:,} bytes, but {size:,} when image {image_id} was encoded: the image "
                f"was replaced; remove {writer.folder} to encode all images again"
            )


@dataclass(frozen=True)
class _Batch:
    """Some images as a loader worker hands them over.

    Attributes:
        inputs: What the encoder takes of those that could be read, such as (images, 3, height, width); None if none
            could.
        image_bytes: Their files' sizes.
        errors: (image id, what was wrong) of the others.
    """

    inputs: Any
    image_bytes: list[int]
    errors: list[tuple[int, str]]

    def pin_memory(self) -> _Batch:
        """Called by the loader where the encoder is on a GPU."""
        return replace(self, inputs=self.inputs.pin_memory()) if isinstance(self.inputs, Tensor) else self


class _Images(Dataset[_Batch]):
    """Decodes and preprocesses images, a batch of ids at a time."""

    def __init__(self, images: Mapping[int, Path], encoding: Encoding) -> None:
        self._images = images
        self._preprocess, self._stack, self._exif = encoding.preprocess, encoding.stack, encoding.exif

    def __getitem__(self, image_ids: Sequence[int]) -> _Batch:
        inputs: list[Any] = []
        image_bytes: list[int] = []
        errors: list[tuple[int, str]] = []
        for image_id in image_ids:
            path = self._images[image_id]
            try:
                inputs.append(self._preprocess(open_image(path, exif=self._exif)))
                image_bytes.append(path.stat().st_size)
            except DataError as error:
                errors.append((image_id, str(error)))
        return _Batch(self._stack(inputs) if inputs else None, image_bytes, errors)


@dataclass
class _Job:
    """Encoding some shards in one process."""

    encoding: Encoding
    device: torch.device
    writer: FeatureWriter
    images: dict[int, Path]
    batch_size: int
    num_workers: int
    on_error: Literal["stop", "skip"]

    def run(self, plans: Sequence[ShardPlan], *, show_progress: bool) -> None:
        """Decodes, encodes and writes shard after shard."""
        if not plans:
            return
        batches = self._batches(plans)
        total = sum(len(plan.image_ids) for plan in plans)
        with Meter(total, "encode", "images", is_shown=show_progress) as meter, ThreadPoolExecutor(1) as thread:
            written: Future[None] | None = None
            for plan in plans:
                shard = self._encode_shard(plan, batches, meter)
                if written is not None:
                    written.result()  # at most one shard waits to be written
                written = thread.submit(self.writer.write, plan, *shard)
            if written is not None:
                written.result()

    def _batches(self, plans: Sequence[ShardPlan]) -> Iterator[_Batch]:
        """Yields decoded batches in order. No batch spans two shards, so a resumed build makes the same batches."""
        loader: DataLoader[_Batch] = DataLoader(
            _Images(self.images, self.encoding),
            batch_size=None,
            sampler=[
                plan.image_ids[start : start + self.batch_size]
                for plan in plans
                for start in range(0, len(plan.image_ids), self.batch_size)
            ],
            num_workers=self.num_workers,
            pin_memory=self.device.type == "cuda",
        )
        return read_loaded(loader)

    def _encode_shard(
        self, plan: ShardPlan, batches: Iterator[_Batch], meter: Meter
    ) -> tuple[Any, list[int], list[SkippedImage]]:
        """Returns what `FeatureWriter.write` takes for one shard."""
        parts: list[Any] = []
        image_bytes: list[int] = []
        skipped: list[SkippedImage] = []
        for _ in range(0, len(plan.image_ids), self.batch_size):
            batch = next(batches)
            if batch.errors and self.on_error == "stop":
                image_id, error = batch.errors[0]
                raise DataError(
                    f"{error} (image {image_id}); `--on-error skip` would go on without it (of other commands: "
                    "`--data.on_image_error skip`)"
                )
            skipped += [SkippedImage(image_id, str(self.images[image_id]), error) for image_id, error in batch.errors]
            image_bytes += batch.image_bytes
            if batch.inputs is not None:
                parts.append(self.encoding.encode(batch.inputs))
            meter.add(len(batch.image_bytes) + len(batch.errors))
        return self.encoding.join(parts), image_bytes, skipped
