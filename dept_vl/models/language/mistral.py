"""Mistral. No torch."""

from __future__ import annotations

from dataclasses import replace

from dept_vl.models.language.llama import LLAMA

MISTRAL = replace(LLAMA, model_class="MistralForCausalLM", window="every block")
"""Mistral 7B and what has its architecture."""
