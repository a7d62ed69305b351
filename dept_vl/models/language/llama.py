"""Llama. No torch."""

from __future__ import annotations

from dept_vl.models.language.decoder_family import DecoderFamily

LLAMA = DecoderFamily(
    model_class="LlamaForCausalLM",
    blocks="model.layers",
    norm="model.norm",
    parts={
        "self_attn.norm": "input_layernorm",
        "self_attn.q": "self_attn.q_proj",
        "self_attn.k": "self_attn.k_proj",
        "self_attn.v": "self_attn.v_proj",
        "self_attn.o": "self_attn.o_proj",
        "ff.norm": "post_attention_layernorm",
        "ff.gate": "mlp.gate_proj",
        "ff.in": "mlp.up_proj",
        "ff.out": "mlp.down_proj",
    },
    attention="self_attn",
    norm_epsilon="rms_norm_eps",
    dropout_fields=("attention_dropout",),
    has_plain_attention=True,
)
"""Llama 1 to 3 and what has its architecture (SmolLM2, ...)."""
