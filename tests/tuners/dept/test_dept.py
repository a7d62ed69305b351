"""The laws of DePT and of prompt tuning, on plain tensors."""

import math
from dataclasses import replace

import pytest
import torch

from dept_vl.errors import ConfigError, DataError
from dept_vl.tuners import DeptConfig, PromptTuningConfig
from dept_vl.tuners.context import TunerContext
from dept_vl.tuners.forward_info import ForwardInfo
from dept_vl.tuners.places.sites import Site, SiteShape

D_MODEL, S, VOCABULARY = 12, 6, 40
TABLE = torch.randn(VOCABULARY, D_MODEL, generator=torch.Generator().manual_seed(0)) * 10


def info(seed=0, text=(5, 6, 7, 1)):
    return TunerContext(
        D_MODEL, S, vocab_size=len(TABLE), embed_tokens=TABLE.__getitem__, tokenize=lambda _: list(text), seed=seed
    )


def text(batch=2, length=4):
    return torch.randn(batch, length, D_MODEL, generator=torch.Generator().manual_seed(1))


def trained(tuner):
    """Moves B away from its start at zero."""
    with torch.no_grad():
        tuner.lowrank_b.normal_(generator=torch.Generator().manual_seed(2))
    return tuner


def exact(m, **settings):
    """Settings of any size: the budget rule is tested elsewhere."""
    return DeptConfig(budget_tokens=9, num_virtual_tokens=m, allow_nearest=True, **settings)


@pytest.mark.parametrize("scaling", ["one", "alpha/sqrt(r)"])
@pytest.mark.parametrize("length", [1, 4, S])
def test_embed_equals_a_plain_loop(scaling, length):
    tuner = trained(exact(3, scaling=scaling).build(info()))
    factor = 1.0 if scaling == "one" else 8 / math.sqrt(tuner.rank)
    embeds, given = tuner.embed(text(2, length)).detach(), text(2, length)
    a, b = tuner.lowrank_a.detach(), tuner.lowrank_b.detach()
    assert embeds.shape == (2, 3 + length, D_MODEL)
    for example in range(2):
        for position in range(3):
            assert torch.equal(embeds[example, position], tuner.soft_prompt[position])
        for position in range(length):
            for column in range(D_MODEL):
                update = sum(float(a[position, k]) * float(b[k, column]) for k in range(tuner.rank))
                expected = float(given[example, position, column]) + factor * update
                assert float(embeds[example, 3 + position, column]) == pytest.approx(expected, abs=1e-5)


def test_row_i_belongs_to_text_token_i_whatever_the_prompt_length():
    updates = []
    for m in (0, 1, 5):
        tuner = exact(m).build(info())
        rank = tuner.rank
        with torch.no_grad():
            tuner.lowrank_a.copy_(torch.arange(1.0, S + 1)[:, None].expand(S, rank))
            tuner.lowrank_b.fill_(1.0 / rank)
        updates.append((tuner.embed(text()) - torch.nn.functional.pad(text(), (0, 0, m, 0)))[:, m:])
    for update in updates:
        torch.testing.assert_close(update, torch.arange(1.0, 5.0)[None, :, None].expand(2, 4, D_MODEL))


def test_a_short_batch_gets_the_first_rows_of_a_padded_one():
    tuner = trained(exact(2).build(info()))
    padded = torch.cat([text(), torch.zeros(2, 2, D_MODEL)], dim=1)
    torch.testing.assert_close(tuner.embed(text()), tuner.embed(padded)[:, : 2 + 4], rtol=0, atol=1e-6)


def test_embed_leaves_its_input_as_it_was():
    given = text()
    trained(exact(2).build(info())).embed(given)
    assert torch.equal(given, text())


def test_at_the_start_it_is_prompt_tuning_with_the_same_prompt():
    dept = exact(4).build(info(seed=3))
    prompt = PromptTuningConfig(num_virtual_tokens=4).build(info(seed=3))
    assert dept.rank > 0
    assert torch.equal(dept.soft_prompt, prompt.soft_prompt)
    assert torch.equal(dept.embed(text()), prompt.embed(text()))


def test_rank_zero_is_prompt_tuning():
    dept = exact(9).build(info())
    assert dept.rank == 0
    assert [group.name for group in dept.param_groups({})] == ["soft_prompt"]
    assert torch.equal(dept.embed(text()), PromptTuningConfig(num_virtual_tokens=9).build(info()).embed(text()))


def test_no_prompt_leaves_the_low_rank_update_alone():
    dept = exact(0).build(info())
    assert [group.name for group in dept.param_groups({})] == ["lowrank"]
    assert dept.trainable_state().keys() == {"lowrank_a", "lowrank_b"}
    assert torch.equal(dept.embed(text()), text())


def test_it_trains_exactly_the_budget():
    config = DeptConfig(budget_tokens=9, num_virtual_tokens=3)
    tuner = config.build(info())
    m, r = 3, tuner.rank
    grouped = [p for group in tuner.param_groups({}) for p in group.parameters]
    assert sum(p.numel() for p in grouped) == m * D_MODEL + (S + D_MODEL) * r == 9 * D_MODEL
    assert {id(p) for p in grouped} == {id(p) for p in tuner.parameters()}
    assert all(p.requires_grad for p in grouped)


def test_text_longer_than_the_rows_of_a_is_refused():
    with pytest.raises(DataError, match=r"7 tokens.*max_source_length=6"):
        exact(2).build(info()).embed(text(length=7))


def test_gaussian_start_has_the_configured_deviation():
    config = DeptConfig(budget_tokens=500, num_virtual_tokens=0, allow_nearest=True, lowrank_init_std=0.25)
    tuner = config.build(info())
    assert tuner.lowrank_a.std().item() == pytest.approx(0.25, rel=0.05)
    assert not tuner.lowrank_b.any()


def test_kaiming_start_is_that_of_the_released_code():
    config = DeptConfig(budget_tokens=500, num_virtual_tokens=0, allow_nearest=True, lowrank_init="kaiming-uniform")
    tuner = config.build(info())
    bound = 1 / math.sqrt(tuner.rank)  # kaiming_uniform_(a=sqrt(5)) on (s, r): the fan-in is r
    largest = tuner.lowrank_a.abs().max().item()
    assert 0.99 * bound < largest <= bound
    assert tuner.lowrank_a.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)


def test_released_scaling_at_the_published_rank():
    assert DeptConfig(scaling="alpha/sqrt(r)").scaling_factor(45) == pytest.approx(8 / 45**0.5)
    assert DeptConfig(scaling="alpha/sqrt(r)", alpha=4.0).scaling_factor(4) == 2.0


def test_vocabulary_prompt_samples_common_rows():
    prompt = DeptConfig(budget_tokens=60, num_virtual_tokens=60, prompt_init_rows=10).build(info()).soft_prompt
    rows = {int((vector == TABLE).all(dim=1).nonzero()) for vector in prompt}
    assert rows == set(range(3, 10))  # never padding, end of sequence, unknown


def test_text_prompt_is_tiled_and_cut():
    config = PromptTuningConfig(num_virtual_tokens=10, prompt_init="text", prompt_init_text="answer the question")
    assert torch.equal(config.build(info()).soft_prompt, TABLE[[5, 6, 7, 1, 5, 6, 7, 1, 5, 6]])
    short = PromptTuningConfig(num_virtual_tokens=2, prompt_init="text", prompt_init_text="answer the question")
    assert torch.equal(short.build(info()).soft_prompt, TABLE[[5, 6]])


def test_text_prompt_without_tokens_is_refused():
    config = PromptTuningConfig(prompt_init="text", prompt_init_text="??")
    with pytest.raises(ConfigError, match=r"prompt_init_text: '\?\?' has no tokens"):
        config.build(info(text=()))


@pytest.mark.parametrize(("distribution", "deviation"), [("uniform", 2 / math.sqrt(3)), ("normal", 2.0)])
def test_random_prompt(distribution, deviation):
    config = PromptTuningConfig(
        num_virtual_tokens=500, prompt_init="random", prompt_init_distribution=distribution, prompt_init_scale=2.0
    )
    prompt = config.build(info()).soft_prompt
    assert prompt.std().item() == pytest.approx(deviation, rel=0.05)
    assert distribution == "normal" or prompt.abs().max() <= 2.0


def test_first_values_depend_on_the_seed_alone():
    config = exact(2, prompt_init="random")
    torch.manual_seed(1)
    first = config.build(info(seed=5)).trainable_state()
    before = torch.get_rng_state()
    second = config.build(info(seed=5)).trainable_state()
    other = config.build(info(seed=6)).trainable_state()
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["soft_prompt"], other["soft_prompt"])
    assert not torch.equal(first["lowrank_a"], other["lowrank_a"])


def test_prompt_does_not_share_storage_with_the_frozen_table():
    prompt = PromptTuningConfig(num_virtual_tokens=3).build(info()).soft_prompt
    before = TABLE.clone()
    with torch.no_grad():
        prompt.zero_()
    assert torch.equal(TABLE, before)


def test_the_update_is_not_rounded_by_autocast():
    tuner = trained(exact(2).build(info()))
    with torch.autocast("cpu", torch.bfloat16):
        embeds = tuner.embed(text())
    assert embeds.dtype == torch.float32
    assert torch.equal(embeds, tuner.embed(text()))


MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])


def test_last_token_alignment_equals_a_plain_loop():
    tuner = trained(exact(3, row_alignment="last-token").build(info()))
    update = tuner.scaling * tuner.lowrank_a @ tuner.lowrank_b
    embeds = tuner.embed(text(), ForwardInfo(MASK, 0))
    for example, length in enumerate(MASK.sum(dim=1).tolist()):
        for position in range(length):
            expected = text()[example, position] + update[S - length + position]
            torch.testing.assert_close(embeds[example, 3 + position], expected, rtol=0, atol=1e-5)
        assert torch.equal(embeds[example, :3], tuner.soft_prompt)


def test_last_token_alignment_is_the_released_formula_on_a_text_padded_to_s_on_the_left():
    """peft_model.py: ``inputs_embeds += scaling * (A @ B).repeat(batch_size, 1, 1)`` on (batch, s, d)."""
    tuner = trained(exact(2, row_alignment="last-token", scaling="alpha/sqrt(r)").build(info()))
    ours = tuner.embed(text(), ForwardInfo(MASK, 0))
    for example, length in enumerate(MASK.sum(dim=1).tolist()):
        padded = torch.nn.functional.pad(text()[example, :length], (0, 0, S - length, 0))[None]
        released = padded + 8 / math.sqrt(tuner.rank) * (tuner.lowrank_a @ tuner.lowrank_b).repeat(1, 1, 1)
        torch.testing.assert_close(ours[example, 2 : 2 + length], released[0, S - length :], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("stacks", "alignment"),
    [(("encoder", "decoder"), "first-token"), (("decoder",), "last-token"), ((), "first-token")],
)
def test_without_an_encoder_rows_are_counted_from_the_end_unless_said_otherwise(stacks, alignment):
    sites = {Site(stack, 0, "block"): SiteShape(D_MODEL, D_MODEL) for stack in stacks}
    context = replace(info(), sites=sites)
    assert exact(2).build(context).recorded_settings().row_alignment == alignment
    told = exact(2, row_alignment="first-token").build(context)
    assert told.recorded_settings().row_alignment == "first-token"


def test_last_token_alignment_without_a_mask_has_no_padding():
    tuner = trained(exact(2, row_alignment="last-token").build(info()))
    assert torch.equal(tuner.embed(text()), tuner.embed(text(), ForwardInfo(torch.ones(2, 4, dtype=torch.long), 0)))


def test_alignments_agree_on_a_text_of_s_tokens():
    first, last = (trained(exact(2, row_alignment=kind).build(info())) for kind in ("first-token", "last-token"))
    torch.testing.assert_close(first.embed(text(length=S)), last.embed(text(length=S)))


@pytest.mark.parametrize("rows", [1, 2, 3, 5, S])
def test_rows_between_are_interpolated(rows):
    tuner = trained(exact(3, lowrank_rows=rows).build(info()))
    a, b = tuner.lowrank_a.detach(), tuner.lowrank_b.detach()
    assert a.shape[0] == rows
    shifts = (tuner.embed(text(1, S)).detach() - torch.cat([tuner.soft_prompt.detach()[None], text(1, S)], dim=1))[
        0, 3:
    ]
    for position in range(S):
        place = position * (rows - 1) / (S - 1)
        low = min(int(place), max(0, rows - 2))
        share = place - low
        row = a[low] if rows == 1 else (1 - share) * a[low] + share * a[low + 1]
        torch.testing.assert_close(shifts[position], row @ b, rtol=1e-5, atol=1e-5)


def test_parameters_of_few_rows_do_not_depend_on_the_text_s_length():
    config = DeptConfig(num_virtual_tokens=2, lowrank_rows=4, budget_tokens=6, allow_nearest=True)
    assert config.budget(D_MODEL, 4096) == config.budget(D_MODEL, 8)
    assert config.empty(TunerContext(D_MODEL, 4096)).lowrank_a.shape[0] == 4


def test_a_text_begins_further_on_while_training_and_there_alone():
    tuner = trained(exact(2, position_jitter=2).build(info()))
    plain = trained(exact(2).build(info()))
    assert torch.equal(tuner.eval().embed(text()), plain.embed(text()))
    tuner.train()
    update, begins = tuner.lowrank_a @ tuner.lowrank_b, set()
    torch.manual_seed(0)
    for _ in range(30):
        shifts = (tuner.embed(text()) - plain.embed(text()))[:, 2:] + update[:4]
        for shift in shifts:
            (begin,) = [b for b in range(S - 3) if torch.allclose(shift, update[b : b + 4], atol=1e-5)]
            begins.add(begin)
    assert begins == {0, 1, 2}
    full = text(length=S)  # has no room
    assert torch.equal(tuner.embed(full), plain.embed(full))


def test_the_last_token_s_row_moves_towards_the_first():
    tuner = trained(exact(2, position_jitter=1, row_alignment="last-token").build(info())).train()
    update = (tuner.lowrank_a @ tuner.lowrank_b).detach()
    torch.manual_seed(0)
    ends = set()
    for _ in range(20):
        shifts = (tuner.embed(text(1), ForwardInfo(torch.ones(1, 4, dtype=torch.long), 0)).detach()[:, 2:] - text(1))[0]
        ends |= {end for end in range(4, S + 1) if torch.allclose(shifts, update[end - 4 : end], atol=1e-5)}
    assert ends == {S - 1, S}


def stepped(tuner, length, steps=3, info=None):
    """Trains it on one batch of texts of `length` tokens."""
    optimizer = torch.optim.AdamW(tuner.parameters(), lr=0.1, weight_decay=0.1)
    tuner.train()
    for step in range(steps):
        optimizer.zero_grad()
        (tuner.embed(text(length=length), info) ** 2).sum().backward()
        optimizer.step()
        tuner.after_step(step + 1, steps)
    return tuner.eval()


@pytest.mark.parametrize("settings", [{}, {"row_alignment": "last-token"}, {"position_jitter": 1}], ids=str)
def test_rows_that_no_training_text_reached_count_as_zero(settings):
    tuner = stepped(exact(2, **settings).build(info()), length=4)
    is_shifted = (tuner.embed(text(length=S))[:, 2:] != text(length=S))[0].any(-1)
    last, first = settings.get("row_alignment") == "last-token", 4 + settings.get("position_jitter", 0)
    expected = torch.arange(S) >= S - 4 if last else torch.arange(S) < first
    assert torch.equal(is_shifted, expected)
    assert tuner.lowrank_a.abs().amin() > 0  # training itself goes on from the paper's start
    saved = tuner.saved_values()["lowrank_a"]
    assert torch.equal(saved.abs().amax(-1) > 0, expected)


def test_padding_reaches_no_row():
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]])
    tuner = stepped(exact(2).build(info()), length=4, info=ForwardInfo(mask, 0))
    assert tuner.reached.tolist() == [True] * 3 + [False] * (S - 3)


def test_interpolated_rows_count_where_one_of_their_places_was_reached():
    tuner = stepped(exact(2, lowrank_rows=3).build(info()), length=2)
    assert tuner.reached.tolist() == [True, True, False]


def test_a_checkpoint_knows_which_rows_count_and_one_of_an_earlier_version_has_all():
    trained_, again, earlier = stepped(exact(2).build(info()), length=4), exact(2).build(info()), exact(2).build(info())
    state = {name: value.clone() for name, value in trained_.training_state().items()}
    again.load_training_state(state)
    stepped(again, length=2)
    assert torch.equal(again.reached, trained_.reached)
    earlier.load_training_state({})
    assert stepped(earlier, length=2).reached.all()


@pytest.mark.parametrize(("name", "value", "most"), [("lowrank_rows", S + 1, S), ("position_jitter", S, S - 1)])
def test_more_than_a_text_has_places_is_refused(name, value, most):
    with pytest.raises(
        ConfigError, match=rf"tuner\.{name}: {value} is more than data\.max_source_length={S} .* at most {most}"
    ):
        exact(2, **{name: value}).build(info())
    exact(2, **{name: most}).build(info())
