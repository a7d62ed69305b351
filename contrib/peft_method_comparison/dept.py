"""DePT (Shi & Lipani 2024) for PEFT's method comparison: a causal model that reads [P; E(x) + A B].

It needs torch, transformers and peft alone, and stands beside ``run.py`` of ``method_comparison/MetaMathQA``. README.md
says which four places there call it.

Notation: P soft prompt (m, d); A (s, r) and B (r, d) the low-rank pair; token i of a text, counted over its own tokens,
has row i of A B added to its embedding, generated tokens too, and those behind the s-th have none.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from peft import PeftConfig
from peft.config import PromptLearningConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedModel

IGNORE_INDEX = -100


@dataclass
class DeptConfig(PromptLearningConfig):
    """What ``adapter_config.json`` says; `register` lets PEFT read it.

    Attributes:
        rank: r.
        max_length: s, in tokens.
        lowrank_init_std: Standard deviation of A's first values; B starts at zero.
    """

    rank: int = field(default=8)
    max_length: int = field(default=768)
    lowrank_init_std: float = field(default=0.1)

    def __post_init__(self) -> None:
        """Names the method, which PEFT's enumeration does not have yet."""
        super().__post_init__()
        self.peft_type = "DEPT"  # type: ignore[assignment]

    @property
    def num_parameters(self) -> int:
        """Trained numbers, m d + (s + d) r."""
        assert self.num_virtual_tokens is not None
        assert self.token_dim is not None
        return self.num_virtual_tokens * self.token_dim + (self.max_length + self.token_dim) * self.rank


def register() -> None:
    """Lets ``PeftConfig.from_pretrained`` read an experiment of this method."""
    PEFT_TYPE_TO_CONFIG_MAPPING["DEPT"] = DeptConfig  # type: ignore[index]


class DeptModel(nn.Module):
    """A frozen causal model with a prompt and an update, called as the benchmark calls a PEFT model.

    Padding may be on either side. Its numbers are float32, whatever the model's are.

    Attributes:
        base_model: Frozen.
        peft_config: The configuration by adapter name; the benchmark looks whether there is one.
    """

    def __init__(self, base_model: PreTrainedModel, config: DeptConfig) -> None:
        """Starts P as random words of the model's vocabulary, A as drawn numbers and B at zero."""
        super().__init__()
        self.base_model = base_model.requires_grad_(False)
        self.config = base_model.config
        self.peft_config: dict[str, PeftConfig] = {"default": config}
        table = base_model.get_input_embeddings().weight
        assert config.num_virtual_tokens is not None
        words = torch.randint(len(table), (config.num_virtual_tokens,), device=table.device)
        drawn = torch.randn(config.max_length, config.rank, device=table.device)
        self.soft_prompt = nn.Parameter(table[words].detach().float().clone())
        self.lowrank_a = nn.Parameter(drawn * config.lowrank_init_std)
        self.lowrank_b = nn.Parameter(torch.zeros(config.rank, table.shape[1], device=table.device))
        self._is_disabled = False

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.base_model.device

    def get_nb_trainable_parameters(self) -> tuple[int, int]:
        """Returns how many numbers are trained, and how many there are."""
        own = sum(tensor.numel() for tensor in self._own().values())
        return own, own + sum(tensor.numel() for tensor in self.base_model.parameters())

    @contextmanager
    def disable_adapter(self) -> Iterator[None]:
        """Lets the base model answer alone for the block."""
        self._is_disabled = True
        try:
            yield
        finally:
            self._is_disabled = False

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None, **options: Any) -> Any:
        """Runs the model; its logits have m places before those of the text.

        Args:
            input_ids: (batch, text).
            attention_mask: (batch, text), 1 for text.
            labels: (batch, text), shifted by transformers.
            options: For the model.
        """
        if self._is_disabled:
            return self.base_model(input_ids=input_ids, attention_mask=attention_mask, labels=labels, **options)
        embeds, mask = self._joined(input_ids, attention_mask)
        if labels is not None:
            m = len(self.soft_prompt)
            labels = torch.cat([labels.new_full((len(labels), m), IGNORE_INDEX), labels], dim=1)
        return self.base_model(
            inputs_embeds=embeds, attention_mask=mask, position_ids=_positions(mask), labels=labels, **options
        )

    @torch.no_grad()
    def generate(
        self, input_ids: Tensor, attention_mask: Tensor, generation_config: GenerationConfig, **options: Any
    ) -> Tensor:
        """Returns the text with what the model writes after it, (batch, text + new), as PEFT's models do.

        Args:
            input_ids: (batch, text), padded on the left.
            attention_mask: (batch, text).
            generation_config: Of one beam; ``max_length`` counts the text without the prompt.
            options: For the model.

        Raises:
            ValueError: It asks for beams, which change the order of rows under way.
        """
        if (generation_config.num_beams or 1) > 1:
            raise ValueError(f"num_beams: DePT generates with one beam here, got {generation_config.num_beams}")
        settings = generation_config.to_dict()
        if settings.get("max_new_tokens") is None and settings.get("max_length") is not None:
            settings["max_new_tokens"] = max(1, settings["max_length"] - input_ids.shape[1])
        settings.pop("max_length", None)
        embeds, mask = self._joined(input_ids, attention_mask)
        with self._updating_new_tokens(attention_mask.sum(dim=1)):
            new = self.base_model.generate(
                inputs_embeds=embeds, attention_mask=mask, position_ids=_positions(mask),
                generation_config=GenerationConfig.from_dict(settings), **options,
            )  # fmt: skip
        return torch.cat([input_ids, new], dim=1)

    def save_pretrained(self, folder: str, **_options: Any) -> None:
        """Writes P, A and B under the name that PEFT's checkpoints have, and the configuration."""
        os.makedirs(folder, exist_ok=True)
        own = {name: tensor.detach().cpu().contiguous() for name, tensor in self._own().items()}
        save_file(own, os.path.join(folder, SAFETENSORS_WEIGHTS_NAME))
        self.peft_config["default"].save_pretrained(folder)

    def _own(self) -> dict[str, nn.Parameter]:
        return {"soft_prompt": self.soft_prompt, "lowrank_a": self.lowrank_a, "lowrank_b": self.lowrank_b}

    def _joined(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Returns what the model reads, (batch, m + text, d), and its mask."""
        embeds = self.base_model.get_input_embeddings()(input_ids)
        places = (attention_mask.cumsum(dim=1) - 1).clamp(min=0)
        shifted = embeds.float() + self._update(places)
        prompt = self.soft_prompt.expand(len(embeds), -1, -1)
        ones = attention_mask.new_ones(len(embeds), prompt.shape[1])
        return torch.cat([prompt, shifted], dim=1).to(embeds.dtype), torch.cat([ones, attention_mask], dim=1)

    def _update(self, places: Tensor) -> Tensor:
        """Returns the rows of A B at some places, zero behind the last, (..., d)."""
        is_there = places < len(self.lowrank_a)
        rows = self.lowrank_a[places.clamp(max=len(self.lowrank_a) - 1)] * is_there[..., None]
        return rows @ self.lowrank_b

    @contextmanager
    def _updating_new_tokens(self, lengths: Tensor) -> Iterator[None]:
        """Adds to every generated token what it would have had in training; its text ends at `lengths`."""
        passes = 0

        def add(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
            nonlocal passes
            places = lengths[:, None] + passes
            passes += 1
            return (output.float() + self._update(places)).to(output.dtype)

        handle = self.base_model.get_input_embeddings().register_forward_hook(add)
        try:
            yield
        finally:
            handle.remove()


def _positions(mask: Tensor) -> Tensor:
    """Returns each token's place among the row's own tokens: padding between prompt and text counts for nothing."""
    return (mask.cumsum(dim=1) - 1).clamp(min=0)


def create_dept_optimizer(
    model: DeptModel, *, lr: float | str, lowrank_lr: float | str, weight_decay: float = 0.0
) -> torch.optim.AdamW:
    """Returns AdamW with a rate for the prompt and one for the pair.

    Args:
        model: With P, A and B.
        lr: Of P; ``"0.4x"`` is 0.4 times the root mean square of the model's word embeddings.
        lowrank_lr: Of A and B. As a multiple it is B's, and A, a factor without that unit, has the number alone.
        weight_decay: Of all three.
    """
    table = model.base_model.get_input_embeddings().weight
    size = float(table.detach().float().pow(2).mean().sqrt())

    def rate(value: float | str, unit: float) -> float:
        return float(value.removesuffix("x")) * unit if isinstance(value, str) else value

    groups = [
        {"params": [model.soft_prompt], "lr": rate(lr, size)},
        {"params": [model.lowrank_a], "lr": rate(lowrank_lr, 1.0)},
        {"params": [model.lowrank_b], "lr": rate(lowrank_lr, size)},
    ]
    return torch.optim.AdamW(groups, weight_decay=weight_decay)
