"""A run of a task of one's own is named as any other: by its task's name or file, or by its folder."""

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
