"""GPT-2. No torch."""

from __future__ import annotations

from dept_vl.models.language.decoder_family import DecoderFamily

GPT2 = DecoderFamily(
    model_class="GPT2LMHeadModel",
    blocks="transformer.h",
    norm="transformer.ln_f",
    parts={
        "self_attn.norm": "ln_1",
        "self_attn.q": ("attn.c_attn", 0, 3),
        "self_attn.k": ("attn.c_attn", 1, 3),
        "self_attn.v": ("attn.c_attn", 2, 3),
        "self_attn.o": "attn.c_proj",
        "ff.norm": "ln_2",
        "ff.in": "mlp.c_fc",
        "ff.out": "mlp.c_proj",
    },
    attention="attn",
    norm_epsilon="layer_norm_epsilon",
    dropout_fields=("resid_pdrop", "embd_pdrop", "attn_pdrop"),
    width_field="n_embd",
    depth_field="n_layer",
    positions_field="n_positions",
    word_tables=("transformer.wte.weight",),
    has_plain_attention=True,
)
"""GPT-2; one module makes q, k and v."""
