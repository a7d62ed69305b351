"""Rows of several adapters on one backbone as one batch."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dept_vl.data.image_rows import VisualFeatures
from dept_vl.models.adapted_model import AdaptedModel
from dept_vl.models.joined_source import join_source
from dept_vl.models.language.joint import JointInput
from dept_vl.models.vision.projection import VisualProjection, project_features
from dept_vl.tuners.row_embedding import RowEmbedding, embed_rows


@dataclass(frozen=True, eq=False)
class MixableAdapter:
    """An adapter that acts on embeddings alone.

    Attributes:
        model: The adapted model.
        embedding: What its method does to prompt and text.
    """

    model: AdaptedModel
    embedding: RowEmbedding

    @property
    def key(self) -> Hashable:
        """What adapters have in common whose rows share a batch: backbone, prompt length, image or none, and cue."""
        model = self.model
        has_image = model.visual_projection is not None
        return id(model.backbone), self.embedding.num_virtual_tokens, has_image, model.frame


def mixable(model: AdaptedModel) -> MixableAdapter | None:
    """Returns a model as one whose rows may stand beside other adapters'; None where more of it is its own."""
    embedding = model.tuner.row_embedding()
    return None if embedding is None or model.config.train_connector else MixableAdapter(model, embedding)


@torch.no_grad()
def mixed_joint_input(
    rows: Sequence[MixableAdapter],
    input_ids: Tensor,
    attention_mask: Tensor,
    visual_features: VisualFeatures | None = None,
) -> JointInput:
    """Builds what the backbone reads of a batch, every row with its own adapter's prompt, update and projection.

    Args:
        rows: The adapter of each row; all have one `MixableAdapter.key`.
        input_ids: (batch, text) token ids, padded on the right.
        attention_mask: (batch, text), 1 for text and 0 for padding.
        visual_features: As `VisualFeatures` says; or None.

    Raises:
        DataError: The adapters do not fit one batch, or the features are not those of their projections.
    """
    model = rows[0].model
    info = model.forward_info(attention_mask, visual_features)
    embeddings = [row.embedding for row in rows]

    def project(features: Tensor) -> Tensor:
        """Runs each projection once, on the rows that are its own."""
        words, parts = model.backbone.word_embeddings, _by_projection(rows)
        tokens = [project_features(projection, features[places], words) for projection, places in parts]
        order = torch.tensor([place for _, places in parts for place in places], device=features.device)
        return torch.cat(tokens)[order.argsort()]

    return join_source(
        model.backbone, input_ids, attention_mask, visual_features,
        embed=lambda text: embed_rows(embeddings, text, info), project=project, frame=model.frame,
    )  # fmt: skip


def _by_projection(rows: Sequence[MixableAdapter]) -> list[tuple[VisualProjection | None, list[int]]]:
    """Returns every projection of a batch with the rows that are its own."""
    found: dict[int, tuple[VisualProjection | None, list[int]]] = {}
    for number, row in enumerate(rows):
        projection = row.model.visual_projection
        found.setdefault(id(projection), (projection, []))[1].append(number)
    return list(found.values())
