"""Each decoder-only family against plain transformers, and what one has that the others have not."""

import json
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from dept_vl.cli import main
from dept_vl.errors import ConfigError, DataError
from dept_vl.models.build import build_model
from dept_vl.models.config import ModelConfig
from dept_vl.models.language.families import stored_family
from dept_vl.models.language.label_trie import LabelTrie
from dept_vl.models.language.load import load_backbone
from dept_vl.models.magnitudes import embedding_size
from dept_vl.tuners import DeptConfig, PromptTuningConfig
from dept_vl.tuners.places.sites import Site
from tests.models.language.causal_folders import POSITIONS, SAVE_TINY, WINDOW

PROMPT = [5, 17, 9]
TEXTS = [[4, 8, 21, 30, 6, 11], [7, 3, 12]]
ANSWERS = [[9, 14, 2, 1], [20, 1]]
SCALED = ("gemma", "gemma2", "gemma3_text")
SLIDING = ("gemma2", "gemma3_text", "mistral")


@pytest.fixture(scope="module", params=SAVE_TINY)
def folder(request, folders):
    return folders[request.param]


@pytest.fixture
def edited(folders, tmp_path):
    """A copy of a tiny model with other settings; those that are None are left out."""

    def edit(kind, **settings):
        copied = shutil.copytree(folders[kind], tmp_path / kind)
        stored = json.loads((copied / "config.json").read_text()) | settings
        kept = {key: value for key, value in stored.items() if key not in settings or value is not None}
        (copied / "config.json").write_text(json.dumps(kept))
        return copied

    return edit


def plain(folder, **options):
    """What transformers makes of a folder, its attention written out."""
    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", **options).eval()


def prompted(folder, s=8):
    """A model whose prompt is words, as transformers reads them."""
    tuner = PromptTuningConfig(num_virtual_tokens=len(PROMPT))
    config = ModelConfig(backbone=str(folder))
    model, _ = build_model(config, tuner, max_source_length=s, feature_dim=None, seed=0)
    with torch.no_grad():
        model.tuner.soft_prompt.copy_(plain(folder).get_input_embeddings()(torch.tensor(PROMPT)))
    return model.eval()


def padded(rows, value):
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows])


def batch():
    return padded(TEXTS, 0), padded([[1] * len(row) for row in TEXTS], 0)


def test_a_prompt_of_words_is_those_words_before_the_text(folder):
    model, other = prompted(folder), plain(folder)
    with torch.no_grad():
        found = model(*batch(), padded(ANSWERS, -100)).logits
        for row, (text, answer) in enumerate(zip(TEXTS, ANSWERS, strict=True)):
            read = torch.tensor([[*PROMPT, *text, *answer[:-1]]])
            expected = other(input_ids=read).logits[0, len(PROMPT) + len(text) - 1 :]
            torch.testing.assert_close(found[row, : len(answer)], expected, rtol=1e-5, atol=1e-5)


def test_greedy_answers_are_those_of_a_loop_over_the_words(folder):
    model, other = prompted(folder), plain(folder)
    generated = model.generate(*batch(), max_new_tokens=6)
    for row, text in enumerate(TEXTS):
        tokens = []
        while len(tokens) < 6 and 1 not in tokens:
            with torch.no_grad():
                tokens.append(int(other(input_ids=torch.tensor([[*PROMPT, *text, *tokens]])).logits[0, -1].argmax()))
        assert generated[row, : len(tokens)].tolist() == tokens


def test_beams_are_those_of_a_search_written_out(folder):
    model, other = prompted(folder), plain(folder)
    generated = model.generate(*batch(), num_beams=3, max_new_tokens=4)
    for row, text in enumerate(TEXTS):
        best = search(other, [*PROMPT, *text], beams=3, steps=4)
        assert generated[row, : len(best)].tolist() == best


def search(model, source, *, beams, steps):
    """Beam search with the mean log-probability as score; a beam that has ended stays, and at most `beams` have."""
    running, ended = [([], 0.0)], []
    for step in range(1, steps + 1):
        with torch.no_grad():
            rows = torch.tensor([[*source, *tokens] for tokens, _ in running])
            scores = model(input_ids=rows).logits[:, -1].log_softmax(dim=-1)
        grown = [
            ([*tokens, word], total + float(scores[row, word]))
            for row, (tokens, total) in enumerate(running)
            for word in range(scores.shape[1])
        ]
        grown = sorted(grown, key=lambda beam: -beam[1])[: 2 * beams]
        ended += [(total / step, tokens) for tokens, total in grown[:beams] if tokens[-1] == 1]
        ended = sorted(ended, reverse=True)[:beams]
        running = [beam for beam in grown if beam[0][-1] != 1][:beams]
        if len(ended) == beams and ended[-1][0] >= running[0][1] / step:
            break
    return max([*ended, *((total / len(tokens), tokens) for tokens, total in running)])[1]


def test_labels_have_the_log_likelihood_of_their_words(folder):
    model, other = prompted(folder), plain(folder)
    labels = [[9, 14, 1], [9, 2, 6, 1], [20, 1]]
    scores = model.score_labels(*batch(), labels=LabelTrie.build(labels))
    for row, text in enumerate(TEXTS):
        for number, label in enumerate(labels):
            with torch.no_grad():
                logits = other(input_ids=torch.tensor([[*PROMPT, *text, *label[:-1]]])).logits[0, -len(label) :]
            expected = logits.log_softmax(dim=-1)[range(len(label)), label].sum()
            torch.testing.assert_close(scores[row, number], expected, rtol=1e-5, atol=1e-5)


def test_info_counts_what_is_there(folder, capsys):
    backbone = load_backbone(str(folder))[0]
    sites = backbone.tuner_context(8).sites
    q_and_v = [sites[Site("decoder", layer, part)] for layer in (0, 1) for part in ("self_attn.q", "self_attn.v")]
    words = ["--tuner", "lora", "--tuner.rank", "3", "--data.max_source_length", "16"]
    assert main(["info", "--task", "cola", "--model.backbone", str(folder), *words]) == 0
    out = capsys.readouterr().out
    assert f"{sum(parameter.numel() for parameter in backbone.parameters()):,}" in out
    assert f"{sum(3 * (site.inputs + site.outputs) for site in q_and_v):,}" in out


def test_every_family_has_the_epsilon_of_its_norms(folder):
    assert load_backbone(str(folder))[0].layer_norm_epsilon == pytest.approx(1e-5)


def test_the_prompt_stands_before_the_beginning_of_sequence(folder):
    """As in PEFT: what the tokenizer begins a text with is the text's first token."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = prompted(folder, s=32)
    codec = model.backbone.codec_class(tokenizer)
    (ids,) = codec.source_ids(["red cube"], 32)
    assert (ids[0] == tokenizer.bos_token_id) == (model.backbone.family not in ("gpt2", "qwen2"))
    joint = model.joint_input(torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.long))
    words = plain(folder).get_input_embeddings()(torch.tensor([[*PROMPT, *ids]]))
    assert torch.equal(joint.inputs_embeds, words)


@pytest.mark.parametrize("kind", SCALED)
def test_prompts_are_of_the_size_of_words_that_are_scaled(folders, kind):
    """Gemma multiplies its table by sqrt(d_model) inside the module, and `inputs_embeds` are not multiplied again."""
    backbone = load_backbone(str(folders[kind]))[0]
    table = backbone.word_embeddings
    torch.testing.assert_close(backbone.embed_tokens(torch.arange(32)), 4.0 * table)
    assert embedding_size(backbone) == pytest.approx(4.0 * float(table.square().mean().sqrt()), rel=1e-6)
    tuner = DeptConfig(budget_tokens=4, num_virtual_tokens=2, allow_nearest=True)
    prompt = tuner.build(backbone.tuner_context(8, tokenize=lambda _: [5])).soft_prompt
    assert all((4.0 * table - vector).abs().sum(dim=1).min() < 1e-6 for vector in prompt)


@pytest.mark.parametrize("kind", SLIDING)
def test_an_input_as_long_as_the_window_is_read_whole_and_a_longer_one_is_refused(folders, edited, kind):
    whole = plain(edited(kind, sliding_window=POSITIONS))
    windowed = plain(folders[kind])
    words = torch.arange(WINDOW + 4).remainder(29).add(2)[None]
    with torch.no_grad():
        torch.testing.assert_close(windowed(words[:, :WINDOW]).logits, whole(words[:, :WINDOW]).logits)
        assert not torch.allclose(windowed(words).logits, whole(words).logits, atol=1e-2)
    model = prompted(folders[kind], s=WINDOW - 6)
    ids = words[:, 3 : WINDOW - 3]
    labels = torch.tensor([[9, 14, 2, 1]])  # the last is not read
    with torch.no_grad():
        found = model(ids, torch.ones_like(ids), labels).logits[0]
        read = torch.tensor([[*PROMPT, *ids[0].tolist(), 9, 14, 2]])
        assert read.shape[1] == WINDOW
        torch.testing.assert_close(found, windowed(read).logits[0, -4:], rtol=1e-5, atol=1e-5)
    assert model.generate(ids, torch.ones_like(ids), max_new_tokens=4).shape[0] == 1
    expected = rf"need {WINDOW + 1} positions, and the backbone has {WINDOW} \({kind}'s sliding_window; longer inputs"
    for use in (lambda: model(ids, torch.ones_like(ids), torch.tensor([[9, 14, 2, 2, 1]])),
                lambda: model.generate(ids, torch.ones_like(ids), max_new_tokens=5)):  # fmt: skip
        with pytest.raises(DataError, match=expected):
            use()
    with pytest.raises(ConfigError, match=rf"leave no room .* {WINDOW} positions of this {kind} backbone \(sliding_w"):
        prompted(folders[kind], s=WINDOW - 3)


@pytest.mark.parametrize(
    ("kind", "settings", "positions"),
    [
        ("qwen2", {"sliding_window": 20}, POSITIONS),
        ("qwen2", {"sliding_window": 20, "use_sliding_window": True, "max_window_layers": 1, "layer_types": None}, 20),
        ("qwen2", {"sliding_window": 20, "use_sliding_window": True, "max_window_layers": 2, "layer_types": None}, 64),
        ("qwen3", {"sliding_window": 20, "use_sliding_window": True, "layer_types": ["sliding_attention"] * 2}, 20),
        ("smollm3", {"sliding_window": 20, "use_sliding_window": True, "layer_types": None}, 20),
        ("mistral", {"sliding_window": 100}, POSITIONS),
        ("mistral", {"sliding_window": None}, POSITIONS),  # then it is 4,096
        ("gemma2", {"layer_types": ["full_attention"] * 2}, POSITIONS),
        ("gemma3_text", {"layer_types": None}, WINDOW),
        ("gemma", {}, POSITIONS),
        ("llama", {"sliding_window": 20}, POSITIONS),
    ],
)
def test_a_window_that_some_block_has_is_the_limit(edited, kind, settings, positions):
    copied = edited(kind, **settings)
    assert load_backbone(str(copied))[0].max_positions.count == positions
    family, stored = stored_family(str(copied))
    assert family.max_positions(stored).count in (positions, POSITIONS)  # without layer_types that is not said


def test_a_mistral_whose_window_is_null_has_none(folders, tmp_path):
    copied = shutil.copytree(folders["mistral"], tmp_path / "mistral")
    stored = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(stored | {"sliding_window": None}))
    backbone = load_backbone(str(copied))[0]
    assert backbone.max_positions == stored_family(str(copied))[0].max_positions(stored | {"sliding_window": None})
    assert backbone.max_positions.count == POSITIONS


@pytest.mark.parametrize("cap", ["attn_logit_softcapping", "final_logit_softcapping"])
def test_gemma_2_s_caps_bite_here(folders, edited, cap):
    """Or what is tested with them were true without."""
    words = torch.tensor([[*PROMPT, *TEXTS[0]]])
    without = edited("gemma2")
    stored = json.loads((without / "config.json").read_text())
    (without / "config.json").write_text(json.dumps(stored | {cap: None}))
    with torch.no_grad():
        capped, free = (plain(one)(words).logits for one in (folders["gemma2"], without))
    assert not torch.allclose(capped, free, atol=1e-2)
    if cap == "final_logit_softcapping":  # scores still have theirs, which torch's fused attention would leave out
        assert load_backbone(str(without))[0].model.config._attn_implementation == "eager"
    model = prompted(without)
    with torch.no_grad():
        found = model(torch.tensor([TEXTS[0]]), torch.ones(1, 6, dtype=torch.long), torch.tensor([[9]])).logits[0]
    torch.testing.assert_close(found, free[0, -1:], rtol=1e-5, atol=1e-5)


def test_what_lies_between_the_sublayers_of_gemma_2_is_no_place(folders):
    backbone = load_backbone(str(folders["gemma2"]))[0]
    block = backbone.model.model.layers[1]
    assert backbone.places[Site("decoder", 1, "self_attn.norm")].module is block.input_layernorm
    assert backbone.places[Site("decoder", 1, "ff.norm")].module is block.pre_feedforward_layernorm
    modules = {id(place.module) for place in backbone.places.values()}
    assert not modules & {id(block.post_attention_layernorm), id(block.post_feedforward_layernorm)}


@pytest.mark.parametrize("kind", ["qwen3", "gemma", "gemma2", "gemma3_text", "mistral"])
def test_heads_are_as_wide_as_the_settings_say(folders, kind):
    """Six, of a model of 16 with four."""
    backbone = load_backbone(str(folders[kind]))[0]
    shape = backbone.attentions[Site("decoder", 0, "self_attn")].shape
    assert (shape.heads, shape.head_width) == (2, 6)
    sites = backbone.tuner_context(8).sites
    assert (sites[Site("decoder", 0, "self_attn.q")].outputs, sites[Site("decoder", 0, "self_attn.k")].outputs) == (
        24,
        12,
    )


def test_a_block_of_smollm3_has_no_positions(folders):
    layers = load_backbone(str(folders["smollm3"]))[0].model.model.layers
    assert [bool(layer.self_attn.use_rope) for layer in layers] == [True, False]


@pytest.mark.parametrize("kind", SAVE_TINY)
def test_the_output_matrix_is_the_words_where_the_settings_say_so(folders, kind):
    stored = json.loads((folders[kind] / "config.json").read_text())
    backbone = load_backbone(str(folders[kind]))[0]
    assert (backbone.model.lm_head.weight is backbone.word_embeddings) == stored["tie_word_embeddings"]
    assert stored["tie_word_embeddings"] == (kind in ("gpt2", *SCALED, "smollm3"))


@pytest.mark.parametrize("kind", SCALED)
def test_a_gemma_that_reads_in_both_directions_is_refused(edited, capsys, kind):
    """EmbeddingGemma is such a one."""
    copied = edited(kind, use_bidirectional_attention=True)
    expected = "reads a text in both directions"
    with pytest.raises(ConfigError, match=expected) as early:
        stored_family(str(copied))
    with pytest.raises(ConfigError, match=expected) as late:
        load_backbone(str(copied))
    assert str(early.value) == str(late.value)
    assert main(["info", "--task", "cola", "--tuner", "lora", "--model.backbone", str(copied)]) == 2
    assert expected in capsys.readouterr().err


def test_qwen2_s_own_biases_are_those_that_bitfit_trains(folders):
    from tests.tuners.adapted import make, settings

    model = make(folders["qwen2"], settings("bitfit"), feature_dim=None)
    trained = {name for name, parameter in model.backbone.named_parameters() if parameter.requires_grad}
    parts = (f"self_attn.{part}_proj.bias" for part in "qkv")
    assert trained == {f"model.model.layers.{n}.{part}" for part in parts for n in (0, 1)}
