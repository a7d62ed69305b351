"""A side network beside T5: narrow blocks of T5's own kind, and how they are run in every use of the model.

The frozen stacks run first, without gradients; what their blocks put out is handed to the network. Training, label
scoring and generation all go through `T5Side`, which runs the same blocks on the same states. While answers are
generated, the network's keys and values lie in transformers' own cache, behind those of the frozen blocks, so that a
new token costs one step of both, and beams move them together.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.models.t5.modeling_t5 import T5Attention, T5Block, T5LayerNorm

from dept_vl.models.language.t5_block import block_parts, replace_block_dropout, run_decoder_block
from dept_vl.models.language.t5_family import NARROW_WIDTHS
from dept_vl.models.language.t5_input import CACHE_ARGUMENT, EncoderInput
from dept_vl.tuners.layers.side_network import NarrowBlocks, SideNetwork
from dept_vl.tuners.places.sites import Part, StackName


class T5NarrowBlocks(NarrowBlocks):
    """T5's blocks at 1/r of its widths."""

    def __init__(self, model: Any) -> None:
        """Takes transformers' ``T5ForConditionalGeneration``."""
        self._stacks: Mapping[StackName, Any] = {"encoder": model.encoder, "decoder": model.decoder}
        self.num_layers = {name: len(stack.block) for name, stack in self._stacks.items()}
        self.widths = {name: int(getattr(model.config, name)) for name in NARROW_WIDTHS}
        self.dropout = float(model.config.dropout_rate)

    def block(self, stack: StackName, index: int, reduction: int, *, has_positions: bool) -> nn.Module:
        """See `NarrowBlocks.block`; a decoder's block has its place in the cache behind the frozen ones."""
        config = copy.deepcopy(self._stacks[stack].config)
        for name, width in self.widths.items():
            setattr(config, name, width // reduction)
        place = self.num_layers[stack] + index
        block = _without_values(lambda: T5Block(config, has_relative_attention_bias=has_positions, layer_idx=place))
        replace_block_dropout(block)
        return block

    def norm(self, stack: StackName, reduction: int) -> nn.Module:
        """See `NarrowBlocks.norm`."""
        epsilon = self._stacks[stack].config.layer_norm_epsilon
        return _without_values(lambda: T5LayerNorm(self.widths["d_model"] // reduction, eps=epsilon))

    def parts(self, block: nn.Module) -> Mapping[Part, nn.Module]:
        """See `NarrowBlocks.parts`."""
        return dict(block_parts(block))

    def positions(self, stack: StackName) -> Tensor:
        """See `NarrowBlocks.positions`."""
        table: Tensor = _self_attention(self._stacks[stack].block[0]).relative_attention_bias.weight
        return table.detach()

    def own_positions(self, block: nn.Module) -> nn.Parameter | None:
        """See `NarrowBlocks.own_positions`."""
        attention = _self_attention(block)
        if not attention.has_relative_attention_bias:
            return None
        return cast(nn.Parameter, attention.relative_attention_bias.weight)

    @torch.no_grad()
    def draw(self, block: nn.Module, generator: torch.Generator) -> None:
        """Sets normal values as transformers' ``T5PreTrainedModel._init_weights`` does for a T5 of those widths."""
        attention = _self_attention(block)
        factor = attention.config.initializer_factor

        def normal(weight: Tensor, std: float) -> None:
            weight.copy_(torch.randn(weight.shape, generator=generator) * (factor * std))

        for part, module in block_parts(block):
            weight = cast(Tensor, module.weight)
            if part.endswith("norm"):
                weight.fill_(factor)
                continue
            std = weight.shape[1] ** -0.5
            normal(weight, std * attention.key_value_proj_dim**-0.5 if part.endswith(".q") else std)
        if (table := self.own_positions(block)) is not None:
            normal(table, attention.d_model**-0.5)


class T5Side:
    """A side network whose blocks are T5's, on the states of one T5."""

    def __init__(self, network: SideNetwork, *, recomputes_activations: bool) -> None:
        """Takes the network, and whether its encoder's activations are made again in the backward pass."""
        self._network = network
        self._recomputes = recomputes_activations

    def attention(self, stack: StackName) -> T5Attention:
        """Returns the self-attention that has the network's table of relative positions."""
        return _self_attention(self._network.block(stack, self._network.layers(stack)[0]))

    def reads(self, stack: StackName, layer: int) -> bool:
        """Returns whether the network reads what a block of the backbone puts out."""
        return layer in self._network.layers(stack)

    @property
    def score_dtype(self) -> torch.dtype:
        """The precision the network's attention scores will have: autocast's where it is on, else its weights'."""
        weight = self.attention("encoder").q.weight
        if torch.is_autocast_enabled(weight.device.type):
            return torch.get_autocast_dtype(weight.device.type)
        return weight.dtype

    @property
    def cross_attentions(self) -> list[Any]:
        """The decoder's, in the order of their places in the cache."""
        return [block.layer[1].EncDecAttention for _, block in self._blocks("decoder")]

    def encode(self, joint: EncoderInput) -> Tensor:
        """Runs the network's encoder.

        Args:
            joint: What the frozen encoder read, `outputs` among it.

        Returns:
            (batch, total, side width) for the tokens of ``joint.beside``.
        """
        beside = joint.beside
        assert beside is not None  # `T5Backbone.join` made it
        if beside.encoded and not torch.is_grad_enabled():
            return beside.encoded[0]
        network = self._network
        hidden = network.enter("encoder", beside.inputs_embeds)
        for layer, block in self._blocks("encoder"):
            hidden = network.mix("encoder", layer, hidden, joint.outputs[layer])
            if self._recomputes and torch.is_grad_enabled():
                hidden = checkpoint(block, hidden, None, beside.position_bias, use_reentrant=False)[0]
            else:
                hidden = block(hidden, None, beside.position_bias)[0]
        states = network.leave("encoder", hidden)
        if not torch.is_grad_enabled():
            beside.encoded.append(states)
        return states

    def decode(self, joint: EncoderInput, embeds: Tensor, outputs: Mapping[int, Tensor], bias: Tensor) -> Tensor:
        """Runs the network's decoder on a whole target.

        Args:
            joint: The source.
            embeds: (batch, target, d_model), the decoder's input.
            outputs: What the frozen decoder's blocks put out, (batch, target, d_model) each, by number.
            bias: (1, heads, target, target), the network's own, closed where a query does not see a key.

        Returns:
            (batch, target, d_model), for the output matrix.
        """
        assert joint.beside is not None
        states, mask = self.encode(joint), joint.beside.decoder_mask()
        hidden = self._network.enter("decoder", embeds)
        for layer, block in self._blocks("decoder"):
            hidden = self._network.mix("decoder", layer, hidden, outputs[layer])
            hidden = run_decoder_block(block, hidden, bias, states, mask)
        return self._network.leave("decoder", hidden)

    @contextmanager
    def answering(
        self, decoder: Any, embed: Callable[[Tensor], Tensor], joint: EncoderInput, num_beams: int
    ) -> Iterator[None]:
        """Lets the network answer in the place of transformers' decoder, which runs token by token, for the block.

        Args:
            decoder: transformers' ``T5Stack``.
            embed: Token ids to the decoder's input.
            joint: The source.
            num_beams: Rows that the decoder has for each example, one after the other.
        """
        assert joint.beside is not None
        mask = joint.beside.decoder_mask()
        states = self.encode(joint).repeat_interleave(num_beams, dim=0)
        mask = None if mask is None else mask.repeat_interleave(num_beams, dim=0)
        outputs: dict[int, Tensor] = {}

        def keep(layer: int) -> Callable[..., None]:
            def hook(_block: nn.Module, _inputs: Any, output: Any) -> None:
                outputs[layer] = output[0]

            return hook

        def answer(_decoder: nn.Module, _inputs: Any, arguments: dict[str, Any], output: Any) -> Any:
            embeds = embed(arguments["input_ids"]).float()
            step = self._step(embeds, outputs, states, mask, arguments[CACHE_ARGUMENT])
            output.last_hidden_state = step.to(output.last_hidden_state.dtype)  # the output matrix's
            return output

        handles = [decoder.block[layer].register_forward_hook(keep(layer)) for layer, _ in self._blocks("decoder")]
        handles.append(decoder.register_forward_hook(answer, with_kwargs=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _step(
        self, embeds: Tensor, outputs: Mapping[int, Tensor], states: Tensor, mask: Tensor | None, cache: Any
    ) -> Tensor:
        """Runs the network's decoder on one more token, (rows, 1, d_model); all before it are in the cache."""
        hidden, bias = self._network.enter("decoder", embeds), None
        for layer, block in self._blocks("decoder"):
            hidden = self._network.mix("decoder", layer, hidden, outputs[layer])
            hidden, bias, _ = block(hidden, None, bias, states, mask, None, **{CACHE_ARGUMENT: cache})
        return self._network.leave("decoder", hidden)

    def _blocks(self, stack: StackName) -> Iterator[tuple[int, Any]]:
        """Yields the network's blocks with the numbers of the frozen ones that they stand beside."""
        for layer in self._network.layers(stack):
            yield layer, self._network.block(stack, layer)


def _self_attention(block: Any) -> T5Attention:
    return cast(T5Attention, block.layer[0].SelfAttention)


def _without_values(make: Callable[[], nn.Module]) -> nn.Module:
    """Returns a module of zeros on the default device; its making draws no random numbers."""
    device = torch.get_default_device()
    with torch.device("meta"):
        module = make()
    module.to_empty(device=device)
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module
