"""Paths as people type them: `~`, from another folder, and one path written in several ways."""

import json

import pytest
import yaml

from dept_vl.cli import main


@pytest.fixture
def typed(t5_folder, label_data, tmp_path, monkeypatch):
    """The words of a training whose data and backbone lie in the folder it is started in."""
    started = tmp_path / "started"
    started.mkdir()
    (started / "data").symlink_to(label_data)
    (started / "t5").symlink_to(t5_folder)
    monkeypatch.chdir(started)
    return [
        "train", "--task", "cola", "--data-dir", "data", "--model.backbone", "t5", "--output-dir", "run",
        "--data.max_source_length", "16", "--data.max_target_length", "4", "--tuner", "prompt-tuning",
        "--tuner.num_virtual_tokens", "4", "--data.batch_size", "4", "--loop.max_steps", "2",
        "--loop.eval_every_steps", "2", "--loop.save_every_steps", "1",
    ]  # fmt: skip


def changed(words, **values):
    """Returns words with the values of some flags replaced; others come behind."""
    words = list(words)
    for name, value in values.items():
        flag = "--" + name.replace("_", "-")
        words[words.index(flag) + 1] = str(value)
    return words


def test_a_run_is_used_from_another_folder(typed, tmp_path, monkeypatch, capsys):
    assert main(typed) == 0
    recorded = yaml.safe_load((tmp_path / "started" / "run" / "config.yaml").read_text())
    assert recorded["data"]["dir"] == str(tmp_path / "started" / "data")
    assert recorded["model"]["backbone"] == str(tmp_path / "started" / "t5")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert main(["eval", "--checkpoint", "../started/run"]) == 0
    assert main(["predict", "--checkpoint", "../started/run", "--column", "sentence=red"]) == 0
    assert main(["eval", "--verify", "../started/run/results-test.json"]) == 0
    assert main(["eval", "--verify", "../started/run/results-test.json", "--data-dir", "../started/data"]) == 0
    results = json.loads((tmp_path / "started" / "run" / "results-test.json").read_text())
    assert results["run"] == str(tmp_path / "other" / "../started/run")
    assert list((tmp_path / "other").iterdir()) == []


def test_it_is_gone_on_with_from_another_folder_and_under_other_spellings(typed, tmp_path, monkeypatch, capsys):
    assert main(typed) == 0
    assert main([*changed(typed, data_dir="././data/", output_dir="./run"), "--resume"]) == 0
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert main(["train", "--resume", "--output-dir", "../started/run"]) == 0
    moved = changed(typed, data_dir="../started/data", output_dir="../started/run")
    moved[moved.index("--model.backbone") + 1] = "../started/t5"
    assert main([*moved, "--resume"]) == 0
    assert main([*changed(moved, data_dir="elsewhere"), "--resume"]) == 2
    assert "data.dir: the run has '" in capsys.readouterr().err


def test_an_earlier_run_s_relative_path_is_explained_when_it_is_resumed(typed, tmp_path, monkeypatch, capsys):
    assert main(typed) == 0
    path = tmp_path / "started" / "run" / "config.yaml"
    tree = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**tree, "output_dir": "run", "data": {**tree["data"], "dir": "data"}}))
    assert main([*typed, "--resume"]) == 0, "from the folder it was started in"
    path.write_text(yaml.safe_dump({**tree, "output_dir": "run", "data": {**tree["data"], "dir": "data"}}))
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert main(["eval", "--checkpoint", "../started/run"]) == 2
    said = capsys.readouterr().err
    assert "data.dir: ../started/run recorded the relative path 'data'" in said
    assert f"Give --data-dir PATH, perhaps {tmp_path / 'started' / 'data'}" in said
    assert main(["eval", "--checkpoint", "../started/run", "--data-dir", "../started/data"]) == 0
    assert main(["train", "--resume", "--output-dir", "../started/run", "--data-dir", "../started/data"]) == 2
    assert "the run has 'data' (seen from the folder it was started in), asked for" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("prepare --task vqa --raw ~/absent --out ~/data", "/absent: no such folder of raw files"),
        ("train --config ~/absent.yaml", "/absent.yaml: cannot read"),
        ("cache-features --verify ~/absent", "/absent/index.json: no such file"),
        ("import-released ~/absent --out ~/run", "/absent: no released adapter here"),
        ("report --paper table1 ~/absent", "/absent: no such folder"),
        ("eval --verify=~/absent", "/absent: cannot read the results"),
        ("train --data-dir x --init-from ~/absent --model.backbone demo", "/absent: no adapter here"),
        ("transfer --target cola --sources mnli --source-runs mnli=~/absent --data-dir x", "/absent: no adapter there"),
    ],
)
def test_a_tilde_is_the_home_folder_in_every_command(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert main(words.split()) == 2
    assert f"{tmp_path}{said}" in capsys.readouterr().err
    assert not (tmp_path / "~").exists()


def test_a_tilde_is_the_home_folder_in_settings_too(typed, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "started"))
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    words = [word if word not in ("data", "run", "t5") else f"~/{word}" for word in typed]
    assert main(words) == 0
    assert main(["train", "--resume", "--output-dir", "~/run"]) == 0
    assert main(["eval", "--checkpoint", "~/run", "--output", "~/scores.json"]) == 0
    assert (tmp_path / "started" / "scores.json").is_file()
    assert list((tmp_path / "other").iterdir()) == []
