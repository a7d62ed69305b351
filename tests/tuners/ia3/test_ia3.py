"""(IA)3 against PEFT's with copied weights, against T5 written out and scaled matrices, and its counts on T5-base."""

import pytest
import torch

from dept_vl.models.config import ModelConfig
from dept_vl.models.meta_model import build_meta_model
from dept_vl.tuners.places.hooks import HookChain, LinearMap, merge_hooks
from dept_vl.tuners.places.sites import Site
from tests.tuners.adapted import FAMILIES, LIKE_LLAMA, batch, logits, make, settings
from tests.tuners.plain_t5 import TEXT, plain_logits

T5 = {"target_modules": ["k", "v", "wo"], "feedforward_modules": ["wo"]}
LLAMA = {"target_modules": ["k_proj", "v_proj", "down_proj"], "feedforward_modules": ["down_proj"]}
TARGETS = {
    "t5": T5,
    "t5-v1.1": T5,
    **dict.fromkeys(("llama", *LIKE_LLAMA), LLAMA),
    "gpt2": {"target_modules": ["c_attn", "mlp.c_proj"], "feedforward_modules": ["mlp.c_proj"], "fan_in_fan_out": True},
}


@pytest.mark.parametrize(("own", "expected"), [({}, 129_024), ({"feed_forward": False}, 55_296)])
def test_counts_on_t5_base(own, expected):
    """36 attentions of 2 x 768, and 24 feed-forwards of 3,072; the paper's row is without those."""
    model = ModelConfig(backbone="t5-base")
    built = build_meta_model(model, settings("ia3", **own), max_source_length=256, feature_dim=None)
    assert built.parameter_budget().trainable == expected


@pytest.mark.parametrize("family", TARGETS)
def test_it_equals_peft_s_with_the_same_vectors(folders, family):
    peft = pytest.importorskip("peft")
    model = make(folders[family], settings("ia3"), moved=0.5)
    other = make(folders[family], settings("fine-tuning"))
    peft.inject_adapter_in_model(peft.IA3Config(**TARGETS[family]), other.backbone.model)
    with torch.no_grad():
        for site, place in other.backbone.places.items():
            if site.key in model.tuner.scales:
                theirs = place.module.ia3_l["default"]
                if place.parts > 1:  # PEFT scales q, k and v of GPT-2 by one vector; its q is left at ones
                    theirs = theirs.chunk(place.parts)[place.part]
                theirs.copy_(model.tuner.scales[site.key].reshape(theirs.shape))
        other.visual_projection.load_state_dict(model.visual_projection.state_dict())
    expected = logits(other.eval())
    torch.testing.assert_close(logits(model), expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(expected, logits(make(folders[family], settings("ia3"))), atol=1e-2)
    ids, mask, _, features = batch()
    tokens = [one.generate(ids, mask, features, num_beams=3, max_new_tokens=5) for one in (model, other)]
    assert torch.equal(*tokens)


@pytest.mark.parametrize("family", ["t5", "t5-v1.1"])
@pytest.mark.parametrize("feed_forward", [True, False])
def test_it_equals_t5_written_out(folders, family, feed_forward):
    model = make(folders[family], settings("ia3", feed_forward=feed_forward), feature_dim=None, moved=0.5)

    def change(stack, layer, part, values):
        name = f"{stack}_{layer}_{part}".replace(".", "_").replace("ff_hidden", "ff_out")
        return values * model.tuner.scales[name] if name in model.tuner.scales and part != "ff.out" else values

    expected = plain_logits(model.backbone, *TEXT[::2], change=change)
    torch.testing.assert_close(logits(model, TEXT), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_matrices_it_folds_into_give_the_same_logits(folders, family):
    model, folded = make(folders[family], settings("ia3"), moved=0.5), make(folders[family], settings("fine-tuning"))
    with torch.no_grad():
        folded.visual_projection.load_state_dict(model.visual_projection.state_dict())
        for site, hook in model.tuner.site_hooks().items():
            place = folded.backbone.places[site]
            weight, bias = place.module.weight, getattr(place.module, "bias", None)
            matrix = weight.T if family == "gpt2" else weight  # (outputs, inputs); q, k and v of GPT-2 below each other
            part = matrix.chunk(place.parts)[place.part]
            own = None if bias is None else bias.chunk(place.parts)[place.part]
            result = hook.fold(LinearMap(part.clone(), None if own is None else own.clone()))
            assert not result.narrow
            part.copy_(result.weight)
            if own is not None:
                own.copy_(result.bias)
    words = (*batch()[:3], None)
    both = [logits(one.double(), words) for one in (model, folded)]
    torch.testing.assert_close(*both, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("order", [("ia3", "lora"), ("lora", "ia3")])
@pytest.mark.parametrize("part", ["ff.out", "self_attn.v"])
@pytest.mark.parametrize("training", [True, False])
def test_beside_lora_it_folds_as_it_acts(folders, order, part, training):
    site = Site("encoder", 0, part)
    tuners = {
        "ia3": make(folders["t5"], settings("ia3"), moved=0.5).tuner,
        "lora": make(folders["t5"], settings("lora", rank=3, sites=[part], dropout=0.5), moved=0.5).tuner,
    }
    hook = merge_hooks(*(tuners[name].train(training).site_hooks() for name in order))[site]
    assert isinstance(hook, HookChain)
    shape = (16, 24) if part == "ff.out" else (16, 16)
    linear, source = LinearMap(torch.randn(shape), torch.randn(shape[0])), torch.randn(5, shape[1])
    read = hook.before(source, None) if hook.acts_before else source
    both = []
    for apply in (lambda: hook(read, linear(read), None), lambda: hook.fold(linear)(source)):
        torch.manual_seed(0)
        both.append(apply())
    torch.testing.assert_close(*both, rtol=1e-5, atol=1e-5)


def test_a_stack_with_lora_on_the_same_maps_is_what_its_parts_do(folders):
    own = {"parts.lora.rank": 2, "parts.lora.dropout": 0.0, "parts.lora.sites": ["attn.v", "ff.out"]}
    model = make(folders["t5"], settings("ia3+lora", **own), feature_dim=None, moved=0.5)
    ia3, lora = (model.tuner.parts[name] for name in ("ia3", "lora"))
    inner = {}

    def change(stack, layer, part, values):
        name = f"{stack}_{layer}_{part}".replace(".", "_")
        if part == "ff.hidden":
            inner["scaled"] = values * ia3.scales[name.replace("hidden", "out")]
            return inner["scaled"]
        if part == "ff.out":
            return values + lora.updates[name](inner["scaled"])
        return values * ia3.scales[name] if name in ia3.scales else values

    for name, update in lora.updates.items():
        if "ff" not in name:
            torch.nn.init.zeros_(update.lora_b)
    expected = plain_logits(model.backbone, *TEXT[::2], change=change)
    torch.testing.assert_close(logits(model, TEXT), expected, rtol=1e-5, atol=1e-5)
