"""A step whose loss or gradient is bad is found and named."""

import pytest
import torch
from torch import nn

from dept_vl.errors import DivergenceError
from dept_vl.settings.schema import LoopConfig
from dept_vl.training.checkpoints import Progress
from dept_vl.training.step_guard import StepGuard
from dept_vl.tuners.base import ParamGroup


@pytest.fixture
def groups() -> dict[str, list[nn.Parameter]]:
    parameters = {name: [nn.Parameter(torch.ones(2))] for name in ("soft_prompt", "lowrank")}
    for (parameter,) in parameters.values():
        parameter.grad = torch.ones(2)
    return parameters


def as_groups(groups: dict[str, list[nn.Parameter]]) -> list[ParamGroup]:
    return [ParamGroup(name, tuple(parameters), 0.1) for name, parameters in groups.items()]


def test_good_steps_are_not_bad_and_norms_may_be_large(groups):
    guard = StepGuard(as_groups(groups), LoopConfig())
    groups["lowrank"][0].grad = torch.full((2,), 1e6)
    guard.watch(1, [5], torch.tensor(2.0))
    assert guard.find_bad() is None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e9])
def test_the_first_bad_step_its_examples_and_its_group_are_named(groups, value):
    guard = StepGuard(as_groups(groups), LoopConfig())
    guard.watch(1, [5], torch.tensor(2.0))
    groups["lowrank"][0].grad = torch.tensor([1.0, value])
    guard.watch(2, [6, 7], torch.tensor(3.0))
    guard.watch(3, [8], torch.tensor(float("nan")))
    bad = guard.find_bad()
    assert (bad.step, bad.example_ids, bad.groups) == (2, (6, 7), ("lowrank",))
    assert bad.norms["soft_prompt"] == pytest.approx(2**0.5)
    assert "step 2: loss 3; gradient not finite or exploded in lowrank" in str(bad)
    assert guard.find_bad() is None, "what was told once is forgotten"


def test_a_loss_that_is_no_number_is_bad_with_finite_gradients(groups):
    guard = StepGuard(as_groups(groups), LoopConfig())
    guard.watch(1, [5], torch.tensor(float("inf")))
    assert guard.find_bad().groups == ()


def test_skipped_steps_are_counted_up_to_a_limit(groups, tmp_path):
    guard = StepGuard(as_groups(groups), LoopConfig(on_nan="skip", max_skipped_steps=2))
    progress = Progress(step=4)
    for number in (1, 2):
        guard.watch(5, [5], torch.tensor(float("nan")))
        progress = guard.judge(guard.find_bad(), progress, {}, tmp_path)
        assert (progress.skipped_steps, progress.skipped_in_a_row) == (number, number)
    guard.watch(7, [5], torch.tensor(float("nan")))
    with pytest.raises(DivergenceError, match=r"step 7: loss nan.*\(2 steps before it were skipped\)"):
        guard.judge(guard.find_bad(), progress, {}, tmp_path)


def test_weights_that_are_not_finite_are_not_kept(groups):
    guard = StepGuard(as_groups(groups), LoopConfig())
    guard.refuse_bad_weights(3)
    groups["soft_prompt"][0].data[0] = float("inf")
    with pytest.raises(DivergenceError, match="after step 3 the weights of soft_prompt are not finite"):
        guard.refuse_bad_weights(3)
