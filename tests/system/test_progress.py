"""What is shown of long work: bars on a terminal, plain lines in a file."""

import io
import logging
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dept_vl.errors import DataError
from dept_vl.system.progress import Meter, no_bars_in_files

ROOT = Path(__file__).parents[2]


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def lines(caplog):
    """The plain lines; pytest's standard error is no terminal."""
    caplog.set_level(logging.INFO)
    return caplog


def test_a_line_now_and_then_says_what_is_done_and_how_long_the_rest_takes(lines, monkeypatch, capsys):
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    with Meter(1_000, "predict", "rows") as meter:
        for _ in range(10):
            clock[0] += 20
            meter.add(100)
    assert [text.rpartition(", memory ")[0] for text in lines.messages] == [
        "predict: 300 of 1,000 rows, 5.0 rows/s, 2 min left",
        "predict: 600 of 1,000 rows, 5.0 rows/s, 80 s left",
        "predict: 900 of 1,000 rows, 5.0 rows/s, 20 s left",
    ]
    assert capsys.readouterr().err == ""


def test_short_work_says_nothing(lines):
    with Meter(3, "predict", "rows") as meter:
        meter.add(3)
    assert lines.messages == []


def test_the_first_note_is_a_line_at_once_and_others_wait(lines):
    with Meter(20, "train", "steps", initial=10, has_notes=True) as meter:
        meter.add()
        for loss in ("3.0", "2.0"):
            meter.note(loss=loss)
        meter.say("step 11: better")
    line, said = lines.messages
    assert re.fullmatch(r"train: 11 of 20 steps, loss 3.0, 0 s left, memory [\d.]+ GiB(, GPU [\d.]+ GiB)?", line)
    assert said == "step 11: better"


def test_what_another_process_shows_is_not_shown_here(lines):
    with Meter(2, "train", "steps", is_shown=False, has_notes=True) as meter:
        meter.add()
        meter.note(loss="1")
        meter.say("step 1")
    assert lines.messages == []


def test_a_terminal_gets_a_bar_and_lines_above_it(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Meter(2, "train", "steps", has_notes=True) as meter:
        meter.add()
        meter.note(loss="1.5")
        meter.say("step 1: better")
        meter.add()
    shown = terminal.getvalue()
    assert "\r" in shown
    assert "step 1: better\n" in shown
    assert "2/2" in shown
    assert re.search(r"loss=1.5, memory=[\d.]+ GiB", shown)


def test_a_bar_without_notes_says_the_memory(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Meter(2, "predict", "rows") as meter:
        meter.add(2)
    assert re.search(r"memory=[\d.]+ GiB", terminal.getvalue())


@pytest.mark.parametrize("is_file", [True, False])
def test_bars_of_libraries_are_off_in_a_file_alone(monkeypatch, is_file):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    monkeypatch.setattr(sys, "stderr", io.StringIO() if is_file else Terminal())
    with no_bars_in_files():
        assert os.environ.get("TQDM_DISABLE") == ("1" if is_file else None)
    assert "TQDM_DISABLE" not in os.environ


def test_a_library_that_draws_a_bar_in_a_command_draws_none_in_a_file(tmp_path):
    script = (
        "import sys\nfrom dataclasses import replace\nfrom dept_vl.cli import main\n"
        "from dept_vl.tasks import TASKS, get_task\n"
        "TASKS['bars'] = replace(get_task('vqa'), name='bars', converter='tests.system.test_progress:draw_bars')\n"
        f"sys.exit(main(['prepare', '--task', 'bars', '--raw', {str(tmp_path)!r}, '--out', {str(tmp_path)!r}]))"
    )
    environment = {key: value for key, value in os.environ.items() if key != "TQDM_DISABLE"}
    with open(tmp_path / "log.txt", "w") as log:
        subprocess.run([sys.executable, "-c", script], stderr=log, stdout=log, cwd=ROOT, env=environment, check=False)
    assert (tmp_path / "log.txt").read_text() == "dept-vl: error: drawn\n"


def draw_bars(task, raw, out):
    """A converter that uses a library with a bar."""
    from tqdm import tqdm

    for _ in tqdm(range(3)):
        pass
    raise DataError("drawn")
