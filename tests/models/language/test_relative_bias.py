"""T5's position bias with visual tokens, against a plain loop over pairs of tokens."""

import math

import pytest
import torch

from dept_vl.models.language.load import load_backbone
from dept_vl.models.language.relative_bias import fold_mask, position_bias

BUCKETS, FARTHEST = 8, 20  # of the tiny T5 in conftest.py


def bucket(distance):
    """T5's bucket of key - query, bidirectional (Raffel et al. 2020, section 2.1), written as its rule reads."""
    half = BUCKETS // 2
    offset = half if distance > 0 else 0
    distance = abs(distance)
    exact = half // 2
    if distance < exact:
        return offset + distance
    logarithmic = exact + int(math.log(distance / exact) / math.log(FARTHEST / exact) * (half - exact))
    return offset + min(logarithmic, half - 1)


def by_loop(table, kind, prompt, lengths, longest, visual):
    """Returns (batch, heads, total, total), NaN where query or key is padding."""
    total = prompt + longest + visual
    bias = torch.full((len(lengths), table.shape[1], total, total), math.nan)
    for example, length in enumerate(lengths):
        tokens = [(index, index, False) for index in range(prompt + length)]
        tokens += [(prompt + longest + j, prompt + length + j, True) for j in range(visual)]
        for query, query_position, query_is_visual in tokens:
            for key, key_position, key_is_visual in tokens:
                if kind == "zero" and (query_is_visual or key_is_visual):
                    bias[example, :, query, key] = 0.0
                else:
                    bias[example, :, query, key] = table[bucket(key_position - query_position)]
    return bias


@pytest.fixture(scope="module")
def encoder(t5_folder):
    return load_backbone(str(t5_folder))[0].model.encoder


def table_of(encoder):
    return encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight


@pytest.mark.parametrize("kind", ["zero", "sequential"])
@pytest.mark.parametrize("visual", [0, 1, 9])
@pytest.mark.parametrize("prompt", [0, 3])
@pytest.mark.parametrize("lengths", [[5, 5], [7, 2, 1]])
def test_bias_equals_a_plain_loop(encoder, kind, visual, prompt, lengths):
    longest = max(lengths)
    text_mask = torch.tensor([[1] * n + [0] * (longest - n) for n in lengths])
    bias = position_bias(encoder.block[0].layer[0].SelfAttention, kind, text_mask, prompt, visual)
    expected = by_loop(table_of(encoder), kind, prompt, lengths, longest, visual)
    bias = bias.expand_as(expected)
    read = ~expected.isnan()
    assert torch.equal(bias[read], expected[read])


def test_one_bias_for_all_examples_where_that_is_enough(encoder):
    mask = torch.ones(3, 4, dtype=torch.long)
    assert position_bias(encoder.block[0].layer[0].SelfAttention, "zero", mask, 2, 5).shape == (1, 2, 11, 11)
    assert position_bias(encoder.block[0].layer[0].SelfAttention, "sequential", mask, 2, 0).shape == (1, 2, 6, 6)
    assert position_bias(encoder.block[0].layer[0].SelfAttention, "sequential", mask, 2, 5).shape == (3, 2, 11, 11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fold_mask_closes_padded_keys_and_keeps_the_rest(dtype):
    bias = torch.randn(1, 2, 3, 3)
    folded = fold_mask(bias, torch.tensor([[1, 1, 0], [1, 1, 1]]), dtype)
    assert folded.shape == (2, 2, 3, 3)
    assert folded.dtype == dtype
    assert (folded[0, :, :, 2] == torch.finfo(dtype).min).all()
    assert torch.equal(folded[0, :, :, :2], bias[0, :, :, :2].to(dtype))
    assert torch.equal(folded[1], bias[0].to(dtype))
