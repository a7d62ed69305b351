"""From what a processor makes of images to what a vision-language model's language model reads of them."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dept_vl.data.image_processing import PIXELS
from dept_vl.data.image_rows import ImageRows, ProcessedImage, Record, TowerFeatures
from dept_vl.errors import DataError

GRID = "image_grid_thw"
"""What processors call the frames, rows and columns of an image's patches."""


def make_records(
    model: Any, images: ImageRows, image_token_id: int, image_dim: int = 0, connector: nn.Module | None = None
) -> tuple[tuple[Record, ...], ...]:
    """Returns the record of every image of a batch; those that are records already stay as they are.

    Images of one shape go through the image encoder together, and one that several rows have goes once.

    Args:
        model: Of transformers, with ``get_image_features``.
        images: Of every row.
        image_token_id: The token that stands for one image token.
        image_dim: The dimension of the processor's tensors along which images are put together.
        connector: What reads `TowerFeatures`; None where there are none.

    Raises:
        DataError: An image becomes another number of tokens than its processor made room for.
    """
    made: dict[int, Record] = {}
    for group in _of_one_shape([one for one in images if isinstance(one, ProcessedImage)], image_dim):
        records = _encode(model, group, image_token_id, image_dim)
        made.update((id(image), record) for image, record in zip(group, records, strict=True))
    for image in images:
        if isinstance(image, TowerFeatures) and id(image) not in made:
            made[id(image)] = _connect(connector, image, image_token_id)
    return tuple(tuple(one if isinstance(one, Record) else made[id(one)] for one in row) for row in images.rows)


def make_tower_features(
    model: Any, images: Sequence[ProcessedImage], connector: nn.Module, image_dim: int = 0
) -> list[TowerFeatures]:
    """Returns what goes into the connector of some images; see `make_records`.

    Raises:
        DataError: The image encoder leaves a tile out.
    """
    made: dict[int, TowerFeatures] = {}
    for group in _of_one_shape(images, image_dim):
        read: list[Tensor] = []
        handle = connector.register_forward_pre_hook(partial(_keep_input, read))
        try:
            _image_features(model, group, image_dim)
        finally:
            handle.remove()
        (features,) = read  # (tiles of all images, tokens, width)
        tiles = [one.tensors[PIXELS].shape[image_dim] for one in group]
        if sum(tiles) != len(features):
            raise DataError(f"{sum(tiles)} tiles of {len(group)} images became {len(features)}; one of them is black")
        parts = features.split(tiles)
        made.update((id(one), TowerFeatures(one.ids, part)) for one, part in zip(group, parts, strict=True))
    return [made[id(image)] for image in images]


def _keep_input(read: list[Tensor], _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    read.append(inputs[0])


def _connect(connector: nn.Module | None, image: TowerFeatures, image_token_id: int) -> Record:
    assert connector is not None  # features of a tower are stored where there is one
    weight = next(connector.parameters())
    tokens = _flat(connector(image.features.to(weight.device, weight.dtype)))
    count = int((image.ids == image_token_id).sum())
    if len(tokens) != count:
        raise DataError(f"stored features of an image become {len(tokens)} tokens, and it has {count} places for them")
    record = Record(image.ids, tokens)
    return record.zeroed() if image.is_unseen else record


def _of_one_shape(images: Sequence[ProcessedImage], image_dim: int) -> list[list[ProcessedImage]]:
    """Returns images that can be put together in groups, each image once."""
    groups: dict[Hashable, list[ProcessedImage]] = {}
    for image in {id(image): image for image in images}.values():
        groups.setdefault(_shape(image, image_dim), []).append(image)
    return list(groups.values())


def _image_features(model: Any, images: Sequence[ProcessedImage], image_dim: int) -> Any:
    """Returns what transformers' image encoder and connector make of images of one shape."""
    names = images[0].tensors
    tensors = {name: torch.cat([image.tensors[name] for image in images], dim=image_dim) for name in names}
    return model.get_image_features(**tensors, return_dict=True)


def _shape(image: ProcessedImage, image_dim: int) -> Hashable:
    """Returns what images have in common that can be put together."""
    return tuple(
        (name, tensor.shape[:image_dim], tensor.shape[image_dim + 1 :])
        for name, tensor in sorted(image.tensors.items())
    )


def _encode(model: Any, images: Sequence[ProcessedImage], image_token_id: int, image_dim: int) -> Iterator[Record]:
    """Yields the records of images of one shape."""
    output = _image_features(model, images, image_dim)
    tokens = _flat(output.pooler_output)  # (placeholders of all images, d_model)
    counts = [int((image.ids == image_token_id).sum()) for image in images]
    if sum(counts) != len(tokens):
        raise DataError(
            f"{len(images)} images became {len(tokens)} tokens, and their processor left {sum(counts)} places for them "
            f"({image_token_id} is the token of such a place); processor and weights of the backbone do not belong "
            "together"
        )
    deepstack = getattr(output, "deepstack_features", None)
    layers = None if not deepstack else torch.stack([_flat(layer) for layer in deepstack])
    starts = [sum(counts[:number]) for number in range(len(counts))]
    for image, start, count in zip(images, starts, counts, strict=True):
        grid = image.tensors.get(GRID)
        record = Record(
            image.ids,
            tokens[start : start + count],
            None if layers is None else layers[:, start : start + count],
            None if grid is None else grid[0],
        )
        yield record.zeroed() if image.is_unseen else record


def _flat(features: Tensor | Sequence[Tensor]) -> Tensor:
    """Returns features as (tokens, d_model), whether a family has them in one tensor or in one an image."""
    parts = [features] if isinstance(features, Tensor) else features
    return torch.cat([part.reshape(-1, part.shape[-1]) for part in parts])
