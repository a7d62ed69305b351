"""The image tower of a CLIP model, frozen: the grid of features *before* CLIP pools them to one vector.

- ResNet towers (RN50, RN101, ...): the output of the last stage, 7 x 7 x 2048 for RN101 at 224 pixels;
- ViT towers: the last layer's patch tokens (without the class token), after the final layer norm ``ln_post``;
- timm towers (SigLIP, PE, ConvNeXt, ...): what the timm model's ``forward_features`` gives, without class tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any, cast

from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transform import PreprocessCfg, image_transform_v2
from open_clip.transformer import QuickGELU, VisionTransformer
from PIL import Image
from torch import Tensor, nn

from dept_vl.errors import ConfigError
from dept_vl.models.vision.base import ImageEncoder
from dept_vl.models.vision.open_clip.config import OpenClipConfig
from dept_vl.models.vision.open_clip.weights import ClipTower, load_tower
from dept_vl.models.vision.timm_trunk import probe_trunk, trunk_grid


class OpenClipEncoder(ImageEncoder):
    """A CLIP image tower."""

    def __init__(self, settings: OpenClipConfig, tower: ClipTower | None = None) -> None:
        """Describes a tower; None loads that of the settings, its config, weights and preprocessing from one place.

        Raises:
            ConfigError: The model, its weights or its folder are unknown, incomplete or do not fit together; the tower
                is of a kind without a grid this class can read, or the grid is smaller than `pooled_grid`.
        """
        tower = tower or load_tower(settings)
        grid, feature_dim, details = _describe_tower(tower.module, settings.model)
        preprocessing = _resolve_preprocessing(tower.preprocessing, settings)
        super().__init__(
            settings,
            tower.module,
            grid=grid,
            feature_dim=feature_dim,
            preprocess=cast("Callable[[Image.Image], Tensor]", image_transform_v2(preprocessing, is_train=False)),
            details={**details, "preprocessing_details": asdict(preprocessing)},
        )

    @staticmethod
    def described_width(settings: OpenClipConfig) -> int:
        """See `ImageEncoder.described_width`."""
        return settings.feature_dim()

    def grid(self, pixel_values: Tensor) -> Tensor:
        """See `ImageEncoder.grid`."""
        tower = cast(Any, self.network)  # open_clip has no types
        if isinstance(self.network, ModifiedResNet):
            grid: Tensor = tower.stem(pixel_values)
            for stage in (tower.layer1, tower.layer2, tower.layer3, tower.layer4):
                grid = stage(grid)
            return grid
        if isinstance(self.network, TimmModel):
            return trunk_grid(tower.trunk, pixel_values)
        layers = tower.forward_intermediates(
            pixel_values, indices=1, normalize_intermediates=True, intermediates_only=True, output_fmt="NCHW"
        )
        return cast(Tensor, layers["image_intermediates"][-1])


def _describe_tower(tower: nn.Module, name: str) -> tuple[tuple[int, int], int, dict[str, str]]:
    """Returns the grid's (rows, columns), the feature size, and what its weights do not say of it."""
    if isinstance(tower, ModifiedResNet):
        side = tower.image_size // 32  # five halvings
        return (side, side), tower.attnpool.c_proj.in_features, {"activation": "relu"}
    if isinstance(tower, VisionTransformer) and tower.attn_pool is None:
        gelu = tower.transformer.resblocks[0].mlp.gelu
        activation = "quick_gelu" if isinstance(gelu, QuickGELU) else "gelu"
        return tower.grid_size, tower.conv1.out_channels, {"activation": activation}
    if isinstance(tower, TimmModel):
        grid, width = probe_trunk(tower.trunk, name, tower.image_size)
        return grid, width, {"architecture": tower.trunk.pretrained_cfg["architecture"]}
    raise ConfigError(
        f"model.image_encoder.model: {name} has an image tower without grid features ({type(tower).__name__}); choose "
        "a CLIP ResNet (RN50, RN101, RN50x4, ...), ViT (ViT-B-32, ViT-B-16, ViT-L-14, ...) or timm tower "
        "(ViT-B-16-SigLIP2, convnext_base, PE-Core-B-16, ...)"
    )


def _resolve_preprocessing(own: PreprocessCfg, settings: OpenClipConfig) -> PreprocessCfg:
    """Returns how images are brought to the tower's size: the model's own way, or both sides squashed."""
    size = (own.size, own.size) if isinstance(own.size, int) else (int(own.size[0]), int(own.size[1]))
    resize_mode = "squash" if settings.preprocessing == "resize" else own.resize_mode
    return replace(own, size=size, mean=tuple(own.mean), std=tuple(own.std), resize_mode=resize_mode)
