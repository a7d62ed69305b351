"""The comparison on real text: every method that can be in it is."""

from benchmarks.real_text import METHODS, SHARED
from dept_vl.settings.load import load_config
from tests.tuners.adapted import fits, registered


def settings_of(name):
    words = f"{SHARED} {METHODS[name]}".split()
    values = (None if word == "null" else word for word in words[1::2])
    given = {key.removeprefix("--"): value for key, value in zip(words[::2], values, strict=True)}
    if "lr" in given:
        given["tuner.parts.dept.lr" if "+" in name else "tuner.lr"] = given.pop("lr")
    if "lowrank-lr" in given:
        given["tuner.lowrank_lr"] = given.pop("lowrank-lr")
    return load_config(None, {"task": "sst2", "tuner.name": name, **given})


def test_every_method_of_one_task_on_a_decoder_only_model_is_in_it():
    possible = {
        method.name
        for installed in (True, False)
        for method in registered(is_installed=installed)
        if fits(method, "llama") and not method.needs_tasks and method.can_train and not hasattr(method, "sources")
    }
    assert possible - {"stack"} == set(METHODS) - {"dept+lora"}


def test_its_settings_can_be_read():
    assert {settings_of(name).loop.max_steps for name in METHODS} == {150}
