"""What a transfer's sources must have in common with its target, before anything is trained."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch

from dept_vl.errors import CheckpointError, ConfigError
from dept_vl.models.adapter.files import read_adapter_config
from dept_vl.models.adapter.warm_start import check_can_start
from dept_vl.models.config import ModelConfig
from dept_vl.models.language.base import Backbone
from dept_vl.models.language.load import backbone_config, meta_backbone
from dept_vl.settings.schema import TrainConfig
from dept_vl.tuners import TunerConfig
from dept_vl.tuners.base import Tuner
from dept_vl.tuners.settings import TunerSettings

logger = logging.getLogger(__name__)


def fit_sources(target: TrainConfig, sources: Mapping[str, TrainConfig | Path]) -> dict[str, TrainConfig | Path]:
    """Returns a transfer's sources as they are trained or taken, each one that the target can start from.

    Sizes that a source's settings leave open are the target's: the budget gives DePT another m and r at another s. No
    weights are loaded.

    Args:
        target: Its settings.
        sources: Source task -> the settings to train it with, or a finished run.

    Raises:
        ConfigError: A source differs from the target in width, method or sizes; both sides and what to set are named.
        CheckpointError: The adapter of a finished run cannot be read.
    """
    backbone = _backbone(target.model)
    tuner = _empty(target.tuner, backbone, target.data.max_source_length)
    fitted = {}
    for name, given in sources.items():
        where = f"--source-runs {name}={given}" if isinstance(given, Path) else f"--sources {name}"
        try:
            fitted[name], source = _fit(given, target, backbone)
            check_can_start(tuner, source, target.init.parts)
        except (ConfigError, CheckpointError) as error:
            hint = "" if isinstance(given, Path) else "; sizes that a source's settings leave out are the target's"
            raise ConfigError(f"{where}: the target cannot start from it: {error}{hint}") from None
        if fitted[name] != given:
            facts = ", ".join(f"{fact} = {value}" for fact, value in source.facts().items())
            logger.info("source %s takes the target's sizes: %s", name, facts)
    return fitted


def _fit(given: TrainConfig | Path, target: TrainConfig, backbone: Backbone[Any]) -> tuple[TrainConfig | Path, Tuner]:
    """Returns a source with the target's sizes where it leaves them open, and its tuner without values."""
    if isinstance(given, Path):
        saved = read_adapter_config(given)
        _check_width(saved.backbone.d_model, saved.backbone.name, target, backbone)
        return given, _empty(saved.tuner, backbone, saved.max_source_length, saved.tasks)
    if given.model.backbone != target.model.backbone:
        _check_width(_backbone(given.model).d_model, given.model.backbone, target, backbone)
    length = given.data.max_source_length
    context = backbone.tuner_context(target.data.max_source_length)
    tuner = given.tuner.as_source_of(target.tuner, context, length)
    return replace(given, tuner=cast("TunerConfig", tuner)), _empty(tuner, backbone, length)


def _check_width(width: int, name: str, target: TrainConfig, backbone: Backbone[Any]) -> None:
    if width != backbone.d_model:
        raise ConfigError(
            f"{name} has d_model={width}, the target's {target.model.backbone} has {backbone.d_model}; give both one "
            "model.backbone"
        )


def _backbone(model: ModelConfig) -> Backbone[Any]:
    return meta_backbone(backbone_config(model.backbone, model.revision))


def _empty(
    settings: TunerSettings, backbone: Backbone[Any], max_source_length: int, tasks: Sequence[str] = ()
) -> Tuner:
    with torch.device("meta"):
        tuner: Tuner = settings.empty(backbone.tuner_context(max_source_length, tasks=tasks))
    return tuner
