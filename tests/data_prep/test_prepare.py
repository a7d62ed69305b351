"""One entry for every task: its own converter is called, with the options that this converter takes."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from data_prep.prepare import prepare
from dept_vl.data.manifest import open_split
from dept_vl.errors import ConfigError
from dept_vl.tasks import TASKS, get_task
from dept_vl.tasks.examples import example_rows
from dept_vl.tasks.splits import HELD_OUT_ROWS
from tests.data_prep.raw_files import write_raw
from tests.data_prep.text_rows import write_rows

SPLITS = ("train", "val", "test")


def write_raw_of(task, folder: Path) -> Path:
    """Writes raw files that every split of a task can be made of."""
    if task.source is None:
        return write_raw(folder)
    rows = list(itertools.islice(itertools.cycle(example_rows(task.name)), HELD_OUT_ROWS + 3))
    for hub_split in task.source.rows:
        write_rows(folder / f"{hub_split}.parquet", rows)
    return folder


@pytest.mark.parametrize("name", TASKS)
def test_every_task_is_prepared_by_the_converter_it_declares(name, tmp_path):
    task = get_task(name)
    options = {"subset": True} if task.protocols else {}
    stats = prepare(task, write_raw_of(task, tmp_path / "raw"), tmp_path / "out", **options)
    assert set(stats.splits) == set(SPLITS)
    for split in SPLITS:
        rows = open_split(tmp_path / "out", task.under(stats.protocol), split)
        assert len(rows) == stats.splits[split].rows > 0
        assert set(task.input_columns) <= set(rows.column_names)
        assert task.under(stats.protocol).source_text(rows[0])
        assert rows[0]["references"]


def test_another_task_on_the_same_raw_files_needs_a_declaration_only(monkeypatch, tmp_path):
    blind = replace(get_task("vqa"), name="vqa-upper", template=lambda row: row["question"].upper())
    monkeypatch.setitem(TASKS, "vqa-upper", blind)
    raw = write_raw(tmp_path / "raw")
    assert prepare(get_task("vqa-upper"), raw, tmp_path / "out").folder == tmp_path / "out" / "vqa-upper"
    prepare(get_task("vqa"), raw, tmp_path / "out")
    rows = {name: list(open_split(tmp_path / "out", get_task(name), "val")) for name in ("vqa", "vqa-upper")}
    assert rows["vqa-upper"] == rows["vqa"]


@pytest.mark.parametrize(
    ("name", "option", "message"),
    [
        ("coco", {"answer_vocabulary": Path("a.json")}, "--answer-vocabulary: task 'coco' takes none"),
        ("vqa", {"protocol": "fixed"}, "--protocol: task 'vqa' takes none"),
        ("vqa", {"subset": True}, "--subset: task 'vqa' takes none"),
        ("cola", {"images": Path("x")}, "--images: task 'cola' takes none"),
        ("cola", {"image_check": False}, "--no-image-check: task 'cola' takes none"),
        ("vqa", {}, "--raw: task 'vqa' needs the folder of its official files"),
    ],
)
def test_an_option_that_the_converter_does_not_take_is_refused_by_its_flag(name, option, message):
    with pytest.raises(ConfigError, match=message):
        prepare(get_task(name), None, Path("out"), **option)


def test_an_option_left_out_is_given_as_none(tmp_path):
    stats = prepare(
        get_task("coco"), write_raw(tmp_path / "raw"), tmp_path / "out", answer_vocabulary=None, protocol=None
    )
    assert stats.task == "coco"


def test_a_task_without_a_converter_is_refused(monkeypatch):
    monkeypatch.setitem(TASKS, "bare", replace(get_task("vqa"), name="bare", converter=None))
    with pytest.raises(ConfigError, match="task 'bare' declares no converter"):
        prepare(get_task("bare"), Path("raw"), Path("out"))


def test_splits_of_a_task_that_declares_no_sizes_are_counted(monkeypatch, tmp_path):
    monkeypatch.setitem(TASKS, "third", replace(get_task("coco"), name="third", split_sizes={}))
    lines = prepare(get_task("third"), write_raw(tmp_path / "raw"), tmp_path / "out").lines()
    assert lines[:3] == [
        "third train: 9 examples on 3 images",
        "third val: 1 examples on 1 images",
        "third test: 1 examples on 1 images",
    ]
