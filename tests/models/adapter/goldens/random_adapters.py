"""A small T5 and adapters made from seeds alone, shared by the released code's side and ours."""

from dataclasses import dataclass

import torch
from transformers import T5Config, T5ForConditionalGeneration

from dept_vl.models.language.t5 import T5Backbone
from tests.models.adapter.goldens.random_values import D_MODEL, NUM_HEADS, NUM_LAYERS, VOCAB_SIZE, draw, t5_values


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


def random_t5(case: Case, max_distance: int = 20) -> T5ForConditionalGeneration:
    """Returns the frozen backbone of a case, in eval mode; its relative positions reach `max_distance` tokens."""
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
            relative_attention_max_distance=max_distance,
            feed_forward_proj="gated-gelu" if case.is_gated else "relu",
            tie_word_embeddings=not case.is_gated,
            decoder_start_token_id=0,
        )
    )
    if case.is_gated:
        t5.lm_head.weight = torch.nn.Parameter(torch.empty(VOCAB_SIZE, D_MODEL))
    with torch.no_grad():
        for name, parameter in t5.named_parameters():
            parameter.copy_(t5_values(name, tuple(parameter.shape), case.seed))
    return t5.requires_grad_(False).eval()


def random_backbone(case: Case, max_distance: int = 20) -> T5Backbone:
    """Returns the same backbone as our assembly takes it."""
    t5 = random_t5(case, max_distance)
    return T5Backbone(t5, T5Backbone.special_tokens(t5.config, None), None)


def random_adapter(case: Case) -> dict[str, torch.Tensor]:
    """Returns an adapter by the names in the released files."""
    m, r, s = case.num_virtual_tokens, case.rank, case.max_source_length
    return {
        "prompt_embeddings": draw("prompt", (m, D_MODEL), case.seed, 1.0),
        "prompt_encoder.lora_embedding_A": draw("A", (s, r), case.seed, 0.5),
        "prompt_encoder.lora_embedding_B": draw("B", (r, D_MODEL), case.seed, 0.5),
    }
