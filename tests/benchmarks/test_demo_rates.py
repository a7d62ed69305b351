"""The rates that the demo's methods have, and those that were tried."""

from pathlib import Path

import pytest

from benchmarks.demo_rates import TRIES
from dept_vl.models.demo import DEMO
from dept_vl.settings.demo import choose_settings


@pytest.mark.parametrize("name", TRIES)
def test_a_method_s_rates_on_the_demo_are_among_those_tried(name):
    tuner = choose_settings(Path(DEMO), {"task": "vqa", "tuner.name": name}).tuner
    assert any(all(getattr(tuner, key) == value for key, value in rates.items()) for rates in TRIES[name])
