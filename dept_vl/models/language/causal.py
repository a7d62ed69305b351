"""A decoder-only model: one stack that reads the source and writes the target after it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from operator import attrgetter
from typing import Any, ClassVar, TypeVar, cast

import torch
import transformers
from torch import Tensor, nn
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from dept_vl.data.collator import IGNORE_INDEX
from dept_vl.data.text_codec import CausalTextCodec, TextCodec
from dept_vl.errors import ConfigError
from dept_vl.models.config import VisualPositionBias
from dept_vl.models.language.decoder_family import DecoderFamily
from dept_vl.models.language.extra_keys import Attention
from dept_vl.models.language.family import Positions
from dept_vl.models.language.joint import concatenate
from dept_vl.models.language.label_trie import LabelTrie
from dept_vl.models.language.places import Place
from dept_vl.models.language.reading_once import ReadingOnce
from dept_vl.models.language.segments import CausalInput, Segment, causal_bias
from dept_vl.models.language.shared_prompt import SharedPrompt
from dept_vl.tuners.places.sites import AttentionShape, Part, Site


class CausalBackbone(ReadingOnce):
    """One stack over [padding; prompt; text; visual; cue; target]; `causal_class` makes that of a family.

    Positions are counted over each example's own tokens, so padding is neutral: an example's logits do not depend on
    its batch mates. Padding on the right of the target needs no mask, because nothing before it looks ahead.

    A prompt that all rows have in common is read once (`dept_vl.models.language.shared_prompt`), where that gives the
    same numbers: `may_share` says where. It then stands before the padding, [prompt; padding; text; ...].

    Attributes:
        layout: Where the family's modules lie; see `causal_class`.
    """

    codec_class: ClassVar[type[TextCodec]] = CausalTextCodec
    layout: ClassVar[DecoderFamily]

    def __init__(
        self,
        model: PreTrainedModel,
        special_tokens: Mapping[str, int],
        visual_position_bias: VisualPositionBias | None = None,
    ) -> None:
        """Wraps a frozen model; see `Backbone`.

        Where scores have a cap, attention is the one that transformers writes out: its 5.15 takes torch's fused one,
        which leaves the cap out without a word.
        """
        super().__init__(model, special_tokens, visual_position_bias)
        if self._cap(self.layout.score_cap) is not None:
            model.set_attn_implementation("eager")

    @cached_property
    def max_positions(self) -> Positions | None:
        """The rows of GPT-2's position table, or what Llama was trained on, or a sliding window."""
        return self.layout.max_positions(self.text_config(self.model.config).to_dict())

    @staticmethod
    def special_tokens(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
        """Returns the tokenizer's end of sequence, which also pads where there is no token for that.

        Both have an embedding: `dept_vl.models.language.fit.check_tokenizer` looked.

        Raises:
            ConfigError: The tokenizer has no end-of-sequence token.
        """
        eos, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
        if eos is None:
            raise ConfigError(
                "model.backbone: the tokenizer has no end-of-sequence token (eos_token in tokenizer_config.json), "
                "with which targets end"
            )
        return {"eos_token_id": eos, "pad_token_id": eos if pad is None else pad}

    def join(
        self,
        prompt_and_text_embeds: Tensor,
        visual_embeds: Tensor | None,
        text_mask: Tensor,
        shared: SharedPrompt | None = None,
    ) -> CausalInput:
        """Joins prompt and text with visual tokens and moves the padding to the left; see `Backbone.join`."""
        inputs_embeds, attention_mask, has_padding = concatenate(prompt_and_text_embeds, visual_embeds, text_mask)
        before: tuple[Segment, ...] = ()
        kept = None
        if shared is not None and (size := self._num_shared(shared, text_mask, visual_embeds)):
            prompt = inputs_embeds[:1, :size].to(self.word_embeddings.dtype)
            positions = torch.arange(size, device=prompt.device)[None]
            before = (Segment(prompt, positions, causal_bias(size, prompt, self.score_dtype)),)
            kept = self.kept_for(shared)
            inputs_embeds, attention_mask = inputs_embeds[:, size:], attention_mask[:, size:]
        if has_padding:
            order = attention_mask.argsort(dim=1, stable=True)  # padding first, the rest in its order
            inputs_embeds = inputs_embeds.gather(1, order[:, :, None].expand_as(inputs_embeds))
            attention_mask = attention_mask.gather(1, order)
        position_ids = (attention_mask.cumsum(dim=1) - 1).clamp(min=0) + sum(segment.length for segment in before)
        embeds = inputs_embeds.to(self.word_embeddings.dtype)
        return CausalInput(embeds, attention_mask, has_padding, position_ids, before, kept=kept)

    def _num_shared(self, shared: SharedPrompt, text_mask: Tensor, visual_embeds: Tensor | None) -> int:
        """Returns how many tokens the rows of a batch read once for all; 0 where each reads its own prompt.

        A row of a prompt alone would have no token of its own to predict from: unless it is known that there is none,
        which a GPU is not asked for, the prompt's last token stays with the rows.
        """
        positions, window = self.max_positions, self.window
        if not self.may_share(shared, len(text_mask)) or not (
            window is None or (positions and positions.count <= window)
        ):
            return 0
        has_own = visual_embeds is not None or (text_mask.device.type == "cpu" and bool(text_mask.any(dim=1).all()))
        return max(0, shared.num_tokens - (not has_own))

    def logits(self, joint: CausalInput, labels: Tensor) -> Tensor:
        """Returns (batch, target, vocabulary); see `Backbone.logits`.

        The source's last token predicts the first label, so the last label is not read.
        """
        target = labels.shape[1]
        read = labels[:, :-1].masked_fill(labels[:, :-1] == IGNORE_INDEX, 0)  # (batch, target - 1)
        self._check_length(joint, read.shape[1])
        offsets = torch.arange(1, target, device=labels.device)
        mask = None
        if joint.has_padding or joint.before:
            total = joint.attention_mask.shape[1] + read.shape[1]
            is_before = torch.ones(total, total, dtype=torch.bool, device=labels.device).tril()
            mask = self._additive_mask(joint, is_before)
        return self._run(joint, read, offsets, mask)

    def run_generation(
        self,
        joint: CausalInput,
        *,
        num_beams: int,
        max_new_tokens: int,
        observer: LogitsProcessor | None = None,
        **settings: Any,
    ) -> Any:
        """See `Backbone.run_generation`."""
        self._check_length(joint, max_new_tokens - 1)
        with self.beside(joint):
            return self.model.generate(
                inputs_embeds=joint.inputs_embeds,
                attention_mask=joint.attention_mask,
                position_ids=joint.position_ids,
                generation_config=self.search_config(num_beams, max_new_tokens, **settings),
                logits_processor=LogitsProcessorList([observer] if observer else []),
                synced_gpus=self.is_sharded,
            )

    def trie_logits(self, joint: CausalInput, trie: LabelTrie) -> Tensor:
        """Returns (batch, 1 + nodes, vocabulary); see `Backbone.trie_logits`.

        One forward over [source; nodes]: the source's last token is the root, and a node's position is its depth
        after it.
        """
        self._check_length(joint, trie.longest)
        tokens = trie.tokens.expand(len(joint.attention_mask), -1)
        return self._run(joint, tokens, trie.depths[1:], self._additive_mask(joint, self._tree(joint, trie)))

    @staticmethod
    def _tree(joint: CausalInput, trie: LabelTrie) -> Tensor:
        """Returns which keys the source and the nodes of a trie after it see, (total, total) bool, [query, key]."""
        source, nodes = joint.attention_mask.shape[1], len(trie.tokens)
        is_visible = torch.zeros(source + nodes, source + nodes, dtype=torch.bool, device=trie.ancestor_mask.device)
        is_visible[:source, :source] = torch.ones_like(is_visible[:source, :source]).tril()
        is_visible[source:, :source] = True
        is_visible[source:, source:] = trie.ancestor_mask[1:, 1:]
        return is_visible

    def source_embedding(self, joint: CausalInput) -> Tensor:
        """Returns the last hidden state, after the final norm, at the source's last token, (batch, d_model)."""
        total = joint.attention_mask.shape[1]
        is_before = torch.ones(total, total, dtype=torch.bool, device=joint.attention_mask.device).tril()
        mask = self._additive_mask(joint, is_before)
        return self.states(joint, joint.inputs_embeds, joint.position_ids, mask)[:, -1]

    def _run(self, joint: CausalInput, tokens: Tensor, offsets: Tensor, mask: Tensor | None) -> Tensor:
        """Runs the model on the source and more tokens.

        The output matrix is given a tensor of its own: of a slice, torch multiplies a copy of the matrix for each row.

        Args:
            joint: The source.
            tokens: (batch, more) ids.
            offsets: (more,) positions of those, counted from the source's last token.
            mask: (batch, 1, total, total) additive; None for a plain causal one.

        Returns:
            (batch, 1 + more, vocabulary): the logits at the source's last token and at the others.
        """
        embeds = self.embed_tokens(tokens)
        after = joint.position_ids[..., -1:] + offsets  # (batch, more)
        rows, places = torch.cat([joint.inputs_embeds, embeds], dim=1), torch.cat([joint.position_ids, after], dim=-1)
        states = self.states(joint, rows, places, mask)
        logits: Tensor = self.model.lm_head(states[:, -1 - tokens.shape[1] :].contiguous())
        cap = self._cap(self.layout.logit_cap)
        return logits if cap is None else cap * torch.tanh(logits / cap)

    def _cap(self, setting: str | None) -> float | None:
        """Returns the value that scores or logits stay below; None for a model without (PaliGemma 1 is of 2's type)."""
        return None if setting is None else getattr(self.text_config(self.model.config), setting, None)

    def _additive_mask(self, joint: CausalInput, is_visible: Tensor) -> Tensor:
        """Returns which keys are visible, without padding, as (batch, 1, total, total) to be added to the scores.

        `is_visible` is (total, total), [query, key]. Of the lowest number and not of minus infinity: a padded token may
        attend to nothing, and must not become NaN. Where nothing is padding, one for the whole batch: (1, 1, total,
        total), which of 64 texts of 4,096 tokens is 67 MB and not 4.3 GB.
        """
        more = is_visible.shape[0] - joint.attention_mask.shape[1]
        keys = nn.functional.pad(joint.attention_mask, (0, more), value=1).bool()
        is_open = is_visible[None, None] & keys[: None if joint.has_padding else 1, None, None, :]
        dtype = self.score_dtype
        mask = torch.zeros(is_open.shape, dtype=dtype, device=is_open.device)
        return mask.masked_fill_(~is_open, torch.finfo(dtype).min)

    def _check_length(self, joint: CausalInput, target: int) -> None:
        """Refuses an input that is longer than the model's positions, padding counted."""
        source, positions = joint.num_shared + joint.attention_mask.shape[1], self.max_positions
        if positions is not None:
            positions.check(self.family, source, target, " (prompt, text and visual)")

    def shardable(self) -> tuple[list[nn.Module], set[nn.Parameter]]:
        """Returns the blocks; see `Backbone.shardable`."""
        return list(self._find(self.layout.blocks)), set()

    def find_places(self) -> Iterator[tuple[Site, Place]]:
        """Yields the places of every block, then the last norm and the output matrix; see `Backbone.find_places`."""
        for number, block in enumerate(self._find(self.layout.blocks)):
            for part, where in self.block_parts(number).items():
                name, *piece = (where,) if isinstance(where, str) else where
                yield Site("decoder", number, part), Place(attrgetter(name)(block), *piece)
        yield Site("decoder", None, "norm"), Place(self._find(self.layout.norm))
        yield Site("decoder", None, "lm_head"), Place(self.model.lm_head)

    def block_parts(self, number: int) -> Mapping[Part, str | tuple[str, int, int]]:
        """Returns where the parts of one block lie, as `DecoderFamily.parts` has them."""
        return self.layout.parts

    def find_attentions(self) -> Iterator[tuple[Site, Attention]]:
        """Yields the attention of every block; see `Backbone.find_attentions`."""
        config = self.text_config(self.model.config)
        heads = getattr(config, "num_key_value_heads", config.num_attention_heads)
        shape = AttentionShape(heads, getattr(config, "head_dim", None) or self.d_model // config.num_attention_heads)
        for number, block in enumerate(self._find(self.layout.blocks)):
            if "self_attn.q" in self.block_parts(number):
                yield Site("decoder", number, "self_attn"), Attention(attrgetter(self.layout.attention)(block), shape)

    @property
    def num_layers(self) -> tuple[int, int | None]:
        """The blocks of the one stack, and None."""
        return self.text_config(self.model.config).num_hidden_layers, None

    @property
    def final_norm(self) -> Tensor:
        """Weight of the last norm, (d_model,)."""
        weight: Tensor = self._find(self.layout.norm).weight
        return weight

    @property
    def layer_norm_epsilon(self) -> float:
        """The epsilon of the model's norms."""
        return float(getattr(self.text_config(self.model.config), self.layout.norm_epsilon))


Causal = TypeVar("Causal", bound=CausalBackbone)


def causal_class(family: DecoderFamily, base: type[Causal]) -> type[Causal]:
    """Returns the backbone of a decoder-only family, a class of its kind of backbone."""
    own = {
        "model_class": getattr(transformers, family.model_class),
        "dropout_fields": family.dropout_fields,
        "word_tables": family.word_tables,
        "layout": family,
    }
    return cast("type[Causal]", type("FamilyBackbone", (base,), own))
