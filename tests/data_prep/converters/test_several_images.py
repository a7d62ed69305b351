"""Rows of one's own with several columns of images: prepared, drawn into splits, asked about, and refused."""

import random
import re

import pytest
from PIL import Image
from pydantic import ValidationError

from data_prep.converters.row_inputs import read_row_inputs
from data_prep.converters.rows import prepare_records
from data_prep.first_use.new_task import write_new_task
from dept_vl.errors import ConfigError, DataError
from dept_vl.settings.declared import find_task
from dept_vl.tasks.declared import make_task
from tests.data_prep.own_rows import declare, draw, draw_some, prepared, read, read_all, write_csv, write_jsonl

TWO = declare(image=["left", "right"])


def pairs(numbers, **columns):
    return [
        {"left": f"{a}.jpg", "right": f"{b}.jpg", "question": f"which {n}?", "answer": "left", **columns}
        for n, (a, b) in enumerate(numbers)
    ]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return draw_some(tmp_path_factory.mktemp("images"), 40)


def linked(numbers):
    """Returns which pairs are linked by images, as a plain loop over all of them."""
    groups = []
    for pair in numbers:
        touched = [group for group in groups if group & set(pair)]
        groups = [group for group in groups if group not in touched] + [set(pair).union(*touched)]
    return [next(n for n, group in enumerate(groups) if a in group) for a, _ in numbers]


def test_rows_have_their_images_in_the_order_of_the_columns(images, tmp_path):
    prepared(
        TWO,
        tmp_path / "out",
        rows=write_csv(tmp_path / "rows.csv", pairs([(3, 1), (1, 3), (5, 6), (7, 8), (9, 10)])),
        images=images,
    )
    first, second = read_all(TWO, tmp_path / "out")[:2]
    assert first["image"] == ["3.jpg", "1.jpg"]
    assert second["image_id"] == first["image_id"][::-1]


def test_the_task_knows_how_many_and_one_in_a_list_is_one(images):
    assert (make_task(TWO).num_images, make_task(declare()).num_images) == (2, 1)
    assert declare(image=["image"]) == declare(image="image")
    assert declare(image=["image"]).rows_key() == declare().rows_key() != TWO.rows_key()


def test_rows_that_share_an_image_by_any_way_stay_in_one_split(images, tmp_path):
    rng = random.Random(3)
    numbers = [tuple(rng.sample(range(40), 2)) for _ in range(16)]
    groups = linked(numbers)
    assert 3 < len(set(groups)) < 16
    prepare_records(make_task(TWO), pairs(numbers), tmp_path / "out", images=images)
    split_of = {
        row["question"]: split for split in ("train", "val", "test") for row in read(TWO, tmp_path / "out", split)
    }
    splits = [split_of[f"which {n}?"] for n in range(16)]
    assert len(set(zip(groups, splits, strict=True))) == len(set(groups))
    assert set(splits) == {"train", "val", "test"}


def test_rows_that_are_all_linked_cannot_be_drawn(images, tmp_path):
    with pytest.raises(DataError, match="too few groups of images that no row links for a draw: 1, and"):
        prepare_records(make_task(TWO), pairs([(n, n + 1) for n in range(30)]), tmp_path, images=images)


def test_an_image_in_two_given_splits_is_refused_in_whichever_column(images, tmp_path):
    rows = {"train": pairs([(0, 1), (2, 3)]), "val": pairs([(4, 5)]), "test": pairs([(6, 2)])}
    with pytest.raises(
        DataError, match=r"test, record 0: image 2.jpg is in split 'test' here and in 'train' at train, rec"
    ):
        prepare_records(make_task(TWO), rows, tmp_path, images=images)


def test_a_row_that_lacks_one_of_its_images_is_refused_and_one_without_any_left_out(images, tmp_path):
    rows = pairs([(n, n + 20) for n in range(20)])
    rows[4]["right"] = ""
    path = write_csv(tmp_path / "rows.csv", rows)
    with pytest.raises(DataError, match=r"rows.csv, line 6: has 1 of 2 images \('right' is empty\), and every row"):
        prepared(TWO, tmp_path / "out", rows=path, images=images)
    rows[4]["left"] = ""
    stats = prepared(TWO, tmp_path / "out", rows=write_csv(path, rows), images=images)
    assert sum(count.rows for count in stats.splits.values()) == 19


def test_a_missing_second_image_is_named_or_its_row_left_out(images, tmp_path):
    path = write_csv(tmp_path / "rows.csv", pairs([*((n, n + 20) for n in range(20)), (1, 77)]))
    with pytest.raises(DataError, match=r"rows.csv, line 22: image '77.jpg' is not in"):
        prepared(TWO, tmp_path / "out", rows=path, images=images)
    stats = prepared(TWO, tmp_path / "out", rows=path, images=images, skip_missing_images=True)
    assert sum(count.rows for count in stats.splits.values()) == 20


def test_pictures_in_the_rows_are_written_each_once(tmp_path):
    drawn = [Image.new("RGB", (8, 8), (20 * n, 0, 0)) for n in range(12)]
    rows = [
        {"left": drawn[n], "right": drawn[(n + 1) % 12 if n % 2 == 0 else n], "question": "a?", "answer": "b"}
        for n in range(12)
    ]
    prepare_records(make_task(TWO), rows, tmp_path)
    assert len(list((tmp_path / "mine" / "images").iterdir())) == 12
    row = read_all(TWO, tmp_path)[0]
    assert [Image.open(tmp_path / "mine" / "images" / name).getpixel((0, 0))[0] for name in row["image"]] == [0, 20]


def test_rows_to_answer_name_all_images(images, tmp_path):
    rows = str(write_jsonl(tmp_path / "rows.jsonl", pairs([(3, 1)])))
    [(_, row)] = read_row_inputs(make_task(TWO), rows, images)
    assert row["image"] == [str(images / "3.jpg"), str(images / "1.jpg")]
    rows = str(write_jsonl(tmp_path / "rows.jsonl", [{**pairs([(3, 1)])[0], "right": "no.jpg"}]))
    with pytest.raises(DataError, match=r"rows.jsonl, line 1: image 'no.jpg' is not in"):
        list(read_row_inputs(make_task(TWO), rows, images))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": ["left", "left"]}, "image: names a column twice: left, left"),
        ({"image": []}, "names no column; leave the field out, or name one"),
        ({"image": ["left", "answer"]}, "target: 'answer' is a column of image too"),
        ({"image": ["left", "right"], "kind": "caption", "template": None}, "image: captions are of one image, got 2"),
    ],
)
def test_columns_that_cannot_be_are_refused(changes, message):
    with pytest.raises(ValidationError, match=re.escape(message)):
        declare(**changes)


def test_a_first_file_is_written_for_several_columns_of_images(tmp_path, monkeypatch):
    draw(tmp_path / "pictures", *(f"{n}.jpg" for n in range(8)))
    write_csv(tmp_path / "rows.csv", pairs([(n, n + 4) for n in range(4)]))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"\('left', 'right'\); say which .* --image-column left,right"):
        write_new_task("rows.csv", images=tmp_path / "pictures")
    path, task = write_new_task("rows.csv", images=tmp_path / "pictures", image_column="left,right")
    assert "image: 'left', 'right': their names and values say so" in task.guessed
    assert find_task(str(path)).declaration.image == ("left", "right")
    with pytest.raises(ConfigError, match="--image-column: no column 'rigth'; did you mean 'right'"):
        write_new_task("rows.csv", images=tmp_path / "pictures", image_column="left,rigth", overwrite=True)
