"""Scoring and answering print what they are asked for, and no library's warning."""

import logging
import re
import sys
import warnings

import pytest
from transformers.utils import logging as transformers_logging

from dept_vl.cli import main
from tests.models.language.causal_folders import save_tiny_gpt2, save_tiny_llama


def _run_all(commands):
    """In a process of its own: libraries print a warning once a process."""
    warnings.simplefilter("always")
    assert transformers_logging.get_verbosity() == logging.WARNING
    for words in commands:
        sys.stdout.write(f"$ {words[0]}\n")
        assert main(words) == 0


@pytest.mark.parametrize("family", ["t5", "gpt2", "llama"])
def test_eval_and_predict_print_no_library_warning(family, fresh_process, t5_folder, tiny_data, label_data, tmp_path):
    save = {"gpt2": save_tiny_gpt2, "llama": save_tiny_llama}
    folder = t5_folder if family == "t5" else save[family](tmp_path / family)
    lengths = ["--data.max_source_length", "16", "--data.max_target_length", "4", "--tuner.num_virtual_tokens", "4"]
    steps = ["--loop.max_steps", "1", "--loop.eval_every_steps", "1", "--data.batch_size", "4"]
    shared = ["--tuner", "prompt-tuning", "--model.backbone", str(folder), *lengths, *steps]
    images, text = str(tmp_path / "images"), str(tmp_path / "text")
    commands = [
        ["train", "--task", "vqa", "--data-dir", str(tiny_data), "--output-dir", images, *shared],
        ["train", "--task", "cola", "--data-dir", str(label_data), "--output-dir", text, *shared],
        ["eval", "--checkpoint", images, "--decode.num_beams", "3"],
        ["eval", "--checkpoint", text, "--decode-agreement"],
        ["predict", "--checkpoint", text, "--column", "sentence=is it red"],
    ]
    assert fresh_process.run(_run_all, commands) == 0, fresh_process.printed()
    printed = re.sub(r"\r[^\n]*", "", fresh_process.printed())  # progress bars
    unasked = [
        line
        for line in printed.splitlines()
        if re.search(r"warn|deprecat|renamed|will be removed", line, re.IGNORECASE)
    ]
    assert not unasked
    assert printed.count("$ ") == len(commands)
