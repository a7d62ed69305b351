"""Idefics3, SmolVLM and SmolVLM2. No torch."""

from __future__ import annotations

from dataclasses import replace

from dept_vl.models.language.vision_family import family_on_llama

IDEFICS3 = family_on_llama(
    "Idefics3ForConditionalGeneration",
    "model.text_model",
    connector=("model.connector",),
    is_connector_last=True,
    text_types={"llama": {}},
    image_dim=1,  # (1, tiles, 3, height, width)
)
"""Idefics3 and the first SmolVLM, which is one: an image is cut into tiles."""

SMOLVLM = replace(IDEFICS3, model_class="SmolVLMForConditionalGeneration", extra="smolvlm")
"""SmolVLM2."""
