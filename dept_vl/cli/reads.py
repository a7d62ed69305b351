"""Which settings each command reads: the one place that help, and what refuses the others, ask.

A command that is not named here trains, and reads all of them.
"""

from __future__ import annotations

from collections.abc import Collection

from dept_vl.errors import ConfigError

_FROZEN = (
    "model.backbone",
    "model.revision",
    "model.dtype",
    "model.system_prompt",
    "model.image_encoder",
    "model.visual_projection",
    "model.frozen_projection",
    "model.visual_position_bias",
)
"""How the frozen models are loaded and joined."""

_ANSWERS = (
    "task",
    "tuner.name",
    *_FROZEN,
    "data.protocol",
    "data.eval_batch_size",
    "data.max_source_length",
    "data.max_target_length",
    "data.answer_cue",
    "data.answer_form",
    "data.on_image_error",
    "loop.precision",
    "decode",
)
"""What a trained run's answers depend on; the method's name finds the run's default folder."""

GIVEN_ALONE = ("data.rows", "data.image_dir")
"""What `predict` reads where the command line gives it, and not as the run has recorded it."""

_SCORES = (
    *_ANSWERS,
    "data.dir",
    "data.rows",
    "data.image_dir",
    "data.feature_dir",
    "data.visual_features",
    "data.on_long",
    "data.padding",
    "data.num_workers",
    "loop.best_metric",
)
"""What its scores on a prepared split depend on beside."""

READS: dict[str, Collection[str]] = {
    "eval": _SCORES,
    "ablate": (*_SCORES, "init.from"),
    "predict": (*_ANSWERS, *GIVEN_ALONE, "data.on_long"),
    "serve": (*_FROZEN, "data.on_long", "loop.precision", "decode"),
    "ui": (*_FROZEN, "data.dir", "data.rows", "data.image_dir", "data.on_long", "loop.precision", "decode"),
    "fold": ("model.backbone", "model.revision", "model.dtype", "model.frozen_projection"),
    "export": ("model.backbone", "model.revision", "model.dtype"),
    "push": ("model.backbone", "model.revision", "model.image_encoder", "model.frozen_projection"),
    "info": ("task", "tuner", *_FROZEN, "model.train_connector", "data.dir", "data.max_source_length"),
    "cache-features": (
        "task", "data.dir", "data.rows", "data.image_dir", "data.on_image_error", "model.image_encoder",
        "model.backbone", "model.revision", "model.dtype",
    ),
}  # fmt: skip
"""Command -> settings, or whole groups of them, by dotted key."""

_INSTEAD = {
    ("eval", "output_dir"): "the run's folder is --checkpoint, the scores' file --output",
    ("ablate", "output_dir"): "the run's folder is RUN, the outcome's file --output",
    ("predict", "output_dir"): "the run's folder is --checkpoint, the predictions' file --output",
    ("predict", "data.dir"): "it answers about --image or --input",
    ("cache-features", "data.batch_size"): "images a forward are --batch-size",
    ("cache-features", "data.num_workers"): "decoding processes are --workers",
}
"""What a command takes in place of a setting that people try."""


def reads(command: str, key: str) -> bool:
    """Returns whether a command reads a setting, or a setting of a group, by its dotted key."""
    if command not in READS:
        return True
    return any(key == own or key.startswith(f"{own}.") or own.startswith(f"{key}.") for own in READS[command])


def refuse_unread(command: str, key: str, flag: str, known: Collection[str]) -> None:
    """Refuses a setting that a command would not look at; one that nobody knows is left to who reads settings.

    Args:
        command: Its name.
        key: The dotted key.
        flag: What was typed.
        known: Every dotted key.

    Raises:
        ConfigError: The command does not read it.
    """
    is_known = key in known or key.startswith("tuner.parts.") or any(name.startswith(f"{key}.") for name in known)
    if reads(command, key) or not is_known:
        return
    hint = (
        _INSTEAD.get((command, key)) or f"it belongs to `dept-vl train`; `dept-vl {command} --help` lists what it reads"
    )
    raise ConfigError(f"{flag}: `dept-vl {command}` does not read this setting: {hint}")
