"""The budget rule of the paper (section 2.2) and its errors."""

import re

import pytest

from dept_vl.errors import ConfigError
from dept_vl.tuners import DeptConfig, PromptTuningConfig
from dept_vl.tuners.context import TunerContext
from dept_vl.tuners.dept.budget import Budget, exact_choices, solve

T5_BASE = {"budget_tokens": 100, "d_model": 768, "lowrank_rows": 256}


@pytest.mark.parametrize(("m", "r"), [(0, 75), (20, 60), (40, 45), (60, 30), (80, 15), (100, 0)])
def test_published_pairs_of_t5_base_are_exact_from_either_side(m, r):
    expected = Budget(m, r, 256, 768, 100)
    assert solve(**T5_BASE, num_virtual_tokens=m) == expected
    assert solve(**T5_BASE, rank=r) == expected
    assert solve(**T5_BASE, num_virtual_tokens=m, rank=r) == expected
    assert expected.total == expected.soft_prompt + expected.lowrank == 76_800
    assert expected.is_exact


def test_published_pair_at_512_tokens():
    budget = solve(budget_tokens=100, d_model=768, lowrank_rows=512, num_virtual_tokens=60)
    assert (budget.rank, budget.total) == (24, 76_800)


def test_exact_choices_are_all_there_are():
    by_search = [(m, r) for r in range(76) for m in range(101) if m * 768 + (256 + 768) * r == 76_800]
    assert [(c.num_virtual_tokens, c.rank) for c in exact_choices(100, 768, 256)] == by_search


def test_default_is_the_exact_pair_nearest_to_two_fifths_prompt():
    assert solve(**T5_BASE) == Budget(40, 45, 256, 768, 100)
    assert DeptConfig().budget(768, 256) == Budget(40, 45, 256, 768, 100)


def test_inexact_prompt_length_names_the_nearest_exact_choices():
    with pytest.raises(ConfigError, match=re.escape("(56, 33), (52, 36), (48, 39), (44, 42)")) as caught:
        solve(**T5_BASE, num_virtual_tokens=50)
    assert "76,800 parameters is not met exactly by num_virtual_tokens=50" in str(caught.value)
    assert "allow_nearest" in str(caught.value)


def test_inexact_rank_names_the_nearest_exact_choices():
    with pytest.raises(ConfigError, match=r"not met exactly by rank=31.*\(60, 30\)"):
        solve(**T5_BASE, rank=31)


def test_both_given_are_checked():
    with pytest.raises(ConfigError, match="num_virtual_tokens=40 and rank=44"):
        solve(**T5_BASE, num_virtual_tokens=40, rank=44)


@pytest.mark.parametrize("given", [{"num_virtual_tokens": 101}, {"rank": 76}])
@pytest.mark.parametrize("allow_nearest", [False, True])
def test_more_than_the_whole_budget_is_refused(given, allow_nearest):
    name, value = next(iter(given.items()))
    with pytest.raises(ConfigError, match=f"smaller than {name}={value} alone"):
        solve(**T5_BASE, **given, allow_nearest=allow_nearest)


def test_nearest_is_nearest_by_search_and_not_larger_on_a_tie():
    # (50, 37) and (50, 38) both miss by 512 parameters.
    assert solve(**T5_BASE, num_virtual_tokens=50, allow_nearest=True).rank == 37
    for d_model, length in [(16, 9), (17, 8), (768, 348)]:
        for m in range(0, 21):
            budget = solve(
                budget_tokens=20, d_model=d_model, lowrank_rows=length, num_virtual_tokens=m, allow_nearest=True
            )
            target = 20 * d_model
            best = min(range(30), key=lambda r: (abs(m * d_model + (length + d_model) * r - target), r))
            assert budget.rank == best


def test_nearest_keeps_both_as_given():
    assert solve(**T5_BASE, num_virtual_tokens=40, rank=44, allow_nearest=True).total == 75_776


def test_default_without_an_exact_rank_says_so():
    with pytest.raises(ConfigError, match=r"not met exactly by a rank above 0.*\(20, 0\)"):
        solve(budget_tokens=20, d_model=17, lowrank_rows=8)
    assert solve(budget_tokens=20, d_model=17, lowrank_rows=8, allow_nearest=True).rank == 8


def test_prompt_tuning_spends_the_budget_on_the_prompt():
    context = TunerContext(768, 256)
    assert PromptTuningConfig(num_virtual_tokens=100).empty(context).facts() == {"m": 100, "s": 256, "d": 768}
