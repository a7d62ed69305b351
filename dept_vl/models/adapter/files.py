"""The adapter on disk: the trainable tensors and what they fit. safetensors and JSON, no pickle.

``adapter_model.safetensors`` holds the tensors, and in its header a copy of ``adapter_config.json``: a save that was
killed between the two files, or a file taken from another adapter, is noticed on loading. An adapter file is data: no
path, URL or switch in it says where a backbone comes from or how it is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dept_vl.errors import CheckpointError
from dept_vl.models.adapter.earlier_projection import as_now, as_stored, is_earlier
from dept_vl.models.adapter.presence import (
    ADAPTER_CONFIG_FILE,
    CARD_FILE,
    WEIGHTS_FILE,
    describe_invalid,
    read_settings,
    require_adapter,
)
from dept_vl.models.config import VisualPositionBias
from dept_vl.models.tensor_file import CODES, save_tensors, write_tensors
from dept_vl.strict import STRICT
from dept_vl.system.atomic import write_text
from dept_vl.system.bounded_reading import parse_json
from dept_vl.system.file_names import utf8_name
from dept_vl.tasks import Task, get_task, task_names
from dept_vl.tasks.base import AnswerForm
from dept_vl.tasks.declaration import TaskDeclaration
from dept_vl.tasks.declared import make_task
from dept_vl.tuners import TunerConfig

FORMAT_VERSION = 2
"""Version 1 had m and r of DePT in ``num_virtual_tokens`` and ``rank`` where `AdapterConfig.facts` is now."""

_HEADER_KEY = "adapter_config"
_NAMED = 8
"""Problems that a message names."""


@dataclass(frozen=True, config=STRICT)
class BackboneIdentity:
    """The backbone an adapter was trained on; `name` and `revision` are for people, the rest is compared.

    Attributes:
        name: Under which it was loaded and can be again: hub id, folder, or ``"demo"``.
        revision: The hub's commit, where it is known.
        num_layers: Blocks of the encoder, or of the only stack.
        num_decoder_layers: Blocks of T5's decoder; None for a decoder-only model.
        family: ``model_type`` of its ``config.json``; files that do not say it are of T5.
        weights_sha256: None where it was not recorded: a released adapter imported without its backbone.
        image_weights_sha256: Of the image encoder in a vision-language model and what connects it; None for other
            families, and in files of before it was recorded.
    """

    name: str
    d_model: int
    num_layers: int
    num_decoder_layers: int | None
    vocab_size: int
    weights_sha256: str | None
    family: str = "t5"
    revision: str | None = None
    image_weights_sha256: str | None = None


@dataclass(frozen=True, config=STRICT)
class VisualSettings:
    """How visual features enter the backbone; `position_bias` is T5's, None for another family.

    `frozen_projection_sha256` is that of a projection trained before, which the adapter does not hold; else None.
    """

    projection: Literal["linear", "vl-t5"]
    feature_dim: Annotated[int, Field(ge=1)]
    position_bias: VisualPositionBias | None = None
    frozen_projection_sha256: str | None = None


@dataclass(frozen=True, config=STRICT)
class Origin:
    """Where an adapter that this package did not train comes from.

    Attributes:
        format: Who wrote it: the released DePT code (``ZhengxiangShi/DePT``).
        weights_sha256: Of its weights file.
        lowrank: Its low-rank pair: imported, left out on request, missing from the released file although its settings
            announce one, or none in its method.
    """

    format: Literal["released-dept"]
    weights_sha256: str
    lowrank: Literal["imported", "left out", "not released", "none"]


@dataclass(frozen=True, config=STRICT)
class AdapterConfig:
    """Everything an adapter's tensors depend on, and where they come from.

    Attributes:
        dept_vl_version: The package that wrote it.
        backbone: The frozen language model.
        max_source_length: s, in tokens.
        tuner: The tuner's settings, initialisation and scaling included.
        facts: What follows from them on this backbone (`Tuner.facts`): m and r of DePT, the places of LoRA, ...
        visual: None for an adapter that reads text alone.
        answer_cue: The last text before an answer.
        answer_form: How a decoder-only backbone was led to its answers; None for T5. A file that does not say is of
            the released form, which had no other beside it.
        system_prompt: What a vision-language backbone's system turn says; None for none.
        train_connector: Whether its connector was trained too, and is among the tensors.
        task: The name of what it was trained on, for people.
        declaration: What that task is declared by that is a file; None for a task of the package.
        tasks: Names of the tasks that were trained together, as `TunerContext.tasks` has them; empty for one.
        features: The fingerprint of the visual features it was trained on, or None.
        origin: None for an adapter trained by this package.
        format_version: Of this file.
    """

    dept_vl_version: str
    backbone: BackboneIdentity
    max_source_length: Annotated[int, Field(ge=1)]
    tuner: TunerConfig
    facts: dict[str, int | float | str] = Field(default_factory=dict)
    visual: VisualSettings | None = None
    answer_cue: str = ""
    answer_form: AnswerForm | None = None
    system_prompt: str | None = None
    train_connector: bool = False
    task: str | None = None
    declaration: TaskDeclaration | None = None
    tasks: tuple[str, ...] = ()
    features: dict[str, Any] | None = None
    origin: Origin | None = None
    format_version: Literal[2] = 2

    def resolve_task(self) -> Task | None:
        """Returns the task it was trained on; None where it names none that is known here."""
        if self.declaration is not None:
            return make_task(self.declaration)
        return get_task(self.task) if self.task in task_names() else None


_ADAPTER = TypeAdapter(AdapterConfig)


def save_adapter(folder: Path, tensors: Mapping[str, Tensor], config: AdapterConfig, card: str) -> None:
    """Writes an adapter; each file appears whole or not at all, and the folder is made if need be.

    Args:
        folder: Where to; an adapter already there is replaced.
        tensors: Trainable tensors by name.
        config: What they fit.
        card: The model card, Markdown.

    Raises:
        CheckpointError: A tensor holds a value that is not finite; nothing is written.
    """
    check_finite(tensors, "refusing to save the adapter")
    metadata, settings = _describe(config)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / CARD_FILE, card)
    save_tensors(folder / WEIGHTS_FILE, tensors, metadata)
    write_text(folder / ADAPTER_CONFIG_FILE, settings)


def encode_adapter(tensors: Mapping[str, Tensor], config: AdapterConfig) -> dict[str, bytes]:
    """Returns the content of an adapter's two files, by name, the weights first."""
    metadata, settings = _describe(config)
    weights = BytesIO()
    write_tensors(weights, tensors, metadata)
    return {WEIGHTS_FILE: weights.getvalue(), ADAPTER_CONFIG_FILE: settings.encode()}


def _describe(config: AdapterConfig) -> tuple[dict[str, str], str]:
    """Returns the metadata of an adapter's weights, and the content of its settings file."""
    described = _ADAPTER.dump_python(config, mode="json")
    for name in ("declaration", "tasks", "system_prompt", "train_connector"):
        if not described[name]:
            del described[name]  # earlier versions read the file too
    if config.backbone.image_weights_sha256 is None:
        del described["backbone"]["image_weights_sha256"]
    if config.visual is not None and config.visual.frozen_projection_sha256 is None:
        del described["visual"]["frozen_projection_sha256"]
    metadata = {"format": "pt", _HEADER_KEY: json.dumps(described, sort_keys=True)}
    return metadata, json.dumps(described, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def load_adapter(
    folder: Path, expect: Callable[[AdapterConfig], Mapping[str, Tensor]] | None = None
) -> tuple[dict[str, Tensor], AdapterConfig]:
    """Reads an adapter back, every tensor on the CPU.

    Args:
        folder: The adapter's.
        expect: From its settings to tensors (of any device, meta too) whose names, shapes and types the file's must
            have, which is checked before any value is read; what it raises is passed on. None takes what is there. A
            file with a projection of earlier versions is read as one of today (`earlier_projection`).

    Raises:
        CheckpointError: A file is missing, cut short, altered, of another version or with unknown settings; its tensors
            are not those expected; or one holds a value that is not finite.
    """
    require_adapter(folder)
    config, described = _read_config(folder)
    path = folder / WEIGHTS_FILE
    try:
        with utf8_name(path) as opened, safe_open(opened, framework="pt", device="cpu") as file:
            _check_same_save(path, file.metadata() or {}, described)
            names = list(file.keys())
            targets = None if expect is None else expect(config)
            if targets is not None:
                stored = as_stored(targets) if is_earlier(names) else targets
                _refuse([*_name_problems(stored, names), *_shape_problems(stored, file, names)], str(folder))
            tensors = {name: file.get_tensor(name) for name in names}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: damaged or not a safetensors file: {error}") from None
    check_finite(tensors, str(path))
    return as_now(tensors, targets) if targets is not None and is_earlier(names) else tensors, config


def read_adapter_config(folder: Path) -> AdapterConfig:
    """Reads ``adapter_config.json`` alone.

    Raises:
        CheckpointError: As `load_adapter`, for that file.
    """
    return _read_config(folder)[0]


def copy_tensors(targets: Mapping[str, Tensor], tensors: Mapping[str, Tensor], where: str) -> None:
    """Copies tensors into a model's; names, shapes and types must be the same, all of them.

    Args:
        targets: The model's trainable tensors.
        tensors: What is copied.
        where: Their file or folder, for the message.

    Raises:
        CheckpointError: Tensors are missing, not known, or of another shape or type; nothing is changed.
    """
    problems = _name_problems(targets, tensors)
    for name in sorted(targets.keys() & tensors.keys()):
        problems += _shape_problem(name, tensors[name].shape, tensors[name].dtype, targets[name])
    _refuse(problems, where)
    with torch.no_grad():
        for name, target in targets.items():
            target.copy_(tensors[name])


def _name_problems(targets: Mapping[str, Tensor], names: Iterable[str]) -> list[str]:
    given = set(names)
    lacking = [f"missing {name}" for name in sorted(targets.keys() - given)]
    return lacking + [f"unexpected {name}" for name in sorted(given - targets.keys())]


def _shape_problems(targets: Mapping[str, Tensor], file: Any, names: Iterable[str]) -> list[str]:
    """Compares shapes and types by the header alone."""
    problems = []
    for name in sorted(targets.keys() & set(names)):
        part = file.get_slice(name)
        code = part.get_dtype()
        problems += _shape_problem(name, part.get_shape(), CODES.get(code, code), targets[name])
    return problems


def _shape_problem(name: str, shape: Sequence[int], dtype: torch.dtype | str, target: Tensor) -> list[str]:
    if (tuple(shape), dtype) == (tuple(target.shape), target.dtype):
        return []
    return [f"{name} is {tuple(shape)} {dtype}, the model has {tuple(target.shape)} {target.dtype}"]


def _refuse(problems: Sequence[str], where: str) -> None:
    """Raises if there are problems; the first ones are named."""
    if problems:
        more = f"; ... ({len(problems):,} in all)" if len(problems) > _NAMED else ""
        raise CheckpointError(f"{where}: does not fit the model: {'; '.join(problems[:_NAMED])}{more}")


def _read_config(folder: Path) -> tuple[AdapterConfig, Any]:
    require_adapter(folder, [ADAPTER_CONFIG_FILE])
    path = folder / ADAPTER_CONFIG_FILE
    described = read_settings(folder)
    version = described.get("format_version") if isinstance(described, dict) else None
    if version not in (1, FORMAT_VERSION):
        raise CheckpointError(f"{path}: format_version is {version!r}, this package reads 1 and {FORMAT_VERSION}")
    now = _from_format_1(described) if version == 1 else described
    try:
        return _ADAPTER.validate_python(_with_row_alignment(now)), described
    except ValidationError as error:
        raise CheckpointError(f"{path}: {describe_invalid(error)}") from None


def _from_format_1(described: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings of an adapter of format 1 (DePT or prompt tuning) as those of this one."""
    facts = {name: described[key] for name, key in (("m", "num_virtual_tokens"), ("r", "rank")) if key in described}
    tuner = described.get("tuner")
    if isinstance(tuner, dict) and tuner.get("name") != "dept":
        facts.pop("r", None)
    kept = {key: value for key, value in described.items() if key not in ("num_virtual_tokens", "rank")}
    return {**kept, "facts": facts, "format_version": FORMAT_VERSION}


def _with_row_alignment(described: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns settings that say where DePT counts its rows from; files that do not are of a T5."""
    tuner = described.get("tuner")
    if not isinstance(tuner, dict) or tuner.get("name") != "dept" or tuner.get("row_alignment") is not None:
        return described
    return {**described, "tuner": {**tuner, "row_alignment": "first-token"}}


def _check_same_save(path: Path, header: Mapping[str, str], described: Any) -> None:
    """Refuses tensors and settings that were not written together."""
    try:
        inside = parse_json(header.get(_HEADER_KEY, "null"))
    except ValueError:
        inside = None
    if not isinstance(inside, dict):
        raise CheckpointError(f"{path}: was not written by dept-vl (its header has no {_HEADER_KEY})")
    keys = sorted(key for key in {*inside, *described} if inside.get(key) != described.get(key))
    if keys:
        differences = "; ".join(f"{key}: {inside.get(key)!r} and {described.get(key)!r}" for key in keys)
        raise CheckpointError(
            f"{path} and {ADAPTER_CONFIG_FILE} do not belong together (one was altered, or a save was cut off): "
            f"{differences}"
        )


def check_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    """Refuses tensors that hold a NaN or an infinite value.

    Raises:
        CheckpointError: Some do, or are of an 8-bit type, for which torch cannot tell; they are named after `where`.
    """
    narrow = [f"{name} ({tensor.dtype})" for name, tensor in tensors.items() if _is_narrow_float(tensor.dtype)]
    if narrow:
        raise CheckpointError(f"{where}: of a type that no trained tensor has: {', '.join(sorted(narrow))}")
    bad = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if bad:
        raise CheckpointError(f"{where}: not finite (NaN or infinite): {', '.join(sorted(bad))}")


def _is_narrow_float(dtype: torch.dtype) -> bool:
    return dtype.is_floating_point and dtype.itemsize < 2
