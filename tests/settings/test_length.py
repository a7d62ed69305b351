"""How long a run is: in steps or in epochs, and which of what is given counts."""

import pytest

from dept_vl.data.sampler import StepBatches, whole_batches
from dept_vl.errors import ConfigError
from dept_vl.experiments.space import load_plan
from dept_vl.settings.load import config_from_tree, dump_config, load_config, nested_settings
from dept_vl.settings.schema import LoopConfig
from dept_vl.tuners.recipes import METHODS


def length(config):
    loop = config.loop
    return loop.max_steps, loop.epochs, loop.eval_every_steps, loop.eval_every_epochs


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("loop: {epochs: 20, eval_every_epochs: 1}\n")
    return path


def test_a_run_has_steps_where_nothing_is_given():
    assert length(load_config(None)) == (30_000, None, 1_000, None)


def test_epochs_of_a_file_take_the_place_of_the_default_steps(file):
    assert length(load_config(file)) == (None, 20, None, 1)


def test_steps_of_the_command_line_take_the_place_of_a_file_s_epochs_and_the_other_way(file, tmp_path):
    assert length(load_config(file, {"loop.max_steps": 5})) == (5, None, None, 1)
    assert length(load_config(file, {"loop.eval_every_steps": 5})) == (None, 20, 5, None)
    (tmp_path / "steps.yaml").write_text("loop: {max_steps: 9, eval_every_steps: 3}\n")
    assert length(load_config(tmp_path / "steps.yaml", {"loop.epochs": 2})) == (None, 2, 3, None)


def test_a_recipe_s_epochs_give_way_to_steps_that_are_given(monkeypatch, tmp_path):
    monkeypatch.setattr(METHODS["lora"], "recipe", {"loop": {"epochs": 20, "eval_every_epochs": 1}})
    assert length(load_config(None, {"tuner.name": "lora"})) == (None, 20, None, 1)
    assert length(load_config(None, {"tuner.name": "lora", "loop.max_steps": 5})) == (5, None, None, 1)
    (tmp_path / "lora.yaml").write_text("tuner: {name: lora}\nloop: {max_steps: 7, eval_every_steps: 2}\n")
    assert length(load_config(tmp_path / "lora.yaml")) == (7, None, 2, None)
    assert length(load_config(tmp_path / "lora.yaml", {"loop.epochs": 3})) == (None, 3, 2, None)


def test_both_in_one_place_are_refused_with_one_message(tmp_path):
    (tmp_path / "both.yaml").write_text("loop: {epochs: 20, max_steps: 5}\n")
    message = r"loop(\.max_steps)?: give loop\.max_steps or loop\.epochs, one of them, got \{.*'max_steps': 5"
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(tmp_path / "both.yaml")
    assert str(caught.value).count("loop: ") == 1
    with pytest.raises(ConfigError, match=message):
        load_config(None, {"loop.epochs": 20, "loop.max_steps": 5})
    with pytest.raises(ConfigError, match=r"give loop\.eval_every_steps or loop\.eval_every_epochs, one of them"):
        load_config(None, {"loop.eval_every_steps": 5, "loop.eval_every_epochs": 2})


def test_neither_is_refused():
    with pytest.raises(ConfigError, match=r"give loop\.max_steps or loop\.epochs, one of them"):
        load_config(None, {"loop.max_steps": None})


@pytest.mark.parametrize("epochs", [0, -1, float("inf"), "many"])
def test_a_length_that_is_none_is_refused(epochs):
    with pytest.raises(ConfigError, match=r"loop\.epochs: .*, got"):
        load_config(None, {"loop.epochs": epochs})


def test_what_is_recorded_is_read_back(file):
    config = load_config(file)
    assert config_from_tree(nested_settings(config)) == config
    assert "epochs: 20.0" in dump_config(config)
    assert "max_steps: null" in dump_config(config)


@pytest.mark.parametrize(("rows", "batch"), [(2490, 100), (7, 8), (8, 8), (17, 4)])
def test_a_pass_is_as_many_steps_as_the_loop_makes_of_it(rows, batch):
    import numpy as np

    batches = StepBatches(np.arange(rows), batch, seed=0)
    steps = LoopConfig(max_steps=None, epochs=3).in_steps(whole_batches(rows, batch)).max_steps
    assert steps == 3 * batches.steps_per_epoch
    seen = [row for step in range(batches.steps_per_epoch) for row in batches.rows(step)]
    assert len(seen) == len(set(seen)) == (rows // min(rows, batch)) * min(rows, batch)


def test_parts_of_a_pass_are_whole_steps():
    assert LoopConfig(max_steps=None, epochs=0.1).in_steps(30).max_steps == 3  # 0.1 * 30 is a hair above 3
    assert LoopConfig(max_steps=None, epochs=1e-6).in_steps(30).max_steps == 1
    assert LoopConfig(max_steps=None, epochs=2, eval_every_steps=None, eval_every_epochs=0.5).in_steps(9) == LoopConfig(
        max_steps=18, eval_every_steps=4
    )


def test_more_steps_than_there_may_be_are_refused():
    with pytest.raises(ConfigError, match=r"loop\.epochs: 1e\+09 passes of 25 steps are more than"):
        LoopConfig(max_steps=None, epochs=1e9).in_steps(25)


def test_hyperband_counts_evaluations_in_epochs_too(tmp_path):
    def plan(loop):
        path = tmp_path / "sweep.yaml"
        path.write_text(
            f"loop: {loop}\nsweep: {{space: {{tuner.lr: [0.1, 0.2]}}, sampler: random, trials: 2, pruner: hyperband}}\n"
        )
        return load_plan(path, {})

    assert plan("{epochs: 3, eval_every_epochs: 0.5}").num_evaluations == 6
    assert plan("{max_steps: 10, eval_every_steps: 4}").num_evaluations == 3
    with pytest.raises(ConfigError, match=r"sweep\.pruner: 'hyperband' counts a run's evaluations"):
        plan("{epochs: 3}")
