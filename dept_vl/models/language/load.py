"""Loads a frozen backbone: where it comes from, and what makes one fit."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

import torch
from transformers import (
    AutoConfig,
    AutoProcessor,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from dept_vl.errors import ConfigError, first_line
from dept_vl.models.config import ModelConfig, VisualPositionBias
from dept_vl.models.language.base import Backbone
from dept_vl.models.language.families import FAMILIES, find_family
from dept_vl.models.language.fit import check_tokenizer, tie_words
from dept_vl.models.language.published_shapes import published_config
from dept_vl.models.language.stored import (
    PROCESSOR_FILES,
    check_files,
    find_folder,
    not_loaded,
    read_config,
    resolve,
    tensor_names,
)
from dept_vl.models.language.vision_family import VisionLanguageFamily
from dept_vl.models.language.vision_language import VisionLanguageBackbone
from dept_vl.models.quiet_loading import quiet_transformers, weights_in_every_process
from dept_vl.system.extras import require_extra

LoadedBackbone = tuple[Backbone[Any], PreTrainedTokenizerBase]
"""A frozen backbone with its tokenizer."""


def open_backbone(model: ModelConfig) -> LoadedBackbone:
    """Loads the frozen backbone and its tokenizer.

    Raises:
        ConfigError: It cannot be loaded.
    """
    return load_backbone(**backbone_settings(model))


def backbone_settings(model: ModelConfig) -> dict[str, Any]:
    """Returns the settings of `load_backbone`: models for which they are equal have one frozen backbone."""
    return {
        "name": model.backbone,
        "revision": model.revision,
        "dropout_rate": model.dropout_rate,
        "gradient_checkpointing": model.gradient_checkpointing,
        "visual_position_bias": model.visual_position_bias,
        "dtype": getattr(torch, model.dtype),
    }


def load_backbone(
    name: str,
    revision: str | None = None,
    *,
    dropout_rate: float | None = None,
    gradient_checkpointing: bool = False,
    visual_position_bias: VisualPositionBias | None = None,
    dtype: torch.dtype = torch.float32,
) -> LoadedBackbone:
    """Loads a backbone of one of the families that there are with its tokenizer, every weight frozen.

    Only safetensors weights are read, and no code from the checkpoint is run.

    Args:
        name: Hub id, local folder, or ``"demo"`` for the T5 that ships with the package.
        revision: Hub revision (branch, tag, commit); None for the newest.
        dropout_rate: Dropout while training; None for the checkpoint's own.
        gradient_checkpointing: Recompute activations in the backward pass.
        visual_position_bias: T5's rule for visual tokens; None for the family's own.
        dtype: Precision of the frozen weights. Never float16: T5 overflows in it.

    Raises:
        ConfigError: No such checkpoint here and the hub cannot be reached, another architecture, no safetensors
            weights, weights that do not fill the model, a tokenizer that is missing or of another model, or a rule that
            the family does not have.
    """
    source = resolve(name, revision)
    config = _read_config(name, revision)
    check_files(name, revision)
    layout = find_family(config.model_type, name)
    family = layout.backbone_class
    if isinstance(layout, VisionLanguageFamily):
        layout.check_language_model(family.text_config(config).model_type, name)
    tokenizer = _load_tokenizer(name, source, revision)
    special_tokens = family.special_tokens(config, tokenizer)
    check_tokenizer(name, tokenizer, family.text_config(config))
    if dropout_rate is not None:
        for field in family.dropout_fields:
            setattr(family.text_config(config), field, dropout_rate)
    processor = None
    if isinstance(layout, VisionLanguageFamily):
        processor = _load_processor(name, source, revision, layout.extra)
    model = _load_model(name, source, revision, family, config, dtype)
    backbone = family(_freeze(model), special_tokens, visual_position_bias)
    if isinstance(backbone, VisionLanguageBackbone):
        backbone.processor = processor
    if gradient_checkpointing:
        backbone.recompute_activations()
    # The checkpoint's generation settings (a maximum length of 20, task prefixes) would override or warn about ours.
    model.generation_config = backbone.generation_config()
    return backbone, tokenizer


def _load_tokenizer(name: str, source: str, revision: str | None) -> PreTrainedTokenizerBase:
    try:
        with quiet_transformers():
            loaded = AutoTokenizer.from_pretrained(source, revision=revision or "main", trust_remote_code=False)
    except Exception as error:  # a damaged tokenizer makes the library raise errors of any type
        raise not_loaded(name, revision, error, "the tokenizer") from error
    return cast(PreTrainedTokenizerBase, loaded)


def _load_processor(name: str, source: str, revision: str | None, extra: str | None) -> Any:
    """Loads the processor of a vision-language model, which needs the packages of `extra`."""
    if extra is not None:
        require_extra(extra, f"model.backbone: the processor of {name!r}")
    try:
        with quiet_transformers():
            processor = AutoProcessor.from_pretrained(source, revision=revision or "main", trust_remote_code=False)
    except Exception as error:  # damaged settings make the library raise errors of any type
        raise ConfigError(
            f"model.backbone: cannot load the processor of {name!r}, which makes a vision-language model's images: "
            f"{first_line(error).partition('. ')[0].rstrip('.')}. Its folder needs {' or '.join(PROCESSOR_FILES)}"
        ) from error
    if getattr(processor, "image_processor", None) is None:
        raise ConfigError(
            f"model.backbone: the processor of {name!r} reads no images ({type(processor).__name__}); give a folder "
            f"with the settings of the processor that the model was trained with ({' or '.join(PROCESSOR_FILES)})"
        )
    return processor


def _load_model(
    name: str,
    source: str,
    revision: str | None,
    family: type[Backbone[Any]],
    config: PretrainedConfig,
    dtype: torch.dtype,
) -> PreTrainedModel:
    """Loads the weights, all of them, each where the file says it belongs."""
    try:
        with quiet_transformers(), weights_in_every_process():
            model, report = family.model_class.from_pretrained(
                source,
                config=config,
                revision=revision or "main",
                dtype=dtype,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # they are in the report, and refused below
                output_loading_info=True,
            )
        folder = find_folder(name, revision)
        assert folder is not None  # what was loaded lies in it
        names, settings = tensor_names(folder), read_config(folder, name)
    except ConfigError:
        raise
    except Exception as error:  # damaged files make the libraries raise errors of any type
        raise not_loaded(name, revision, error) from error
    mismatched = [
        f"{key} ({tuple(stored)}, expected {tuple(expected)})" for key, stored, expected in report["mismatched_keys"]
    ]
    if mismatched:
        raise ConfigError(
            f"model.backbone: the weights of {name!r} are not of the shape its config.json describes: "
            f"{', '.join(sorted(mismatched)[:3])} ({len(mismatched)} in all)"
        )
    tie_words(model, family, family.loaded_names(names, model, report["missing_keys"]), settings, name)
    tables = {*family.word_tables, "lm_head.weight"}  # `tie_words` has seen to those
    lacking = sorted(set(report["missing_keys"]) - tables)
    if lacking:
        raise ConfigError(
            f"model.backbone: the weights of {name!r} do not fill the model its config.json describes; missing: "
            f"{', '.join(lacking[:5])}{' ...' if len(lacking) > 5 else ''} ({len(lacking)} in all)"
        )
    return cast(PreTrainedModel, model)


def backbone_config(name: str, revision: str | None = None) -> PretrainedConfig:
    """Returns a backbone's shape without loading weights, for counting parameters.

    Published names are answered from `dept_vl.models.language.published_shapes`, so that no network is needed.

    Raises:
        ConfigError: As `load_backbone`.
    """
    return published_config(name) or _read_config(name, revision)


def meta_backbone(config: PretrainedConfig, *, visual_position_bias: VisualPositionBias | None = None) -> Backbone[Any]:
    """Builds a backbone without storage, on the meta device: shapes and counts only.

    Raises:
        ConfigError: A rule for visual tokens that the family does not have.
    """
    family = FAMILIES[config.model_type].backbone_class
    with torch.device("meta"):
        model = family.uninitialised(config)
    return family(_freeze(model), {}, visual_position_bias)


def _read_config(name: str, revision: str | None) -> PretrainedConfig:
    source = resolve(name, revision)
    if os.path.isdir(source):
        read_config(Path(source), name)
    try:
        config = AutoConfig.from_pretrained(source, revision=revision or "main", trust_remote_code=False)
    except Exception as error:  # settings of a wrong type make the library raise errors of its own
        raise not_loaded(name, revision, error) from error
    find_family(config.model_type, name).check(config.to_dict(), name)
    return cast(PretrainedConfig, config)


def _freeze(model: PreTrainedModel) -> PreTrainedModel:
    model.requires_grad_(False)
    model.train(False)
    return model
