"""Image paths of rows stay inside the image root, whatever the rows say."""

import pytest
import torch
from PIL import Image

from dept_vl.data.visual import ImagePixels
from dept_vl.errors import DataError


@pytest.fixture
def source(tmp_path):
    (tmp_path / "images").mkdir()
    for path in (tmp_path / "secret.png", tmp_path / "images" / "a.png"):
        Image.new("RGB", (4, 4)).save(path)
    return ImagePixels(tmp_path / "images", lambda image: torch.zeros(3, 2, 2))


def test_an_image_below_the_root_is_read(source):
    assert source.read([1], ["a.png"])["pixel_values"].shape == (1, 3, 2, 2)


@pytest.mark.parametrize("path", ["../secret.png", "x/../../secret.png", "{root}/secret.png"])
def test_a_path_out_of_the_root_is_refused(source, tmp_path, path):
    with pytest.raises(DataError, match="leads out of the image root"):
        source.read([1], [path.format(root=tmp_path)])
