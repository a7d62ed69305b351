"""Cross-attention without keys and values, against T5's own layer."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import T5Config
from transformers.models.t5.modeling_t5 import T5LayerCrossAttention

from dept_vl.models.language.cross_attention import absorbed_attention, cross_attend, is_absorbed_cheaper


def make(**shape):
    shape = {"d_model": 24, "d_kv": 8, "num_heads": 4, **shape}  # inner 32: not the width
    torch.manual_seed(0)
    layer = T5LayerCrossAttention(T5Config(**shape, is_decoder=True), layer_idx=0).eval().requires_grad_(False)
    layer.EncDecAttention.config._attn_implementation = "eager"
    for weight in layer.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return layer


def inputs(target, source, width=24, batch=3):
    torch.manual_seed(1)
    hidden, states = torch.randn(batch, target, width), torch.randn(batch, source, width, requires_grad=True)
    mask = torch.zeros(batch, 1, 1, source)
    mask[1, ..., source // 2 :] = torch.finfo(torch.float32).min
    return hidden, states, mask


def matrices(layer):
    return [(module.weight, None) for module in (layer.EncDecAttention.k, layer.EncDecAttention.v)]


@pytest.mark.parametrize("target", [1, 2, 5])
@pytest.mark.parametrize("is_padded", [True, False])
def test_absorbed_attention_equals_t5s_own_layer_in_values_and_gradients(target, is_padded):
    layer = make()
    hidden, states, mask = inputs(target, source=7)
    mask = mask if is_padded else None
    expected = layer(hidden, states, mask)[0]
    (wanted,) = torch.autograd.grad(expected.square().sum(), states)
    read = hidden + absorbed_attention(layer.EncDecAttention, layer.layer_norm(hidden), states, mask, *matrices(layer))
    (found,) = torch.autograd.grad(read.square().sum(), states)
    torch.testing.assert_close(read, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("target", "source"), [(1, 9), (2, 54), (8, 40), (30, 60), (64, 64), (40, 10), (1, 1)])
def test_the_order_of_fewer_multiplications_is_taken(target, source):
    layer = make(d_model=32, d_kv=16, num_heads=2)
    hidden, states, mask = inputs(target, source, width=32)

    def multiplications(step):
        with FlopCounterMode(display=False) as counter:
            step()
        return counter.get_total_flops()

    own = multiplications(lambda: layer(hidden, states, mask))
    absorbed = multiplications(
        lambda: absorbed_attention(layer.EncDecAttention, layer.layer_norm(hidden), states, mask, *matrices(layer))
    )
    assert is_absorbed_cheaper(layer.EncDecAttention, target, source) == (absorbed < own)
    assert multiplications(lambda: cross_attend(layer, hidden, states, mask)) == min(own, absorbed)


def test_dropout_of_weights_and_output_is_as_frequent_as_t5s():
    layer = make(d_model=64, dropout_rate=0.4).train()
    hidden, states, mask = inputs(target=2, source=40, width=64, batch=400)
    assert is_absorbed_cheaper(layer.EncDecAttention, 2, 40)
    reads = [cross_attend(layer, hidden, states, mask) - hidden, layer(hidden, states, mask)[0] - hidden]
    for read in reads:
        assert (read == 0).float().mean() == pytest.approx(0.4, abs=0.01)
    assert reads[0].std().item() == pytest.approx(reads[1].std().item(), rel=0.05)
