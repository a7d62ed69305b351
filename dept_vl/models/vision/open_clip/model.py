"""The frozen CLIP image tower: images in, a grid of features out. Used to fill the cache, or on the fly.

The features are those *before* CLIP pools them to one vector:

- ResNet towers (RN50, RN101, ...): the output of the last stage, 7 x 7 x 2048 for RN101 at 224 pixels;
- ViT towers: the last layer's patch tokens (without the class token), after the final layer norm ``ln_post``.

With `pooled_grid` an adaptive max-pool brings the grid to that side: 6 x 6 = 36 tokens as in Sung et al. (VL_adapter,
``feature_extraction/coco_CLIP.py`` extracts 7 x 7, ``src/vqa_clip_data.py`` pools). Tokens go row by row from the top
left.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, replace
from importlib.metadata import version
from typing import Any, cast

import torch
from open_clip.modified_resnet import ModifiedResNet
from open_clip.transform import PreprocessCfg, image_transform_v2
from open_clip.transformer import QuickGELU, VisionTransformer
from PIL import Image
from torch import Tensor, nn

from dept_vl.errors import ConfigError
from dept_vl.models.vision.open_clip.config import OpenClipConfig
from dept_vl.models.vision.open_clip.weights import ClipTower, load_tower, read_settings


class OpenClipEncoder(nn.Module):
    """A frozen CLIP image tower, always in evaluation mode; computes in float32.

    Attributes:
        fingerprint: What the features depend on; a cache of features carries it. Its keys `model`, `pretrained`,
            `preprocessing`, `pooled_grid` and `dtype` follow from the config alone (`read_settings`).
        num_visual_tokens: Tokens an image becomes.
        feature_dim: Numbers a token has.
        dtype: Precision the features are rounded to, so that cached and fresh ones are the same numbers.
        preprocess: Turns a PIL image into the tower's input (3, height, width) float32.
    """

    def __init__(self, tower: ClipTower, config: OpenClipConfig) -> None:
        """Takes a loaded image tower; `load` is the usual way here.

        Raises:
            ConfigError: The tower is of a kind without a grid this class can read, or the grid is smaller than
                `pooled_grid`.
        """
        super().__init__()
        self.tower = tower.module
        self.tower.eval().requires_grad_(False)
        grid, self.feature_dim, activation = _describe_tower(self.tower, config.model)
        side = config.pooled_grid
        if side is not None and side > min(grid):
            raise ConfigError(
                f"model.clip.pooled_grid: {side} is more than the {grid[0]} x {grid[1]} grid of {config.model}; "
                f"choose at most {min(grid)}, or null for no pooling"
            )
        self.pooled_grid = side
        self.num_visual_tokens = side * side if side is not None else grid[0] * grid[1]
        self.dtype: torch.dtype = getattr(torch, config.dtype)
        preprocessing = _resolve_preprocessing(tower.preprocessing, config)
        self.preprocess = cast("Callable[[Image.Image], Tensor]", image_transform_v2(preprocessing, is_train=False))
        self.fingerprint: dict[str, Any] = {
            **read_settings(config),
            "weights_sha256": _hash_weights(self.tower),
            "activation": activation,
            "preprocessing_details": json.loads(json.dumps(asdict(preprocessing))),  # tuples become lists, as on disk
            "num_visual_tokens": self.num_visual_tokens,
            "feature_dim": self.feature_dim,
            "open_clip": version("open_clip_torch"),
        }

    @classmethod
    def load(cls, config: OpenClipConfig, device: str | torch.device = "cpu") -> OpenClipEncoder:
        """Loads config, weights and preprocessing from one place, and checks that they belong together.

        Raises:
            ConfigError: The model, its weights or its folder are unknown, incomplete or do not fit together.
        """
        return cls(load_tower(config), config).to(device)

    def train(self, mode: bool = True) -> OpenClipEncoder:
        """Stays in evaluation mode: the tower is frozen, its batch-norm statistics included."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, pixel_values: Tensor) -> Tensor:
        """Returns the grid features of preprocessed images.

        Features of dtype float32 are computed an image at a time: kernels add in another order in a batch of another
        size, and cached features must have the bits of fresh ones. Rounding to 16 bits hides nearly all of that.

        Args:
            pixel_values: (batch, 3, height, width), as `preprocess` makes them.

        Returns:
            (batch, visual, feature_dim) float32, rounded to `dtype`; needs no gradient.
        """
        on_cuda = pixel_values.device.type == "cuda"
        # TensorFloat-32 convolutions (cuDNN's default) keep 10 bits: less than the float16 the features are stored in
        exact = (
            torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False) if on_cuda else nullcontext()
        )
        with torch.autocast(pixel_values.device.type, enabled=False), exact:
            size = 1 if self.dtype == torch.float32 else len(pixel_values)
            parts = [_grid_features(self.tower, part) for part in pixel_values.float().split(size)]
            grid = torch.cat(parts)  # (batch, feature_dim, rows, columns)
            if self.pooled_grid is not None:
                grid = nn.functional.adaptive_max_pool2d(grid, self.pooled_grid)
            tokens = grid.flatten(2).transpose(1, 2)  # (batch, visual, feature_dim)
            return tokens.to(self.dtype).float().contiguous()  # laid out as stored ones: products round alike


def _describe_tower(tower: nn.Module, name: str) -> tuple[tuple[int, int], int, str]:
    """Returns the grid's (rows, columns), the feature size, and the activation function's name."""
    if isinstance(tower, ModifiedResNet):
        side = tower.image_size // 32  # five halvings
        return (side, side), tower.attnpool.c_proj.in_features, "relu"
    if isinstance(tower, VisionTransformer) and tower.attn_pool is None:
        gelu = tower.transformer.resblocks[0].mlp.gelu
        return tower.grid_size, tower.conv1.out_channels, "quick_gelu" if isinstance(gelu, QuickGELU) else "gelu"
    raise ConfigError(
        f"model.clip.model: {name} has an image tower without grid features ({type(tower).__name__}); choose a CLIP "
        "ResNet (RN50, RN101, RN50x4, ...) or ViT (ViT-B-32, ViT-B-16, ViT-L-14, ...)"
    )


def _grid_features(tower: nn.Module, pixel_values: Tensor) -> Tensor:
    """Returns the features before pooling, (batch, feature_dim, rows, columns)."""
    stages = cast(Any, tower)  # open_clip has no types
    if isinstance(tower, ModifiedResNet):
        grid: Tensor = stages.stem(pixel_values)
        for stage in (stages.layer1, stages.layer2, stages.layer3, stages.layer4):
            grid = stage(grid)
        return grid
    layers = stages.forward_intermediates(
        pixel_values, indices=1, normalize_intermediates=True, intermediates_only=True, output_fmt="NCHW"
    )
    return cast(Tensor, layers["image_intermediates"][-1])


def _resolve_preprocessing(own: PreprocessCfg, config: OpenClipConfig) -> PreprocessCfg:
    """Returns how images are brought to the tower's size: the model's own way, or both sides squashed."""
    size = (own.size, own.size) if isinstance(own.size, int) else (int(own.size[0]), int(own.size[1]))
    resize_mode = "squash" if config.preprocessing == "resize" else own.resize_mode
    return replace(own, size=size, mean=tuple(own.mean), std=tuple(own.std), resize_mode=resize_mode)


def _hash_weights(tower: nn.Module) -> str:
    """Returns the sha256 of the tower's tensors by name, the same whatever file they came from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tower.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
