"""What stores of image features have in common: which image is where, memory-mapped shards, and their checks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dept_vl.data import feature_format as files
from dept_vl.errors import DataError
from dept_vl.system.bounded_reading import hash_file

_BITS = {"I8": np.int8, "F16": np.uint16, "BF16": np.uint16, "F32": np.uint32, "I64": np.int64}
"""Values are moved as plain bits: numpy has no bfloat16."""

_TYPES = {code: getattr(torch, name) for name, code in files.DTYPE_CODES.items()} | {"I64": torch.int64}


class StoredImages(ABC):
    """A finished store, opened for reading. May be handed to loader workers, forked or spawned.

    Attributes:
        folder: Where it lies.
        fingerprint: What made the features: encoder, weights, preprocessing, pooling, dtype.
        dtype: Stored dtype.
        skipped: Id of each image that could not be read, to the reason.
    """

    def __init__(self, folder: Path, index: files.StoreIndex) -> None:
        """Checks every shard's header against `index`; `open` is the usual way here.

        Raises:
            DataError: A shard is missing, cut short, or of another shape, dtype or encoder; or an image is in two; or
                the store is of the other kind.
        """
        if index.is_ragged != self._is_ragged():
            raise DataError(
                f"{folder}: holds features of {'a vision-language backbone' if index.is_ragged else 'an image encoder'}"
                f", expected those of {'an image encoder' if index.is_ragged else 'a vision-language backbone'}"
            )
        self.folder = folder
        self.fingerprint = index.fingerprint
        self.dtype: torch.dtype = getattr(torch, index.dtype)
        self.skipped = dict(index.skipped)
        self._index = index
        self._regions = [files.check_shard(folder / shard.file, shard, index) for shard in index.shards]
        self._maps: dict[tuple[int, str], np.ndarray] = {}
        sizes = [len(shard.image_ids) for shard in index.shards]
        ids = np.array([i for shard in index.shards for i in shard.image_ids], dtype=np.int64)
        order = np.argsort(ids, kind="stable")
        if index.repeated is not None:
            order = order[_is_first(ids[order], index.repeated)]
        self._sorted_ids = ids[order]
        self._shard_of = np.repeat(np.arange(len(sizes)), sizes)[order]
        self._row_of = np.concatenate([np.arange(n) for n in sizes] or [order])[order]
        twice = self._sorted_ids[1:][self._sorted_ids[1:] == self._sorted_ids[:-1]]
        if len(twice):
            raise DataError(f"{folder / files.INDEX}: image {twice[0]} is listed twice; {files.REBUILD}")

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Opens the store in `folder`.

        Raises:
            DataError: There is no finished store, or its files do not fit together; the message names the file.
        """
        return cls(folder, files.read_index(folder))

    @classmethod
    @abstractmethod
    def _is_ragged(cls) -> bool:
        """Returns whether images of such a store have different numbers of tokens."""

    def __len__(self) -> int:
        """Returns the number of images that have features."""
        return len(self._sorted_ids)

    def __contains__(self, image_id: object) -> bool:
        """Returns whether the image has features."""
        if not isinstance(image_id, int | np.integer):
            return False
        position = int(np.searchsorted(self._sorted_ids, image_id))
        return position < len(self) and bool(self._sorted_ids[position] == image_id)

    @property
    def image_ids(self) -> np.ndarray:
        """The images that have features, (images,) int64, ascending."""
        return self._sorted_ids

    def _places(self, image_ids: Sequence[int]) -> tuple[list[int], list[int]]:
        """Returns the shards and the rows of images, in the order asked for; an id may come more than once.

        Raises:
            DataError: The store has no features for an id.
        """
        wanted = np.asarray(image_ids, dtype=np.int64)
        position = np.searchsorted(self._sorted_ids, wanted)
        if len(wanted) and not len(self):
            raise self._missing(wanted)
        is_missing = self._sorted_ids[np.minimum(position, len(self) - 1)] != wanted if len(self) else wanted != wanted
        if is_missing.any():
            raise self._missing(wanted[is_missing])
        # Plain integers and rows: at 64 images a batch, sorting them by shard costs a tenth of the copying.
        return self._shard_of[position].tolist(), self._row_of[position].tolist()

    def _missing(self, image_ids: np.ndarray) -> DataError:
        shown = ", ".join(
            f"{i} (skipped: {self.skipped[i]})" if i in self.skipped else str(i) for i in image_ids[:5].tolist()
        )
        return DataError(
            f"{self.folder}: no features for {len(image_ids)} of the images asked for: {shown}"
            f"{', ...' if len(image_ids) > 5 else ''}; `dept-vl cache-features` adds missing ones"
        )

    def _map(self, number: int, name: str) -> np.ndarray:
        """Returns a tensor of shard `number` as an array over the file, floating-point numbers as bits."""
        if (number, name) not in self._maps:
            path, region = self.folder / self._index.shards[number].file, self._regions[number][name]
            try:
                memory = np.memmap(path, _BITS[region.code], "r", offset=region.start, shape=region.shape)
            except (OSError, ValueError) as error:
                raise DataError(f"{path}: changed since the store was opened ({error}); {files.REBUILD}") from error
            # rows of a plain array are cheaper to take than a memmap's
            self._maps[number, name] = memory.view(np.ndarray)
        return self._maps[number, name]

    def _empty(self, shape: tuple[int, ...], code: str) -> np.ndarray:
        """Returns an array for bits of a stored type."""
        return np.empty(shape, _BITS[code])

    def _tensor(self, bits: np.ndarray, code: str) -> Tensor:
        """Returns bits as the tensor that they are, which shares their memory."""
        return torch.from_numpy(bits).view(_TYPES[code])

    def __getstate__(self) -> dict[str, Any]:
        """Leaves the maps behind when sent to a spawned worker; it maps the files itself."""
        return {**self.__dict__, "_maps": {}}

    def verify(self) -> None:
        """Reads every shard in full: its sha256 and its image ids must be the index's, its values finite.

        The sha256 finds what time and disks do to a file; the rest, an index written to fit another shard.

        Raises:
            DataError: A shard was altered; the message names it, and the first image or value that differs.
        """
        for shard in self._index.shards:
            path = self.folder / shard.file
            found = hash_file(path)
            if found != shard.sha256:
                raise DataError(f"{path}: sha256 is {found}, the index says {shard.sha256}: altered; {files.REBUILD}")
            self._check_content(path, shard)

    def _check_content(self, path: Path, shard: files.ShardEntry) -> None:
        try:
            with safe_open(path, "pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                image_ids = tensors["image_ids"].tolist()
        except (OSError, KeyError, SafetensorError) as error:
            raise DataError(f"{path}: not a complete feature shard ({error}); {files.REBUILD}") from None
        pairs = zip(image_ids, shard.image_ids, strict=False)
        differing = next(
            (f"row {n} is image {a}, the index says image {b}" for n, (a, b) in enumerate(pairs) if a != b), ""
        )
        if differing or len(image_ids) != len(shard.image_ids):
            raise DataError(f"{path}: {differing or f'has {len(image_ids)} image ids'}; {files.REBUILD}")
        row = first_not_finite(tensors)
        if row is not None:
            raise DataError(f"{path}: a feature of image {image_ids[row]} is not finite; {files.REBUILD}")


def _is_first(sorted_ids: np.ndarray, repeated: Sequence[int]) -> np.ndarray:
    """Returns which ids are not those of images that may be repeated, and have come already."""
    is_same = np.concatenate([[False], sorted_ids[1:] == sorted_ids[:-1]])
    return ~(is_same & np.isin(sorted_ids, np.asarray(repeated, dtype=np.int64)))


def first_not_finite(tensors: Mapping[str, Tensor]) -> int | None:
    """Returns the row of the first image that has a number that is not finite, of a shard's tensors; None for none."""
    numbers = tensors.get("scales", tensors["features"])  # int8 itself is always finite
    is_finite = numbers.isfinite().flatten(1).all(1)
    if is_finite.all():
        return None
    bad = int((~is_finite).nonzero()[0])
    if "offsets" not in tensors:
        return bad
    return int(torch.searchsorted(tensors["offsets"], bad, right=True)) - 1
