"""Which families of backbones there are, and what the settings of a stored model say of it. No torch."""

from __future__ import annotations

from typing import Any

from dept_vl.errors import ConfigError
from dept_vl.models.language.family import Family
from dept_vl.models.language.gemma import GEMMA, GEMMA2, GEMMA3_TEXT
from dept_vl.models.language.gemma_vision import GEMMA3, PALIGEMMA
from dept_vl.models.language.gpt2 import GPT2
from dept_vl.models.language.idefics3 import IDEFICS3, SMOLVLM
from dept_vl.models.language.llama import LLAMA
from dept_vl.models.language.llava import INTERNVL, LLAVA, LLAVA_ONEVISION
from dept_vl.models.language.mistral import MISTRAL
from dept_vl.models.language.published_shapes import published_settings
from dept_vl.models.language.qwen import QWEN2, QWEN3
from dept_vl.models.language.qwen_vl import QWEN2_5_VL, QWEN3_5, QWEN3_VL
from dept_vl.models.language.smollm3 import SMOLLM3
from dept_vl.models.language.stored import fetch_config, find_folder, read_config
from dept_vl.models.language.t5_family import T5

FAMILIES: dict[str, Family] = {
    "t5": T5,
    "gpt2": GPT2,
    "llama": LLAMA,
    "qwen2": QWEN2,
    "qwen3": QWEN3,
    "gemma": GEMMA,
    "gemma2": GEMMA2,
    "gemma3_text": GEMMA3_TEXT,
    "smollm3": SMOLLM3,
    "mistral": MISTRAL,
    "gemma3": GEMMA3,
    "idefics3": IDEFICS3,
    "internvl": INTERNVL,
    "llava": LLAVA,
    "llava_onevision": LLAVA_ONEVISION,
    "paligemma": PALIGEMMA,
    "qwen2_5_vl": QWEN2_5_VL,
    "qwen3_5": QWEN3_5,
    "qwen3_vl": QWEN3_VL,
    "smolvlm": SMOLVLM,
}
"""``model_type`` of a ``config.json`` -> the family. Nothing else is loaded."""


def find_family(model_type: str, name: str) -> Family:
    """Returns the family of a model.

    Args:
        model_type: As its ``config.json`` has it.
        name: The backbone's, for the message.

    Raises:
        ConfigError: There is none of that type.
    """
    if model_type not in FAMILIES:
        raise ConfigError(
            f"model.backbone: {name!r} is of type {model_type!r}, expected one of {', '.join(FAMILIES)} (T5 v1.1 and "
            "Flan-T5 are of type t5)"
        )
    return FAMILIES[model_type]


def stored_family(name: str, revision: str | None = None) -> tuple[Family, dict[str, Any]] | None:
    """Returns a backbone's family and the content of its ``config.json``; None where that is not on this machine.

    Args:
        name: Hub id, local folder, or ``"demo"`` for the T5 that ships with the package. A published name that was
            never downloaded has its published settings.
        revision: Hub revision; None for the newest.

    Raises:
        ConfigError: There is no such folder, its ``config.json`` cannot be read, or it is of no family that is known
            (`find_family`, `Family.check`).
    """
    folder = find_folder(name, revision)
    stored = published_settings(name) if folder is None else read_config(folder, name)
    if stored is None:
        return None
    family = find_family(str(stored.get("model_type")), name)
    family.check(stored, name)
    return family, stored


def fetched_family(name: str, revision: str | None = None) -> tuple[Family, dict[str, Any]]:
    """Returns what `stored_family` does; of a hub id that is not on this machine ``config.json`` is fetched first.

    Args:
        name: As `stored_family`.
        revision: As `stored_family`.

    Raises:
        ConfigError: As `stored_family`, or it cannot be fetched.
    """
    found = stored_family(name, revision)
    if found is None:
        fetch_config(name, revision)
        found = stored_family(name, revision)
    assert found is not None  # it was fetched
    return found
