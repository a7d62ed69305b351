"""The log-likelihood of every label in one pass, against one teacher-forced forward a label."""

import pytest
import torch
from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration

from dept_vl.models.build import build_model
from dept_vl.models.config import ModelConfig
from dept_vl.models.language.label_trie import LabelTrie
from dept_vl.tuners import DeptConfig
from tests.models.language.causal_folders import SAVE_TINY, set_attention

FEATURE_DIM, VISUAL, S = 10, 5, 16
TUNER = DeptConfig(budget_tokens=9, num_virtual_tokens=3, prompt_init="random", allow_nearest=True)
IDS = [[5, 6, 7, 1], [5, 6, 8, 9, 1], [5, 1], [10, 1], [5, 6, 1], [11, 5, 6, 7, 1]]
"""Labels that share prefixes, one that is another's prefix up to its end, one with the same tokens further on."""


def make(folder, *, feature_dim=FEATURE_DIM, attention="sdpa", **settings):
    config = ModelConfig(backbone=str(folder), **settings)
    model, codec = build_model(config, TUNER, max_source_length=S, feature_dim=feature_dim, seed=0)
    set_attention(model, attention)
    with torch.no_grad():
        model.tuner.lowrank_b.normal_(generator=torch.Generator().manual_seed(3))
    return model.eval(), codec


def batch(lengths=(6, 3, 1), vocabulary=32):
    generator = torch.Generator().manual_seed(4)
    input_ids = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
    mask = torch.zeros_like(input_ids)
    for row, length in enumerate(lengths):
        input_ids[row, :length] = torch.randint(2, vocabulary, (length,), generator=generator)
        mask[row, :length] = 1
    return input_ids, mask, torch.randn(len(lengths), VISUAL, FEATURE_DIM, generator=generator)


def exhaustive(model, label_ids, ids, mask, features):
    """One forward a label: the sum of its tokens' log-probabilities."""
    columns = []
    for label in label_ids:
        output = model(ids, mask, torch.tensor([label]).expand(len(ids), -1), features)
        columns.append(-output.loss_per_example * len(label))
    return torch.stack(columns, dim=1).detach()


@pytest.mark.parametrize("lengths", [(6, 3, 1), (4, 4, 4)], ids=["padded", "even"])
@pytest.mark.parametrize("with_image", [True, False])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("kind", ["t5", "t5-v1.1", *SAVE_TINY])
def test_scores_equal_one_forward_a_label(folders, kind, attention, with_image, lengths):
    model, _ = make(folders[kind], attention=attention)
    ids, mask, features = batch(lengths)
    image = features if with_image else None
    scores = model.score_labels(ids, mask, image, labels=LabelTrie.build(IDS))
    expected = exhaustive(model, IDS, ids, mask, image)
    torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(scores.argmax(dim=1), expected.argmax(dim=1))


@pytest.mark.parametrize("bias", ["zero", "sequential"])
def test_scores_follow_t5s_rule_for_visual_tokens(t5_folder, bias):
    model, _ = make(t5_folder, visual_position_bias=bias)
    inputs = batch()
    expected = exhaustive(model, IDS, *inputs)
    torch.testing.assert_close(model.score_labels(*inputs, labels=LabelTrie.build(IDS)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["t5", "gpt2", "llama"])
def test_one_source_pass_and_one_target_pass_a_batch(folders, kind):
    model, _ = make(folders[kind])
    model.score_labels(*batch(), labels=LabelTrie.build(IDS))  # a decoder-only model has then read the prompt
    language_model = model.backbone.model
    calls = []
    first = {"t5": ("encoder.block.0", "decoder.block.0.layer.0"), "gpt2": ("h.0",), "llama": ("layers.0",)}[kind]
    for name in first:
        (language_model if kind == "t5" else language_model.base_model).get_submodule(name).register_forward_hook(
            lambda *_: calls.append(1)
        )
    model.score_labels(*batch(), labels=LabelTrie.build(IDS))
    assert len(calls) == len(first)


@pytest.mark.parametrize(("lengths", "masks"), [((6, 3, 1), 3), ((4, 4, 4), 1)], ids=["padded", "even"])
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_texts_without_padding_have_one_mask_together(folders, kind, lengths, masks):
    model, _ = make(folders[kind])
    model.score_labels(*batch(lengths), labels=LabelTrie.build(IDS))  # reads the prompt, with a mask of its own
    seen = []
    block = model.backbone.model.base_model.get_submodule({"gpt2": "h.0", "llama": "layers.0"}[kind])
    block.register_forward_pre_hook(
        lambda _, given, named: seen.extend(
            len(value) for value in (*given, *named.values()) if isinstance(value, torch.Tensor) and value.ndim == 4
        ),
        with_kwargs=True,
    )
    model.score_labels(*batch(lengths), labels=LabelTrie.build(IDS))
    assert seen == [masks]


def test_shared_prefixes_are_read_once():
    trie = LabelTrie.build(IDS)
    # 5, 5 6, 5 6 7, 5 6 8, 5 6 8 9, 10, 11, 11 5, 11 5 6, 11 5 6 7; the ends are predicted and never read
    assert len(trie.tokens) == 10
    assert trie.longest == 4
    assert trie.ancestor_mask.diagonal().all()
    assert torch.equal(trie.ancestor_mask.sum(dim=1) - 1, trie.depths)


@pytest.mark.parametrize("kind", ["t5", "gpt2"])
def test_the_only_label_of_one_token_needs_no_node(folders, kind):
    model, _ = make(folders[kind])
    inputs = batch()
    scores = model.score_labels(*inputs, labels=LabelTrie.build([[5]]))
    torch.testing.assert_close(scores, exhaustive(model, [[5]], *inputs), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["t5", *SAVE_TINY])
def test_scores_under_bf16_autocast_are_near(folders, kind):
    model, _ = make(folders[kind])
    trie, inputs = LabelTrie.build(IDS), batch()
    expected = model.score_labels(*inputs, labels=trie)
    with torch.autocast("cpu", torch.bfloat16):
        scores = model.score_labels(*inputs, labels=trie)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, expected, rtol=0.05, atol=0.5)


def test_scoring_is_without_dropout_and_restores_the_mode(t5_folder):
    model, _ = make(t5_folder, dropout_rate=0.5)
    model.train()
    trie, inputs = LabelTrie.build(IDS), batch()
    first = model.score_labels(*inputs, labels=trie)
    assert torch.equal(first, model.score_labels(*inputs, labels=trie))
    assert model.training
    assert not first.requires_grad


@pytest.mark.parametrize("labels", [("0", "1"), ("entailment", "neutral", "contradiction"), ("True", "False")])
def test_labels_of_the_real_t5_tokenizer(excerpt, tmp_path, labels):
    """ "0" is two pieces, and shares its first with "1"."""
    torch.manual_seed(0)
    shape = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 0}
    T5ForConditionalGeneration(T5Config(vocab_size=32128, **shape)).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(excerpt / "t5_tokenizer").save_pretrained(str(tmp_path))
    model, codec = make(tmp_path, feature_dim=None)
    label_ids = codec.label_ids(labels, 10)
    if labels == ("0", "1"):
        assert len(label_ids[0]) == 3
    ids, mask, _ = batch(vocabulary=32000)
    expected = exhaustive(model, label_ids, ids, mask, None)
    scores = model.score_labels(ids, mask, labels=LabelTrie.build(label_ids))
    torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-5)
