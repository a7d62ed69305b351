"""Shards of pictures -> shards of features, by any number of processes that know nothing of each other.

One input shard becomes one output shard and a marker beside it, written last, which says what the shard holds; both
appear whole. So any of them may be killed, and whoever comes next does what has no marker. Who finds all markers writes
the index, which makes a store of it. Whoever does what, the files have the same bytes.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from data_prep.encodings import Encoding
from data_prep.feature_writer import SkippedImage, encode_shard, make_index, shard_entry
from data_prep.raw.image_shards import ImageShard
from data_prep.raw.row_images import image_number
from dept_vl.data import feature_format as files
from dept_vl.data.images import open_image
from dept_vl.errors import DataError
from dept_vl.system.atomic import write_bytes, write_text
from dept_vl.system.bounded_reading import parse_json, read_file
from dept_vl.system.free_space import check_free_space
from dept_vl.system.loading import read_loaded
from dept_vl.system.progress import Meter
from dept_vl.system.workers import Worker

logger = logging.getLogger(__name__)

_DONE = ".done"


@dataclass(frozen=True)
class ShardCache:
    """The encoding of shards into one store.

    Attributes:
        folder: The store's.
        encoding: What encodes pictures.
        shards: All inputs, in an order that every process has.
        batch_size: Pictures encoded at a time.
        num_workers: Decoding processes; 0: none.
        on_error: What happens at a picture that cannot be read.
    """

    folder: Path
    encoding: Encoding
    shards: Sequence[ImageShard]
    batch_size: int = 64
    num_workers: int = 0
    on_error: Literal["stop", "skip"] = "stop"

    def run(self, worker: Worker, *, show_progress: bool = True) -> bool:
        """Encodes this process's share of what is not done yet; returns whether the store is finished then.

        Raises:
            DataError: A picture or an input cannot be read, the folder holds something else, or its disk has no room.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if (self.folder / files.INDEX).exists() and not any(self.folder.glob(f"*{_DONE}")):
            raise DataError(f"{self.folder}: holds a store that was not made of shards; choose another --out")
        done = [self._read_marker(number) is not None for number in range(len(self.shards))]
        mine = [number for number in range(worker.rank, len(self.shards), worker.world) if not done[number]]
        self._check_space([number for number, one in enumerate(done) if not one])
        with Meter(len(mine), "encode", "shards", is_shown=show_progress) as meter:
            for number in mine:
                self._encode(number)
                meter.add()
        return self._finish()

    def _check_space(self, missing: Sequence[int]) -> None:
        """Says how much is to be written by all processes, by the pictures of one input and the sizes of all."""
        count = self.shards[missing[0]].count() if missing else None
        if count is None:
            return
        sizes = [self.shards[number].num_bytes or 0 for number in missing]
        images = round(count * sum(sizes) / sizes[0])
        check_free_space(
            self.folder, images * self.encoding.layout.row_bytes,
            f"about {images:,} images of {self.encoding.words} in {len(missing)} of {len(self.shards)} shards",
            "store numbers of fewer bytes (int8), or write to another disk",
        )  # fmt: skip

    def _encode(self, number: int) -> None:
        """Writes one shard and then its marker."""
        rows: list[Any] = []
        image_ids: list[int] = []
        image_bytes: list[int] = []
        skipped: list[SkippedImage] = []
        for batch in self._batches(self.shards[number]):
            if batch.skipped and self.on_error == "stop":
                first = batch.skipped[0]
                raise DataError(f"{first.image}: {first.error}; `--on-error skip` would go on without it")
            skipped += batch.skipped
            image_ids += batch.image_ids
            image_bytes += batch.image_bytes
            if batch.inputs is not None:
                rows.append(self.encoding.encode(batch.inputs))
        found, path = self.encoding, self.folder / files.shard_name(number)
        joined = found.join(rows)
        write_bytes(path, encode_shard(found.layout, found.fingerprint, image_ids, joined, image_bytes, skipped))
        entry = shard_entry(path, image_ids, found.layout)
        marker = {"input": self._describe(number), "shard": {**vars(entry)}, "skipped": [vars(one) for one in skipped]}
        write_text(self._marker(number), files.encode_json(marker) + "\n")

    def _batches(self, shard: ImageShard) -> Iterator[_Batch]:
        pictures = _Pictures(shard.read, self.encoding, self.batch_size)
        return read_loaded(DataLoader(pictures, batch_size=None, num_workers=self.num_workers))

    def _marker(self, number: int) -> Path:
        return (self.folder / files.shard_name(number)).with_suffix(_DONE)

    def _describe(self, number: int) -> dict[str, Any]:
        """Returns what a marker says of the input, and of what encoded it."""
        shard = self.shards[number]
        key = files.fingerprint_key(self.encoding.fingerprint)
        return {
            "name": shard.name, "column": shard.column, "bytes": shard.num_bytes, "of": len(self.shards), "encoder": key
        }  # fmt: skip

    def _read_marker(self, number: int) -> tuple[files.ShardEntry, list[SkippedImage]] | None:
        """Returns what a finished shard holds; None where it is not done, or lacks pictures that are not to be lacking.

        Raises:
            DataError: It is of another input or another encoder, or damaged.
        """
        path = self._marker(number)
        if not path.is_file():
            return None
        try:
            raw = parse_json(read_file(path))
            found = raw["input"]
            entry = files.ShardEntry(**{**raw["shard"], "image_ids": tuple(raw["shard"]["image_ids"])})
            skipped = [SkippedImage(**image) for image in raw["skipped"]]
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path}: damaged marker ({error!r}); remove it to encode its shard again") from error
        if found != self._describe(number):
            raise DataError(
                f"{path}: was made of {found}, and this process would make it of {self._describe(number)}; give the "
                "same inputs and the same encoder, or another --out"
            )
        if skipped and self.on_error == "stop":
            return None
        shard = self.folder / entry.file
        if not shard.is_file() or shard.stat().st_size != entry.bytes:
            logger.warning("%s: not there, or cut short, though %s says it is done; it is made again", shard, path)
            return None
        return entry, skipped

    def _finish(self) -> bool:
        """Writes the index if everything is done."""
        found = [self._read_marker(number) for number in range(len(self.shards))]
        missing = sum(one is None for one in found)
        if missing:
            logger.info("%s: %d of %d shards done", self.folder, len(found) - missing, len(found))
            return False
        done = [one for one in found if one is not None]
        entries = [entry for entry, _ in done if entry.image_ids]
        skipped = sorted((image for _, images in done for image in images), key=lambda image: image.image_id)
        counted: dict[int, int] = {}
        for entry in entries:
            for image_id in entry.image_ids:
                counted[image_id] = counted.get(image_id, 0) + 1
        repeated = sorted(image_id for image_id, count in counted.items() if count > 1)
        reasons = {image.image_id: image.error for image in skipped}
        lines = "".join(files.encode_json(vars(image)) + "\n" for image in skipped)
        write_text(self.folder / files.LEDGER, lines)
        index = make_index(self.encoding.layout, self.encoding.fingerprint, entries, reasons, repeated)
        write_text(self.folder / files.INDEX, files.encode_index(index))
        logger.info("%s: %d images, %d skipped: finished", self.folder, len(counted), len(reasons))
        return True


@dataclass(frozen=True)
class _Batch:
    """Some pictures as a loader process hands them over."""

    inputs: Any
    image_ids: list[int]
    image_bytes: list[int]
    skipped: list[SkippedImage]


class _Pictures(IterableDataset[_Batch]):
    """A shard's pictures, decoded and preprocessed; each once, by its content.

    Of n loader processes each reads the shard, and decodes every n-th batch, so that they come in order.
    """

    def __init__(self, read: Callable[[], Iterator[tuple[str, bytes]]], encoding: Encoding, batch_size: int) -> None:
        self._read, self._batch_size = read, batch_size
        self._preprocess, self._stack, self._exif = encoding.preprocess, encoding.stack, encoding.exif

    def __iter__(self) -> Iterator[_Batch]:
        info = get_worker_info()
        number, total = (0, 1) if info is None else (info.id, info.num_workers)
        pictures = self._distinct()
        batch = 0
        while part := list(islice(pictures, self._batch_size)):
            if batch % total == number:
                yield self._decode(part)
            batch += 1

    def _distinct(self) -> Iterator[tuple[int, str, bytes]]:
        seen: set[int] = set()
        for place, content in self._read():
            image_id = image_number(hashlib.sha256(content).hexdigest())
            if image_id not in seen:
                seen.add(image_id)
                yield image_id, place, content

    def _decode(self, pictures: Sequence[tuple[int, str, bytes]]) -> _Batch:
        batch, inputs = _Batch(None, [], [], []), []
        for image_id, place, content in pictures:
            try:
                inputs.append(self._preprocess(open_image(content, exif=self._exif)))
            except DataError as error:
                batch.skipped.append(SkippedImage(image_id, place, str(error)))
                continue
            batch.image_ids.append(image_id)
            batch.image_bytes.append(len(content))
        return replace(batch, inputs=self._stack(inputs)) if inputs else batch
