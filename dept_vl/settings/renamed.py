"""Settings that earlier runs recorded under other names: rates of a method's groups stood in ``optim``."""

from __future__ import annotations

from typing import Any

from dept_vl.tuners import DeptConfig

_MOVED = {"prompt_lr": "lr", "lowrank_lr": "lowrank_lr"}
"""Key of ``optim`` then -> key of ``tuner`` now."""


def new_key(key: str) -> str:
    """Returns the dotted key of a setting as this version names it."""
    group, _, name = key.partition(".")
    return f"tuner.{_MOVED[name]}" if group == "optim" and name in _MOVED else key


def with_new_names(tree: dict[str, Any]) -> dict[str, Any]:
    """Returns nested settings, of this version or an earlier one, as this one names them.

    A new name that is given too wins. Every run of an earlier version recorded a rate of the low-rank pair; that of a
    method without one is left out.
    """
    optim, tuner = tree.get("optim"), tree.get("tuner") or {}
    if not isinstance(optim, dict) or not isinstance(tuner, dict) or not optim.keys() & _MOVED.keys():
        return tree
    moved = {new: optim[old] for old, new in _MOVED.items() if old in optim}
    if tuner.get("name", DeptConfig().name) != DeptConfig().name:
        moved.pop("lowrank_lr", None)
    kept = {key: value for key, value in optim.items() if key not in _MOVED}
    return {**tree, "optim": kept, "tuner": {**moved, **tuner}}
