"""T5: its encoder over prompt, text and visual tokens with a position bias of our own, and its decoder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import (
    EncoderDecoderCache,
    LogitsProcessor,
    LogitsProcessorList,
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
from dept_vl.models.language.extra_keys import Attention
from dept_vl.models.language.joint import concatenate
from dept_vl.models.language.label_trie import LabelTrie
from dept_vl.models.language.places import Place
from dept_vl.models.language.relative_bias import fold_mask, position_bias
from dept_vl.models.language.shared_prompt import SharedPrompt
from dept_vl.models.language.t5_block import block_attentions, block_parts, replace_block_dropout, run_decoder_block
from dept_vl.models.language.t5_input import CACHE_ARGUMENT, EncoderInput, beam_cache, new_cache
from dept_vl.models.language.t5_side import T5NarrowBlocks, T5Side
from dept_vl.tuners.places.sites import AttentionShape, Site, StackName

ENCODER_TABLE = "encoder.embed_tokens.weight"
"""The parameter that the encoder reads text with."""

OWN_ENCODER_TABLE = "dept_vl_own_encoder_embeddings"
"""Key of the ``config.json`` of a T5 whose encoder has word embeddings of its own, as a method was folded into them."""


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

    def replace_dropout(self) -> None:
        """See `Backbone.replace_dropout`; a feed-forward's rectifier keeps no values of its own either."""
        super().replace_dropout()
        for _, stack in self._stacks:
            for block in stack.block:
                replace_block_dropout(block)

    def set_position_bias(self, rule: VisualPositionBias) -> None:
        """Takes the rule for pairs with a visual token."""
        self.visual_position_bias = rule

    def join(
        self,
        prompt_and_text_embeds: Tensor,
        visual_embeds: Tensor | None,
        text_mask: Tensor,
        shared: SharedPrompt | None = None,
    ) -> EncoderInput:
        """Joins prompt and text with visual tokens; see `Backbone.join`. An encoder's prompt sees the text: no sharing.

        Beside a side network the frozen encoder reads no visual tokens; the network's own does (Sung et al.'s
        ``JointEncoder``).
        """
        embeds, side = prompt_and_text_embeds, self._side
        own: T5Attention = self.model.encoder.block[0].layer[0].SelfAttention
        if side is None:
            return self._encoder_input(own, self.score_dtype, embeds, visual_embeds, text_mask)
        beside = self._encoder_input(side.attention("encoder"), side.score_dtype, embeds, visual_embeds, text_mask)
        return replace(self._encoder_input(own, self.score_dtype, embeds, None, text_mask), beside=beside)

    def _encoder_input(
        self, attention: T5Attention, dtype: torch.dtype, worded: Tensor, visual: Tensor | None, text_mask: Tensor
    ) -> EncoderInput:
        """Returns what an encoder reads whose table of relative positions is that of `attention`."""
        inputs_embeds, attention_mask, has_padding = concatenate(worded, visual, text_mask)
        num_virtual_tokens = worded.shape[1] - text_mask.shape[1]
        num_visual_tokens = inputs_embeds.shape[1] - worded.shape[1]
        bias = position_bias(attention, self.visual_position_bias, text_mask, num_virtual_tokens, num_visual_tokens)
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
        encoder, side = self.model.encoder, self._side
        hidden = encoder.dropout(joint.inputs_embeds)  # (batch, total, d_model)
        for number, block in enumerate(encoder.block):
            # Positional, as gradient checkpointing wants; no mask, because it is folded into the bias.
            hidden = block(hidden, None, joint.position_bias)[0]
            if side is not None and side.reads("encoder", number):
                joint.outputs[number] = hidden
        normed: Tensor = encoder.dropout(encoder.final_layer_norm(hidden))
        if not torch.is_grad_enabled():
            joint.encoded.append(normed)
        return normed

    def logits(self, joint: EncoderInput, labels: Tensor) -> Tensor:
        """Returns (batch, target, vocabulary); see `Backbone.logits`."""
        target, device = labels.shape[1], labels.device
        is_ahead = torch.ones(target, target, dtype=torch.bool, device=device).triu(1)
        input_ids = self.model.prepare_decoder_input_ids_from_labels(labels)
        return self._decode(joint, input_ids, lambda own: own.compute_bias(target, target, device=device), is_ahead)

    def run_generation(
        self,
        joint: EncoderInput,
        *,
        num_beams: int,
        max_new_tokens: int,
        observer: LogitsProcessor | None = None,
        **settings: Any,
    ) -> Any:
        """See `Backbone.run_generation`."""
        states, side = self.encode(joint), self._side
        cache = {} if num_beams == 1 and side is None else {CACHE_ARGUMENT: self._cache(joint, states, num_beams)}
        beside = side.answering(self.model.decoder, self.embed_tokens, joint, num_beams) if side else nullcontext()
        with beside:
            generated: Any = self.model.generate(
                encoder_outputs=BaseModelOutput(last_hidden_state=states),
                attention_mask=joint.attention_mask,
                **cache,
                generation_config=self.search_config(num_beams, max_new_tokens, **settings),
                logits_processor=LogitsProcessorList([observer] if observer else []),
                synced_gpus=self.is_sharded,
            )
        generated.sequences = generated.sequences[:, 1:]
        return generated

    def _cache(self, joint: EncoderInput, states: Tensor, num_beams: int) -> EncoderDecoderCache:
        """Returns a cache for the decoder's blocks and for a side network's behind them."""
        if num_beams == 1:
            return new_cache()
        read = [(block.layer[1].EncDecAttention, states) for block in self.model.decoder.block]
        if (side := self._side) is not None:
            read += [(attention, side.encode(joint)) for attention in side.cross_attentions]
        return beam_cache(read, num_beams)

    def trie_logits(self, joint: EncoderInput, trie: LabelTrie) -> Tensor:
        """Returns (batch, 1 + nodes, vocabulary); see `Backbone.trie_logits`.

        The decoder reads the start token and the nodes as one input, with a position bias made from depths in which
        nodes that are not ancestors are closed. Their order in the input therefore does not matter.
        """
        start = trie.tokens.new_tensor([self.model.config.decoder_start_token_id])
        length = trie.longest + 1

        def by_depth(own: T5Attention) -> Tensor:
            table = own.compute_bias(length, length, device=trie.depths.device)
            return table[:, :, trie.depths[:, None], trie.depths[None, :]]

        return self._decode(joint, torch.cat([start, trie.tokens])[None], by_depth, ~trie.ancestor_mask)

    def source_embedding(self, joint: EncoderInput) -> Tensor:
        """Returns the mean of the encoder's last hidden states over prompt, text and image, (batch, d_model).

        Beside a side network it is that of the network's encoder, (batch, side width).
        """
        states, read = self.encode(joint), joint
        if (side := self._side) is not None and joint.beside is not None:
            states, read = side.encode(joint), joint.beside
        is_read = read.attention_mask[:, :, None].to(torch.float32)  # (batch, total, 1)
        return (states.float() * is_read).sum(dim=1) / is_read.sum(dim=1)

    @property
    def _side(self) -> T5Side | None:
        """What stands beside the model now."""
        network = self.side_network
        return None if network is None else T5Side(network, recomputes_activations=self.recomputes_activations)

    def narrow_blocks(self) -> T5NarrowBlocks:
        """See `Backbone.narrow_blocks`."""
        return T5NarrowBlocks(self.model)

    @property
    def _self_attention(self) -> T5Attention:
        """The decoder's first, which has the table of relative positions."""
        return cast(T5Attention, self.model.decoder.block[0].layer[0].SelfAttention)

    def _decode(
        self, joint: EncoderInput, input_ids: Tensor, bias_of: Callable[[T5Attention], Tensor], is_closed: Tensor
    ) -> Tensor:
        """Runs T5's own decoder blocks, and beside them those of a side network, which then answers.

        Args:
            joint: The source.
            input_ids: (batch or 1, target) what the decoder reads.
            bias_of: A self-attention's table to its bias, (1, heads, target, target), [query, key].
            is_closed: (target, target), true where the query does not see the key.

        Returns:
            (batch, target, vocabulary).
        """

        def bias(own: T5Attention, dtype: torch.dtype) -> Tensor:
            return bias_of(own).to(dtype).masked_fill(is_closed, torch.finfo(dtype).min)

        decoder, config, side = self.model.decoder, self.model.config, self._side
        embeds = self.embed_tokens(input_ids).float()  # (batch or 1, target, d_model)
        embeds = embeds.expand(len(joint.inputs_embeds), -1, -1)
        outputs: dict[int, Tensor] = {}
        with nullcontext() if side is None else torch.no_grad():
            states, mask, own = self.encode(joint), joint.decoder_mask(), bias(self._self_attention, self.score_dtype)
            hidden = decoder.dropout(embeds)  # (batch, target, d_model)
            for number, block in enumerate(decoder.block):
                hooks = [self.hook_at(Site("decoder", number, part)) for part in ("cross_attn.k", "cross_attn.v")]
                hidden = run_decoder_block(block, hidden, own, states, mask, *hooks)
                if side is not None and side.reads("decoder", number):
                    outputs[number] = hidden
        if side is None:
            hidden = decoder.dropout(decoder.final_layer_norm(hidden))
        else:
            hidden = side.decode(joint, embeds, outputs, bias(side.attention("decoder"), side.score_dtype))
            hidden = hidden.to(self.model.lm_head.weight.dtype)
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
                for part, found in block_parts(block):
                    yield Site(stack, number, part), Place(found)
                yield Site(stack, number, "ff"), Place(block.layer[-1], width=self.d_model)
            yield Site(stack, None, "norm"), Place(module.final_layer_norm)
        yield Site("decoder", None, "lm_head"), Place(self.model.lm_head)

    def find_attentions(self) -> Iterator[tuple[Site, Attention]]:
        """Yields the attentions of the encoder, then those of the decoder; see `Backbone.find_attentions`."""
        for stack, module in self._stacks:
            for number, block in enumerate(module.block):
                for part, attention in block_attentions(block):
                    found = cast(T5Attention, attention)
                    shape = AttentionShape(found.n_heads, found.key_value_proj_dim)
                    yield Site(stack, number, part), Attention(found, shape)

    @property
    def _stacks(self) -> tuple[tuple[StackName, Any], ...]:
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
