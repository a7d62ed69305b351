"""Full fine-tuning: its count, what gets a gradient, ties, and the copy."""

import pytest
import torch

from dept_vl.errors import ConfigError
from dept_vl.models.build import build_model
from dept_vl.models.config import ModelConfig
from dept_vl.models.language.load import open_backbone
from dept_vl.models.meta_model import build_meta_model
from tests.tuners.adapted import S, batch, make, settings


def test_count_on_t5_base():
    model = build_meta_model(
        ModelConfig(backbone="t5-base"), settings("fine-tuning"), max_source_length=256, feature_dim=None
    )
    budget = model.parameter_budget()
    assert budget.trainable == budget.backbone == budget.total == 222_903_552
    assert len(model.param_groups()[0].parameters) == 257
    assert budget.share == 1.0


@pytest.mark.parametrize("family", ["t5", "t5-v1.1", "gpt2", "llama"])
def test_a_gradient_reaches_every_tensor(folders, family):
    model = make(folders[family], settings("fine-tuning"), dropout_rate=0.0).train()
    model(*batch(lengths=(9, 5, 2))).loss_per_example.sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_a_tied_output_matrix_stays_tied(folders):
    model = make(folders["t5"], settings("fine-tuning"))
    t5 = model.backbone.model
    assert t5.lm_head.weight is t5.shared.weight is t5.encoder.embed_tokens.weight
    assert sum(name.endswith("shared.weight") for name in model.trainable_state()) == 1


def test_two_runs_on_one_backbone_do_not_see_each_other(folders):
    loaded = open_backbone(ModelConfig(backbone=str(folders["t5"])))
    first, second = (
        build_model(
            ModelConfig(), settings("fine-tuning"), max_source_length=S, feature_dim=None, seed=0, backbone=loaded
        )[0]
        for _ in range(2)
    )
    identity = second.adapter_config().backbone
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.add_(1.0)
    for ours, theirs in zip(second.backbone.model.parameters(), loaded[0].model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
        assert ours is not theirs
    assert first.adapter_config().backbone == identity, "an adapter is of the backbone as it was loaded"


def test_frozen_weights_in_bfloat16_are_not_trained(folders):
    with pytest.raises(ConfigError, match=r"model\.dtype: .* torch\.bfloat16; what is trained is kept in float32"):
        make(folders["t5"], settings("fine-tuning"), dtype="bfloat16")
