"""What is not a whole, reasonable picture is refused with its path."""

import pytest
from PIL import Image

from dept_vl.data.images import open_image
from dept_vl.errors import DataError


@pytest.fixture
def jpeg(tmp_path):
    path = tmp_path / "picture.jpg"
    Image.effect_noise((64, 48), 60).convert("RGB").save(path)
    return path


def test_every_mode_becomes_rgb(tmp_path):
    for mode, name in (("L", "a.png"), ("RGBA", "b.png"), ("P", "c.png"), ("CMYK", "d.jpg"), ("RGB", "e.webp")):
        Image.new(mode, (5, 4)).save(tmp_path / name)
        image = open_image(tmp_path / name)
        assert (image.mode, image.size) == ("RGB", (5, 4))


def test_the_name_does_not_decide_the_format(jpeg, tmp_path):
    renamed = tmp_path / "picture.png"
    jpeg.rename(renamed)
    assert open_image(renamed).size == (64, 48)


def test_missing(tmp_path):
    with pytest.raises(DataError, match=r"gone.jpg: no such image file"):
        open_image(tmp_path / "gone.jpg")
    with pytest.raises(DataError, match="no such image file"):
        open_image(tmp_path)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.98])
def test_truncated(jpeg, share):
    data = jpeg.read_bytes()
    jpeg.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DataError, match=r"picture.jpg: (damaged or truncated image|not an image)"):
        open_image(jpeg)


def test_truncated_png(tmp_path):
    path = tmp_path / "a.png"
    Image.effect_noise((64, 48), 60).save(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"a.png: damaged or truncated image"):
        open_image(path)


@pytest.mark.parametrize("content", [b"", b"hello, I am text\n" * 20, b"\x89PNG\r\n\x1a\n" + b"\0" * 50])
def test_not_an_image(tmp_path, content):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a.jpg: (not an image; expected one of JPEG, PNG, WEBP|damaged)"):
        open_image(path)


def test_other_formats_are_not_decoded(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.jpg", format="TIFF")
    with pytest.raises(DataError, match="expected one of JPEG, PNG, WEBP"):
        open_image(tmp_path / "a.jpg")


def test_too_large(tmp_path, jpeg):
    with pytest.raises(DataError, match=r"64 x 48 = 3,072 pixels; at most 3,000 are accepted"):
        open_image(jpeg, max_pixels=3000)
    bomb = tmp_path / "bomb.png"
    Image.new("1", (12_000, 10_000)).save(bomb)
    with pytest.raises(DataError, match=r"bomb.png: image too large"):
        open_image(bomb)
