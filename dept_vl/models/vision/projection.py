"""The trainable projections of grid features into the backbone's embedding space."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from transformers.models.t5.modeling_t5 import T5LayerNorm

from dept_vl.errors import DataError
from dept_vl.models.config import ModelConfig
from dept_vl.models.language.base import Backbone


class VisualProjection(nn.Module, ABC):
    """Maps visual features to visual tokens. Every parameter is trainable and stays float32.

    Attributes:
        feature_dim: Width of the features.
        tells_images_apart: Whether a token says which image of its row it is of; if not, positions may.
    """

    tells_images_apart: ClassVar[bool] = False
    feature_dim: int

    @abstractmethod
    def forward(self, visual_features: Tensor, word_embeddings: Tensor, num_images: int = 1) -> Tensor:
        """Projects features.

        Args:
            visual_features: (batch, images * visual, feature_dim), the images of a row one after the other.
            word_embeddings: Frozen table of the backbone, (vocabulary, d_model).
            num_images: Images of a row: which of them a token is of.

        Returns:
            (batch, images * visual, d_model).
        """

    @abstractmethod
    def reset_parameters(self, seed: int) -> None:
        """Sets the first values from a private generator on the CPU."""


class LinearProjection(VisualProjection):
    """One linear layer with bias, the DePT paper's "visual projection layer".

    2048 * 768 + 768 = 1,573,632 parameters for RN101 and T5-base.

    Attributes:
        linear: feature_dim -> d_model.
        init_std: Standard deviation of the first weights; None for nn.Linear's own start, uniform within
            1 / sqrt(feature_dim).
    """

    def __init__(self, feature_dim: int, d_model: int, init_std: float | None = None) -> None:
        """Makes the layer; `reset_parameters` sets its values."""
        super().__init__()
        self.feature_dim = feature_dim
        self.init_std = init_std
        self.linear = _uninitialised_linear(feature_dim, d_model)

    def forward(self, visual_features: Tensor, word_embeddings: Tensor, num_images: int = 1) -> Tensor:
        """Returns ``W f + b``, whichever image a token is of; see `VisualProjection.forward`."""
        projected: Tensor = self.linear(visual_features)  # (batch, visual, d_model)
        return projected

    @torch.no_grad()
    def reset_parameters(self, seed: int) -> None:
        """Sets weight and bias."""
        _reset_linear(self.linear, torch.Generator().manual_seed(seed), self.init_std)


class VLT5Projection(VisualProjection):
    """Sung et al.'s visual embedding, for one image of grid features (VL-T5 ``src/modeling_t5.py VisualEmbedding``).

    The sum of three terms: the RMS-normalised linear projection of the feature; a position term, their RMS-normalised
    linear layer on box and area, which for grid features are all zero so that only its bias is left, one vector for
    all tokens; and an order term, row ``vocabulary - 1 - j`` of the frozen word embeddings for token j. Their second
    constant vector, the image number's, is the position term's equal for one image and left out.

    Trainable: `linear` (feature_dim * d_model + d_model), `feature_norm` (d_model), `position` (d_model) and
    `position_norm` (d_model). The order term is frozen.

    Attributes:
        linear: feature_dim -> d_model.
        init_std: As in `LinearProjection`; the norm right after it makes the start nearly independent of it.
    """

    def __init__(
        self, feature_dim: int, d_model: int, init_std: float | None = None, layer_norm_epsilon: float = 1e-6
    ) -> None:
        """Makes the layers; `reset_parameters` sets their values."""
        super().__init__()
        self.feature_dim = feature_dim
        self.init_std = init_std
        self.linear = _uninitialised_linear(feature_dim, d_model)
        self.feature_norm = T5LayerNorm(d_model, eps=layer_norm_epsilon)
        self.position = nn.Parameter(torch.zeros(d_model))
        self.position_norm = T5LayerNorm(d_model, eps=layer_norm_epsilon)

    def forward(self, visual_features: Tensor, word_embeddings: Tensor, num_images: int = 1) -> Tensor:
        """Returns the sum of the three terms; see `VisualProjection.forward`."""
        feature: Tensor = self.feature_norm(self.linear(visual_features))  # (batch, visual, d_model)
        position: Tensor = self.position_norm(self.position)  # (d_model,)
        order = word_embeddings[-(visual_features.shape[1] // num_images) :].flip(0)  # (visual, d_model)
        return feature + position + order.repeat(num_images, 1)

    @torch.no_grad()
    def reset_parameters(self, seed: int) -> None:
        """Sets the linear layer as `LinearProjection`, the norms to 1, and the position vector as a linear bias.

        Its bound, 1 / sqrt(5), is that of the five inputs (box and area) of Sung et al.'s layer.
        """
        generator = torch.Generator().manual_seed(seed)
        _reset_linear(self.linear, generator, self.init_std)
        bound = 1 / math.sqrt(5)
        self.position.copy_((torch.rand(self.position.shape, generator=generator) * 2 - 1) * bound)
        self.feature_norm.weight.fill_(1.0)
        self.position_norm.weight.fill_(1.0)


def build_projection(
    kind: Literal["linear", "vl-t5"],
    feature_dim: int,
    d_model: int,
    *,
    init_std: float | None = None,
    layer_norm_epsilon: float = 1e-6,
) -> VisualProjection:
    """Builds a projection by the name of ``ModelConfig.visual_projection``, its values not yet set."""
    if kind == "linear":
        return LinearProjection(feature_dim, d_model, init_std)
    return VLT5Projection(feature_dim, d_model, init_std, layer_norm_epsilon)


def new_projection(model: ModelConfig, backbone: Backbone[Any], feature_dim: int | None) -> VisualProjection | None:
    """Builds the projection onto a backbone, its values not yet set; None without visual features."""
    if feature_dim is None:
        return None
    return build_projection(
        model.visual_projection,
        feature_dim,
        backbone.d_model,
        init_std=model.visual_projection_std,
        layer_norm_epsilon=backbone.layer_norm_epsilon,
    )


def project_features(projection: VisualProjection | None, visual_features: Tensor, word_embeddings: Tensor) -> Tensor:
    """Returns features as visual tokens, once it is clear that they are the projection's.

    Args:
        projection: What makes tokens of features.
        visual_features: (batch, visual, feature_dim), or of several images a row (batch, images, visual, feature_dim).
        word_embeddings: Frozen table of the backbone.

    Returns:
        (batch, images * visual, d_model), the images of a row one after the other.

    Raises:
        DataError: There is no projection, or the features are of another width.
    """
    if projection is None:
        raise DataError("visual features were given to a model built without a visual projection (text only)")
    width = visual_features.shape[-1]
    if width != projection.feature_dim:
        raise DataError(
            f"visual features are {width}-d, the model was built for {projection.feature_dim}-d ones; "
            "use the feature store of the encoder in model.image_encoder"
        )
    num_images = visual_features.shape[1] if visual_features.dim() == 4 else 1
    projected: Tensor = projection(visual_features.float().flatten(1, -2), word_embeddings, num_images)
    return projected


def _uninitialised_linear(feature_dim: int, d_model: int) -> nn.Linear:
    """Returns a linear layer whose values are still to be set, so that building it does not move torch's global RNG."""
    layer = nn.Linear(feature_dim, d_model, device="meta")
    layer.weight = nn.Parameter(torch.zeros(d_model, feature_dim))
    layer.bias = nn.Parameter(torch.zeros(d_model))
    return layer


def _reset_linear(linear: nn.Linear, generator: torch.Generator, init_std: float | None) -> None:
    """Sets a linear layer: uniform within 1 / sqrt(inputs) as nn.Linear does, or a Gaussian weight of `init_std`."""
    bound = 1 / math.sqrt(linear.in_features)
    if init_std is None:
        weight = (torch.rand(linear.weight.shape, generator=generator) * 2 - 1) * bound
    else:
        weight = torch.randn(linear.weight.shape, generator=generator) * init_std
    linear.weight.copy_(weight)
    linear.bias.copy_((torch.rand(linear.bias.shape, generator=generator) * 2 - 1) * bound)
