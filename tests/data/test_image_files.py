"""Finding images: those of a folder, and what is left out of it."""

import io
import os

import pytest
from PIL import Image

from dept_vl.data.image_files import coco_image_id, find_images, list_images


def jpeg() -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (2, 2)).save(content, "JPEG")
    return content.getvalue()


@pytest.fixture
def folder(tmp_path):
    files = {
        "b.JPG": jpeg(), "a.webp": b"", "below/c.png": b"", "photo": jpeg(), "d.jpe": jpeg(),
        "._b.JPG": b"", ".hidden/e.jpg": jpeg(), "__MACOSX/f.jpg": jpeg(), "Thumbs.db": b"", "notes.txt": b"hello",
        "g.gif": b"GIF89a", "h.heic": b"",
    }  # fmt: skip
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "i.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


def test_images_are_taken_by_name_or_content_and_the_rest_is_said(folder):
    found = list_images(folder)
    names = [path.relative_to(folder).as_posix() for path in found.images]
    assert names == ["a.webp", "b.JPG", "below/c.png", "d.jpe", "photo"]
    assert sorted(found.notes()) == [
        "2 files left out: hidden, as their names begin with a dot (.hidden, ._b.JPG)",
        "2 files left out: written by a file manager or an archiver (__MACOSX, Thumbs.db)",
        "4 files left out: not .jpg, .jpeg, .png or .webp (g.gif, h.heic, notes.txt, ...)",
    ]


def test_a_link_that_leads_nowhere_is_an_image_that_cannot_be_read(tmp_path):
    (tmp_path / "a.jpg").symlink_to("gone.jpg")
    assert list_images(tmp_path).images == [tmp_path / "a.jpg"]


def test_the_id_in_cocos_names():
    assert coco_image_id("COCO_test2015_000000000042.jpg") == 42
    assert coco_image_id("000000000042.png") == 42
    assert coco_image_id("42.jpg") is None


def test_a_number_alone_is_an_id_only_when_asked_for(tmp_path):
    (tmp_path / "42.jpg").write_bytes(jpeg())
    official = {42: "000000000042.jpg"}
    assert find_images(tmp_path, official) == {}
    assert find_images(tmp_path, official, by_number=True) == {42: "42.jpg"}
