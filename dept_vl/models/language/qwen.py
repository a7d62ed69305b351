"""Qwen2 and Qwen3. No torch."""

from __future__ import annotations

from dataclasses import replace

from dept_vl.models.language.llama import LLAMA

QWEN2 = replace(LLAMA, model_class="Qwen2ForCausalLM", window="by layer")
"""Qwen2 and Qwen2.5; q, k and v have biases."""

QWEN3 = replace(QWEN2, model_class="Qwen3ForCausalLM")
"""Qwen3; it norms the heads of queries and keys, which is inside its attention and no place for a method."""
