"""What a run measures: its own file, and TensorBoard."""

import json

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dept_vl.runs.log import RunLog
from dept_vl.system.processes import process_state


@pytest.fixture
def run_dir(tmp_path):
    process_state()  # what trackers ask which process this is
    return tmp_path


def test_a_line_goes_to_the_file_and_to_tensorboard(run_dir):
    log = RunLog(run_dir, has_board=True)
    log.record(3, {"loss": 0.5, "lr/soft_prompt": 0.25})
    log.close()
    assert json.loads((run_dir / "metrics.jsonl").read_text()) == {"step": 3, "loss": 0.5, "lr/soft_prompt": 0.25}
    board = EventAccumulator(str(run_dir / "tensorboard"))
    board.Reload()
    assert [(event.step, event.value) for event in board.Scalars("lr/soft_prompt")] == [(3, 0.25)]


def test_without_tensorboard_the_file_is_written_alone(run_dir):
    log = RunLog(run_dir)
    log.record(1, {"loss": 0.5})
    log.close()
    assert [path.name for path in run_dir.iterdir()] == ["metrics.jsonl"]
