"""With standard error in a file, every command prints whole plain lines."""

import re

import pytest

from dept_vl.cli import main
from dept_vl.system import progress
from tests.data_prep.raw_files import write_raw

MEMORY = r"memory [\d.]+ GiB(, GPU [\d.]+ GiB)?"


def _run_all(commands):
    """In a process whose output is a file; every piece of work gets to say how far it is."""
    progress.LINE_EVERY_S = 0.0
    for words in commands:
        assert main([str(word) for word in words]) == 0


@pytest.fixture(scope="module")
def steps(t5_folder):
    return [
        "--model.backbone", t5_folder, "--data.max_source_length", "16", "--data.max_target_length", "4",
        "--tuner", "prompt-tuning", "--tuner.num_virtual_tokens", "4", "--data.batch_size", "4",
        "--loop.max_steps", "4", "--loop.eval_every_steps", "2", "--loop.log_every_steps", "1",
    ]  # fmt: skip


def check_lines(printed):
    assert "\r" not in printed
    assert "\x1b" not in printed
    assert not re.search(r"it/s|\d+%\|", printed)


def test_training_scoring_and_answering(fresh_process, label_data, steps, tmp_path):
    run = tmp_path / "run"
    commands = [
        ["train", "--task", "cola", "--data-dir", label_data, "--output-dir", run, *steps],
        ["eval", "--checkpoint", run],
        ["predict", "--checkpoint", run, "--column", "sentence=is it red"],
    ]
    assert fresh_process.run(_run_all, commands) == 0, fresh_process.printed()
    printed = fresh_process.printed()
    check_lines(printed)
    for step in (1, 2, 3, 4):
        shown = r"loss [\d.]+, lr soft_prompt [\d.e-]+, samples/s \d+, \d+ \w+ left"
        pattern = rf"^train cola: {step} of 4 steps, {shown}, {MEMORY}$"
        assert re.search(pattern, printed, re.MULTILINE), printed
    evaluations = re.findall(
        r"^step (\d): \S+ on val -?[\d.]+ .*\((the best so far|the best is .* at step 2)\)$", printed, re.M
    )
    assert [step for step, _ in evaluations] == ["2", "4"]
    assert evaluations[0][1] == "the best so far"
    assert re.search(rf"^predict: 8 of 8 rows, [\d.,]+ rows/s, 0 s left, {MEMORY}$", printed, re.MULTILINE)
    assert re.search(r"^cola test \(protocol fixed\): 8 scored", printed, re.MULTILINE)


def test_images_prepared_and_encoded(fresh_process, tmp_path):
    write_raw(tmp_path / "raw")
    (tmp_path / "images").mkdir()
    for folder in ("train2014", "val2014"):
        (tmp_path / "raw" / folder).rename(tmp_path / "images" / folder)
    prepare = ["prepare", "--task", "vqa", "--raw", tmp_path / "raw", "--out", tmp_path / "data", "--no-image-check"]
    commands = [
        prepare,
        [
            "cache-features", "--data-dir", tmp_path / "data", "--model.image_encoder.model", "demo", "--workers", "0",
            "--model.image_encoder.pooled_grid", "null", "--batch-size", "2", "--data.image_dir", tmp_path / "images",
        ],
    ]  # fmt: skip
    assert fresh_process.run(_run_all, commands) == 0, fresh_process.printed()
    printed = fresh_process.printed()
    check_lines(printed)
    assert re.search(rf"^encode: 2 of \d+ images, [\d.,]+ images/s, \d+ s left, {MEMORY}$", printed, re.MULTILINE)
    data = tmp_path / "data"
    assert f"next: dept-vl cache-features --task vqa --data-dir {data}\n" in printed
    assert (
        f"next: dept-vl train --task vqa --data-dir {data} --model.image_encoder.model demo "
        "--model.image_encoder.pooled_grid null\n"
    ) in printed


def test_several_runs(fresh_process, label_data, steps, tmp_path):
    (tmp_path / "s.yaml").write_text("task: cola\nsweep: {space: {tuner.lr: [0.1, 0.2]}}\n")
    shared = ["--data-dir", label_data, *steps]
    commands = [
        ["sweep", "--config", tmp_path / "s.yaml", "--output-dir", tmp_path / "sweep", *shared],
        ["train", "--task", "cola", "--seeds", "0,1", "--output-dir", tmp_path / "seeds", *shared],
    ]
    assert fresh_process.run(_run_all, commands) == 0, fresh_process.printed()
    printed = fresh_process.printed()
    check_lines(printed)
    assert printed.count("on val") >= 8
    for run in ("sweep/trial-0001", "seeds/seed-0", "seeds/seed-1"):
        assert f"training {tmp_path / run}\n" in printed
    ends = re.findall(r"^next: dept-vl (.*)$", printed, re.MULTILINE)
    assert ends[0].startswith(f"eval --task cola --checkpoint {tmp_path / 'sweep'}/trial-000")
    assert ends[1] == f"eval --task cola --checkpoint {tmp_path / 'seeds'}/seed-0"
