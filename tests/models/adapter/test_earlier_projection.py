"""Adapters whose ``vl-t5`` projection has the tensors of earlier versions: read to the bit, or refused."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers.models.t5.modeling_t5 import T5LayerNorm

from dept_vl.errors import CheckpointError
from dept_vl.models.adapter.files import WEIGHTS_FILE
from dept_vl.models.adapter.warm_start import warm_start
from dept_vl.models.build import build_model, load_model
from dept_vl.models.config import ModelConfig
from dept_vl.models.magnitudes import embedding_size
from dept_vl.settings.schema import OptimConfig
from dept_vl.training.checkpoints import Progress, load_state, save_state
from dept_vl.training.optim import build_optimizer
from dept_vl.tuners.bitfit.config import BitFitConfig
from dept_vl.tuners.dept.config import DeptConfig

FEATURE_DIM, S = 10, 8
P = "visual_projection."
ADDED = (f"{P}box.weight", f"{P}image_ids", f"{P}feature_norm.bias", f"{P}box_norm.bias")
RENAMED = {f"{P}box.bias": f"{P}position", f"{P}box_norm.weight": f"{P}position_norm.weight"}


def make(folder, tuner, seed=0):
    config = ModelConfig(backbone=str(folder), visual_projection="vl-t5")
    model, _ = build_model(config, tuner, max_source_length=S, feature_dim=FEATURE_DIM, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in (p for p in model.parameters() if p.requires_grad):
            parameter.add_(torch.randn(parameter.shape, generator=generator))
    return model.eval()


def earlier(tensors):
    """Returns tensors as an earlier version named them, without those it had not."""
    return {RENAMED.get(name, name): tensor for name, tensor in tensors.items() if name not in ADDED}


def rewrite(folder, change):
    path = folder / WEIGHTS_FILE
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    save_file(change(load_file(path)), path, metadata)


TUNERS = [
    pytest.param(DeptConfig(budget_tokens=12, num_virtual_tokens=3), id="dept"),
    pytest.param(BitFitConfig(), id="bitfit"),
]


@pytest.fixture
def saved(t5_folder, tmp_path):
    def save(tuner):
        model = make(t5_folder, tuner)
        model.save_pretrained(tmp_path / "run")
        rewrite(tmp_path / "run", earlier)
        return model, tmp_path / "run"

    return save


@pytest.mark.parametrize("tuner", TUNERS)
def test_it_computes_what_the_projection_of_then_did_to_the_bit(saved, tuner):
    model, folder = saved(tuner)
    stored = load_file(folder / WEIGHTS_FILE)
    assert f"{P}position" in stored
    assert not set(stored) & set(ADDED)
    loaded, _ = load_model(folder, model.config, max_source_length=S)
    features, words = torch.randn(2, 4, FEATURE_DIM), loaded.backbone.word_embeddings
    norms = [T5LayerNorm(words.shape[1]) for _ in range(2)]
    for norm, name in zip(norms, ("feature_norm", "position_norm"), strict=True):
        norm.weight.data.copy_(stored[f"{P}{name}.weight"])
    linear = torch.nn.functional.linear(features, stored[f"{P}linear.weight"], stored[f"{P}linear.bias"])
    expected = norms[0](linear) + norms[1](stored[f"{P}position"]) + words[-4:].flip(0)
    assert torch.equal(loaded.visual_projection(features, words), expected)
    for name, tensor in loaded.trainable_state().items():
        value = stored.get(RENAMED.get(name, name))
        assert torch.equal(tensor, torch.zeros_like(tensor) if value is None else value), name


def test_it_is_saved_again_as_one_of_today(saved, tmp_path):
    model, folder = saved(DeptConfig(budget_tokens=12, num_virtual_tokens=3))
    loaded, _ = load_model(folder, model.config, max_source_length=S)
    loaded.save_pretrained(tmp_path / "again")
    names = set(load_file(tmp_path / "again" / WEIGHTS_FILE))
    assert names == set(model.trainable_state())


@pytest.mark.parametrize("tuner", TUNERS)
def test_a_run_starts_from_it(saved, t5_folder, tuner):
    _, folder = saved(tuner)
    fresh = make(t5_folder, tuner, seed=5)
    assert warm_start(fresh, folder, "all")["notes"] == []
    stored = load_file(folder / WEIGHTS_FILE)
    assert torch.equal(fresh.visual_projection.box.bias, stored[f"{P}position"])
    assert not fresh.visual_projection.image_ids.any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda tensors: {n: t for n, t in tensors.items() if "position_norm" not in n},
            "missing .*norm",
        ),
        (lambda tensors: {**tensors, f"{P}image_ids": torch.zeros(2, 16)}, "unexpected visual_projection.image_ids"),
        (lambda tensors: {**tensors, f"{P}position": torch.zeros(3)}, r"position is \(3,\) .*the model has \(16,\)"),
    ],
)
def test_one_that_is_neither_is_refused(saved, change, message):
    model, folder = saved(DeptConfig(budget_tokens=12, num_virtual_tokens=3))
    rewrite(folder, change)
    with pytest.raises(CheckpointError, match=message):
        load_model(folder, model.config, max_source_length=S)


def test_a_checkpoint_of_then_is_refused_by_the_names_of_its_tensors(t5_folder, tmp_path):
    model = make(t5_folder, DeptConfig(budget_tokens=12, num_virtual_tokens=3))
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizer = build_optimizer(model, model.param_groups(), OptimConfig(), lambda: embedding_size(model.backbone))
    folder = save_state(tmp_path, Progress(step=1), trainable, optimizer, keep=1)
    tensors = load_file(folder / "trainable.safetensors")
    save_file(earlier(tensors), folder / "trainable.safetensors")
    with pytest.raises(CheckpointError, match=r"visual_projection\.position.*this run has .*visual_projection\.box"):
        load_state(folder, trainable, optimizer)


def test_the_settings_of_an_adapter_say_nothing_new(saved):
    _, folder = saved(DeptConfig(budget_tokens=12, num_virtual_tokens=3))
    described = json.loads((folder / "adapter_config.json").read_text())
    assert described["visual"] == {"projection": "vl-t5", "feature_dim": FEATURE_DIM, "position_bias": "zero"}
