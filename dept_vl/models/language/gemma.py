"""Gemma 1 to 3, the models of text. No torch."""

from __future__ import annotations

from dataclasses import replace

from dept_vl.models.language.llama import LLAMA

GEMMA = replace(LLAMA, model_class="GemmaForCausalLM")
"""Gemma; the module of its word embeddings multiplies them by sqrt(d_model), its norms by 1 + weight."""

GEMMA2 = replace(
    GEMMA,
    model_class="Gemma2ForCausalLM",
    parts={**LLAMA.parts, "ff.norm": "pre_feedforward_layernorm"},
    window="by layer",
    score_cap="attn_logit_softcapping",
    logit_cap="final_logit_softcapping",
)
"""Gemma 2; it norms what a sublayer puts out as well, after the places ``self_attn.o`` and ``ff.out``."""

GEMMA3_TEXT = replace(GEMMA2, model_class="Gemma3ForCausalLM", score_cap=None)
"""Gemma 3 of 270M and 1B; the larger ones read images too, and are of another type."""
