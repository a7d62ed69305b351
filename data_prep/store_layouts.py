"""What a shard holds of its images: as many tokens of each, or of each as many as it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from dept_vl.data import feature_format as files
from dept_vl.data.image_rows import Record, TowerFeatures
from dept_vl.data.number_types import pack

_INT64 = 8


class StoreLayout(Protocol):
    """How the rows of a store are laid out.

    Attributes:
        row_bytes: Of one image, about.
        levels: As `StoreIndex.levels`.
        remedy: What to do about numbers that the stored type cannot hold.
    """

    row_bytes: int
    remedy: str

    @property
    def levels(self) -> int | None:
        """See the class."""
        ...

    def tensors(self, rows: Any) -> dict[str, Tensor]:
        """Returns a shard's tensors of images, in their order.

        Raises:
            ValueError: Rows are of another shape (a mistake of the caller).
        """
        ...

    def fits(self, regions: Mapping[str, files.Region], images: int) -> bool:
        """Returns whether a shard on disk has tensors of so many images."""
        ...


class GridLayout:
    """As many tokens of each image: rows are a tensor (images, visual, feature_dim)."""

    levels: int | None = None
    remedy = "choose another model.image_encoder.dtype"

    def __init__(self, fingerprint: Mapping[str, Any]) -> None:
        """Takes the shape from ``num_visual_tokens``, ``feature_dim`` and ``dtype`` of a fingerprint."""
        self._shape = (int(fingerprint["num_visual_tokens"]), int(fingerprint["feature_dim"]))
        self._dtype = str(fingerprint["dtype"])
        self.row_bytes = self._shape[0] * files.token_bytes(self._dtype, self._shape[1])

    def tensors(self, rows: Tensor) -> dict[str, Tensor]:
        """See `StoreLayout.tensors`."""
        if rows.shape[1:] != self._shape:
            raise ValueError(f"{tuple(rows.shape)} for images of {self._shape}")
        return _named(rows.cpu(), self._dtype)

    def fits(self, regions: Mapping[str, files.Region], images: int) -> bool:
        """See `StoreLayout.fits`."""
        return regions["features"].shape == (images, *self._shape)


class RecordLayout:
    """Of each image as many tokens as it has: rows are `Record` or `TowerFeatures`."""

    remedy = "choose another --dtype"

    def __init__(self, fingerprint: Mapping[str, Any], row_bytes: int) -> None:
        """Takes the shape of a token from ``levels``, ``feature_dim`` and ``dtype`` of a fingerprint.

        Args:
            fingerprint: The encoder's.
            row_bytes: Of one image, about.
        """
        self.levels = int(fingerprint["levels"])
        self._shape = (self.levels, int(fingerprint["feature_dim"]))
        self._dtype = str(fingerprint["dtype"])
        self.row_bytes = row_bytes

    def tensors(self, rows: Sequence[Record | TowerFeatures]) -> dict[str, Tensor]:
        """See `StoreLayout.tensors`."""
        features = [_levels(row) for row in rows]  # each (tokens, levels, feature_dim)
        empty = torch.empty((0, *self._shape))
        made = {
            **_named(torch.cat(features) if features else empty, self._dtype),
            "offsets": _offsets(features),
            "ids": torch.cat([row.ids for row in rows]) if rows else torch.empty(0, dtype=torch.int64),
            "id_offsets": _offsets([row.ids for row in rows]),
        }
        grids = [row.grid for row in rows if isinstance(row, Record) and row.grid is not None]
        if grids:
            made["grids"] = torch.stack(grids)
        if made["features"].shape[1:] != self._shape or len(grids) not in (0, len(rows)):
            raise ValueError(f"features {tuple(made['features'].shape)} and {len(grids)} grids of {len(rows)} images")
        return made

    def fits(self, regions: Mapping[str, files.Region], images: int) -> bool:
        """See `StoreLayout.fits`."""
        has_all = {"offsets", "ids", "id_offsets"} <= regions.keys()
        return has_all and regions["features"].shape[1:] == self._shape and regions["offsets"].shape == (images + 1,)


def record_bytes(tokens: int, places: int, fingerprint: Mapping[str, Any]) -> int:
    """Returns what an image takes in a store, with its share of the offsets.

    Args:
        tokens: Of the image.
        places: Ids that stand for it.
        fingerprint: The encoder's, see `RecordLayout`.
    """
    token = files.token_bytes(str(fingerprint["dtype"]), int(fingerprint["feature_dim"]))
    return tokens * int(fingerprint["levels"]) * token + _INT64 * (places + 7)  # two offsets, a grid, number and size


def _named(features: Tensor, dtype: str) -> dict[str, Tensor]:
    stored, scales = pack(features, dtype)
    return {"features": stored, **({} if scales is None else {files.SCALES: scales})}


def _levels(row: Record | TowerFeatures) -> Tensor:
    """Returns an image's numbers, (tokens, levels, feature_dim)."""
    if isinstance(row, TowerFeatures):
        return row.features.flatten(0, 1)[:, None]
    first = row.tokens[:, None]
    return first if row.deepstack is None else torch.cat([first, row.deepstack.transpose(0, 1)], dim=1)


def _offsets(rows: Sequence[Tensor]) -> Tensor:
    lengths = torch.tensor([0, *map(len, rows)], dtype=torch.int64)
    return lengths.cumsum(0)
