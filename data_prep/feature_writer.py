"""Building a feature store that survives being killed at any moment (``feature_format`` describes the files).

The images still to be encoded are cut into shards by their ids alone, so the same images give the same shards whoever
writes them, in whatever order, in one run or ten. A shard appears whole, under its final name; the index, written
last, is what makes it count. A new run keeps every shard that is the one it would write, and writes the rest.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from data_prep.store_layouts import GridLayout, StoreLayout
from dept_vl.data import feature_format as files
from dept_vl.data.features import open_indexed, open_store
from dept_vl.data.stored_images import StoredImages, first_not_finite
from dept_vl.errors import DataError
from dept_vl.system.atomic import remove_leftovers, write_bytes, write_text
from dept_vl.system.bounded_reading import hash_file, parse_json, read_file
from dept_vl.system.file_names import utf8_name
from dept_vl.system.locks import OwnedLock

logger = logging.getLogger(__name__)

SHARD_BYTES = 128 * 2**20
"""Default size of a shard: what a kill can cost, and how many files a full COCO store has (about 140)."""

MAX_SHARD_ROWS = 4096
LOCK = ".lock"


@dataclass(frozen=True)
class ShardPlan:
    """The images one shard is for, ascending."""

    number: int
    image_ids: tuple[int, ...]


@dataclass(frozen=True)
class SkippedImage:
    """An image that could not be read, and why."""

    image_id: int
    image: str
    error: str


class FeatureWriter:
    """Writes or extends the store in a folder; a context manager.

    One process per build is the `owner`: it holds the lock and writes the index. Others (``is_owner=False``) write
    shards beside it, and enter only after the owner did.
    """

    def __init__(
        self,
        folder: Path,
        fingerprint: Mapping[str, Any],
        image_ids: Sequence[int],
        *,
        layout: StoreLayout | None = None,
        rows_per_shard: int | None = None,
        allow_skipped: bool = False,
        is_owner: bool = True,
    ) -> None:
        """Says what is to be built; touches no file yet.

        Args:
            folder: The store's folder; made if absent.
            fingerprint: What makes the features.
            image_ids: Every image the store is to have; those it has already are kept as they are.
            layout: What a shard holds of an image; None: `GridLayout`.
            rows_per_shard: Images a shard; None: as many as fit `SHARD_BYTES`, at most `MAX_SHARD_ROWS`.
            allow_skipped: Whether finished shards of an earlier, interrupted run may lack images it could not read; if
                not, those shards are written again.
            is_owner: Whether this process locks the store and finishes it.
        """
        self.folder = folder
        self.fingerprint = dict(fingerprint)
        self.layout: StoreLayout = layout or GridLayout(fingerprint)
        self._rows_per_shard = rows_per_shard or max(1, min(MAX_SHARD_ROWS, SHARD_BYTES // self.layout.row_bytes))
        self._wanted = sorted(set(image_ids))
        self._allow_skipped = allow_skipped
        self._is_owner = is_owner
        self._lock = OwnedLock(folder / LOCK, f"feature store {folder}")
        self._finished: tuple[files.ShardEntry, ...] = ()
        self._plans: tuple[ShardPlan, ...] = ()

    def __enter__(self) -> FeatureWriter:
        """Locks the store, reads what it has, and plans the missing shards.

        Raises:
            ConfigError: Another process is building this store.
            DataError: What lies there is damaged or of another encoder.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._is_owner:
            self._lock.acquire()
        try:
            if self._is_owner:
                remove_leftovers(self.folder)
            self._plan()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Unlocks the store."""
        self._lock.release()

    def _plan(self) -> None:
        stored: set[int] = set()
        first = 0
        if (self.folder / files.INDEX).exists():
            index = files.read_index(self.folder)
            if index.fingerprint != self.fingerprint:
                raise DataError(f"{self.folder}: holds features of another encoder; {files.REBUILD}")
            open_indexed(self.folder, index)  # its checks: a damaged store is not to be extended
            self._finished = index.shards
            stored = {image_id for shard in index.shards for image_id in shard.image_ids}
            first = 1 + max((int(Path(shard.file).stem) for shard in index.shards), default=-1)
        missing = [image_id for image_id in self._wanted if image_id not in stored]
        step = self._rows_per_shard
        self._plans = tuple(
            ShardPlan(first + i, tuple(missing[start : start + step]))
            for i, start in enumerate(range(0, len(missing), step))
        )

    def pending(self, process: int = 0, num_processes: int = 1) -> list[ShardPlan]:
        """Returns the shards process `process` of `num_processes` has to write, without those that are there."""
        return [plan for plan in self._plans[process::num_processes] if self._read_finished(plan) is None]

    def stored_sizes(self) -> dict[int, int]:
        """Returns the size in bytes each stored image's file had when it was encoded, by image id."""
        names = [shard.file for shard in self._finished]
        names += [files.shard_name(plan.number) for plan in self._plans if self._read_finished(plan) is not None]
        sizes: dict[int, int] = {}
        for path in (self.folder / name for name in names):
            sizes |= zip(_load_column(path, "image_ids"), _load_column(path, "image_bytes"), strict=True)
        return sizes

    def write(
        self, plan: ShardPlan, rows: Any, image_bytes: Sequence[int], skipped: Sequence[SkippedImage] = ()
    ) -> None:
        """Writes one shard in one step.

        Args:
            plan: Which images it is for.
            rows: The images of `plan` in order without `skipped`, as the layout takes them: (images, visual,
                feature_dim) of any float dtype, or one record an image.
            image_bytes: Size of each of those image files.
            skipped: The images of `plan` that could not be read.

        Raises:
            DataError: A number is not finite in the stored dtype.
            ValueError: Images, sizes and skipped ones do not make up the plan (a mistake of the caller).
        """
        left_out = {image.image_id for image in skipped}
        image_ids = [image_id for image_id in plan.image_ids if image_id not in left_out]
        content = encode_shard(self.layout, self.fingerprint, image_ids, rows, image_bytes, skipped)
        write_bytes(self.folder / files.shard_name(plan.number), content)

    def _read_finished(self, plan: ShardPlan) -> tuple[list[int], list[SkippedImage]] | None:
        """Returns the images and the skipped ones of a shard on disk if it is the one `plan` asks for, else None."""
        path = self.folder / files.shard_name(plan.number)
        if not path.exists():
            return None
        try:
            regions, about = files.read_header(path)
            image_ids = _load_column(path, "image_ids")
            skipped = [SkippedImage(**image) for image in about.get("skipped", [])]
        except (DataError, TypeError) as error:
            logger.warning("%s; it is written again", error)
            return None
        is_planned = sorted([*image_ids, *(image.image_id for image in skipped)]) == list(plan.image_ids)
        is_ours = about.get("fingerprint") == self.fingerprint
        has_shape = "features" in regions and self.layout.fits(regions, len(image_ids))
        if not (is_planned and is_ours and has_shape) or (skipped and not self._allow_skipped):
            return None
        return image_ids, skipped

    def finish(self) -> StoredImages:
        """Writes the ledger and, last, the index over all shards, and opens the finished store.

        Shards of which every image was skipped are removed. Images skipped by an earlier build and not asked for in
        this one stay listed.

        Raises:
            DataError: A planned shard is missing.
        """
        entries, ledger, empty = list(self._finished), [], []
        for plan in self._plans:
            finished = self._read_finished(plan)
            path = self.folder / files.shard_name(plan.number)
            if finished is None:
                raise DataError(f"{path}: this shard was not written; run `dept-vl cache-features` again")
            image_ids, skipped = finished
            ledger += skipped
            if image_ids:
                entries.append(shard_entry(path, image_ids, self.layout))
            else:
                empty.append(path)
        ledger = sorted(self._earlier_skipped() + ledger, key=lambda image: image.image_id)
        lines = "".join(files.encode_json(vars(image)) + "\n" for image in ledger)
        write_text(self.folder / files.LEDGER, lines)
        index = make_index(self.layout, self.fingerprint, entries, {image.image_id: image.error for image in ledger})
        write_text(self.folder / files.INDEX, files.encode_index(index))
        for path in empty:
            path.unlink()
        return open_store(self.folder)

    def _earlier_skipped(self) -> list[SkippedImage]:
        """Returns ledger entries of images that were not tried again in this build."""
        wanted = set(self._wanted)
        path = self.folder / files.LEDGER
        if not path.exists():
            return []
        try:
            ledger = [SkippedImage(**parse_json(line)) for line in read_file(path).splitlines()]
        except (TypeError, ValueError) as error:
            raise DataError(f"{path}: damaged ledger ({error}); {files.REBUILD}") from error
        return [image for image in ledger if image.image_id not in wanted]


def encode_shard(
    layout: StoreLayout,
    fingerprint: Mapping[str, Any],
    image_ids: Sequence[int],
    rows: Any,
    image_bytes: Sequence[int],
    skipped: Sequence[SkippedImage] = (),
) -> bytes:
    """Returns a shard's file; see `FeatureWriter.write`.

    Raises:
        DataError: A number is not finite in the stored dtype.
        ValueError: There are not as many rows, ids and sizes.
    """
    if not len(rows) == len(image_ids) == len(image_bytes):
        raise ValueError(f"{len(rows)} rows and {len(image_bytes)} sizes of {len(image_ids)} images")
    tensors = layout.tensors(rows)
    bad = first_not_finite(tensors)
    if bad is not None:
        raise DataError(f"image {image_ids[bad]}: a feature is not finite in {fingerprint['dtype']}; {layout.remedy}")
    tensors |= {
        "image_ids": torch.tensor(list(image_ids), dtype=torch.int64),
        "image_bytes": torch.tensor(list(image_bytes), dtype=torch.int64),
    }
    about = {"fingerprint": fingerprint, "skipped": [vars(image) for image in skipped]}
    # one metadata key: safetensors writes several in no fixed order
    return save(tensors, metadata={files.METADATA_KEY: files.encode_json(about)})


def shard_entry(path: Path, image_ids: Sequence[int], layout: StoreLayout) -> files.ShardEntry:
    """Returns what the index says of a shard that is written."""
    tokens = files.read_header(path)[0]["features"].shape[0] if layout.levels else None
    return files.ShardEntry(path.name, path.stat().st_size, hash_file(path), tuple(image_ids), tokens)


def make_index(
    layout: StoreLayout,
    fingerprint: Mapping[str, Any],
    shards: Sequence[files.ShardEntry],
    skipped: Mapping[int, str],
    repeated: Sequence[int] = (),
) -> files.StoreIndex:
    """Returns the index of a finished store; see `StoreIndex`."""
    return files.StoreIndex(
        fingerprint=dict(fingerprint),
        num_visual_tokens=None if layout.levels else int(fingerprint["num_visual_tokens"]),
        feature_dim=int(fingerprint["feature_dim"]),
        dtype=fingerprint["dtype"],
        shards=tuple(shards),
        skipped=dict(skipped),
        levels=layout.levels,
        repeated=tuple(repeated) or None,
    )


def _load_column(path: Path, name: str) -> list[int]:
    """Reads ``image_ids`` or ``image_bytes`` of a shard."""
    try:
        with utf8_name(path) as opened, safe_open(opened, "pt") as shard:
            column: list[int] = shard.get_tensor(name).tolist()
    except (KeyError, OSError, SafetensorError) as error:
        raise DataError(f"{path}: not a complete feature shard ({error!r})") from error
    return column
