"""Prefix tuning against transformers' own cache of the same keys, attention written out, and its count on T5-base."""

import pytest
import torch
from transformers import DynamicCache

from dept_vl.models.config import ModelConfig
from dept_vl.models.language.t5_input import CACHE_ARGUMENT
from dept_vl.models.meta_model import build_meta_model
from dept_vl.tuners.forward_info import ForwardInfo
from dept_vl.tuners.places.extra_keys import ExtraKeys
from tests.tuners.adapted import LIKE_LLAMA, batch, logits, make, settings

LENGTH = 3
INFO = ForwardInfo(torch.ones(1, 1), 0)


def text_model(folder, **options):
    """A model that reads text alone, its keys and values as large as the text's."""
    return make(folder, settings("prefix-tuning", prefix_length=LENGTH), feature_dim=None, moved=1.0, **options)


def test_count_on_t5_base():
    """12 + 2 x 12 attentions, keys and values of 12 x 64."""
    model = build_meta_model(
        ModelConfig(backbone="t5-base"), settings("prefix-tuning"), max_source_length=256, feature_dim=None
    )
    assert model.parameter_budget().trainable == 36 * 2 * 20 * 768 == 1_105_920


@pytest.mark.parametrize("family", ["gpt2", "llama", *LIKE_LLAMA])
def test_it_equals_a_cache_that_holds_the_keys_already(folders, family):
    """transformers reads a cache's keys as they are, without a position."""
    model = text_model(folders[family])
    ids, labels = torch.tensor([[5, 9, 4], [8, 2, 7]]), torch.tensor([[6, 3], [3, 1]])
    cache = DynamicCache()
    for layer, extra in enumerate(model.tuner.extra_keys(INFO).values()):
        shape = next(iter(model.backbone.attentions.values())).shape
        pair = (extra.keys, extra.values)
        split = (one.detach().expand(2, -1, -1).unflatten(-1, (shape.heads, -1)).transpose(1, 2) for one in pair)
        cache.update(*split, layer)
    read = torch.cat([ids, labels[:, :-1]], dim=1)
    with torch.no_grad():
        expected = model.backbone.model(
            input_ids=read,
            attention_mask=torch.ones(2, LENGTH + read.shape[1]),
            position_ids=torch.arange(read.shape[1]).expand(2, -1),
            **{CACHE_ARGUMENT: cache},
        ).logits[:, -2:]
    found = logits(model, (ids, torch.ones_like(ids), labels))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    frozen = make(folders[family], settings("fine-tuning"), feature_dim=None)
    assert not torch.allclose(found, logits(frozen, (ids, torch.ones_like(ids), labels)), atol=1e-2)


def attend(attention, hidden, states, bias, extra):
    """T5's attention in the words of the paper: scores are not scaled, and the prefix has no bias."""
    heads = (attention.n_heads, attention.key_value_proj_dim)
    query = attention.q(hidden).unflatten(-1, heads)
    key, value = (
        torch.cat([own.expand(len(states), -1, -1), module(states)], dim=1).unflatten(-1, heads)
        for own, module in ((extra.keys, attention.k), (extra.values, attention.v))
    )
    scores = torch.einsum("bqhd,bkhd->bhqk", query, key)
    scores[..., LENGTH:] += bias
    return attention.o(torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), value).flatten(2))


@pytest.mark.parametrize("family", ["t5", "t5-v1.1"])
def test_it_equals_t5_written_out(folders, family):
    model = text_model(folders[family])
    t5, extra = model.backbone.model, {str(site): own for site, own in model.tuner.extra_keys(INFO).items()}
    ids, labels = torch.tensor([[5, 9, 4], [8, 2, 7]]), torch.tensor([[6, 3, 1], [3, 7, 1]])
    closed = torch.zeros(3, 3).masked_fill(torch.ones(3, 3, dtype=torch.bool).triu(1), -1e9)
    with torch.no_grad():
        hidden = t5.shared(ids)
        bias = t5.encoder.block[0].layer[0].SelfAttention.compute_bias(3, 3)
        for number, block in enumerate(t5.encoder.block):
            layer, normed = block.layer[0], block.layer[0].layer_norm(hidden)
            hidden = hidden + attend(layer.SelfAttention, normed, normed, bias, extra[f"encoder.{number}.self_attn"])
            hidden = block.layer[1](hidden)
        states = t5.encoder.final_layer_norm(hidden)
        hidden = t5.shared(t5.prepare_decoder_input_ids_from_labels(labels))
        bias = t5.decoder.block[0].layer[0].SelfAttention.compute_bias(3, 3) + closed
        for number, block in enumerate(t5.decoder.block):
            layer, normed = block.layer[0], block.layer[0].layer_norm(hidden)
            hidden = hidden + attend(layer.SelfAttention, normed, normed, bias, extra[f"decoder.{number}.self_attn"])
            layer, normed = block.layer[1], block.layer[1].layer_norm(hidden)
            hidden = hidden + attend(layer.EncDecAttention, normed, states, 0.0, extra[f"decoder.{number}.cross_attn"])
            hidden = block.layer[2](hidden)
        hidden = t5.decoder.final_layer_norm(hidden)
        scale = t5.config.d_model**-0.5 if t5.config.scale_decoder_outputs else 1.0
        expected = t5.lm_head(hidden * scale)
    torch.testing.assert_close(logits(model, (ids, torch.ones_like(ids), labels)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["t5", "gpt2", "llama", *LIKE_LLAMA])
def test_no_keys_are_the_frozen_model_and_keys_of_zero_are_not(folders, family):
    model = make(folders[family], settings("prefix-tuning", prefix_length=LENGTH, init_std=0.0), feature_dim=None)
    frozen = logits(make(folders[family], settings("fine-tuning"), feature_dim=None), batch()[:3])
    assert not torch.allclose(logits(model, batch()[:3]), frozen, atol=1e-3)  # the softmax counts them
    whole = model.tuner.extra_keys
    model.tuner.extra_keys = lambda info: {
        site: ExtraKeys(own.keys[:, :0], own.values[:, :0]) for site, own in whole(info).items()
    }
    torch.testing.assert_close(logits(model, batch()[:3]), frozen, rtol=1e-5, atol=1e-5)


def test_extra_keys_of_each_row_follow_it_through_beams(folders):
    """Keys that differ by row: generating two rows together is generating each alone."""
    ids, mask, _, _ = batch(lengths=(4, 4), targets=(2, 2))
    model = text_model(folders["t5"])
    generator = torch.Generator().manual_seed(3)
    rows = {site: torch.randn(2, 2, LENGTH, own.keys.shape[2], generator=generator) for site, own in
            model.tuner.extra_keys(INFO).items()}  # fmt: skip

    def only(*chosen):
        pairs = {site: own[list(chosen)] for site, own in rows.items()}
        model.tuner.extra_keys = lambda _: {site: ExtraKeys(own[:, 0], own[:, 1]) for site, own in pairs.items()}
        return model.generate(ids[list(chosen)], mask[list(chosen)], num_beams=3, max_new_tokens=5)

    together = only(0, 1)
    for row in (0, 1):
        alone = only(row)[0]
        assert together[row, : len(alone)].tolist() == alone.tolist()
    assert together[0].tolist() != together[1].tolist()


def test_after_an_error_the_attentions_are_the_model_s_own(folders):
    model = text_model(folders["t5"])
    before = [
        module.config._attn_implementation for module in model.backbone.model.modules() if hasattr(module, "config")
    ]
    with pytest.raises(RuntimeError, match="halfway"), model._acting(batch()[1]):
        raise RuntimeError("halfway")
    after = [
        module.config._attn_implementation for module in model.backbone.model.modules() if hasattr(module, "config")
    ]
    assert after == before
