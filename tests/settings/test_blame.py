"""An error of what was given names that, one of the file names the file."""

from pathlib import Path

import pytest

from dept_vl.cli import main
from dept_vl.errors import ConfigError
from dept_vl.settings.load import load_config


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "right.yaml").write_text("task: cola\n")
    (tmp_path / "wrong.yaml").write_text("task: cola\nloop: {max_steps: 0}\n")


def refusal(capsys, *words):
    assert main(["train", "--data-dir", "x", *words]) == 2
    return capsys.readouterr().err.removeprefix("dept-vl: error: ").splitlines()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--data.batch_size 0", "--data.batch_size: should be greater than or equal to 1, got 0"),
        ("--few-shot 0", "--few-shot (data.few_shot): should be greater than or equal to 1, got 0"),
        ("--lr=abc", "--lr (tuner.lr): should be a valid number, unable to parse string as a number, got 'abc'"),
        ("--optim.lr 1", "--optim.lr: unknown setting, given 1; did you mean 'tuner.lr'?"),
        ("--tuner.rnk 1", "--tuner.rnk: unknown setting, given 1; did you mean 'tuner.rank'"),
        ("--tuner adapter --tuner.layers 0,1", "--tuner.layers: should be a list, as [A, B], got '0,1'"),
        (
            "--tuner lora --tuner.num_virtual_tokens 3",
            "--tuner.num_virtual_tokens: unknown setting of the kind chosen (another has it), given 3; it is one "
            "of dept, prompt-tuning, ",
        ),
        ("--optim.prompt_lr -1", "--optim.prompt_lr: should be greater than 0, got -1"),
        ("--tuner.prompt_init text", "--tuner.prompt_init: prompt_init=text needs prompt_init_text, the text to start"),
        ("--tuner dept+lora --lr 0", "--lr (tuner.lr): should be greater than 0, got 0"),
        ("--data.protocol papr", "--data.protocol: should be 'fixed' or 'paper', got 'papr'"),
        ("--task colla", "--task: unknown task 'colla'; did you mean 'cola'?"),
        ("--tuner dpt", "--tuner (tuner.name): unknown tuner 'dpt'; did you mean 'dept' or 'adept' or 'mpt'?"),
    ],
)
def test_a_flag_s_error_names_the_flag_as_it_was_typed(capsys, words, line):
    (said,) = refusal(capsys, "--config", "right.yaml", *words.split())
    assert said.startswith(line)


def test_a_file_s_error_names_the_file(capsys):
    assert refusal(capsys, "--config", "wrong.yaml", "--lr", "0.1") == [
        "wrong.yaml:",
        "loop.max_steps: should be greater than or equal to 1, got 0",
    ]


def test_errors_of_both_say_which_is_which(capsys):
    assert refusal(capsys, "--config", "wrong.yaml", "--data.batch_size", "0") == [
        "--data.batch_size: should be greater than or equal to 1, got 0",
        "wrong.yaml:",
        "loop.max_steps: should be greater than or equal to 1, got 0",
    ]


def test_what_is_wrong_in_the_file_s_own_group_stays_the_file_s(capsys, tmp_path):
    (tmp_path / "text.yaml").write_text("tuner: {prompt_init: text}\n")
    said = refusal(capsys, "--config", "text.yaml", "--tuner.rank", "30")
    assert said[0] == "text.yaml:"
    assert said[1].startswith("tuner: prompt_init=text needs")


def test_a_sweep_s_flag_is_not_blamed_on_its_space(capsys, tmp_path):
    (tmp_path / "s.yaml").write_text("task: cola\nsweep: {space: {tuner.lr: [0.1, 0.2]}}\n")
    assert main(["sweep", "--config", "s.yaml", "--data-dir", "x", "--data.batch_size", "0"]) == 2
    said = capsys.readouterr().err
    assert said == "dept-vl: error: --data.batch_size: should be greater than or equal to 1, got 0\n"


def test_a_caller_s_error_names_the_dotted_key():
    with pytest.raises(ConfigError, match=r"^data\.batch_size: should be greater"):
        load_config(None, {"data.batch_size": 0})


def test_the_file_is_named_for_an_unknown_task(tmp_path):
    (tmp_path / "task.yaml").write_text("task: colla\n")
    with pytest.raises(ConfigError, match=r"^task\.yaml:\ntask: unknown task 'colla'"):
        load_config(Path("task.yaml"))
