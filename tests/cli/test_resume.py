"""What a resumed run may change, in one list, and what is said of the rest."""

import errno
import os

import pytest
import yaml

from dept_vl.cli import main
from dept_vl.training import trainer


@pytest.fixture
def words(t5_folder, label_data, tmp_path):
    return [
        "train", "--task", "cola", "--data-dir", str(label_data), "--model.backbone", str(t5_folder),
        "--output-dir", str(tmp_path / "run"), "--data.max_source_length", "16", "--data.max_target_length", "4",
        "--tuner", "prompt-tuning", "--tuner.num_virtual_tokens", "4", "--data.batch_size", "4",
        "--loop.eval_every_steps", "2", "--loop.save_every_steps", "2", "--loop.max_steps", "2",
    ]  # fmt: skip


def test_a_run_goes_on_with_other_workers_and_evaluation_batches(words, tmp_path):
    assert main(words) == 0
    others = ["--data.num_workers", "1", "--data.eval_batch_size", "3", "--loop.keep_checkpoints", "1"]
    others += ["--loop.log_every_steps", "1", "--loop.trackers", "[]"]
    assert main([*words, "--resume", *others]) == 0
    recorded = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (recorded["data"]["num_workers"], recorded["data"]["eval_batch_size"]) == (1, 3)


def test_so_do_several_seeds(words):
    seeds = ["--seeds", "0", "--loop.max_steps", "2"]
    assert main([*words[:-2], *seeds]) == 0
    assert main([*words[:-2], *seeds, "--resume", "--data.eval_batch_size", "3"]) == 0


def test_more_steps_are_another_run_and_the_message_says_how_to_start_it(words, tmp_path, capsys):
    assert main(words) == 0
    assert main([*words[:-1], "4", "--resume"]) == 2
    said = capsys.readouterr().err
    assert "loop.max_steps: the run has 2, asked for 4" in said
    assert f"start one from this one's result with --init-from {tmp_path / 'run'} and another --output-dir" in said
    more = [*words[:-1], "4", "--init-from", str(tmp_path / "run")]
    more[more.index("--output-dir") + 1] = str(tmp_path / "more")
    assert main(more) == 0


def test_a_full_disk_says_what_goes_on_once_there_is_room(words, tmp_path, capsys, monkeypatch):
    def full(folder, *_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))

    with monkeypatch.context() as patched:
        patched.setattr(trainer, "save_state", full)
        assert main(words) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"dept-vl: error: {tmp_path / 'run' / 'checkpoints'}: No space left on device; once that is mended" in said
    assert said.endswith("--loop.max_steps 2 --resume")
    assert main([*words, "--resume"]) == 0
