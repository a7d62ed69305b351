"""In what runs agree, and in what a run is not the one behind a number of the paper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dept_vl.models.vision.encoders import DefaultImageEncoder
from dept_vl.reports.paper_numbers import RELEASED_RUNS, PaperRow
from dept_vl.reports.scored_runs import ScoredRun
from dept_vl.settings.schema import TrainConfig
from dept_vl.tuners import DeptConfig

_BACKBONE = "t5-base"
_WIDTH = 768
_NEUTRAL = (
    "seed", "output_dir", "init.source", "data.dir", "data.image_dir", "data.feature_dir", "data.visual_features",
    "data.num_workers", "data.eval_batch_size", "decode.method", "model.image_encoder.model", "model.frozen_projection",
    "loop.save_every_steps", "loop.keep_checkpoints", "loop.log_every_steps",
)  # fmt: skip
"""Settings in which runs of one cell may differ: the seed, where things lie, what changes no score, and what
`what_it_is` says in another way."""


_VARIANTS = {("adapter", "tuner.layers"): "adapterdrop", ("prompt-tuning", "init.source"): "spot"}
"""A method with a setting given -> the name that the paper's tables have for it."""

_FROM_SOURCES = ("spot", "attempt", "mpt")
"""Methods that start from prompts of other tasks."""


@dataclass(frozen=True)
class PaperPlace:
    """Where in a table of the paper a run belongs.

    Attributes:
        method: The name of its row.
        group: How it was trained: ``single-task``, ``multi-task``, ``transfer`` or ``multi-task-transfer``.
    """

    method: str
    group: str


def paper_row(run: ScoredRun) -> PaperPlace:
    """Returns the row of a run, whether or not a table has it."""
    settings = _flat(asdict(run.config))
    method = run.config.tuner.label
    for (name, key), variant in _VARIANTS.items():
        if method == name and settings.get(key) is not None:
            method = variant
    groups = [name for name, is_so in (("multi-task", run.together), ("transfer", method in _FROM_SOURCES)) if is_so]
    return PaperPlace(method, "-".join(groups) or "single-task")


def fits_place(row: PaperRow, config: TrainConfig) -> bool:
    """Returns whether a row has the k of a run and, where it names one, the backbone."""
    name = short_name(config.model.backbone).lower()
    return row.few_shot == config.data.few_shot and (row.backbone is None or name.startswith(row.backbone))


def short_name(backbone: str) -> str:
    """Returns a backbone's name without its organisation or folder; a snapshot of the hub's cache by its model's."""
    parts = Path(backbone).parts
    cached = [part for part in parts if part.startswith("models--")]
    return cached[-1].split("--")[-1] if cached else parts[-1] if parts else backbone


def what_it_is(run: ScoredRun) -> dict[str, Any]:
    """Returns what runs must agree in to be averaged: settings by dotted key, and the rows they were scored on."""
    config = run.config
    settings = {key: value for key, value in _flat(asdict(config)).items() if key not in _NEUTRAL}
    return {
        **settings,
        "model.backbone": short_name(config.model.backbone),
        "model.image_encoder": config.model.image_encoder.label,
        "projection": run.frozen_projection_sha256,
        "data": "drawn scenes" if config.is_demo_data else "prepared",
        "test rows": run.rows,
        "rows' sha256": run.rows_sha256,
        "weights' sha256": run.weights_sha256,
        "features zeroed": config.data.visual_features == "zero",
        "starts from a source": config.init.source is not None,
        "trained on": " + ".join(run.together) or config.task,
        "decode": run.decode,
    }


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested settings by their dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def not_the_papers(run: ScoredRun, row: PaperRow | None) -> list[str]:
    """Returns in what a run is not the paper's, one phrase each; what the paper leaves open is not looked at.

    Args:
        run: What was scored.
        row: The row of its method; None where the table has none.
    """
    config, task = run.config, run.config.resolve_task()
    place = paper_row(run)
    phrases = [] if row else [f"no row of {place.method}"]
    is_alone = "multi-task" not in place.group
    if row is not None and row.trained_with and is_alone:
        phrases.append(f"trained on one task (the paper's: {row.trained_with} together)")
    if row is not None and row.group is None and not row.trained_with and not is_alone:
        phrases.append("trained on several tasks together")
    phrases += _data(run)
    backbone, name = (row and row.backbone) or _BACKBONE, short_name(config.model.backbone)
    beams = 5 if task.name == "coco" else 1  # Sung et al.'s captions; everything else is answered greedily
    pairs = {
        "model.backbone": (name, name if name.lower().startswith(backbone) else backbone),
        "data.protocol": (config.data.protocol, "paper" if task.protocols else None),
        "decode": (run.decode, "generate"),
        "decode.num_beams": (config.decode.num_beams, beams),
    }
    if task.uses_images:
        pairs["model.image_encoder"] = (config.model.image_encoder.label, DefaultImageEncoder().label)
        projection = "trained" if config.model.frozen_projection is None else "trained before and frozen"
        pairs["the projection is"] = (projection, "trained")
    if config.data.few_shot is not None:
        pairs["data.few_shot_rule"] = (config.data.few_shot_rule, "released")
        pairs["init.from"] = (config.init.source and "a source", "a source" if config.tuner.name == "dept" else None)
    phrases += [f"{key} {given} (the paper's: {paper})" for key, (given, paper) in pairs.items() if given != paper]
    other = _not_as_released(config) if name.lower() == _BACKBONE else []
    if other:
        phrases.append(f"not as the released run: {', '.join(other)}")
    return phrases


def _data(run: ScoredRun) -> list[str]:
    """Returns what is to say of the rows a run was scored on and of their images."""
    config = run.config
    phrases = ["drawn scenes (the demo's)"] if config.is_demo_data else []
    if config.data.visual_features == "zero":
        phrases.append("features zeroed")
    whole = config.resolve_task().split_sizes["test"].rows
    if run.rows is None:
        phrases.append("test rows not recorded")
    elif run.rows != whole:
        phrases.append(f"{run.rows:,} test rows (the paper's: {whole:,})")
    elif run.is_complete is False:
        phrases.append("trained on a subset of the data")
    return phrases


def _not_as_released(config: TrainConfig) -> list[str]:
    """Returns the settings in which a DePT run on T5-base is not the task's released one; none where there is none."""
    released, tuner, optim = RELEASED_RUNS.get(config.task), config.tuner, config.optim
    if released is None or config.data.few_shot is not None or not isinstance(tuner, DeptConfig):
        return []
    budget = tuner.budget(_WIDTH, config.data.max_source_length)
    pairs = {
        "tuner.num_virtual_tokens": (budget.num_virtual_tokens, released.num_virtual_tokens),
        "tuner.rank": (budget.rank, released.rank),
        "tuner.lr": (tuner.lr, released.prompt_lr),
        "tuner.lowrank_lr": (tuner.lowrank_lr, released.lowrank_lr),
        "data.max_source_length": (config.data.max_source_length, released.max_source_length),
        "data.batch_size": (config.data.batch_size, released.rows_a_step),
        "optim.warmup_steps": (optim.warmup_steps, released.warmup_steps),
        "optim.max_grad_norm": (optim.max_grad_norm, released.max_grad_norm),
        "loop.max_steps": (config.loop.max_steps, released.steps),
    }
    return [key for key, (given, theirs) in pairs.items() if given != theirs]
