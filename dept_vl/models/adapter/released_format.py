"""Adapters on disk as the released DePT code writes them: ``adapter_config.json`` and a pickled ``adapter_model.bin``.

Newer PEFT writes the same tensors as ``adapter_model.safetensors``, which is read too.

Source: ``ZhengxiangShi/DePT`` at f0266a7: ``peft/utils/save_and_load.py`` (names),
``peft/tuners/prompt_tuning_lora.py`` (shapes, ``lora_alpha / sqrt(r)``) and ``peft/peft_model.py`` (row i of A B is
added to text token i). The pickle is read with torch's restricted unpickler, which calls nothing that the file names,
and may hold a flat dict of tensors alone.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass as plain_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from dept_vl.errors import CheckpointError, first_line
from dept_vl.models.adapter.files import AdapterConfig, Origin, check_finite
from dept_vl.models.adapter.presence import (
    ADAPTER_CONFIG_FILE,
    MAX_CONFIG_BYTES,
    describe_invalid,
    read_settings,
    require_released,
)
from dept_vl.models.adapter.presence import RELEASED_WEIGHTS_FILE as WEIGHTS_FILE
from dept_vl.strict import MAX_SIZE
from dept_vl.system.atomic import write_bytes, write_text
from dept_vl.system.bounded_reading import read_file
from dept_vl.tuners import DeptConfig, PromptTuningConfig

PROMPT, LOWRANK_A, LOWRANK_B = (
    "prompt_embeddings",
    "prompt_encoder.lora_embedding_A",
    "prompt_encoder.lora_embedding_B",
)
NAMES = {PROMPT: "tuner.soft_prompt", LOWRANK_A: "tuner.lowrank_a", LOWRANK_B: "tuner.lowrank_b"}
"""Tensor names in a released file -> ours."""

RELEASED_ALPHA = 8
"""The ``lora_alpha`` of every published adapter; no flag of the released code changes it."""

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True, config=ConfigDict(extra="ignore"))
class ReleasedConfig:
    """The settings of a released adapter that its numbers depend on; the rest of the file is not read.

    Attributes:
        peft_type: DePT, or prompt tuning as trained by the same code.
        task_type: T5. Rows of A are counted from the first text token.
        num_virtual_tokens: m.
        token_dim: d_model.
        num_transformer_submodules: 1: the prompt goes to the encoder alone.
        r: Rank; unused by prompt tuning.
        lora_alpha: A B is scaled by ``lora_alpha / sqrt(r)``.
        max_length: s, in tokens.
        prompt_tuning_init: How the prompt started.
        prompt_tuning_init_text: The text it started from.
        num_layers: Encoder layers of the backbone.
        base_model_name_or_path: The backbone, for people.
    """

    peft_type: Literal["PROMPT_TUNING_LORA", "PROMPT_TUNING"]
    task_type: Literal["SEQ_2_SEQ_LM"]
    num_virtual_tokens: Annotated[int, Field(ge=0, le=MAX_SIZE)]
    token_dim: Annotated[int, Field(ge=1, le=MAX_SIZE)]
    num_transformer_submodules: Literal[1]
    r: Annotated[int | None, Field(ge=0, le=MAX_SIZE)] = None
    lora_alpha: Annotated[float, Field(gt=0, allow_inf_nan=False)] = RELEASED_ALPHA
    max_length: Annotated[int | None, Field(ge=1, le=MAX_SIZE)] = None
    prompt_tuning_init: Literal["TEXT", "RANDOM"] = "RANDOM"
    prompt_tuning_init_text: str | None = None
    num_layers: int | None = None
    base_model_name_or_path: str | None = None

    @model_validator(mode="after")
    def _check_lengths(self) -> ReleasedConfig:
        if self.has_lowrank and (self.r is None or self.max_length is None):
            raise ValueError("PROMPT_TUNING_LORA needs r and max_length")
        return self

    @property
    def has_lowrank(self) -> bool:
        """Whether the method has a low-rank pair."""
        return self.peft_type == "PROMPT_TUNING_LORA"

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Returns the shape of every tensor the settings announce, by its released name."""
        shapes: dict[str, tuple[int, ...]] = {PROMPT: (self.num_virtual_tokens, self.token_dim)}
        if self.has_lowrank:
            assert self.r is not None  # _check_lengths
            assert self.max_length is not None
            shapes[LOWRANK_A] = (self.max_length, self.r)
            shapes[LOWRANK_B] = (self.r, self.token_dim)
        return shapes


@plain_dataclass(frozen=True)
class ReleasedAdapter:
    """A released adapter in memory.

    Attributes:
        config: Its settings.
        tensors: Float32 on the CPU, by our names.
        origin: What our own file will say of it.
    """

    config: ReleasedConfig
    tensors: dict[str, Tensor]
    origin: Origin

    def tuner_settings(self) -> dict[str, Any]:
        """Returns the settings of the same tuner here, m and r as they are whatever the budget."""
        config = self.config
        settings: dict[str, Any] = {"num_virtual_tokens": config.num_virtual_tokens}
        if config.prompt_tuning_init == "TEXT":
            settings |= {"prompt_init": "text", "prompt_init_text": config.prompt_tuning_init_text}
        else:  # nn.Embedding's own start
            settings |= {"prompt_init": "random", "prompt_init_distribution": "normal", "prompt_init_scale": 1.0}
        if self.origin.lowrank != "imported":
            return {"name": "prompt-tuning", **settings}
        settings |= {"rank": config.r, "allow_nearest": True, "lowrank_init": "kaiming-uniform"}
        settings["row_alignment"] = "first-token"  # of a T5; there is no other
        return {"name": "dept", **settings, "scaling": "alpha/sqrt(r)", "alpha": config.lora_alpha}


def read_released(folder: Path, *, prompt_only: bool = False) -> ReleasedAdapter:
    """Reads an adapter of the released code; nothing in the file is executed.

    Args:
        folder: Holds ``adapter_config.json`` and ``adapter_model.bin`` or ``adapter_model.safetensors``.
        prompt_only: Take the soft prompt and leave the low-rank pair, which may be missing.

    Raises:
        CheckpointError: A file is missing or damaged, the weights are anything but a flat dict of the tensors that the
            settings announce, or shapes disagree with the settings (both are named).
    """
    path = require_released(folder)
    config = _read_config(folder)
    content = _read_weights(path, config)
    tensors = _unpickle(path, content) if path.name == WEIGHTS_FILE else _read_safetensors(path, content)
    lowrank = _check_tensors(path, tensors, config, prompt_only=prompt_only)
    kept = {name: tensors[name] for name in NAMES if name in tensors and (name == PROMPT or lowrank == "imported")}
    check_finite(kept, str(path))
    ours = {NAMES[name]: tensor.detach().float() for name, tensor in kept.items() if tensor.numel()}
    return ReleasedAdapter(config, ours, Origin("released-dept", hashlib.sha256(content).hexdigest(), lowrank))


def write_released(folder: Path, tensors: Mapping[str, Tensor], saved: AdapterConfig) -> None:
    """Writes one of our adapters as the released code reads it.

    The released code always multiplies A B by ``lora_alpha / sqrt(r)``; with ``scaling="one"`` here, B is written
    times ``sqrt(r) / 8``, so that the update is the same.

    Args:
        folder: Where to; made if need be.
        tensors: By our names.
        saved: Their settings.

    Raises:
        CheckpointError: The adapter has what the released code cannot represent.
    """
    tuner = _check_representable(tensors, saved)
    s, d = saved.max_source_length, saved.backbone.d_model
    prompt = tensors.get(NAMES[PROMPT], torch.zeros(0, d))
    content = {PROMPT: prompt}
    alpha: float = RELEASED_ALPHA
    r = 0
    if isinstance(tuner, DeptConfig) and NAMES[LOWRANK_A] in tensors:
        r = tensors[NAMES[LOWRANK_A]].shape[1]
        alpha = tuner.alpha if tuner.scaling == "alpha/sqrt(r)" else alpha
        factor = tuner.scaling_factor(r) / (alpha / math.sqrt(r))
        content[LOWRANK_A] = tensors[NAMES[LOWRANK_A]]
        content[LOWRANK_B] = (tensors[NAMES[LOWRANK_B]].double() * factor).float()
    has_text = tuner.prompt_init == "text"
    described = {
        "base_model_name_or_path": saved.backbone.name,
        "bias": "none",
        "hidden_size": d,
        "inference_mode": True,
        "lora_alpha": int(alpha) if float(alpha).is_integer() else alpha,
        "max_length": s,
        "num_layers": saved.backbone.num_layers,
        "num_transformer_submodules": 1,
        "num_virtual_tokens": prompt.shape[0],
        "peft_type": "PROMPT_TUNING_LORA" if LOWRANK_A in content else "PROMPT_TUNING",
        "prompt_tuning_init": "TEXT" if has_text else "RANDOM",
        "prompt_tuning_init_text": tuner.prompt_init_text if has_text else None,
        "r": r,
        "task_type": "SEQ_2_SEQ_LM",
        "token_dim": d,
        "tokenizer_name_or_path": saved.backbone.name,
    }
    buffer = io.BytesIO()
    torch.save({name: tensor.detach().cpu().contiguous() for name, tensor in content.items()}, buffer)
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / WEIGHTS_FILE, buffer.getvalue())
    write_text(folder / ADAPTER_CONFIG_FILE, json.dumps(described, indent=2, sort_keys=True) + "\n")


def _check_representable(tensors: Mapping[str, Tensor], saved: AdapterConfig) -> DeptConfig | PromptTuningConfig:
    """Returns the tuner's settings of an adapter that the released code computes alike.

    Raises:
        CheckpointError: It is of another method, reads images, is not of a T5, ends texts with a cue, counts rows of A
            from the last token, or has tensors the released code knows nothing of.
    """
    tuner = saved.tuner
    if not isinstance(tuner, DeptConfig | PromptTuningConfig):
        raise CheckpointError(
            f"the released code knows 'dept' and 'prompt-tuning', and the adapter is of {tuner.name!r}"
        )
    if saved.visual is not None:
        raise CheckpointError(
            f"the adapter reads images through a {saved.visual.projection!r} visual projection; the released code "
            "reads text alone and cannot represent it"
        )
    if saved.backbone.family != "t5":
        raise CheckpointError(
            f"the adapter is of a {saved.backbone.family!r} backbone; only T5 adapters are exported, the released code "
            "trains decoder-only models with the label tokens among the rows of A"
        )
    if saved.answer_cue:
        raise CheckpointError(f"its texts end with the answer cue {saved.answer_cue!r}, which the files cannot hold")
    if isinstance(tuner, DeptConfig) and tuner.row_alignment != "first-token":
        raise CheckpointError(
            f"tuner.row_alignment is {tuner.row_alignment!r}; the released code counts rows from the first text "
            "token of a T5"
        )
    if isinstance(tuner, DeptConfig) and tuner.lowrank_rows is not None:
        raise CheckpointError(
            f"tuner.lowrank_rows is {tuner.lowrank_rows}; the released code has a row of A for every place"
        )
    unknown = sorted(set(tensors) - set(NAMES.values()))
    if unknown:
        raise CheckpointError(f"the released code has no place for the tensors {', '.join(unknown)}")
    return tuner


def _read_config(folder: Path) -> ReleasedConfig:
    path = folder / ADAPTER_CONFIG_FILE
    described = read_settings(folder)
    if isinstance(described, dict) and "dept_vl_version" in described:
        raise CheckpointError(
            f"{folder}: an adapter of this package, which needs no import: give it to eval --checkpoint or --init-from"
        )
    try:
        return TypeAdapter(ReleasedConfig).validate_python(described)
    except ValidationError as error:
        raise CheckpointError(f"{path}: not a released T5 adapter: {describe_invalid(error)}") from None


def _read_weights(path: Path, config: ReleasedConfig) -> bytes:
    """Returns the bytes of a weights file, once it is clear that it unpacks to no more than its settings announce.

    Raises:
        CheckpointError: It is larger, packed or unpacked.
    """
    numbers = sum(math.prod(shape) for shape in config.shapes().values())
    limit = 8 * numbers + MAX_CONFIG_BYTES  # twice float32, and what a pickle says around it
    try:
        content = read_file(path, limit)
        unpacked = sum(record.file_size for record in zipfile.ZipFile(io.BytesIO(content)).infolist())
    except zipfile.BadZipFile:  # the older format of torch.save, or damaged: torch says which
        return content
    except OSError as error:
        raise CheckpointError(
            f"{path}: {error.strerror or error}; {ADAPTER_CONFIG_FILE} announces {numbers:,} numbers"
        ) from None
    except Exception as error:  # a damaged zip directory makes zipfile raise errors of several types
        raise CheckpointError(f"{path}: damaged ({type(error).__name__}: {error}); fetch it again") from None
    if unpacked > limit:
        raise CheckpointError(
            f"{path}: unpacks to {unpacked:,} bytes, {ADAPTER_CONFIG_FILE} announces {numbers:,} numbers; refused"
        )
    return content


def _unpickle(path: Path, content: bytes) -> dict[str, Tensor]:
    """Returns the dict of tensors in a pickle, or refuses it.

    Raises:
        CheckpointError: It names anything but tensors, is damaged, or holds another structure.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about opcodes of a damaged file; what matters is raised
            loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or hostile pickle makes the restricted unpickler raise errors of any type
        raise CheckpointError(
            f"{path}: refused, nothing in it was executed: damaged, or it holds more than tensors "
            f"({first_line(error)[:200]})"
        ) from None
    if not isinstance(loaded, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in loaded.items()
    ):
        raise CheckpointError(f"{path}: refused: expected a flat dict of tensors by name, got {_structure(loaded)}")
    return loaded


def _read_safetensors(path: Path, content: bytes) -> dict[str, Tensor]:
    """Returns the tensors of a safetensors file.

    Raises:
        CheckpointError: It is damaged.
    """
    try:
        return load(content)
    except (SafetensorError, ValueError, KeyError) as error:  # a type that torch has none of is a KeyError
        raise CheckpointError(f"{path}: damaged or not a safetensors file: {error}") from None


def _structure(loaded: object) -> str:
    if not isinstance(loaded, dict):
        return type(loaded).__name__
    return "a dict of " + ", ".join(f"{name!r}: {type(value).__name__}" for name, value in list(loaded.items())[:5])


def _check_tensors(
    path: Path, tensors: Mapping[str, Tensor], config: ReleasedConfig, *, prompt_only: bool
) -> Literal["imported", "left out", "not released", "none"]:
    """Compares tensors with the settings; returns what becomes of the low-rank pair.

    Raises:
        CheckpointError: Tensors are missing, not known, or of another shape or type.
    """
    shapes = config.shapes()
    missing = sorted(shapes.keys() - tensors.keys())
    is_bare = config.has_lowrank and missing == sorted((LOWRANK_A, LOWRANK_B))
    if is_bare and not prompt_only:
        raise CheckpointError(
            f"{path}: holds only {PROMPT}, {ADAPTER_CONFIG_FILE} says {config.peft_type} with r={config.r}: "
            f"{LOWRANK_A} {shapes[LOWRANK_A]} and {LOWRANK_B} {shapes[LOWRANK_B]} were not released; --prompt-only "
            "imports the soft prompt alone, which is not the model the authors measured"
        )
    problems = [] if is_bare else [f"missing {name}" for name in missing]
    problems += [f"unexpected {name}" for name in sorted(tensors.keys() - shapes.keys())]
    for name in sorted(shapes.keys() & tensors.keys()):
        tensor = tensors[name]
        if tuple(tensor.shape) != shapes[name]:
            problems.append(
                f"{name} is {tuple(tensor.shape)}, {ADAPTER_CONFIG_FILE} says {shapes[name]} ({_SIZES[name]})"
            )
        elif tensor.dtype not in _DTYPES or tensor.layout != torch.strided or tensor.device.type != "cpu":
            found = f"{tensor.dtype} {tensor.layout} {tensor.device}"
            problems.append(f"{name} is {found}, expected dense float32, bfloat16 or float16 with its values")
    if problems:
        raise CheckpointError(f"{path}: does not agree with {ADAPTER_CONFIG_FILE}: {'; '.join(problems)}")
    if not config.has_lowrank:
        if prompt_only:
            raise CheckpointError(f"{path}: is prompt tuning and has no low-rank pair; import it without --prompt-only")
        return "none"
    if prompt_only:
        return "not released" if is_bare else "left out"
    return "imported"


_SIZES = {PROMPT: "num_virtual_tokens, token_dim", LOWRANK_A: "max_length, r", LOWRANK_B: "r, token_dim"}
