"""Rows of one's own that `dept-vl predict --rows` answers."""

import pytest

from data_prep.converters.row_inputs import read_row_inputs
from dept_vl.errors import ConfigError, DataError
from dept_vl.tasks.declared import make_task
from tests.data_prep.own_rows import declare, declare_text, draw, write_jsonl


def test_a_number_names_an_image_as_in_prepare(tmp_path):
    rows = write_jsonl(tmp_path / "rows.jsonl", [{"image": 12, "question": "what?"}])
    images = draw(tmp_path / "images", "IMG_0012.JPG")
    [(_, row)] = read_row_inputs(make_task(declare()), str(rows), images)
    assert row["image"] == str(images / "IMG_0012.JPG")


def test_images_that_are_no_folder_or_not_read_are_refused(tmp_path):
    rows = str(write_jsonl(tmp_path / "rows.jsonl", [{"image": "a.jpg", "question": "what?"}]))
    with pytest.raises(DataError, match="gone: no such folder of images"):
        list(read_row_inputs(make_task(declare()), rows, tmp_path / "gone"))
    with pytest.raises(ConfigError, match="--images: task 'mine' reads text alone; leave it out"):
        list(read_row_inputs(make_task(declare_text()), rows, tmp_path))
    rows = str(write_jsonl(tmp_path / "none.jsonl", [{"image": None, "question": "what?"}]))
    with pytest.raises(DataError, match=r"none.jsonl, line 1: 'image' should be the name .* found None"):
        list(read_row_inputs(make_task(declare()), rows, tmp_path))
