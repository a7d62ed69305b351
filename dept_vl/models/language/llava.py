"""LLaVA, LLaVA-OneVision and InternVL: an image encoder, a projection and a decoder of another family. No torch."""

from __future__ import annotations

from dataclasses import replace

from dept_vl.models.language.vision_family import family_on_llama

LLAVA = family_on_llama(
    "LlavaForConditionalGeneration",
    is_connector_last=True,
    text_types={"llama": {}, "mistral": {}, "qwen2": {}},
)
"""LLaVA 1.5."""

LLAVA_ONEVISION = replace(
    LLAVA,
    model_class="LlavaOnevisionForConditionalGeneration",
    text_types={"qwen2": {}, "qwen3": {}},
    connector=("model.multi_modal_projector", "model.image_newline"),
    is_connector_last=False,  # after it tiles are put together again, with tokens for the ends of lines
)
"""LLaVA-OneVision; each image of a row is cut into tiles as if it were alone."""

INTERNVL = replace(
    LLAVA, model_class="InternVLForConditionalGeneration", text_types={"qwen2": {}, "qwen3": {}, "llama": {}}
)
"""InternVL 3 and 3.5 in transformers' own format (``-hf``)."""
