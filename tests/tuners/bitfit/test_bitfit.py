"""BitFit: its count on T5-base, and what the biases of keys and values do."""

import torch

from dept_vl.models.config import ModelConfig
from dept_vl.models.meta_model import build_meta_model
from tests.tuners.adapted import logits, make, settings


def test_count_on_t5_base():
    """Biases of linear maps 202,752, of norms 47,616, of lm_head 32,128; t5-base has none of its own."""
    model = build_meta_model(
        ModelConfig(backbone="t5-base"), settings("bitfit"), max_source_length=256, feature_dim=None
    )
    budget = model.parameter_budget()
    assert (budget.trainable, budget.backbone) == (282_496, 222_903_552)
    sizes = {"norm": 0, "lm_head": 0, "linear": 0}
    for name, bias in model.tuner.biases.added.items():
        kind = "norm" if name.endswith("norm") else "lm_head" if name.endswith("lm_head") else "linear"
        sizes[kind] += bias.numel()
    assert sizes == {"linear": 202_752, "norm": 47_616, "lm_head": 32_128}


def test_gpt2_s_own_biases_are_trained_and_none_added():
    model = build_meta_model(ModelConfig(backbone="gpt2"), settings("bitfit"), max_source_length=256, feature_dim=None)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {name for name, _ in model.named_parameters() if name.endswith(".bias")}
    assert model.parameter_budget().total == 124_439_808


def test_a_bias_of_keys_changes_nothing(folders):
    model, before = make(folders["t5"], settings("bitfit")), None
    before = logits(model)
    with torch.no_grad():
        for name, bias in model.tuner.biases.added.items():
            if name.endswith("attn_k"):
                bias.normal_(generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(logits(model), before, rtol=1e-5, atol=1e-5)


def test_a_bias_of_values_is_the_output_bias_that_it_becomes(folders):
    """Attention weights add up to 1, so W_o (v + b) = W_o v + W_o b."""
    one, other = (make(folders["t5"], settings("bitfit")) for _ in range(2))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for site, place in one.backbone.places.items():
            if site.part in ("self_attn.v", "cross_attn.v"):
                key = str(site).replace(".", "_")
                bias = torch.randn(place.module.weight.shape[0], generator=generator)
                one.tuner.biases.added[key].copy_(bias)
                matrix = one.backbone.places[type(site)(site.stack, site.layer, site.part[:-1] + "o")].module.weight
                other.tuner.biases.added[key[:-1] + "o"].copy_(matrix @ bias)
    torch.testing.assert_close(logits(one), logits(other), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(logits(one), logits(make(folders["t5"], settings("bitfit"))), atol=1e-2)
