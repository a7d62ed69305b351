"""What `dept_vl.train`, `load` and `evaluate` refuse names their arguments, comes before models, and leaves nothing."""

import os
from pathlib import Path

import pytest
from PIL import Image

import dept_vl
from data_prep.first_use.cache import CACHE_VARIABLE

TASK = {"name": "mine", "kind": "question", "template": "{q}", "image": "photo", "target": "a"}
TEXT = {"name": "mine", "kind": "text", "template": "{q}", "target": "a"}
ROWS = [{"photo": f"{n}.png", "q": "what?", "a": "red"} for n in range(6)]
TEXTS = [{"q": f"{n}", "a": "red"} for n in range(6)]


def pictures(mode, size=(4, 4)):
    return [{**row, "photo": Image.new(mode, size)} for row in ROWS]


CASES = {
    "task-is-a-list": ({"task": [1]}, {"train": ROWS}, r"task: expected a name, a file that declares one, or its f"),
    "task-of-the-package": ({"task": "vqa"}, {"train": ROWS}, r"task: 'vqa' is prepared from files of its own"),
    "data-twice": ({"data.dir": "x"}, {"train": ROWS}, r"data\.dir: rows are given to train\(\) itself"),
    "images-as-a-setting": ({"data.image_dir": "x"}, {"train": ROWS}, r"data\.image_dir: .* give images="),
    "rows-are-a-path": ({}, {"train": Path("rows.csv")}, r"rows: expected a list of mappings, .* got .*Path"),
    "rows-are-columns": ({}, {"train": {"q": [1, 2]}}, r"rows: split 'q' is none of train: "),
    "rows-are-no-rows": ({}, {"train": {"train": 3}}, r"train: expected a list of mappings, .* got int"),
    "no-rows": ({}, {}, r"data\.dir: not set; give --rows ROWS \(in Python train=\)"),
    "images-of-texts": ({"task": TEXT}, {"train": TEXTS, "images": "x"}, r"images: task 'mine' reads text alone"),
    "image-not-there": ({}, {"train": ROWS}, r"rows, record 0: image '0.png': .* folder of the images as images="),
    "image-outside": ({}, {"train": [{**ROWS[0], "photo": "../0.png"}], "images": "."}, r"\(in Python images=\)"),
    "picture-without-colours": ({}, {"train": pictures("F")}, r"rows, record 0: PIL image of mode 'F': .* no colours"),
    "picture-of-nothing": ({}, {"train": pictures("RGB", (0, 4))}, r"rows, record 0: .* 0 x 4 pixels"),
    "callback-is-none": ({}, {"train": ROWS, "callbacks": [3]}, r"callbacks: expected a list of dept_vl\.Callback"),
    "callbacks-are-one": ({}, {"train": ROWS, "callbacks": print}, r"callbacks: expected a list"),
    "folder-taken": ({"output_dir": "taken"}, {"train": ROWS}, r"taken is not empty and holds no run"),
}


@pytest.mark.parametrize("name", CASES)
def test_what_train_cannot_take_is_said_and_leaves_nothing(name, tmp_path, monkeypatch):
    settings, arguments, message = CASES[name]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").touch()
    with pytest.raises(ValueError, match=message):
        dept_vl.train({"task": TASK, "model.backbone": "demo", "output_dir": "run", **settings}, **arguments)
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert {name for name in left if not name.endswith(".lock")} == {"notes.txt"}
    assert set(os.listdir(tmp_path)) <= {"taken", "cache"}


def test_a_closed_picture_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    rows = pictures("RGB")
    Image.new("RGB", (4, 4)).save(tmp_path / "0.png")
    rows[0]["photo"] = Image.open(tmp_path / "0.png")
    rows[0]["photo"].close()
    with pytest.raises(ValueError, match=r"cannot be read \(Operation on closed image\)"):
        dept_vl.train({"task": TASK, "model.backbone": "demo", "output_dir": str(tmp_path / "run")}, train=rows)


def test_no_metric_and_no_folder_are_said():
    with pytest.raises(ValueError, match=r"metric: names no evaluator \(known: accuracy"):
        dept_vl.evaluate(["a"], ["a"], None)
    with pytest.raises(ValueError, match=r"run: expected a folder or a hub id, got 3"):
        dept_vl.load(3)
