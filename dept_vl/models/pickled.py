"""Tensors out of pickled weight files, read with torch's restricted unpickler: nothing that a file names is called."""

from __future__ import annotations

import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dept_vl.errors import CheckpointError, first_line

_WRAPPERS = ("state_dict", "model_state_dict")
"""Keys under which trainings keep the tensors of a model."""

_PACKED_BYTES = 16 << 20
"""What code and pickle of an archive may unpack to beyond the file's size."""

_MODULE = "__torch__."
"""What the names of a TorchScript archive's own classes begin with."""


class _Node:
    """A module of a TorchScript archive, as the attributes it was saved with; it has no code."""


def _list(values: list[Any]) -> list[Any]:
    return values


def _untagged(value: Any, tag: str) -> Any:
    return value


_BUILDERS: dict[str, Callable[..., Any]] = {
    **{f"torch.jit._pickle.build_{kind}list": _list for kind in ("int", "tensor", "double", "bool")},
    "torch.jit._pickle.restore_type_tag": _untagged,
}
"""What TorchScript's pickles call to build lists, by plain functions that do no more."""


def read_pickled(path: Path) -> dict[str, Tensor]:
    """Returns the tensors by name of a file that ``torch.save`` wrote (``.bin``, ``.pt``).

    Raises:
        CheckpointError: It is damaged, unpacks to more than itself, or holds more than tensors by name.
    """
    is_zip = zipfile.is_zipfile(path)
    if is_zip:
        _refuse_packed(path)
    loaded = _load(path, {"mmap": True} if is_zip else {})
    for key in _WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping) or not loaded:
        raise CheckpointError(f"{path}: expected tensors by name, got {type(loaded).__name__}")
    wrong = [name for name, value in loaded.items() if not (isinstance(name, str) and isinstance(value, Tensor))]
    if wrong:
        raise CheckpointError(
            f"{path}: expected tensors by name; {wrong[0]!r} is {type(loaded[wrong[0]]).__name__}: is it the state of "
            "a training and not a model's weights?"
        )
    return {name: tensor.detach() for name, tensor in loaded.items()}


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Returns the parameters and buffers by name of a TorchScript archive, without its code.

    The archive is a pickle of modules as classes of its own, their tensors, and code. torch's restricted unpickler
    refuses it whole; of a copy without the code it takes the rest, with every class of the archive's own stood for by
    one that only holds attributes. What cannot be had so: what a model computes. It must be known from elsewhere.

    Raises:
        CheckpointError: It is damaged, or names anything but modules, tensors and lists.
    """
    _refuse_packed(path)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "weights.pt"
        _copy_without_code(path, copy)
        try:
            names = torch.serialization.get_unsafe_globals_in_checkpoint(str(copy))
        except Exception as error:
            raise _refused(path, error) from None
        unknown = sorted(name for name in names if not name.startswith(_MODULE) and name not in _BUILDERS)
        if unknown:
            raise CheckpointError(f"{path}: refused, nothing in it was executed: it names {', '.join(unknown[:3])}")
        allowed: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
            (_BUILDERS.get(name, _Node), name) for name in names
        ]
        with torch.serialization.safe_globals(allowed):
            root = _load(copy, {}, named=path)
    return dict(_tensors(root))


def _load(path: Path, options: dict[str, Any], named: Path | None = None) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about opcodes of a damaged file; what matters is raised
            return torch.load(path, map_location="cpu", weights_only=True, **options)
    except Exception as error:  # a damaged or hostile pickle makes the restricted unpickler raise errors of any type
        raise _refused(named or path, error) from None


def _refused(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{path}: refused, nothing in it was executed: damaged, or it holds more than tensors "
        f"({first_line(error)[:200]})"
    )


def _refuse_packed(path: Path) -> None:
    """Refuses a zip that unpacks to more than itself: torch packs code and a pickle at most, never tensors."""
    try:
        unpacked = sum(record.file_size for record in zipfile.ZipFile(path).infolist())
    except Exception as error:  # a damaged directory makes zipfile raise errors of several types
        raise CheckpointError(f"{path}: damaged ({type(error).__name__}: {error}); fetch it again") from None
    if unpacked > path.stat().st_size + _PACKED_BYTES:
        raise CheckpointError(f"{path}: unpacks to {unpacked:,} bytes, far more than the file has; refused")


def _copy_without_code(path: Path, copy: Path) -> None:
    """Copies of a TorchScript archive what ``torch.save`` would have written: the pickle and the tensors' values."""
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(copy, "w", zipfile.ZIP_STORED) as target:
        for record in source.infolist():
            _, _, inside = record.filename.partition("/")
            if inside in ("data.pkl", "version", "byteorder") or inside.startswith("data/"):
                target.writestr(f"weights/{inside}", source.read(record))


def _tensors(node: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yields every tensor below a module, named as ``state_dict`` names it."""
    for name, value in vars(node).items() if isinstance(node, _Node) else ():
        if isinstance(value, Tensor):
            yield f"{prefix}{name}", value.detach()
        else:
            yield from _tensors(value, f"{prefix}{name}.")
