"""T5: its encoder over prompt, text and visual tokens with a position bias of our own, and its decoder."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from transformers import (
    DynamicCache,
    EncoderDecoderCache,
    PretrainedConfig,
    PreTrainedTokenizerBase,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.t5.modeling_t5 import T5Attention

from dept_vl.data.text_codec import TextCodec
from dept_vl.errors import ConfigError
from dept_vl.models.config import VisualPositionBias
from dept_vl.models.language.base import Backbone
from dept_vl.models.language.cross_attention import cross_attend
from dept_vl.models.language.extra_keys import Attention
from dept_vl.models.language.joint import JointInput, concatenate
from dept_vl.models.language.label_trie import LabelTrie
from dept_vl.models.language.places import Place
from dept_vl.models.language.relative_bias import fold_mask, position_bias
from dept_vl.tuners.sites import AttentionPart, AttentionShape, Part, Site

_CACHE_ARGUMENT = (
    "cache" if "cache" in inspect.signature(T5ForConditionalGeneration.forward).parameters else "past_key_values"
)
"""What ``generate`` calls the cache: transformers 5.24 renamed the argument and warns about the old name."""


ENCODER_TABLE = "encoder.embed_tokens.weight"
"""The parameter that the encoder reads text with."""

OWN_ENCODER_TABLE = "dept_vl_own_encoder_embeddings"
"""Key of the ``config.json`` of a T5 whose encoder has word embeddings of its own, as a method was folded into them."""


@dataclass(frozen=True)
class EncoderInput(JointInput):
    """What the frozen encoder reads.

    Attributes:
        position_bias: (1 or batch, heads, total, total), added to every block's attention scores, padding folded in.
        encoded: What `T5Backbone.encode` made of it without gradients: one tensor, or none yet.
    """

    position_bias: Tensor
    encoded: list[Tensor] = field(default_factory=list, compare=False, repr=False)

    def decoder_mask(self) -> Tensor | None:
        """Returns the decoder's mask over the encoder's states, (batch, 1, 1, total) additive; None without padding.

        T5 takes a 4-d additive mask as it is; given a 2-d one it would first ask whether there is padding, which
        makes the CPU wait for the GPU at every step.
        """
        if not self.has_padding:
            return None
        is_padding = self.attention_mask[:, None, None, :] == 0
        mask = torch.zeros(is_padding.shape, dtype=self.position_bias.dtype, device=is_padding.device)
        return mask.masked_fill_(is_padding, torch.finfo(mask.dtype).min)


class _BeamCache(EncoderDecoderCache):
    """Leaves the cross-attention's part as it is when beams change places.

    Beams change places within one example, and its beams all have the same keys and values there; moving those, as
    transformers does at every step, copies many times what the step itself writes.
    """

    def reorder_cache(self, beam_idx: Any) -> None:
        """Moves the self-attention's keys and values."""
        self.self_attention_cache.reorder_cache(beam_idx)


class T5Backbone(Backbone[EncoderInput]):
    """T5, T5 v1.1 or Flan-T5: the encoder reads [prompt; text; padding; visual], the decoder writes the target.

    Attributes:
        visual_position_bias: ``"zero"`` or ``"sequential"`` (`dept_vl.models.language.relative_bias`).
    """

    model_class = T5ForConditionalGeneration
    dropout_fields = ("dropout_rate",)
    codec_class = TextCodec
    word_tables = ("shared.weight", ENCODER_TABLE, "decoder.embed_tokens.weight")
    visual_position_bias: VisualPositionBias = "zero"  # Sung et al.'s published rule

    @staticmethod
    def special_tokens(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
        """Returns the ids in T5's own configuration.

        Raises:
            ConfigError: One is missing or has no embedding.
        """
        ids: dict[str, int] = {}
        for name in ("decoder_start_token_id", "eos_token_id", "pad_token_id"):
            number = getattr(config, name, None)
            if not isinstance(number, int) or not 0 <= number < config.vocab_size:
                raise ConfigError(
                    f"model.backbone: {name} of its config.json is {number!r}, expected one of the "
                    f"{config.vocab_size:,} tokens; T5's are 0 (start and padding) and 1 (end)"
                )
            ids[name] = number
        return ids

    @staticmethod
    def is_output_tied(config: PretrainedConfig, stored: Mapping[str, Any]) -> bool | None:
        """See `Backbone.is_output_tied`.

        transformers 5 reads ``tie_word_embeddings`` as whether outputs are scaled, T5 v1.0's way, and writes it as true
        for v1.1 too, which has a matrix of its own.
        """
        if config.scale_decoder_outputs:
            return True
        return False if stored.get("tie_word_embeddings") is False else None

    @classmethod
    def tied_tables(cls, stored: Mapping[str, Any]) -> tuple[str, ...]:
        """Returns the word embeddings that are one tensor: all of them, or all but the encoder's."""
        return tuple(name for name in cls.word_tables if name != ENCODER_TABLE or not stored.get(OWN_ENCODER_TABLE))

    def embed_source(self, input_ids: Tensor) -> Tensor:
        """Returns the encoder's own embeddings; see `Backbone.embed_source`."""
        embeds: Tensor = self.model.encoder.embed_tokens(input_ids)
        return embeds

    @property
    def source_table(self) -> Tensor:
        """The encoder's own table."""
        table: Tensor = self.model.encoder.embed_tokens.weight
        return table

    @staticmethod
    def uninitialised(config: PretrainedConfig) -> T5ForConditionalGeneration:
        """Returns a model of that shape; see `Backbone.uninitialised`."""
        model = T5ForConditionalGeneration(cast(T5Config, config))
        if not config.scale_decoder_outputs:
            # T5 v1.1 and Flan-T5 have an output matrix of their own; transformers ties it until weights say otherwise.
            model.lm_head.weight = nn.Parameter(torch.empty_like(model.lm_head.weight))
        if getattr(config, OWN_ENCODER_TABLE, False):
            model.encoder.embed_tokens.weight = nn.Parameter(torch.empty_like(model.shared.weight))
        return model

    def set_position_bias(self, rule: VisualPositionBias) -> None:
        """Takes the rule for pairs with a visual token."""
        self.visual_position_bias = rule

    def join(self, prompt_and_text_embeds: Tensor, visual_embeds: Tensor | None, text_mask: Tensor) -> EncoderInput:
        """Joins prompt and text with visual tokens; see `Backbone.join`."""
        inputs_embeds, attention_mask, has_padding = concatenate(prompt_and_text_embeds, visual_embeds, text_mask)
        num_virtual_tokens = prompt_and_text_embeds.shape[1] - text_mask.shape[1]
        num_visual_tokens = inputs_embeds.shape[1] - prompt_and_text_embeds.shape[1]
        bias = position_bias(
            self.model.encoder, self.visual_position_bias, text_mask, num_virtual_tokens, num_visual_tokens
        )
        dtype = self.score_dtype
        bias = fold_mask(bias, attention_mask, dtype) if has_padding else bias.to(dtype)
        return EncoderInput(inputs_embeds, attention_mask, has_padding, bias)

    def encode(self, joint: EncoderInput) -> Tensor:
        """Runs T5's own encoder blocks on the given embeddings and position bias.

        The bias is built once and shared by all blocks. ``T5Stack.forward`` cannot be used, because it takes no bias
        and makes plain T5's. Without gradients an input is encoded once, for the answer and the loss of one batch.

        Returns:
            (batch, total, d_model): the encoder's last hidden states.
        """
        if joint.encoded and not torch.is_grad_enabled():
            return joint.encoded[0]
        encoder = self.model.encoder
        hidden = encoder.dropout(joint.inputs_embeds)  # (batch, total, d_model)
        for block in encoder.block:
            # Positional, as gradient checkpointing wants; no mask, because it is folded into the bias.
            hidden = block(hidden, None, joint.position_bias)[0]
        normed: Tensor = encoder.dropout(encoder.final_layer_norm(hidden))
        if not torch.is_grad_enabled():
            joint.encoded.append(normed)
        return normed

    def logits(self, joint: EncoderInput, labels: Tensor) -> Tensor:
        """Returns (batch, target, vocabulary); see `Backbone.logits`."""
        target = labels.shape[1]
        bias = self._self_attention.compute_bias(target, target, device=labels.device)  # (1, heads, target, target)
        is_ahead = torch.ones(target, target, dtype=torch.bool, device=labels.device).triu(1)
        return self._decode(joint, self.model.prepare_decoder_input_ids_from_labels(labels), bias, is_ahead)

    def generate(self, joint: EncoderInput, *, num_beams: int, max_new_tokens: int) -> Tensor:
        """Returns (batch, new tokens); see `Backbone.generate`."""
        states = self.encode(joint)
        cache = {_CACHE_ARGUMENT: self._beam_cache(states, num_beams)} if num_beams > 1 else {}
        generated: Tensor = self.model.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=states),
            attention_mask=joint.attention_mask,
            **cache,
            generation_config=self.generation_config(
                num_beams=num_beams, max_new_tokens=max_new_tokens, do_sample=False
            ),
            synced_gpus=self.is_sharded,
        )
        return generated[:, 1:]

    def _beam_cache(self, states: Tensor, num_beams: int) -> EncoderDecoderCache:
        """Returns a cache that holds the cross-attention's keys and values of every beam.

        They are computed once an example; transformers would compute them once a beam.
        """
        cross = DynamicCache()
        for layer, block in enumerate(self.model.decoder.block):
            attention = block.layer[1].EncDecAttention
            keys, values = (
                projection(states).unflatten(-1, (-1, attention.key_value_proj_dim)).transpose(1, 2)
                for projection in (attention.k, attention.v)
            )  # (batch, heads, total, d_kv)
            cross.update(keys.repeat_interleave(num_beams, dim=0), values.repeat_interleave(num_beams, dim=0), layer)
        return _BeamCache(DynamicCache(), cross)

    def trie_logits(self, joint: EncoderInput, trie: LabelTrie) -> Tensor:
        """Returns (batch, 1 + nodes, vocabulary); see `Backbone.trie_logits`.

        The decoder reads the start token and the nodes as one input, with a position bias made from depths in which
        nodes that are not ancestors are closed. Their order in the input therefore does not matter.
        """
        start = trie.tokens.new_tensor([self.model.config.decoder_start_token_id])
        length = trie.longest + 1
        table = self._self_attention.compute_bias(length, length, device=trie.depths.device)
        bias = table[:, :, trie.depths[:, None], trie.depths[None, :]]  # (1, heads, 1 + nodes, 1 + nodes)
        return self._decode(joint, torch.cat([start, trie.tokens])[None], bias, ~trie.ancestor_mask)

    def source_embedding(self, joint: EncoderInput) -> Tensor:
        """Returns the mean of the encoder's last hidden states over prompt, text and image, (batch, d_model)."""
        is_read = joint.attention_mask[:, :, None].to(torch.float32)  # (batch, total, 1)
        return (self.encode(joint).float() * is_read).sum(dim=1) / is_read.sum(dim=1)

    @property
    def _self_attention(self) -> T5Attention:
        """The decoder's first, which has the table of relative positions."""
        return cast(T5Attention, self.model.decoder.block[0].layer[0].SelfAttention)

    def _decode(self, joint: EncoderInput, input_ids: Tensor, bias: Tensor, is_closed: Tensor) -> Tensor:
        """Runs T5's own decoder blocks, with `cross_attend` for their cross-attention.

        Args:
            joint: The source.
            input_ids: (batch or 1, target) what the decoder reads.
            bias: (1, heads, target, target), [query, key].
            is_closed: (target, target), true where the query does not see the key.

        Returns:
            (batch, target, vocabulary).
        """
        decoder, config = self.model.decoder, self.model.config
        states, mask = self.encode(joint), joint.decoder_mask()
        embeds = self.embed_tokens(input_ids).float()  # (batch or 1, target, d_model)
        bias = bias.to(self.score_dtype).masked_fill(is_closed, torch.finfo(self.score_dtype).min)
        hidden = decoder.dropout(embeds.expand(len(states), -1, -1))  # (batch, target, d_model)
        for number, block in enumerate(decoder.block):
            hidden = block.layer[0](hidden, None, bias)[0]
            hooks = [self.hook_at(Site("decoder", number, part)) for part in ("cross_attn.k", "cross_attn.v")]
            hidden = cross_attend(block.layer[1], hidden, states, mask, *hooks)
            hidden = block.layer[2](hidden)
        hidden = decoder.dropout(decoder.final_layer_norm(hidden))
        if config.scale_decoder_outputs:  # T5 v1.0, whose output matrix is the word embeddings
            hidden = hidden * config.d_model**-0.5
        logits: Tensor = self.model.lm_head(hidden)
        return logits

    def shardable(self) -> tuple[list[nn.Module], set[nn.Parameter]]:
        """Returns all but the cross-attentions, and the relative positions; see `Backbone.shardable`."""
        encoder, decoder = self.model.encoder, self.model.decoder
        parts = [block.layer[place] for block in decoder.block for place in (0, 2)]
        tables = {stack.block[0].layer[0].SelfAttention.relative_attention_bias.weight for stack in (encoder, decoder)}
        return [*encoder.block, *parts], tables

    def find_places(self) -> Iterator[tuple[Site, Place]]:
        """Yields the places of the encoder, then those of the decoder; see `Backbone.find_places`."""
        for stack, module in self._stacks:
            for number, block in enumerate(module.block):
                for part, found in _parts(block):
                    yield Site(stack, number, part), Place(found)
            yield Site(stack, None, "norm"), Place(module.final_layer_norm)
        yield Site("decoder", None, "lm_head"), Place(self.model.lm_head)

    def find_attentions(self) -> Iterator[tuple[Site, Attention]]:
        """Yields the attentions of the encoder, then those of the decoder; see `Backbone.find_attentions`."""
        for stack, module in self._stacks:
            for number, block in enumerate(module.block):
                for part, layer, name in _attentions(block):
                    found = getattr(layer, name)
                    shape = AttentionShape(found.n_heads, found.key_value_proj_dim)
                    yield Site(stack, number, part), Attention(found, shape)

    @property
    def _stacks(self) -> tuple[tuple[Literal["encoder", "decoder"], Any], ...]:
        return ("encoder", self.model.encoder), ("decoder", self.model.decoder)

    @property
    def num_layers(self) -> tuple[int, int | None]:
        """Encoder and decoder blocks."""
        return self.model.config.num_layers, self.model.config.num_decoder_layers

    @property
    def final_norm(self) -> Tensor:
        """Weight of the encoder's last norm, (d_model,)."""
        weight: Tensor = self.model.encoder.final_layer_norm.weight
        return weight

    @property
    def layer_norm_epsilon(self) -> float:
        """The epsilon of T5's RMS norms."""
        return float(self.model.config.layer_norm_epsilon)


def _parts(block: Any) -> Iterator[tuple[Part, nn.Module]]:
    """Yields the parts of one T5 block, in the order they compute."""
    for name, layer, attention in _attentions(block):
        yield cast(Part, f"{name}.norm"), layer.layer_norm
        for letter in "qkvo":
            yield cast(Part, f"{name}.{letter}"), getattr(getattr(layer, attention), letter)
    feed_forward = block.layer[-1]
    yield "ff.norm", feed_forward.layer_norm
    dense = feed_forward.DenseReluDense
    if hasattr(dense, "wi"):
        yield "ff.in", dense.wi
    else:  # gated: T5 v1.1, Flan-T5
        yield "ff.gate", dense.wi_0
        yield "ff.in", dense.wi_1
    yield "ff.out", dense.wo


def _attentions(block: Any) -> list[tuple[AttentionPart, Any, str]]:
    """Returns the attentions of one T5 block: part, layer, and the module's name in it."""
    found: list[tuple[AttentionPart, Any, str]] = [("self_attn", block.layer[0], "SelfAttention")]
    return [*found, ("cross_attn", block.layer[1], "EncDecAttention")] if block.is_decoder else found
