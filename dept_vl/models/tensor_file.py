"""Writes tensors as safetensors, one after the other from their own memory.

``safetensors.torch.save`` makes the whole file in memory first, with a copy of every tensor: of a fully fine-tuned
model and its moments that is as much again as training takes. Its metadata has no fixed order either. Here it is
sorted, so that the same tensors are the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from dept_vl.system.atomic import atomic_file

CODES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
"""safetensors' codes of types; trained tensors are F32."""

_ALIGNMENT = 8
_NAMES = {torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2"} | {type_: code for code, type_ in CODES.items()}
"""And those of all that is written: a converted backbone keeps its types."""


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Writes a whole safetensors file or none; see `write_tensors`."""
    with atomic_file(path) as file:
        write_tensors(file, tensors, metadata)


def write_tensors(file: IO[bytes], tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Writes a safetensors file: the same bytes as the library's, with metadata in order.

    Args:
        file: Open for writing, and empty.
        tensors: By name, on any device; of the types in `CODES`, or of 8-bit floats.
        metadata: For the header.

    Raises:
        OSError: It cannot be written.
    """
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))  # the format's: widest first
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    end = 0
    for name in names:
        tensor = tensors[name]
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    file.write(len(text).to_bytes(8, "little") + text)
    for name in names:
        values = tensors[name].detach().to("cpu").contiguous().reshape(-1)
        file.write(values.view(torch.uint8).numpy().data)
