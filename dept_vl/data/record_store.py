"""Cached records of a vision-language backbone: what its image encoder gives of an image, as many tokens as it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from dept_vl.data import feature_format as files
from dept_vl.data.image_rows import Record, TowerFeatures
from dept_vl.data.number_types import unpack
from dept_vl.data.stored_images import StoredImages
from dept_vl.errors import DataError

TOWER, CONNECTOR = "tower", "connector"
WIDENED = ("where", "dtype", "feature_dim", "levels", "connector_tokens", "transformers")
"""Keys of a fingerprint that say how much of an image is stored and by which release, and not what it is of."""


class RecordStore(StoredImages):
    """A finished store of a vision-language backbone.

    Attributes:
        where: Behind what its features were taken: ``"tower"`` or ``"connector"``.
        feature_dim: Numbers a token has.
        levels: Tokens of each place of an image: one, and those that deepstack adds.
    """

    def __init__(self, folder: Path, index: files.StoreIndex) -> None:
        """Checks the offsets too; see `StoredImages`.

        Raises:
            DataError: Offsets are not those of the tokens that there are.
        """
        super().__init__(folder, index)
        assert index.levels is not None  # it is ragged
        self.where = str(index.fingerprint.get("where", CONNECTOR))
        self.feature_dim = index.feature_dim
        self.levels = index.levels
        self._code = files.DTYPE_CODES[index.dtype]
        for number, shard in enumerate(index.shards):
            for name, values in (("offsets", "features"), ("id_offsets", "ids")):
                offsets, count = self._map(number, name), self._regions[number][values].shape[0]
                if offsets[0] != 0 or offsets[-1] != count or (np.diff(offsets) < 0).any():
                    raise DataError(
                        f"{folder / shard.file}: {name} go from {offsets[0]} to {offsets[-1]} where {values} has "
                        f"{count} rows: cut short or altered; {files.REBUILD}"
                    )

    @classmethod
    def _is_ragged(cls) -> bool:
        return True

    def read(self, image_ids: Sequence[int]) -> list[Record | TowerFeatures]:
        """Returns the records of some images, in the order asked for; an id that comes twice is one object.

        Returns:
            Tensors in the stored dtype (of int8 in float32), on the CPU, not shared with the file.

        Raises:
            DataError: The store has no features for an id.
        """
        distinct = list(dict.fromkeys(image_ids))
        found = {
            image_id: self._record(number, row)
            for image_id, number, row in zip(distinct, *self._places(distinct), strict=True)
        }
        return [found[image_id] for image_id in image_ids]

    def _record(self, number: int, row: int) -> Record | TowerFeatures:
        features = self._slice(number, row, "offsets", "features", self._code)  # (tokens, levels, feature_dim)
        if self._code == files.DTYPE_CODES["int8"]:
            features = unpack(features, self._slice(number, row, "offsets", files.SCALES, "F32"))
        ids = self._slice(number, row, "id_offsets", "ids", "I64")
        if self.where == TOWER:
            return TowerFeatures(ids, features[:, 0].unflatten(0, (-1, int(self.fingerprint["connector_tokens"]))))
        levels = features.unbind(dim=1)
        grid = self._tensor(self._map(number, "grids")[row].copy(), "I64") if "grids" in self._regions[number] else None
        return Record(ids, levels[0], features[:, 1:].transpose(0, 1) if self.levels > 1 else None, grid)

    def _slice(self, number: int, row: int, offsets: str, name: str, code: str) -> Tensor:
        start, end = self._map(number, offsets)[row : row + 2].tolist()
        return self._tensor(self._map(number, name)[start:end].copy(), code)


def find_record_store(data_dir: Path, wanted: Mapping[str, Any]) -> tuple[RecordStore | None, str]:
    """Opens the store under ``data_dir/features`` that a vision-language backbone's own images would fill.

    Args:
        data_dir: The folder `dept-vl cache-features` wrote to.
        wanted: The backbone's fingerprint; keys of `WIDENED` do not count.

    Returns:
        None where no finished store fits; and in words what others of such backbones differ in, "" for none.

    Raises:
        DataError: Several fit, or the one that does is damaged.
    """
    fitting, notes = [], []
    for folder in files.finished_stores(data_dir):
        index = files.read_index(folder)
        differing = record_differences(index.fingerprint, wanted)
        if not differing:
            fitting.append(folder)
        elif index.is_ragged:
            notes.append(f"{folder.name}: {differing}")
    if len(fitting) > 1:
        names = ", ".join(folder.name for folder in fitting)
        raise DataError(f"{data_dir / 'features'}: several stores fit ({names}); name one with data.feature_dir")
    return (RecordStore.open(fitting[0]), "") if fitting else (None, "; ".join(notes))


def open_record_store(folder: Path, wanted: Mapping[str, Any]) -> RecordStore:
    """Opens the store that a run names.

    Raises:
        DataError: It is none of a vision-language backbone, or of another backbone or processor.
    """
    store = RecordStore.open(folder)
    differing = record_differences(store.fingerprint, wanted)
    if differing:
        raise DataError(
            f"data.feature_dir: {folder} holds features made otherwise: {differing}; make those of this backbone with "
            "`dept-vl cache-features` and the same --model.backbone, or leave data.feature_dir out"
        )
    return store


def record_differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Returns in words what a store is of that a backbone is not; "" for nothing."""
    return files.describe_differences(found, {key: value for key, value in wanted.items() if key not in WIDENED})
