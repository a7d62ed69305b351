"""Files and folders appear whole or not at all."""

import os

import pytest

from dept_vl import atomic
from dept_vl.errors import DataError


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    atomic.write_text(path, "old")
    with pytest.raises(TypeError), atomic.atomic_file(path) as file:
        file.writelines([b"half", "not bytes"])
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "old"


def test_a_new_file_has_ordinary_permissions(tmp_path):
    atomic.write_bytes(tmp_path / "ours", b"x")
    (tmp_path / "plain").write_bytes(b"x")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_an_error_leaves_no_folder(tmp_path):
    with pytest.raises(TypeError), atomic.atomic_folder(tmp_path / "out" / "vqa") as folder:
        (folder / "half").write_text(b"not text")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_with_content_is_refused(tmp_path):
    (tmp_path / "vqa").mkdir()
    with atomic.atomic_folder(tmp_path / "vqa") as folder:  # empty: may be used
        (folder / "a").write_text("x")
    with pytest.raises(DataError, match=r"vqa: the output folder is not empty"), atomic.atomic_folder(tmp_path / "vqa"):
        pass
    with pytest.raises(DataError, match="this is a file"):
        atomic.refuse_existing(tmp_path / "vqa" / "a")


def test_leftovers_of_killed_writers_are_removed(tmp_path):
    (tmp_path / f".00001.safetensors.tmp-{os.getpid()}").write_text("half")
    (tmp_path / "00000.safetensors").write_text("whole")
    atomic.remove_leftovers(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["00000.safetensors"]


def test_json_is_the_same_text_for_equal_values(tmp_path):
    atomic.write_json(tmp_path / "a", {"b": 1, "a": "ü"})
    atomic.write_json(tmp_path / "b", {"a": "ü", "b": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_write_that_fails_names_the_file_and_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "kept.txt"
    atomic.write_text(path, "old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*kept\.txt'"):
        atomic.write_text(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["kept.txt"]
