"""SmolLM3. No torch."""

from __future__ import annotations

from dataclasses import replace

from dept_vl.models.language.llama import LLAMA

SMOLLM3 = replace(LLAMA, model_class="SmolLM3ForCausalLM", window="by layer")
"""SmolLM3; every fourth block has no rotary positions, by default (``no_rope_layers``)."""
