"""Cached image features, read at random from memory-mapped shards (``feature_format`` describes the files).

Every image's features have one fixed shape, so an image is a row of a shard and reading it is one copy of
``num_visual_tokens * feature_dim`` numbers from the page cache: nothing to decompress, no file to open per image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dept_vl.data import feature_format as files
from dept_vl.errors import DataError
from dept_vl.system.bounded_reading import hash_file

_BITS = {"float16": np.uint16, "bfloat16": np.uint16, "float32": np.uint32}
"""Values are moved as plain bits: numpy has no bfloat16."""


class FeatureStore:
    """A finished store, opened for reading. May be handed to loader workers, forked or spawned.

    Attributes:
        folder: Where it lies.
        fingerprint: What made the features: encoder, weights, preprocessing, pooling, dtype.
        num_visual_tokens: Tokens an image has.
        feature_dim: Numbers a token has.
        dtype: Stored dtype.
        skipped: Id of each image that could not be read, to the reason.
    """

    def __init__(self, folder: Path, index: files.StoreIndex) -> None:
        """Checks every shard's header against `index`; `open` is the usual way here.

        Raises:
            DataError: A shard is missing, cut short, or of another shape, dtype or encoder; or an image is in two.
        """
        self.folder = folder
        self.fingerprint = index.fingerprint
        self.num_visual_tokens = index.num_visual_tokens
        self.feature_dim = index.feature_dim
        self.dtype: torch.dtype = getattr(torch, index.dtype)
        self.skipped = dict(index.skipped)
        self._index = index
        self._regions = [files.check_shard(folder / shard.file, shard, index) for shard in index.shards]
        self._maps: dict[int, np.ndarray] = {}
        sizes = [len(shard.image_ids) for shard in index.shards]
        ids = np.array([i for shard in index.shards for i in shard.image_ids], dtype=np.int64)
        order = np.argsort(ids, kind="stable")
        self._sorted_ids = ids[order]
        self._shard_of = np.repeat(np.arange(len(sizes)), sizes)[order]
        self._row_of = np.concatenate([np.arange(n) for n in sizes] or [order])[order]
        twice = self._sorted_ids[1:][self._sorted_ids[1:] == self._sorted_ids[:-1]]
        if len(twice):
            raise DataError(f"{folder / files.INDEX}: image {twice[0]} is listed twice; {files.REBUILD}")

    @classmethod
    def open(cls, folder: Path) -> FeatureStore:
        """Opens the store in `folder`.

        Raises:
            DataError: There is no finished store, or its files do not fit together; the message names the file.
        """
        return cls(folder, files.read_index(folder))

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

    def read(self, image_ids: Sequence[int]) -> Tensor:
        """Returns the features of some images, in the order asked for; an id may come more than once.

        Args:
            image_ids: Ids the store contains.

        Returns:
            Tensor (images, visual, feature_dim) in the stored dtype, on the CPU, not shared with the file.

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
        out = np.empty((len(wanted), self.num_visual_tokens, self.feature_dim), _BITS[self._index.dtype])
        # Plain integers and rows: at 64 images a batch, sorting them by shard costs a tenth of the copying.
        places = zip(self._shard_of[position].tolist(), self._row_of[position].tolist(), strict=True)
        for target, (number, row) in zip(out, places, strict=True):
            target[:] = self._map(number)[row]
        return torch.from_numpy(out).view(self.dtype)

    def _missing(self, image_ids: np.ndarray) -> DataError:
        shown = ", ".join(
            f"{i} (skipped: {self.skipped[i]})" if i in self.skipped else str(i) for i in image_ids[:5].tolist()
        )
        return DataError(
            f"{self.folder}: no features for {len(image_ids)} of the images asked for: {shown}"
            f"{', ...' if len(image_ids) > 5 else ''}; `dept-vl cache-features` adds missing ones"
        )

    def _map(self, number: int) -> np.ndarray:
        """Returns shard `number` as an array over the file, (images, visual, feature_dim) of bits."""
        if number not in self._maps:
            path, region = self.folder / self._index.shards[number].file, self._regions[number]
            try:
                bits = _BITS[self._index.dtype]
                memory = np.memmap(path, bits, "r", offset=region.start, shape=region.shape)
            except (OSError, ValueError) as error:
                raise DataError(f"{path}: changed since the store was opened ({error}); {files.REBUILD}") from error
            self._maps[number] = memory.view(np.ndarray)  # rows of a plain array are cheaper to take than a memmap's
        return self._maps[number]

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
                image_ids, features = file.get_tensor("image_ids").tolist(), file.get_tensor("features")
        except (OSError, SafetensorError) as error:
            raise DataError(f"{path}: not a complete feature shard ({error}); {files.REBUILD}") from None
        pairs = zip(image_ids, shard.image_ids, strict=False)
        differing = next(
            (f"row {n} is image {a}, the index says image {b}" for n, (a, b) in enumerate(pairs) if a != b), ""
        )
        if differing or len(image_ids) != len(shard.image_ids):
            raise DataError(f"{path}: {differing or f'has {len(image_ids)} image ids'}; {files.REBUILD}")
        is_finite = features.isfinite().flatten(1).all(1)
        if not is_finite.all():
            bad = image_ids[int((~is_finite).nonzero()[0])]
            raise DataError(f"{path}: a feature of image {bad} is not finite; {files.REBUILD}")


def find_store(data_dir: Path, wanted: Mapping[str, Any]) -> FeatureStore:
    """Opens the store under ``data_dir/features`` that was made with the settings `wanted`.

    Args:
        data_dir: The folder `dept-vl cache-features` wrote to.
        wanted: Keys of a fingerprint and the values they must have; other keys may have any.

    Raises:
        DataError: No store agrees (the message lists what each one differs in), or several do.
    """
    fitting, notes = [], []
    for folder in files.finished_stores(data_dir):
        if differing := files.describe_differences(files.read_index(folder).fingerprint, wanted):
            notes.append(f"{folder.name}: {differing}")
        else:
            fitting.append(folder)
    if not fitting:
        raise files.no_store_fits(data_dir, "; ".join(notes)) if notes else files.no_store_fits(data_dir)
    if len(fitting) > 1:
        names = ", ".join(folder.name for folder in fitting)
        raise DataError(f"{data_dir / 'features'}: several stores fit ({names}); name one with data.feature_dir")
    return FeatureStore.open(fitting[0])
