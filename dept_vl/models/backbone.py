"""The frozen T5: where it comes from, and what tells it from another."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedTokenizerBase,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers.utils import logging as transformers_logging

from dept_vl.errors import ConfigError
from dept_vl.models.config import DEMO
from dept_vl.models.t5_shapes import published_config


def load_t5(
    name: str,
    revision: str | None = None,
    *,
    dropout_rate: float | None = None,
    gradient_checkpointing: bool = False,
    dtype: torch.dtype = torch.float32,
) -> tuple[T5ForConditionalGeneration, PreTrainedTokenizerBase]:
    """Loads T5, T5 v1.1 or Flan-T5 with its tokenizer, every weight frozen.

    Only safetensors weights are read, and no code from the checkpoint is run.

    Args:
        name: Hub id, local folder, or ``"demo"`` for the T5 that ships with the package.
        revision: Hub revision (branch, tag, commit); None for the newest.
        dropout_rate: Dropout while training; None for the checkpoint's own.
        gradient_checkpointing: Recompute activations in the backward pass.
        dtype: Precision of the frozen weights. Never float16: T5 overflows in it.

    Raises:
        ConfigError: No such checkpoint here and the hub cannot be reached, not a T5, no safetensors weights, or
            weights that do not fill the model.
    """
    source = _resolve(name)
    config = _read_config(name, revision)
    if dropout_rate is not None:
        config.dropout_rate = dropout_rate
    try:
        with _quiet_transformers():
            t5, report = cast(Any, T5ForConditionalGeneration).from_pretrained(
                source,
                config=config,
                revision=revision or "main",
                dtype=dtype,
                use_safetensors=True,
                output_loading_info=True,
            )
            tokenizer = AutoTokenizer.from_pretrained(source, revision=revision or "main", trust_remote_code=False)
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        raise ConfigError(_not_loaded(name, revision, error)) from error
    lacking = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
    if lacking:
        raise ConfigError(
            f"model.backbone: the weights of {name!r} do not fill the model its config.json describes; missing or of "
            f"another shape: {', '.join(lacking[:5])}{' ...' if len(lacking) > 5 else ''} ({len(lacking)} in all)"
        )
    return _freeze(t5, gradient_checkpointing=gradient_checkpointing), cast(PreTrainedTokenizerBase, tokenizer)


def t5_config(name: str, revision: str | None = None) -> T5Config:
    """Returns a backbone's shape without loading weights, for counting parameters.

    Published T5 names are answered from `dept_vl.models.t5_shapes`, so that no network is needed.

    Raises:
        ConfigError: As `load_t5`.
    """
    return published_config(name) or _read_config(name, revision)


def meta_t5(config: T5Config) -> T5ForConditionalGeneration:
    """Builds a T5 without storage, on the meta device: shapes and counts only."""
    with torch.device("meta"):
        t5 = T5ForConditionalGeneration(config)
        if not config.scale_decoder_outputs:
            # T5 v1.1 and Flan-T5 have an output matrix of their own; transformers ties it until weights say otherwise.
            t5.lm_head.weight = nn.Parameter(torch.empty_like(t5.lm_head.weight))
    return _freeze(t5, gradient_checkpointing=False)


def backbone_identity(t5: T5ForConditionalGeneration, name: str) -> dict[str, Any]:
    """Returns what an adapter records of its backbone; another backbone's differs in more than `name`.

    `weights_sha256` covers the word embeddings and the encoder's last norm rounded to bfloat16, so that float32 and
    bfloat16 copies of one checkpoint agree.

    Args:
        t5: The loaded backbone.
        name: As it was asked for; of a local folder only its last part is kept.
    """
    digest = hashlib.sha256()
    for tensor in (t5.shared.weight, t5.encoder.final_layer_norm.weight):
        digest.update(_bfloat16_bytes(tensor))
    return {
        "name": Path(name).name if Path(name).is_dir() else name,
        "d_model": t5.config.d_model,
        "num_layers": t5.config.num_layers,
        "num_decoder_layers": t5.config.num_decoder_layers,
        "vocab_size": t5.config.vocab_size,
        "weights_sha256": digest.hexdigest(),
    }


def _bfloat16_bytes(tensor: Tensor) -> bytes:
    rounded = tensor.detach().to("cpu", torch.bfloat16).contiguous()
    return rounded.view(torch.int16).numpy().astype("<i2", copy=False).tobytes()


def _resolve(name: str) -> str:
    """Returns the folder or hub id behind a backbone's name."""
    if name != DEMO:
        return name
    folder = resources.files("dept_vl").joinpath("assets", "demo", "t5")
    if not folder.is_dir():
        raise ConfigError(
            "model.backbone: the demo T5 is missing from this installation (dept_vl/assets/demo/t5); install the "
            "package again, or name a T5 such as t5-base"
        )
    return str(folder)


def _read_config(name: str, revision: str | None) -> T5Config:
    try:
        config = AutoConfig.from_pretrained(_resolve(name), revision=revision or "main", trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(_not_loaded(name, revision, error)) from error
    if not isinstance(config, T5Config) or config.model_type != "t5":
        raise ConfigError(
            f"model.backbone: {name!r} is of type {config.model_type!r}, expected a T5, T5 v1.1 or Flan-T5 checkpoint"
        )
    return config


def _not_loaded(name: str, revision: str | None, error: Exception) -> str:
    at = f" at revision {revision!r}" if revision else ""
    reason = str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
    return (
        f"model.backbone: cannot load {name!r}{at}: {reason}. Give a local folder with config.json, "
        "model.safetensors and tokenizer.json, or a hub id this machine can reach or has cached (HF_HUB_OFFLINE "
        f"must then be unset or the files downloaded before), or {DEMO!r} for the packaged one"
    )


def _freeze(t5: T5ForConditionalGeneration, *, gradient_checkpointing: bool) -> T5ForConditionalGeneration:
    t5.requires_grad_(False)
    t5.train(False)
    # The checkpoint's generation settings (a maximum length of 20, task prefixes) would override or warn about ours.
    t5.generation_config = generation_config(t5.config)
    if gradient_checkpointing:
        # transformers renamed the method after 5.17; the old name warns where the new one exists.
        old: Callable[..., None] = cast(Any, t5).gradient_checkpointing_enable
        getattr(t5, "activation_checkpointing_enable", old)({"use_reentrant": False})
    return t5


def generation_config(config: T5Config, **settings: Any) -> GenerationConfig:
    """Returns generation settings with the backbone's special tokens and nothing else of its own."""
    tokens = {name: getattr(config, name) for name in ("decoder_start_token_id", "eos_token_id", "pad_token_id")}
    return GenerationConfig.from_dict({**tokens, **settings})


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Silences loading bars and the warning that T5 v1.1 has an output matrix of its own; what matters is raised."""
    verbosity = transformers_logging.get_verbosity()
    had_bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.ERROR)
    cast(Any, transformers_logging).disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if had_bars:
            cast(Any, transformers_logging).enable_progress_bar()
