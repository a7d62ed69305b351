"""Rows come from a file, a folder of splits or shards, what `datasets` wrote, or memory."""

import datasets
import numpy as np
import pandas
import pytest

from data_prep.converters.rows import prepare_records
from dept_vl.errors import DataError
from dept_vl.tasks.declared import make_task
from tests.data_prep.own_rows import declare_text, prepared, read, read_all, write_csv, write_jsonl

ROWS = [{"question": f"q {n}", "answer": "a"} for n in range(12)]
TASK = declare_text()


def columns(rows):
    return {key: [row[key] for row in rows] for key in rows[0]}


def data_set(rows=ROWS):
    return datasets.Dataset.from_dict(columns(rows))


def sizes(stats):
    return {split: count.rows for split, count in stats.splits.items()}


def test_a_folder_of_split_files(tmp_path):
    write_csv(tmp_path / "rows" / "Train.csv", ROWS)
    write_jsonl(tmp_path / "rows" / "dev.jsonl", ROWS[:3])
    write_csv(tmp_path / "rows" / "notes.csv", ROWS)
    stats = prepared(TASK, tmp_path / "out", rows=tmp_path / "rows")
    assert sizes(stats) == {"train": 12, "val": 3}
    assert list(stats.inputs) == ["Train.csv", "dev.jsonl"]


def test_shards_and_folders_called_as_splits(tmp_path):
    for shard in range(2):
        data_set(ROWS[shard::2]).to_parquet(tmp_path / "a" / "data" / f"train-0000{shard}-of-00002.parquet")
        data_set(ROWS[shard::2]).to_parquet(tmp_path / "b" / "train" / f"{shard}.parquet")
        data_set(ROWS[shard::2]).to_parquet(tmp_path / "c" / f"{shard}.parquet")
    data_set(ROWS[:3]).to_parquet(tmp_path / "a" / "data" / "validation.parquet")
    data_set(ROWS[:3]).to_parquet(tmp_path / "b" / "validation" / "0.parquet")
    assert sizes(prepared(TASK, tmp_path / "out-a", rows=tmp_path / "a")) == {"train": 12, "val": 3}
    assert sizes(prepared(TASK, tmp_path / "out-b", rows=tmp_path / "b")) == {"train": 12, "val": 3}
    assert sizes(prepared(TASK, tmp_path / "out-c", rows=tmp_path / "c")) == {"train": 10, "val": 1, "test": 1}


def test_what_datasets_saved(tmp_path, caplog):
    data_set().save_to_disk(tmp_path / "one")
    datasets.DatasetDict(train=data_set(), validation=data_set(ROWS[:2]), extra=data_set()).save_to_disk(
        tmp_path / "all"
    )
    assert sizes(prepared(TASK, tmp_path / "out", rows=tmp_path / "one")) == {"train": 10, "val": 1, "test": 1}
    stats = prepared(TASK, tmp_path / "out2", rows=tmp_path / "all")
    assert sizes(stats) == {"train": 12, "val": 2}
    assert "all: splits extra are not read; split.names says what yours are called" in caplog.text
    assert stats.source == str(tmp_path / "all")


def test_a_single_split_is_no_split(tmp_path):
    """A hub data set of one split, and a lone train.csv, are drawn into three."""
    write_csv(tmp_path / "rows" / "train.csv", ROWS)
    assert sizes(prepared(TASK, tmp_path / "out", rows=tmp_path / "rows")) == {"train": 10, "val": 1, "test": 1}
    datasets.DatasetDict(train=data_set()).save_to_disk(tmp_path / "saved")
    assert sizes(prepared(TASK, tmp_path / "out2", rows=tmp_path / "saved")) == {"train": 10, "val": 1, "test": 1}


def test_classes_are_read_by_their_names(tmp_path):
    features = datasets.Features(question=datasets.Value("string"), answer=datasets.ClassLabel(names=["cat", "dog"]))
    rows = datasets.Dataset.from_dict({"question": list("abcd"), "answer": [0, 1, 1, 0]}, features=features)
    task = declare_text(kind="text-label", labels=["cat", "dog"])
    rows.to_parquet(tmp_path / "rows.parquet")
    prepared(task, tmp_path / "out", rows=tmp_path / "rows.parquet")
    prepare_records(make_task(task), rows, tmp_path / "out2")
    for out in ("out", "out2"):
        assert [row["targets"] for row in read_all(task, tmp_path / out)] == [["cat"], ["dog"], ["dog"], ["cat"]]


def test_rows_in_memory_by_split(tmp_path):
    stats = prepare_records(make_task(TASK), {"train": data_set(), "validation": ROWS[:2]}, tmp_path / "out")
    assert sizes(stats) == {"train": 12, "val": 2}
    assert stats.source == "rows in memory"
    stats = prepare_records(make_task(TASK), {"train": ROWS}, tmp_path / "out2")
    assert sizes(stats) == {"train": 11, "val": 1}


def test_a_data_frame_and_values_of_numpy(tmp_path):
    frame = pandas.DataFrame({"question": range(6), "answer": [1.0, 2.0, None, 1.0, 2.0, 1.0]})
    prepare_records(make_task(TASK), frame, tmp_path / "out")
    assert [row["targets"] for row in read_all(TASK, tmp_path / "out")] == [["1"], ["2"], ["1"], ["2"], ["1"]]
    rows = [{"question": np.int64(n), "answer": np.array(["a", "b"])} for n in range(6)]
    prepare_records(make_task(TASK), rows, tmp_path / "out2")
    assert read_all(TASK, tmp_path / "out2")[5]["question"] == "5"
    assert read_all(TASK, tmp_path / "out2")[5]["references"] == ["a", "b"]


def test_a_column_may_be_missing_in_some_rows_of_json(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", [{"question": "q"}, *ROWS])
    stats = prepared(TASK, tmp_path / "out", rows=path)
    assert sum(sizes(stats).values()) == 12
    assert read(TASK, tmp_path / "out", "train")


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ("nowhere/rows.csv", "nowhere/rows.csv: no such file or folder of rows, and no id of a data set on the hub"),
        ("notes.md", "rows are read from files called NAME"),
        ("empty", "which rows are in which split? There is no table; call the files train"),
        ("two", "which rows are in which split? There is a.csv, b.csv"),
        ("twice", "split 'val' is there 2 times: valid.csv, dev.csv; leave one"),
        ("user/name", "user/name: no such file or folder, and it cannot be loaded from the hub"),
    ],
)
def test_what_is_no_source_of_rows(rows, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.md").write_text("a")
    (tmp_path / "empty").mkdir()
    for name in ("two/a", "two/b", "twice/train", "twice/valid", "twice/dev"):
        write_csv(tmp_path / f"{name}.csv", ROWS)
    with pytest.raises(DataError) as caught:
        prepared(TASK, tmp_path / "out", rows=rows)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (
            (row for row in ROWS),
            r"expected a list of mappings, a datasets.Dataset or a DataFrame, got generator \(a stream",
        ),
        ([1], "rows, record 0: expected a mapping of columns, got int"),
        ({"trian": ROWS}, "split 'trian' is none of train: train, training; val: val"),
        ({}, "an empty mapping"),
        ([], "rows: holds no row"),
        ({"validation": ROWS}, "train would have no rows"),
    ],
)
def test_what_are_no_rows_in_memory(rows, says, tmp_path):
    with pytest.raises(DataError, match=says):
        prepare_records(make_task(TASK), rows, tmp_path / "out")
