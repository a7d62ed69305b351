"""ATTEMPT mixes trained prompts of other tasks, for each text anew."""

from dataclasses import replace

import pytest
import torch

from dept_vl.errors import CheckpointError, ConfigError
from dept_vl.models.adapter.files import read_adapter_config
from dept_vl.models.adapter.warm_start import warm_start
from dept_vl.models.build import build_model, load_model
from dept_vl.models.config import ModelConfig
from dept_vl.models.meta_model import build_meta_model
from dept_vl.tuners.context import TunerContext
from dept_vl.tuners.forward_info import ForwardInfo
from tests.tuners.adapted import TASKS, S, batch, logits, make, settings, trained_sources

SIZES = {"num_virtual_tokens": 4, "attention_width": 5, "temperature": 2.0}
TASK_IDS = torch.tensor([2, 0, 1])
SIX = [f"source-{number}" for number in range(6)]


def many(folder, *, moved=0.0, seed=0, **own):
    """A model for three tasks."""
    tuner = settings("attempt", **SIZES, sources=list(trained_sources(folder, 4)), **own)
    config = ModelConfig(backbone=str(folder))
    model, _ = build_model(config, tuner, max_source_length=S, feature_dim=None, seed=seed, tasks=TASKS)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.tuner.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * moved)
    return model.eval()


@pytest.mark.parametrize(
    ("own", "tasks", "groups"),
    [
        ({}, (), {"soft_prompt": 76_800, "attention": 155_136}),
        ({"train_norm": False}, (), {"soft_prompt": 76_800, "attention": 153_600}),
        ({}, tuple("abcdefgh"), {"soft_prompt": 614_400, "attention": 155_136}),
    ],
)
def test_parameters_on_t5_base(own, tasks, groups):
    """231,936; 230,400 as the released code; 8 x 96,192 for eight tasks: the sources are not counted."""
    tuner = settings("attempt", sources=SIX, **own)
    model = build_meta_model(
        ModelConfig(backbone="t5-base"), tuner, max_source_length=256, feature_dim=None, tasks=tasks
    )
    assert dict(model.parameter_budget().groups) == groups
    assert model.parameter_budget().facts["sources"] == 6


def test_the_temperature_is_the_released_one_on_t5_base():
    assert settings("attempt").temperature_at(768) == 2087
    assert settings("attempt", temperature=5).temperature_at(768) == 5


def written_out(tuner, text, length, target):
    """The prompt of one text as loops over sources, tokens and features."""
    m, d = target.shape
    peak = torch.tensor([max(float(text[token, f]) for token in range(length)) for f in range(d)])
    hidden = tuner.attention_down.weight @ peak
    hidden = hidden * torch.sigmoid(hidden)
    raw = tuner.attention_up.weight @ hidden
    normed = (raw - raw.mean()) / (raw.var(unbiased=False) + 1e-5).sqrt()
    query = normed * tuner.attention_norm.weight + tuner.attention_norm.bias
    prompts = [*tuner.sources, target]
    scores = []
    for prompt in prompts:
        highest = torch.tensor([max(float(prompt[row, f]) for row in range(m)) for f in range(d)])
        scores.append(float(query @ highest) / tuner.temperature)
    total = sum(2.718281828459045**score for score in scores)
    mixed = sum(2.718281828459045**score / total * prompt for score, prompt in zip(scores, prompts, strict=True))
    return mixed + target


@torch.no_grad()
def test_its_prompt_written_out_for_every_task(folders):
    tuner = many(folders["t5"], moved=0.4).tuner
    text, mask = torch.randn(3, 6, 16), torch.tensor([[1] * 6, [1] * 3 + [0] * 3, [1] + [0] * 5])
    joined = tuner.embed(text, ForwardInfo(mask, 4, TASK_IDS))
    for row, (length, task) in enumerate(zip((6, 3, 1), TASK_IDS, strict=True)):
        expected = written_out(tuner, text[row], length, tuner.soft_prompts[task])
        torch.testing.assert_close(joined[row, :4], expected, rtol=1e-4, atol=1e-5)
        assert torch.equal(joined[row, 4:], text[row])
    order = torch.tensor([1, 2, 0])
    permuted = tuner.embed(text[order], ForwardInfo(mask[order], 4, TASK_IDS[order]))
    torch.testing.assert_close(permuted, joined[order], rtol=1e-6, atol=1e-6)
    first = tuner.embed(text, ForwardInfo(mask, 4))
    assert torch.equal(first, tuner.embed(text, ForwardInfo(mask, 4, torch.zeros(3, dtype=torch.long))))


@torch.no_grad()
def test_with_all_prompts_equal_it_is_twice_the_prompt(folders):
    tuner = make(folders["t5"], settings("attempt", **SIZES), moved=0.4).tuner
    tuner.sources.copy_(tuner.soft_prompts[0])
    joined = tuner.embed(torch.randn(2, 5, 16))
    torch.testing.assert_close(joined[1, :4], 2 * tuner.soft_prompts[0], rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_without_sources_it_is_twice_the_prompt_and_says_so(folders, caplog):
    model, _ = build_model(
        ModelConfig(backbone=str(folders["t5"])), settings("attempt", **SIZES), max_source_length=S, feature_dim=None,
        seed=3,
    )  # fmt: skip
    plain = make(folders["t5"], settings("prompt-tuning", num_virtual_tokens=4), feature_dim=None, seed=3)
    assert torch.equal(model.tuner.soft_prompts[0], plain.tuner.soft_prompt)
    torch.testing.assert_close(model.tuner.embed(torch.randn(2, 5, 16))[0, :4], 2 * plain.tuner.soft_prompt)
    assert "names no trained run" in caplog.text


@torch.no_grad()
def test_with_a_boundless_temperature_it_is_the_mean_of_all_prompts_and_the_prompt(folders):
    tuner = make(folders["t5"], settings("attempt", **{**SIZES, "temperature": 1e12}), moved=0.4).tuner
    target = tuner.soft_prompts[0]
    mean = torch.stack([*tuner.sources, target]).mean(dim=0)
    joined = tuner.embed(torch.randn(2, 5, 16))
    torch.testing.assert_close(joined[0, :4], mean + target, rtol=1e-6, atol=1e-6)


def test_every_task_starts_at_the_first_source_or_as_asked(folders):
    sources = trained_sources(folders["t5"], 4)
    first = load_model(sources[0], ModelConfig(backbone=str(folders["t5"])))[0].tuner.soft_prompt
    tuner = many(folders["t5"]).tuner
    assert all(torch.equal(prompt, first) for prompt in tuner.soft_prompts)
    asked = many(folders["t5"], target_start="prompt-init", seed=6).tuner
    plain = make(folders["t5"], settings("prompt-tuning", num_virtual_tokens=4), seed=6).tuner
    assert all(torch.equal(prompt, plain.soft_prompt) for prompt in asked.soft_prompts)


def test_the_sources_stay_as_they_are_and_get_no_gradient(folders):
    model = many(folders["t5"], moved=0.2).train()
    before = model.tuner.sources.clone()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        ids, mask, labels, _ = batch()
        model(ids, mask, labels, task_ids=TASK_IDS).loss_per_example.mean().backward()
        optimizer.step()
    assert torch.equal(model.tuner.sources, before)
    assert all(p.grad is not None and p.grad.any() for p in model.tuner.parameters())


def test_a_task_s_prompt_learns_from_its_own_rows_alone(folders):
    model = many(folders["t5"], moved=0.2).train()
    ids, mask, labels, _ = batch()
    model(ids, mask, labels, task_ids=torch.tensor([2, 2, 0])).loss_per_example.mean().backward()
    assert [bool(gradient.any()) for gradient in model.tuner.soft_prompts.grad] == [True, False, True]


@pytest.mark.parametrize("train_norm", [True, False])
def test_an_adapter_needs_no_source_and_names_none_of_this_machine(folders, tmp_path, train_norm):
    model = many(folders["t5"], moved=0.2, train_norm=train_norm)
    model.save_pretrained(tmp_path)
    saved = read_adapter_config(tmp_path)
    assert saved.tuner.sources == ("mnli", "qqp")
    assert saved.tasks == TASKS
    loaded, _ = load_model(tmp_path, model.config)
    ids, mask, labels, _ = batch()
    arguments = (ids, mask, labels, None, TASK_IDS)
    assert torch.equal(loaded.tuner.sources, model.tuner.sources)
    assert torch.equal(logits(loaded, arguments), logits(model, arguments))
    assert "tuner.attention_norm.weight" in model.adapter_state()
    assert ("tuner.attention_norm.weight" in model.trainable_state()) == train_norm


def test_a_run_takes_the_attention_of_another_and_not_its_prompts(folders, tmp_path):
    """As the released code pre-trains it: other tasks, other sources, a frozen norm with trained values."""
    trained = many(folders["t5"], moved=0.2)
    trained.save_pretrained(tmp_path)
    fresh = make(folders["t5"], settings("attempt", **SIZES, train_norm=False), feature_dim=None, seed=4)
    start = fresh.tuner.soft_prompts.detach().clone()
    notes = warm_start(fresh, tmp_path, "all")["notes"]
    assert notes == ["the attention is taken; prompts of the tasks and of the sources are this run's own"]
    for part in ("attention_down", "attention_up", "attention_norm"):
        ours, theirs = getattr(fresh.tuner, part).state_dict(), getattr(trained.tuner, part).state_dict()
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert torch.equal(fresh.tuner.soft_prompts, start)
    fresh.save_pretrained(tmp_path / "next")
    loaded, _ = load_model(tmp_path / "next", fresh.config)
    assert torch.equal(loaded.tuner.attention_norm.bias, trained.tuner.attention_norm.bias)


def test_an_attention_of_another_width_is_refused(folders, tmp_path):
    many(folders["t5"]).save_pretrained(tmp_path)
    fresh = make(folders["t5"], settings("attempt", **{**SIZES, "attention_width": 7}), feature_dim=None)
    with pytest.raises(CheckpointError, match=r"attention_down.weight': \(5, 16\).*set tuner.attention_width to the"):
        warm_start(fresh, tmp_path, "all")


def test_the_released_padding_needs_a_t5(folders):
    with pytest.raises(ConfigError, match=r"tuner.text_maximum: 'padded' is how the released code pads T5's text"):
        make(folders["gpt2"], settings("attempt", **SIZES, text_maximum="padded"))


@torch.no_grad()
def test_padding_in_the_maximum_depends_on_the_text_alone_and_not_on_the_batch(folders):
    model = make(folders["t5"], settings("attempt", **SIZES, text_maximum="padded"), moved=0.2)
    ids, mask, labels, features = batch()
    alone = logits(model, (ids[1:2, :3], mask[1:2, :3], labels[1:2, :2], features[1:2]))
    torch.testing.assert_close(logits(model)[1:2, :2], alone, rtol=1e-4, atol=2e-5)
    plain = make(folders["t5"], settings("attempt", **SIZES), moved=0.2)
    assert not torch.allclose(logits(plain), logits(model), atol=1e-3)
    full = torch.randn(2, S, 16)
    assert torch.equal(model.tuner.embed(full), plain.tuner.embed(full))


def test_names_of_sources_are_kept_as_the_last_part_whatever_they_are():
    tuner = settings("attempt", sources=["/a/b/mnli", "me/qqp@v1", "c/"]).empty
    recorded = tuner(TunerContext(16, S)).recorded_settings()
    assert recorded.sources == ("mnli", "qqp@v1", "c")
    assert recorded == replace(recorded, sources=("mnli", "qqp@v1", "c"))
