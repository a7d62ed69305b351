"""Finding a CLIP model's config, weights and activation function, together, and refusing what does not fit.

open_clip, asked for a weight file alone, silently uses default preprocessing, and asked for ``ViT-B-32`` with OpenAI's
weights it builds the wrong activation function with a warning only. Here the pieces come from one place or not at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import open_clip
from open_clip.pretrained import get_pretrained_cfg
from open_clip.transform import PreprocessCfg, merge_preprocess_dict
from safetensors import SafetensorError, safe_open
from torch import nn

from dept_vl.errors import ConfigError
from dept_vl.models.vision.base import is_counter
from dept_vl.models.vision.open_clip.config import HUB, OpenClipConfig
from dept_vl.models.vision.open_clip.files import CONFIG_FILE, WEIGHT_FILES, find_weight_file, read_folder_config
from dept_vl.registry import suggest

_PREFIX = "visual."


@dataclass(frozen=True)
class ClipTower:
    """An image tower with its weights, on the CPU in float32, and how its model wants images prepared."""

    module: nn.Module
    preprocessing: PreprocessCfg


def load_tower(config: OpenClipConfig) -> ClipTower:
    """Loads the image tower of a CLIP model.

    Of a folder only the image tower's weights (``visual.*``) are read, so that a folder without a text tower will do.

    Raises:
        ConfigError: The model, weights or folder are unknown, incomplete or do not fit together.
    """
    config.check_files()
    if config.folder is not None:
        return _load_folder(config.folder)
    if config.model.startswith(HUB):
        return _create(config.model)
    known = open_clip.list_models()
    if config.model not in known:
        raise ConfigError(
            f"model.image_encoder.model: unknown open_clip model {config.model!r}{suggest(config.model, known)} "
            "(a local folder must exist; open_clip.list_models() has all names)"
        )
    if config.pretrained is None:
        raise ConfigError(
            f"model.image_encoder.pretrained: {config.model} needs a weight tag such as 'openai', got null"
        )
    return _load_tag(config.model, config.pretrained)


def _load_tag(name: str, tag: str) -> ClipTower:
    """Loads weights by open_clip tag, with the activation function they were trained with."""
    trained = get_pretrained_cfg(name, tag)
    if not trained:
        tags = open_clip.list_pretrained_tags_by_model(name)
        raise ConfigError(
            f"model.image_encoder.pretrained: {name} has no weights called {tag!r}{suggest(tag, tags)} "
            f"(known: {', '.join(tags) or 'none'})"
        )
    with_quick_gelu = bool(trained.get("quick_gelu", False))
    if not with_quick_gelu and (open_clip.get_model_config(name) or {}).get("quick_gelu", False):
        raise ConfigError(f"model.image_encoder: {name} computes QuickGELU, weights {tag!r} were trained with GELU")
    return _create(name, pretrained=tag, force_quick_gelu=with_quick_gelu)


def _create(name: str, **options: Any) -> ClipTower:
    """Calls open_clip and words its failures; they come as several kinds of exception."""
    try:
        model = open_clip.create_model(name, require_pretrained=True, **options)
    except (RuntimeError, OSError, ValueError) as error:
        raise ConfigError(
            f"model.image_encoder: {name} with weights {options.get('pretrained')!r} cannot be loaded: {error}; "
            f"offline, set model.image_encoder.model to a local folder with {CONFIG_FILE} and {WEIGHT_FILES[0]}"
        ) from error
    return ClipTower(cast(nn.Module, model.visual), PreprocessCfg(**open_clip.get_model_preprocess_cfg(model)))


def _load_folder(folder: Path) -> ClipTower:
    """Loads a folder as the hub lays it out: config, preprocessing and weights side by side."""
    config = read_folder_config(folder)
    try:
        model_cfg = config["model_cfg"]
        # the text tower is not used: build the smallest one
        tiny = {"context_length": 1, "vocab_size": 1, "width": 8, "heads": 1, "layers": 1}
        quick_gelu = bool(model_cfg.get("quick_gelu", False))
        described = {**model_cfg["vision_cfg"], "timm_model_pretrained": False}  # the folder has the weights
        model = open_clip.CLIP(model_cfg["embed_dim"], described, tiny, quick_gelu=quick_gelu)
        tower = cast(nn.Module, model.visual)
        own = {**config.get("preprocess_cfg", {}), "size": tower.image_size}
        preprocessing = PreprocessCfg(**merge_preprocess_dict(PreprocessCfg(), own))
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError, RuntimeError) as error:
        path = folder / CONFIG_FILE
        raise ConfigError(f"{path}: not an open_clip config of a CLIP image tower ({error!r})") from error
    _load_weights(tower, find_weight_file(folder))
    return ClipTower(tower, preprocessing)


def _load_weights(tower: nn.Module, weights: Path) -> None:
    """Loads ``visual.*`` of a weight file into the tower, strictly, but for counters of batches.

    Those are read where they are whole numbers, because earlier fingerprints depend on them; nothing else does.
    """
    try:
        with safe_open(weights, "pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys() if name.startswith(_PREFIX)}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ConfigError(f"{weights}: not a complete safetensors file ({error})") from error
    found = {name.removeprefix(_PREFIX): tensor for name, tensor in state.items()}
    found = {name: tensor for name, tensor in found.items() if not (is_counter(name) and tensor.is_floating_point())}
    expected = tower.state_dict()
    found |= {name: tensor for name, tensor in expected.items() if is_counter(name) and name not in found}
    missing, extra = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    shapes = sorted(name for name in expected.keys() & found.keys() if expected[name].shape != found[name].shape)
    if missing or extra or shapes:
        raise ConfigError(
            f"{weights}: does not fit the image tower of its config: {len(missing)} tensors missing {missing[:3]}, "
            f"{len(extra)} unknown {extra[:3]}, {len(shapes)} of another shape {shapes[:3]}"
        )
    tower.load_state_dict(found)
