"""Settings files that are laid over others."""

import os
from pathlib import Path

import pytest

from dept_vl.cli import main
from dept_vl.errors import ConfigError
from dept_vl.experiments.space import load_plan
from dept_vl.settings.load import config_from_tree, dump_config, load_config, nested_settings


def write(folder: Path, **files: str) -> Path:
    """Writes files of YAML, by their names without ending; returns the folder."""
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder


def test_a_file_is_laid_over_the_one_it_extends(tmp_path):
    write(tmp_path, base="task: cola\ntuner: {name: lora, rank: 4}\noptim: {eps: 0.5, beta1: 0.5}\n")
    (tmp_path / "deeper").mkdir()
    leaf = tmp_path / "deeper" / "leaf.yaml"
    leaf.write_text("extends: ../base.yaml\ntask: rte\noptim: {eps: 0.25}\n")
    config = load_config(leaf, {"optim.beta1": 0.75})
    assert (config.task, config.tuner.rank, config.optim.eps, config.optim.beta1) == ("rte", 4, 0.25, 0.75)
    whole = write(tmp_path, whole="task: rte\ntuner: {name: lora, rank: 4}\noptim: {eps: 0.25, beta1: 0.75}\n")
    assert config == load_config(whole / "whole.yaml")


def test_of_several_each_is_laid_over_those_before_it_and_a_file_may_come_by_two_ways(tmp_path):
    write(
        tmp_path,
        base="optim: {eps: 0.1, beta1: 0.1, beta2: 0.1}\n",
        first="extends: base.yaml\noptim: {beta1: 0.2, beta2: 0.2}\n",
        second="extends: base.yaml\noptim: {beta2: 0.3}\n",
        leaf="extends: [first.yaml, second.yaml]\ntask: cola\n",
    )
    optim = load_config(tmp_path / "leaf.yaml").optim
    assert (optim.eps, optim.beta1, optim.beta2) == (0.1, 0.1, 0.3)


def test_what_is_resolved_does_not_say_what_was_extended(tmp_path):
    write(tmp_path, base="task: cola\n", leaf="extends: base.yaml\n")
    config = load_config(tmp_path / "leaf.yaml")
    assert "extends" not in dump_config(config)
    assert config_from_tree(nested_settings(config)) == config


def test_a_link_to_a_file_extends_what_lies_beside_the_link(tmp_path):
    write(tmp_path, base="seed: 1\n", leaf="extends: base.yaml\n")
    (tmp_path / "other").mkdir()
    other = write(tmp_path / "other", base="seed: 2\n")
    os.symlink(tmp_path / "leaf.yaml", other / "link.yaml")
    assert load_config(tmp_path / "other" / "link.yaml").seed == 2


def test_a_shipped_file_is_extended_by_its_name(tmp_path):
    write(tmp_path, leaf="extends: vqa/dept\nseed: 7\n")
    config = load_config(tmp_path / "leaf.yaml")
    assert config.seed == 7
    assert config == load_config(Path("vqa/dept"), {"seed": 7})


def test_steps_take_the_place_of_epochs_below_and_the_other_way(tmp_path):
    write(
        tmp_path,
        epochs="loop: {epochs: 2, eval_every_epochs: 1}\n",
        steps="extends: epochs.yaml\nloop: {max_steps: 5}\n",
        again="extends: steps.yaml\nloop: {epochs: 3}\n",
    )
    steps, again = (load_config(tmp_path / f"{name}.yaml").loop for name in ("steps", "again"))
    assert (steps.max_steps, steps.epochs, steps.eval_every_epochs) == (5, None, 1)
    assert (again.max_steps, again.epochs) == (None, 3)


def test_a_stack_is_laid_over_by_part(tmp_path):
    write(
        tmp_path,
        base="tuner: {name: dept+lora, parts: {lora: {rank: 4}}}\n",
        leaf="extends: base.yaml\ntuner: {parts: {lora: {alpha: 8}, dept: {lr: 0.2}}}\n",
    )
    parts = load_config(tmp_path / "leaf.yaml").tuner.parts
    assert (parts["lora"].rank, parts["lora"].alpha, parts["dept"].lr) == (4, 8, 0.2)


def test_an_earlier_name_below_is_the_same_setting_as_today_s_above(tmp_path):
    write(
        tmp_path,
        base="model: {clip: {model: demo, pooled_grid: 2}}\n",
        leaf="extends: base.yaml\nmodel: {image_encoder: {pooled_grid: 3}}\n",
    )
    encoder = load_config(tmp_path / "leaf.yaml").model.image_encoder
    assert (encoder.model, encoder.pooled_grid) == ("demo", 3)


def test_another_method_over_fields_of_the_first_is_refused(tmp_path):
    write(tmp_path, base="tuner: {name: lora, rank: 4}\n", leaf="extends: base.yaml\ntuner: {name: bitfit}\n")
    with pytest.raises(ConfigError, match=r"(?s)leaf\.yaml.*tuner\.name: 'bitfit' was asked for.*\(tuner\.rank\)"):
        load_config(tmp_path / "leaf.yaml")


@pytest.mark.parametrize(
    ("files", "way"),
    [
        ({"a": "extends: a.yaml\n"}, r"a\.yaml -> \S*a\.yaml"),
        (
            {"a": "extends: b.yaml\n", "b": "extends: [c.yaml]\n", "c": "extends: a.yaml\n"},
            r"a.* -> .*b.* -> .*c.* -> .*a",
        ),
    ],
)
def test_a_file_that_leads_back_to_itself_is_refused(tmp_path, files, way):
    write(tmp_path, **files)
    with pytest.raises(ConfigError, match=rf"extends: leads back to itself: .*{way}"):
        load_config(tmp_path / "a.yaml")


def test_a_missing_file_is_named_with_who_extends_it(tmp_path):
    write(tmp_path, leaf="extends: bse.yaml\n")
    with pytest.raises(
        ConfigError, match=r"leaf\.yaml: extends: 'bse\.yaml': no such file beside it \(.*bse\.yaml\), and no"
    ):
        load_config(tmp_path / "leaf.yaml")


@pytest.mark.parametrize("value", ["3", "{a: b}", "[1]", "[a.yaml, null]", "''", "null"])
def test_what_is_no_file_or_list_of_files_is_refused(tmp_path, value):
    write(tmp_path, a="seed: 1\n", leaf=f"extends: {value}\n")
    with pytest.raises(ConfigError, match=r"leaf\.yaml: extends: expected a file, or a list of files, got"):
        load_config(tmp_path / "leaf.yaml")


def test_what_is_wrong_below_is_said_of_the_file_that_was_given(tmp_path):
    write(tmp_path, base="optim: {epss: 3}\n", leaf="extends: base.yaml\n")
    with pytest.raises(ConfigError, match=r"(?s)leaf\.yaml.*optim\.epss: unknown setting"):
        load_config(tmp_path / "leaf.yaml")
    write(tmp_path, base="- a list\n")
    with pytest.raises(ConfigError, match=r"base\.yaml: expected a mapping of settings"):
        load_config(tmp_path / "leaf.yaml")


def test_the_command_line_has_no_such_setting(capsys):
    assert main(["info", "--config", "demo", "--optim.extends", "x"]) == 2
    assert "unknown setting" in capsys.readouterr().err


def test_a_sweep_file_extends_others_too(tmp_path):
    write(
        tmp_path,
        base="task: cola\ntuner: {name: lora, rank: 4}\n",
        sweep="extends: base.yaml\nsweep: {space: {tuner.lr: [0.1, 0.2]}, sampler: grid}\n",
    )
    plan = load_plan(tmp_path / "sweep.yaml", {})
    assert plan.config({"tuner.lr": 0.1}).tuner.rank == 4
    assert "extends" not in plan.record["settings"]
