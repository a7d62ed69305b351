"""What is not a whole, reasonable picture is refused with its path."""

import io
from pathlib import Path

import numpy as np
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


COLOURS = np.stack(np.meshgrid(np.arange(0, 240, 8), np.arange(0, 240, 10)), -1).astype(np.uint8)
RGB = np.concatenate([COLOURS, 255 - COLOURS[..., :1]], -1)
"""(24, 30, 3) uint8, smooth."""


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "YCbCr", "HSV", "RGBX"])
def test_a_pil_image_of_any_mode_with_colours_is_read_as_pillow_shows_it(mode):
    given = Image.fromarray(RGB).convert(mode)
    assert (np.asarray(open_image(given)) == np.asarray(given.convert("RGB"))).all()
    assert given.mode == mode


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I"])
def test_a_pil_image_of_16_bits_keeps_its_high_byte(mode):
    values = np.linspace(0, 65535, 24 * 30).astype(np.uint16).reshape(24, 30)
    kinds = {"I;16": np.uint16, "I;16B": np.dtype(">u2"), "I": np.int32}
    given = Image.frombytes(mode, (30, 24), values.astype(kinds[mode]).tobytes())
    assert (np.asarray(open_image(given)) == (values >> 8)[..., None]).all()


def test_pixels_and_bytes_are_read_as_they_are(tmp_path):
    assert (np.asarray(open_image(RGB)) == RGB).all()
    assert (np.asarray(open_image(RGB[::-1, ::2])) == RGB[::-1, ::2]).all()
    Image.fromarray(RGB).save(tmp_path / "a.png")
    assert (np.asarray(open_image((tmp_path / "a.png").read_bytes())) == RGB).all()


def test_a_pil_image_is_turned_as_its_file_would_be(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(RGB).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as given:
        assert open_image(given).size == open_image(tmp_path / "a.png").size == (24, 30)
        assert open_image(given, exif="ignore").size == (30, 24)


def closed():
    image = Image.fromarray(RGB)
    image.close()
    return image


def truncated():
    content = io.BytesIO()
    Image.effect_noise((64, 48), 60).save(content, "PNG")
    return Image.open(io.BytesIO(content.getvalue()[:1000]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Image.new("F", (4, 4)), "PIL image of mode 'F': mode 'F' holds numbers of no fixed range"),
        (closed, "PIL image of mode 'RGB': cannot be decoded .Operation on closed image"),
        (truncated, "cannot be decoded .*truncated.* give an image that is whole and not closed"),
        (lambda: Image.new("RGB", (9000, 9000)), "81,000,000 pixels; at most 50,000,000"),
        (lambda: Image.new("L", (1, 1001)), "one side is more than 1,000 times the other"),
        (lambda: Image.new("RGB", (0, 0)), "image of 0 x 0 pixels"),
        (lambda: np.zeros((4, 4), np.uint8), r"array: expected .*uint8, \(height, width, 3\).*got uint8 \(4, 4\)"),
        (lambda: np.zeros((3, 4, 4), np.uint8), r"got uint8 \(3, 4, 4\)"),
        (lambda: np.zeros((4, 4, 3)), r"got float64 \(4, 4, 3\)"),
        (lambda: np.zeros((0, 4, 3), np.uint8), r"got uint8 \(0, 4, 3\)"),
        (lambda: b"", "image of 0 bytes: not an image"),
        (lambda: b"GIF89a" + bytes(50), "image of 56 bytes: not an image; expected one of JPEG, PNG, WEBP"),
        (lambda: Path("x" * 5000), "no such image file"),
    ],
)  # fmt: skip
def test_what_is_no_picture_is_refused_in_words(make, message):
    with pytest.raises(DataError, match=message):
        open_image(make())
