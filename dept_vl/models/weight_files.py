"""Weight files that are not safetensors: which kind a file or folder is, found by its content. No torch."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dept_vl.errors import CheckpointError
from dept_vl.models.language.stored import (
    CONFIG_FILE,
    PICKLED_FILE,
    PICKLED_INDEX,
    WEIGHTS_FILE,
    find_folder,
    weight_map,
)
from dept_vl.models.vision.open_clip.files import CONFIG_FILE as CLIP_CONFIG_FILE
from dept_vl.system.bounded_reading import MAX_SETTINGS_BYTES, check_regular, parse_json, read_file

FileKind = Literal["gguf", "torchscript", "pickle", "safetensors"]

WeightKind = Literal["backbone", "gguf", "openai-clip", "open-clip", "transformers-clip"]
"""What weights are of: a language model in pickles; one in GGUF; a CLIP as OpenAI, open_clip or transformers have
it."""

CLIP_TYPES = ("clip", "clip_vision_model")
"""``model_type`` of a transformers CLIP."""

_BESIDE_WEIGHTS = ("training_args.bin", "optimizer.pt", "scheduler.pt", "scaler.pt")
"""Pickles that a training leaves in a folder and that hold no weights."""

_NEXT_STEP = {
    "backbone": "--model.backbone",
    "gguf": "--model.backbone",
    "openai-clip": "--model.image_encoder.model",
    "open-clip": "--model.image_encoder.model",
    "transformers-clip": "--model.image_encoder.model",
}


@dataclass(frozen=True)
class WeightSource:
    """Weights to be converted.

    Attributes:
        kind: What they are of.
        files: The weight files, in order.
        folder: Where what belongs to them lies (settings, tokenizer).
    """

    kind: WeightKind
    files: tuple[Path, ...]
    folder: Path

    @property
    def setting(self) -> str:
        """The flag that takes the folder that comes of them."""
        return _NEXT_STEP[self.kind]


def file_kind(path: Path) -> FileKind:
    """Returns what a weight file is, from its first bytes and, of a zip, its directory; its name says nothing.

    Raises:
        OSError: It is missing or not an ordinary file.
        CheckpointError: It is none of these.
    """
    check_regular(path)
    with open(path, "rb") as file:
        start = file.read(16)
    if start[:4] == b"GGUF":
        return "gguf"
    if start[:2] == b"PK":
        try:
            names = {Path(name).name for name in zipfile.ZipFile(path).namelist()}
        except Exception as error:  # a damaged directory makes zipfile raise errors of several types
            raise CheckpointError(f"{path}: damaged ({type(error).__name__}: {error}); fetch it again") from None
        if "data.pkl" in names:
            return "torchscript" if "constants.pkl" in names else "pickle"
    if start[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        return "pickle"
    if start[8:9] == b"{":
        return "safetensors"
    if start == b"version https://":
        raise CheckpointError(f"{path}: a pointer of git-lfs and not the weights; fetch the file itself")
    raise CheckpointError(
        f"{path}: not weights that can be converted; expected what torch.save wrote (.bin, .pt), an archive of "
        "OpenAI's CLIP, or GGUF"
    )


def find_weights(given: str) -> WeightSource:
    """Returns the weights that a file, a folder or a hub id in the cache stands for.

    Raises:
        CheckpointError: There are none, several, or some that need no conversion; the message says what was found.
    """
    path = Path(given)
    try:
        if path.is_file():
            return _of_file(path)
        folder = path if path.is_dir() else find_folder(given)
        if folder is None:
            raise CheckpointError(f"{given}: no such file or folder, nor a model in the hub's cache")
        return _of_folder(folder)
    except OSError as error:
        raise CheckpointError(f"{error.filename or given}: cannot be read: {error.strerror or error}") from None


def _of_file(path: Path) -> WeightSource:
    kind, folder = file_kind(path), path.parent
    if kind == "gguf":
        return WeightSource("gguf", (path,), folder)
    if kind == "torchscript":
        return WeightSource("openai-clip", (path,), folder)
    of_folder = _kind_of_folder(folder)
    if kind == "safetensors":
        if of_folder == "transformers-clip":
            return WeightSource(of_folder, (path,), folder)
        raise CheckpointError(f"{path}: is safetensors already; give its folder as --model.backbone")
    return WeightSource(of_folder or "openai-clip", (path,), folder)


def _of_folder(folder: Path) -> WeightSource:
    kind = _kind_of_folder(folder)
    if kind == "backbone" and (folder / PICKLED_INDEX).is_file():
        try:
            names = sorted(set(weight_map(folder / PICKLED_INDEX).values()))
        except ValueError as error:
            raise CheckpointError(f"{folder / PICKLED_INDEX}: {error}") from None
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise CheckpointError(f"{folder / PICKLED_INDEX}: names {missing[0]}, which is not there")
        return WeightSource(kind, tuple(folder / name for name in names), folder)
    for name in (PICKLED_FILE, WEIGHTS_FILE) if kind == "transformers-clip" else (PICKLED_FILE,):
        if kind in ("backbone", "transformers-clip") and (folder / name).is_file():
            return _of_file(folder / name)
    found = {path: known for path in sorted(folder.iterdir()) if (known := _known(path)) is not None}
    wanted = {path: known for path, known in found.items() if known != "safetensors"}
    if not wanted:
        what = "safetensors already, which need no conversion" if found else "no weights that can be converted"
        raise CheckpointError(f"{folder}: {what}; expected .bin, .pt or GGUF files")
    if len(wanted) > 1:
        listed = ", ".join(path.name for path in wanted)
        raise CheckpointError(f"{folder}: several weight files ({listed}); name the one to convert")
    return _of_file(next(iter(wanted)))


def _known(path: Path) -> FileKind | None:
    """Returns the kind of a file of weights; None of anything else."""
    if path.name in _BESIDE_WEIGHTS or path.name.startswith(("rng_state", ".")) or not path.is_file():
        return None
    try:
        return file_kind(path)
    except CheckpointError:
        return None


def _kind_of_folder(folder: Path) -> WeightKind | None:
    """Returns what the settings in a folder are of; None where there are none."""
    if (folder / CLIP_CONFIG_FILE).is_file():
        return "open-clip"
    model_type = read_settings(folder / CONFIG_FILE).get("model_type") if (folder / CONFIG_FILE).is_file() else None
    if model_type in CLIP_TYPES:
        return "transformers-clip"
    return None if model_type is None else "backbone"


def read_settings(path: Path) -> Mapping[str, Any]:
    """Returns the JSON object in a file of settings.

    Raises:
        OSError: It cannot be read.
        CheckpointError: It holds something else.
    """
    try:
        content = parse_json(read_file(path, MAX_SETTINGS_BYTES))
    except ValueError as error:
        raise CheckpointError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected an object of settings")
    return content


def check_conversion(given: str, out: Path) -> WeightSource:
    """Refuses a conversion that cannot be made, or into a folder that is taken.

    Raises:
        CheckpointError: As `find_weights`; or `out` is not empty, or inside what is converted.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(f"--out: {out} is not an empty folder; choose another")
    source = find_weights(given)
    if os.path.abspath(out) == os.path.abspath(source.folder):
        raise CheckpointError(f"--out: {out} is the folder that is converted; choose another")
    return source
