"""Hyperdecoders against T5 written out with each example's adapters in a loop, their start, and their counts."""

import pytest
import torch
from torch import nn

from dept_vl.models.config import ModelConfig
from dept_vl.models.meta_model import build_meta_model
from dept_vl.tuners.forward_info import ForwardInfo
from dept_vl.tuners.hyperdecoder.model import mean_state
from tests.tuners.adapted import batch, logits, make, settings
from tests.tuners.plain_t5 import TEXT, plain_logits

SIZES = {"encoder_bottleneck": 3, "decoder_bottleneck": 4, "hidden_dim": 5}


def hyperdecoder(folder, own=None, **options):
    return make(folder, settings("hyperdecoder", **SIZES, **(own or {})), **{"moved": 0.2, **options})


@pytest.mark.parametrize(("own", "expected"), [({"mlp": False}, 14_078_008), ({}, 14_078_008 + 1_181_184)])
def test_counts_on_t5_base(own, expected):
    """1,759,751 for each of eight tasks without the two maps on the mean, as the paper's tables have it."""
    built = build_meta_model(
        ModelConfig(backbone="t5-base"), settings("hyperdecoder", **own), max_source_length=256, feature_dim=None
    )
    budget = built.parameter_budget()
    assert budget.trainable == expected
    assert budget.groups["encoder_adapters"] == 1_189_632


def made_for(generator, mean, layer):
    """One example's adapter in one block, in the words of the paper."""
    if generator.mlp is not None:
        mean = generator.mlp[2](generator.mlp[0](mean).relu())
    hidden = generator.hidden(torch.cat([mean, generator.layer_embeddings[layer]])).relu()
    down, up = generator.down(hidden).reshape(4, 16), generator.up(hidden).reshape(16, 4)
    return lambda row: (row @ down.T + generator.down_bias(hidden)).relu() @ up.T + generator.up_bias(hidden)


@pytest.mark.parametrize("family", ["t5", "t5-v1.1"])
@pytest.mark.parametrize("own", [{}, {"mlp": False}, {"normed_input": False}], ids=str)
def test_it_equals_t5_written_out(folders, family, own):
    model = hyperdecoder(folders[family], own, feature_dim=None)
    means = []

    def beside(stack, layer, hidden, normed):
        read = normed if own.get("normed_input", True) else hidden
        if stack == "encoder":
            weights = model.tuner.encoder_adapters[layer]
            return (read @ weights.down.T + weights.down_bias).relu() @ weights.up.T + weights.up_bias
        rows = zip(means[0], read, strict=True)
        return torch.stack([made_for(model.tuner.generator, mean, layer)(row) for mean, row in rows])

    expected = plain_logits(
        model.backbone, *TEXT[::2], beside=beside, encoded=lambda states: means.append(states.mean(dim=1))
    )
    torch.testing.assert_close(logits(model, TEXT), expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(
        expected, logits(make(folders[family], settings("lora"), feature_dim=None), TEXT), atol=0.1
    )


def test_up_weights_and_generator_outputs_of_zero_are_the_frozen_model(folders):
    model = hyperdecoder(folders["t5"])
    frozen = logits(make(folders["t5"], settings("lora")))
    assert not torch.allclose(logits(model), frozen, atol=0.1)
    generator = model.tuner.generator
    for weights in model.tuner.encoder_adapters:
        nn.init.zeros_(weights.up)
        nn.init.zeros_(weights.up_bias)
    for module in (generator.up, generator.up_bias):
        nn.init.zeros_(module.weight)
        nn.init.zeros_(module.bias)
    assert torch.equal(logits(model), frozen)


def test_it_starts_near_the_frozen_model(folders):
    frozen = logits(make(folders["t5"], settings("lora")))
    difference = (logits(hyperdecoder(folders["t5"], moved=0.0)) - frozen).abs().max().item()
    assert 0.0 < difference < 2e-3  # logits are of the size of 10


def test_first_values_are_drawn_as_said(folders):
    sizes = {"encoder_bottleneck": 50, "decoder_bottleneck": 50, "hidden_dim": 40}
    tuner = make(folders["t5"], settings("hyperdecoder", **sizes)).tuner
    generator = tuner.generator
    bounds = {
        generator.down.weight: 1e-3 * (3 / (40 * 16)) ** 0.5,
        generator.up.weight: 1e-3 * (3 / (40 * 50)) ** 0.5,
        generator.up_bias.weight: 1e-3 * (3 / 40) ** 0.5,
        generator.hidden.weight: (16 + 10) ** -0.5,
        generator.mlp[0].weight: 16**-0.5,
        tuner.encoder_adapters[0].down: 1e-4 * (6 / 66) ** 0.5,
        tuner.encoder_adapters[1].up: 1e-4 * (6 / 66) ** 0.5,
    }
    for tensor, bound in bounds.items():
        assert 0.95 * bound < tensor.abs().max().item() <= bound
    for module in (generator.down, generator.up, generator.down_bias, generator.up_bias):
        assert not module.bias.any()


def test_permuting_a_batch_permutes_its_answers(folders):
    model = hyperdecoder(folders["t5"])
    arguments, order = batch(), [2, 0, 1]
    permuted = tuple(tensor[order] for tensor in arguments)
    torch.testing.assert_close(logits(model, permuted), logits(model)[order], rtol=1e-5, atol=1e-5)
    ids, mask, _, features = arguments
    answers = [
        model.generate(ids[rows], mask[rows], features[rows], num_beams=3, max_new_tokens=5)
        for rows in ([0, 1, 2], order)
    ]
    assert torch.equal(answers[1], answers[0][order])


def test_prompt_and_image_are_in_the_mean_and_padding_is_not():
    states = torch.arange(1, 9, dtype=torch.float32)[None, :, None].expand(2, -1, 3) * torch.tensor([1.0, 10, 100])
    info = ForwardInfo(torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0]]), num_virtual_tokens=2, num_visual_tokens=2)
    expected = torch.tensor([[36 / 8], [(1 + 2 + 3 + 7 + 8) / 5]]) * torch.tensor([1.0, 10, 100])
    torch.testing.assert_close(mean_state(states, info), expected)


def test_a_prompt_of_another_part_is_in_the_mean(folders):
    own = {f"parts.hyperdecoder.{key}": value for key, value in SIZES.items()}
    tuner = settings("prompt-tuning+hyperdecoder", **{"parts.prompt-tuning.num_virtual_tokens": 4, **own})
    model = make(folders["t5"], tuner, moved=0.2)
    states, means = [], []
    model.backbone.model.encoder.final_layer_norm.register_forward_hook(lambda *each: states.append(each[-1]))
    generator = model.tuner.parts["hyperdecoder"].generator
    generator.register_forward_pre_hook(lambda module, inputs: means.append(inputs[0]))
    logits(model)
    rows = [torch.cat([states[0][row, : 4 + length], states[0][row, 4 + 6 :]]) for row, length in enumerate((6, 3, 1))]
    assert states[0].shape[1] == 4 + 6 + 3
    torch.testing.assert_close(means[0], torch.stack([row.mean(dim=0) for row in rows]))


def test_the_adapters_of_a_pass_are_made_once_whatever_its_steps_and_beams(folders):
    model = hyperdecoder(folders["t5"])
    calls = []
    model.tuner.generator.register_forward_hook(lambda module, inputs, output: calls.append(len(inputs[0])))
    ids, mask, _, features = batch()
    model.generate(ids, mask, features, num_beams=3, max_new_tokens=6)
    assert calls == [3]


def test_adapters_are_outside_the_feed_forward_s_dropout(folders):
    model = hyperdecoder(folders["t5"], dropout_rate=0.5).train()
    info, hidden = ForwardInfo(torch.ones(1, 50), 0), torch.randn(1, 50, 16)
    block, weights = model.backbone.model.encoder.block[0].layer[1], model.tuner.encoder_adapters[0]
    with torch.no_grad(), model.backbone.hooked(model.tuner.site_hooks(), info):
        added = block(hidden) - hidden
        normed = block.layer_norm(hidden)
        adapter = (normed @ weights.down.T + weights.down_bias).relu() @ weights.up.T + weights.up_bias
    is_adapter_alone = torch.isclose(added, adapter, atol=1e-5)
    assert is_adapter_alone.float().mean().item() == pytest.approx(0.5, abs=0.1)


def test_nothing_is_noted_longer_than_needed(folders):
    model = hyperdecoder(folders["t5"])
    ids, mask, labels, features = batch()
    info = ForwardInfo(mask, 0, num_visual_tokens=features.shape[1])
    with torch.no_grad(), model.backbone.hooked(model.tuner.site_hooks(), info):
        joint = model.joint_input(ids, mask, features, info)
        model.backbone.logits(joint, labels)
    assert list(info.records) == [model.tuner.generator]
