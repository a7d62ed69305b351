"""A frozen image encoder: images in, a grid of features out. Used to fill the cache, or on the fly.

With `pooled_grid` an adaptive max-pool brings the grid to that side: 6 x 6 = 36 tokens as in Sung et al. (VL_adapter,
``feature_extraction/coco_CLIP.py`` extracts 7 x 7, ``src/vqa_clip_data.py`` pools). Tokens go row by row from the top
left.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from importlib.metadata import version
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from dept_vl.data.number_types import rounded
from dept_vl.errors import ConfigError
from dept_vl.models.vision.settings import ImageEncoderSettings
from dept_vl.models.weights_hash import hash_tensors


class ImageEncoder(nn.Module, ABC):
    """A frozen image encoder, always in evaluation mode; computes in float32.

    A kind is built from its settings alone, describes itself to this class and computes its `grid`. How a grid becomes
    tokens, and what is recorded of it, is the same for all.

    Attributes:
        network: What computes the grid; no tensor of it is trainable.
        fingerprint: What the features depend on; a cache of features carries it. A part follows from the settings
            alone (`ImageEncoderSettings.known_fingerprint`).
        earlier_fingerprint: What it was when the counters of batch norms were hashed with the weights; stores and
            adapters of then carry it. Equal to `fingerprint` for a network without such counters.
        num_visual_tokens: Tokens an image becomes.
        feature_dim: Numbers a token has.
        stored_type: What the features are rounded to, so that cached and fresh ones are the same numbers.
        preprocess: Turns a PIL image into the network's input (3, height, width) float32.
        exif: How images are opened for it (`dept_vl.data.images.open_image`).
    """

    def __init__(
        self,
        settings: ImageEncoderSettings,
        network: nn.Module,
        *,
        grid: tuple[int, int],
        feature_dim: int,
        preprocess: Callable[[Image.Image], Tensor],
        details: Mapping[str, Any],
    ) -> None:
        """Freezes the network and records what its features depend on.

        Args:
            settings: Of the encoder.
            network: With its weights, on the CPU in float32.
            grid: Rows and columns of the grid before pooling.
            feature_dim: Width of the features.
            preprocess: Turns a PIL image into the network's input; loader processes must be able to receive it.
            details: What the features depend on beside the settings, the weights and their shape: the resolved
                preprocessing, the activation function, ...

        Raises:
            ConfigError: The grid is smaller than `pooled_grid`.
        """
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        side = settings.pooled_grid
        if side is not None and side > min(grid):
            raise ConfigError(
                f"model.image_encoder.pooled_grid: {side} is more than the {grid[0]} x {grid[1]} grid of "
                f"{settings.model}; choose at most {min(grid)}, or null for no pooling"
            )
        self.pooled_grid = side
        self.num_visual_tokens = side * side if side is not None else grid[0] * grid[1]
        self.feature_dim = feature_dim
        self.stored_type = settings.dtype
        self.preprocess = preprocess
        self.exif = settings.exif
        fingerprint = {
            **settings.known_fingerprint(),
            **details,
            "weights_sha256": _hash_weights(network),
            "num_visual_tokens": self.num_visual_tokens,
            "feature_dim": feature_dim,
            **{key: version(package) for key, package in settings.packages.items()},
        }
        self.fingerprint: dict[str, Any] = json.loads(json.dumps(fingerprint))  # tuples become lists, as on disk
        earlier = _hash_weights(network, with_counters=True)
        self.earlier_fingerprint: dict[str, Any] = {**self.fingerprint, "weights_sha256": earlier}

    @staticmethod
    @abstractmethod
    def described_width(settings: Any) -> int:
        """Returns the width of the features from the encoder's description alone, no weights needed.

        Args:
            settings: Of this kind.

        Raises:
            ConfigError: The encoder is not known here, or gives no grid of features.
        """

    @abstractmethod
    def grid(self, pixel_values: Tensor) -> Tensor:
        """Returns the features before pooling.

        Args:
            pixel_values: (batch, 3, height, width) float32.

        Returns:
            (batch, feature_dim, rows, columns) float32.
        """

    def train(self, mode: bool = True) -> ImageEncoder:
        """Stays in evaluation mode: the network is frozen, its batch-norm statistics included."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, pixel_values: Tensor) -> Tensor:
        """Returns the visual tokens of preprocessed images.

        Features that are stored in float32 are computed an image at a time: kernels add in another order in a batch of
        another size, and cached features must have the bits of fresh ones. Rounding to 16 bits hides nearly all of it.

        Args:
            pixel_values: (batch, 3, height, width), as `preprocess` makes them.

        Returns:
            (batch, visual, feature_dim) float32, rounded to `stored_type`; needs no gradient.
        """
        on_cuda = pixel_values.device.type == "cuda"
        # TensorFloat-32 convolutions (cuDNN's default) keep 10 bits: less than the float16 the features are stored in
        exact = (
            torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False) if on_cuda else nullcontext()
        )
        with torch.autocast(pixel_values.device.type, enabled=False), exact:
            size = 1 if self.stored_type == "float32" else len(pixel_values)
            parts = [self.grid(part) for part in pixel_values.float().split(size)]
            grid = torch.cat(parts)  # (batch, feature_dim, rows, columns)
            if self.pooled_grid is not None:
                grid = nn.functional.adaptive_max_pool2d(grid, self.pooled_grid)
            tokens = grid.flatten(2).transpose(1, 2)  # (batch, visual, feature_dim)
            return rounded(tokens, self.stored_type).contiguous()  # laid out as stored ones: products round alike


def is_counter(name: str) -> bool:
    """Returns whether a tensor counts the batches a batch norm was trained on; a frozen network never reads it."""
    return name.rpartition(".")[2] == "num_batches_tracked"


def _hash_weights(network: nn.Module, *, with_counters: bool = False) -> str:
    """Returns the sha256 of a network's tensors."""
    state = network.state_dict()
    return hash_tensors({name: value for name, value in state.items() if with_counters or not is_counter(name)})
