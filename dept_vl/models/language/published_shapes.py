"""The published shapes of T5 and GPT-2 checkpoints. No torch.

Counting parameters (``dept-vl info``), and knowing what methods have a place there, needs a model's shape and not its
weights. These are the numbers of the ``config.json`` files on
the hub, kept here so that the budget of a T5-base run can be printed on a machine that has never downloaded T5-base.
Nothing is ever trained or evaluated from this table: `dept_vl.models.language.load.load_backbone` reads the real files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_V1_0 = {  # d_model, d_kv, d_ff, num_layers, num_heads
    "small": (512, 64, 2048, 6, 8),
    "base": (768, 64, 3072, 12, 12),
    "large": (1024, 64, 4096, 24, 16),
    "3b": (1024, 128, 16384, 24, 32),
    "11b": (1024, 128, 65536, 24, 128),
}
_V1_1 = {
    "small": (512, 64, 1024, 8, 6),
    "base": (768, 64, 2048, 12, 12),
    "large": (1024, 64, 2816, 24, 16),
    "xl": (2048, 64, 5120, 24, 32),
    "xxl": (4096, 64, 10240, 24, 64),
}
_GPT2 = {  # n_embd, n_layer, n_head
    "gpt2": (768, 12, 12),
    "gpt2-medium": (1024, 24, 16),
    "gpt2-large": (1280, 36, 20),
    "gpt2-xl": (1600, 48, 25),
}


def published_config(name: str) -> PretrainedConfig | None:
    """Returns the configuration of a published checkpoint, as `published_settings` knows it, or None if unknown."""
    stored = published_settings(name)
    if stored is None:
        return None
    from transformers import CONFIG_MAPPING

    kind: type[PretrainedConfig] = CONFIG_MAPPING[stored["model_type"]]
    return kind.from_dict(stored)


def published_settings(name: str) -> dict[str, Any] | None:
    """Returns what the ``config.json`` of a published T5, T5 v1.1, Flan-T5 or GPT-2 says, or None if unknown.

    Args:
        name: Its hub id: ``"t5-base"``, ``"google-t5/t5-base"``, ``"google/t5-v1_1-base"``, ``"google/flan-t5-base"``,
            ``"gpt2"``, ``"openai-community/gpt2-medium"``, ...
    """
    return _published_gpt2(name) or _published_t5(name)


def _published_gpt2(name: str) -> dict[str, Any] | None:
    shape = _GPT2.get(name.removeprefix("openai-community/"))
    if shape is None:
        return None
    width, layers, heads = shape
    return {"model_type": "gpt2", "n_embd": width, "n_layer": layers, "n_head": heads, "n_positions": 1024}


def _published_t5(name: str) -> dict[str, Any] | None:
    short = name.removeprefix("google-t5/").removeprefix("google/")
    for prefix, shapes in (("t5-v1_1-", _V1_1), ("flan-t5-", _V1_1), ("t5-", _V1_0)):
        size = short.removeprefix(prefix)
        if short.startswith(prefix) and size in shapes:
            d_model, d_kv, d_ff, num_layers, num_heads = shapes[size]
            is_v1_0 = shapes is _V1_0
            return {
                "model_type": "t5",
                "vocab_size": 32128,
                "d_model": d_model,
                "d_kv": d_kv,
                "d_ff": d_ff,
                "num_layers": num_layers,
                "num_heads": num_heads,
                "feed_forward_proj": "relu" if is_v1_0 else "gated-gelu",
                "tie_word_embeddings": is_v1_0,
                "decoder_start_token_id": 0,
            }
    return None
