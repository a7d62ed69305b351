"""What callbacks are told, when, and by whom."""

import json
from dataclasses import replace

import pytest
from accelerate import PartialState
from accelerate.tracking import LOGGER_TYPE_TO_CLASS

from dept_vl.errors import ConfigError
from dept_vl.runs.callbacks import Callback
from dept_vl.runs.session import Session
from dept_vl.runs.trackers import Tracker
from dept_vl.settings.load import dump_config, load_config
from dept_vl.settings.schema import TrainConfig
from dept_vl.system.extras import EXTRAS
from dept_vl.system.processes import leave_launch, process_state
from dept_vl.training.trainer import train


@pytest.fixture
def config(t5_folder, tmp_path) -> TrainConfig:
    """Three steps: a line each, a checkpoint after the second, evaluations after the second and the third."""
    return load_config(
        None,
        {
            "output_dir": str(tmp_path / "run"), "model.backbone": str(t5_folder), "data.max_source_length": 16,
            "tuner.budget_tokens": 20, "tuner.num_virtual_tokens": 4, "data.batch_size": 8, "loop.max_steps": 3,
            "loop.eval_every_steps": 2, "loop.save_every_steps": 2, "loop.log_every_steps": 1, "loop.trackers": [],
        },
    )  # fmt: skip


class Notes(Callback):
    """Notes what it is told, and what of it lies in the run's folder by then."""

    def __init__(self):
        self.told = []

    def on_start(self, config, run_dir):
        self.told.append(("start", run_dir.name, run_dir.exists()))

    def on_step(self, config, step):
        self.told.append(("step", step))

    def on_log(self, config, step, values):
        assert {"step": step, **values} == json.loads((config.run_dir / "metrics.jsonl").read_text().splitlines()[-1])
        self.told.append(("log", step, "val/loss" if "val/loss" in values else "loss"))

    def on_evaluation(self, config, step, metrics):
        assert (config.run_dir / "adapter_model.safetensors").is_file()
        self.told.append(("evaluation", step, {"vqa_accuracy", "loss"} <= set(metrics)))

    def on_checkpoint(self, config, step, folder):
        self.told.append(("checkpoint", step, folder.name, (folder / "progress.json").is_file()))

    def on_end(self, config, run_dir):
        self.told.append(("end", run_dir.name, (run_dir / "training.json").is_file()))


EVENTS = [
    ("start", "run", False),
    ("step", 0), ("log", 1, "loss"),
    ("step", 1), ("log", 2, "loss"), ("log", 2, "val/loss"), ("evaluation", 2, True),
    ("checkpoint", 2, "step-00000002", True),
    ("step", 2), ("log", 3, "loss"), ("log", 3, "val/loss"), ("evaluation", 3, True),
    ("checkpoint", 3, "step-00000003", True),
    ("end", "run", True),
]  # fmt: skip


def test_a_run_tells_of_everything_in_order(config, tiny_data):
    notes = Notes()
    train(config, tiny_data, callbacks=[notes])
    assert notes.told == EVENTS


def test_a_plain_callback_does_nothing(config, tiny_data, tmp_path):
    train(config, tiny_data, callbacks=[Callback()])
    train(replace(config, output_dir=str(tmp_path / "alone")), tiny_data)
    first, second = ((tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("run", "alone"))
    assert first == second


class MineError(Exception):
    pass


@pytest.mark.parametrize("method", ["on_step", "on_log", "on_evaluation", "on_checkpoint"])
def test_what_a_method_raises_ends_the_run_and_every_callback_is_told(config, tiny_data, method):
    class Fail(Callback):
        pass

    def fail(*_):
        raise MineError

    setattr(Fail, method, fail)
    before, after = Notes(), Notes()
    with pytest.raises(MineError):
        train(config, tiny_data, callbacks=[before, Fail()], session=Session([after]))
    assert before.told[-1] == after.told[-1] == ("end", "run", False)
    result = train(config, tiny_data, callbacks=[before], resume=True)
    assert result.progress.step == 3
    assert before.told[-1] == ("end", "run", True)


def test_a_run_refused_at_its_start_leaves_no_folder_and_ends_what_it_began(config, tiny_data):
    class Refuse(Callback):
        def on_start(self, config, run_dir):
            raise ConfigError("not today")

    begun, never = Notes(), Notes()
    with pytest.raises(ConfigError, match="not today"):
        train(config, tiny_data, callbacks=[begun, Refuse(), never])
    assert begun.told == [("start", "run", False), ("end", "run", False)]
    assert never.told == []
    assert not config.run_dir.exists()


def test_a_taken_folder_ends_what_was_begun(config, tiny_data):
    train(config, tiny_data)
    notes = Notes()
    with pytest.raises(ConfigError, match="is not empty; add --resume"):
        train(config, tiny_data, callbacks=[notes])
    assert notes.told == [("start", "run", True), ("end", "run", True)]


class _Rank(Notes):
    def on_log(self, config, step, values):
        if PartialState().is_main_process:
            super().on_log(config, step, values)
        else:
            self.told.append(("log", step, "val/loss" if "val/loss" in values else "loss"))

    def on_end(self, config, run_dir):
        super().on_end(config, run_dir)
        out = run_dir.parent / f"{PartialState().process_index}.json"
        out.write_text(json.dumps([self.told, PartialState().is_main_process]))


class _Service:
    """Stands in for a tracking service: leaves a file in a folder for each process that starts it."""

    def __init__(self, project, name, folder):
        self.file = folder / f"started-{PartialState().process_index}"

    def start(self):
        self.file.touch()

    def log(self, values, step):
        pass

    def finish(self):
        pass


def _train(settings, data_dir) -> None:
    process_state()  # joins the launch
    LOGGER_TYPE_TO_CLASS["trackio"], EXTRAS["trackio"] = _Service, ()
    train(load_config(settings), data_dir, callbacks=[_Rank(), Tracker("trackio", folder=settings.parent)])
    leave_launch()


@pytest.mark.distributed
def test_every_process_of_a_launch_calls_its_own_and_one_speaks_to_a_service(
    config, tiny_data, tmp_path, fresh_process
):
    settings = tmp_path / "settings.yaml"
    settings.write_text(dump_config(config))
    assert fresh_process.run_launch(_train, settings, tiny_data) == [0, 0], fresh_process.printed()
    told = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert [is_main for _, is_main in told] == [True, False]
    assert [path.name for path in tmp_path.glob("started-*")] == ["started-0"]
    assert [[tuple(event) for event in events] for events, _ in told] == [EVENTS, EVENTS]
