"""Which rows of one's own are prepared again, and which are found as they were."""

from types import SimpleNamespace

import pytest
from datasets import Dataset

from data_prep.first_use.own_rows import records_data_dir, rows_data_dir
from dept_vl.errors import DataError
from dept_vl.settings.load import load_config
from tests.data_prep.own_rows import draw, draw_some, some_rows, write_csv

TASK = "name: mine\nkind: question\ntemplate: 'question: {question}'\nimage: image\ntarget: answer\n"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder with rows and their pictures in it."""
    monkeypatch.setenv("DEPT_VL_CACHE", str(tmp_path / "cache"))
    home = draw_some(tmp_path / "home")
    draw(home, "odd/00.jpg").joinpath("odd/00.jpg").rename(home / "odd" / "00")
    write_csv(home / "train.csv", some_rows(20))
    (home / "task.yaml").write_text(TASK)
    return home


def prepare(home, rows):
    given = {"task": str(home / "task.yaml"), "data.rows": str(rows), "data.visual_features": "encode"}
    return rows_data_dir(load_config(None, given))


@pytest.mark.parametrize("rows", ["train.csv", "."])
def test_what_lies_beside_rows_and_pictures_does_not_have_them_prepared_again(home, rows):
    before = prepare(home, home / rows)
    for place in ("runs/mine/metrics.jsonl", "runs/mine/config.yaml", "notes.csv", ".git/objects/ab", ".git/HEAD"):
        (home / place).parent.mkdir(parents=True, exist_ok=True)
        (home / place).write_text("{}")
    (home / "gone.jpg").symlink_to(home / "nowhere.jpg")
    assert prepare(home, home / rows) == before


@pytest.mark.parametrize("rows", ["train.csv", "."])
@pytest.mark.parametrize("name", ["3.jpg", "new.PNG", "odd/00", "train.csv"])
def test_other_rows_or_pictures_are_prepared_anew(home, rows, name):
    before = prepare(home, home / rows)
    if name == "train.csv":
        write_csv(home / name, some_rows(21))
    else:
        (home / name).write_bytes((home / "1.jpg").read_bytes() + b"\0")
    assert prepare(home, home / rows) != before


def test_a_data_set_on_disk_is_prepared_anew_when_it_was_saved_with_other_rows(home):
    folders = []
    for count in (20, 20, 21):
        Dataset.from_list(some_rows(count)).save_to_disk(home / "saved")
        given = {"task": str(home / "task.yaml"), "data.rows": str(home / "saved"), "data.image_dir": str(home)}
        folders.append(rows_data_dir(load_config(None, {**given, "data.visual_features": "encode"})))
        (home / "saved" / "notes.txt").write_text(str(count))
    assert folders[0] == folders[1] != folders[2]


def test_rows_in_memory_are_prepared_anew_when_a_picture_is_another(home):
    config = load_config(None, {"task": str(home / "task.yaml"), "data.visual_features": "encode"})
    before = records_data_dir(config, some_rows(20), home)
    assert records_data_dir(config, some_rows(20), home) == before
    (home / "3.jpg").write_bytes((home / "1.jpg").read_bytes() + b"\0")
    assert records_data_dir(config, some_rows(20), home) != before


@pytest.mark.parametrize(
    ("kind", "remedy"), [("text", "run `dept-vl prepare` "), ("question", "`dept-vl cache-features`")]
)
def test_several_processes_are_told_to_have_it_made_first(kind, remedy, tmp_path, monkeypatch):
    monkeypatch.setenv("DEPT_VL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("dept_vl.system.processes.process_state", lambda: SimpleNamespace(num_processes=2))
    task = {"name": "mine", "kind": kind, "template": "{question}", "target": "answer"}
    task |= {"image": "image"} if kind == "question" else {}
    with pytest.raises(DataError, match=f"not made yet, and one process makes it; .*{remedy}"):
        records_data_dir(load_config(None, {"declaration": task}), some_rows(10), None)
    assert not (tmp_path / "cache").exists()
