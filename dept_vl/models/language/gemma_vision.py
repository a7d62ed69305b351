"""Gemma 3 and PaliGemma, whose images are read both ways. No torch."""

from __future__ import annotations

from dataclasses import replace

from dept_vl.data.image_template import Template
from dept_vl.models.language.llama import LLAMA
from dept_vl.models.language.vision_family import family_on_llama

GEMMA3 = family_on_llama(
    "Gemma3ForConditionalGeneration",
    parts={**LLAMA.parts, "ff.norm": "pre_feedforward_layernorm"},
    is_connector_last=True,
    token_types="image",
    has_one_pass_labels=False,
)
"""Gemma 3 with images (4B and larger); the places of an image see each other."""

PALIGEMMA = replace(
    GEMMA3,
    model_class="PaliGemmaForConditionalGeneration",
    parts=LLAMA.parts,
    text_types={"gemma": {}, "gemma2": {"ff.norm": "pre_feedforward_layernorm"}},
    token_types="target",
    has_plain_attention=False,
    score_cap="attn_logit_softcapping",
    own_template=Template(head="", image="<image>", between="<bos>", text_head="<bos>", tail="\n"),
)
"""PaliGemma 1 and 2; the whole source sees itself, so nothing in it is before anything else."""
