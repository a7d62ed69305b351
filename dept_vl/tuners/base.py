"""What every tuner offers: embeddings of prompt and text, and its trainable tensors by name and group."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from dept_vl.errors import CheckpointError, DataError

if TYPE_CHECKING:
    from dept_vl.tuners import TunerConfig


@dataclass(frozen=True)
class BackboneInfo:
    """What a tuner may know of the frozen backbone when it is built.

    Attributes:
        d_model: Width of the backbone.
        max_source_length: Longest text in tokens (s), special tokens and answer cue included.
        word_embeddings: Frozen table, (vocabulary, d_model).
        tokenize: Text to token ids, with the special tokens that the backbone's tokenizer adds.
        seed: Seed of the first values. They are drawn from a private generator on the CPU, so that they depend on
            nothing else.
    """

    d_model: int
    max_source_length: int
    word_embeddings: Tensor
    tokenize: Callable[[str], list[int]]
    seed: int


class Tuner(nn.Module, ABC):
    """Turns the frozen embeddings of a text into the backbone's input for prompt and text.

    Trainable tensors stay float32 whatever the precision of the backbone.

    Attributes:
        config: Its settings.
        num_virtual_tokens: Vectors put before the text (m); may be 0.
        max_source_length: Longest text in tokens (s).
    """

    config: TunerConfig
    num_virtual_tokens: int
    max_source_length: int

    @abstractmethod
    def embed(self, text_embeds: Tensor, text_mask: Tensor | None = None) -> Tensor:
        """Returns the backbone's input for prompt and text.

        Args:
            text_embeds: Frozen word embeddings, (batch, text, d_model), padding (if any) on the right.
            text_mask: (batch, text), 1 for text and 0 for padding; None without padding.

        Returns:
            (batch, prompt + text, d_model); text token i of the input is at index prompt + i.

        Raises:
            DataError: The text is longer than `max_source_length`.
        """

    @abstractmethod
    def param_groups(self) -> dict[str, list[nn.Parameter]]:
        """Returns every trainable tensor of the tuner in exactly one named group; empty groups are left out."""

    @abstractmethod
    def reset_parameters(self, info: BackboneInfo) -> None:
        """Sets the first values, from `info` alone."""

    @torch.no_grad()
    def start_from(self, tensors: Mapping[str, Tensor], source: TunerConfig) -> list[str]:
        """Takes the trained values of another tuner of this method.

        A method whose values can be adapted to other lengths or settings overrides this; here shapes must be equal.

        Args:
            tensors: The other tuner's, as in `trainable_state`.
            source: Its settings.

        Returns:
            What was adapted on the way, one sentence each.

        Raises:
            CheckpointError: Another method, or other shapes; both sides are named and nothing is changed.
        """
        self.check_method(source)
        theirs = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        ours = {name: tuple(tensor.shape) for name, tensor in self.trainable_state().items()}
        if theirs != ours:
            raise CheckpointError(f"the source has {theirs}, this run has {ours}")
        for name, tensor in self.trainable_state().items():
            tensor.copy_(tensors[name])
        return []

    def check_method(self, source: TunerConfig) -> None:
        """Refuses the settings of another method.

        Raises:
            CheckpointError: Both methods are named.
        """
        if source.name != self.config.name:
            raise CheckpointError(
                f"the source was trained with {source.name!r}, this run has {self.config.name!r}; "
                "init.parts=prompt takes the soft prompt alone"
            )

    def trainable_state(self) -> dict[str, Tensor]:
        """Returns the trainable tensors by name: what a checkpoint holds of the tuner."""
        return {name: parameter.detach() for name, parameter in self.named_parameters() if parameter.requires_grad}

    def check_length(self, text_embeds: Tensor) -> None:
        """Refuses texts longer than the tuner was made for.

        Raises:
            DataError: `text_embeds` has more than `max_source_length` tokens.
        """
        length = text_embeds.shape[1]
        if length > self.max_source_length:
            raise DataError(
                f"a text of {length} tokens reached a tuner made for max_source_length={self.max_source_length}; "
                "shorten the text, or train with a larger data.max_source_length"
            )


def prepend_prompt(soft_prompt: Tensor | None, text_embeds: Tensor) -> Tensor:
    """Puts the same soft prompt (prompt, d_model) before every text of a batch (batch, text, d_model)."""
    if soft_prompt is None:
        return text_embeds
    prompt = soft_prompt.to(text_embeds.dtype).expand(text_embeds.shape[0], -1, -1)
    return torch.cat([prompt, text_embeds], dim=1)
