"""Flags that stand for a setting. Every other setting is ``--dotted.key value``."""

ALIASES = {
    "task": "task",
    "output-dir": "output_dir",
    "seed": "seed",
    "tuner": "tuner.name",
    "lr": "tuner.lr",
    "lowrank-lr": "tuner.lowrank_lr",
    "projection-lr": "optim.projection_lr",
    "data-dir": "data.dir",
    "rows": "data.rows",
    "images": "data.image_dir",
    "on-long": "data.on_long",
    "few-shot": "data.few_shot",
    "init-from": "init.from",
    "on-nan": "loop.on_nan",
}
"""Named flag -> the dotted key it stands for."""

_FLAGS = {key: f"--{flag}" for flag, key in ALIASES.items()}


def flag_of(key: str) -> str:
    """Returns the shortest flag that gives a setting."""
    return _FLAGS.get(key, f"--{key}")
