"""Files and folders appear whole or not at all."""

import builtins
import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dept_vl.errors import ConfigError, DataError
from dept_vl.system import atomic


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


def test_a_removed_folder_is_gone_in_one_step(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "a").write_text("x")
    monkeypatch.setattr(atomic.shutil, "rmtree", lambda *_, **__: None)  # as if killed before
    atomic.remove_folder(tmp_path / "run")
    assert not (tmp_path / "run").exists()
    monkeypatch.undo()
    atomic.remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_one_name_alone_can_be_removed(tmp_path):
    for name in (".run.tmp-1", ".run-2.tmp-1", "run"):
        (tmp_path / name).mkdir()
    atomic.remove_leftovers(tmp_path, tmp_path / "run")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".run-2.tmp-1", "run"]


@pytest.mark.parametrize("name", ["n" * 255, "\u00e9" * 127, os.fsdecode(b"\xff" * 255)])
def test_the_longest_names_can_be_written(tmp_path, name):
    atomic.write_text(tmp_path / name, "x")
    with atomic.atomic_folder(tmp_path / "in" / name) as folder:
        (folder / "a").write_text("x")
    assert (tmp_path / name).read_text() == "x"
    assert (tmp_path / "in" / name / "a").is_file()


def test_an_error_names_the_file_that_was_to_be_written(tmp_path):
    with pytest.raises(OSError, match="No space left on device") as error, atomic.atomic_folder(tmp_path / "step-1"):
        raise OSError(28, "No space left on device")
    assert error.value.filename == str(tmp_path / "step-1")


def test_names_that_are_not_utf8_come_back_from_json(tmp_path):
    name = os.fsdecode(b"\xff\xe9.jpg")
    atomic.write_json(tmp_path / "a.json", {"image": name, "plain": "\u00e9"})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["image"] == name
    atomic.write_json(tmp_path / "a.json", {"plain": "\u00e9"})
    assert "\u00e9" in (tmp_path / "a.json").read_text(encoding="utf-8")


def test_the_next_writer_clears_what_a_dead_one_left_of_the_same_thing(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    here = atomic._temporary_name(tmp_path / "out").name.rpartition("-")[2]
    of_the_dead, of_another_machine = f".out.tmp-{gone.pid}-{here}", f".out.tmp-{gone.pid}-000000"
    of_the_living, of_another = f".out.tmp-{os.getppid()}-{here}", f".out2.tmp-{gone.pid}-{here}"
    for name in (of_the_dead, of_another_machine, of_the_living, of_another):
        (tmp_path / name).mkdir()
    with atomic.atomic_folder(tmp_path / "out"):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"out", of_another_machine, of_the_living, of_another}
    (tmp_path / of_the_dead).write_text("half")
    atomic.write_text(tmp_path / "out" / "x", "whole")
    assert (tmp_path / of_the_dead).exists()  # of something else
    (tmp_path / "out" / of_the_dead.replace("out", "x")).write_text("half")
    atomic.write_text(tmp_path / "out" / "x", "whole")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["x"]


def test_a_read_only_disk_is_named_by_the_file_that_was_to_be_written(tmp_path, monkeypatch):
    """There even looking for the temporary file to remove it is an error."""

    def refuse(self, *_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))

    monkeypatch.setattr(builtins, "open", lambda path, mode: refuse(path))
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(OSError, match=r"Read-only file system: '.*/kept\.txt'$"):
        atomic.write_text(tmp_path / "kept.txt", "new")


def test_an_output_file_is_checked_before_the_work(tmp_path, monkeypatch):
    atomic.check_output_file("--output", tmp_path / "x.json")
    for path, said in ((tmp_path, "is a folder"), (tmp_path / "no" / "x.json", f"there is no folder {tmp_path}/no/")):
        with pytest.raises(ConfigError, match=f"--output {path}: {said}"):
            atomic.check_output_file("--output", path)
    monkeypatch.setattr(os, "access", lambda *_: False)  # as on a read-only disk, where root may not write either
    with pytest.raises(ConfigError, match="cannot be written into; name a file elsewhere"):
        atomic.check_output_file("--output", tmp_path / "x.json")
