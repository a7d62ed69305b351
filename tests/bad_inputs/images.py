"""Image files, met by `predict`, which opens every image before a model is loaded."""

import io
import os
import random
import struct
import zlib

from PIL import Image

from dept_vl.tasks import get_task
from tests.bad_inputs.case import Case


def noise(width=64, height=48) -> Image.Image:
    """Returns a colour image that does not compress away."""
    return Image.frombytes("RGB", (width, height), random.Random(0).randbytes(3 * width * height))


def encoded(image_format, image=None, **options) -> bytes:
    """Returns an image file's bytes."""
    buffer = io.BytesIO()
    (image or noise()).save(buffer, image_format, **options)
    return buffer.getvalue()


def png(width, height, *, depth=8, colour=2, data=b"", zeros=0) -> bytes:
    """Returns a PNG that says what one wants: a header, one block of data, an end."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    packer = zlib.compressobj(9)
    content = packer.compress(data + b"\0" * zeros) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", content) + chunk(b"IEND", b"")


def _predict(write, name="picture.jpg"):
    def make(folder, base):
        write(folder / name)
        return ["predict", "--checkpoint", base.vqa_run, "--image", name, "--question", "What is it?"]

    return make


def _bytes(content):
    return lambda path: path.write_bytes(content() if callable(content) else content)


def _folder_with(files, *options):
    def make(folder, base):
        (folder / "images").mkdir()
        for name, content in files.items():
            (folder / "images" / name).write_bytes(content)
        return ["predict", "--checkpoint", base.vqa_run, "--image", "images", "--question", "What is it?", *options]

    return make


def _empty_folder(folder, base):
    (folder / "images").mkdir()
    return ["predict", "--checkpoint", base.vqa_run, "--image", "images", "--question", "What is it?"]


def _cached(write):
    """The same file met by `cache-features`, which stops and keeps no index."""

    def make(folder, base):
        import shutil

        from data_prep.prepare import prepare

        shutil.copytree(base.raw, folder / "raw")
        prepare(get_task("vqa"), folder / "raw", folder / "data")
        write(folder / "raw" / "train2014" / "COCO_train2014_000000000005.jpg")
        return ["cache-features", "--task", "vqa", "--config", "demo", "--data-dir", "data", "--workers", "0"]

    return make


def _symlink_loop(path):
    path.symlink_to(path.name)


_HTML = b"<!DOCTYPE html><html><body>404 not found</body></html>"
_SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
_NOT = "not an image; expected one of JPEG, PNG, WEBP"

_CASES = {
    "zero-bytes": (_bytes(b""), (_NOT,)),
    "html": (_bytes(_HTML), (_NOT,)),
    "svg": (_bytes(_SVG), (_NOT,)),
    "git-lfs-pointer": (_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"), (_NOT,)),
    "gif": (_bytes(lambda: encoded("GIF")), (_NOT,)),
    "tiff": (_bytes(lambda: encoded("TIFF")), (_NOT,)),
    "bmp": (_bytes(lambda: encoded("BMP")), (_NOT,)),
    "eps": (_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), (_NOT,)),
    "zeros": (_bytes(b"\0" * 5000), (_NOT,)),
    "jpeg-start-alone": (_bytes(b"\xff\xd8\xff"), ()),
    "png-header-alone": (_bytes(b"\x89PNG\r\n\x1a\n"), ()),
    "webp-header-alone": (_bytes(b"RIFF\x24\0\0\0WEBPVP8 "), ()),
    "png-of-no-width": (_bytes(lambda: png(0, 10)), ()),
    "png-bomb": (_bytes(lambda: png(60_000, 60_000, zeros=1 << 20)), ("too large",)),
    "png-bomb-below-pillows-limit": (_bytes(lambda: png(9000, 9000, zeros=1 << 20)), ("81,000,000 pixels",)),
    "png-wide": (_bytes(lambda: png(2_000_000_000, 1, zeros=100)), ("too large",)),
    "png-line": (_bytes(lambda: encoded("PNG", noise(1, 1001))), ("1 x 1001 pixels", "1,000 times the other")),
    "png-data-short": (_bytes(lambda: png(500, 500, zeros=100)), ("damaged or truncated",)),
    "png-text-bomb": (
        _bytes(lambda: _with_text_bomb(encoded("PNG"))),
        ("damaged or truncated",),
    ),
    "png-crc": (_bytes(lambda: encoded("PNG")[:30] + b"\xff" + encoded("PNG")[31:]), ()),
    "jpeg-bomb": (_bytes(lambda: _jpeg_of(65_000, 65_000)), ("too large",)),
    "jpeg-of-65500": (_bytes(lambda: _jpeg_of(65_500, 1000)), ("65,500,000 pixels",)),
    "webp-of-16383": (_bytes(lambda: _webp_of(16_383, 16_383)), ()),
    "pipe": (lambda path: os.mkfifo(path), ("no such image file",)),
    "link-loop": (_symlink_loop, ("no such image file",)),
    "link-to-nowhere": (lambda path: path.symlink_to("gone.jpg"), ("no such image file",)),
    "device": (lambda path: path.symlink_to("/dev/zero"), ("no such image file",)),
}


def _with_text_bomb(content: bytes) -> bytes:
    """Puts a packed text of 70 MB into a PNG; Pillow refuses texts of more than 64 MB in all."""
    text = b"Comment\0\0" + zlib.compress(b"\0" * 70_000_000, 9)
    chunk = struct.pack(">I", len(text)) + b"zTXt" + text + struct.pack(">I", zlib.crc32(b"zTXt" + text))
    return content[:33] + chunk + content[33:]


def _jpeg_of(width: int, height: int) -> bytes:
    """Returns a small JPEG whose header announces another size."""
    content = bytearray(encoded("JPEG", noise(16, 16)))
    frame = content.index(b"\xff\xc0")
    content[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(content)


def _webp_of(width: int, height: int) -> bytes:
    """Returns a small WebP whose header announces another size."""
    content = bytearray(encoded("WEBP", noise(16, 16)))
    start = content.index(b"\x9d\x01\x2a") + 3
    content[start : start + 4] = struct.pack("<HH", width, height)
    return bytes(content)


CASES = [
    *(Case(f"image/{name}", _predict(write), ("picture.jpg: ", *says)) for name, (write, says) in _CASES.items()),
    *(
        Case(
            f"image/{kind.lower()}-cut-at-{tenth}0-percent",
            _predict(lambda path, kind=kind, tenth=tenth: path.write_bytes(_cut(encoded(kind), tenth))),
            ("picture.jpg: ",),
        )
        for kind in ("JPEG", "PNG", "WEBP")
        for tenth in range(1, 10)
    ),
    Case(
        "image/one-of-a-folder",
        _folder_with({"a.jpg": encoded("JPEG"), "b.jpg": b"x", "c.png": b""}),
        ("images/b.jpg: not an image", "and 1 more images", "--on-error skip"),
    ),
    Case(
        "image/all-of-a-folder-skipped",
        _folder_with({"b.jpg": b"x", "c.png": b""}, "--on-error", "skip"),
        ("no image can be read",),
    ),
    Case(
        "image/folder-of-others",
        _folder_with({"._a.jpg": b"x", "Thumbs.db": b"x", "a.gif": encoded("GIF"), "b.heic": b"x"}),
        ("images: no image in this folder", "1 file left out: hidden", "(a.gif, b.heic)", "(Thumbs.db)"),
    ),
    Case("image/empty-folder", _empty_folder, ("images: no image in this folder",)),
    Case("image/absent", _predict(lambda path: None), ("picture.jpg: no such image file",)),
    *(
        Case(f"image/cached-{name}", _cached(_CASES[name][0]), ("COCO_train2014_000000000005.jpg",), ("features",))
        for name in ("html", "png-bomb")
    ),
]


def _cut(content: bytes, tenths: int) -> bytes:
    return content[: len(content) * tenths // 10]
