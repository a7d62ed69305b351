"""Images of rows: their paths stay inside the image root, they are turned as asked, and bad ones are found first."""

import pytest
import torch
from PIL import Image

from dept_vl.data.visual import ImagePixels, find_unreadable
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


@pytest.mark.parametrize(("exif", "width"), [("apply", 3), ("ignore", 5)])
def test_an_image_is_turned_as_the_encoder_asks(tmp_path, exif, width):
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (5, 3)).save(tmp_path / "a.png", exif=turned)
    source = ImagePixels(tmp_path, lambda image: torch.zeros(3, image.height, image.width), exif=exif)
    assert source.read([1], ["a.png"])["pixel_values"].shape[-1] == width


def test_images_that_cannot_be_read_are_found_with_their_reasons(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"x")
    found = find_unreadable({1: tmp_path / "a.png", 2: tmp_path / "b.png", 3: tmp_path / "c.png"})
    assert list(found) == [2, 3]
    assert "b.png: not an image" in found[2]
