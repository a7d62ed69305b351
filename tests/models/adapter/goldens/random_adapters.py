"""A small T5, adapters and texts made from seeds alone, shared by the released code's side and ours.

Every value is drawn by NumPy from (seed, tensor name), so that neither torch's generator nor the first values that a
release of transformers gives matter.
"""

import zlib
from dataclasses import dataclass

import numpy as np
import torch
from transformers import T5Config, T5ForConditionalGeneration

from dept_vl.models.language.t5 import T5Backbone

D_MODEL, VOCAB_SIZE, NUM_LAYERS, NUM_HEADS = 16, 32, 2, 2
TEXTS = ((5, 9, 1), (7, 3, 11, 20, 8, 1), (2, 30, 4, 6, 12, 13, 14, 15, 16, 17, 18, 1), (1,))
"""Token ids of 3, 6, 12 and 1 tokens; the third is as long as the adapters' s."""
LABELS = ((10, 1, -100, -100), (21, 22, 23, 1), (6, 1, -100, -100), (9, 8, 1, -100))
MAX_NEW_TOKENS = 6


@dataclass(frozen=True)
class Case:
    """One model and adapter: m, r, s and whether T5 is of version 1.1."""

    name: str
    num_virtual_tokens: int
    rank: int
    max_source_length: int
    seed: int
    is_gated: bool = False


CASES = (
    Case("t5-v1.0", num_virtual_tokens=5, rank=4, max_source_length=12, seed=1),
    Case("t5-v1.1", num_virtual_tokens=3, rank=3, max_source_length=14, seed=2, is_gated=True),
)


def draw(name: str, shape: tuple[int, ...], seed: int, scale: float) -> torch.Tensor:
    """Returns normal values that depend on name, shape, seed and scale."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    return torch.from_numpy((rng.standard_normal(shape) * scale).astype(np.float32))


def random_t5(case: Case) -> T5ForConditionalGeneration:
    """Returns the frozen backbone of a case, in eval mode."""
    t5 = T5ForConditionalGeneration(
        T5Config(
            vocab_size=VOCAB_SIZE,
            d_model=D_MODEL,
            d_kv=8,
            d_ff=24,
            num_layers=NUM_LAYERS,
            num_decoder_layers=NUM_LAYERS,
            num_heads=NUM_HEADS,
            relative_attention_num_buckets=8,
            relative_attention_max_distance=20,
            feed_forward_proj="gated-gelu" if case.is_gated else "relu",
            tie_word_embeddings=not case.is_gated,
            decoder_start_token_id=0,
        )
    )
    if case.is_gated:
        t5.lm_head.weight = torch.nn.Parameter(torch.empty(VOCAB_SIZE, D_MODEL))
    with torch.no_grad():
        for name, parameter in t5.named_parameters():
            is_norm = name.endswith("layer_norm.weight")
            is_bias = name.endswith("relative_attention_bias.weight")
            values = draw(name, tuple(parameter.shape), case.seed, 0.1 if is_norm else 1.5 if is_bias else 0.4)
            parameter.copy_(values + 1 if is_norm else values)
    return t5.requires_grad_(False).eval()


def random_backbone(case: Case) -> T5Backbone:
    """Returns the same backbone as our assembly takes it."""
    t5 = random_t5(case)
    return T5Backbone(t5, T5Backbone.special_tokens(t5.config, None), None)


def random_adapter(case: Case) -> dict[str, torch.Tensor]:
    """Returns an adapter by the names in the released files."""
    m, r, s = case.num_virtual_tokens, case.rank, case.max_source_length
    return {
        "prompt_embeddings": draw("prompt", (m, D_MODEL), case.seed, 1.0),
        "prompt_encoder.lora_embedding_A": draw("A", (s, r), case.seed, 0.5),
        "prompt_encoder.lora_embedding_B": draw("B", (r, D_MODEL), case.seed, 0.5),
    }


def padded(rows: tuple[tuple[int, ...], ...], length: int, value: int = 0) -> torch.Tensor:
    """Pads rows of token ids on the right, (rows, length)."""
    return torch.tensor([[*row, *[value] * (length - len(row))] for row in rows])
