import numpy as np
import pytest
import torch
from torch import nn
from transformers import get_linear_schedule_with_warmup

from dept_vl.errors import ConfigError
from dept_vl.settings.schema import OptimConfig
from dept_vl.training.optim import averaged, build_optimizer, moment_shapes, schedule_factor, set_learning_rates
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


def t5x_adafactor(value, gradients, *, lr, factored, scale, decay_rate=0.8, weight_decay=0.0):
    """The update of T5X's ``adafactor.py`` (apply_param_gradient) as a plain loop, in NumPy's float64.

    Its weight decay takes its share of the value whatever the rate; here it is given times the rate, as ours.
    """
    value, rows, columns, each = value.astype(np.float64), 0.0, 0.0, 0.0
    for step, gradient in enumerate(gradients, start=1):
        beta = 1 - step**-decay_rate
        square = gradient.astype(np.float64) ** 2 + 1e-30
        if factored and value.ndim == 2:
            rows = beta * rows + (1 - beta) * square.mean(axis=1)
            columns = beta * columns + (1 - beta) * square.mean(axis=0)
            update = gradient / np.sqrt(np.outer(rows / rows.mean(), columns))
        else:
            each = beta * each + (1 - beta) * square
            update = gradient / np.sqrt(each)
        update = update / max(1.0, np.sqrt((update**2).mean()))
        rate = lr * max(np.sqrt((value**2).mean()), 1e-3) if scale else lr
        value = (1 - weight_decay * rate) * value - rate * update
    return value


@pytest.mark.parametrize("factored", [True, False])
@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("shape", [(5, 7), (6,)])
def test_adafactor_is_t5x_s(factored, scale, shape):
    rng = np.random.default_rng(0)
    start = rng.normal(size=shape).astype(np.float32)
    gradients = [rng.normal(size=shape).astype(np.float32) * 10.0 ** (step % 3 - 1) for step in range(6)]
    model = nn.ParameterDict({"prompt": nn.Parameter(torch.tensor(start))})
    config = OptimConfig(name="adafactor", factored=factored, scale_parameter=scale, weight_decay=0.1, decay_rate=0.7)
    optimizer = build_optimizer(model, [ParamGroup("soft_prompt", (model["prompt"],), 0.3)], config)
    for gradient in gradients:
        set_learning_rates(optimizer, 1.0)
        model["prompt"].grad = torch.tensor(gradient)
        optimizer.step()
    expected = t5x_adafactor(start, gradients, lr=0.3, factored=factored, scale=scale, decay_rate=0.7, weight_decay=0.1)
    np.testing.assert_allclose(model["prompt"].detach().numpy(), expected, rtol=2e-5, atol=2e-6)
    kept = {key: tuple(torch.as_tensor(value).shape) for key, value in optimizer.state[model["prompt"]].items()}
    assert kept == moment_shapes(optimizer, model["prompt"])


def test_each_group_of_adafactor_has_its_own_rate(model):
    groups = [ParamGroup("soft_prompt", (model["prompt"],), 0.3), ParamGroup("lowrank", (model["pair"],), 5e-4)]
    optimizer = build_optimizer(model, groups, OptimConfig(name="adafactor", weight_decay=0.0))
    assert set_learning_rates(optimizer, 0.5) == {"soft_prompt": 0.15, "lowrank": 2.5e-4}
    for parameter in model.values():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()  # the first update has a root mean square of 1
    torch.testing.assert_close(model["prompt"].data, torch.full((2,), 0.85))
    torch.testing.assert_close(model["pair"].data, torch.full((3,), 1 - 2.5e-4))


@pytest.mark.parametrize("name", ["adamw", "adafactor"])
def test_biases_decay_or_not_and_a_group_s_own_decay_is_for_all_of_it(name):
    linear, other = nn.Linear(2, 3), nn.Linear(2, 2)
    model = nn.ModuleDict({"projection": linear, "other": other})
    groups = [
        ParamGroup("visual_projection", tuple(linear.parameters())),
        ParamGroup("own", tuple(other.parameters()), 0.1, weight_decay=0.3),
    ]
    for setting, of_bias in (("all", 0.2), ("not-biases", 0.0)):
        config = OptimConfig(name=name, weight_decay=0.2, weight_decay_on=setting)
        optimizer = build_optimizer(model, groups, config)
        decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
        assert [decays[id(p)] for p in (linear.weight, linear.bias, other.weight, other.bias)] == [
            0.2,
            of_bias,
            0.3,
            0.3,
        ]
        assert list(set_learning_rates(optimizer, 1.0)) == ["visual_projection", "own"]


def test_settings_of_before_have_adamw_on_everything():
    config = OptimConfig()
    assert (config.name, config.weight_decay_on, config.label_smoothing) == ("adamw", "all", 0.0)


def test_a_multiple_is_of_the_embeddings_size_and_of_what_has_no_size_the_number(model):
    model["b"] = nn.Parameter(torch.ones(2))
    pair = (model["pair"], model["b"])
    groups = [
        ParamGroup("soft_prompt", (model["prompt"],), "0.5x"),
        ParamGroup("lowrank", pair, "0.25x", unsized=pair[:1]),
    ]
    asked = []

    def size():
        asked.append(1)
        return 8.0

    optimizer = build_optimizer(model, groups, OptimConfig(), size)
    rates = {id(p): group["peak_lr"] for group in optimizer.param_groups for p in group["params"]}
    assert {name: rates[id(p)] for name, p in model.items()} == {"prompt": 4.0, "pair": 0.25, "b": 2.0}
    assert set_learning_rates(optimizer, 0.5) == {"soft_prompt": 2.0, "lowrank": 1.0}
    asked.clear()
    plain = build_optimizer(model, [ParamGroup("all", tuple(model.values()), 0.5)], OptimConfig(), size)
    assert plain.param_groups[0]["peak_lr"] == 0.5
    assert not asked


def quadratic_loss(tensors, targets):
    return sum(((tensor - target) ** 2).sum() for tensor, target in zip(tensors, targets, strict=True))


def test_prodigy_finds_a_step_size_a_group_that_one_for_both_would_not_be():
    model = nn.ParameterDict({"far": nn.Parameter(torch.zeros(4)), "near": nn.Parameter(torch.zeros(4))})
    groups = [ParamGroup(name, (model[name],), 1e-9) for name in model]
    optimizer = build_optimizer(model, groups, OptimConfig(name="prodigy", weight_decay=0.0))
    for step in range(300):
        rates = set_learning_rates(optimizer, schedule_factor(step, 300, OptimConfig(name="prodigy")))
        optimizer.zero_grad()
        quadratic_loss(model.values(), (100.0, 0.01)).backward()
        optimizer.step()
    assert [group["d"] > 1e-5 for group in optimizer.param_groups] == [True, True]
    assert optimizer.param_groups[0]["d"] > 100 * optimizer.param_groups[1]["d"]
    assert set(rates) == {"far", "near"}
    torch.testing.assert_close(model["far"].data, torch.full((4,), 100.0), rtol=0.05, atol=0)
    torch.testing.assert_close(model["near"].data, torch.full((4,), 0.01), rtol=0.05, atol=0)


def test_prodigy_is_its_authors_where_there_is_one_group(model):
    import prodigyopt

    twin = [nn.Parameter(p.detach().clone()) for p in model.values()]
    config = OptimConfig(name="prodigy", weight_decay=0.1)
    optimizer = build_optimizer(model, [ParamGroup("all", tuple(model.values()), 1.0)], config)
    theirs = prodigyopt.Prodigy(
        twin, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.1, use_bias_correction=True, safeguard_warmup=True
    )
    for _ in range(5):
        for one, other in zip(model.values(), twin, strict=True):
            one.grad = 2 * one.detach() - 5
            other.grad = 2 * other.detach() - 5
        optimizer.step()
        theirs.step()
    for one, other in zip(model.values(), twin, strict=True):
        assert torch.equal(one, other)


def test_schedule_free_evaluates_averages_and_goes_on_where_it_was(model):
    import schedulefree

    twin = [nn.Parameter(p.detach().clone()) for p in model.values()]
    config = OptimConfig(name="schedule-free", weight_decay=0.1)
    optimizer = build_optimizer(model, [ParamGroup("all", tuple(model.values()), 0.3)], config)
    theirs = schedulefree.AdamWScheduleFree(twin, lr=0.3, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.1)
    theirs.train()
    for _ in range(5):
        for one, other in zip(model.values(), twin, strict=True):
            one.grad = 2 * one.detach() - 5
            other.grad = 2 * other.detach() - 5
        gradients = [p.grad.clone() for p in model.values()]
        optimizer.step()
        theirs.step()
        assert all(torch.equal(p.grad, kept) for p, kept in zip(model.values(), gradients, strict=True))
    before = {name: p.detach().clone() for name, p in model.items()}
    theirs.eval()
    with averaged(optimizer):
        assert all(torch.equal(one, other) for one, other in zip(model.values(), twin, strict=True))
        assert not torch.equal(model["prompt"], before["prompt"])
    assert all(torch.equal(model[name], value) for name, value in before.items())
    with averaged(build_optimizer(model, [ParamGroup("all", tuple(model.values()), 0.3)], OptimConfig())):
        assert torch.equal(model["prompt"], before["prompt"])


def test_schedule_free_has_a_warm_up_and_no_decay():
    config = OptimConfig(name="schedule-free", warmup_proportion=0.1)
    factors = [schedule_factor(step, 100, config) for step in range(100)]
    assert factors[0] == pytest.approx(1 / 11)
    assert factors[10:] == [1.0] * 90


@pytest.mark.parametrize("name", ["adamw", "adafactor", "prodigy", "schedule-free"])
def test_what_an_optimiser_keeps_is_as_announced(name):
    model = nn.ParameterDict({"matrix": nn.Parameter(torch.ones(3, 2)), "zero": nn.Parameter(torch.zeros(4))})
    optimizer = build_optimizer(model, [ParamGroup("all", tuple(model.values()), 0.1)], OptimConfig(name=name))
    for parameter in model.values():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for parameter in model.values():
        kept = {key: tuple(torch.as_tensor(value).shape) for key, value in optimizer.state[parameter].items()}
        assert kept == moment_shapes(optimizer, parameter)


@pytest.mark.parametrize("name", ["adamw", "schedule-free"])
def test_a_multiple_trains_alike_whatever_the_size(name):
    """A prompt of 8 times the size, read through an eighth of it, is 8 times the prompt after any steps."""
    config, start = OptimConfig(name=name, weight_decay=0.1, eps=1e-30), torch.linspace(-1, 2, 6)
    ends = []
    for size in (1.0, 8.0):
        prompt = nn.Parameter(start * size)
        model = nn.ParameterDict({"prompt": prompt})
        optimizer = build_optimizer(model, [ParamGroup("p", (prompt,), "0.05x")], config, lambda size=size: size)
        for _ in range(20):
            optimizer.zero_grad()
            ((prompt / size - 3) ** 4).sum().backward()
            optimizer.step()
        ends.append(prompt.detach() / size)
    torch.testing.assert_close(*ends, rtol=1e-4, atol=1e-5)
    assert (ends[0] - start).abs().min() > 0.3
