"""What a tuner is built from. Importing this imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dept_vl.tuners.sites import AttentionShape, Site, SiteShape

if TYPE_CHECKING:
    from torch import Tensor


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
        weight: A linear map's place to its frozen matrix, (outputs, inputs), in the backbone's own precision; on the
            meta device one without values.
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
    weight: Callable[[Site], Tensor] | None = None
    embed_tokens: Callable[[Tensor], Tensor] | None = None
    tokenize: Callable[[str], list[int]] | None = None
    seed: int = 0

    @property
    def has_encoder(self) -> bool:
        """Whether the backbone reads the source in a stack of its own (T5)."""
        return any(site.stack == "encoder" for site in self.sites)
