"""Each method's own defaults for settings of a run that are not the method's: its recipe. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from dept_vl.tuners.methods import Method
from dept_vl.tuners.settings import TunerSettings
from dept_vl.tuners.stack.config import leading_method

METHODS: Mapping[str, type[TunerSettings]] = {member().name: member for member in get_args(get_args(Method)[0])}
"""Every method's settings by its name."""


def recipe_of(tuner: Mapping[str, Any]) -> type[TunerSettings] | None:
    """Returns whose `recipe` a run has: its method's, of several at once the first part's.

    The first part's, because it is what `lr` is the rate of too; what the others would have is left to the settings
    that are given.

    Args:
        tuner: Nested settings of a tuner, a stack's expanded (`expand_name`) and a method's with its name.

    Returns:
        The settings' class; None where they name no method, which is refused elsewhere.
    """
    return METHODS.get(leading_method(tuner))


def recipe_notes() -> dict[str, str]:
    """Returns what recipes have in place of settings' defaults, by dotted key: ``"recipe of lora, bitfit: 32"``."""
    found: dict[str, dict[str, list[str]]] = {}
    for name, method in METHODS.items():
        for group, settings in method.recipe.items():
            for key, value in settings.items():
                shown = "null" if value is None else str(value)
                found.setdefault(f"{group}.{key}", {}).setdefault(shown, []).append(name)
    return {
        key: "recipe of " + "; ".join(f"{', '.join(names)}: {value}" for value, names in values.items())
        for key, values in found.items()
    }
