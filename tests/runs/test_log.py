"""What a run measures: its own file, and trackers."""

import json
import sys
from importlib import metadata

import pytest
from accelerate.tracking import LOGGER_TYPE_TO_CLASS
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dept_vl.errors import ConfigError
from dept_vl.runs.log import RunLog, chosen_trackers
from dept_vl.system.extras import EXTRAS
from dept_vl.system.processes import process_state


@pytest.fixture
def run_dir(tmp_path):
    process_state()  # what trackers ask which process this is
    return tmp_path


def test_a_line_goes_to_the_file_and_to_tensorboard(run_dir):
    log = RunLog(run_dir)
    assert list(run_dir.iterdir()) == []
    log.open(0)
    log.record(3, {"loss": 0.5, "lr/soft_prompt": 0.25})
    log.close()
    assert json.loads((run_dir / "metrics.jsonl").read_text()) == {"step": 3, "loss": 0.5, "lr/soft_prompt": 0.25}
    board = EventAccumulator(str(run_dir / "tensorboard"))
    board.Reload()
    assert [(event.step, event.value) for event in board.Scalars("lr/soft_prompt")] == [(3, 0.25)]


def test_no_tracker_writes_the_file_alone(run_dir):
    log = RunLog(run_dir, [])
    log.open(0)
    log.record(1, {"loss": 0.5})
    log.close()
    assert [path.name for path in run_dir.iterdir()] == ["metrics.jsonl"]


@pytest.fixture
def without_tensorboard(monkeypatch, tmp_path):
    """The environment as if the package were not installed: its record is looked for in an empty folder."""
    monkeypatch.setattr(sys, "path", [str(tmp_path / "empty")])
    with pytest.raises(metadata.PackageNotFoundError):
        metadata.version("tensorboard")


def test_tensorboard_is_written_where_it_is_installed(without_tensorboard):
    assert chosen_trackers(None) == []


def test_a_tracker_that_is_asked_for_and_not_there_names_its_extra(without_tensorboard):
    message = (
        r"loop\.trackers: 'tensorboard' needs tensorboard, which is not installed; run: pip install 'dept-vl\[tens"
    )
    with pytest.raises(ConfigError, match=message):
        chosen_trackers(["tensorboard"])


def test_a_tracker_that_does_not_start_is_a_message_and_leaves_no_folder(monkeypatch, run_dir):
    class Service:
        def __init__(self, project, name):
            self.what = (project, name)

        def start(self):
            raise RuntimeError(f"no account for {self.what}")

    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, "trackio", Service)
    monkeypatch.setitem(EXTRAS, "trackio", ())
    with pytest.raises(
        ConfigError, match=r"loop\.trackers: 'trackio' does not start: no account for \('dept-vl', 'mine'"
    ):
        RunLog(run_dir / "mine", ["trackio"])
    assert list(run_dir.iterdir()) == []
