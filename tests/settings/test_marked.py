"""Which settings are paths, and which a resumed run may change."""

import pytest

from dept_vl.settings.help import settings_of
from dept_vl.settings.load import absolute_config, load_config
from dept_vl.settings.marked import changes_no_number, path_setting, path_settings, with_absolute_paths, with_real_paths
from dept_vl.settings.schema import TrainConfig


def test_every_setting_that_is_described_as_a_path_is_marked():
    words = ("folder", "root of", "one feature store")
    described = {key for key, setting in settings_of(TrainConfig) if any(word in setting.text for word in words)}
    assert described - {"model.image_encoder.pretrained"} == set(path_settings())  # "unused for a folder"


@pytest.mark.parametrize("key", ["output_dir", "data.dir", "data.image_dir", "data.feature_dir", "init.from"])
def test_a_tilde_is_the_home_folder_in_files_and_on_the_line(key, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/mine")
    *group, name = key.split(".")
    text = f"{name}: ~/here\n" if not group else f"{group[0]}: {{{name}: ~/here}}\n"
    (tmp_path / "c.yaml").write_text(text)
    value = load_config(tmp_path / "c.yaml")
    assert value == load_config(None, {key: "~/here"}) == load_config(None, {key: "/home/mine/here"})


def test_several_paths_in_one_setting_are_each_a_path(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/mine")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    for name, place in (("attempt", ""), ("attempt+lora", "parts.attempt.")):
        key = f"tuner.{place}sources"
        for given in ("a,~/b,me/c", ["a", "~/b", "me/c"]):
            config = load_config(None, {"tuner.name": name, key: given})
            recorded = absolute_config(config).tuner
            sources = recorded.parts["attempt"].sources if place else recorded.sources
            assert sources == (str(tmp_path / "a"), "/home/mine/b", "me/c")
        assert with_real_paths({key: ["a"]}) == with_real_paths({key: ["./a/"]})
        assert with_real_paths({key: ["a", "b"]}) != with_real_paths({key: ["b", "a"]})


def test_models_in_the_home_folder_are_found_there(monkeypatch):
    monkeypatch.setenv("HOME", "/home/mine")
    config = load_config(None, {"model.backbone": "~/t5", "model.clip.model": "~/clip"})
    assert (config.model.backbone, config.model.image_encoder.model) == ("/home/mine/t5", "/home/mine/clip")


def test_recorded_paths_are_from_the_root_on_and_names_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("t5", "runs/a"):
        (tmp_path / folder).mkdir(parents=True)
    given = {"data.dir": "data", "model.backbone": "t5", "init.from": "runs/a", "output_dir": "run"}
    config = absolute_config(load_config(None, given))
    assert config == load_config(None, {key: str(tmp_path / value) for key, value in given.items()})
    names = {"data.dir": "demo", "model.backbone": "t5-base", "model.image_encoder.model": "RN50", "init.from": "me/a"}
    named = load_config(None, names)
    assert absolute_config(named) == named


def test_paths_are_found_in_records_of_several_settings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    record = {"sources": {"mnli": {"data": {"dir": "a"}}}, "overrides": {"model.clip.model": "./b"}, "seed": 1}
    assert with_absolute_paths(record) == {
        "sources": {"mnli": {"data": {"dir": str(tmp_path / "a")}}},
        "overrides": {"model.clip.model": str(tmp_path / "b")},
        "seed": 1,
    }
    assert with_real_paths({"data": {"dir": "a"}}) == with_real_paths({"data": {"dir": "./a/"}})
    assert path_setting("decode.method") is None


def test_what_a_resumed_run_may_change_changes_no_number():
    may_differ = {key for key, _ in settings_of(TrainConfig) if changes_no_number(key)}
    assert may_differ == {
        "data.num_workers", "data.eval_batch_size", "data.on_long", "loop.save_every_steps", "loop.keep_checkpoints",
        "loop.log_every_steps", "loop.trackers", "loop.on_nan", "loop.max_skipped_steps",
    }  # fmt: skip
