"""Services that show what a run measures, in place of which a class notes what it is told."""

import json
import sys
from dataclasses import replace
from importlib import metadata

import pytest
from accelerate.tracking import LOGGER_TYPE_TO_CLASS

from dept_vl.errors import ConfigError
from dept_vl.runs.callbacks import Callback
from dept_vl.runs.session import Session
from dept_vl.runs.trackers import Tracker, chosen_trackers
from dept_vl.settings.load import load_config
from dept_vl.system.extras import EXTRAS
from dept_vl.training.trainer import train


@pytest.fixture
def told(monkeypatch) -> list[tuple]:
    """What Trackio and Weights & Biases are told, in order, both as if installed."""
    heard: list[tuple] = []

    def service(kind):
        class Service:
            def __init__(self, project, **options):
                self.what = {"project": project, **options}

            def start(self):
                if self.what["project"] == "closed":
                    raise RuntimeError("no account")
                heard.append((kind, "start", self.what))

            def log(self, values, step):
                heard.append((kind, "log", {"step": step, **values}))

            def finish(self):
                heard.append((kind, "finish"))

        return Service

    for kind in ("wandb", "trackio"):
        monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, kind, service(kind))
        monkeypatch.setitem(EXTRAS, kind, ())
    return heard


@pytest.fixture
def config(t5_folder, tmp_path):
    """Two steps on the tiny task, without trackers."""
    return load_config(
        None,
        {
            "output_dir": str(tmp_path / "run"), "model.backbone": str(t5_folder), "data.max_source_length": 16,
            "tuner.budget_tokens": 20, "tuner.num_virtual_tokens": 4, "data.batch_size": 8, "loop.max_steps": 2,
            "loop.log_every_steps": 1, "loop.trackers": [],
        },
    )  # fmt: skip


def test_a_service_gets_what_the_metrics_file_gets(config, tiny_data, told):
    train(config, tiny_data, callbacks=[Tracker("wandb", project="mine", name="first", tags=["a"])])
    lines = [json.loads(line) for line in (config.run_dir / "metrics.jsonl").read_text().splitlines()]
    assert "val/loss" in lines[-1]
    assert told == [
        ("wandb", "start", {"project": "mine", "name": "first", "tags": ["a"]}),
        *(("wandb", "log", line) for line in lines),
        ("wandb", "finish"),
    ]


def test_the_setting_makes_the_same_objects_named_after_the_run_s_folder(config, tiny_data, told):
    both = replace(config, loop=replace(config.loop, trackers=("trackio", "wandb")))
    train(both, tiny_data)
    assert [event[:2] for event in told[:2]] == [("trackio", "start"), ("wandb", "start")]
    assert told[0][2] == told[1][2] == {"project": "dept-vl", "name": "run"}
    assert {event[0] for event in told if event[1] == "finish"} == {"trackio", "wandb"}


def test_a_tracker_of_a_session_begins_anew_with_every_run(config, tiny_data, tmp_path, told):
    session = Session([Tracker("trackio")])
    for name in ("a", "b"):
        train(replace(config, output_dir=str(tmp_path / name)), tiny_data, session=session)
    assert [event[2]["name"] for event in told if event[1] == "start"] == ["a", "b"]
    assert sum(event[1] == "finish" for event in told) == 2


def test_a_run_that_fails_is_ended_there(config, tiny_data, told):
    class Fail(Callback):
        def on_step(self, config, step):
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        train(config, tiny_data, callbacks=[Tracker("wandb"), Fail()])
    assert told[-1] == ("wandb", "finish")


def test_a_tracker_that_does_not_start_is_a_message_and_leaves_no_folder(config, tiny_data, told):
    trackers = [Tracker("trackio"), Tracker("wandb", project="closed")]
    with pytest.raises(ConfigError, match=r"tracker 'wandb' does not start: no account"):
        train(config, tiny_data, callbacks=trackers)
    assert not config.run_dir.exists()
    assert told[-1] == ("trackio", "finish")


def test_an_unknown_service_is_refused():
    with pytest.raises(
        ConfigError, match=r"Tracker: unknown service 'wandbb'; did you mean 'wandb'\? \(known: wandb, t"
    ):
        Tracker("wandbb")


@pytest.fixture
def nothing_installed(monkeypatch, tmp_path):
    """The environment as if no package were installed: their records are looked for in an empty folder."""
    monkeypatch.setattr(sys, "path", [str(tmp_path / "empty")])
    with pytest.raises(metadata.PackageNotFoundError):
        metadata.version("tensorboard")


def test_tensorboard_is_written_where_it_is_installed(nothing_installed):
    assert chosen_trackers(None) == []


def test_a_tracker_that_is_asked_for_and_not_there_names_its_extra(nothing_installed):
    message = r"%s needs %s, which is not installed; run: pip install 'dept-vl\[%s\]'"
    with pytest.raises(ConfigError, match=message % (r"loop\.trackers: 'tensorboard'", "tensorboard", "tensorboard")):
        chosen_trackers(["tensorboard"])
    with pytest.raises(ConfigError, match=message % (r"Tracker\('wandb'\)", "wandb", "wandb")):
        Tracker("wandb")
