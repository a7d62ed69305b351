"""The image files that rows name are found whatever folder, case and suffix the name has."""

import pytest

from data_prep.raw.image_names import ImageNames
from dept_vl.errors import DataError

FILES = [
    "a/cat.jpg", "b/cat.jpg", "b/Dog 1.JPEG", "IMG_0012.JPG", "deep/down/DSC_7.png", "deep/IMG_7.webp", "x.y.png",
    "val2014/COCO_val2014_000000000042.jpg", "2017/000000000043.jpg", "._a.jpg", "b/__MACOSX/dog 1.jpeg", "notes.txt",
]  # fmt: skip


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    for file in FILES:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return ImageNames(root)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("a/cat.jpg", "a/cat.jpg"),
        ("./a/../b/cat.jpg", "b/cat.jpg"),
        ("A/Cat.JPG", "a/cat.jpg"),
        ("old/place/b/cat.jpg", "b/cat.jpg"),
        ("b\\dog 1.jpeg", "b/Dog 1.JPEG"),
        ("dog 1.jpeg", "b/Dog 1.JPEG"),
        ("dog 1", "b/Dog 1.JPEG"),
        ("dog 1.png", "b/Dog 1.JPEG"),
        ("img_0012", "IMG_0012.JPG"),
        ("12", "IMG_0012.JPG"),
        ("12.jpg", "IMG_0012.JPG"),
        ("DSC_7", "deep/down/DSC_7.png"),
        ("x.y", "x.y.png"),
        ("42", "val2014/COCO_val2014_000000000042.jpg"),
        ("COCO_train2014_000000000043.jpg", "2017/000000000043.jpg"),
        ("notes.txt", "notes.txt"),
        ("none.jpg", None),
        ("1", "b/Dog 1.JPEG"),
        ("9" * 5000, None),
    ],
)
def test_an_image_is_found_by_what_rows_call_it(names, name, path):
    assert names.find(name) == path


@pytest.mark.parametrize(
    ("name", "both"), [("cat.jpg", "a/cat.jpg and b/cat.jpg"), ("7", "deep/IMG_7.webp and deep/down/DSC_7.png")]
)
def test_several_files_that_are_as_good_are_refused(names, name, both):
    with pytest.raises(DataError, match=rf"image '{name}' is there 2 times below .*{both}.*; give its path"):
        names.find(name)


@pytest.mark.parametrize("name", ["../cat.jpg", "a/../../cat.jpg", "/etc/passwd", "C:\\cat.jpg", "..\\cat.jpg", ".."])
def test_a_path_outside_the_folder_is_refused(names, name):
    with pytest.raises(DataError, match=r"lies outside the folder of images, .*; --images says another"):
        names.find(name)


def test_a_path_from_the_root_on_that_lies_inside_is_taken(names):
    assert names.find(f"{names.root}/a/cat.jpg") == "a/cat.jpg"


def test_a_web_address_is_refused_in_words(names):
    with pytest.raises(DataError, match=r"image 'https://x.org/a.jpg' is a web address; nothing is downloaded"):
        names.find("https://x.org/a.jpg")
