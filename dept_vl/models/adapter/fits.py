"""Whether an adapter was made for the model at hand."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dept_vl.errors import CheckpointError
from dept_vl.models.adapter.files import AdapterConfig
from dept_vl.tuners.settings import without_rates

logger = logging.getLogger(__name__)

_FACTS = "tuner's "
_FACTS_OF_FORMAT_1 = {"m", "r"}
_WEIGHTS = {
    "backbone.weights_sha256": "weights",
    "backbone.image_weights_sha256": "weights of the image encoder and its connector",
}
"""What an adapter may not have recorded, and what it is in words."""


def check_fits(folder: Path, saved: AdapterConfig, now: AdapterConfig) -> None:
    """Refuses an adapter made for another model; warns where the backbone's weights cannot be compared.

    Args:
        folder: The adapter's, for the message.
        saved: What the adapter was saved for.
        now: What the model at hand would save.

    Raises:
        CheckpointError: They differ; every difference is named with both sides.
    """
    frozen = [side.visual and side.visual.frozen_projection_sha256 for side in (saved, now)]
    if all(frozen) and frozen[0] != frozen[1]:
        raise CheckpointError(
            f"{folder}: was trained with another frozen projection than model.frozen_projection names (sha256 "
            f"{frozen[0]}, here {frozen[1]}); name that one, of the hub with its commit: USER/NAME@COMMIT"
        )
    ours, theirs = _comparable(now), _comparable(saved)
    if saved.facts.keys() <= _FACTS_OF_FORMAT_1:
        ours = {key: value for key, value in ours.items() if not key.startswith(_FACTS) or key in theirs}
    for key, weights in _WEIGHTS.items():
        if theirs[key] is not None or ours[key] is None:
            continue
        del ours[key], theirs[key]
        logger.warning(
            "%s: the adapter does not record the %s of its backbone (%s), so they could not be compared with %s",
            folder, weights, saved.backbone.name, now.backbone.name,
        )  # fmt: skip
    check_equal(folder, {key: (theirs.get(key), ours.get(key)) for key in sorted(ours.keys() | theirs.keys())})


def check_equal(folder: Path, settings: Mapping[str, tuple[object, object]]) -> None:
    """Refuses an adapter any of whose settings is not the one at hand.

    Args:
        folder: The adapter's, for the message.
        settings: Name to (value in the adapter, value at hand).

    Raises:
        CheckpointError: Some differ; every difference is named with both sides.
    """
    problems = [f"{key}: saved for {a!r}, this run has {b!r}" for key, (a, b) in settings.items() if a != b]
    if problems:
        raise CheckpointError(f"{folder}: the adapter does not fit: {'; '.join(problems)}")


def _comparable(config: AdapterConfig) -> dict[str, Any]:
    """Returns the settings that must agree, by the name a user knows them under."""
    names = ("name", "revision")
    backbone = {f"backbone.{key}": value for key, value in asdict(config.backbone).items() if key not in names}
    visual = asdict(config.visual) if config.visual else {}
    return {
        **backbone,
        **{f"visual.{key}": value for key, value in visual.items()},
        **{f"tuner.{key}": value for key, value in without_rates(asdict(config.tuner)).items()},
        "data.max_source_length": config.max_source_length,
        "data.answer_cue": config.answer_cue,
        "data.answer_form": config.answer_form or "released",
        "model.system_prompt": config.system_prompt,
        "model.train_connector": config.train_connector,
        **{f"{_FACTS}{name}": fact for name, fact in config.facts.items()},
    }
