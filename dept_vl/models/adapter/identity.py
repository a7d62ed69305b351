"""What an adapter records of the frozen backbone that it was trained on."""

from __future__ import annotations

from typing import Any

from dept_vl.models.adapter.files import BackboneIdentity
from dept_vl.models.language.base import Backbone
from dept_vl.models.language.stored import recorded_name


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
