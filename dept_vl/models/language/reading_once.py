"""How a decoder-only model reads rows behind what they have in common: where it may, and the two ways to do it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from operator import attrgetter
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from dept_vl.models.language.base import Backbone
from dept_vl.models.language.decoder_family import DecoderFamily
from dept_vl.models.language.segments import CausalInput, Segment, pack
from dept_vl.models.language.shared_prompt import KeptPromptKeys, PromptKeys, SharedPrompt
from dept_vl.tuners.places.extra_keys import ExtraKeys, merge_extra_keys


class ReadingOnce(Backbone[CausalInput]):
    """A stack of blocks that reads once what rows begin with (`dept_vl.models.language.segments`).

    Attributes:
        layout: Where the family's modules lie.
        reads_once: False lets every row read all of its own, to measure or test one way against the other.
    """

    layout: ClassVar[DecoderFamily]
    reads_once = True

    def may_share(self, shared: SharedPrompt, num_rows: int) -> bool:
        """Returns whether rows may have one beginning, and whether that saves anything.

        They may not where attention is not the plain one or depends on a text's length, where dropout would draw for
        every row apart, and where a method does something inside the model that is not the same for every token. Of
        several processes that share the weights, each must run the model as often as the others: without gradient the
        prompt is then read alone before every use, whatever the batch.
        """
        has_gradient = torch.is_grad_enabled()
        is_worth_it = num_rows > 1 or (not has_gradient and self.kept_for(shared) is not None)
        if self.is_sharded and not has_gradient:
            is_worth_it = shared.num_tokens > 1
        has_dropout = self.model.training and self._has_dropout
        can_share = self.reads_once and self._has_plain_attention and self.acts_by_token
        return is_worth_it and can_share and not has_dropout

    def kept_for(self, shared: SharedPrompt) -> KeptPromptKeys | None:
        """Returns where the prompt's keys and values are kept; None where they may change, or not every process may."""
        return None if self.is_acted_on or self.is_sharded else shared.kept

    @property
    def _has_dropout(self) -> bool:
        config = self.text_config(self.model.config)
        return any(getattr(config, field) for field in self.dropout_fields)

    @property
    def _has_plain_attention(self) -> bool:
        """Whether every token attends to all before it in `window`, at positions that any length of text leaves."""
        config = self.text_config(self.model.config)
        layers = set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
        rope = getattr(config, "rope_parameters", None) or {}
        by_layer = [one for one in rope.values() if isinstance(one, dict)]  # Gemma 3: of each kind of layer
        kinds = {one.get("rope_type", "default") for one in by_layer or [rope]}
        return self.layout.has_plain_attention and not layers and not kinds & {"dynamic", "longrope"}

    @property
    def window(self) -> int | None:
        """How far back every block reads at least, in tokens; None for all the way."""
        config = self.text_config(self.model.config)
        layers, window = getattr(config, "layer_types", None), getattr(config, "sliding_window", None)
        return window if not layers or "sliding_attention" in layers else None

    def states(self, joint: CausalInput, rows: Tensor, positions: Tensor, mask: Tensor | None) -> Tensor:
        """Returns the last hidden states of rows, after the final norm, (batch, total, d_model).

        Args:
            joint: What stands before them.
            rows: (batch, total, d_model).
            positions: (batch, total), or (3, batch, total).
            mask: (batch or 1, 1, total, total) additive; None for a plain causal one, of rows with nothing before them.
        """
        if not joint.before or mask is None or not torch.is_grad_enabled():
            with self.beside(joint):
                return self._run_model(rows, positions, mask)
        batch, total = rows.shape[:2]
        packed, packing = pack((*joint.before, Segment(rows, positions, mask, parents=joint.parents)))
        with self.attending(packing=packing):
            states = self._read(packed)
        return states[0, -batch * total :].unflatten(0, (batch, total))

    def _read(self, segment: Segment) -> Tensor:
        added = {} if segment.deepstack is None else segment.deepstack.arguments()
        return self._run_model(segment.embeds, segment.positions, segment.bias, **added)

    def _run_model(self, embeds: Tensor, positions: Tensor, mask: Tensor | None, **added: Any) -> Tensor:
        states: Tensor = self._text_model(
            inputs_embeds=embeds, attention_mask=mask, position_ids=positions, use_cache=False, **added
        ).last_hidden_state
        return states

    @contextmanager
    def beside(self, joint: CausalInput) -> Iterator[None]:
        """Lets rows read the keys and values of what stands before them, where something does, for the block."""
        if not joint.before:
            yield
            return
        first, *others = joint.before
        keys = joint.kept.of(first.embeds, lambda: self._keys_of(first)) if joint.kept else self._keys_of(first)
        for segment in others:
            keys = merge_extra_keys(keys, self._keys_of(segment, keys))
        if joint.parents is not None:
            keys = {site: replace(extra, parents=joint.parents) for site, extra in keys.items()}
        with self.attending(extra_keys=keys):
            yield

    def _keys_of(self, segment: Segment, before: PromptKeys | None = None) -> PromptKeys:
        """Reads a segment beside the keys and values of those before it."""
        made: dict[nn.Module, tuple[Tensor, Tensor]] = {}
        with self.attending(extra_keys=before, made=made):
            self._read(segment)
        each = {site: made[attention.module] for site, attention in self.attentions.items()}
        return {
            site: ExtraKeys(keys.transpose(1, 2).flatten(2), values.transpose(1, 2).flatten(2), segment.is_token)
            for site, (keys, values) in each.items()
        }

    @property
    def _text_model(self) -> nn.Module:
        found: nn.Module = self._find(self.layout.blocks.rpartition(".")[0])
        return found

    def _find(self, name: str) -> Any:
        return attrgetter(name)(self.model)
