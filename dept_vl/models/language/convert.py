"""A backbone in pickles or GGUF to a folder of safetensors, configuration and tokenizer files."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer

from dept_vl.errors import CheckpointError, ConfigError, first_line
from dept_vl.models.language.families import FAMILIES
from dept_vl.models.language.load import load_backbone
from dept_vl.models.language.stored import BESIDE_WEIGHTS, WEIGHTS_FILE
from dept_vl.models.pickled import read_pickled
from dept_vl.models.quiet_loading import quiet_transformers
from dept_vl.models.tensor_file import save_tensors
from dept_vl.system.atomic import write_bytes


def convert_pickled(files: Sequence[Path], folder: Path, out: Path) -> str:
    """Writes a backbone whose weights are pickles; every tensor keeps its bits and its type.

    Args:
        files: Its weight files, all of them.
        folder: Where configuration and tokenizer lie.
        out: An empty folder.

    Returns:
        What it is, for people.

    Raises:
        CheckpointError: A weight file is damaged or holds more than tensors.
        ConfigError: What comes of it cannot be loaded: the message says what is missing.
    """
    tensors: dict[str, Tensor] = {}
    for path in files:
        tensors |= read_pickled(path)
    save_tensors(out / WEIGHTS_FILE, _one_each(tensors), _METADATA)
    for name in BESIDE_WEIGHTS:
        if (folder / name).is_file():
            write_bytes(out / name, (folder / name).read_bytes())
    return _loaded(out, folder)


_METADATA = {"format": "pt"}
_GGUF_NAME = "model.gguf"


def _one_each(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns tensors of which no two are the same memory, and word embeddings under one of their names."""
    result = dict(tensors)
    for family in FAMILIES.values():
        tables = [table for table in family.backbone_class.word_tables if table in result]
        for other in tables[1:]:
            if torch.equal(result[tables[0]], result[other]):
                del result[other]
    places: set[int] = set()
    for name, tensor in result.items():
        place = tensor.untyped_storage().data_ptr()
        result[name] = tensor.clone() if place in places else tensor
        places.add(place)
    return result


def convert_gguf(path: Path, out: Path) -> str:
    """Writes a backbone in GGUF, its quantised weights as the float32 numbers they stand for.

    Args:
        path: The file.
        out: An empty folder.

    Returns:
        What it is, for people.

    Raises:
        CheckpointError: The package that reads GGUF is missing, or the file is of no family that is known, or damaged.
        ConfigError: As `convert_pickled`.
    """
    if find_spec("gguf") is None:
        raise CheckpointError(
            f"{path}: is GGUF, which needs the package gguf to be read; install it (pip install gguf) and try again"
        )
    try:
        with quiet_transformers(), TemporaryDirectory() as folder:
            (Path(folder) / _GGUF_NAME).symlink_to(path.resolve())  # transformers goes by the name
            config = AutoConfig.from_pretrained(folder, gguf_file=_GGUF_NAME)
            if config.model_type not in FAMILIES:
                raise CheckpointError(
                    f"{path}: is of type {config.model_type!r}, expected one of {', '.join(FAMILIES)}"
                )
            family = FAMILIES[config.model_type].backbone_class
            model = family.model_class.from_pretrained(folder, gguf_file=_GGUF_NAME)
            tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=_GGUF_NAME, trust_remote_code=False)
    except CheckpointError:
        raise
    except Exception as error:  # a damaged file makes the libraries raise errors of any type
        raise CheckpointError(f"{path}: cannot be read as GGUF: {first_line(error)[:300]}") from None
    plain = family.model_class(config)  # without what the quantised one remembers of its file
    plain.load_state_dict(model.state_dict())
    with quiet_transformers():
        for settings in (plain.config, plain.generation_config):
            settings.save_pretrained(out)
        save_tensors(out / WEIGHTS_FILE, _one_each(plain.state_dict()), _METADATA)
        tokenizer.save_pretrained(str(out))
    return _loaded(out, path)


def _loaded(out: Path, source: Path) -> str:
    """Loads what was written, so that nothing is left that cannot be; returns what it is."""
    try:
        backbone, _ = load_backbone(str(out))
    except ConfigError as error:
        raise ConfigError(str(error).replace(str(out), str(source))) from None
    numbers = sum(parameter.numel() for parameter in backbone.parameters())
    return f"{backbone.family}, {numbers:,} parameters"
