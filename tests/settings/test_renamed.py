"""Names of earlier versions, wherever settings are given."""

import pytest
import yaml

from dept_vl.cli import main
from dept_vl.errors import ConfigError
from dept_vl.experiments.folder import open_experiment, settings_tree
from dept_vl.experiments.space import load_plan
from dept_vl.models.vision.open_clip.config import OpenClipConfig
from dept_vl.settings.load import config_from_tree, dump_config, load_config


@pytest.fixture
def path(tmp_path):
    (tmp_path / "old.yaml").write_text("model: {clip: {model: demo, pooled_grid: null}}\n")
    return tmp_path / "old.yaml"


def test_a_group_of_a_file_is_read_under_its_new_name(path):
    config = load_config(path)
    assert config.model.image_encoder == OpenClipConfig(model="demo", pooled_grid=None)
    assert config_from_tree(yaml.safe_load(path.read_text())) == config


@pytest.mark.parametrize("key", ["model.clip.pooled_grid", "model.image_encoder.pooled_grid"])
def test_either_name_on_the_command_line_wins_over_the_file(path, tmp_path, key):
    expected = OpenClipConfig(model="demo", pooled_grid=3)
    assert load_config(path, {key: 3}).model.image_encoder == expected
    (tmp_path / "new.yaml").write_text("model: {image_encoder: {model: demo, pooled_grid: 2}}\n")
    assert load_config(tmp_path / "new.yaml", {key: 3}).model.image_encoder == expected


def test_a_new_name_in_the_same_file_wins():
    tree = {"model": {"clip": {"model": "demo", "pooled_grid": 2}, "image_encoder": {"pooled_grid": 3}}}
    assert config_from_tree(tree).model.image_encoder == OpenClipConfig(model="demo", pooled_grid=3)


def test_a_recorded_run_of_before_exif_rotation_keeps_ignoring_it_and_a_file_of_a_persons_gets_the_default(tmp_path):
    recorded = yaml.safe_load(dump_config(load_config(None, {"model.image_encoder.model": "demo"})))
    assert config_from_tree(recorded).model.image_encoder.exif == "apply"
    del recorded["model"]["image_encoder"]["exif"]
    assert config_from_tree(recorded).model.image_encoder.exif == "ignore"
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(recorded))
    assert load_config(tmp_path / "config.yaml", {"data.batch_size": 3}).model.image_encoder.exif == "ignore"
    asked = {"model.image_encoder.exif": "apply"}
    assert load_config(tmp_path / "config.yaml", asked).model.image_encoder.exif == "apply"
    del recorded["loop"]
    assert config_from_tree(recorded).model.image_encoder.exif == "apply"


def test_a_setting_given_under_both_names_is_refused():
    with pytest.raises(ConfigError, match=r"model\.clip\.model: an earlier name of model\.image_encoder\.model, which"):
        load_config(None, {"model.clip.model": "demo", "model.image_encoder.model": "RN50"})


def test_a_group_that_is_none_is_refused_under_its_new_name():
    with pytest.raises(ConfigError, match=r"^model\.image_encoder: .*, got 3$"):
        config_from_tree({"model": {"clip": 3}})


def test_flags_of_the_command_line(capsys):
    flags = ["--config", "demo", "--model.clip.pooled_grid", "4"]
    assert main(["info", *flags]) == 0
    assert main(["info", "--model.clip.modle", "x", *flags]) == 2
    assert "--model.clip.modle: unknown setting" in capsys.readouterr().err


def test_a_sweep_keeps_the_names_it_was_started_with(path):
    tree = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**tree, "sweep": {"space": {"model.clip.pooled_grid": [2, 3]}}}))
    plan = load_plan(path, {"model.clip.dtype": "float32"})
    assert plan.points == [{"model.clip.pooled_grid": 2}, {"model.clip.pooled_grid": 3}]
    expected = OpenClipConfig(model="demo", pooled_grid=3, dtype="float32")
    assert plan.config(plan.points[1]).model.image_encoder == expected
    with pytest.raises(ConfigError, match="varied by the sweep and given on the command line"):
        load_plan(path, {"model.image_encoder.pooled_grid": 3})


def test_an_experiment_is_gone_on_with(tmp_path):
    def written_then(config):
        tree = settings_tree(config)
        encoder = tree["model"].pop("image_encoder")
        del encoder["kind"]
        tree["model"]["clip"] = encoder
        return tree

    config = load_config(None, {"model.image_encoder.pooled_grid": 3})
    source = load_config(None, {"task": "coco"})
    (tmp_path / "transfer.yaml").write_text(
        yaml.safe_dump({**written_then(config), "sources": {"coco": written_then(source), "cola": "runs/cola"}})
    )
    settings = {**settings_tree(config), "sources": {"coco": settings_tree(source), "cola": "runs/cola"}}
    open_experiment(tmp_path, "transfer", settings, resume=True, overwrite=False)
    other = {**settings_tree(load_config(None)), "sources": settings["sources"]}
    with pytest.raises(ConfigError, match=r"model\.image_encoder\.pooled_grid: the run has 3, asked for 6"):
        open_experiment(tmp_path, "transfer", other, resume=True, overwrite=False)
