"""Idefics3, SmolVLM and SmolVLM2. No torch."""

from __future__ import annotations

from dataclasses import replace

from dept_vl.models.language.llama import LLAMA
from dept_vl.models.language.vision_family import VisionLanguageFamily

IDEFICS3 = VisionLanguageFamily(
    model_class="Idefics3ForConditionalGeneration",
    blocks="model.text_model.layers",
    norm="model.text_model.norm",
    parts=LLAMA.parts,
    attention="self_attn",
    norm_epsilon="rms_norm_eps",
    dropout_fields=("attention_dropout",),
    word_tables=("model.text_model.embed_tokens.weight",),
    connector=("model.connector",),
    is_connector_last=True,
    text_types={"llama": {}},
    has_plain_attention=True,
    image_dim=1,  # (1, tiles, 3, height, width)
)
"""Idefics3 and the first SmolVLM, which is one: an image is cut into tiles."""

SMOLVLM = replace(IDEFICS3, model_class="SmolVLMForConditionalGeneration", extra="smolvlm")
"""SmolVLM2."""
