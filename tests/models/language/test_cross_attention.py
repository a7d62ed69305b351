"""Cross-attention without keys and values, against T5's own layer."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import T5Config
from transformers.models.t5.modeling_t5 import T5LayerCrossAttention

from dept_vl.models.language.cross_attention import absorbed_attention, cross_attend, is_absorbed_cheaper
from dept_vl.models.language.places import Place, hook_places
from dept_vl.tuners.forward_info import ForwardInfo
from dept_vl.tuners.places.hooks import HookChain, LinearMap, NarrowMap, SiteHook


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
    return [LinearMap(module.weight) for module in (layer.EncDecAttention.k, layer.EncDecAttention.v)]


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


class LowRank(SiteHook):
    """W x + B A x."""

    def __init__(self, inner=32, width=24):
        self.a, self.b = torch.randn(3, width, requires_grad=True), torch.randn(inner, 3, requires_grad=True)
        self.tensors = [self.a, self.b]

    def __call__(self, inputs, output, info):
        return output + inputs @ self.a.T @ self.b.T

    def fold(self, linear):
        return replace(linear, weight=linear.weight + self.b @ self.a)


class Bent(LowRank):
    """W x + B A tanh(x): a narrow map beside W that is not linear."""

    def __call__(self, inputs, output, info):
        return output + torch.tanh(inputs) @ self.a.T @ self.b.T

    def fold(self, linear):
        return replace(linear, narrow=(*linear.narrow, NarrowMap(lambda x: torch.tanh(x) @ self.a.T, self.b)))


class Scale(SiteHook):
    """l W x, as (IA)3 has it."""

    def __init__(self, inner=32):
        self.scale = torch.randn(inner, requires_grad=True)
        self.tensors = [self.scale]

    def __call__(self, inputs, output, info):
        return output * self.scale

    def fold(self, linear):
        bias = None if linear.bias is None else linear.bias * self.scale
        narrow = tuple(replace(each, expand=each.expand * self.scale[:, None]) for each in linear.narrow)
        return LinearMap(linear.weight * self.scale[:, None], bias, narrow)


class Bias(SiteHook):
    """W x + b."""

    def __init__(self, inner=32):
        self.bias = torch.randn(inner, requires_grad=True)
        self.tensors = [self.bias]

    def __call__(self, inputs, output, info):
        return output + self.bias

    def fold(self, linear):
        return replace(linear, bias=self.bias if linear.bias is None else linear.bias + self.bias)


class ScaledInput(SiteHook):
    """W (l x)."""

    acts_before = True

    def __init__(self, width=24):
        self.scale = torch.randn(width, requires_grad=True)
        self.tensors = [self.scale]

    def before(self, inputs, info):
        return inputs * self.scale

    def __call__(self, inputs, output, info):
        return None

    def fold(self, linear):
        return replace(linear, weight=linear.weight * self.scale)


class Squash(SiteHook):
    """No linear map."""

    def __init__(self):
        self.gain = torch.ones((), requires_grad=True)
        self.tensors = [self.gain]

    def __call__(self, inputs, output, info):
        return torch.tanh(self.gain * output)


INFO = ForwardInfo(torch.ones(3, 7), 0)


@pytest.mark.parametrize("kind", [LowRank, Bent, Scale, Bias, ScaledInput, Squash], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("where", ["k", "v", "k and v"])
def test_hooks_at_keys_and_values_act_as_on_the_modules_in_values_and_gradients(kind, where):
    layer = make()
    attention = layer.EncDecAttention
    hidden, states, mask = inputs(target=2, source=7)
    assert is_absorbed_cheaper(attention, 2, 7)
    key, value = (kind() if letter in where else None for letter in "kv")
    trained = [states, *(tensor for hook in (key, value) if hook for tensor in hook.tensors)]
    hooks = {Place(module): hook for module, hook in ((attention.k, key), (attention.v, value)) if hook}
    handles = hook_places(hooks, INFO)
    expected = layer(hidden, states, mask)[0]
    wanted = torch.autograd.grad(expected.square().sum(), trained)
    read = cross_attend(layer, hidden, states, mask, key, value)
    found = torch.autograd.grad(read.square().sum(), trained, allow_unused=True)
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(read, expected, rtol=1e-4, atol=1e-4)
    for gradient, reference in zip(found, wanted, strict=True):
        reached = torch.zeros_like(reference) if gradient is None else gradient  # a bias of keys is left out
        torch.testing.assert_close(reached, reference, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(read, cross_attend(layer, hidden, states, mask), atol=1e-2) or (kind, where) == (
        Bias,
        "k",
    )


@pytest.mark.parametrize(("kind", "is_short"), [(Scale, True), (ScaledInput, True), (Squash, False)])
def test_what_folds_keeps_the_short_cut(kind, is_short):
    layer, hook = make(), kind()
    hidden, states, mask = inputs(target=2, source=40)

    def multiplications(step):
        with FlopCounterMode(display=False) as counter:
            step()
        return counter.get_total_flops()

    handles = hook_places({Place(layer.EncDecAttention.v): hook}, INFO)
    ours = multiplications(lambda: cross_attend(layer, hidden, states, mask, None, hook))
    plain = multiplications(lambda: layer(hidden, states, mask))
    for handle in handles:
        handle.remove()
    assert (ours < plain) == is_short


def test_a_chain_folds_as_it_acts():
    chain, linear = HookChain([Bent(), LowRank(), Scale(), Bias()]), LinearMap(torch.randn(32, 24))
    source = torch.randn(5, 24)
    folded = chain.fold(linear)
    assert len(folded.narrow) == 1
    torch.testing.assert_close(folded(source), chain(source, linear(source), INFO), rtol=1e-4, atol=1e-4)
    assert HookChain([LowRank(), Squash()]).fold(linear) is None


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0)])
def test_in_a_chain_what_changes_the_input_comes_first(order):
    """Also in a chain that is a link of another: l1 and l2 scale x, then B A and the scale of the output follow."""
    first, second, late = ScaledInput(), ScaledInput(), [LowRank(), Scale()]
    links = [first, HookChain([late[0], second]), late[1]]
    chain = HookChain([links[number] for number in order])
    linear, source = LinearMap(torch.randn(32, 24)), torch.randn(5, 24)
    assert chain.acts_before
    read = chain.before(source, INFO)
    torch.testing.assert_close(read, source * first.scale * second.scale)
    expected = linear(read)
    for hook in late if order.index(1) < order.index(2) else reversed(late):
        expected = hook(read, expected, INFO)
    torch.testing.assert_close(chain(read, linear(read), INFO), expected)
    torch.testing.assert_close(chain.fold(linear)(source), expected, rtol=1e-4, atol=1e-4)


def test_a_hook_on_the_input_of_another_library_is_seen_beside_ours():
    layer = make()
    attention = layer.EncDecAttention
    hidden, states, mask = inputs(target=2, source=7)
    ours = ScaledInput()
    handles = hook_places({Place(attention.v): ours}, INFO)
    plain = cross_attend(layer, hidden, states, mask, None, ours)
    theirs = attention.v.register_forward_pre_hook(lambda module, args: (args[0] + 1.0,))
    changed, expected = cross_attend(layer, hidden, states, mask, None, ours), layer(hidden, states, mask)[0]
    for handle in (theirs, *handles):
        handle.remove()
    torch.testing.assert_close(changed, expected)
    assert not torch.allclose(changed, plain, atol=1e-2)


def test_a_bias_of_values_under_dropout_is_read_as_often_as_the_weights_say():
    layer = make(d_model=64, dropout_rate=0.4).train()
    hidden, states, mask = inputs(target=2, source=40, width=64, batch=400)
    bias = Bias()
    with torch.no_grad():
        bias.bias.fill_(3.0)
    handles = hook_places({Place(layer.EncDecAttention.v): bias}, INFO)
    reads = [layer(hidden, states, mask)[0], cross_attend(layer, hidden, states, mask, None, bias)]
    for handle in handles:
        handle.remove()
    assert reads[0].std().item() == pytest.approx(reads[1].std().item(), rel=0.05)


def test_modules_that_another_library_wrapped_or_hooked_are_called():
    layer = make()
    attention = layer.EncDecAttention
    hidden, states, mask = inputs(target=2, source=7)
    plain = cross_attend(layer, hidden, states, mask)
    handle = attention.v.register_forward_hook(lambda module, args, output: 2 * output)
    torch.testing.assert_close(cross_attend(layer, hidden, states, mask), layer(hidden, states, mask)[0])
    assert not torch.allclose(cross_attend(layer, hidden, states, mask), plain, atol=1e-2)
    handle.remove()
    attention.v = torch.nn.Sequential(attention.v, torch.nn.Dropout(0.0), torch.nn.Tanh())
    torch.testing.assert_close(cross_attend(layer, hidden, states, mask), layer(hidden, states, mask)[0])
