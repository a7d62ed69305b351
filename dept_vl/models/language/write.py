"""Writes a backbone as a folder in Hugging Face's format, which transformers alone loads too."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dept_vl.models.language.base import CHANGED_WEIGHTS, Backbone
from dept_vl.models.language.stored import BESIDE_WEIGHTS, CONFIG_FILE, WEIGHTS_FILE, read_config
from dept_vl.models.language.t5 import ENCODER_TABLE, OWN_ENCODER_TABLE
from dept_vl.models.tensor_file import save_tensors
from dept_vl.system.atomic import write_bytes, write_json

_DTYPES = ("dtype", "torch_dtype")
"""Keys of ``config.json`` for the type that transformers loads weights in."""


def write_backbone(backbone: Backbone[Any], source: Path, out: Path, encoder_table: Tensor | None = None) -> None:
    """Writes weights in float32, with the configuration and tokenizer of the folder that the backbone was loaded from.

    ``config.json`` gets `CHANGED_WEIGHTS`, by which an adapter for these weights does not fit the others.

    Args:
        backbone: Its weights.
        source: Where it was loaded from.
        out: An empty folder.
        encoder_table: Word embeddings of a T5's encoder, (vocabulary, d_model), where they are not the decoder's.
    """
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, value in backbone.model.state_dict().items():
        if value.data_ptr() not in seen:  # a tied matrix goes by the first of its names
            seen.add(value.data_ptr())
            tensors[name] = value.detach().to("cpu", torch.float32).contiguous()
    config = read_config(source, str(source))
    if encoder_table is not None:
        tensors[ENCODER_TABLE] = encoder_table.detach().to("cpu", torch.float32).contiguous()
        config[OWN_ENCODER_TABLE] = True
    for key in _DTYPES:
        if key in config:
            config[key] = "float32"
    config[CHANGED_WEIGHTS] = _digest(tensors)
    for name in BESIDE_WEIGHTS:
        if name != CONFIG_FILE and (source / name).is_file():
            write_bytes(out / name, (source / name).read_bytes())
    write_json(out / CONFIG_FILE, config)
    save_tensors(out / WEIGHTS_FILE, tensors, {"format": "pt"})


def _digest(tensors: dict[str, Tensor]) -> str:
    """Returns the sha256 of names and values."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].numpy().astype("<f4", copy=False).tobytes())
    return digest.hexdigest()
