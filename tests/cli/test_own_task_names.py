"""A run of a task of one's own is named as any other: by its task's name or file, or by its folder."""

import json

import pytest
from PIL import Image

from dept_vl.cli import main
from tests.api.saved_runs import save_run

TASK = """\
name: shop
kind: question
image: photo
target: answer
template: "vqa: {question}"
"""


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """A run in its default folder, and the file that declared its task."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shop.yaml").write_text(TASK)
    save_run(tmp_path / "runs" / "shop-prompt-tuning", "shop.yaml", "demo")
    return tmp_path


def ask(*words: str) -> int:
    return main(["predict", *words, "--image", "a.jpg", "--question", "what?"])


@pytest.mark.parametrize(
    "words",
    [
        ("--task", "shop", "--tuner", "prompt-tuning"),
        ("--task", "shop.yaml", "--tuner", "prompt-tuning"),
        ("--task", "shop", "--checkpoint", "runs/shop-prompt-tuning"),
    ],
)
def test_it_is_named_by_its_task_or_its_file(shop, capsys, words):
    Image.new("RGB", (60, 40), "red").save("a.jpg")
    assert ask(*words) == 0
    assert "question: what?" in capsys.readouterr().out


def test_a_name_that_nobody_knows_is_said(shop, capsys):
    assert ask("--task", "shopp") == 2
    assert "unknown task 'shopp'" in capsys.readouterr().err


def test_another_task_or_declaration_is_refused(shop, capsys):
    run = "runs/shop-prompt-tuning"
    assert ask("--task", "vqa", "--checkpoint", run) == 2
    assert "was trained on 'shop', asked for 'vqa'" in capsys.readouterr().err
    (shop / "shop.yaml").write_text(TASK.replace("vqa:", "question:"))
    assert ask("--task", "shop.yaml", "--checkpoint", run) == 2
    assert "was trained on another declaration of 'shop'" in capsys.readouterr().err
    (shop / "shop.yaml").unlink()
    assert ask("--task", "shop.yaml", "--checkpoint", run) == 2
    assert "shop.yaml: cannot read the task: No such file" in capsys.readouterr().err


def test_rows_are_answered_by_the_names_that_they_have(shop, capsys):
    (shop / "photos" / "new").mkdir(parents=True)
    Image.new("RGB", (60, 40), "red").save(shop / "photos" / "new" / "IMG_1.JPG")
    (shop / "rows.csv").write_text("photo,question,number\nimg_1.jpg,what?,7\nIMG_1,how many?,8\n")
    words = ["--rows", "rows.csv", "--images", "photos", "--output", "out.jsonl"]
    assert main(["predict", "--checkpoint", "runs/shop-prompt-tuning", *words]) == 0
    lines = [json.loads(line) for line in (shop / "out.jsonl").read_text().splitlines()]
    assert [line["columns"]["question"] for line in lines] == ["what?", "how many?"]
    assert all(line["image"].endswith("new/IMG_1.JPG") for line in lines)


def test_rows_that_cannot_be_answered_are_said(shop, capsys):
    run = ["predict", "--checkpoint", "runs/shop-prompt-tuning", "--rows", "rows.csv"]
    (shop / "rows.csv").write_text("photo,asked\na.jpg,what?\n")
    assert main(run) == 2
    assert "lacks columns that task 'shop' reads: template: question" in capsys.readouterr().err
    (shop / "rows.csv").write_text("photo,question\na.jpg,what?\n")
    assert main(run) == 2
    assert "rows.csv, line 2: image 'a.jpg' is not in ." in capsys.readouterr().err
    assert main([*run, "--input", "x.jsonl"]) == 2
    assert "--rows: name images and columns; leave --image and --input out" in capsys.readouterr().err


def test_a_task_without_rows_is_listed_with_its_template(shop, capsys):
    for name in ("shop.yaml", "okvqa"):
        assert main(["tasks", name]) == 0
        assert "template: 'vqa: {question}'" in capsys.readouterr().out


def test_rows_of_a_task_of_the_package_are_refused(shop, capsys):
    (shop / "rows.csv").write_text("photo,question,answer\na.jpg,what?,red\n")
    assert main(["train", "--task", "vqa", "--rows", "rows.csv"]) == 2
    assert "data.rows: task 'vqa' has files of its own" in capsys.readouterr().err
