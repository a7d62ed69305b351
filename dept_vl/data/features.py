"""Cached image features, read at random from memory-mapped shards (``feature_format`` describes the files).

Every image's features have one fixed shape, so an image is a row of a shard and reading it is one copy of
``num_visual_tokens * feature_dim`` numbers from the page cache: nothing to decompress, no file to open per image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from dept_vl.data import feature_format as files
from dept_vl.data.number_types import unpack
from dept_vl.data.record_store import RecordStore
from dept_vl.data.stored_images import StoredImages
from dept_vl.errors import DataError


class FeatureStore(StoredImages):
    """A finished store of an image encoder.

    Attributes:
        num_visual_tokens: Tokens an image has.
        feature_dim: Numbers a token has.
    """

    def __init__(self, folder: Path, index: files.StoreIndex) -> None:
        """See `StoredImages`."""
        super().__init__(folder, index)
        assert index.num_visual_tokens is not None  # it is not ragged
        self.num_visual_tokens = index.num_visual_tokens
        self.feature_dim = index.feature_dim
        self._code = files.DTYPE_CODES[index.dtype]

    @classmethod
    def _is_ragged(cls) -> bool:
        return False

    def read(self, image_ids: Sequence[int]) -> Tensor:
        """Returns the features of some images, in the order asked for; an id may come more than once.

        Args:
            image_ids: Ids the store contains.

        Returns:
            Tensor (images, visual, feature_dim) in the stored dtype (of int8 in float32), on the CPU, not shared with
            the file.

        Raises:
            DataError: The store has no features for an id.
        """
        places = self._places(image_ids)
        features = self._gather("features", places, (self.num_visual_tokens, self.feature_dim), self._code)
        if self._code != files.DTYPE_CODES["int8"]:
            return features
        return unpack(features, self._gather(files.SCALES, places, (self.num_visual_tokens,), "F32"))

    def _gather(self, name: str, places: tuple[list[int], list[int]], shape: tuple[int, ...], code: str) -> Tensor:
        """Returns rows of a tensor of the shards, (rows, *shape)."""
        numbers, rows = places
        out = self._empty((len(rows), *shape), code)
        maps = {number: self._map(number, name) for number in set(numbers)}
        for target, number, row in zip(out, numbers, rows, strict=True):
            target[:] = maps[number][row]
        return self._tensor(out, code)


def open_store(folder: Path) -> FeatureStore | RecordStore:
    """Opens the store in a folder, of whichever kind it is.

    Raises:
        DataError: As `StoredImages.open`.
    """
    return open_indexed(folder, files.read_index(folder))


def open_indexed(folder: Path, index: files.StoreIndex) -> FeatureStore | RecordStore:
    """Opens the store of an index that was read; see `open_store`."""
    return RecordStore(folder, index) if index.is_ragged else FeatureStore(folder, index)


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
