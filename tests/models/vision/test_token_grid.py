"""Patch tokens go to their places in the picture; what has none is left out."""

import pytest
import torch

from dept_vl.models.vision.token_grid import tokens_to_grid


def test_tokens_go_row_by_row_after_the_prefix():
    tokens = torch.arange(2 * (3 + 6) * 4.0).reshape(2, 9, 4)
    grid = tokens_to_grid(tokens, 3, (32, 48))
    assert grid.shape == (2, 4, 2, 3)
    for row in range(2):
        for column in range(3):
            assert torch.equal(grid[:, :, row, column], tokens[:, 3 + 3 * row + column])


@pytest.mark.parametrize(
    ("count", "size"), [(17, (32, 32)), (8, (32, 32)), (6, (32, 32)), (0, (32, 32)), (4, (16, 32))]
)
def test_tokens_that_fill_no_grid_of_the_picture_are_refused(count, size):
    with pytest.raises(ValueError, match=f"{count} patch tokens fill no grid of a picture of {size[0]} x {size[1]}"):
        tokens_to_grid(torch.zeros(1, count, 4), 0, size)
