"""What a tuner is built from. Importing this imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dept_vl.tuners.places.backbone_shape import BackboneShape
from dept_vl.tuners.places.sites import NORM_PARTS, AttentionShape, Site, SiteShape

if TYPE_CHECKING:
    from torch import Tensor

    from dept_vl.tuners.layers.side_network import NarrowBlocks


@dataclass(frozen=True)
class TunerContext:
    """What a tuner may know of the backbone when it is built, with real weights or on the meta device.

    Attributes:
        d_model: Width of the backbone.
        max_source_length: Longest text in tokens (s), special tokens and answer cue included.
        sites: The places where it can act and how wide they are, from the first layer to the last.
        attentions: Its attentions and their widths, in the same order.
        tasks: Names of the tasks a run trains together, in the order of `ForwardInfo.task_ids`; empty for one task.
        vocab_size: Rows of the word embeddings.
        embed_tokens: Token ids to the backbone's own embeddings of them, (..., d_model); asked for first values alone.
        word_table: The backbone's parameter that is the table of its word embeddings, by name.
        weight: A linear map's place to its frozen matrix, (outputs, inputs), or a norm's to its scale, in the
            backbone's own precision; on the meta device one without values.
        bias: A linear map's place to the backbone's own bias there, (outputs,), or None where it has none.
        read_prompt: The name of a trained run, as a setting has it, to its soft prompt, (m, d_model) float32 on the
            CPU; refuses one that is not of this backbone. None where values are loaded after, and nothing is read.
        narrow: What makes blocks of the backbone's kind at a fraction of its widths; None for a family without.
        tokenize: Text to token ids, with the special tokens that the backbone's tokenizer adds.
        seed: Seed of the first values. They are drawn from a private generator on the CPU, so that they depend on
            nothing else.
    """

    d_model: int
    max_source_length: int
    sites: Mapping[Site, SiteShape] = field(default_factory=dict)
    attentions: Mapping[Site, AttentionShape] = field(default_factory=dict)
    tasks: tuple[str, ...] = ()
    vocab_size: int = 0
    word_table: str | None = None
    weight: Callable[[Site], Tensor] | None = None
    narrow: NarrowBlocks | None = None
    bias: Callable[[Site], Tensor | None] | None = None
    embed_tokens: Callable[[Tensor], Tensor] | None = None
    read_prompt: Callable[[str], Tensor] | None = None
    tokenize: Callable[[str], list[int]] | None = None
    seed: int = 0

    @property
    def shape(self) -> BackboneShape:
        """What of it follows from the backbone's ``config.json``."""
        return BackboneShape(self.d_model, tuple(self.sites), {} if self.narrow is None else self.narrow.widths)

    @property
    def is_decoder_only(self) -> bool:
        """Whether the backbone has places where a tuner can act, and none is in an encoder."""
        return bool(self.sites) and all(site.stack == "decoder" for site in self.sites)

    @property
    def norm_parameters(self) -> tuple[str, ...]:
        """Names of the backbone's parameters that are its norms': every scale, and every bias where there are any."""
        shapes = [shape for site, shape in self.sites.items() if site.part in NORM_PARTS]
        return tuple(name for shape in shapes for name in (shape.weight, shape.bias) if name is not None)
