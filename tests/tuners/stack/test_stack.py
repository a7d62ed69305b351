"""Several methods at once are what they are alone, one after the other."""

import pytest
import torch

from dept_vl.errors import CheckpointError, ConfigError
from dept_vl.models.adapter.warm_start import warm_start
from dept_vl.models.build import load_model
from dept_vl.settings.load import dump_config, load_config
from dept_vl.tuners.rates import UPDATE_RATE
from tests.tuners.adapted import logits, make, settings


def test_a_stack_of_one_is_the_method(folders):
    alone = make(folders["t5"], settings("dept", budget_tokens=12), moved=0.2)
    stacked = make(folders["t5"], settings("stack", parts={"dept": {"budget_tokens": 12}}), moved=0.2)
    assert torch.equal(logits(alone), logits(stacked))
    assert [group.name for group in stacked.param_groups()] == ["dept.soft_prompt", "dept.lowrank", "visual_projection"]


def test_a_part_at_its_start_changes_nothing_and_each_part_acts(folders):
    dept = make(folders["t5"], settings("dept", budget_tokens=12), moved=0.2)
    both = make(folders["t5"], settings("dept+lora", **{"parts.dept.budget_tokens": 12, "parts.lora.dropout": 0.0}))
    with torch.no_grad():
        for name, tensor in dept.tuner.trainable_state().items():
            both.tuner.parts["dept"].trainable_state()[name].copy_(tensor)
    assert torch.equal(logits(both), logits(dept))
    with torch.no_grad():
        for update in both.tuner.parts["lora"].updates.values():
            update.lora_b.fill_(0.3)
    assert not torch.allclose(logits(both), logits(dept), atol=1e-2)


def test_prompts_stand_in_the_order_of_the_parts(folders):
    one = {"name": "prompt-tuning", "num_virtual_tokens": 2}
    model = make(folders["t5"], settings("stack", parts={"a": one, "b": {**one, "num_virtual_tokens": 3}}))
    embeds = torch.randn(2, 4, 16)
    joined = model.tuner.embed(embeds)
    first, second = (model.tuner.parts[key].soft_prompt for key in "ab")
    assert model.tuner.num_virtual_tokens == 5
    assert torch.equal(joined[1], torch.cat([first, second, embeds[1]]))
    assert model.tuner.facts() == {"a.m": 2, "a.s": 12, "a.d": 16, "b.m": 3, "b.s": 12, "b.d": 16}


def test_each_part_has_its_own_rate(folders):
    tuner = settings("dept+lora", **{"lr": 0.2, "parts.lora.lr": 0.01, "parts.dept.budget_tokens": 12})
    rates = {group.name: group.lr for group in make(folders["t5"], tuner).param_groups()}
    assert rates == {"dept.soft_prompt": 0.2, "dept.lowrank": UPDATE_RATE, "lora.lora": 0.01, "visual_projection": None}


def test_a_stack_loads_and_starts_another(folders, tmp_path):
    tuner = settings("dept+lora", **{"parts.dept.budget_tokens": 12})
    model = make(folders["t5"], tuner, moved=0.2)
    model.save_pretrained(tmp_path)
    loaded, _ = load_model(tmp_path, model.config)
    assert torch.equal(logits(loaded.eval()), logits(model))
    fresh = make(folders["t5"], tuner, seed=3)
    warm_start(fresh, tmp_path, "all")
    assert torch.equal(logits(fresh), logits(model))
    prompt = make(folders["t5"], settings("prompt-tuning", num_virtual_tokens=len(model.tuner.prompt())))
    warm_start(prompt, tmp_path, "prompt")
    assert torch.equal(prompt.tuner.soft_prompt, model.tuner.prompt())
    with pytest.raises(CheckpointError, match=r"stacks .*'lora': 'lora'.*, this run stacks .*'bitfit'"):
        warm_start(make(folders["t5"], settings("dept+bitfit", **{"parts.dept.budget_tokens": 12})), tmp_path, "all")


def test_parts_that_train_the_same_tensors_are_refused(folders):
    tuner = settings("stack", parts={"all": {"name": "fine-tuning"}, "again": {"name": "fine-tuning"}})
    with pytest.raises(ConfigError, match=r"tuner\.parts: 'all' and 'again' train the same tensors"):
        make(folders["t5"], tuner)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tuner.name": "dept+lroa"}, r"tuner\.parts\.lroa\.name: unknown tuner 'lroa'; did you mean 'lora'"),
        ({"tuner.name": "dept+lora", "tuner.parts.lora.rnk": 3}, r"tuner\.parts\.lora\.rnk: unknown setting"),
        ({"tuner.name": "dept+lora", "tuner.parts.bitfit.lr": 1}, r"tuner\.parts\.bitfit: .* has no such part"),
        ({"tuner.name": "stack"}, r"tuner\.parts: .*at least 1 item"),
        ({"tuner.name": "dept+lora", "tuner.parts": 3}, r"tuner\.parts: .*valid dictionary"),
        ({"tuner.name": "dept+stack"}, r"tuner\.parts\.stack\.name: unknown tuner 'stack'"),
        ({"tuner.name": "lora+dept+lora"}, r"tuner\.name: 'lora\+dept\+lora' names 'lora' twice; name it once"),
        ({"tuner.name": "dept+"}, r"tuner\.parts\.\.name: unknown tuner ''"),
    ],
)
def test_bad_stacks_are_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        load_config(None, given)


def test_the_command_that_started_a_run_is_laid_over_its_settings(tmp_path):
    given = {"tuner.name": "dept+lora", "tuner.lr": 0.1, "tuner.parts.lora.rank": 4}
    config = load_config(None, given)
    (tmp_path / "config.yaml").write_text(dump_config(config))
    for again in ({"tuner.name": "dept+lora"}, {"tuner.name": "stack"}, given, {}):
        assert load_config(tmp_path / "config.yaml", again) == config
    other = load_config(tmp_path / "config.yaml", {"tuner.lr": 0.2, "tuner.parts.lora.rank": 3}).tuner
    assert (other.parts["dept"].lr, other.parts["lora"].rank) == (0.2, 3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tuner.name": "dept+bitfit"}, r"'dept\+bitfit' was asked for, .* sets fields of 'dept\+lora'"),
        ({"tuner.name": "lora"}, r"'lora' was asked for, .* sets fields of 'dept\+lora'"),
        ({"tuner.parts.bitfit.lr": 1}, r"tuner\.parts\.bitfit: 'dept\+lora' has no such part"),
        ({"tuner.parts.lora.rnk": 3}, r"did you mean 'tuner\.parts\.lora\.rank'"),
    ],
)
def test_another_stack_is_not_laid_over_a_file(tmp_path, given, message):
    (tmp_path / "config.yaml").write_text(dump_config(load_config(None, {"tuner.name": "dept+lora"})))
    with pytest.raises(ConfigError, match=message):
        load_config(tmp_path / "config.yaml", given)


def test_a_run_of_a_stack_is_called_after_its_parts():
    assert str(load_config(None, {"tuner.name": "dept+lora"}).run_dir) == "runs/vqa-dept+lora"


def test_hooks_at_one_place_act_in_order(folders):
    tuner = settings("lora+bitfit", **{"parts.lora.rank": 2, "parts.lora.dropout": 0.0})
    both = make(folders["t5"], tuner, moved=0.2)
    recipe = make(folders["t5"], settings("lora", rank=2, dropout=0.0, biases="all"))
    with torch.no_grad():
        for part, target in (("lora", recipe.tuner.updates), ("bitfit", recipe.tuner.biases)):
            source = both.tuner.parts[part]
            target.load_state_dict((source.updates if part == "lora" else source.biases).state_dict())
    torch.testing.assert_close(logits(both), logits(recipe), rtol=1e-5, atol=1e-5)
