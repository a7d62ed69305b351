"""Each method's own defaults: where they lie, whose they are, and that nothing else moved."""

import pytest
import yaml

from dept_vl.cli import main
from dept_vl.errors import ConfigError
from dept_vl.reports.text import format_recipe
from dept_vl.settings.demo import demo_settings
from dept_vl.settings.help import fields_of
from dept_vl.settings.load import (
    config_from_tree,
    describe_settings,
    dump_config,
    flat_settings,
    load_config,
    nested_settings,
    overlay_config,
)
from dept_vl.settings.schema import STEPS_OR_EPOCHS, TrainConfig
from dept_vl.tasks import get_task
from dept_vl.tuners.recipes import METHODS, recipe_of

WITH_RECIPE = [name for name, method in METHODS.items() if method.recipe]
FIELDS = dict(fields_of(TrainConfig))


def default_of(key):
    return FIELDS[key].get_default(call_default_factory=True)


def test_there_are_methods_with_a_recipe_and_without():
    assert "lora" in WITH_RECIPE
    assert "dept" not in WITH_RECIPE


@pytest.mark.parametrize("name", METHODS)
def test_a_recipe_has_known_settings_of_a_run_and_says_where_they_come_from(name):
    method = METHODS[name]
    recipe = flat_settings(method.recipe)
    assert set(recipe) <= set(FIELDS)
    assert not [key for key in recipe if key.split(".")[0] not in ("optim", "data", "loop", "mix", "decode", "model")]
    if method.can_train:
        assert method.recipe_source
    if not recipe:
        assert not method.recipe_source or "the fields' defaults" in method.recipe_source


@pytest.mark.parametrize("name", METHODS)
def test_without_a_file_a_run_has_its_method_s_recipe_and_else_the_fields_defaults(name):
    config = flat_settings(nested_settings(load_config(None, {"tuner.name": name, "task": "vqa"})))
    recipe = flat_settings(METHODS[name].recipe)
    nulls = {f"loop.{steps}": None for steps, epochs in STEPS_OR_EPOCHS if f"loop.{epochs}" in recipe}
    recipe |= nulls
    for key in FIELDS:
        if not key.startswith(("tuner.", "model.image_encoder.", "data.max_", "init.", "mix.")):
            expected = recipe.get(key, "vqa" if key == "task" else default_of(key))
            assert config[key] == expected, key


HOW_LONG = {"loop.max_steps", "loop.epochs"}
OPTIMISER = {"optim.weight_decay", "optim.beta2", "optim.eps"}
WARM_UP = {"optim.warmup_steps", "optim.warmup_proportion"}


@pytest.mark.parametrize("name", WITH_RECIPE)
def test_a_recipe_says_batch_loss_optimiser_warm_up_and_how_long(name):
    recipe = set(flat_settings(METHODS[name].recipe))
    assert "data.batch_size" in recipe
    assert recipe & HOW_LONG
    assert recipe & WARM_UP
    assert {"optim.name", "optim.scale_parameter"} <= recipe or recipe & OPTIMISER
    assert "data.loss_mean" in recipe or name == "p-tuning"  # whose source has one loss for VQA, another for captions


def test_hyperformer_draws_one_task_a_step_at_its_temperature_unless_shares_are_given():
    def mix(**given):
        return load_config(None, {"tuner.name": "hyperformer", "task": "rte+cola", **given}).mix

    assert (mix().batches, mix().temperature) == ("one-task", 10.0)
    assert mix(**{"mix.temperature": 2.0}).temperature == 2.0
    rated = mix(**{"mix.rates": {"rte": 1.0, "cola": 2.0}})
    assert (rated.batches, rated.temperature) == ("one-task", None)
    assert load_config(None, {"tuner.name": "lora", "task": "rte+cola"}).mix.batches is None


def test_hyperdecoder_alone_has_no_share_of_tasks():
    assert load_config(None, {"tuner.name": "hyperdecoder", "task": "rte"}).mix.temperature is None


def test_a_file_wins_over_the_recipe_and_the_command_line_over_both(tmp_path):
    recipe = flat_settings(METHODS["lora"].recipe)
    path = tmp_path / "lora.yaml"
    path.write_text("tuner: {name: lora}\noptim: {beta2: 0.9, eps: 0.1, warmup_steps: null}\n")
    config = load_config(path, {"optim.eps": 0.2})
    assert (config.optim.beta2, config.optim.eps, config.optim.warmup_steps) == (0.9, 0.2, None)
    assert config.optim.weight_decay == recipe["optim.weight_decay"] != TrainConfig().optim.weight_decay


def test_the_task_s_own_lengths_win_over_a_recipe(monkeypatch):
    recipe = {"data": {"max_target_length": 3, "batch_size": 5}}
    monkeypatch.setattr(METHODS["lora"], "recipe", recipe)
    config = load_config(None, {"tuner.name": "lora", "task": "cola"})
    assert config.data.max_target_length == get_task("cola").max_target_length != 3
    assert config.data.batch_size == 5


def test_a_stack_has_the_recipe_of_its_first_part():
    def optim(tuner):
        return config_from_tree({"tuner": tuner}).optim

    lora, dept = optim({"name": "lora"}), optim({"name": "dept"})
    assert lora != dept
    assert optim({"name": "lora+dept"}) == lora
    assert optim({"name": "dept+lora"}) == dept
    named = {"first": {"name": "lora"}, "second": {"name": "prompt-tuning"}}
    assert optim({"name": "stack", "parts": named}) == lora
    assert optim({"name": "stack", "parts": {"lora": None, "dept": None}}) == lora


@pytest.mark.parametrize("name", [*WITH_RECIPE, "lora+dept"])
def test_a_record_is_complete_and_a_changed_recipe_changes_no_earlier_run(name, monkeypatch):
    config = load_config(None, {"tuner.name": name})
    record = yaml.safe_load(dump_config(config))
    method = recipe_of(record["tuner"])
    monkeypatch.setattr(method, "recipe", {"optim": {"beta1": 0.5}, "data": {"batch_size": 77}})
    assert load_config(None, {"tuner.name": name}).data.batch_size == 77
    assert config_from_tree(record) == config
    assert overlay_config(record, {"seed": 3}).data.batch_size == config.data.batch_size


def test_a_setting_that_came_after_a_record_is_at_its_field_s_default_and_not_the_recipe_s():
    config = load_config(None, {"tuner.name": "lora"})
    record = nested_settings(config)
    del record["data"]["loss_mean"], record["optim"]["warmup"], record["output_dir"]
    again = config_from_tree(record)
    assert (again.data.loss_mean, again.optim.warmup) == ("examples", "above-zero")
    assert again.optim.beta2 == config.optim.beta2


@pytest.mark.parametrize("task", ["vqa", "coco"])
@pytest.mark.parametrize("name", METHODS)
def test_the_demo_s_steps_warm_up_and_loss_are_its_own_whatever_the_method(task, name):
    dept = overlay_config(demo_settings(get_task(task), "dept"), {})
    config = overlay_config(demo_settings(get_task(task), name), {})
    for key in ("warmup_steps", "warmup_proportion", "warmup", "max_grad_norm", "projection_lr", "scale_parameter"):
        assert getattr(config.optim, key) == getattr(dept.optim, key), key
    assert config.data == dept.data
    assert config.loop == dept.loop


def test_dept_and_prompt_tuning_have_the_paper_s_table_10():
    for name in ("dept", "prompt-tuning"):
        config = load_config(None, {"tuner.name": name})
        optim = config.optim
        assert (optim.weight_decay, optim.beta1, optim.beta2, optim.eps) == (0.01, 0.9, 0.98, 1e-6)
        assert (optim.warmup_proportion, optim.warmup_steps, optim.max_grad_norm) == (0.06, None, None)
        assert (config.data.batch_size, config.loop.max_steps) == (16, 30_000)


def test_help_says_which_methods_have_another_default():
    line = next(one for one in describe_settings().splitlines() if one.startswith("  --optim.eps"))
    assert "1e-06" in line
    assert "recipe of" in line
    assert "lora" in line
    assert "1e-08" in line


def test_info_prints_the_recipe_and_what_was_given_instead(capsys):
    assert main(["info", "--task", "vqa", "--tuner", "lora", "--config", "demo"]) == 0
    out = capsys.readouterr().out
    assert f"recipe of lora, its own defaults ({METHODS['lora'].recipe_source}):" in out
    assert "  optim.eps 1e-08\n" in out
    assert "  optim.warmup_steps null (the recipe: 500)\n" in out
    assert format_recipe(load_config(None, {"tuner.name": "dept"})) == ""


def test_a_mistake_beside_a_recipe_is_the_only_one_reported():
    with pytest.raises(ConfigError) as caught:
        load_config(None, {"tuner.name": "lora", "optim.eps": -1})
    assert str(caught.value).count("optim.") == 1
