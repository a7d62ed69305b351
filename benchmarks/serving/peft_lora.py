"""The same T5, text and visual tokens without this package: plain, and with PEFT's LoRA."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import peft
import torch
from torch import Tensor, nn
from transformers import GenerationConfig, T5ForConditionalGeneration

from dept_vl.models.vision.projection import VisualProjection, project_features

Rows = tuple[Tensor, Tensor, Tensor]
"""``input_ids`` and ``attention_mask`` (batch, text), and visual features (batch, visual, feature_dim)."""


class PlainT5:
    """Transformers' own T5 on the visual tokens of the DePT runs' frozen projection and on the text."""

    _model: Any

    def __init__(self, backbone: Path, projection: VisualProjection) -> None:
        """Loads it."""
        self._model = T5ForConditionalGeneration.from_pretrained(backbone, dtype=torch.float32).eval()
        self._projection = projection

    @torch.no_grad()
    def answer(self, rows: Rows, tokens: int, **names: list[str]) -> Tensor:
        """Answers greedily with so many tokens each; `names` are those of adapters, as PEFT takes them."""
        ids, mask, features = rows
        words = self._model.get_input_embeddings()
        visual = project_features(self._projection, features, words.weight)
        embeds = torch.cat([visual, words(ids)], dim=1)  # padding last: plain T5's positions count it
        mask = nn.functional.pad(mask, (visual.shape[1], 0), value=1)
        config = GenerationConfig(
            max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, decoder_start_token_id=0, pad_token_id=0,
            eos_token_id=1,
        )  # fmt: skip
        generated: Tensor = self._model.generate(
            inputs_embeds=embeds, attention_mask=mask, generation_config=config, **names
        )
        return generated[:, 1:]


class PeftLora(PlainT5):
    """LoRA of rank 1 on queries and values of both stacks' self-attention.

    On the demo's T5 these are 3,840 numbers, as many as DePT has there; on T5-base 73,728 beside DePT's 76,800.
    """

    def __init__(self, backbone: Path, projection: VisualProjection, names: Sequence[str]) -> None:
        """Loads the T5 and puts drawn adapters on it."""
        super().__init__(backbone, projection)
        config = peft.LoraConfig(
            r=1, task_type="SEQ_2_SEQ_LM", target_modules=r".*SelfAttention\.(q|v)", init_lora_weights=False
        )
        self._model = peft.get_peft_model(self._model, config, adapter_name=names[0]).eval()
        for name in names[1:]:
            self._model.add_adapter(name, config)

    @property
    def num_parameters(self) -> int:
        """Numbers of one adapter."""
        own = f".{self._model.active_adapter}."
        return sum(tensor.numel() for name, tensor in self._model.named_parameters() if own in name)

    def together(self, rows: Rows, names: Sequence[str], tokens: int) -> Tensor:
        """Answers rows of several adapters as one batch, by ``adapter_names``."""
        return self.answer(rows, tokens, adapter_names=list(names))

    def in_turn(self, rows: Rows, names: Sequence[str], tokens: int) -> Tensor:
        """Answers the rows of one adapter after another's, by ``set_adapter``."""
        order = sorted(range(len(names)), key=names.__getitem__)
        found: list[Tensor] = []
        for name, group in groupby(order, key=names.__getitem__):
            places = list(group)
            self._model.set_adapter(name)
            ids, mask, features = (side[places] for side in rows)
            longest = int(mask.sum(dim=1).max())
            found.append(self.answer((ids[:, :longest], mask[:, :longest], features), tokens))
        return torch.cat(found)[torch.tensor(order).argsort()]
