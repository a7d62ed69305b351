"""The JSON Schema of settings: every shipped file passes, what editors should underline does not."""

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from dept_vl.cli import main
from dept_vl.experiments.space import SweepConfig
from dept_vl.settings.json_schema import DIALECT, settings_schema
from dept_vl.settings.load import dump_config, load_config, setting_names
from dept_vl.system.bounded_reading import parse_yaml
from dept_vl.tasks import task_names
from dept_vl.tuners.recipes import METHODS

CONFIGS = Path(__file__).parents[2] / "configs"
FILES = [path for path in sorted(CONFIGS.rglob("*.yaml")) if path.parent.name != "accelerate"]  # accelerate's own


@pytest.fixture(scope="module")
def schema():
    return settings_schema({"sweep": SweepConfig})


@pytest.fixture(scope="module")
def validator(schema):
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def problems(validator, text):
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(parse_yaml(text))]


def test_every_shipped_file_passes(validator):
    found = {str(path): problems(validator, path.read_text(encoding="utf-8")) for path in FILES}
    assert len(found) > 400
    assert not {path: errors for path, errors in found.items() if errors}


@pytest.mark.parametrize("tuner", [*sorted(METHODS.keys() - {"stack", "folded"}), "dept+lora"])
def test_what_a_run_records_passes(tuner, validator):
    assert problems(validator, dump_config(load_config(None, {"tuner.name": tuner}))) == []


@pytest.mark.parametrize(
    "text",
    [
        "extends: vqa/dept",
        "extends: [a.yaml, b.yaml]\ntuner: {rank: 4}",
        "task: rte+cola",
        "task: my_task.yaml",
        "tuner: {lr: 0.3x}",
        "tuner: {name: dept+lora, lr: 0.4x, parts: {lora: {rank: 4}, dept: null}}",
        "tuner: {name: stack, parts: {one: {name: lora, rank: 4}, two: {name: lora}}}",
        "loop: {trackers: 'wandb,trackio'}",
        "loop: {trackers: []}",
        "init: {from: runs/first}",
        "sweep: {space: {tuner.lr: {low: 0.1, high: 1, log: true}}, sampler: random, trials: 3}",
    ],
)
def test_what_files_may_say_passes(text, validator):
    assert problems(validator, text) == []


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("optimiser: {}", "$"),
        ("data: {batchsize: 8}", "$.data"),
        ("tuner: {name: dept, ranks: 3}", "$.tuner"),
        ("tuner: {name: lora, num_virtual_tokens: 4}", "$.tuner"),  # of another method
        ("tuner: {ranks: 3}", "$.tuner"),
        ("tuner: {name: dpet}", "$.tuner.name"),
        ("tuner: {name: dept+lora, parts: {lora: {rnk: 4}}}", "$.tuner.parts.lora"),
        ("tuner: {name: stack, parts: {one: {rank: 4}}}", "$.tuner.parts.one"),
        ("init: {source: runs/first}", "$.init"),
        ("sweep: {space: {}, samplers: tpe}", "$.sweep"),
        ("data: {batch_size: many}", "$.data.batch_size"),
        ("data: {batch_size: 1.5}", "$.data.batch_size"),
        ("data: {length_grouping: 1}", "$.data.length_grouping"),
        ("model: {dtype: float16}", "$.model.dtype"),
        ("loop: {trackers: [tensorbord]}", "$.loop.trackers"),
        ("extends: 3", "$.extends"),
        ("data: {batch_size: 0}", "$.data.batch_size"),
        ("optim: {beta1: 1}", "$.optim.beta1"),
        ("optim: {projection_lr: 0}", "$.optim.projection_lr"),
        ("tuner: {name: dept, lr: -1}", "$.tuner.lr"),
        ("tuner: {name: dept, lr: fast}", "$.tuner.lr"),
        ("seed: -1", "$.seed"),
    ],
)
def test_a_wrong_key_type_or_number_is_underlined_in_its_place(text, place, validator):
    found = problems(validator, text)
    assert found
    assert all(error.startswith(f"{place}: ") for error in found), found


def test_every_setting_is_there_with_its_meaning_and_default(schema):
    def places(node, keys):
        """Yields every node that a dotted key leads to, through references and kinds."""
        kinds = [one["then"] for one in node.get("allOf", []) if "$ref" in one.get("then", {})]
        for found in [node, *kinds]:
            if "$ref" in found:
                found = schema["$defs"][found["$ref"].rsplit("/", 1)[-1]]
            if not keys:
                yield found
            elif keys[0] in found.get("properties", {}):
                yield from places(found["properties"][keys[0]], keys[1:])

    for key in {*setting_names()} - {"tuner.parts"}:  # whose default, no parts, is refused
        assert any("default" in node and "description" in node for node in places(schema, key.split("."))), key
    assert schema["$defs"]["DataConfig"]["properties"]["batch_size"]["default"] == 16
    assert schema["properties"]["task"]["anyOf"][0]["enum"] == task_names()


def test_the_command_prints_it(schema, capsys):
    assert main(["configs", "--schema"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == schema
    assert printed["$schema"] == DIALECT
