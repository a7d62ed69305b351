"""The assembled model: what it reads, its loss, its gradients and its generation."""

import itertools

import pytest
import torch
from transformers.modeling_outputs import BaseModelOutput

from dept_vl.errors import DataError
from dept_vl.models.build import build_model
from dept_vl.models.config import ModelConfig
from dept_vl.models.meta_model import build_meta_model
from dept_vl.tuners import DeptConfig, PromptTuningConfig

FEATURE_DIM, VISUAL, S = 10, 5, 8
TUNER = DeptConfig(budget_tokens=9, num_virtual_tokens=3, prompt_init="random", allow_nearest=True)


@pytest.fixture(params=["v1.0", "v1.1"])
def folder(request, t5_folder, t5_v1_1_folder):
    return t5_folder if request.param == "v1.0" else t5_v1_1_folder


def make(folder, *, tuner=TUNER, feature_dim=FEATURE_DIM, attention="sdpa", **settings):
    """A model whose low-rank pair has moved from its start, and whose output matrix makes answers vary."""
    config = ModelConfig(backbone=str(folder), **settings)
    model, _ = build_model(config, tuner, max_source_length=S, feature_dim=feature_dim, seed=0)
    model.backbone.model.set_attn_implementation(attention)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        if getattr(model.tuner, "lowrank_b", None) is not None:
            model.tuner.lowrank_b.normal_(generator=generator)
    return model.eval()


def batch(lengths=(6, 3, 1), targets=(4, 2, 3)):
    generator = torch.Generator().manual_seed(4)
    input_ids = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
    labels = torch.full((len(targets), max(targets)), -100)
    for row, (length, target) in enumerate(zip(lengths, targets, strict=True)):
        input_ids[row, :length] = torch.randint(2, 32, (length,), generator=generator)
        labels[row, :target] = torch.randint(2, 32, (target,), generator=generator)
    mask = (input_ids != 0).long()
    return input_ids, mask, labels, torch.randn(len(lengths), VISUAL, FEATURE_DIM, generator=generator)


def reference_hidden(model, text_ids, features):
    """The encoder's states of ONE unpadded example, from T5's weights, one head and one pair of tokens at a time."""
    t5, tuner = model.backbone.model, model.tuner
    update = tuner.lowrank_a @ tuner.lowrank_b * tuner.scaling
    tokens = [*tuner.soft_prompt, *(t5.shared.weight[token] + update[i] for i, token in enumerate(text_ids))]
    worded = len(tokens)
    tokens += [] if features is None else list(model.visual_projection(features[None], t5.shared.weight)[0])
    hidden = torch.stack(tokens)
    table = t5.encoder.block[0].layer[0].SelfAttention
    distances = torch.arange(len(tokens))[None, :] - torch.arange(len(tokens))[:, None]
    buckets = table._relative_position_bucket(distances, num_buckets=8, max_distance=20)
    bias = table.relative_attention_bias(buckets)  # (query, key, heads)
    if model.config.visual_position_bias == "zero":
        bias = bias.clone()
        bias[worded:], bias[:, worded:] = 0, 0
    for block in t5.encoder.block:
        attention, normed = block.layer[0].SelfAttention, block.layer[0].layer_norm(hidden)
        heads = []
        for head in range(2):
            rows = slice(8 * head, 8 * head + 8)
            query, key, value = (normed @ layer.weight[rows].T for layer in (attention.q, attention.k, attention.v))
            heads.append(torch.softmax(query @ key.T + bias[:, :, head], dim=-1) @ value)
        hidden = hidden + torch.cat(heads, dim=1) @ attention.o.weight.T
        hidden = block.layer[1](hidden)
    return t5.encoder.final_layer_norm(hidden)


@pytest.mark.parametrize("bias", ["zero", "sequential"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("with_image", [True, False])
def test_encoder_equals_a_plain_loop(folder, bias, attention, with_image):
    model = make(folder, visual_position_bias=bias, attention=attention)
    ids, mask, _, features = batch()
    encoder_input = model.joint_input(ids, mask, features if with_image else None)
    hidden = model.backbone.encode(encoder_input)
    for row, length in enumerate(mask.sum(dim=1).tolist()):
        expected = reference_hidden(model, ids[row, :length], features[row] if with_image else None)
        kept = hidden[row][encoder_input.attention_mask[row].bool()]
        torch.testing.assert_close(kept, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_sequential_without_padding_is_plain_t5(folder, attention):
    model = make(folder, visual_position_bias="sequential", attention=attention)
    ids, mask, _, features = batch(lengths=(4, 4), targets=(2, 2))
    encoder_input = model.joint_input(ids, mask, features)
    plain = model.backbone.model.encoder(inputs_embeds=encoder_input.inputs_embeds).last_hidden_state
    torch.testing.assert_close(model.backbone.encode(encoder_input), plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_text_only_is_plain_t5_on_the_same_embeddings(folder, attention):
    model = make(folder, feature_dim=None, attention=attention)
    ids, mask, labels, _ = batch()
    encoder_input = model.joint_input(ids, mask)
    plain = model.backbone.model(
        inputs_embeds=encoder_input.inputs_embeds, attention_mask=encoder_input.attention_mask, labels=labels
    )
    output = model(ids, mask, labels)
    torch.testing.assert_close(output.logits, plain.logits, rtol=1e-5, atol=1e-5)
    tokens = (labels != -100).sum(dim=1)
    torch.testing.assert_close((output.loss_per_example * tokens).sum() / tokens.sum(), plain.loss)


def test_loss_is_the_mean_over_each_examples_own_tokens(t5_folder):
    model = make(t5_folder)
    ids, mask, labels, features = batch()
    output = model(ids, mask, labels, features)
    probabilities = output.logits.log_softmax(dim=-1)
    for row, target in enumerate([4, 2, 3]):
        losses = [-probabilities[row, i, labels[row, i]] for i in range(target)]
        torch.testing.assert_close(output.loss_per_example[row], sum(losses) / target)


def test_example_without_label_tokens_has_loss_zero(t5_folder):
    model = make(t5_folder)
    ids, mask, labels, features = batch()
    labels[1] = -100
    assert model(ids, mask, labels, features).loss_per_example[1] == 0


@pytest.mark.parametrize("projection", ["linear", "vl-t5"])
@pytest.mark.parametrize("bias", ["zero", "sequential"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_logits_do_not_depend_on_padding_or_batch_mates(folder, bias, attention, projection):
    model = make(folder, visual_position_bias=bias, attention=attention, visual_projection=projection)
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


@pytest.mark.parametrize("bias", ["zero", "sequential"])
def test_content_of_padding_is_never_read(t5_folder, bias):
    model = make(t5_folder, visual_position_bias=bias)
    ids, mask, labels, features = batch()
    rubbish = torch.where(mask == 0, 17, ids)
    assert torch.equal(model(ids, mask, labels, features).logits, model(rubbish, mask, labels, features).logits)


def test_a_mask_is_used_even_where_padding_is_not_asked_for(t5_folder, monkeypatch):
    """On a GPU nobody asks whether there is padding; the numbers are those of the CPU's short cut."""
    model = make(t5_folder)
    ids, mask, _, features = batch(lengths=(4, 4), targets=(2, 2))
    quick = model.joint_input(ids, mask, features)
    assert not quick.has_padding
    assert quick.position_bias.shape[0] == 1
    monkeypatch.setattr(torch.Tensor, "all", lambda *_: torch.tensor(False))
    slow = model.joint_input(ids, mask, features)
    assert slow.position_bias.shape[0] == 2
    assert slow.decoder_mask().shape == (2, 1, 1, 12)
    monkeypatch.undo()
    torch.testing.assert_close(model.backbone.encode(slow), model.backbone.encode(quick), rtol=1e-5, atol=1e-5)


def test_visual_tokens_matter_and_their_order_only_when_sequential(t5_folder):
    ids, mask, labels, features = batch()
    zero, sequential = (make(t5_folder, visual_position_bias=kind) for kind in ("zero", "sequential"))
    for model, is_ordered in ((zero, False), (sequential, True)):
        logits = model(ids, mask, labels, features).logits
        assert not torch.allclose(logits, model(ids, mask, labels).logits, atol=1e-3)
        assert torch.allclose(logits, model(ids, mask, labels, features.flip(1)).logits, atol=1e-5) != is_ordered


def test_at_the_start_dept_is_prompt_tuning_with_the_same_prompt(t5_folder):
    config = ModelConfig(backbone=str(t5_folder))
    sizes = {"max_source_length": S, "feature_dim": FEATURE_DIM, "seed": 7}
    dept = build_model(config, DeptConfig(budget_tokens=9, num_virtual_tokens=3, allow_nearest=True), **sizes)[0]
    prompt = build_model(config, PromptTuningConfig(num_virtual_tokens=3), **sizes)[0]
    ids, mask, labels, features = batch()
    assert torch.equal(dept(ids, mask, labels, features).logits, prompt(ids, mask, labels, features).logits)


@pytest.mark.parametrize("m", [0, 9])
def test_no_prompt_and_no_low_rank_pair_work(t5_folder, m):
    model = make(t5_folder, tuner=DeptConfig(budget_tokens=9, num_virtual_tokens=m, allow_nearest=True))
    ids, mask, labels, features = batch()
    model(ids, mask, labels, features).loss_per_example.sum().backward()
    assert all(p.grad is not None for group in model.param_groups() for p in group.parameters)
    assert model.generate(ids, mask, features, max_new_tokens=2).shape[0] == 3


@pytest.mark.parametrize("checkpointing", [False, True])
def test_only_trainable_tensors_get_gradients_and_move(folder, checkpointing):
    model = make(folder, gradient_checkpointing=checkpointing).train()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    grouped = {id(p): group.name for group in model.param_groups() for p in group.parameters}
    assert set(grouped.values()) == {"soft_prompt", "lowrank", "visual_projection"}
    assert {id(p) for p in model.parameters() if p.requires_grad} == set(grouped)
    assert sum(len(group.parameters) for group in model.param_groups()) == len(grouped)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model(*batch()).loss_per_example.mean().backward()
    optimizer.step()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == (id(parameter) in grouped), name
        assert torch.equal(parameter, before[name]) == (id(parameter) not in grouped), name


def test_gradients_with_checkpointing_are_those_without(t5_folder):
    gradients = []
    for checkpointing in (False, True):
        model = make(t5_folder, gradient_checkpointing=checkpointing, dropout_rate=0.0).train()
        model(*batch()).loss_per_example.mean().backward()
        gradients.append([p.grad for p in model.parameters() if p.requires_grad])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed)


def test_dropout_is_the_settings_own(t5_folder):
    arguments = batch()
    without = make(t5_folder, dropout_rate=0.0)
    assert torch.equal(without.train()(*arguments).logits, without.eval()(*arguments).logits)
    with_dropout = make(t5_folder, dropout_rate=0.5).train()
    assert not torch.equal(with_dropout(*arguments).logits, with_dropout(*arguments).logits)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("bias", ["zero", "sequential"])
def test_bf16_autocast(folder, attention, bias):
    model = make(folder, attention=attention, visual_position_bias=bias)
    expected = model(*batch())
    with torch.autocast("cpu", torch.bfloat16):
        encoder_input = model.joint_input(*batch()[:2], batch()[3])
        output = model(*batch())
    assert encoder_input.position_bias.dtype == torch.bfloat16
    assert encoder_input.decoder_mask().dtype == torch.bfloat16
    assert output.loss_per_example.dtype == torch.float32
    torch.testing.assert_close(output.loss_per_example, expected.loss_per_example, rtol=0.05, atol=0.1)
    output.loss_per_example.mean().backward()
    assert {p.grad.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}


def test_float16_features_are_read_as_float32(t5_folder):
    model = make(t5_folder)
    ids, mask, labels, features = batch()
    rounded = features.half()
    read = model(ids, mask, labels, rounded).logits
    assert torch.equal(read, model(ids, mask, labels, rounded.float()).logits)


@pytest.mark.parametrize("with_image", [True, False])
@pytest.mark.parametrize("bias", ["zero", "sequential"])
def test_greedy_generation_equals_a_loop_of_forwards(folder, with_image, bias):
    model = make(folder, visual_position_bias=bias)
    ids, mask, _, features = batch()
    image = features if with_image else None
    generated = model.generate(ids, mask, image, max_new_tokens=6)
    for row in range(3):
        tokens = []
        while len(tokens) < 6 and 1 not in tokens:
            one = slice(row, row + 1)
            labels = torch.tensor([[*tokens, 0]])  # position i's logits depend on the labels before i alone
            logits = model(ids[one], mask[one], labels, image[one] if with_image else None).logits
            tokens.append(int(logits[0, -1].argmax()))
        assert generated[row, : len(tokens)].tolist() == tokens
        assert not generated[row, len(tokens) :].any()


def test_beam_search_finds_the_best_of_all_short_answers(t5_v1_1_folder):
    model = make(t5_v1_1_folder)
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


@pytest.mark.parametrize("with_image", [True, False])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_beams_that_share_their_source_end_where_plain_generate_does(folder, with_image, attention):
    model = make(folder, attention=attention, visual_position_bias="sequential")
    ids, mask, _, features = batch(lengths=(8, 6, 3, 1), targets=(1, 1, 1, 1))  # padding in three of four rows
    joint = model.joint_input(ids, mask, features if with_image else None)
    with torch.no_grad():
        states = BaseModelOutput(last_hidden_state=model.backbone.encode(joint))
        plain = model.backbone.model.generate(
            encoder_outputs=states,
            attention_mask=joint.attention_mask,
            generation_config=model.backbone.generation_config(num_beams=5, max_new_tokens=12, do_sample=False),
        )
    ours = model.generate(ids, mask, features if with_image else None, num_beams=5, max_new_tokens=12)
    assert torch.equal(ours, plain[:, 1:])


def test_generation_is_quiet_without_dropout_and_restores_the_mode(t5_folder, capfd, caplog, recwarn):
    model = make(t5_folder, dropout_rate=0.5).train()
    ids, mask, _, features = batch()
    first = model.generate(ids, mask, features, num_beams=3, max_new_tokens=30)
    assert torch.equal(first, model.generate(ids, mask, features, num_beams=3, max_new_tokens=30))
    assert model.training
    captured = capfd.readouterr()
    assert (captured.out, captured.err, caplog.records, list(recwarn)) == ("", "", [], [])


def test_base_model_keeps_its_methods(t5_folder):
    model = make(t5_folder)
    model(*batch())
    model.generate(*batch()[:2], max_new_tokens=2)
    overridden = {
        name for name in vars(model.backbone.model) if callable(getattr(type(model.backbone.model), name, None))
    }
    assert overridden == set()


def test_features_of_another_width_are_refused(t5_folder):
    model = make(t5_folder)
    ids, mask, labels, _ = batch()
    with pytest.raises(DataError, match="7-d, the model was built for 10-d"):
        model(ids, mask, labels, torch.zeros(3, VISUAL, 7))


def test_features_for_a_text_only_model_are_refused(t5_folder):
    with pytest.raises(DataError, match="without a visual projection"):
        make(t5_folder, feature_dim=None)(*batch())


def test_text_longer_than_s_is_refused(t5_folder):
    with pytest.raises(DataError, match=r"9 tokens.*max_source_length=8"):
        make(t5_folder)(*batch(lengths=(9, 2, 1)))


def test_first_values_depend_on_the_seed_alone(t5_folder):
    config = ModelConfig(backbone=str(t5_folder))

    def state(seed):
        torch.manual_seed(seed + 50)
        built = build_model(config, TUNER, max_source_length=S, feature_dim=FEATURE_DIM, seed=seed)[0]
        return built.trainable_state()

    first, again, other = state(1), state(1), state(2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["tuner.soft_prompt"], other["tuner.soft_prompt"])
    assert not torch.equal(first["visual_projection.linear.weight"], other["visual_projection.linear.weight"])


@pytest.mark.parametrize(("m", "r"), [(0, 75), (20, 60), (40, 45), (60, 30), (80, 15), (100, 0)])
def test_published_budget_on_the_meta_device(m, r):
    """T5-base, RN101 grid features through the linear projection, and 76,800 parameters of DePT."""
    tuner = DeptConfig(num_virtual_tokens=m)
    model = build_meta_model(ModelConfig(backbone="t5-base"), tuner, max_source_length=256, feature_dim=2048)
    budget = model.parameter_budget()
    assert {p.device.type for p in model.parameters()} == {"meta"}
    assert (budget.facts["m"], budget.facts["r"]) == (m, r)
    assert budget.tuner == 76_800
    assert budget.groups["visual_projection"] == 1_573_632
    assert budget.groups.get("soft_prompt", 0) == 768 * m
    assert budget.groups.get("lowrank", 0) == 1024 * r
    assert budget.trainable == 1_650_432
    assert budget.backbone == 222_903_552
    assert budget.total == 224_553_984
    assert budget.share == pytest.approx(0.00735, abs=1e-6)
