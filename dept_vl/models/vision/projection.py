"""The projections of grid features into the backbone's embedding space."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from transformers.models.t5.modeling_t5 import T5LayerNorm

from dept_vl.errors import DataError
from dept_vl.models.config import MAX_IMAGES, ModelConfig
from dept_vl.models.language.base import Backbone
from dept_vl.tuners.settings import TunerSettings

_BOX = 5
"""Four coordinates of a box and its area."""


class VisualProjection(nn.Module, ABC):
    """Maps visual features to visual tokens. Its parameters, trainable or all of them frozen, stay float32.

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

    def sha256(self) -> str:
        """Returns a hash of its values: what an adapter that was trained on a frozen one records of it."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


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


class _Norm(T5LayerNorm):
    """T5's norm, with a bias after the scale where a method adds one to every norm."""

    weight: nn.Parameter
    bias: nn.Parameter | None

    def __init__(self, d_model: int, eps: float, *, has_bias: bool) -> None:
        super().__init__(d_model, eps=eps)
        self.register_parameter("bias", nn.Parameter(torch.zeros(d_model)) if has_bias else None)

    def forward(self, hidden_states: Tensor) -> Tensor:
        normed: Tensor = super().forward(hidden_states)
        return normed if self.bias is None else normed + self.bias

    @torch.no_grad()
    def reset_parameters(self) -> None:
        self.weight.fill_(1.0)
        if self.bias is not None:
            self.bias.zero_()


class VLT5Projection(VisualProjection):
    """Sung et al.'s visual embedding of grid features (VL-T5 ``src/modeling_t5.py VisualEmbedding``).

    The sum of four terms: the RMS-normalised linear projection of the feature; the RMS-normalised linear layer of its
    box and the box's area, which are all zero for grid features (``vqa_clip_data.py``), so that its bias alone counts;
    the embedding of the image's number, row 0 for the only or the first image and row 1 for the second; and an order
    term, row ``vocabulary - 1 - j`` of the frozen word embeddings for token j of its image.

    1,581,312 parameters for RN101 and T5-base, which every row of the paper's Table 3 counts: `linear` 1,573,632,
    `feature_norm` 768, `box` 5 * 768 + 768, `box_norm` 768, `image_ids` 2 * 768. What is inert here, the weight of
    `box` and with one image row 1 of `image_ids`, has a gradient of zero. The order term is frozen.

    Attributes:
        linear: feature_dim -> d_model.
        box: Four coordinates and the area -> d_model.
        image_ids: (2, d_model).
        init_std: As in `LinearProjection`; the norm right after it makes the start nearly independent of it.
    """

    tells_images_apart: ClassVar[bool] = True

    def __init__(
        self,
        feature_dim: int,
        d_model: int,
        init_std: float | None = None,
        layer_norm_epsilon: float = 1e-6,
        *,
        has_norm_biases: bool = False,
    ) -> None:
        """Makes the layers; `reset_parameters` sets their values.

        Args:
            feature_dim: Width of the features.
            d_model: Width of the backbone.
            init_std: Of the first weights of `linear`.
            layer_norm_epsilon: Of both norms.
            has_norm_biases: Whether both norms have a bias, which Sung et al.'s BitFit adds to every norm.
        """
        super().__init__()
        self.feature_dim = feature_dim
        self.init_std = init_std
        self.linear = _uninitialised_linear(feature_dim, d_model)
        self.feature_norm = _Norm(d_model, layer_norm_epsilon, has_bias=has_norm_biases)
        self.box = _uninitialised_linear(_BOX, d_model)
        self.box_norm = _Norm(d_model, layer_norm_epsilon, has_bias=has_norm_biases)
        self.image_ids = nn.Parameter(torch.zeros(MAX_IMAGES, d_model))

    def forward(self, visual_features: Tensor, word_embeddings: Tensor, num_images: int = 1) -> Tensor:
        """Returns the sum of the four terms; see `VisualProjection.forward`.

        Raises:
            DataError: A row has more images than there are numbers for.
        """
        if num_images > MAX_IMAGES:
            raise DataError(
                f"a row has {num_images} images, and model.visual_projection=vl-t5 tells {MAX_IMAGES} apart, as Sung "
                "et al.'s does; use model.visual_projection=linear"
            )
        visual = visual_features.shape[1] // num_images
        feature: Tensor = self.feature_norm(self.linear(visual_features))  # (batch, images * visual, d_model)
        box: Tensor = self.box_norm(self.box(visual_features.new_zeros(_BOX)))  # (d_model,)
        image = self.image_ids[:num_images].repeat_interleave(visual, dim=0)  # (images * visual, d_model)
        order = word_embeddings[-visual:].flip(0).repeat(num_images, 1)  # (images * visual, d_model)
        return feature + box + order + image

    @torch.no_grad()
    def reset_parameters(self, seed: int) -> None:
        """Sets `linear` as `LinearProjection`, `box` as nn.Linear, norms to 1, the second image's number to N(0, 1).

        Theirs start so too, by the defaults of nn.Linear and nn.Embedding, but for the first image's number, which is
        zero here: to all tokens of one image it adds the same as the bias of `box` does.
        """
        generator = torch.Generator().manual_seed(seed)
        _reset_linear(self.linear, generator, self.init_std)
        bound = 1 / math.sqrt(_BOX)
        self.box.bias.copy_((torch.rand(self.box.bias.shape, generator=generator) * 2 - 1) * bound)
        self.box.weight.copy_((torch.rand(self.box.weight.shape, generator=generator) * 2 - 1) * bound)
        self.image_ids[0].zero_()
        self.image_ids[1:].copy_(torch.randn(self.image_ids[1:].shape, generator=generator))
        self.feature_norm.reset_parameters()
        self.box_norm.reset_parameters()


def build_projection(
    kind: Literal["linear", "vl-t5"],
    feature_dim: int,
    d_model: int,
    *,
    init_std: float | None = None,
    layer_norm_epsilon: float = 1e-6,
    has_norm_biases: bool = False,
) -> VisualProjection:
    """Builds a projection by the name of ``ModelConfig.visual_projection``, its values not yet set.

    `has_norm_biases` gives its norms biases, where it has any norms.
    """
    if kind == "linear":
        return LinearProjection(feature_dim, d_model, init_std)
    return VLT5Projection(feature_dim, d_model, init_std, layer_norm_epsilon, has_norm_biases=has_norm_biases)


def new_projection(
    model: ModelConfig, backbone: Backbone[Any], feature_dim: int | None, tuner: TunerSettings
) -> VisualProjection | None:
    """Builds the projection onto a backbone for a method, its values not yet set; None without visual features.

    One that stays frozen is that of another run, whose method says whether its norms have biases; here they have none.
    """
    if feature_dim is None:
        return None
    is_frozen = model.frozen_projection is not None
    projection = build_projection(
        model.visual_projection,
        feature_dim,
        backbone.d_model,
        init_std=model.visual_projection_std,
        layer_norm_epsilon=backbone.layer_norm_epsilon,
        has_norm_biases=tuner.has_norm_biases and not is_frozen,
    )
    return projection.requires_grad_(not is_frozen)


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
