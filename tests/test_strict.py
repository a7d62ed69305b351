"""Paths as people type them, and names that are none."""

import os

import pytest

from dept_vl.strict import LocalPath, expand_home

BACKBONE = LocalPath(or_name=True, words=("demo",))


def test_the_home_folder_is_put_in_for_a_tilde(monkeypatch):
    monkeypatch.setenv("HOME", "/home/mine")
    assert expand_home("~/data") == "/home/mine/data"
    assert expand_home("a/~/data") == "a/~/data"


def test_a_home_that_nobody_has_is_refused():
    with pytest.raises(ValueError, match=r"no home folder .* write \./~nobody-here/x"):
        expand_home("~nobody-here/x")


def test_a_prefix_stays_before_the_path(monkeypatch):
    monkeypatch.setenv("HOME", "/home/mine")
    path = LocalPath(or_name=True, prefix="local-dir:")
    assert path.expanded("local-dir:~/clip") == "local-dir:/home/mine/clip"
    assert path.absolute("local-dir:clip") == f"local-dir:{os.getcwd()}/clip"


def test_names_and_words_are_no_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("t5-base", "google/t5-v1_1-base", "demo"):
        assert BACKBONE.absolute(name) == BACKBONE.real(name) == name
        assert not BACKBONE.is_relative(name)
    (tmp_path / "t5-base").mkdir()
    assert BACKBONE.absolute("t5-base") == str(tmp_path / "t5-base")
    (tmp_path / "rows.csv").touch()
    assert LocalPath(or_name=True).absolute("rows.csv") == str(tmp_path / "rows.csv")
    assert BACKBONE.is_relative("./t5")
    assert BACKBONE.is_relative("models/t5/base")
    assert BACKBONE.is_local("~/t5")


def test_one_path_however_it_is_written_is_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to("data")
    spellings = ("data", "./data", "data/", "data/../data", str(tmp_path / "data"), "link")
    assert {LocalPath().real(text) for text in spellings} == {str(tmp_path.resolve() / "data")}
