"""LoRA against PEFT's with copied weights, against merged weights, and its counts on T5-base."""

import pytest
import torch
from transformers import T5Config

from dept_vl.errors import ConfigError
from dept_vl.models.adapted_model import AdaptedModel
from dept_vl.models.config import ModelConfig
from dept_vl.models.language.load import meta_backbone, open_backbone
from dept_vl.models.meta_model import build_meta_model
from dept_vl.tuners.places.hooks import LinearMap
from dept_vl.tuners.places.sites import Site
from tests.tuners.adapted import LIKE_LLAMA, batch, logits, make, settings

PARTS = {"t5": ("q", "v")} | dict.fromkeys(("llama", *LIKE_LLAMA), ("q_proj", "v_proj"))


def count(**own) -> int:
    model = ModelConfig(backbone="t5-base")
    built = build_meta_model(model, settings("lora", **own), max_source_length=256, feature_dim=None)
    return built.parameter_budget().trainable


def test_counts_of_the_paper_s_recipes_on_t5_base():
    """Rank 35 without biases: 3,870,720. Rank 32 with: 3,821,412 at the 32,100 words of Sung et al.'s T5."""
    assert count(rank=35) == 3_870_720
    assert count(rank=32) == 3_538_944
    assert count(rank=32, biases="all") == 3_538_944 + 282_496
    shape = T5Config(vocab_size=32_100, d_model=768, d_kv=64, d_ff=3072, num_layers=12, num_heads=12)
    with torch.device("meta"):
        backbone = meta_backbone(shape)
        tuner = settings("lora", rank=32, biases="all").empty(backbone.tuner_context(256))
        model = AdaptedModel(backbone, tuner, None, ModelConfig())
    assert model.parameter_budget().trainable == 3_821_412


@pytest.mark.parametrize("family", PARTS)
def test_it_equals_peft_s_with_the_same_weights(folders, family):
    peft = pytest.importorskip("peft")
    model = make(folders[family], settings("lora", rank=3, alpha=6.0, dropout=0.0), moved=0.3)
    other = make(folders[family], settings("fine-tuning"))
    config = peft.LoraConfig(r=3, lora_alpha=6.0, lora_dropout=0.0, target_modules=list(PARTS[family]))
    peft.inject_adapter_in_model(config, other.backbone.model)
    with torch.no_grad():
        for site, place in model.backbone.places.items():
            key = str(site).replace(".", "_")
            if key not in model.tuner.updates:
                continue
            twin = other.backbone.places[site].module
            assert twin is not place.module
            twin.lora_A["default"].weight.copy_(model.tuner.updates[key].lora_a)
            twin.lora_B["default"].weight.copy_(model.tuner.updates[key].lora_b)
        other.visual_projection.load_state_dict(model.visual_projection.state_dict())
    expected = logits(other.eval())
    torch.testing.assert_close(logits(model), expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(expected, logits(make(folders[family], settings("fine-tuning"))), atol=1e-2)
    ids, mask, _, features = batch()
    tokens = [one.generate(ids, mask, features, num_beams=3, max_new_tokens=5) for one in (model, other)]
    assert torch.equal(*tokens)


@pytest.mark.parametrize("family", ["t5", "t5-v1.1", "gpt2", "llama"])
def test_updates_merged_into_the_matrices_give_the_same_logits(folders, family):
    model = make(
        folders[family],
        settings("lora", rank=3, sites=["attn.q", "attn.k", "attn.v", "attn.o", "ff.in", "ff.out"]),
        moved=0.3,
    )
    merged = make(folders[family], settings("fine-tuning"))
    with torch.no_grad():
        merged.visual_projection.load_state_dict(model.visual_projection.state_dict())
        for site, place in merged.backbone.places.items():
            update = model.tuner.updates[key] if (key := str(site).replace(".", "_")) in model.tuner.updates else None
            if update is not None:
                change = update.scaling * update.lora_b @ update.lora_a
                weight = place.module.weight
                if family == "gpt2":  # (inputs, outputs), q, k and v side by side
                    weight.chunk(place.parts, dim=1)[place.part].add_(change.T)
                else:
                    weight.add_(change)
    words = (*batch()[:3], None)  # without images, whose features are float32
    both = [logits(one.double(), words) for one in (model, merged)]
    torch.testing.assert_close(*both, rtol=1e-4, atol=2e-5)


def test_dropout_acts_on_updates_in_training_alone(folders):
    model = make(folders["t5"], settings("lora", rank=3, dropout=0.5), moved=0.3, dropout_rate=0.0)
    assert torch.equal(logits(model), logits(model))
    model.train()
    assert not torch.equal(logits(model), logits(model))


def test_with_active_dropout_it_folds_to_the_map_that_it_is(folders):
    """Otherwise T5's cross-attention would make keys and values of the whole source while LoRA trains."""
    tuner = make(folders["t5"], settings("lora", rank=3, dropout=0.5), moved=0.3).tuner.train()
    site = next(site for site in tuner.site_hooks() if site.part == "cross_attn.v")
    hook, linear = tuner.site_hooks()[site], LinearMap(torch.randn(16, 16))
    source = torch.randn(2, 5, 16)
    both = []
    for apply in (lambda: hook(source, linear(source), None), lambda: hook.fold(linear)(source)):
        torch.manual_seed(0)
        both.append(apply())
    torch.testing.assert_close(*both, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(both[0], hook(source, linear(source), None), atol=1e-3)  # other draws


def test_parts_are_chosen_by_name(folders):
    context = open_backbone(ModelConfig(backbone=str(folders["t5"])))[0].tuner_context(8)
    chosen = settings("lora", sites=["self_attn.k", "ff.in"]).empty(context).site_hooks()
    expected = {
        Site(stack, layer, part)
        for stack in ("encoder", "decoder")
        for layer in (0, 1)
        for part in ("self_attn.k", "ff.in")
    }
    assert set(chosen) == expected


def test_a_part_that_the_backbone_has_not_is_refused_with_those_it_has(folders):
    context = open_backbone(ModelConfig(backbone=str(folders["llama"])))[0].tuner_context(8)
    with pytest.raises(
        ConfigError, match=r"tuner\.sites: this backbone has no 'cross_attn\.q' \(it has: ff\.gate, .*self_attn\.v\)"
    ):
        settings("lora", sites=["cross_attn.q"]).empty(context)
