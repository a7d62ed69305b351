"""An image is its content: under several names it is one, and pictures that rows hold are written once."""

import io
import shutil

import datasets
import numpy as np
import pytest
from PIL import Image

from data_prep.converters.rows import prepare_records
from dept_vl.data.images import open_image
from dept_vl.errors import DataError
from dept_vl.tasks.declared import make_task
from tests.data_prep.own_rows import declare, draw, draw_some, prepared, read_all, some_rows, write_csv

TASK = make_task(declare())


def jpeg(number, **options):
    file = io.BytesIO()
    Image.new("RGB", (8, 6), (number * 20, 0, 99)).save(file, "JPEG", **options)
    return file.getvalue()


def with_images(values):
    return [{**row, "image": value} for row, value in zip(some_rows(len(values)), values, strict=True)]


def test_one_picture_under_two_names_is_one_image(tmp_path):
    images = draw_some(tmp_path / "images", 8)
    shutil.copy(images / "0.jpg", images / "copy.jpg")
    rows = [*some_rows(8), {**some_rows(1)[0], "image": "copy.jpg"}]
    stats = prepare_records(TASK, rows, tmp_path / "out", images=images)
    found = read_all(declare(), tmp_path / "out")
    assert found[8]["image_id"] == found[0]["image_id"]
    assert found[8]["image"] == found[0]["image"] == "0.jpg"
    assert sum(split.images for split in stats.splits.values()) == 8


def test_an_images_number_is_that_of_its_content(tmp_path):
    rows = write_csv(tmp_path / "rows.csv", some_rows(10))
    first, second = draw_some(tmp_path / "a"), tmp_path / "b" / "sub"
    shutil.copytree(first, second)
    prepared(declare(), tmp_path / "one", rows=rows, images=first)
    prepared(declare(), tmp_path / "two", rows=rows, images=tmp_path / "b")
    one, two = (read_all(declare(), tmp_path / name) for name in ("one", "two"))
    assert [row["image_id"] for row in one] == [row["image_id"] for row in two]
    assert all(0 <= row["image_id"] < 2**63 for row in one)
    assert two[0]["image"] == "sub/0.jpg"


def test_names_start_from_the_rows_file_where_no_folder_is_given(tmp_path):
    draw_some(tmp_path / "set" / "pictures")
    prepared(declare(), tmp_path / "out", rows=write_csv(tmp_path / "set" / "rows.csv", some_rows(10)))
    assert read_all(declare(), tmp_path / "out")[3]["image"] == "pictures/3.jpg"


def test_missing_images_are_counted_and_named_and_may_be_left_out(tmp_path):
    images = draw_some(tmp_path / "images", 8)
    rows = write_csv(tmp_path / "rows.csv", [*some_rows(20), {**some_rows(1)[0], "image": ""}])
    with pytest.raises(DataError) as caught:
        prepared(declare(), tmp_path / "out", rows=rows, images=images)
    assert f"{rows}, line 10: image '8.jpg' is not in {images}, where 8 images are" in str(caught.value)
    assert "2 of 10 images are missing: 8.jpg, 9.jpg (looked for at their path, then by name" in str(caught.value)
    stats = prepared(declare(), tmp_path / "out", rows=rows, images=images, skip_missing_images=True)
    assert sum(split.rows for split in stats.splits.values()) == 16
    assert stats.left_out == {
        f"rows left out: they name no image (first: {rows}, line 22)": 1,
        f"rows left out: their image is missing (first: {rows}, line 10)": 4,
    }


def test_no_folder_and_an_empty_file(tmp_path):
    rows = write_csv(tmp_path / "rows.csv", some_rows(10))
    with pytest.raises(DataError, match="nowhere: no such folder of images"):
        prepared(declare(), tmp_path / "out", rows=rows, images=tmp_path / "nowhere")
    images = draw_some(tmp_path / "images")
    (images / "3.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"3.jpg: the image file is empty; fetch it again"):
        prepared(declare(), tmp_path / "out", rows=rows, images=images)
    with pytest.raises(DataError, match=r"rows, record 0: image '0.jpg': no such file; give the folder of the images"):
        prepare_records(TASK, some_rows(10), tmp_path / "out")


def test_names_in_memory_are_paths_of_files_where_no_folder_is_given(tmp_path, monkeypatch):
    draw(tmp_path / "images", *(f"{'ab'[n % 2]}/{n}.jpg" for n in range(10)))
    monkeypatch.chdir(tmp_path)
    values = [tmp_path / f"images/a/{n}.jpg" if n % 4 else f"images/a/{n}.jpg" for n in range(0, 10, 2)]
    values += [str(tmp_path / f"images/b/{n}.jpg") for n in range(1, 10, 2)]
    stats = prepare_records(TASK, with_images(values), tmp_path / "out")
    assert stats.image_root == str(tmp_path / "images")
    assert [row["image"] for row in read_all(declare(), tmp_path / "out")][3:6] == ["a/6.jpg", "a/8.jpg", "b/1.jpg"]


def test_bytes_in_rows_are_written_once_as_they_are(tmp_path):
    contents = [jpeg(n % 4) for n in range(8)]
    values = [{"bytes": content, "path": None} if n % 2 else content for n, content in enumerate(contents)]
    stats = prepare_records(TASK, with_images(values), tmp_path / "out")
    rows = read_all(declare(), tmp_path / "out")
    folder = tmp_path / "out" / "mine" / "images"
    assert stats.image_root == str(folder)
    assert sorted(path.name for path in folder.iterdir()) == sorted({row["image"] for row in rows})
    assert [(folder / row["image"]).read_bytes() for row in rows] == contents


def test_pil_images_are_written_so_that_they_read_the_same(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    turned = Image.open(io.BytesIO(jpeg(1, exif=Image.Exif())))
    turned.getexif()[0x0112] = 6
    images = [
        Image.fromarray(noise),
        Image.fromarray(noise).convert("L"),
        Image.fromarray(noise).convert("CMYK"),
        turned,
    ]
    prepare_records(TASK, with_images(images), tmp_path / "out")
    rows = read_all(declare(), tmp_path / "out")
    folder = tmp_path / "out" / "mine" / "images"
    opened = [open_image(folder / row["image"]) for row in rows]
    for image, expected in zip(opened[:3], images, strict=False):
        assert np.array_equal(np.asarray(image), np.asarray(expected.convert("RGB")))
    assert opened[3].size == (6, 8)


def test_a_data_sets_images_are_taken_without_being_decoded(tmp_path):
    values = [{"bytes": jpeg(n), "path": f"{n}.jpg"} for n in range(5)]
    columns = {"image": values, "question": [f"q{n}" for n in range(5)], "answer": ["a"] * 5}
    rows = datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())
    prepare_records(TASK, rows.shuffle(seed=0), tmp_path / "out")
    folder = tmp_path / "out" / "mine" / "images"
    found = {row["question"]: (folder / row["image"]).read_bytes() for row in read_all(declare(), tmp_path / "out")}
    assert found == {f"q{n}": jpeg(n) for n in range(5)}


def test_a_data_sets_files_stay_where_they_are_if_they_lie_below_the_folder(tmp_path):
    images = draw(tmp_path / "images", *(f"{n}.png" for n in range(5)))
    columns = {"image": [str(images / f"{n}.png") for n in range(5)], "question": list("abcde"), "answer": ["a"] * 5}
    rows = datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())
    assert prepare_records(TASK, rows, tmp_path / "in", images=images).image_root == str(images)
    stored = prepare_records(TASK, rows, tmp_path / "out")
    assert len(list((tmp_path / "out" / "mine" / "images").iterdir())) == 5
    assert stored.image_root != str(images)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (b"GIF89a...", "image bytes begin with b'GIF89a..': not a JPEG, PNG or WebP; convert it"),
        (np.zeros((2, 2, 3)), "image should be a file's name, bytes or a PIL image, found ndarray"),
        (Image.new("RGB", (10_000, 6_000)), "image of 10000 x 6000 pixels; at most 50,000,000"),
        ("5.jpg", "names the image '5.jpg', and other rows hold pictures; give all in one way"),
    ],
)
def test_what_is_no_picture_is_refused(value, says, tmp_path):
    values = [jpeg(n) for n in range(5)]
    with pytest.raises(DataError) as caught:
        prepare_records(TASK, with_images([*values, value]), tmp_path / "out")
    assert str(caught.value).startswith("rows, record 5: ")
    assert says in str(caught.value)
    assert not (tmp_path / "out").exists()
