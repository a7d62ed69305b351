"""What an adapter records of the frozen backbone that it was trained on, and of how images enter it."""

from __future__ import annotations

from typing import Any

from dept_vl.models.adapter.files import BackboneIdentity, VisualSettings
from dept_vl.models.config import ModelConfig
from dept_vl.models.language.base import Backbone
from dept_vl.models.language.stored import recorded_name
from dept_vl.models.vision.projection import VisualProjection


def backbone_identity(backbone: Backbone[Any], name: str, revision: str | None = None) -> BackboneIdentity:
    """Returns what an adapter records of its backbone; another one's differs in more than `name` and `revision`.

    Those two are as it was asked for, and recorded so that it can be loaded again (`recorded_name`).
    """
    num_layers, num_decoder_layers = backbone.num_layers
    loadable, commit = recorded_name(name, revision)
    return BackboneIdentity(
        name=loadable,
        revision=commit,
        family=backbone.family,
        d_model=backbone.d_model,
        num_layers=num_layers,
        num_decoder_layers=num_decoder_layers,
        vocab_size=backbone.text_config(backbone.model.config).vocab_size,
        weights_sha256=backbone.weights_sha256,
        image_weights_sha256=backbone.image_weights_sha256,
    )


def visual_settings(
    projection: VisualProjection | None, backbone: Backbone[Any], model: ModelConfig
) -> VisualSettings | None:
    """Returns what an adapter records of a visual projection; None without one."""
    if projection is None:
        return None
    sha256 = projection.sha256() if model.frozen_projection is not None else None
    return VisualSettings(model.visual_projection, projection.feature_dim, backbone.visual_position_bias, sha256)
