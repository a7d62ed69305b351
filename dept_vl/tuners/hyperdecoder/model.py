"""The computation of hyperdecoders."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from dept_vl.tuners.base import Fact, ParamGroup, Tuner
from dept_vl.tuners.context import TunerContext
from dept_vl.tuners.forward_info import ForwardInfo
from dept_vl.tuners.hyperdecoder.config import HyperDecoderConfig
from dept_vl.tuners.hyperdecoder.generator import AdapterGenerator
from dept_vl.tuners.layers.bottleneck import Bottleneck, BottleneckWeights
from dept_vl.tuners.places.hooks import SiteHook
from dept_vl.tuners.places.sites import Site

_ENCODER_GAIN = 1e-4
"""Of the Xavier start of the encoder's adapters (`adapter_layer.py`)."""


class _NoteOutput(SiteHook):
    """Notes what comes out of a norm for the sublayer that it stands in."""

    def __call__(self, inputs: Tensor, output: Tensor, info: ForwardInfo) -> None:
        info.records[self] = output


class _BesideHook(SiteHook, ABC):
    """Adds an adapter beside a feed-forward: it reads what that reads and adds to what that adds."""

    def __init__(self, normed: _NoteOutput | None) -> None:
        self._normed = normed

    @abstractmethod
    def adapter(self, info: ForwardInfo) -> Bottleneck:
        """Returns the adapter of a pass."""

    def __call__(self, inputs: Tensor, output: Tensor, info: ForwardInfo) -> Tensor:
        read = inputs if self._normed is None else info.records.pop(self._normed)
        change = self.adapter(info)(read, nn.functional.relu)
        return output + change.to(output.dtype)


class _EncoderHook(_BesideHook):
    def __init__(self, weights: BottleneckWeights, normed: _NoteOutput | None) -> None:
        super().__init__(normed)
        self._weights = weights

    def adapter(self, info: ForwardInfo) -> Bottleneck:
        return self._weights.of(info)


class _DecoderHook(_BesideHook):
    def __init__(self, generator: AdapterGenerator, number: int, normed: _NoteOutput | None) -> None:
        super().__init__(normed)
        self._generator, self._number = generator, number

    def adapter(self, info: ForwardInfo) -> Bottleneck:
        made: list[Bottleneck] = info.records[self._generator]
        return made[self._number]


class _Generate(SiteHook):
    """Makes every example's adapters once the encoder has read it."""

    def __init__(self, generator: AdapterGenerator) -> None:
        self._generator = generator

    def __call__(self, inputs: Tensor, output: Tensor, info: ForwardInfo) -> None:
        info.records[self._generator] = self._generator(mean_state(output, info))


def mean_state(states: Tensor, info: ForwardInfo) -> Tensor:
    """Returns the mean of the encoder's states without padding, (examples, d_model) float32.

    Prompt and visual tokens are in it: they are part of what the encoder read.

    Args:
        states: (examples, prompt + text + visual, d_model).
        info: The forward pass.
    """
    behind = states.shape[1] - info.num_virtual_tokens - info.text_mask.shape[1]
    mask = nn.functional.pad(info.text_mask, (info.num_virtual_tokens, behind), value=1)[:, :, None].float()
    return (states.float() * mask).sum(dim=1) / mask.sum(dim=1)


class HyperDecoder(Tuner):
    """x + F(x) + U relu(D x + b_D) + b_U at every feed-forward; in the decoder D, U and biases are each example's own.

    Ivison & Peters 2022, section 3, as in ``allenai/hyperdecoders`` (``hyperdecoder/modeling``). They are made from the
    mean of the encoder's last states, once a pass, and serve all its beams and labels. The mean is taken before the
    encoder's last dropout, the authors' after it.

    Attributes:
        encoder_adapters: One `BottleneckWeights` a block.
        generator: What makes the decoder's.
    """

    config: HyperDecoderConfig

    def __init__(self, config: HyperDecoderConfig, context: TunerContext) -> None:
        """Makes the encoder's adapters and the network."""
        super().__init__(config, context)
        d_model = context.d_model
        blocks: dict[str, list[Site]] = {"encoder": [], "decoder": []}
        for site in context.sites:
            if site.part == "ff":
                blocks[site.stack].append(site)
        encoder_adapters = [BottleneckWeights(d_model, config.encoder_bottleneck, d_model) for _ in blocks["encoder"]]
        self.encoder_adapters = nn.ModuleList(encoder_adapters)
        self.generator = AdapterGenerator(config, len(blocks["decoder"]), context)
        self._hooks: dict[Site, SiteHook] = {Site("encoder", None, "norm"): _Generate(self.generator)}
        for number, site in enumerate(blocks["encoder"]):
            self._hooks[site] = _EncoderHook(encoder_adapters[number], self._note_normed(site))
        for number, site in enumerate(blocks["decoder"]):
            self._hooks[site] = _DecoderHook(self.generator, number, self._note_normed(site))

    def _note_normed(self, site: Site) -> _NoteOutput | None:
        """Has the normed input of a block's feed-forward noted, where adapters read that."""
        if not self.config.normed_input:
            return None
        note = _NoteOutput()
        self._hooks[Site(site.stack, site.layer, "ff.norm")] = note
        return note

    def site_hooks(self) -> Mapping[Site, SiteHook]:
        """Returns the adapters, and what makes the decoder's."""
        return self._hooks

    @torch.no_grad()
    def reset_parameters(self, context: TunerContext) -> None:
        """Sets the first values: the model is nearly the frozen one."""
        generator = torch.Generator().manual_seed(context.seed)
        for weights in cast("list[BottleneckWeights]", list(self.encoder_adapters)):
            weights.start_xavier(_ENCODER_GAIN, generator)
        self.generator.reset_parameters(generator)

    def param_groups(self, own: Mapping[str, nn.Parameter]) -> list[ParamGroup]:
        """Returns ``encoder_adapters`` and ``generator``."""
        return [
            ParamGroup("encoder_adapters", tuple(self.encoder_adapters.parameters()), self.config.lr),
            ParamGroup("generator", tuple(self.generator.parameters()), self.config.lr),
        ]

    def facts(self) -> dict[str, Fact]:
        """Returns the widths of the adapters and what the decoder's are made from."""
        config = self.config
        return {
            "encoder_width": config.encoder_bottleneck,
            "decoder_width": config.decoder_bottleneck,
            "made_from": "the mean of the encoder's states over prompt, text and image",
        }
