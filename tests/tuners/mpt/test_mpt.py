"""MPT shares a prompt among tasks, and learns it from a trained prompt of each."""

import pytest
import torch
from peft import MultitaskPromptTuningConfig
from peft.tuners.multitask_prompt_tuning.model import MultitaskPromptEmbedding

from dept_vl.errors import CheckpointError
from dept_vl.models.adapter.files import read_adapter_config
from dept_vl.models.adapter.warm_start import warm_start
from dept_vl.models.build import build_model, load_model
from dept_vl.models.config import ModelConfig
from dept_vl.models.meta_model import build_meta_model
from dept_vl.tuners.forward_info import ForwardInfo
from tests.tuners.adapted import TASKS, S, batch, logits, make, settings, trained_sources

TASK_IDS = torch.tensor([2, 0, 1])
M = 4


def several(folder, *, tasks=TASKS, teachers=0, moved=0.0, seed=0, dropout_rate=0.0, checkpointing=False, **own):
    """A model for some tasks, with a teacher for each where asked for."""
    runs = list(trained_sources(folder, M))
    taught = {"teachers": [runs[number % 2] for number in range(teachers)]} if teachers else {}
    config = ModelConfig(backbone=str(folder), dropout_rate=dropout_rate, gradient_checkpointing=checkpointing)
    model, _ = build_model(
        config, settings("mpt", num_virtual_tokens=M, **taught, **own), max_source_length=S, feature_dim=None,
        seed=seed, tasks=tasks,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.tuner.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * moved)
    return model.eval()


@pytest.mark.parametrize(
    ("tasks", "groups"),
    [
        ((), {"soft_prompt": 76_800, "task_factors": 868}),
        (tuple("abcdefgh"), {"soft_prompt": 76_800, "task_factors": 6_944}),
    ],
)
def test_parameters_on_t5_base(tasks, groups):
    """77,668; 8 x 10,468 for eight tasks."""
    model = build_meta_model(
        ModelConfig(backbone="t5-base"), settings("mpt"), max_source_length=256, feature_dim=None, tasks=tasks
    )
    assert dict(model.parameter_budget().groups) == groups


@pytest.mark.parametrize("family", ["t5", "gpt2", "llama"])
def test_it_starts_as_prompt_tuning(folders, family):
    plain = make(folders[family], settings("prompt-tuning", num_virtual_tokens=M), seed=2)
    assert torch.equal(logits(make(folders[family], settings("mpt", num_virtual_tokens=M), seed=2)), logits(plain))


@torch.no_grad()
def test_scaling_one_factor_up_and_the_other_down_changes_nothing(folders):
    model = several(folders["t5"], moved=0.4)
    ids, mask, labels, _ = batch()
    before = logits(model, (ids, mask, labels, None, TASK_IDS))
    model.tuner.task_tokens.mul_(4)
    model.tuner.task_features.div_(4)
    assert torch.equal(logits(model, (ids, mask, labels, None, TASK_IDS)), before)


@torch.no_grad()
def test_the_prompt_of_every_task_written_out(folders):
    tuner = several(folders["t5"], moved=0.4).tuner
    text, mask = torch.randn(3, 5, 16), torch.ones(3, 5)
    joined = tuner.embed(text, ForwardInfo(mask, M, TASK_IDS))
    for row, task in enumerate(TASK_IDS):
        for token in range(M):
            for feature in range(16):
                factor = tuner.task_tokens[task, token] * tuner.task_features[task, feature]
                torch.testing.assert_close(joined[row, token, feature], tuner.soft_prompt[token, feature] * factor)
    assert torch.equal(joined[:, M:], text)
    assert tuner.as_prompt() is None
    zeros = torch.zeros(3, dtype=torch.long)
    assert torch.equal(tuner.embed(text), tuner.embed(text, ForwardInfo(mask, M, zeros)))


@torch.no_grad()
def test_the_prompt_is_that_of_peft_s_port_with_the_same_weights(folders):
    tuner = several(folders["t5"], moved=0.4).tuner
    config = MultitaskPromptTuningConfig(
        num_virtual_tokens=M, num_tasks=3, token_dim=16, num_transformer_submodules=1, task_type="SEQ_2_SEQ_LM"
    )
    port = MultitaskPromptEmbedding(config, torch.nn.Embedding(32, 16))
    port.embedding.weight.copy_(tuner.soft_prompt)
    port.prefix_task_cols.copy_(tuner.task_tokens[:, :, None])
    port.prefix_task_rows.copy_(tuner.task_features[:, None, :])
    theirs = port(torch.arange(M).expand(3, -1), TASK_IDS)
    ours = tuner.embed(torch.randn(3, 5, 16), ForwardInfo(torch.ones(3, 5), M, TASK_IDS))[:, :M]
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def test_a_task_s_factors_learn_from_its_own_rows_alone(folders):
    model = several(folders["t5"], moved=0.2).train()
    ids, mask, labels, _ = batch()
    model(ids, mask, labels, task_ids=torch.tensor([2, 2, 0])).loss_per_example.mean().backward()
    for factor in (model.tuner.task_tokens, model.tuner.task_features):
        assert [bool(gradient.any()) for gradient in factor.grad] == [True, False, True]


@pytest.mark.parametrize("tasks", [(), ("x", "y")])
def test_the_second_stage_starts_from_the_prompt_and_the_mean_of_the_factors(folders, tmp_path, tasks):
    first = several(folders["t5"], moved=0.4, teachers=3)
    first.save_pretrained(tmp_path)
    second = several(folders["t5"], tasks=tasks, seed=8)
    notes = warm_start(second, tmp_path, "all")["notes"]
    assert notes == ["u and v of every task start at the mean of the source's 3 tasks"]
    assert torch.equal(second.tuner.soft_prompt, first.tuner.soft_prompt)
    for name in ("task_tokens", "task_features"):
        for factor in getattr(second.tuner, name):
            torch.testing.assert_close(factor, sum(getattr(first.tuner, name)) / 3, rtol=1e-6, atol=1e-6)


def test_a_source_of_another_length_is_refused(folders, tmp_path):
    several(folders["t5"]).save_pretrained(tmp_path)
    other = make(folders["t5"], settings("mpt", num_virtual_tokens=5), feature_dim=None)
    with pytest.raises(
        CheckpointError, match=r"the source's prompt is \(4, 16\), this run's \(5, 16\); set tuner.num_v"
    ):
        warm_start(other, tmp_path, "all")


def test_an_adapter_of_the_first_stage_needs_no_teacher(folders, tmp_path):
    model = several(folders["t5"], moved=0.2, teachers=3)
    model.save_pretrained(tmp_path)
    assert set(model.adapter_state()) == {"tuner.soft_prompt", "tuner.task_tokens", "tuner.task_features"}
    assert set(model.tuner.training_state()) == {"teachers"}
    assert read_adapter_config(tmp_path).tuner.teachers == ("mnli", "qqp", "mnli")
    loaded, _ = load_model(tmp_path, model.config)
    ids, mask, labels, _ = batch()
    arguments = (ids, mask, labels, None, TASK_IDS)
    assert torch.equal(logits(loaded, arguments), logits(model, arguments))


@torch.no_grad()
def answer_of(model, prompt, ids, labels):
    """One example's log-probabilities and last hidden states, by transformers' own forward."""
    t5_or_causal = model.backbone.model
    embed = t5_or_causal.get_input_embeddings()
    source = torch.cat([prompt, embed(ids), embed(torch.tensor(model.frame.tail, dtype=torch.long))])[None]
    if model.backbone.num_layers[1] is not None:
        output = t5_or_causal(inputs_embeds=source, labels=labels[None], output_hidden_states=True)
        return output.logits[0].log_softmax(-1), [
            output.encoder_last_hidden_state[0],
            output.decoder_hidden_states[-1][0],
        ]
    whole = torch.cat([source, embed(labels[None, :-1])], dim=1)
    output = t5_or_causal(inputs_embeds=whole, output_hidden_states=True)
    return output.logits[0, -len(labels) :].log_softmax(-1), [output.hidden_states[-1][0]]


@pytest.mark.parametrize("family", ["t5", "t5-v1.1", "gpt2", "llama"])
def test_the_loss_with_teachers_written_out_for_every_example(folders, family):
    """LM + weight * (KL(teacher || student) + squared errors), each row's teacher that of its task."""
    model = several(folders[family], moved=0.3, teachers=3, teacher_weight=0.7)
    ids, mask, labels, _ = batch()
    losses = model.train()(ids, mask, labels, task_ids=TASK_IDS).loss_per_example
    with torch.no_grad():
        plain = model.eval()(ids, mask, labels, task_ids=TASK_IDS).loss_per_example
    for row, (length, target) in enumerate(zip((6, 3, 1), (4, 2, 3), strict=True)):
        task = TASK_IDS[row]
        factor = torch.outer(model.tuner.task_tokens[task], model.tuner.task_features[task])
        text, label = ids[row, :length], labels[row, :target]
        ours, our_states = answer_of(model, model.tuner.soft_prompt * factor, text, label)
        theirs, their_states = answer_of(model, model.tuner.teachers[task], text, label)
        kl = sum(float((t.exp() * (t - o)).sum()) for o, t in zip(ours, theirs, strict=True)) / target
        errors = sum(float((o - t).square().mean()) for o, t in zip(our_states, their_states, strict=True))
        expected = -float(ours[range(target), label].mean()) + 0.7 * (kl + errors)
        assert losses[row].item() == pytest.approx(expected, rel=1e-4)
        assert losses[row] > plain[row] + 1e-3


def test_a_student_with_its_teacher_s_prompt_loses_nothing(folders):
    model = several(folders["t5"], tasks=(), teachers=1)
    with torch.no_grad():
        model.tuner.soft_prompt.copy_(model.tuner.teachers[0])
    ids, mask, labels, _ = batch()
    with torch.no_grad():
        plain = model(ids, mask, labels).loss_per_example
    taught = model.train()(ids, mask, labels).loss_per_example
    torch.testing.assert_close(taught, plain, rtol=1e-6, atol=1e-6)


def test_a_teacher_answers_without_dropout_and_draws_nothing(folders):
    """With a weight of 0 the loss is that without teachers, to the bit, at the same state of the generator."""
    ids, mask, labels, _ = batch()
    found = []
    for own in ({"teachers": 0}, {"teachers": 3, "teacher_weight": 0.0}):
        model = several(folders["t5"], moved=0.2, dropout_rate=0.3, **own).train()
        torch.manual_seed(1)
        found.append((model(ids, mask, labels, task_ids=TASK_IDS).loss_per_example, torch.get_rng_state()))
        assert all(module.training for module in model.modules())
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


def test_teachers_get_no_gradient_and_act_in_training_alone(folders):
    model = several(folders["t5"], moved=0.2, teachers=3)
    ids, mask, labels, _ = batch()
    with torch.no_grad():
        before = model(ids, mask, labels, task_ids=TASK_IDS)
        plain = several(folders["t5"], moved=0.2)(ids, mask, labels, task_ids=TASK_IDS)
    assert torch.equal(before.loss_per_example, plain.loss_per_example)
    model.train()(ids, mask, labels, task_ids=TASK_IDS).loss_per_example.sum().backward()
    assert model.tuner.teachers.grad is None
    assert not model.tuner.teachers.requires_grad


def test_the_distance_does_not_depend_on_padding_or_batch_mates(folders):
    for family in ("t5", "gpt2"):
        model = several(folders[family], moved=0.3, teachers=3).train()
        ids, mask, labels, _ = batch()
        together = model(ids, mask, labels, task_ids=TASK_IDS).loss_per_example
        for row, (length, target) in enumerate(zip((6, 3, 1), (4, 2, 3), strict=True)):
            one = slice(row, row + 1)
            alone = model(ids[one, :length], mask[one, :length], labels[one, :target], task_ids=TASK_IDS[one])
            torch.testing.assert_close(alone.loss_per_example, together[one], rtol=1e-4, atol=2e-5)


def test_gradients_with_recomputed_activations_are_those_without(folders):
    ids, mask, labels, _ = batch()
    found = []
    for checkpointing in (False, True):
        model = several(folders["t5"], moved=0.3, teachers=3, checkpointing=checkpointing).train()
        model(ids, mask, labels, task_ids=TASK_IDS).loss_per_example.mean().backward()
        found.append([p.grad for p in model.tuner.parameters()])
    for one, other in zip(*found, strict=True):
        assert one.any()
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-6)


def test_a_heavy_teacher_brings_the_student_s_answers_nearer_to_its_own(folders):
    model = several(folders["t5"], tasks=(), teachers=1, teacher_weight=100.0).train()
    ids, mask, labels, _ = batch()
    optimizer, losses = torch.optim.AdamW(model.tuner.parameters(), lr=0.05, weight_decay=0.0), []
    for _ in range(100):
        losses.append(model(ids, mask, labels).loss_per_example.mean())
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1].item() < 0.5 * losses[0].item()
