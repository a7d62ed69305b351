"""The tokens of a vision transformer as the grid of patches that they stand for."""

from __future__ import annotations

import math

from torch import Tensor


def tokens_to_grid(tokens: Tensor, num_prefix_tokens: int, size: tuple[int, int]) -> Tensor:
    """Returns patch tokens at their places in the picture; class and register tokens, which have none, are left out.

    Args:
        tokens: (batch, prefix + rows x columns, width), patches row by row from the top left.
        num_prefix_tokens: Class and register tokens, which stand first.
        size: Height and width of the picture in pixels; patches are squares.

    Returns:
        (batch, width, rows, columns), a view.

    Raises:
        ValueError: The patches fill no grid of the picture's proportions.
    """
    count = tokens.shape[1] - num_prefix_tokens
    height, width = size
    rows = math.isqrt(max(count, 0) * height // width)
    if rows == 0 or count % rows or rows * width != count // rows * height:
        raise ValueError(f"{count} patch tokens fill no grid of a picture of {height} x {width} pixels")
    return tokens[:, num_prefix_tokens:].transpose(1, 2).unflatten(2, (rows, count // rows))
