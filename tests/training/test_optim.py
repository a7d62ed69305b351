import pytest
import torch
from torch import nn
from transformers import get_linear_schedule_with_warmup

from dept_vl.errors import ConfigError
from dept_vl.settings.schema import OptimConfig
from dept_vl.training.optim import build_optimizer, schedule_factor, set_learning_rates
from dept_vl.tuners.base import ParamGroup


@pytest.fixture
def model():
    return nn.ParameterDict({"prompt": nn.Parameter(torch.ones(2)), "pair": nn.Parameter(torch.ones(3))})


def test_each_group_gets_its_own_rate(model):
    groups = [ParamGroup("soft_prompt", (model["prompt"],), 0.3), ParamGroup("lowrank", (model["pair"],), 5e-4)]
    optimizer = build_optimizer(model, groups, OptimConfig())
    assert set_learning_rates(optimizer, 0.5) == {"soft_prompt": 0.15, "lowrank": 2.5e-4}
    for parameter in model.values():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    # AdamW's first step moves by the rate, and weight decay takes rate * 0.01 of the value.
    torch.testing.assert_close(model["prompt"].data, torch.full((2,), 1 - 0.15 - 0.15 * 0.01), atol=1e-5, rtol=0)
    torch.testing.assert_close(model["pair"].data, torch.full((3,), 1 - 2.5e-4 * 1.01), atol=1e-7, rtol=0)


def test_settings_reach_adamw(model):
    config = OptimConfig(weight_decay=0.2, beta1=0.5, beta2=0.6, eps=1e-3)
    optimizer = build_optimizer(model, [ParamGroup("soft_prompt", tuple(model.values()), 0.3)], config)
    group = optimizer.param_groups[0]
    assert (group["weight_decay"], group["betas"], group["eps"]) == (0.2, (0.5, 0.6), 1e-3)


def test_an_ungrouped_trainable_tensor_is_an_error(model):
    with pytest.raises(ConfigError, match="in no parameter group: pair"):
        build_optimizer(model, [ParamGroup("soft_prompt", (model["prompt"],), 0.3)], OptimConfig())


def test_a_tensor_in_two_groups_is_an_error(model):
    groups = [ParamGroup("soft_prompt", tuple(model.values()), 0.3), ParamGroup("lowrank", (model["pair"],), 0.3)]
    with pytest.raises(ConfigError, match="'pair' is in two groups: 'soft_prompt' and 'lowrank'"):
        build_optimizer(model, groups, OptimConfig())


def test_a_group_without_a_rate_or_decay_of_its_own_has_the_settings(model):
    groups = [ParamGroup("a", (model["prompt"],), weight_decay=0.5), ParamGroup("b", (model["pair"],), lr=0.3)]
    first, second = build_optimizer(model, groups, OptimConfig(projection_lr=0.7, weight_decay=0.2)).param_groups
    assert (first["lr"], first["weight_decay"]) == (0.7, 0.5)
    assert (second["lr"], second["weight_decay"]) == (0.3, 0.2)


def test_linear_schedule_warms_up_and_ends_at_zero():
    config = OptimConfig(warmup_proportion=0.1)
    factors = [schedule_factor(step, 100, config) for step in range(101)]
    assert factors[0] == pytest.approx(1 / 11)
    assert factors[10] == 1.0
    assert factors[55] == pytest.approx(0.5)
    assert factors[100] == 0.0
    assert factors[:11] == sorted(factors[:11])
    assert all(factor > 0 for factor in factors[:100])


@pytest.mark.parametrize("warmup_steps", [0, 1, 10])
def test_transformers_warm_up_is_transformers_own_schedule(warmup_steps):
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    schedule = get_linear_schedule_with_warmup(optimizer, warmup_steps, 100)
    config = OptimConfig(warmup_steps=warmup_steps, warmup="transformers")
    for step in range(100):
        assert schedule_factor(step, 100, config) == pytest.approx(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()


def test_the_two_warm_ups_differ_in_the_first_steps_alone():
    ours, theirs = OptimConfig(warmup_steps=4), OptimConfig(warmup_steps=4, warmup="transformers")
    assert [schedule_factor(step, 9, ours) for step in range(4)] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert [schedule_factor(step, 9, theirs) for step in range(4)] == pytest.approx([0, 0.25, 0.5, 0.75])
    assert [schedule_factor(step, 9, ours) for step in (4, 8)] == [schedule_factor(step, 9, theirs) for step in (4, 8)]


def test_warmup_steps_replace_the_proportion():
    assert schedule_factor(4, 100, OptimConfig(warmup_steps=4)) == 1.0


def test_cosine_is_half_way_down_in_the_middle():
    config = OptimConfig(schedule="cosine", warmup_steps=0)
    assert schedule_factor(50, 100, config) == pytest.approx(0.5)


def test_constant_stays_after_warmup():
    config = OptimConfig(schedule="constant", warmup_steps=2)
    assert [schedule_factor(step, 10, config) for step in (2, 9)] == [1.0, 1.0]
