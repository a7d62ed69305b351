"""The grid of features of a timm model, be it an encoder of its own or the image tower of an open_clip model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import timm
import torch
from torch import Tensor, nn

from dept_vl.errors import ConfigError, first_line
from dept_vl.models.vision.token_grid import tokens_to_grid


def trunk_grid(trunk: nn.Module, pixel_values: Tensor) -> Tensor:
    """Returns what a timm model's ``forward_features`` gives, as a grid without class and register tokens.

    Args:
        trunk: The model.
        pixel_values: (batch, 3, height, width) float32.

    Returns:
        (batch, width, rows, columns) float32.

    Raises:
        ValueError: It gives something else than one grid.
    """
    features = cast(Any, trunk).forward_features(pixel_values)
    if not isinstance(features, Tensor):
        raise ValueError(f"forward_features gives {type(features).__name__} and not one tensor")
    if features.ndim == 4:
        return features.permute(0, 3, 1, 2) if getattr(trunk, "output_fmt", "NCHW") == "NHWC" else features
    if features.ndim != 3:
        raise ValueError(f"forward_features gives a tensor of {features.ndim} dimensions")
    height, width = pixel_values.shape[-2:]
    return tokens_to_grid(features, getattr(trunk, "num_prefix_tokens", 0), (height, width))


def probe_trunk(trunk: nn.Module, name: str, size: tuple[int, int]) -> tuple[tuple[int, int], int]:
    """Returns the grid's (rows, columns) and the features' width of a timm model, from one black picture.

    Args:
        trunk: The model, with its weights or without storage, on one device.
        name: What the user called it, for the message.
        size: Height and width of its pictures in pixels.

    Raises:
        ConfigError: It has no ``forward_features``, or that gives no grid.
    """
    if not hasattr(trunk, "forward_features"):
        raise ConfigError(f"model.image_encoder.model: {name} has no forward_features ({type(trunk).__name__})")
    trunk.eval()
    try:
        with torch.no_grad():
            grid = trunk_grid(trunk, torch.zeros(1, 3, *size, device=next(trunk.parameters()).device))
    except (ValueError, RuntimeError, AssertionError, TypeError) as error:  # models check their input each its own way
        raise ConfigError(
            f"model.image_encoder.model: {name} gives no grid of features for pictures of {size[0]} x {size[1]} "
            f"pixels: {first_line(error)}"
        ) from error
    _, width, rows, columns = grid.shape
    return (rows, columns), width


def described_trunk_width(architecture: str, model_args: Mapping[str, Any] | None = None) -> int:
    """Returns the width of a timm architecture's features; no weights are made or read.

    Raises:
        ConfigError: timm does not know it.
    """
    try:
        with torch.device("meta"):
            return int(cast(Any, timm.create_model(architecture, pretrained=False, **(model_args or {}))).num_features)
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        raise ConfigError(
            f"model.image_encoder.model: timm cannot build {architecture!r}: {first_line(error)}"
        ) from error
