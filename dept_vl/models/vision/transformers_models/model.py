"""A vision model of transformers, frozen: the patch tokens of its ``last_hidden_state``, after the final norm.

Class and register tokens are left out; of a DINOv3 ConvNeXt the tokens are the last feature map's places.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
import transformers
from PIL import Image
from torch import Tensor, nn
from transformers import AutoConfig, AutoImageProcessor, PretrainedConfig

from dept_vl.errors import ConfigError, first_line
from dept_vl.models.quiet_loading import quiet_transformers, weights_in_every_process
from dept_vl.models.vision.base import ImageEncoder
from dept_vl.models.vision.token_grid import tokens_to_grid
from dept_vl.models.vision.transformers_models.config import TransformersConfig, find_vision_family

_PROCESSING = (
    "do_resize", "size", "resample", "do_center_crop", "crop_size", "do_pad", "pad_size", "do_rescale",
    "rescale_factor", "do_normalize", "image_mean", "image_std",
)  # fmt: skip
"""What of an image processor's settings decides the pixels."""

_COMPUTATION = (
    "hidden_act", "layer_norm_eps", "num_attention_heads", "patch_size", "image_size", "num_register_tokens",
    "rope_theta", "pos_embed_rescale", "use_gated_mlp", "use_swiglu_ffn",
)  # fmt: skip
"""What of a model's config decides the features and may not show in its weights."""


class TransformersEncoder(ImageEncoder):
    """A vision model of transformers."""

    def __init__(self, settings: TransformersConfig) -> None:
        """Loads the model and its image processor.

        Raises:
            ConfigError: The model, its weights or its image processor are unknown or incomplete, the two do not fit
                together, or the grid is smaller than `pooled_grid`.
        """
        config = _read_config(settings)
        family = find_vision_family(config.model_type, settings.model)
        network = _load_network(settings, family.model_class)
        preprocess = _load_preprocess(settings)
        vision = cast(Any, network).config
        num_prefix_tokens = family.class_tokens + getattr(vision, "num_register_tokens", 0)
        grid, width = _probe(network, num_prefix_tokens, preprocess.size, settings.model)
        super().__init__(
            settings,
            network,
            grid=grid,
            feature_dim=width,
            preprocess=preprocess,
            details={
                "architecture": family.model_class,
                "computation": {key: getattr(vision, key) for key in _COMPUTATION if hasattr(vision, key)},
                "preprocessing_details": preprocess.details,
            },
        )
        self._num_prefix_tokens = num_prefix_tokens

    @staticmethod
    def described_width(settings: TransformersConfig) -> int:
        """See `ImageEncoder.described_width`; a model on the hub is described there."""
        config = _read_config(settings)
        find_vision_family(config.model_type, settings.model)
        vision = getattr(config, "vision_config", config)
        sizes = getattr(vision, "hidden_sizes", None)
        return int(sizes[-1] if sizes else vision.hidden_size)

    def grid(self, pixel_values: Tensor) -> Tensor:
        """See `ImageEncoder.grid`."""
        return _patch_grid(self.network, self._num_prefix_tokens, pixel_values)


def _patch_grid(network: nn.Module, num_prefix_tokens: int, pixel_values: Tensor) -> Tensor:
    height, width = pixel_values.shape[-2:]
    tokens = network(pixel_values=pixel_values).last_hidden_state
    return tokens_to_grid(tokens, num_prefix_tokens, (height, width))


@torch.no_grad()
def _probe(network: nn.Module, num_prefix_tokens: int, size: tuple[int, int], name: str) -> tuple[tuple[int, int], int]:
    """Returns the grid's (rows, columns) and the features' width, from one black picture."""
    try:
        grid = _patch_grid(network.eval(), num_prefix_tokens, torch.zeros(1, 3, *size))
    except (ValueError, RuntimeError) as error:
        raise ConfigError(
            f"model.image_encoder.model: {name} gives no grid of features for the pictures of {size[0]} x {size[1]} "
            f"pixels that its image processor makes: {first_line(error)}"
        ) from error
    _, width, rows, columns = grid.shape
    return (rows, columns), width


class _Preprocess:
    """An image processor as a function of one image; loader processes can receive it.

    Attributes:
        size: Height and width of what it makes, in pixels.
        details: What decides the pixels.
    """

    def __init__(self, processor: Any, name: str, *, squash: bool) -> None:
        self._processor = processor
        self._options: dict[str, Any] = {}
        shapes = {tuple(self(Image.new("RGB", size)).shape) for size in ((64, 48), (48, 96))}
        if len(shapes) > 1 or {len(shape) for shape in shapes} != {3}:
            raise ConfigError(
                f"model.image_encoder.model: the image processor of {name} ({type(processor).__name__}) makes pictures "
                f"of no fixed size ({' and '.join(map(str, sorted(shapes)))}); choose a model with pictures of one size"
            )
        _, height, width = shapes.pop()
        self.size = (height, width)
        if squash:
            self._options = {"do_resize": True, "size": {"height": height, "width": width}, "do_center_crop": False}
        settings = {**processor.to_dict(), **self._options}
        self.details = {key: settings[key] for key in _PROCESSING if settings.get(key) is not None}

    def __call__(self, image: Image.Image) -> Tensor:
        """Returns the pixels of an RGB image, (3, height, width) float32."""
        return cast(Tensor, self._processor(images=image, return_tensors="pt", **self._options)["pixel_values"][0])


def _read_config(settings: TransformersConfig) -> PretrainedConfig:
    settings.check_files()
    try:
        with quiet_transformers():
            return cast(PretrainedConfig, AutoConfig.from_pretrained(settings.bare_model, trust_remote_code=False))
    except Exception as error:  # settings of a wrong type make the library raise errors of its own
        raise _not_loaded(settings, error) from error


def _load_network(settings: TransformersConfig, model_class: str) -> nn.Module:
    """Returns the model in float32, every tensor of it from the file."""
    try:
        with quiet_transformers(), weights_in_every_process():
            network, report = getattr(transformers, model_class).from_pretrained(
                settings.bare_model,
                dtype=torch.float32,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # they are in the report, and refused below
                output_loading_info=True,
            )
    except Exception as error:  # damaged files make the libraries raise errors of any type
        raise _not_loaded(settings, error) from error
    _refuse_misfits(report, network, settings.model)
    return cast(nn.Module, network)


def _refuse_misfits(report: Mapping[str, Any], network: nn.Module, name: str) -> None:
    """Refuses weights that lack something of the model, or have layers of it that its config does not count.

    Other tensors may be there, and are left out: those of a text tower, of heads, and buffers of earlier versions.
    """
    lacking = sorted({*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])})
    if lacking:
        raise ConfigError(
            f"model.image_encoder.model: the weights of {name} do not fill the {type(network).__name__} that its "
            f"config.json describes; missing or of another shape: {', '.join(lacking[:3])} ({len(lacking)} in all)"
        )
    modules = {key.partition(".")[0] for key in network.state_dict()}
    parts = {key: key.split(".") for key in report["unexpected_keys"]}
    surplus = sorted(key for key, (first, *rest) in parts.items() if first in modules and any(map(str.isdigit, rest)))
    if surplus:
        raise ConfigError(
            f"model.image_encoder.model: the weights of {name} have layers that its config.json does not count: "
            f"{', '.join(surplus[:3])} ({len(surplus)} tensors in all)"
        )


def _load_preprocess(settings: TransformersConfig) -> _Preprocess:
    try:
        with quiet_transformers():
            processor = AutoImageProcessor.from_pretrained(settings.bare_model, trust_remote_code=False)
    except Exception as error:  # a damaged file makes the library raise errors of any type
        raise _not_loaded(settings, error, "the image processor of ") from error
    return _Preprocess(processor, settings.model, squash=settings.preprocessing == "resize")


def _not_loaded(settings: TransformersConfig, error: Exception, part: str = "") -> ConfigError:
    return ConfigError(
        f"model.image_encoder.model: cannot load {part}{settings.model!r}: {first_line(error)}; offline, give a hub id "
        "that the hub's cache holds or a local folder with config.json, model.safetensors and preprocessor_config.json"
    )
