"""Qwen's vision-language models. No torch."""

from __future__ import annotations

from dataclasses import replace

from dept_vl.models.language.vision_family import family_on_llama

QWEN3_VL = family_on_llama(
    "Qwen3VLForConditionalGeneration",
    connector=("model.visual.merger", "model.visual.deepstack_merger_list"),
    has_grid_positions=True,
)
"""Qwen3-VL, dense; its image encoder also adds to what the first blocks put out (deepstack)."""

QWEN2_5_VL = replace(QWEN3_VL, model_class="Qwen2_5_VLForConditionalGeneration")
"""Qwen2.5-VL."""

QWEN3_5 = replace(
    QWEN3_VL,
    model_class="Qwen3_5ForConditionalGeneration",
    linear_parts=("self_attn.norm", "ff.norm", "ff.gate", "ff.in", "ff.out"),
    has_one_pass_labels=False,
    has_plain_attention=False,
)
"""Qwen3.5, dense: three of four blocks have linear attention, whose state no mask of a tree can part,
and which padding between an image and a text would change: every row reads all of its own."""
