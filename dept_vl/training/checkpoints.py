"""Checkpoints a killed run goes on from: trainable tensors, optimiser moments, counters. No pickle.

A checkpoint is a folder ``step-00000500`` made under a temporary name and renamed when whole, so a checkpoint that can
be seen is complete.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import torch
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from dept_vl.errors import CheckpointError
from dept_vl.models.adapter.files import check_finite
from dept_vl.models.tensor_file import save_tensors
from dept_vl.system.atomic import atomic_folder, remove_folder
from dept_vl.system.bounded_reading import MAX_SETTINGS_BYTES, parse_json, read_file
from dept_vl.training.optim import kept_numbers, moment_shapes

_OLDER = "remove the folder to resume from an older one"
_NAME = re.compile(r"^step-(\d{8})$")
_OF = "::"
TUNER_FILE = "tuner.safetensors"
"""Of a checkpoint: what a method keeps of training beside its tensors; not there where it keeps nothing."""
_UNTOUCHED = "untouched"
"""Key of the optimiser file's metadata: names of the tensors that had no gradient yet, so that there are no moments."""
_GROUPS = "groups"
"""Another: what each group knows beside moments (`kept_numbers`); an empty list for AdamW and Adafactor."""


@dataclass(frozen=True)
class Progress:
    """The counters of a run after `step` optimiser steps.

    Attributes:
        step: Optimiser steps done.
        best_metric: Best value of the primary metric so far, or None before the first evaluation.
        best_step: The step it was reached at.
        evals_since_best: Evaluations since then, for early stopping.
        train_seconds: Time spent in the loop so far.
        skipped_steps: Steps without an update, because loss or gradient were not finite or exploded.
        skipped_in_a_row: How many of them come last.
        is_evaluation_due: Whether the evaluation after `step` was cut off and is to be made first.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)  # of what is read back

    step: int = 0
    best_metric: float | None = None
    best_step: int = 0
    evals_since_best: int = 0
    train_seconds: float = 0.0
    skipped_steps: int = 0
    skipped_in_a_row: int = 0
    is_evaluation_due: bool = False


_PROGRESS = TypeAdapter(Progress)
_NAMES = TypeAdapter(list[str])
_NUMBERS: TypeAdapter[list[dict[str, Annotated[float, Field(allow_inf_nan=False)]]]] = TypeAdapter(
    list[dict[str, Annotated[float, Field(allow_inf_nan=False)]]]
)


def save_state(
    folder: Path,
    progress: Progress,
    trainable: dict[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    *,
    keep: int,
    tuner: Mapping[str, Tensor] | None = None,
) -> Path:
    """Writes ``folder/step-N`` and removes all but the newest `keep`.

    Args:
        folder: The run's ``checkpoints`` folder.
        progress: The counters.
        trainable: Every trainable parameter by name.
        optimizer: Holds the moments of those parameters.
        keep: How many checkpoints stay.
        tuner: What else the tuner goes on from (`dept_vl.tuners.base.Tuner.training_state`); None or empty for nothing.
    """
    target = state_folder(folder, progress.step)
    with atomic_folder(target) as temporary:
        save_tensors(temporary / "trainable.safetensors", trainable)
        moments = _moments(trainable, optimizer)
        untouched = sorted(trainable.keys() - {_owner(key) for key in moments})
        known = {_UNTOUCHED: json.dumps(untouched), _GROUPS: json.dumps(kept_numbers(optimizer))}
        save_tensors(temporary / "optimizer.safetensors", moments, known)
        if tuner:
            save_tensors(temporary / TUNER_FILE, tuner)
        (temporary / "progress.json").write_text(json.dumps(asdict(progress), indent=2) + "\n", encoding="utf-8")
    for old in list_states(folder)[:-keep]:
        remove_folder(old)
    return target


def state_bytes(
    trainable: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer, tuner: Mapping[str, Tensor]
) -> int:
    """Returns what the tensors of a checkpoint take on disk, bytes; arguments as of `save_state`."""
    tensors = (*trainable.values(), *_moments(trainable, optimizer).values(), *tuner.values())
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def state_folder(folder: Path, step: int) -> Path:
    """Returns where the checkpoint after so many steps lies."""
    return folder / f"step-{step:08d}"


def list_states(folder: Path) -> list[Path]:
    """Returns the complete checkpoints of a run, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and _NAME.match(path.name))


def load_state(
    checkpoint: Path,
    trainable: dict[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    take_tuner: Callable[[Mapping[str, Tensor]], None] | None = None,
) -> Progress:
    """Puts a checkpoint's tensors into the model and the optimiser and returns its counters.

    Args:
        checkpoint: Its folder.
        trainable: Every trainable parameter by name.
        optimizer: Gets the moments of those parameters.
        take_tuner: Gets what else the tuner goes on from (`dept_vl.tuners.base.Tuner.load_training_state`).

    Raises:
        CheckpointError: A file is missing or damaged, or the tensors are not the model's.
    """
    try:
        tensors = load(read_file(checkpoint / "trainable.safetensors"))
        content = read_file(checkpoint / "optimizer.safetensors")
        moments, (untouched, numbers) = load(content), _read_metadata(content)
        tuner = load(read_file(checkpoint / TUNER_FILE)) if (checkpoint / TUNER_FILE).is_file() else {}
        progress = _PROGRESS.validate_json(read_file(checkpoint / "progress.json", MAX_SETTINGS_BYTES))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(map(str, problem["loc"])) or "the file"
        raise CheckpointError(
            f"{checkpoint / 'progress.json'}: cannot read the checkpoint: {where}: {problem['msg']}; {_OLDER}"
        ) from None
    except (OSError, SafetensorError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{checkpoint}: cannot read the checkpoint: {error}; {_OLDER}") from None
    if f"step-{progress.step:08d}" != checkpoint.name:
        raise CheckpointError(
            f"{checkpoint / 'progress.json'}: step: is {progress.step}, the folder says another; {_OLDER}"
        )
    shapes = {name: moment_shapes(optimizer, parameter) for name, parameter in trainable.items()}
    _check_tensors(checkpoint, trainable, tensors, moments, untouched, shapes)
    _check_numbers(checkpoint, numbers, optimizer)
    _give_tuner(checkpoint, tuner, take_tuner)
    with torch.no_grad():
        for name, parameter in trainable.items():
            parameter.copy_(tensors[name])
    for name, parameter in trainable.items():
        own = {key.split(_OF, 1)[1]: value for key, value in moments.items() if _owner(key) == name}
        if own:
            optimizer.state[parameter] = {
                key: value if key == "step" else value.to(parameter.device) for key, value in own.items()
            }
    for group, known in zip(optimizer.param_groups, numbers, strict=bool(numbers)):
        group.update(known)
    return progress


def _give_tuner(
    checkpoint: Path, state: Mapping[str, Tensor], take: Callable[[Mapping[str, Tensor]], None] | None
) -> None:
    """Hands the tuner its state, before anything else of a checkpoint is used.

    Raises:
        CheckpointError: It is damaged, or of another method.
    """
    check_finite(state, str(checkpoint / TUNER_FILE))
    try:
        if take is not None:
            take(state)
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint / TUNER_FILE}: {error}") from None


def _check_tensors(
    checkpoint: Path,
    trainable: dict[str, nn.Parameter],
    tensors: dict[str, Tensor],
    moments: dict[str, Tensor],
    untouched: Collection[str],
    shapes: Mapping[str, Mapping[str, tuple[int, ...]]],
) -> None:
    """Refuses a checkpoint that is not this run's, before anything of it is used.

    Raises:
        CheckpointError: A tensor or a moment is missing, not known, of another shape or dtype, or not finite.
    """
    wanted = {name: (tuple(p.shape), p.dtype) for name, p in trainable.items()}
    given = {name: (tuple(t.shape), t.dtype) for name, t in tensors.items()}
    if wanted != given:
        raise CheckpointError(f"{checkpoint}: holds trainable tensors {given}, this run has {wanted}")
    for key, moment in sorted(moments.items()):
        name, _, kind = key.partition(_OF)
        if shapes.get(name, {}).get(kind) != tuple(moment.shape):
            raise CheckpointError(
                f"{checkpoint / 'optimizer.safetensors'}: holds {key} {tuple(moment.shape)}, no moment of this run's "
                f"tensors {', '.join(wanted)}"
            )
    whole = [name for name in trainable if all(f"{name}{_OF}{kind}" in moments for kind in shapes[name])]
    without = sorted(trainable.keys() - set(whole) - set(untouched))
    if without:
        raise CheckpointError(
            f"{checkpoint / 'optimizer.safetensors'}: holds no moments of {', '.join(without)}; {_OLDER}"
        )
    check_finite({**tensors, **moments}, str(checkpoint))


def _moments(trainable: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Returns the optimiser's tensors as ``<parameter>::<moment>``."""
    moments = {}
    for name, parameter in trainable.items():
        for key, value in optimizer.state.get(parameter, {}).items():
            moments[f"{name}{_OF}{key}"] = torch.as_tensor(value)
    return moments


def _owner(key: str) -> str:
    """Returns the parameter that a moment belongs to."""
    return key.split(_OF, 1)[0]


def _check_numbers(checkpoint: Path, numbers: list[dict[str, float]], optimizer: torch.optim.Optimizer) -> None:
    """Refuses numbers that are not of this run's optimiser.

    Raises:
        CheckpointError: They have other names, or are of other groups.
    """
    given, wanted = ([sorted(group) for group in groups] for groups in (numbers, kept_numbers(optimizer)))
    if given != wanted:
        raise CheckpointError(
            f"{checkpoint / 'optimizer.safetensors'}: metadata {_GROUPS!r} holds {given} of groups, this run's "
            f"optimiser has {wanted}; {_OLDER}"
        )


def _read_metadata(content: bytes) -> tuple[list[str], list[dict[str, float]]]:
    """Returns the names of tensors without moments and the groups' numbers; none in a checkpoint of an earlier version.

    Raises:
        ValueError: The file's metadata holds something else.
    """
    header = parse_json(content[8 : 8 + int.from_bytes(content[:8], "little")])
    metadata = header.get("__metadata__") or {}
    names, numbers = (parse_json(metadata.get(key, "[]")) for key in (_UNTOUCHED, _GROUPS))
    try:
        return _NAMES.validate_python(names), _NUMBERS.validate_python(numbers)
    except ValidationError as error:
        raise ValueError(f"metadata: {error.errors(include_url=False)[0]['msg']}") from None
