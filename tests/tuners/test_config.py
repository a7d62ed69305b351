"""Tuner settings: told apart by name, checked at once, and free of torch."""

import subprocess
import sys

import pytest
from pydantic import TypeAdapter, ValidationError

from dept_vl.tuners import DeptConfig, PromptTuningConfig, TunerConfig

ADAPTER = TypeAdapter(TunerConfig)


@pytest.mark.parametrize("config", [DeptConfig(rank=30, scaling="alpha/sqrt(r)"), PromptTuningConfig()])
def test_settings_survive_json(config):
    assert ADAPTER.validate_json(ADAPTER.dump_json(config)) == config


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"name": "dpt"}, "does not match any of the expected tags"),
        ({"name": "dept", "rnak": 3}, "rnak"),
        ({"name": "dept", "rank": -1}, "greater than or equal to 0"),
        ({"name": "dept", "rank": 10**12}, "less than or equal to"),
        ({"name": "dept", "lowrank_init_std": float("nan")}, "greater than 0|finite"),
        ({"name": "dept", "lowrank_init": "xavier"}, "gaussian"),
        ({"name": "prompt-tuning", "rank": 3}, "rank"),
        ({"name": "prompt-tuning", "num_virtual_tokens": 0}, "greater than or equal to 1"),
        ({"name": "dept", "prompt_init": "text"}, "prompt_init_text"),
        ({"name": "dept", "prompt_init": "text", "prompt_init_text": "  "}, "prompt_init_text"),
    ],
)
def test_bad_settings_are_refused(tree, message):
    with pytest.raises(ValidationError, match=message):
        ADAPTER.validate_python(tree)


def test_settings_are_frozen():
    with pytest.raises(AttributeError):
        DeptConfig().rank = 3


def test_importing_settings_imports_no_torch():
    code = "import sys, dept_vl.tuners; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
