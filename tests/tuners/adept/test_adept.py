"""ADePT shifts a token by what it is, and folds into a word embedding table."""

import pytest
import torch

from dept_vl.models.config import ModelConfig
from dept_vl.models.meta_model import build_meta_model
from tests.tuners.adapted import batch, logits, make, settings

SIZES = {"num_virtual_tokens": 4, "rank": 3}


def test_parameters_on_t5_base():
    model = build_meta_model(
        ModelConfig(backbone="t5-base"), settings("adept"), max_source_length=256, feature_dim=None
    )
    assert dict(model.parameter_budget().groups) == {"soft_prompt": 46_080, "offset": 29_971}
    assert model.parameter_budget().trainable == 76_051


def test_the_offset_written_out_token_by_token(folders):
    tuner = make(folders["t5"], settings("adept", **SIZES), moved=0.4).tuner
    text = torch.randn(2, 5, 16)
    with torch.no_grad():
        joined = tuner.embed(text)
        for row in range(2):
            assert torch.equal(joined[row, :4], tuner.soft_prompt)
            for token, e in enumerate(text[row]):
                hidden = [
                    max(0.0, float(e @ tuner.offset_down[:, unit] + tuner.offset_down_bias[unit])) for unit in range(3)
                ]
                shifted = e + tuner.offset_up_bias
                for unit in range(3):
                    shifted = shifted + hidden[unit] * tuner.offset_up[unit]
                torch.testing.assert_close(joined[row, 4 + token], shifted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["t5", "gpt2", "llama"])
def test_with_no_offset_it_is_prompt_tuning_with_the_same_seed(folders, family):
    plain = make(folders[family], settings("prompt-tuning", num_virtual_tokens=4), seed=3)
    assert torch.equal(logits(make(folders[family], settings("adept", **SIZES), seed=3)), logits(plain))


@pytest.mark.parametrize("family", ["t5", "t5-v1.1", "gpt2", "llama"])
def test_a_prompt_on_its_table_of_text_embeddings_answers_alike(folders, family):
    """The table serves the text alone: decoder, cue and output matrix keep the backbone's."""
    model = make(folders[family], settings("adept", **SIZES), moved=0.4)
    plain = make(folders[family], settings("prompt-tuning", num_virtual_tokens=4))
    table = model.tuner.train().folded_embeddings(model.backbone.word_embeddings)
    assert model.tuner.training
    ids, mask, labels, features = batch()
    with torch.no_grad():
        plain.tuner.soft_prompt.copy_(model.tuner.prompt())
        embed = plain.tuner.embed(table[ids])
        visual = plain.visual_projection(features, plain.backbone.word_embeddings)
        if plain.frame.tail:
            cue = plain.backbone.embed_tokens(torch.tensor(plain.frame.tail)).expand(len(ids), -1, -1)
            visual = torch.cat([visual, cue], dim=1)
        folded = plain.backbone.logits(plain.backbone.join(embed, visual, mask), labels)
    model.eval()
    torch.testing.assert_close(folded, logits(model), rtol=1e-5, atol=1e-5)


def test_dropout_acts_in_training_alone_and_not_with_the_rate_zero(folders):
    text = torch.randn(2, 5, 16)
    model = make(folders["t5"], settings("adept", **SIZES, dropout=0.5), moved=0.4)
    quiet = model.tuner.embed(text)
    assert torch.equal(quiet, model.tuner.embed(text))
    assert not torch.equal(quiet, model.tuner.train().embed(text))
    none = make(folders["t5"], settings("adept", **SIZES, dropout=0.0), moved=0.4)
    assert torch.equal(none.tuner.train().embed(text), none.tuner.eval().embed(text))


def test_the_network_starts_within_the_released_bound(folders):
    tuner = make(folders["t5"], settings("adept", num_virtual_tokens=4, rank=9)).tuner
    assert tuner.offset_down.abs().max() <= 1 / 3
    assert tuner.offset_down.abs().max() > 0.3
    assert not any(t.any() for t in (tuner.offset_down_bias, tuner.offset_up, tuner.offset_up_bias))


def test_prompt_and_offset_have_rates_of_their_own(folders):
    groups = make(folders["t5"], settings("adept", **SIZES, lr=0.4, offset_lr=2e-4)).param_groups()
    assert {group.name: group.lr for group in groups} == {"soft_prompt": 0.4, "offset": 2e-4, "visual_projection": None}
