"""Runs of every kind of task and backbone, and what to ask them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.api.saved_runs import save_run
from tests.models.language.causal_folders import save_tiny_gpt2, save_tiny_llama


@pytest.fixture(scope="session")
def backbones(t5_folder, tmp_path_factory) -> dict[str, Path]:
    """A tiny backbone of each family."""
    saved = {"gpt2": save_tiny_gpt2, "llama": save_tiny_llama}
    return {"t5": t5_folder, **{name: save(tmp_path_factory.mktemp(name)) for name, save in saved.items()}}


@pytest.fixture(scope="session", params=["t5", "gpt2", "llama"])
def vqa_run(request, backbones, tmp_path_factory) -> Path:
    """A run on images and questions, on each family."""
    return save_run(tmp_path_factory.mktemp("runs") / "vqa", "vqa", backbones[request.param])


@pytest.fixture(scope="session")
def runs(backbones, tmp_path_factory) -> Path:
    """A folder of runs on one T5: questions, captions, text pairs, one text."""
    folder = tmp_path_factory.mktemp("runs")
    for seed, (name, task) in enumerate({"vqa": "vqa", "coco": "coco", "rte": "rte", "cola": "cola"}.items()):
        save_run(folder / name, task, backbones["t5"], seed=seed)
    return folder


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    """Five images of drawn colours."""
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (40 + 8 * n, 60, 3), dtype=np.uint8)) for n in range(5)]
