"""Decoder-only backbones in the assembly: layout, padding, loss, gradients, generation."""

import itertools
import json
import shutil
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoTokenizer

from dept_vl.errors import CheckpointError, ConfigError, DataError
from dept_vl.models.adapter.files import save_adapter
from dept_vl.models.build import build_model, load_model
from dept_vl.models.config import ModelConfig
from dept_vl.models.language.load import backbone_config, load_backbone, meta_backbone
from dept_vl.tuners import DeptConfig
from tests.models.language.causal_folders import (
    POSITIONS,
    SAVE_TINY,
    WINDOW,
    save_tiny_gpt2,
    save_tiny_llama,
    set_attention,
)

FEATURE_DIM, VISUAL, S = 10, 5, 8
TUNER = DeptConfig(budget_tokens=9, num_virtual_tokens=3, prompt_init="random", allow_nearest=True)


@pytest.fixture(scope="module", params=SAVE_TINY)
def folder(request, tmp_path_factory):
    return SAVE_TINY[request.param](tmp_path_factory.mktemp(request.param))


def make(folder, *, tuner=TUNER, feature_dim=FEATURE_DIM, attention="sdpa", s=S, **settings):
    """A model whose low-rank pair has moved from its start."""
    config = ModelConfig(backbone=str(folder), **settings)
    model, _ = build_model(config, tuner, max_source_length=s, feature_dim=feature_dim, seed=0)
    set_attention(model, attention)
    with torch.no_grad():
        model.tuner.lowrank_b.normal_(generator=torch.Generator().manual_seed(3))
    return model.eval()


def batch(lengths=(6, 3, 1), targets=(4, 2, 3)):
    generator = torch.Generator().manual_seed(4)
    input_ids = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
    mask = torch.zeros_like(input_ids)
    labels = torch.full((len(targets), max(targets)), -100)
    for row, (length, target) in enumerate(zip(lengths, targets, strict=True)):
        input_ids[row, :length] = torch.randint(2, 32, (length,), generator=generator)
        mask[row, :length] = 1
        labels[row, :target] = torch.randint(2, 32, (target,), generator=generator)
    return input_ids, mask, labels, torch.randn(len(lengths), VISUAL, FEATURE_DIM, generator=generator)


def positions_of(folder):
    """As its configuration has them, in which the sliding windows are the shorter."""
    stored = json.loads((folder / "config.json").read_text())
    return WINDOW if stored["model_type"] in ("gemma2", "gemma3_text", "mistral") else POSITIONS


def padding_of(folder):
    """The tokenizer's own padding; the end of sequence where it has none."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id


def source_embeds(model, text_ids, features):
    """[prompt; text; visual; cue] of one unpadded example, written out."""
    tuner, read = model.tuner, model.backbone.model.get_input_embeddings()
    update = (tuner.lowrank_a @ tuner.lowrank_b * tuner.scaling)[S - len(text_ids) :]
    tokens = [*tuner.soft_prompt, *(vector + update[i] for i, vector in enumerate(read(text_ids)))]
    tokens += [] if features is None else list(model.visual_projection(features[None], read.weight)[0])
    return torch.stack([*tokens, *read(torch.tensor(model.frame.tail, dtype=torch.long))])


@pytest.mark.parametrize("projection", ["linear", "vl-t5"])
@pytest.mark.parametrize("with_image", [True, False])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_logits_are_plain_transformers_on_each_example_alone(folder, with_image, attention, projection):
    model = make(folder, attention=attention, visual_projection=projection)
    ids, mask, labels, features = batch()
    output = model(ids, mask, labels, features if with_image else None)
    for row, (length, target) in enumerate(zip([6, 3, 1], [4, 2, 3], strict=True)):
        source = source_embeds(model, ids[row, :length], features[row] if with_image else None)
        embeds = torch.cat([source, model.backbone.model.get_input_embeddings()(labels[row, : target - 1])])
        plain = model.backbone.model(inputs_embeds=embeds[None]).logits[0, len(source) - 1 :]
        torch.testing.assert_close(output.logits[row, :target], plain, rtol=1e-5, atol=1e-5)
        losses = torch.nn.functional.cross_entropy(plain, labels[row, :target])
        torch.testing.assert_close(output.loss_per_example[row], losses, rtol=1e-5, atol=1e-5)


def test_the_output_matrix_is_not_copied_for_every_row(folder):
    class Copies(TorchDispatchMode):
        found = 0

        def __torch_dispatch__(self, function, types, arguments=(), options=None):
            matrix = arguments[1] if function is torch.ops.aten.bmm.default else None
            self.found += matrix is not None and matrix.stride(0) == 0 and matrix.shape[-1] == vocabulary
            return function(*arguments, **(options or {}))

    model = make(folder)
    vocabulary = model.backbone.word_embeddings.shape[0]
    with Copies() as copies:
        model(*batch()).loss_per_example.sum().backward()
    assert copies.found == 0


@pytest.mark.parametrize("alignment", ["first-token", "last-token"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_logits_do_not_depend_on_padding_or_batch_mates(folder, attention, alignment):
    tuner = DeptConfig(budget_tokens=9, num_virtual_tokens=3, allow_nearest=True, row_alignment=alignment)
    model = make(folder, attention=attention, tuner=tuner)
    if model.backbone._has_plain_attention:  # one row reads its prompt itself, which float32's rounding shows
        model.backbone.model.double()
    ids, mask, labels, features = batch()
    together = model(ids, mask, labels, features)
    widened = [torch.nn.functional.pad(tensor, (0, S - 6)) for tensor in (ids, mask)]
    padded = model(*widened, torch.nn.functional.pad(labels, (0, 3), value=-100), features)
    for row, (length, target) in enumerate(zip([6, 3, 1], [4, 2, 3], strict=True)):
        one = slice(row, row + 1)
        alone = model(ids[one, :length], mask[one, :length], labels[one, :target], features[one])
        for other in (together, padded):
            torch.testing.assert_close(other.logits[row, :target], alone.logits[0], rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(other.loss_per_example[row], alone.loss_per_example[0], rtol=1e-5, atol=1e-5)


def test_content_of_padding_is_never_read(folder):
    model = make(folder)
    ids, mask, labels, features = batch()
    rubbish = torch.where(mask == 0, 17, ids)
    assert torch.equal(model(ids, mask, labels, features).logits, model(rubbish, mask, labels, features).logits)


def test_every_source_ends_at_the_same_place_and_counts_its_own_positions(folder):
    model, (ids, mask, _, features) = make(folder), batch()
    joint = model.joint_input(ids, mask, features)
    shared = 3 if model.backbone._has_plain_attention else 0  # the prompt, where it is read once
    assert joint.num_shared == shared
    total = 3 - shared + 6 + VISUAL + len(model.frame.tail)
    assert joint.attention_mask.tolist() == [[0] * pad + [1] * (total - pad) for pad in (0, 3, 5)]
    assert joint.position_ids[1].tolist() == [shared] * 3 + list(range(shared, shared + total - 3))
    joint = model.backbone.join(model.tuner.embed(model.backbone.embed_tokens(ids)), None, mask)
    assert joint.attention_mask.tolist() == [[1] * 9, [0] * 3 + [1] * 6, [0] * 5 + [1] * 4]
    assert joint.position_ids[1].tolist() == [0, 0, 0, *range(6)]


def test_with_an_image_the_cue_stands_right_before_the_answer(folder):
    model = make(folder)
    ids, mask, _, features = batch()
    joint = model.joint_input(ids, mask, features)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert list(model.frame.tail) == tokenizer(" Label :", add_special_tokens=False)["input_ids"]
    words = model.backbone.model.get_input_embeddings()(torch.tensor(model.frame.tail))
    assert all(torch.equal(row[-len(words) :], words) for row in joint.inputs_embeds)
    without = make(folder, feature_dim=None)
    assert without.frame.tail == ()
    assert without.answer_cue == model.answer_cue == " Label :"


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_reach_every_trainable_tensor_and_no_other(folder, checkpointing):
    gradients = []
    for is_on in (False, checkpointing):
        model = make(folder, gradient_checkpointing=is_on, dropout_rate=0.0).train()
        model(*batch()).loss_per_example.mean().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
        trainable = {name for name, p in model.named_parameters() if p.requires_grad}
        assert set(gradients[-1]) == trainable == {
            "tuner.soft_prompt", "tuner.lowrank_a", "tuner.lowrank_b",
            "visual_projection.linear.weight", "visual_projection.linear.bias",
        }  # fmt: skip
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name])


def test_dropout_is_the_settings_own(folder):
    arguments = batch()
    without = make(folder, dropout_rate=0.0)
    assert torch.equal(without.train()(*arguments).logits, without.eval()(*arguments).logits)
    with_dropout = make(folder, dropout_rate=0.5).train()
    assert not torch.equal(with_dropout(*arguments).logits, with_dropout(*arguments).logits)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_bf16_autocast(folder, attention):
    model = make(folder, attention=attention)
    expected = model(*batch())
    with torch.autocast("cpu", torch.bfloat16):
        output = model(*batch())
    torch.testing.assert_close(output.loss_per_example, expected.loss_per_example, rtol=0.05, atol=0.1)
    output.loss_per_example.mean().backward()
    assert {p.grad.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}


@pytest.mark.parametrize("with_image", [True, False])
def test_greedy_generation_equals_a_loop_of_forwards(folder, with_image):
    model = make(folder)
    ids, mask, _, features = batch()
    generated = model.generate(ids, mask, features if with_image else None, max_new_tokens=6)
    for row, length in enumerate([6, 3, 1]):
        tokens = []
        embeds = source_embeds(model, ids[row, :length], features[row] if with_image else None)
        while len(tokens) < 6 and 1 not in tokens:
            words = model.backbone.model.get_input_embeddings()(torch.tensor(tokens, dtype=torch.long))
            tokens.append(
                int(model.backbone.model(inputs_embeds=torch.cat([embeds, words])[None]).logits[0, -1].argmax())
            )
        assert generated[row, : len(tokens)].tolist() == tokens
        assert (generated[row, len(tokens) :] == padding_of(folder)).all()


def test_beam_search_finds_the_best_of_all_short_answers(folder):
    model = make(folder)
    ids, mask, _, features = batch()
    generated = model.generate(ids, mask, features, num_beams=16, max_new_tokens=2)
    candidates = [(1,), *((a, b) for a, b in itertools.product(range(32), repeat=2) if a != 1)]
    labels = torch.full((len(candidates), 2), -100)
    for index, candidate in enumerate(candidates):
        labels[index, : len(candidate)] = torch.tensor(candidate)
    for row in range(3):
        repeated = [tensor[row : row + 1].expand(len(candidates), *tensor.shape[1:]) for tensor in (ids, mask)]
        losses = model(*repeated, labels, features[row : row + 1].expand(len(candidates), -1, -1)).loss_per_example
        best = candidates[int(losses.argmin())]  # the mean log-probability is beam search's score
        assert generated[row, : len(best)].tolist() == list(best)


def test_generation_is_quiet_without_dropout_and_restores_the_mode(folder, capfd, caplog, recwarn):
    model = make(folder, dropout_rate=0.5).train()
    ids, mask, _, features = batch()
    first = model.generate(ids, mask, features, num_beams=3, max_new_tokens=30)
    assert torch.equal(first, model.generate(ids, mask, features, num_beams=3, max_new_tokens=30))
    assert model.training
    captured = capfd.readouterr()
    assert (captured.out, captured.err, caplog.records, list(recwarn)) == ("", "", [], [])


@pytest.mark.parametrize("use", ["forward", "generate"])
def test_an_input_longer_than_the_positions_names_both(folder, use):
    limit = positions_of(folder)
    tuner = DeptConfig(budget_tokens=limit - 24, num_virtual_tokens=3, allow_nearest=True)
    model = make(folder, s=limit - 4, tuner=tuner)
    ids, mask, labels, features = batch(lengths=(limit - 9, 2), targets=(4, 2))
    source = limit - 9 + 3 + VISUAL + len(model.frame.tail)
    expected = rf"a source of {source} tokens .* and 3 tokens .* {source + 3} positions.* has {limit} \("
    with pytest.raises(DataError, match=expected):
        model(ids, mask, labels, features) if use == "forward" else model.generate(
            ids, mask, features, max_new_tokens=4
        )


def test_a_prompt_and_text_length_without_room_are_refused_before_training(folder):
    limit = positions_of(folder)
    expected = rf"data\.max_source_length: a prompt of 3 .* {limit - 3} tokens .* {limit} positions"
    with pytest.raises(ConfigError, match=expected):
        make(folder, s=limit - 3)


def test_t5s_relative_bias_is_refused(folder):
    with pytest.raises(ConfigError, match=r"model\.visual_position_bias: 'zero' is a rule for T5's"):
        make(folder, visual_position_bias="zero")


def test_a_tokenizer_without_an_end_of_sequence_is_refused(folder, tmp_path):
    copied = shutil.copytree(folder, tmp_path / "copy")
    for path in copied.glob("tokenizer_config.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token": None}))
    (copied / "special_tokens_map.json").unlink(missing_ok=True)
    with pytest.raises(ConfigError, match="no end-of-sequence token"):
        make(copied)


def test_an_adapter_records_the_family_and_the_cue_and_comes_back(folder, tmp_path):
    model = make(folder)
    model.save_pretrained(tmp_path)
    described = json.loads((tmp_path / "adapter_config.json").read_text())
    assert described["backbone"]["family"] == model.backbone.family
    assert described["backbone"]["num_decoder_layers"] is None
    assert described["visual"]["position_bias"] is None
    assert (described["answer_cue"], described["answer_form"]) == (" Label :", "plain")
    loaded, codec = load_model(tmp_path, model.config)
    assert (codec.answer_cue, codec.answer_form, loaded.frame.tail) == (" Label :", "plain", model.frame.tail)
    assert not loaded.training
    assert torch.equal(loaded(*batch()).logits, model(*batch()).logits)
    with pytest.raises(CheckpointError, match=r"data\.answer_cue: saved for ' Label :', this run has ' ='"):
        load_model(tmp_path, model.config, answer_cue=" =")
    with pytest.raises(CheckpointError, match=r"data\.answer_form: saved for 'plain', this run has 'released'"):
        load_model(tmp_path, model.config, answer_form="released")


def test_an_adapter_that_says_no_form_is_of_the_released_one(folder, tmp_path):
    config = ModelConfig(backbone=str(folder))
    sizes = {"max_source_length": S, "feature_dim": FEATURE_DIM, "seed": 0}
    model = build_model(config, TUNER, **sizes, answer_form="released")[0].eval()
    saved = replace(model.adapter_config(), answer_form=None)  # as before there was another
    save_adapter(tmp_path, model.trainable_state(), saved, "")
    loaded, codec = load_model(tmp_path, config)
    assert (codec.answer_form, codec.answer_cue, loaded.frame.tail) == ("released", " Label : ", ())
    assert torch.equal(loaded(*batch()).logits, model(*batch()).logits)


def test_an_adapter_of_another_family_is_refused(t5_folder, tmp_path):
    make(save_tiny_gpt2(tmp_path / "gpt2"), feature_dim=None).save_pretrained(tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"backbone\.family: saved for 'gpt2', this run has 't5'"):
        load_model(tmp_path / "run", ModelConfig(backbone=str(t5_folder)))


def test_dropout_of_gpt2_is_set_everywhere(tmp_path):
    model = load_backbone(str(save_tiny_gpt2(tmp_path)), dropout_rate=0.25)[0].model
    assert {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)} == {0.25}


def test_shape_of_a_local_llama_is_counted_without_weights(tmp_path):
    folder = save_tiny_llama(tmp_path)
    loaded = load_backbone(str(folder))[0]
    (folder / "model.safetensors").unlink()
    counted = meta_backbone(backbone_config(str(folder)))
    assert sum(p.numel() for p in counted.parameters()) == sum(p.numel() for p in loaded.parameters())
