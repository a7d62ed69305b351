from pathlib import Path

import pytest


def written_at(folder: Path) -> dict[str, int]:
    """Returns when the files of the training in a folder and below were written, in nanoseconds."""
    names = ("adapter_model.safetensors", "metrics.jsonl", "training.json")
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.name in names}


@pytest.fixture
def base(t5_folder, tiny_data) -> dict[str, object]:
    """Dotted settings of a run of four steps on the tiny task."""
    return {
        "task": "vqa",
        "model.backbone": str(t5_folder),
        "data.dir": str(tiny_data),
        "data.max_source_length": 16,
        "data.max_target_length": 2,
        "tuner.budget_tokens": 20,
        "tuner.allow_nearest": True,
        "data.batch_size": 8,
        "loop.max_steps": 4,
        "loop.eval_every_steps": 2,
        "loop.save_every_steps": 2,
    }
