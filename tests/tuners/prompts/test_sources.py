"""A method takes the trained prompts of other runs, of its own backbone alone."""

import shutil
from dataclasses import replace

import pytest
import torch
from transformers import T5Config, T5ForConditionalGeneration

from dept_vl.errors import CheckpointError
from dept_vl.models.adapter.card import model_card
from dept_vl.models.adapter.files import save_adapter
from dept_vl.models.adapter.source_prompts import prompt_reader
from dept_vl.models.build import build_model
from dept_vl.models.config import ModelConfig
from tests.tuners.adapted import make, settings

PROMPTS = {
    "prompt-tuning": {"num_virtual_tokens": 4},
    "p-tuning": {"num_virtual_tokens": 4, "hidden_size": 5},
    "ulpt": {"num_virtual_tokens": 4},
    "mpt": {"num_virtual_tokens": 4},
    "adept": {"num_virtual_tokens": 4, "rank": 2},
    "dept": {"budget_tokens": 12, "num_virtual_tokens": 4, "allow_nearest": True},
}


def reader(model, find=lambda name: name):
    return prompt_reader(find, model.backbone, model.config, tokenize=lambda text: [5, 6])


@pytest.mark.parametrize("name", PROMPTS)
def test_the_prompt_of_every_method_that_has_one_is_read(folders, tmp_path, name):
    trained = make(folders["t5"], settings(name, **PROMPTS[name]), seed=9, moved=0.3)
    trained.save_pretrained(tmp_path)
    found = reader(make(folders["t5"], settings("prompt-tuning"), seed=1))(tmp_path)
    plain = trained.tuner.as_prompt()
    assert torch.equal(found, trained.tuner.prompt() if plain is None else plain)
    assert (found.shape, found.dtype, found.requires_grad) == ((4, 16), torch.float32, False)


def test_a_source_with_images_serves_a_run_without(folders, tmp_path):
    trained = make(folders["gpt2"], settings("prompt-tuning", num_virtual_tokens=4), moved=0.3)
    trained.save_pretrained(tmp_path)
    found = reader(make(folders["gpt2"], settings("prompt-tuning", num_virtual_tokens=1), feature_dim=None))(tmp_path)
    assert torch.equal(found, trained.tuner.soft_prompt)


def attempt(folder, source, **own):
    tuner = settings("attempt", **{"num_virtual_tokens": 4, "sources": [str(source)], **own})
    return build_model(ModelConfig(backbone=str(folder)), tuner, max_source_length=12, feature_dim=None, seed=0)


def saved(folder, place, name="prompt-tuning", **own):
    make(folder, settings(name, **(own or PROMPTS.get(name, {}))), feature_dim=None, moved=0.3).save_pretrained(place)
    return place


def test_a_source_of_a_method_without_a_prompt_is_refused(folders, tmp_path):
    saved(folders["t5"], tmp_path, "lora", rank=2)
    with pytest.raises(
        CheckpointError, match=r"tuner.sources: .*: was trained with 'lora', which has no soft prompt; exp"
    ):
        attempt(folders["t5"], tmp_path)


def test_a_source_of_another_length_is_refused(folders, tmp_path):
    saved(folders["t5"], tmp_path, "prompt-tuning", num_virtual_tokens=6)
    with pytest.raises(
        CheckpointError, match=r"tuner.sources: .*: its prompt has 6 tokens, this run's 4; set tuner.num"
    ):
        attempt(folders["t5"], tmp_path)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"d_model": 24}, r"d_model=16, here 24"),
        ({"vocab_size": 40}, r"vocab_size=32, here 40"),
        ({"num_layers": 1, "num_decoder_layers": 1}, r"num_layers=2, here 1; num_decoder_layers=2, here 1"),
    ],
)
def test_a_source_of_another_backbone_or_tokenizer_is_refused(folders, tmp_path, change, text):
    source = saved(folders["t5"], tmp_path / "source")
    shutil.copytree(folders["t5"], tmp_path / "t5")
    other = resized(tmp_path / "t5", **change)
    with pytest.raises(CheckpointError, match=r"tuner.sources: .*: its prompt is for another backbone .*" + text):
        attempt(other, source)


def resized(folder, **change):
    """A T5 in the folder with other sizes, and random weights."""
    config = T5Config.from_pretrained(folder)
    config.update(change)
    T5ForConditionalGeneration(config).save_pretrained(folder)
    return folder


def test_a_source_of_other_weights_is_refused(folders, tmp_path):
    source = saved(folders["t5"], tmp_path / "source")
    shutil.copytree(folders["t5"], tmp_path / "t5")
    with pytest.raises(
        CheckpointError, match=r"weights_sha256='\w{64}', here '\w{64}'; a prompt means something on its"
    ):
        attempt(resized(tmp_path / "t5"), source)


def test_a_source_that_is_not_there_is_refused(folders, tmp_path):
    with pytest.raises(CheckpointError, match=r"tuner.sources: .*nowhere"):
        attempt(folders["t5"], tmp_path / "nowhere")


def test_an_identity_without_weights_is_not_compared(folders, tmp_path, caplog):
    model = make(folders["t5"], settings("prompt-tuning", num_virtual_tokens=4), feature_dim=None, moved=0.3)
    config = model.adapter_config()
    unknown = replace(config, backbone=replace(config.backbone, weights_sha256=None))
    save_adapter(tmp_path, model.adapter_state(), unknown, model_card(unknown, model.config))
    assert torch.equal(reader(model)(tmp_path), model.tuner.soft_prompt)
    assert "does not record the weights of its backbone" in caplog.text
