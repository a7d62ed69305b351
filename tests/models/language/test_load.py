"""Loading a frozen backbone and telling one from another."""

import json
import logging
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, T5ForConditionalGeneration

from dept_vl.errors import ConfigError
from dept_vl.models.adapter.identity import backbone_identity
from dept_vl.models.language.load import backbone_config, load_backbone, meta_backbone


def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "t5")


@pytest.mark.parametrize("gated", [False, True])
def test_loads_frozen_float32_in_eval_mode(gated, t5_folder, t5_v1_1_folder):
    backbone, tokenizer = load_backbone(str(t5_v1_1_folder if gated else t5_folder))
    t5 = backbone.model
    assert not any(p.requires_grad for p in t5.parameters())
    assert {p.dtype for p in t5.parameters()} == {torch.float32}
    assert not t5.training
    assert tokenizer("what color")["input_ids"] == [3, 4, 1]


def test_v1_1_keeps_its_own_output_matrix_and_is_not_scaled(t5_v1_1_folder):
    t5 = load_backbone(str(t5_v1_1_folder))[0].model
    weights = load_file(t5_v1_1_folder / "model.safetensors")
    assert torch.equal(t5.lm_head.weight, weights["lm_head.weight"])
    assert not torch.equal(t5.lm_head.weight, t5.shared.weight)
    assert t5.encoder.embed_tokens.weight is t5.shared.weight
    assert not t5.config.scale_decoder_outputs


def test_v1_0_ties_its_output_matrix(t5_folder):
    t5 = load_backbone(str(t5_folder))[0].model
    assert t5.lm_head.weight is t5.shared.weight
    assert t5.config.scale_decoder_outputs


def test_loading_is_quiet_and_restores_the_loggers_level(t5_v1_1_folder, capfd, caplog):
    level = logging.getLogger("transformers").level
    load_backbone(str(t5_v1_1_folder))
    captured = capfd.readouterr()
    assert (captured.out, captured.err, caplog.records) == ("", "", [])
    assert logging.getLogger("transformers").level == level


def test_dropout_and_gradient_checkpointing_are_settings(t5_folder):
    t5 = load_backbone(str(t5_folder), dropout_rate=0.25, gradient_checkpointing=True)[0].model
    assert {m.p for m in t5.modules() if isinstance(m, torch.nn.Dropout)} == {0.25}
    assert all(block.gradient_checkpointing for block in t5.encoder.block)
    assert not any(block.gradient_checkpointing for block in load_backbone(str(t5_folder))[0].model.encoder.block)


def test_unknown_backbone_offline_says_what_to_do():
    with pytest.raises(ConfigError, match=r"cannot load 'no/such-t5'.*local folder"):
        load_backbone("no/such-t5")


def test_other_architecture_is_refused(tmp_path):
    BertConfig().save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="of type 'bert', expected one of t5, gpt2, llama"):
        load_backbone(str(tmp_path))


def test_folder_without_safetensors_is_refused(t5_folder, tmp_path):
    folder = copy(t5_folder, tmp_path)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"cannot load .*safetensors"):
        load_backbone(str(folder))


def test_missing_weights_are_refused_not_drawn_at_random(t5_folder, tmp_path):
    folder = copy(t5_folder, tmp_path)
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.final_layer_norm.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConfigError, match=r"encoder\.final_layer_norm\.weight"):
        load_backbone(str(folder))


def test_weights_of_another_shape_are_refused(t5_folder, tmp_path):
    folder = copy(t5_folder, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"d_ff": 32}))
    with pytest.raises(ConfigError, match=r"model\.backbone"):
        load_backbone(str(folder))


def test_code_of_a_checkpoint_is_not_run(t5_folder, tmp_path):
    folder = copy(t5_folder, tmp_path)
    marker = tmp_path / "ran"
    (folder / "evil.py").write_text(f"open({str(marker)!r}, 'w')\nclass C: pass\n")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoConfig": "evil.C"}}))
    load_backbone(str(folder))
    assert not marker.exists()


def test_identity_tells_backbones_apart_but_not_precisions(save_tiny_t5, t5_folder, tmp_path):
    other = save_tiny_t5(tmp_path / "other", seed=1)
    identity = backbone_identity(load_backbone(str(t5_folder))[0], "t5-base")
    rounded = backbone_identity(load_backbone(str(t5_folder), dtype=torch.bfloat16)[0], "t5-base")
    assert identity == rounded
    assert identity.name == "t5-base"
    assert identity != backbone_identity(load_backbone(str(other))[0], "t5-base")


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("t5-small", 60_506_624),
        ("t5-base", 222_903_552),
        ("google-t5/t5-large", 737_668_096),
        ("google/t5-v1_1-base", 247_577_856),
        ("google/flan-t5-small", 76_961_152),
        ("gpt2", 124_439_808),
        ("openai-community/gpt2-medium", 354_823_168),
        ("gpt2-large", 774_030_080),
    ],
)
def test_published_shapes_have_the_published_sizes(name, parameters):
    backbone = meta_backbone(backbone_config(name))
    assert sum(p.numel() for p in backbone.parameters()) == parameters


def test_shape_of_a_local_folder(t5_folder):
    assert backbone_config(str(t5_folder)).d_model == 16


@pytest.mark.parametrize("before", ["true", None])
def test_every_process_of_an_fsdp_launch_reads_the_weights(t5_folder, monkeypatch, before):
    name, seen = "FSDP_CPU_RAM_EFFICIENT_LOADING", []
    monkeypatch.delenv(name, raising=False)
    if before:
        monkeypatch.setenv(name, before)
    original = T5ForConditionalGeneration.from_pretrained

    def watched(*arguments, **options):
        seen.append(os.environ[name])
        return original(*arguments, **options)

    monkeypatch.setattr(T5ForConditionalGeneration, "from_pretrained", watched)
    load_backbone(str(t5_folder))
    assert seen == ["false"]
    assert os.environ.get(name) == before
