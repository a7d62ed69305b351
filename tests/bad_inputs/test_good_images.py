"""Images that look odd and are right: they must be read, and read rightly."""

import warnings

import numpy as np
import pytest
from PIL import Image

from dept_vl.cli import main
from dept_vl.data.images import is_turned, open_image
from tests.bad_inputs.images import encoded, noise, png


def gradient(width=32, height=24) -> np.ndarray:
    """Returns (height, width, 3) uint8, smooth, so that lossy formats keep it."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // (width - 1), y * 255 // (height - 1), 255 - x * 255 // (width - 1)], -1).astype(
        np.uint8
    )


def _written(path, content):
    path.write_bytes(content)
    return np.asarray(open_image(path)).astype(int)


def test_16_bit_greyscale_keeps_its_high_byte(tmp_path):
    values = np.linspace(0, 65535, 32 * 24).astype(np.uint16).reshape(24, 32)
    read = _written(tmp_path / "a.png", encoded("PNG", Image.fromarray(values)))
    assert (read == (values >> 8)[..., None]).all()


def test_16_bit_colour_keeps_its_high_byte(tmp_path):
    values = (gradient().astype(np.uint16) * 257).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    read = _written(tmp_path / "a.png", png(32, 24, depth=16, data=rows))
    assert (read == gradient()).all()


def test_1_bit_is_black_and_white(tmp_path):
    values = gradient()[..., 0] > 127
    read = _written(tmp_path / "a.png", encoded("PNG", Image.fromarray(values)))
    assert (read == values[..., None] * 255).all()


def test_cmyk_jpeg_has_the_colours_of_its_rgb(tmp_path):
    image = Image.fromarray(gradient())
    read = _written(tmp_path / "a.jpg", encoded("JPEG", image.convert("CMYK"), quality=95))
    assert np.abs(read - gradient()).mean() < 6


@pytest.mark.parametrize("image_format", ["PNG", "WEBP"])
def test_transparency_is_dropped_and_colours_stay(tmp_path, image_format):
    colours = gradient()
    alpha = np.full((24, 32, 1), 128, np.uint8)
    image = Image.fromarray(np.concatenate([colours, alpha], -1))
    read = _written(
        tmp_path / "a", encoded(image_format, image, **({"lossless": True} if image_format == "WEBP" else {}))
    )
    assert (read == colours).all()


def test_a_palette_is_looked_up(tmp_path):
    image = Image.fromarray(gradient()).quantize(16)
    read = _written(tmp_path / "a.png", encoded("PNG", image))
    assert (read == np.asarray(image.convert("RGB"))).all()


def test_a_palette_with_transparency_is_looked_up(tmp_path):
    image = Image.fromarray(gradient()).quantize(16)
    read = _written(tmp_path / "a.png", encoded("PNG", image, transparency=bytes(range(16))))
    assert (read == np.asarray(image.convert("RGB"))).all()


@pytest.mark.parametrize("image_format", ["PNG", "WEBP"])
def test_of_an_animation_the_first_picture_is_read(tmp_path, image_format):
    frames = [Image.fromarray(np.full((24, 32, 3), value, np.uint8)) for value in (10, 120, 240)]
    options = {"save_all": True, "append_images": frames[1:], "duration": 50}
    read = _written(tmp_path / "a", encoded(image_format, frames[0], **options))
    assert read.shape == (24, 32, 3)
    assert np.abs(read - 10).max() <= 2


def turned(orientation) -> Image.Image:
    """Returns the gradient as it is stored under an EXIF orientation (EXIF 2.32, tag 0x0112), by plain indexing."""
    rows = gradient()
    columns = rows.transpose(1, 0, 2)
    stored = {
        1: rows, 2: rows[:, ::-1], 3: rows[::-1, ::-1], 4: rows[::-1],
        5: columns, 6: columns[::-1], 7: columns[::-1, ::-1], 8: columns[:, ::-1],
    }[orientation]  # fmt: skip
    return Image.fromarray(np.ascontiguousarray(stored))


def exif_of(orientation) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
def test_an_exif_rotation_is_applied_unless_it_is_to_be_ignored(tmp_path, image_format, orientation):
    content = encoded(image_format, turned(orientation), quality=95, exif=exif_of(orientation))
    read = _written(tmp_path / "a", content)
    assert read.shape == (24, 32, 3)
    assert np.abs(read - gradient()).mean() < 6
    stored = np.asarray(open_image(tmp_path / "a", exif="ignore")).astype(int)
    assert np.abs(stored - np.asarray(turned(orientation))).mean() < 6
    assert is_turned(tmp_path / "a") == (orientation > 1)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_is_none_turns_nothing(tmp_path, orientation):
    image = Image.fromarray(gradient())
    read = _written(tmp_path / "a.jpg", encoded("JPEG", image, quality=95, exif=exif_of(orientation)))
    assert read.shape == (24, 32, 3)


def test_pillows_warnings_are_no_errors(tmp_path):
    """As under ``PYTHONWARNINGS=error``: damaged metadata, palettes with transparency."""
    image = Image.fromarray(gradient())
    cut = b"Exif\0\0" + b"II*\0\x08\0\0\0\x05\0\x12\x01\x03\0\x01\0"
    files = {
        "cut.jpg": encoded("JPEG", image, exif=cut),
        "nonsense.jpg": encoded("JPEG", image, exif=b"Exif\0\0" + bytes(range(200))),
        "palette.png": encoded("PNG", image.quantize(16), transparency=bytes(range(16))),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert open_image(tmp_path / name).size == (32, 24)
            assert not is_turned(tmp_path / name)


def test_of_a_phones_several_pictures_the_first_is_read(tmp_path):
    """MPO: a JPEG with a second picture, such as a depth map, behind it."""
    first, second = Image.fromarray(gradient()), Image.new("RGB", (16, 12))
    read = _written(tmp_path / "a.jpg", encoded("MPO", first, save_all=True, append_images=[second], quality=95))
    assert np.abs(read - gradient()).mean() < 6


def test_a_progressive_and_a_greyscale_jpeg_are_read(tmp_path):
    image = Image.fromarray(gradient())
    assert np.abs(_written(tmp_path / "a.jpg", encoded("JPEG", image, progressive=True)) - gradient()).mean() < 6
    assert _written(tmp_path / "b.jpg", encoded("JPEG", image.convert("L"))).shape == (24, 32, 3)


def test_one_pixel_and_a_name_with_spaces_and_quotes_are_no_trouble(tmp_path):
    assert _written(tmp_path / 'it\'s a "pic\u00e9".png', encoded("PNG", noise(1, 1))).shape == (1, 1, 3)


def test_bytes_after_the_end_do_no_harm(tmp_path):
    plain = _written(tmp_path / "a.jpg", encoded("JPEG"))
    assert (_written(tmp_path / "b.jpg", encoded("JPEG") + b"trailing") == plain).all()


def test_raw_json_with_a_byte_order_mark_is_read(tmp_path, capsys):
    from tests.data_prep.raw_files import write_raw

    raw = write_raw(tmp_path / "raw")
    for path in raw.glob("*.json"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert main(["prepare", "--task", "vqa", "--raw", str(raw), "--out", str(tmp_path / "out")]) == 0
