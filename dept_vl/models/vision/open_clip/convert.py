"""A CLIP as OpenAI, open_clip or transformers have it to a folder that is read here: settings and safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from safetensors.torch import load_file
from torch import Tensor

from dept_vl.errors import CheckpointError
from dept_vl.models.pickled import read_pickled, read_torchscript
from dept_vl.models.tensor_file import save_tensors
from dept_vl.models.vision.open_clip.config import OpenClipConfig
from dept_vl.models.vision.open_clip.files import CONFIG_FILE, WEIGHT_FILES
from dept_vl.models.vision.open_clip.weights import load_tower
from dept_vl.models.weight_files import file_kind, read_settings
from dept_vl.system.atomic import write_json

_NUMBERS = ("input_resolution", "context_length", "vocab_size")
"""What OpenAI's archives hold beside the weights."""

_HEAD_WIDTH = 64
"""Of every attention in OpenAI's models; shapes do not say it."""


def convert_openai(path: Path, out: Path) -> str:
    """Writes one of OpenAI's CLIP models (``RN101.pt``, ``ViT-B-32.pt``, ...); every tensor keeps its bits and type.

    The file is a TorchScript archive, whose code is not run, or its tensors saved by name. Shapes say what the towers
    are; QuickGELU, heads of 64 and the preprocessing are those of all of OpenAI's models.

    Raises:
        CheckpointError: It is damaged, or not one of these.
    """
    is_archive = file_kind(path) == "torchscript"
    tensors = read_torchscript(path) if is_archive else read_pickled(path)
    if not is_archive and not {*_NUMBERS} & tensors.keys():
        raise CheckpointError(
            f"{path}: weights without settings beside them ({CONFIG_FILE} of open_clip, or config.json of "
            "transformers), which do not say what activation they were trained with"
        )
    tensors = {name: tensor for name, tensor in tensors.items() if name not in _NUMBERS}
    try:
        model_cfg = _describe_openai(tensors)
    except (KeyError, IndexError, ZeroDivisionError) as error:
        raise CheckpointError(f"{path}: not one of OpenAI's CLIP models (no {error})") from None
    statistics = {"mean": list(OPENAI_DATASET_MEAN), "std": list(OPENAI_DATASET_STD)}
    return _write(out, tensors, {"model_cfg": model_cfg, "preprocess_cfg": statistics}, path)


def convert_open_clip(path: Path, folder: Path, out: Path) -> str:
    """Writes an open_clip model whose weights are a pickle.

    Raises:
        CheckpointError: It is damaged, or holds more than tensors.
    """
    tensors = {name.removeprefix("module."): tensor for name, tensor in read_pickled(path).items()}
    return _write(out, tensors, read_settings(folder / CONFIG_FILE), path)


def convert_transformers(path: Path, folder: Path, out: Path) -> str:
    """Writes the image tower of a transformers CLIP, a ViT, under open_clip's names; values stay bit for bit.

    Raises:
        CheckpointError: It is damaged, or not such a tower.
    """
    try:
        tensors = load_file(path) if file_kind(path) == "safetensors" else read_pickled(path)
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(f"{path}: not a complete safetensors file ({error})") from None
    described = read_settings(folder / "config.json")
    try:
        vision = {**_TRANSFORMERS_DEFAULTS, **described.get("vision_config", described)}
        width, activation = int(vision["hidden_size"]), vision["hidden_act"]
        if activation not in ("quick_gelu", "gelu"):
            raise CheckpointError(f"{folder}: the tower computes {activation!r}, expected quick_gelu or gelu")
        embed_dim = int(described.get("projection_dim", vision["projection_dim"]))
        model_cfg = {
            "embed_dim": embed_dim,
            "quick_gelu": activation == "quick_gelu",
            "vision_cfg": {
                "image_size": vision["image_size"],
                "layers": vision["num_hidden_layers"],
                "width": width,
                "head_width": width // vision["num_attention_heads"],
                "mlp_ratio": vision["intermediate_size"] / width,
                "patch_size": vision["patch_size"],
            },
            "text_cfg": {"context_length": 1, "vocab_size": 1, "width": 8, "heads": 1, "layers": 1},  # not taken along
        }
        tower = _from_transformers(tensors, int(vision["num_hidden_layers"]))
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{folder}: not a transformers CLIP with a ViT ({error})") from None
    return _write(out, tower, {"model_cfg": model_cfg, "preprocess_cfg": _statistics(folder)}, path)


_TRANSFORMERS_DEFAULTS: Mapping[str, Any] = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "image_size": 224, "patch_size": 32, "hidden_act": "quick_gelu", "projection_dim": 512,
}  # fmt: skip
"""What transformers' ``CLIPVisionConfig`` leaves out of a file where it is so."""

_RENAMED_LAYER = {
    "attn.out_proj": "self_attn.out_proj", "ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}  # fmt: skip


def _from_transformers(tensors: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """Returns the tensors of a tower under open_clip's names; q, k and v are one matrix there."""
    tower = {
        "class_embedding": tensors["vision_model.embeddings.class_embedding"],
        "positional_embedding": tensors["vision_model.embeddings.position_embedding.weight"],
        "conv1.weight": tensors["vision_model.embeddings.patch_embedding.weight"],
        "proj": tensors["visual_projection.weight"].T,
    }
    for kind in ("weight", "bias"):
        tower[f"ln_pre.{kind}"] = tensors[f"vision_model.pre_layrnorm.{kind}"]  # their spelling
        tower[f"ln_post.{kind}"] = tensors[f"vision_model.post_layernorm.{kind}"]
        for number in range(layers):
            ours, theirs = f"transformer.resblocks.{number}.", f"vision_model.encoder.layers.{number}."
            parts = [tensors[f"{theirs}self_attn.{letter}_proj.{kind}"] for letter in "qkv"]
            tower[f"{ours}attn.in_proj_{kind}"] = torch.cat(parts)
            for name, renamed in _RENAMED_LAYER.items():
                tower[f"{ours}{name}.{kind}"] = tensors[f"{theirs}{renamed}.{kind}"]
    return {f"visual.{name}": tensor for name, tensor in tower.items()}


def _statistics(folder: Path) -> dict[str, Any]:
    """Returns the mean and deviation of pixels in a transformers folder; OpenAI's where it gives none."""
    path = folder / "preprocessor_config.json"
    given = read_settings(path) if path.is_file() else {}
    return {
        "mean": list(given.get("image_mean", OPENAI_DATASET_MEAN)),
        "std": list(given.get("image_std", OPENAI_DATASET_STD)),
    }


def _describe_openai(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Returns open_clip's ``model_cfg`` of OpenAI's weights.

    Raises:
        KeyError: A tensor that all of them have is missing.
    """

    def shape(name: str) -> torch.Size:
        return tensors[name].shape

    def count(prefix: str) -> int:
        start = prefix.count(".")
        return len({name.split(".")[start] for name in tensors if name.startswith(prefix)})

    if "visual.proj" in tensors:
        width, _, patch, _ = shape("visual.conv1.weight")
        side = round((shape("visual.positional_embedding")[0] - 1) ** 0.5)
        layers: int | list[int] = count("visual.transformer.resblocks.")
        vision = {"image_size": patch * side, "layers": layers, "width": width, "patch_size": patch}
    else:
        side = round((shape("visual.attnpool.positional_embedding")[0] - 1) ** 0.5)
        layers = [count(f"visual.layer{stage}.") for stage in (1, 2, 3, 4)]
        width = shape("visual.layer1.0.conv1.weight")[0]
        vision = {"image_size": 32 * side, "layers": layers, "width": width, "patch_size": None}
    text_width = shape("ln_final.weight")[0]
    text = {
        "context_length": shape("positional_embedding")[0],
        "vocab_size": shape("token_embedding.weight")[0],
        "width": text_width,
        "heads": text_width // _HEAD_WIDTH,
        "layers": count("transformer.resblocks."),
    }
    return {
        "embed_dim": shape("text_projection")[1],
        "quick_gelu": True,
        "vision_cfg": {**vision, "head_width": _HEAD_WIDTH},
        "text_cfg": text,
    }


def _write(out: Path, tensors: Mapping[str, Tensor], settings: Mapping[str, Any], source: Path) -> str:
    """Writes a folder and loads its tower, so that nothing is left that cannot be; returns what it is."""
    write_json(out / CONFIG_FILE, settings)
    save_tensors(out / WEIGHT_FILES[0], tensors)
    try:
        tower = load_tower(OpenClipConfig(model=str(out)))
    except ValueError as error:
        raise CheckpointError(str(error).replace(str(out), str(source))) from None
    numbers = sum(parameter.numel() for parameter in tower.module.parameters())
    return f"CLIP image tower {type(tower.module).__name__}, {numbers:,} parameters"
