"""docs/own-data.md, followed from top to bottom as a new user would, in a folder with examples/."""

import logging
import re
import shlex
import shutil
import time
from pathlib import Path

import pytest

from dept_vl.cli import main

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "own-data.md").read_text(encoding="utf-8")
COMMANDS = [shlex.split(line)[1:] for line in re.findall(r"^```\n(dept-vl .*)\n```$", PAGE, re.MULTILINE)]
SECONDS = 180
"""Of CPU and waiting, for all commands together."""


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A folder with the example, and a cache of its own."""
    shutil.copytree(ROOT / "examples" / "own-data", tmp_path / "examples" / "own-data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEPT_VL_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_it_takes_four_commands_and_the_first_guesses_what_the_page_shows(folder, capsys):
    assert [words[0] for words in COMMANDS] == ["new-task", "train", "eval", "predict"]
    assert main(COMMANDS[0]) == 0
    printed = capsys.readouterr().out
    shown = re.findall(r"^guessed: .*$", PAGE, re.MULTILINE)
    assert re.findall(r"^guessed: .*$", printed, re.MULTILINE) == shown
    written = (folder / "my_task.yaml").read_text().splitlines()
    (fields,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert set(fields.splitlines()) <= set(written)


@pytest.mark.whole
def test_followed_as_it_stands_it_ends_with_a_scored_adapter_that_answers(folder, capsys, caplog):
    caplog.set_level(logging.INFO)
    started = time.perf_counter()
    for words in COMMANDS:
        assert main(words) == 0, capsys.readouterr().err
    out = capsys.readouterr().out
    assert time.perf_counter() - started < SECONDS
    assert "questions train: 48 examples on 16 images" in caplog.text
    score = re.search(r"^ +exact_match +([\d.]+) +of 100$", out, re.MULTILINE)
    assert score is not None
    assert float(score[1]) >= 50  # the page's is 66.7; the commonest answer is right once in six
    assert re.search(r"^  question: What color is the object\?\n  greedy = beam 5: red$", out, re.MULTILINE)
