"""What commands import: heavy libraries only where they are used."""

import sys

import pytest

from dept_vl.cli import main

_SHARED = [
    "--tuner", "prompt-tuning", "--data.max_source_length", "16", "--data.max_target_length", "4",
    "--tuner.num_virtual_tokens", "4", "--loop.max_steps", "1", "--loop.eval_every_steps", "1",
    "--data.batch_size", "4",
]  # fmt: skip


def _run_without(library, commands):
    for words in commands:
        assert main(words) == 0
    assert library not in sys.modules


def test_counting_parameters_needs_no_open_clip(fresh_process):
    commands = [
        ["info", "--task", "vqa", "--model.image_encoder.model", model] for model in ("RN101", "demo", "ViT-B-32")
    ]
    assert fresh_process.run(_run_without, "open_clip", commands) == 0, fresh_process.printed()


@pytest.mark.parametrize("task", ["vqa", "cola"])
def test_cached_features_and_texts_need_no_open_clip(task, fresh_process, t5_folder, tiny_data, label_data, tmp_path):
    data, run = tiny_data if task == "vqa" else label_data, str(tmp_path / "run")
    train = ["train", "--task", task, "--data-dir", str(data), "--output-dir", run, "--model.backbone", str(t5_folder)]
    commands = [[*train, *_SHARED], ["eval", "--checkpoint", run, "--task", task]]
    assert fresh_process.run(_run_without, "open_clip", commands) == 0, fresh_process.printed()
