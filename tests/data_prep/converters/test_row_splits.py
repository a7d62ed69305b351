"""Splits are those that are given, or are drawn by image, the same whatever the order of the rows."""

import random

import pytest

from data_prep.converters.rows import prepare_records
from dept_vl.errors import DataError
from dept_vl.tasks.declared import make_task
from tests.data_prep.own_rows import declare, declare_text, draw_some, prepared, read, some_rows, write_csv

SPLITS = ("train", "val", "test")


def images_of(task, out):
    return {split: {row["image"] for row in read(task, out, split)} for split in SPLITS}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return draw_some(tmp_path_factory.mktemp("images"), 20)


def test_drawn_splits_share_no_image_and_do_not_depend_on_the_order(images, tmp_path):
    rows = some_rows(60, images=20)
    prepare_records(make_task(declare()), rows, tmp_path / "a", images=images)
    random.Random(0).shuffle(rows)
    prepare_records(make_task(declare()), rows, tmp_path / "b", images=images)
    first, second = images_of(declare(), tmp_path / "a"), images_of(declare(), tmp_path / "b")
    assert first == second
    assert {split: len(names) for split, names in first.items()} == {"train": 16, "val": 2, "test": 2}
    assert sum(len(names) for names in first.values()) == len(set.union(*first.values()))


def test_another_seed_draws_others(images, tmp_path):
    rows = some_rows(60, images=20)
    drawn = []
    for seed in (0, 1):
        task = declare(split={"seed": seed})
        prepare_records(make_task(task), rows, tmp_path / str(seed), images=images)
        drawn.append(images_of(task, tmp_path / str(seed)))
    assert drawn[0] != drawn[1]


def test_shares_and_no_test(images, tmp_path):
    task = declare(split={"val": 0.25, "test": 0})
    stats = prepare_records(make_task(task), some_rows(60, images=20), tmp_path / "out", images=images)
    assert {split: count.images for split, count in stats.splits.items()} == {"train": 15, "val": 5}


def test_a_column_whose_values_stay_together(images, tmp_path):
    task = declare(split={"by": "patient", "shared_images": True})
    rows = [{**row, "patient": f"p{n % 5}"} for n, row in enumerate(some_rows(60, images=20))]
    prepare_records(make_task(task), rows, tmp_path / "out", images=images)
    of_split = {
        split: {int(row["question"][5:-1]) % 5 for row in read(task, tmp_path / "out", split)} for split in SPLITS
    }
    assert {split: len(patients) for split, patients in of_split.items()} == {"train": 3, "val": 1, "test": 1}
    assert set.union(*of_split.values()) == set(range(5))


def test_text_that_reads_the_same_stays_together(tmp_path):
    task = declare_text(template="{a} {b}")
    rows = [{"a": f"a {n % 10}", "b": "b", "answer": str(n)} for n in range(40)]
    prepare_records(make_task(task), rows, tmp_path / "out")
    texts = [{row["a"] for row in read(task, tmp_path / "out", split)} for split in SPLITS]
    assert [len(found) for found in texts] == [8, 1, 1]
    assert len(set.union(*texts)) == 10


def test_a_column_that_says_the_split(images, tmp_path):
    task = declare(split={"column": "part", "names": {"train": "fit", "val": ["check"], "test": ["Final"]}})
    rows = [{**row, "part": ["fit", "Check ", "final"][n % 20 % 3]} for n, row in enumerate(some_rows(60, images=20))]
    prepare_records(make_task(task), rows, tmp_path / "out", images=images)
    assert [len(read(task, tmp_path / "out", split)) for split in SPLITS] == [21, 21, 18]


def test_validation_is_drawn_from_training_where_there_is_none(images, tmp_path):
    task = declare(split={"column": "part"})
    rows = [{**row, "part": "test" if n % 20 < 5 else "train"} for n, row in enumerate(some_rows(60, images=20))]
    prepare_records(make_task(task), rows, tmp_path / "out", images=images)
    found = images_of(task, tmp_path / "out")
    assert {split: len(names) for split, names in found.items()} == {"train": 13, "val": 2, "test": 5}
    assert found["test"] == {f"{n}.jpg" for n in range(5)}


def test_an_unknown_split_in_the_column(images, tmp_path):
    rows = [{**row, "part": "train"} for row in some_rows(10)]
    rows[4]["part"] = "tset"
    path = write_csv(tmp_path / "rows.csv", rows)
    with pytest.raises(
        DataError, match=r"rows.csv, line 6: split 'tset' in column 'part' is none of those known \(train:"
    ):
        prepared(declare(split={"column": "part"}), tmp_path / "out", rows=path, images=images)


def test_an_image_in_two_given_splits(images, tmp_path):
    rows = [{**row, "part": "val" if n == 7 else "train"} for n, row in enumerate(some_rows(12, images=6))]
    path = write_csv(tmp_path / "rows.csv", rows)
    with pytest.raises(DataError) as caught:
        prepared(declare(split={"column": "part"}), tmp_path / "out", rows=path, images=images)
    assert f"{path}, line 9: image 1.jpg is in split 'val' here and in 'train' at {path}, line 3" in str(caught.value)
    assert "1 image is in two splits" in str(caught.value)
    shared = declare(split={"column": "part", "shared_images": True})
    assert prepared(shared, tmp_path / "out", rows=path, images=images).splits["val"].rows == 1


def test_too_few_images_for_a_draw(images, tmp_path):
    with pytest.raises(
        DataError, match=r"2 images cannot be drawn into train and test and val, of which each needs one"
    ):
        prepare_records(make_task(declare()), some_rows(10, images=2), tmp_path / "out", images=images)
