"""Splits come back as they were written, memory-mapped, and what is wrong with a file is said with its place."""

import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dept_vl.data import manifest
from dept_vl.data.manifest import SplitInfo, manifest_schema, open_split, split_images, split_info, write_split
from dept_vl.errors import DataError
from dept_vl.tasks import get_task

SCHEMA = manifest_schema(images=True, text_columns=("question",))


def row(number: int, **changes) -> dict:
    return {
        "example_id": 10 * number,
        "image_id": number,
        "image": f"val2014/COCO_val2014_{number:012d}.jpg",
        "question": f"what is {number}?",
        "targets": ["a cat", "dog"],
        "target_weights": [0.3, 1.0],
        "references": ["a cat"] * 3,
        **changes,
    }


def write(data_dir: Path, rows: list[dict], split: str = "val") -> Path:
    (data_dir / "vqa").mkdir(parents=True, exist_ok=True)
    write_split(data_dir / "vqa", SplitInfo("vqa", split, "/images"), SCHEMA, rows)
    return data_dir / "vqa" / f"{split}.parquet"


def test_rows_come_back(tmp_path):
    rows = [row(i) for i in range(5)] + [row(5, targets=[], target_weights=[])]
    write(tmp_path, rows)
    dataset = open_split(tmp_path, get_task("vqa"), "val")
    assert [dict(r) for r in dataset] == [{**r, "target_weights": pytest.approx(r["target_weights"])} for r in rows]
    assert split_info(tmp_path, get_task("vqa"), "val") == SplitInfo("vqa", "val", "/images")
    assert split_images(tmp_path, get_task("vqa"), "val") == {r["image_id"]: r["image"] for r in rows}


def test_the_split_is_memory_mapped_beside_its_file(tmp_path):
    write(tmp_path, [row(i) for i in range(3)])
    dataset = open_split(tmp_path, get_task("vqa"), "val")
    files = [Path(f["filename"]) for f in dataset.cache_files]
    assert [f.parent for f in files] == [tmp_path / "vqa" / ".arrow"]
    assert len(pickle.dumps(dataset)) < 10_000  # workers get the file's name, not the rows
    assert pickle.loads(pickle.dumps(dataset))[2]["image_id"] == 2


def test_the_same_rows_give_the_same_bytes(tmp_path):
    rows = [row(i) for i in range(100)]
    first, second = write(tmp_path / "a", rows), write(tmp_path / "b", rows)
    assert first.read_bytes() == second.read_bytes()


def test_many_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "ROWS_PER_BATCH", 7)
    write(tmp_path, [row(i) for i in range(30)])
    assert open_split(tmp_path, get_task("vqa"), "val")["image_id"][:] == list(range(30))


def test_a_parquet_file_that_came_alone_opens(tmp_path):
    path = write(tmp_path, [row(1)])
    for arrow in (tmp_path / "vqa" / ".arrow").iterdir():
        arrow.unlink()
    (tmp_path / "vqa" / ".arrow").rmdir()
    assert len(open_split(tmp_path, get_task("vqa"), "val")) == 1
    (arrow,) = (tmp_path / "vqa" / ".arrow").iterdir()
    arrow.write_bytes(arrow.read_bytes()[:100])  # a damaged copy is made again
    assert open_split(tmp_path, get_task("vqa"), "val")[0]["question"] == "what is 1?"
    path.unlink()


def test_a_replaced_parquet_file_is_not_read_from_the_old_copy(tmp_path):
    write(tmp_path, [row(1)])
    other = write(tmp_path / "other", [row(2), row(3)])
    os.replace(other, tmp_path / "vqa" / "val.parquet")
    assert open_split(tmp_path, get_task("vqa"), "val")["image_id"][:] == [2, 3]


AS_NOBODY = """
import os, sys, tempfile
from pathlib import Path
from dept_vl.data.manifest import open_split
from dept_vl.tasks import get_task
data, warm_up = map(Path, sys.argv[1:])
open_split(warm_up, get_task("vqa"), "val")  # imports what there is to import
if os.geteuid() == 0:  # root may write everywhere
    os.setuid(65534)
rows = open_split(data, get_task("vqa"), "val")
print(rows[0]["image_id"], rows.cache_files[0]["filename"])
"""


@pytest.mark.parametrize("with_copy", [True, False])
def test_a_read_only_data_folder_opens(with_copy):
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to other users
        folder = Path(name)
        folder.chmod(0o777)
        write(folder / "warm-up", [row(1)])
        write(folder / "data", [row(7)])
        if not with_copy:
            shutil.rmtree(folder / "data" / "vqa" / ".arrow")
        for closed in (folder / "data").rglob("*"):
            closed.chmod(0o555)
        done = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, folder / "data", folder / "warm-up"],
            env={**os.environ, "TMPDIR": name, "HOME": name},
            capture_output=True,
            text=True,
            check=False,
        )
        for closed in (folder / "data").rglob("*"):
            closed.chmod(0o755)
        assert done.returncode == 0, done.stderr
        image_id, arrow = done.stdout.split()
        assert image_id == "7"
        assert Path(arrow).is_relative_to(folder / "data") == with_copy
        assert not list(folder.glob("dept-vl-arrow-*")), "the temporary copy is removed at exit"


def test_a_missing_split_names_the_command(tmp_path):
    with pytest.raises(DataError, match=r"val.parquet: no such prepared split; run: dept-vl prepare --task vqa"):
        open_split(tmp_path, get_task("vqa"), "val")


def test_an_empty_split_is_refused(tmp_path):
    write(tmp_path, [])
    with pytest.raises(DataError, match=r"val.parquet: the split is empty"):
        open_split(tmp_path, get_task("vqa"), "val")
    assert split_images(tmp_path, get_task("vqa"), "val") == {}


@pytest.mark.parametrize("keep", [0, 4, 200, -9])
def test_a_cut_file_is_named(tmp_path, keep):
    path = write(tmp_path, [row(i) for i in range(50)])
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"val.parquet: not a complete Parquet file"):
        open_split(tmp_path, get_task("vqa"), "val")


def test_altered_bytes_are_not_read_from_the_old_copy(tmp_path):
    path = write(tmp_path, [row(i) for i in range(500)])
    data = bytearray(path.read_bytes())
    data[40:80] = b"\xff" * 40
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"val.parquet"):
        open_split(tmp_path, get_task("vqa"), "val")


def test_a_foreign_or_renamed_file_is_refused(tmp_path):
    path = write(tmp_path, [row(1)])
    os.replace(path, path.with_name("test.parquet"))
    with pytest.raises(
        DataError, match=r"test.parquet: holds split 'val' of task 'vqa', expected split 'test' of task 'vqa'"
    ):
        open_split(tmp_path, get_task("vqa"), "test")
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(DataError, match="has no dept_vl metadata"):
        open_split(tmp_path, get_task("vqa"), "val")


def test_missing_and_wrong_columns_are_named(tmp_path):
    (tmp_path / "vqa").mkdir()
    metadata = {b"dept_vl": json.dumps({"task": "vqa", "split": "val"}).encode()}
    table = pa.table({"example_id": pa.array([1])}).replace_schema_metadata(metadata)
    pq.write_table(table, tmp_path / "vqa" / "val.parquet")
    with pytest.raises(DataError, match=r"missing column 'targets'; it has example_id"):
        open_split(tmp_path, get_task("vqa"), "val")
    rows = pa.Table.from_pylist([row(1, target_weights=["x"])]).replace_schema_metadata(metadata)
    pq.write_table(rows, tmp_path / "vqa" / "val.parquet")
    with pytest.raises(DataError, match=r"column 'target_weights' has type list"):
        open_split(tmp_path, get_task("vqa"), "val")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"target_weights": [1.0]}, "'targets' and 'target_weights' differ in number"),
        ({"target_weights": [0.0, 1.0]}, "a target weight is outside"),
        ({"target_weights": [0.5, 1.1]}, "a target weight is outside"),
        ({"target_weights": [0.5, float("nan")]}, "a target weight is outside"),
        ({"image": "../../etc/passwd"}, "'image' must be a path inside the image root"),
        ({"image": "/etc/passwd"}, "'image' must be a path inside the image root"),
        ({"image": "a\\b.jpg"}, "'image' must be a path inside the image root"),
        ({"question": None}, "'question' is null"),
        ({"references": ["a", None]}, "null in 'references'"),
    ],
)
def test_a_bad_row_is_named_and_nothing_is_written(tmp_path, monkeypatch, changes, problem):
    monkeypatch.setattr(manifest, "ROWS_PER_BATCH", 4)
    rows = [row(i) for i in range(9)]
    rows[6] = row(6, **changes)
    with pytest.raises(DataError, match=rf"val.parquet, record 6: {problem}"):
        write(tmp_path, rows)
    assert list((tmp_path / "vqa").iterdir()) == []


def test_a_row_of_another_type_is_named(tmp_path):
    with pytest.raises(DataError, match=r"val.parquet, records 0 to 1: "):
        write(tmp_path, [row(1), row(2, image_id="two")])


def test_an_image_with_two_paths_is_named(tmp_path):
    write(tmp_path, [row(1), row(1, image="train2014/a.jpg")])
    with pytest.raises(DataError, match=r"record 1: image 1 is 'train2014/a.jpg' here and 'val2014/"):
        split_images(tmp_path, get_task("vqa"), "val")
