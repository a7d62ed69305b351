"""Dropout that keeps little: the same function as torch's, its gradients, and what it keeps."""

import copy

import pytest
import torch
from torch import nn
from transformers import T5Config, T5ForConditionalGeneration

from dept_vl.models.language.t5 import T5Backbone
from dept_vl.tuners.layers.dropout import Dropout, RectifiedDropout, dropout, dropped_linear, replace_dropout

RATE = 0.25

on_devices = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])


def seeded(function, *arguments):
    torch.manual_seed(3)
    return function(*arguments)


def kept_bytes(function):
    """What a computation keeps for its backward, each storage once, parameters left out."""
    found = {}

    def note(tensor):
        if not isinstance(tensor, nn.Parameter):
            found[tensor.untyped_storage().data_ptr()] = (tensor.untyped_storage().nbytes(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        result = function()
    del result
    return sum(size for size, _ in found.values())


@on_devices
@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 0.9])
def test_elements_are_zero_as_often_as_asked_and_the_mean_stays(rate, device):
    number = 2_000_000
    found = seeded(dropout, torch.ones(number, device=device), rate, True)
    deviation = (rate * (1 - rate) / number) ** 0.5
    assert abs((found == 0).double().mean().item() - rate) < 5 * deviation + 2**-17
    values = found.unique()
    assert len(values) == 2
    assert values[1].item() == pytest.approx(1 / (1 - rate), rel=1e-4)
    assert found.double().mean().item() == pytest.approx(1.0, abs=5 * deviation / (1 - rate))


def test_neighbours_are_dropped_independently():
    is_zero = (seeded(dropout, torch.ones(1_000_000), 0.5, True) == 0).double() - 0.5
    for distance in (1, 2, 3, 4, 8, 768):
        together = (is_zero[:-distance] * is_zero[distance:]).mean().item()
        assert abs(together) < 5 * 0.25 / 1000, distance


@pytest.mark.parametrize("rate", [1e-9, 0.9999999])
def test_a_rate_beyond_the_steps_is_the_nearest_one(rate):
    found = seeded(dropout, torch.ones(100_000), rate, True)
    assert found.isfinite().all()
    assert (found == 0).double().mean().item() == pytest.approx(rate, abs=1e-4)


@pytest.mark.parametrize("shape", [(), (1,), (5,), (3, 7, 2), (0, 4)])
def test_any_shape(shape):
    found = seeded(dropout, torch.ones(shape), RATE, True)
    assert found.shape == shape
    assert torch.isin(found, torch.tensor([0.0, 1 / (1 - RATE)])).all()


def test_nothing_happens_without_training_or_rate():
    inputs = torch.randn(4, 3)
    assert dropout(inputs, RATE, False) is inputs
    assert dropout(inputs, 0.0, True) is inputs
    assert torch.equal(RectifiedDropout(RATE).eval()(inputs), torch.relu(inputs))
    assert torch.equal(RectifiedDropout(0.0)(inputs), torch.relu(inputs))
    weight = torch.randn(2, 3)
    assert torch.equal(dropped_linear(inputs, weight, RATE, False), inputs @ weight.T)


@on_devices
@pytest.mark.parametrize("rate", [RATE, 0.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_relu_and_dropout_together_are_one_after_the_other(rate, dtype, device):
    inputs = torch.randn(6, 50, dtype=dtype, device=device, requires_grad=True)
    plain = inputs.detach().clone().requires_grad_()
    kept = seeded(dropout, torch.ones_like(inputs), rate, True) != 0
    expected = torch.relu(plain) * kept * (1 / (1 - rate))
    found = seeded(RectifiedDropout(rate), inputs)
    assert torch.equal(found, expected)
    weights = torch.randn(6, 50, dtype=dtype, device=device)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(inputs.grad, plain.grad, rtol=1e-2 if dtype == torch.bfloat16 else 1e-6, atol=0)


@pytest.mark.parametrize("needs", [(True, True), (True, False), (False, True)])
def test_a_linear_map_of_dropped_inputs_and_its_gradients(needs):
    inputs, weight = torch.randn(4, 5, 8, dtype=torch.float64), torch.randn(3, 8, dtype=torch.float64)
    ours = [tensor.clone().requires_grad_(need) for tensor, need in zip((inputs, weight), needs, strict=True)]
    plain = [tensor.clone().requires_grad_(need) for tensor, need in zip((inputs, weight), needs, strict=True)]
    mask = seeded(dropout, torch.ones_like(inputs), RATE, True)
    expected = nn.functional.linear(plain[0] * mask, plain[1])
    found = seeded(dropped_linear, *ours, RATE, True)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    given = torch.randn_like(found)
    found.backward(given)
    expected.backward(given)
    for one, other in zip(ours, plain, strict=True):
        if one.requires_grad:
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-12, atol=1e-12)
        else:
            assert one.grad is None


def test_a_linear_map_of_narrower_inputs_and_under_autocast():
    inputs = torch.randn(4, 8).bfloat16().requires_grad_()
    weight = torch.randn(3, 8, requires_grad=True)
    found = dropped_linear(inputs, weight, RATE, True)
    assert found.dtype == torch.float32
    found.sum().backward()
    assert (inputs.grad.dtype, weight.grad.dtype) == (torch.bfloat16, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found = dropped_linear(inputs.detach().float().requires_grad_(), weight, RATE, True)
    assert found.dtype == torch.bfloat16
    found.sum().backward()
    assert weight.grad.dtype == torch.float32


def test_what_is_kept():
    inputs = torch.randn(1024, requires_grad=True)
    assert kept_bytes(lambda: dropout(inputs, RATE, True)) == 1024
    assert kept_bytes(lambda: RectifiedDropout(RATE)(inputs)) == 1024
    before = kept_bytes(lambda: nn.functional.dropout(torch.relu(inputs), RATE, True))
    assert before == 2 * 4 * 1024
    weights = [torch.nn.Parameter(torch.randn(2, 64)) for _ in range(3)]
    wide = torch.randn(16, 64, requires_grad=True)
    assert kept_bytes(lambda: [dropped_linear(wide, weight, RATE, True) for weight in weights]) == (4 + 3) * 1024


def test_a_model_has_no_other_dropout_and_the_same_tensors():
    torch.manual_seed(0)
    shape = {"d_model": 8, "d_kv": 4, "d_ff": 16, "num_layers": 2, "num_heads": 2, "vocab_size": 20}
    t5 = T5ForConditionalGeneration(T5Config(**shape)).requires_grad_(False)
    plain = copy.deepcopy(t5).eval()
    backbone = T5Backbone(t5, {})
    assert {type(module) for module in t5.modules() if isinstance(module, nn.Dropout)} == {Dropout, RectifiedDropout}
    assert {module.p for module in t5.modules() if isinstance(module, nn.Dropout)} == {0.1}
    assert list(t5.state_dict()) == list(plain.state_dict())
    ids = torch.tensor([[3, 4, 5, 1]])
    arguments = {"input_ids": ids, "decoder_input_ids": ids}
    assert torch.equal(t5.eval()(**arguments).logits, plain(**arguments).logits)
    assert not torch.equal(t5.train()(**arguments).logits, t5(**arguments).logits)
    again = T5Backbone(backbone.model, {})  # a second time changes nothing
    assert torch.equal(again.model.eval()(**arguments).logits, plain(**arguments).logits)


def test_a_module_stays_in_its_mode():
    model = nn.Sequential(nn.Sequential(nn.Dropout(0.3)), nn.Dropout(0.2), nn.Dropout(1.0)).eval()
    replace_dropout(model)
    assert [(type(one), one.p, one.training) for one in (model[0][0], model[1], model[2])] == [
        (Dropout, 0.3, False),
        (Dropout, 0.2, False),
        (nn.Dropout, 1.0, False),
    ]
