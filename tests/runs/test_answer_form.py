"""How a decoder-only backbone is led to its answers: chosen once, recorded, and kept."""

import json

import pytest

from dept_vl.cli import main
from dept_vl.tasks import get_task
from tests.models.language.causal_folders import save_tiny_gpt2


@pytest.fixture
def words(label_data, tmp_path):
    backbone = save_tiny_gpt2(tmp_path / "gpt2")
    return [
        "train", "--task", "cola", "--data-dir", str(label_data), "--model.backbone", str(backbone),
        "--output-dir", str(tmp_path / "run"), "--tuner", "prompt-tuning", "--tuner.num_virtual_tokens", "4",
        "--data.max_source_length", "16", "--data.batch_size", "4", "--loop.max_steps", "1",
        "--loop.eval_every_steps", "1", "--loop.save_every_steps", "1",
    ]  # fmt: skip


def recorded(run):
    record, described = (json.loads((run / name).read_text()) for name in ("run.json", "adapter_config.json"))
    return record["answer_form"], described["answer_form"], described["answer_cue"]


def test_a_run_records_its_form_and_keeps_it(words, tmp_path, capsys):
    assert main(words) == 0
    assert recorded(tmp_path / "run") == ("plain", "plain", " Label :")
    assert main([*words, "--resume"]) == 0
    assert main(["eval", "--checkpoint", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    assert main([*words, "--resume", "--data.answer_form", "released"]) == 2
    assert "data.answer_form: the run has None, asked for 'released'" in capsys.readouterr().err
    assert main(["eval", "--checkpoint", str(tmp_path / "run"), "--data.answer_form", "released"]) == 2
    assert "data.answer_form: saved for 'plain', this run has 'released'" in capsys.readouterr().err


def test_the_released_form_comes_with_the_papers_protocol_or_is_asked_for(words, tmp_path):
    assert [get_task("cola").under(protocol).answer_form for protocol in ("fixed", "paper")] == ["plain", "released"]
    assert main([*words, "--data.answer_form", "released"]) == 0
    assert recorded(tmp_path / "run") == ("released", "released", " Label : ")


def test_a_run_without_its_record_is_not_gone_on_with_in_a_form_that_is_guessed(words, tmp_path, capsys):
    assert main(words) == 0
    (tmp_path / "run" / "run.json").unlink()
    capsys.readouterr()
    assert main([*words, "--resume"]) == 2
    assert (
        "run.json: cannot be read (No such file or directory), and says how the run was begun"
        in capsys.readouterr().err
    )
