"""A model of timm, frozen: what its ``forward_features`` gives, which is before pooling and classifier.

Of a convolutional network that is the last feature map (EfficientNet's with its head convolution), of a transformer
the last layer's patch tokens after the final norm; class and register tokens are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import timm
from huggingface_hub import hf_hub_download
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from timm.models import load_model_config_from_hf
from torch import Tensor, nn

from dept_vl.errors import ConfigError, first_line
from dept_vl.models.vision.base import ImageEncoder
from dept_vl.models.vision.settings import LOCAL
from dept_vl.models.vision.stored_encoder import WEIGHTS_FILE
from dept_vl.models.vision.timm_models.config import HUB, TimmConfig
from dept_vl.models.vision.timm_trunk import described_trunk_width, probe_trunk, trunk_grid
from dept_vl.registry import suggest

_TOLD_OTHERWISE = ("num_classes", "in_chans", "img_size", "global_pool")
"""Arguments of a model that say nothing of its features beyond preprocessing, tokens and weights."""


class TimmEncoder(ImageEncoder):
    """A model of timm."""

    def __init__(self, settings: TimmConfig) -> None:
        """Loads the model.

        Raises:
            ConfigError: The model, its weights or its folder are unknown or incomplete, it gives no grid of features,
                or one smaller than `pooled_grid`.
        """
        settings.check_files()
        network = _load(settings)
        described, (_, model_args) = cast(Any, network), _describe(settings)
        data = resolve_model_data_config(network)
        if settings.preprocessing == "resize":
            data |= {"crop_mode": "squash", "crop_pct": 1.0}
        grid, width = probe_trunk(network, settings.model, data["input_size"][1:])
        described.reset_classifier(0)  # no feature depends on it
        super().__init__(
            settings,
            network,
            grid=grid,
            feature_dim=width,
            preprocess=cast("Callable[[Image.Image], Tensor]", create_transform(**data, is_training=False)),
            details={
                "architecture": described.pretrained_cfg["architecture"],
                "model_args": {key: value for key, value in model_args.items() if key not in _TOLD_OTHERWISE},
                "preprocessing_details": data,
            },
        )

    @staticmethod
    def described_width(settings: TimmConfig) -> int:
        """See `ImageEncoder.described_width`; a model on the hub is described there."""
        settings.check_files()
        return described_trunk_width(*_describe(settings))

    def grid(self, pixel_values: Tensor) -> Tensor:
        """See `ImageEncoder.grid`."""
        return trunk_grid(self.network, pixel_values)


def _describe(settings: TimmConfig) -> tuple[str, Mapping[str, Any]]:
    """Returns timm's name of the architecture, and what it is built with beside its defaults.

    Raises:
        ConfigError: timm does not know it, or the hub cannot be asked.
    """
    folder = settings.folder
    if folder is not None:
        config = settings.read_config(folder)
        return config["architecture"], config.get("model_args") or {}
    if not settings.model.startswith(HUB):
        _find_on_hub(settings.model)
        return settings.model, {}
    try:
        _, architecture, model_args = load_model_config_from_hf(settings.bare_model)
    except Exception as error:  # the hub's errors are of many types
        raise _not_loaded(settings, error) from error
    return architecture, model_args


def _load(settings: TimmConfig) -> nn.Module:
    """Returns the model with its own classifier and all its weights, from safetensors."""
    name, hub_id = settings.model, None
    if settings.folder is not None:
        name = f"{LOCAL}{settings.folder}"
    else:
        hub_id = settings.bare_model if name.startswith(HUB) else _find_on_hub(name)
    try:
        if hub_id is not None:  # timm would take a pickle where there are no safetensors
            repository, _, revision = hub_id.partition("@")
            hf_hub_download(repository, WEIGHTS_FILE, revision=revision or None)
        return cast(nn.Module, timm.create_model(name, pretrained=True))
    except Exception as error:  # hub, safetensors and timm raise errors of many types
        raise _not_loaded(settings, error) from error


def _find_on_hub(name: str) -> str:
    """Returns where the hub has the weights of a model that timm knows.

    Raises:
        ConfigError: timm does not know it, or the weights' tag, or the hub has no weights of it.
    """
    if not timm.is_model(name):
        raise ConfigError(
            f"model.image_encoder.model: unknown timm model {name!r}{suggest(name, timm.list_models())} (a local "
            "folder must exist; timm.list_pretrained() has all names)"
        )
    architecture, _, tag = name.partition(".")
    tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in tags:
        raise ConfigError(
            f"model.image_encoder.model: {architecture} has no weights called {tag!r}{suggest(tag, tags)} (known: "
            f"{', '.join(tags) or 'none'})"
        )
    described = timm.models.get_pretrained_cfg(name)
    if described is None or not described.hf_hub_id:
        raise ConfigError(
            f"model.image_encoder.model: the hub has no weights of {name}; give a folder that timm.models.save_for_hf "
            "wrote"
        )
    return str(described.hf_hub_id)


def _not_loaded(settings: TimmConfig, error: Exception) -> ConfigError:
    return ConfigError(
        f"model.image_encoder.model: cannot load {settings.model!r}: {first_line(error)}; offline, give a model that "
        "the hub's cache holds or a local folder that timm.models.save_for_hf(..., safe_serialization=True) wrote"
    )
