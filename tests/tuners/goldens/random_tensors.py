"""The tensors of methods whose released code is run beside ours, made from seeds; no transformers, nothing of ours."""

import torch

from tests.models.adapter.goldens.random_values import D_MODEL, draw

SEED = 7
S = 12
"""Longest text, tokens: that of `random_values.TEXTS`."""
TASK_IDS = (0, 2, 1, 2)
"""A task for each text, of three."""

ATTEMPT = {"m": 4, "sources": 3, "width": 5, "temperature": 6.0, "tasks": 3}
ADEPT = {"m": 4, "r": 3}
ULPT = {"m": 4, "r": 2}
P_TUNING = {"m": 4, "h": 10}


def attempt_tensors(num_tasks: int) -> dict[str, torch.Tensor]:
    """Returns ATTEMPT's by our names."""
    m, width = ATTEMPT["m"], ATTEMPT["width"]
    return {
        "soft_prompts": draw("target", (num_tasks, m, D_MODEL), SEED, 1.0),
        "sources": draw("sources", (ATTEMPT["sources"], m, D_MODEL), SEED, 1.0),
        "attention_down.weight": draw("down", (width, D_MODEL), SEED, 0.5),
        "attention_up.weight": draw("up", (D_MODEL, width), SEED, 0.5),
        "attention_norm.weight": 1 + draw("norm", (D_MODEL,), SEED, 0.2),
        "attention_norm.bias": draw("norm bias", (D_MODEL,), SEED, 0.2),
    }


def adept_tensors() -> dict[str, torch.Tensor]:
    """Returns ADePT's by our names."""
    m, r = ADEPT["m"], ADEPT["r"]
    return {
        "soft_prompt": draw("prompt", (m, D_MODEL), SEED, 1.0),
        "offset_down": draw("down", (D_MODEL, r), SEED, 0.5),
        "offset_down_bias": draw("down bias", (r,), SEED, 0.3),
        "offset_up": draw("up", (r, D_MODEL), SEED, 0.5),
        "offset_up_bias": draw("up bias", (D_MODEL,), SEED, 0.3),
    }


def ulpt_tensors() -> dict[str, torch.Tensor]:
    """Returns ULPT's by our names."""
    m, r = ULPT["m"], ULPT["r"]
    return {
        "codes": draw("codes", (m, r), SEED, 1.0),
        "scale": 1 + draw("scale", (D_MODEL,), SEED, 0.3),
        "shift": draw("shift", (D_MODEL,), SEED, 0.3),
        "projection": draw("projection", (r, D_MODEL), SEED, 0.5),
    }


def p_tuning_tensors() -> dict[str, torch.Tensor]:
    """Returns P-tuning's by our names."""
    m, h = P_TUNING["m"], P_TUNING["h"]
    return {
        "embeddings": draw("embeddings", (m, D_MODEL), SEED, 1.0),
        "network_in.weight": draw("in", (h, D_MODEL), SEED, 0.3),
        "network_in.bias": draw("in bias", (h,), SEED, 0.3),
        "network_out.weight": draw("out", (D_MODEL, h), SEED, 0.3),
        "network_out.bias": draw("out bias", (D_MODEL,), SEED, 0.3),
    }
