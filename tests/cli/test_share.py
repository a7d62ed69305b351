"""Sharing a run from the command line: push, and commands that take a hub id."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dept_vl.cli import main
from tests.hub_server import WRITER

NAME = "me/adapter"


@pytest.fixture(scope="module")
def run(t5_folder, label_data, tmp_path_factory) -> Path:
    """A run of one step on texts."""
    folder = tmp_path_factory.mktemp("share") / "run"
    assert main([*train(t5_folder, label_data), "--output-dir", str(folder)]) == 0
    return folder


def train(t5_folder, data):
    return [
        "train", "--task", "cola", "--data-dir", str(data), "--model.backbone", str(t5_folder), "--tuner",
        "prompt-tuning", "--tuner.num_virtual_tokens", "4", "--data.max_source_length", "16", "--data.batch_size", "8",
        "--loop.max_steps", "1", "--loop.trackers", "[]",
    ]  # fmt: skip


@pytest.fixture
def shared(hub, run, tmp_path, monkeypatch, capsys):
    """The run on the hub, pushed from the command line, and an empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    assert main(["push", str(run), NAME, "--model.backbone", "me/tiny-t5", "--licence", "mit", "--private"]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [
        f"pushed: {hub.endpoint}/{NAME}",
        f"in Python: dept_vl.load('{NAME}')",
        f"next: dept-vl predict --checkpoint {NAME}",
    ]
    assert "HTTP Request" not in printed.err
    return hub.repositories[NAME]


def test_a_shared_run_answers_is_scored_and_is_started_from(shared, t5_folder, label_data, tmp_path, capsys):
    assert shared.private
    backbone = ["--model.backbone", str(t5_folder)]
    assert main(["predict", "--checkpoint", NAME, *backbone, "--column", "sentence=red cube"]) == 0
    words = ["eval", "--checkpoint", NAME, *backbone, "--data-dir", str(label_data)]
    assert main(words) == 0
    assert "scores: runs/me--adapter/results-test.json" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "runs" / "me--adapter").iterdir()} == {
        "results-test.json", "predictions-test.json", "answers-test.jsonl",
    }  # fmt: skip
    assert main(["eval", "--verify", "runs/me--adapter/results-test.json"]) == 0
    started = [*train(t5_folder, label_data), "--output-dir", "started", "--init-from", NAME]
    assert main(started) == 0
    assert f"from: {NAME}\n" in (tmp_path / "started" / "config.yaml").read_text()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("predict --checkpoint runs/demo --column sentence=x", "runs/demo: no such folder here, and no such model at"),
        ("eval --checkpoint runs/demo", "runs/demo: no such folder here, and no such model at"),
        ("train --data-dir x --init-from runs/demo", "runs/demo: no such folder here, and no such model at"),
        ("push absent me/adapter", "absent: no run here"),
        ("push . me/adapter --config x.yaml", "--config: a run has its own settings"),
        ("push . me/adapter --lr 3", "--lr: `dept-vl push` does not read this setting"),
    ],
)
def test_wrong_names_are_refused(hub, tmp_path, monkeypatch, capsys, words, says):
    monkeypatch.chdir(tmp_path)
    assert main(words.split()) == 2
    assert says in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_environment_names_the_hub(hub, tmp_path):
    """As a user has it: HF_ENDPOINT is read when huggingface_hub is imported."""
    variables = {"HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-m", "dept_vl", "predict", "--checkpoint", "me/absent", "--question", "x"], cwd=tmp_path,
        env={**os.environ, **variables, "HF_TOKEN": WRITER}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "GET /api/models/me/absent" in hub.requests
    assert f"me/absent: no such folder here, and no such model at {hub.endpoint}" in done.stderr
