import re
from pathlib import Path
from typing import get_args

import pytest
import yaml

from dept_vl.errors import ConfigError
from dept_vl.experiments.space import load_plan
from dept_vl.models.vision.open_clip.config import OpenClipConfig
from dept_vl.settings.demo import demo_settings
from dept_vl.settings.load import config_from_tree, describe_settings, dump_config, load_config
from dept_vl.settings.schema import TrainConfig
from dept_vl.tasks import get_task
from dept_vl.tuners import Method

_SHIPPED = sorted((Path(__file__).parents[2] / "configs").rglob("*.yaml"))
_LAUNCHERS = [path for path in _SHIPPED if path.parent.name == "accelerate"]  # accelerate's own, tried in test_train.py
SWEEPS = [path for path in _SHIPPED if path.parent.name == "sweeps"]
BASES = [path for path in _SHIPPED if path.parent.name == "bases"]  # what tests/reports/test_paper_configs.py reads
METHODS = [path for path in _SHIPPED if path.name == "method.yaml"]  # as above
CONFIGS = [path for path in _SHIPPED if path not in SWEEPS + _LAUNCHERS + BASES + METHODS]
TUNERS = [member().name for member in get_args(get_args(Method)[0])]


def write(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text)
    return path


def test_defaults_are_table_10_of_the_paper():
    config = load_config(None)
    optim, loop = config.optim, config.loop
    assert (optim.eps, optim.beta1, optim.beta2, optim.weight_decay) == (1e-6, 0.9, 0.98, 0.01)
    assert (optim.schedule, optim.warmup_proportion) == ("linear", 0.06)
    assert (config.data.batch_size, config.data.max_source_length) == (16, 256)
    assert (loop.max_steps, loop.eval_every_steps) == (30_000, 1_000)


def test_command_line_wins_over_yaml_and_yaml_over_task(tmp_path):
    path = write(tmp_path, "task: coco\ndata: {max_target_length: 25, batch_size: 8}\n")
    config = load_config(path, {"data.batch_size": 4})
    assert config.data.batch_size == 4
    assert config.data.max_target_length == 25
    assert load_config(None, {"task": "coco"}).data.max_target_length == 40


def test_exponent_without_a_dot_is_a_number(tmp_path):
    path = write(tmp_path, "tuner: {lowrank_lr: 5e-4}\n")
    assert yaml.safe_load(path.read_text())["tuner"]["lowrank_lr"] == "5e-4"
    assert load_config(path).tuner.lowrank_lr == 5e-4


def test_all_errors_are_reported_together_with_their_keys(tmp_path):
    path = write(tmp_path, "tuner: {lowrank_lr: -1}\ndata: {batch_size: many}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert "data.batch_size: " in str(caught.value)
    assert "got 'many'" in str(caught.value)
    assert "tuner.lowrank_lr: should be greater than 0, got -1" in str(caught.value)


@pytest.mark.parametrize("source", ["file", "line"])
def test_unknown_setting_names_the_near_one(tmp_path, source):
    if source == "file":
        path, overrides = write(tmp_path, "optim: {projecton_lr: 0.1}\n"), {}
    else:
        path, overrides = None, {"optim.projecton_lr": 0.1}
    with pytest.raises(ConfigError, match=r"optim\.projecton_lr: unknown setting.*did you mean 'optim\.projection_lr'"):
        load_config(path, overrides)


def test_unknown_task_names_the_near_one():
    with pytest.raises(ConfigError, match="unknown task 'vqaa'; did you mean 'vqa'"):
        load_config(None, {"task": "vqaa"})


def test_a_wrong_entry_of_a_list_is_one_error():
    with pytest.raises(ConfigError, match=r"got 'foo'$"):
        load_config(None, {"tuner.name": "lora", "tuner.sites": ["foo"]})
    with pytest.raises(ConfigError, match=r"at least 1 item.*got \[\]$"):
        load_config(None, {"tuner.name": "lora", "tuner.sites": []})


def test_a_setting_of_another_tuner_is_told_from_one_that_nobody_has():
    message = (
        r"^tuner\.sites: unknown setting of the kind chosen \(another has it\), given 1; it is one of lora, adapter, "
    )
    with pytest.raises(ConfigError, match=message):
        load_config(None, {"tuner.sites": 1})


@pytest.mark.parametrize("text", ["seed: 3\n", "tuner: {name: dept, rank: 30}\n"])
def test_unknown_tuner_names_the_near_one(tmp_path, text):
    with pytest.raises(ConfigError, match="unknown tuner 'depth'; did you mean 'dept'"):
        load_config(write(tmp_path, text), {"tuner.name": "depth"})


@pytest.mark.parametrize("text", ["seed: 3\n", "model: {image_encoder: {model: demo}}\n"])
def test_unknown_kind_of_image_encoder_names_the_near_one(tmp_path, text):
    message = r"model\.image_encoder\.kind: unknown image encoder 'open_clip'; did you mean 'open-clip'\? \(known: "
    with pytest.raises(ConfigError, match=message):
        load_config(write(tmp_path, text), {"model.image_encoder.kind": "open_clip"})


def test_an_image_encoder_may_leave_its_kind_out(tmp_path):
    path = write(tmp_path, "model: {image_encoder: {model: demo, pooled_grid: null}}\n")
    assert load_config(path).model.image_encoder == OpenClipConfig(model="demo", pooled_grid=None)
    assert "kind: open-clip" in dump_config(load_config(path))


def test_errors_in_an_image_encoder_name_its_settings():
    with pytest.raises(ConfigError, match=r"^model\.image_encoder\.pooled_grid: should be greater .*, got 0$"):
        load_config(None, {"model.image_encoder.pooled_grid": 0})
    with pytest.raises(ConfigError, match=r"image_encoder\.modle: unknown setting.*'model\.image_encoder\.model'"):
        load_config(None, {"model.image_encoder.modle": "RN50"})


def test_another_tuner_over_fields_of_the_first_is_refused(tmp_path):
    path = write(tmp_path, "tuner: {name: dept, rank: 30}\n")
    with pytest.raises(ConfigError, match=r"'prompt-tuning' was asked for.*tuner\.rank"):
        load_config(path, {"tuner.name": "prompt-tuning"})


def test_another_tuner_over_a_file_without_its_fields_is_taken(tmp_path):
    path = write(tmp_path, "seed: 3\n")
    assert load_config(path, {"tuner.name": "prompt-tuning"}).tuner.name == "prompt-tuning"


def test_a_value_where_a_group_belongs_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="data"):
        load_config(write(tmp_path, "data: 3\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [("- a\n- b\n", "expected a mapping"), ("a: [1\n", "not valid YAML"), ("task: [1]\n", "unknown task")],
)
def test_files_that_are_no_settings_are_refused(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        load_config(write(tmp_path, text))


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.yaml: cannot read"):
        load_config(tmp_path / "absent.yaml")


def test_nan_is_no_learning_rate():
    with pytest.raises(ConfigError, match=r"tuner\.lr"):
        load_config(None, {"tuner.lr": float("nan")})


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: "/".join(path.parts[-3:]))
def test_shipped_config_loads_and_comes_back_equal(path):
    config = load_config(path)
    assert config_from_tree(yaml.safe_load(dump_config(config))) == config
    text = path.read_text()
    is_mix = "+" in config.task  # several tasks: the file names them
    asked = r"--config \S+" if is_mix else rf"--(task|target) {config.task} "
    assert re.search(rf"^#   dept-vl (train|transfer) .*{asked}", text, re.MULTILINE)
    assert text.startswith("# ")


@pytest.mark.parametrize("task", ["vqa", "coco"])
@pytest.mark.parametrize("tuner", [*TUNERS, "dept+lora"])
def test_the_demo_has_settings_for_every_method(task, tuner):
    config = config_from_tree(demo_settings(get_task(task), tuner))
    assert (config.task, config.tuner.label, config.data.dir) == (task, tuner, "demo")
    assert config.tuner.budget(192, 32).is_exact if tuner == "dept" else True
    if tuner == "dept+lora":
        assert config.tuner.parts["dept"] == config_from_tree(demo_settings(get_task(task), "dept")).tuner


def test_a_task_without_a_demo_is_refused():
    with pytest.raises(ConfigError, match=r"no embedded demo of task 'cola' \(there are: coco, vqa\)"):
        demo_settings(get_task("cola"), "dept")


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.name)
def test_shipped_sweep_loads_and_says_how_to_run_it(path):
    plan = load_plan(path, {"task": "cola"})
    assert plan.num_trials > 0
    first, *_ = path.read_text().splitlines()
    assert first.startswith("# ")
    assert f"dept-vl sweep --task cola --config configs/sweeps/{path.name}" in path.read_text()


def test_there_are_shipped_configs():
    assert SWEEPS
    assert len(CONFIGS) >= 5


def test_help_lists_every_setting_once_with_its_default_or_once_a_method():
    lines = [line for line in describe_settings().splitlines() if line.startswith("  --")]
    keys = [line.split()[0] for line in lines]
    twice = {key for key in keys if keys.count(key) > 1}
    assert all(key.startswith(("--tuner.", "--model.image_encoder.")) for key in twice)
    assert all(line.endswith("]") for line in lines if line.split()[0] in twice), "says whose it is"
    assert "--tuner.lr" in keys
    assert "--tuner.rank" in keys
    for line in lines:
        assert len(line.split(maxsplit=3)) == 4, f"no description: {line}"


def test_run_folder_is_named_for_task_and_tuner():
    assert TrainConfig().run_dir == Path("runs/vqa-dept")
    assert TrainConfig(output_dir="here").run_dir == Path("here")


def test_the_protocol_of_a_text_task_is_resolved(tmp_path):
    for given in ({}, {"data.protocol": None}, {"data.protocol": "fixed"}):
        assert load_config(None, {"task": "cola", **given}).data.protocol == "fixed"
    config = load_config(None, {"task": "cola", "data.protocol": "paper"})
    assert config.data.protocol == "paper"
    assert config.data.max_target_length == 8
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(config))
    assert "protocol: paper" in path.read_text()
    assert load_config(path) == config


def test_a_task_with_one_way_only_takes_no_protocol():
    assert load_config(None, {"task": "vqa"}).data.protocol is None
    with pytest.raises(ConfigError, match="task 'vqa' has no protocol 'fixed'; it has none; leave it out"):
        load_config(None, {"task": "vqa", "data.protocol": "fixed"})


def test_init_from_is_spelled_from_in_files_and_on_the_command_line(tmp_path):
    config = load_config(None, {"init.from": "runs/mnli-dept", "init.parts": "prompt"})
    assert (config.init.source, config.init.parts) == ("runs/mnli-dept", "prompt")
    (tmp_path / "c.yaml").write_text(dump_config(config))
    assert "from: runs/mnli-dept" in dump_config(config)
    assert load_config(tmp_path / "c.yaml") == config
    with pytest.raises(ConfigError, match=r"init\.form: unknown setting.*init\.from"):
        load_config(None, {"init.form": "x"})
