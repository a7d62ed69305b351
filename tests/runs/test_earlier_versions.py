"""Run folders and adapters that an earlier version wrote: loaded, scored, verified, gone on with."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from data_prep.cache_features import store_name
from dept_vl.cli import main
from dept_vl.data.features import find_store
from dept_vl.errors import DataError
from dept_vl.models.adapter.files import load_adapter, read_adapter_config
from dept_vl.models.vision.open_clip.config import OpenClipConfig
from dept_vl.settings.load import load_config
from dept_vl.training.checkpoints import list_states
from dept_vl.training.trainer import train
from dept_vl.tuners.layers import dropout

WRITTEN = Path(__file__).parents[1] / "data"


@pytest.fixture
def earlier_dropout(monkeypatch):
    """Masks of dropout as these runs had them: all else that decides a step must be as it was."""
    monkeypatch.setattr(dropout, "_draw", dropout.draw_as_torch)


def copied(name, tmp_path, monkeypatch):
    """Returns a run and its data in a folder of their own, which is where commands run."""
    shutil.copytree(WRITTEN / name, tmp_path / "old")
    monkeypatch.chdir(tmp_path / "old")
    return tmp_path / "old"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Of adapter format 1, on texts."""
    return copied("format_1", tmp_path, monkeypatch)


@pytest.fixture
def on_images(tmp_path, monkeypatch):
    """Of before there were kinds of image encoder, with its feature store."""
    return copied("model_clip", tmp_path, monkeypatch)


@pytest.fixture
def of_released_form(tmp_path, monkeypatch):
    """Of before there were forms of leading to an answer, on texts and a GPT-2."""
    return copied("released_form", tmp_path, monkeypatch)


def test_it_is_of_the_earlier_format(folder):
    assert json.loads((folder / "run" / "adapter_config.json").read_text())["format_version"] == 1
    assert "  prompt_lr: 0.3\n" in (folder / "run" / "config.yaml").read_text()


@pytest.mark.parametrize("name", ["run", "run-prompt"])
def test_its_settings_are_read_under_their_new_names(folder, name):
    config = load_config(folder / name / "config.yaml")
    assert config.tuner.lr == 0.3
    assert getattr(config.tuner, "lowrank_lr", 5e-4) == 5e-4
    assert load_config(folder / name / "config.yaml", {"optim.prompt_lr": 0.1}).tuner.lr == 0.1
    assert config.model.image_encoder == OpenClipConfig(exif="ignore")


def test_its_facts_are_those_it_recorded(folder):
    assert load_adapter(folder / "run")[1].facts == {"m": 4, "r": 4}
    assert load_adapter(folder / "run-prompt")[1].facts == {"m": 4}


def test_it_is_scored_and_verified(folder, capsys):
    before = json.loads((folder / "run" / "results-test.json").read_text())
    assert main(["eval", "--verify", "run/results-test.json"]) == 0
    (folder / "run" / "results-test.json").unlink()
    assert main(["eval", "--checkpoint", "run", "--task", "cola"]) == 0
    after = json.loads((folder / "run" / "results-test.json").read_text())
    assert before["metrics"].items() <= after["metrics"].items()  # there is a legacy score beside the official one now
    assert after["sha256"] == before["sha256"]
    assert main(["eval", "--checkpoint", "run-prompt", "--task", "cola"]) == 0


def test_it_answers_as_it_did(folder):
    output = folder / "again.jsonl"
    words = ["predict", "--checkpoint", "run", "--column", "sentence=the red cube is left", "--output", str(output)]
    assert main(words) == 0
    before, after = (json.loads((folder / name).read_text()) for name in ("predict.jsonl", "again.jsonl"))
    assert after["answers"] == before["answers"]
    assert after["log_likelihoods"] == pytest.approx(before["log_likelihoods"], abs=1e-5)


@pytest.mark.usefixtures("earlier_dropout")
def test_it_is_gone_on_with(folder):
    states = list_states(folder / "run" / "checkpoints")
    last = load_file(states[-1] / "trainable.safetensors")
    shutil.rmtree(states[-1])
    (folder / "run" / "training.json").unlink()
    config = load_config(folder / "run" / "config.yaml")
    assert train(config, folder / "data", resume=True).progress.step == 6
    again = load_file(list_states(folder / "run" / "checkpoints")[-1] / "trainable.safetensors")
    for name, tensor in last.items():
        torch.testing.assert_close(again[name], tensor, rtol=1e-4, atol=1e-6)


def test_the_encoder_of_a_run_on_images_is_read_under_its_new_name(on_images):
    config = load_config(on_images / "run" / "config.yaml")
    assert config.model.image_encoder == OpenClipConfig(model="demo", pooled_grid=None, exif="ignore")


def test_its_feature_store_is_that_of_the_encoder_today(on_images):
    settings = load_config(on_images / "run" / "config.yaml").model.image_encoder
    store = find_store(on_images / "data", settings.known_fingerprint())
    assert store.folder.name == store_name(settings.label, store.fingerprint)
    computed_by = {"open_clip": store.fingerprint["open_clip"]}
    assert {**settings.load().fingerprint, **computed_by} == store.fingerprint
    assert read_adapter_config(on_images / "run").features == store.fingerprint


def test_its_features_are_not_those_of_pictures_turned_as_exif_says(on_images, capsys):
    settings = replace(load_config(on_images / "run" / "config.yaml").model.image_encoder, exif="apply")
    with pytest.raises(
        DataError, match=r"exif is 'ignore', wanted 'apply', set model.image_encoder.exif=ignore to use"
    ):
        find_store(on_images / "data", settings.known_fingerprint())
    assert main(["eval", "--checkpoint", "run", "--model.image_encoder.exif", "apply"]) == 2
    assert "exif is 'ignore', wanted 'apply'" in capsys.readouterr().err


def test_a_run_on_images_is_scored_and_verified(on_images):
    before = json.loads((on_images / "run" / "results-test.json").read_text())
    assert main(["eval", "--verify", "run/results-test.json", "--model.clip.model", "demo"]) == 0
    assert main(["eval", "--checkpoint", "run"]) == 0
    after = json.loads((on_images / "run" / "results-test.json").read_text())
    assert before["metrics"].items() <= after["metrics"].items()  # there is a legacy score beside the official one now
    assert after["sha256"] == before["sha256"]


def test_a_decoder_only_run_is_scored_and_verified_in_the_form_it_had(of_released_form):
    assert "answer_form" not in (of_released_form / "run" / "config.yaml").read_text()
    before = json.loads((of_released_form / "run" / "results-test.json").read_text())
    assert main(["eval", "--verify", "run/results-test.json"]) == 0
    assert main(["eval", "--checkpoint", "run", "--task", "cola"]) == 0
    after = json.loads((of_released_form / "run" / "results-test.json").read_text())
    assert after["metrics"] == before["metrics"]
    assert after["sha256"]["predictions"] == before["sha256"]["predictions"]


def test_a_decoder_only_run_answers_as_it_did_and_in_no_other_form(of_released_form, capsys):
    words = ["predict", "--checkpoint", "run", "--column", "sentence=the red cube is left", "--output", "again.jsonl"]
    assert main(words) == 0
    before, after = (json.loads((of_released_form / name).read_text()) for name in ("predict.jsonl", "again.jsonl"))
    assert after["log_likelihoods"] == pytest.approx(before["log_likelihoods"], abs=1e-5)
    assert main([*words, "--data.answer_form", "plain"]) == 2
    assert "data.answer_form: saved for 'released', this run has 'plain'" in capsys.readouterr().err


@pytest.mark.usefixtures("earlier_dropout")
def test_a_decoder_only_run_is_gone_on_with_in_the_form_it_had(of_released_form):
    run = of_released_form / "run"
    states = list_states(run / "checkpoints")
    last = load_file(states[-1] / "trainable.safetensors")
    shutil.rmtree(states[-1])
    (run / "training.json").unlink()
    config = load_config(run / "config.yaml")
    assert train(config, of_released_form / "data", resume=True).progress.step == 6
    again = load_file(list_states(run / "checkpoints")[-1] / "trainable.safetensors")
    for name, tensor in last.items():
        torch.testing.assert_close(again[name], tensor, rtol=1e-4, atol=1e-6)
