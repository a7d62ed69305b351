"""Settings that earlier versions called otherwise: in files, in recorded runs and on the command line."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from dept_vl.data.feature_format import UNRECORDED
from dept_vl.errors import ConfigError
from dept_vl.tuners import DeptConfig

_RATES = {"prompt_lr": "lr", "lowrank_lr": "lowrank_lr"}
"""Key of ``optim`` then -> key of ``tuner`` now: a method's rates are its own."""

_RENAMED = {"model.clip": "model.image_encoder", **{f"optim.{old}": f"tuner.{new}" for old, new in _RATES.items()}}
"""Dotted key then -> now, of a setting or a group of them."""

_RECORDED = {"task", "seed", "tuner", "model", "data", "optim", "loop"}
"""What the settings in a run's or an experiment's folder, or in results, have always had, all of it at once."""

_RECORDED_OPTIM = {
    "projection_lr", "weight_decay", "beta1", "beta2", "eps", "schedule", "warmup_proportion", "max_grad_norm",
}  # fmt: skip
"""And what their ``optim`` has always had."""


def new_key(key: str) -> str:
    """Returns the dotted key of a setting as this version names it."""
    for old, new in _RENAMED.items():
        if key == old or key.startswith(f"{old}."):
            return new + key.removeprefix(old)
    return key


def is_record(tree: Mapping[str, Any]) -> bool:
    """Returns whether nested settings are those that a run has recorded: every setting of its time.

    A file that a person writes has not; there the defaults of today, and the method's recipe, fill in the rest.
    """
    optim = tree.get("optim")
    return tree.keys() >= _RECORDED and isinstance(optim, dict) and optim.keys() >= _RECORDED_OPTIM


def refuse_both_names(keys: Collection[str]) -> None:
    """Refuses a setting under two of its names.

    Raises:
        ConfigError: A dotted key is given beside its earlier one.
    """
    for key in keys:
        new = new_key(key)
        if new != key and new in keys:
            raise ConfigError(f"{key}: an earlier name of {new}, which is given too; drop one of them")


def with_new_names(tree: dict[str, Any]) -> dict[str, Any]:
    """Returns nested settings, of this version or an earlier one, as this one names them.

    A new name that is given too wins. Every run of an earlier version recorded a rate of the low-rank pair; that of a
    method without one is left out.
    """
    tree = _with_former_behaviour(with_new_groups(tree))
    optim, tuner = tree.get("optim"), tree.get("tuner") or {}
    if not isinstance(optim, dict) or not isinstance(tuner, dict) or not optim.keys() & _RATES.keys():
        return tree
    moved = {new: optim[old] for old, new in _RATES.items() if old in optim}
    if tuner.get("name", DeptConfig().name) != DeptConfig().name:
        moved.pop("lowrank_lr", None)
    kept = {key: value for key, value in optim.items() if key not in _RATES}
    return {**tree, "optim": kept, "tuner": {**moved, **tuner}}


def _with_former_behaviour(tree: dict[str, Any]) -> dict[str, Any]:
    """Returns a run's recorded settings with what an earlier version did where it had no setting yet.

    A record has every setting of its time, a file that a person writes has not: it gets today's defaults.
    """
    model = tree.get("model")
    if not isinstance(model, dict) or not is_record(tree):
        return tree
    encoder = model.get("image_encoder")
    if not isinstance(encoder, dict) or "exif" in encoder:
        return tree
    return {**tree, "model": {**model, "image_encoder": {**encoder, "exif": UNRECORDED["exif"]}}}


def with_new_groups(tree: dict[str, Any]) -> dict[str, Any]:
    """Returns nested settings with ``model.clip``, from when there was no other image encoder, as the open-clip one."""
    model = tree.get("model")
    if not isinstance(model, dict) or "clip" not in model:
        return tree
    kept = {key: value for key, value in model.items() if key != "clip"}
    then, now = model["clip"], model.get("image_encoder", {})
    if isinstance(then, dict) and isinstance(now, dict):
        now = {"kind": "open-clip", **then, **now}
    elif "image_encoder" not in model:
        now = then
    return {**tree, "model": {**kept, "image_encoder": now}}
