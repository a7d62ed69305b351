"""What a frozen language model offers to the assembly, whatever its family."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from dept_vl.data.text_codec import TextCodec
from dept_vl.errors import ConfigError
from dept_vl.models.config import VisualPositionBias
from dept_vl.models.language.label_trie import LabelTrie


@dataclass(frozen=True)
class JointInput:
    """Prompt, text and visual tokens as a backbone reads them.

    Attributes:
        inputs_embeds: (batch, prompt + text + visual, d_model).
        attention_mask: (batch, prompt + text + visual), 1 = attend, 0 = padding.
        has_padding: False only where it is known, without asking a GPU, that no token is padding.
    """

    inputs_embeds: Tensor
    attention_mask: Tensor
    has_padding: bool


Joint = TypeVar("Joint", bound=JointInput)


class FrozenBackbone(nn.Module, ABC, Generic[Joint]):
    """A frozen language model. The assembly calls `join` once and hands its result to one of the three uses.

    The wrapped model is called as it is; none of its methods is replaced, and none of its weights is trained.

    Attributes:
        model: The transformers model.
        codec_class: How the family reads and writes text.
        visual_position_bias: T5's rule for pairs with a visual token; None where there is no such choice.
        is_sharded: Whether each process has a share of the weights only (`dept_vl.models.sharding`); every process must
            then run the model as often as the others.
        max_positions: Tokens the model was made for, source and target together; None where there is no limit.
    """

    codec_class: ClassVar[type[TextCodec]]
    model: Any
    visual_position_bias: VisualPositionBias | None
    is_sharded = False
    max_positions: int | None = None

    def __init__(
        self, model: PreTrainedModel, special_tokens: Mapping[str, int], visual_position_bias: VisualPositionBias | None
    ) -> None:
        """Wraps a frozen model.

        Args:
            model: Its weights take no gradient.
            special_tokens: As `special_tokens` returns them; empty for a model that will not generate.
            visual_position_bias: As asked for; None for the family's own rule.

        Raises:
            ConfigError: The family has no such rule.
        """
        super().__init__()
        self.model = model
        self._special_tokens = dict(special_tokens)
        self.visual_position_bias = self.resolve_position_bias(visual_position_bias)

    @staticmethod
    @abstractmethod
    def special_tokens(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
        """Returns the token ids that generation needs, by the names of ``GenerationConfig``.

        Raises:
            ConfigError: The tokenizer has none of a kind that is needed.
        """

    @staticmethod
    @abstractmethod
    def resolve_position_bias(asked: VisualPositionBias | None) -> VisualPositionBias | None:
        """Returns the rule for T5's relative bias of pairs with a visual token, None for a family without one.

        Raises:
            ConfigError: A rule was asked of a family without one.
        """

    @abstractmethod
    def join(self, worded_embeds: Tensor, visual_embeds: Tensor | None, text_mask: Tensor) -> Joint:
        """Joins prompt and text with visual tokens.

        Args:
            worded_embeds: (batch, prompt + text, d_model).
            visual_embeds: (batch, visual, d_model), or None without an image.
            text_mask: (batch, text), 1 for text and 0 for padding on the right.
        """

    @abstractmethod
    def logits(self, joint: Joint, labels: Tensor) -> Tensor:
        """Returns (batch, target, vocabulary): at position i the prediction of label i, by teacher forcing.

        Args:
            joint: The source.
            labels: (batch, target) target ids, `IGNORE_INDEX` for padding on the right.

        Raises:
            DataError: Source and target together are longer than `max_positions`.
        """

    @abstractmethod
    def generate(self, joint: Joint, *, num_beams: int, max_new_tokens: int) -> Tensor:
        """Returns generated ids, (batch, new tokens), without a start token and padded on the right.

        Raises:
            DataError: Source and target together are longer than `max_positions`.
        """

    @abstractmethod
    def trie_logits(self, joint: Joint, trie: LabelTrie) -> Tensor:
        """Returns (batch, 1 + nodes, vocabulary): the prediction after the source, and after every node of a trie.

        One pass over the source and one over the nodes; a node sees the source and the nodes on its way, no others.

        Raises:
            DataError: Source and longest label together are longer than `max_positions`.
        """

    @abstractmethod
    def shardable(self) -> tuple[list[nn.Module], set[nn.Parameter]]:
        """Returns modules that are only ever run by calling them, and those of their weights that are read otherwise.

        What is not in them is used in other ways too and must be whole in every process.
        """

    @property
    @abstractmethod
    def num_layers(self) -> tuple[int, int | None]:
        """Blocks of the (first) stack, and of the decoder where it is a second one."""

    @property
    @abstractmethod
    def final_norm(self) -> Tensor:
        """Weight of the last norm of the (first) stack, (d_model,): with the word embeddings, what identifies it."""

    @property
    @abstractmethod
    def layer_norm_epsilon(self) -> float:
        """The epsilon of the model's norms."""

    @property
    def family(self) -> str:
        """The architecture's name, ``model_type`` of its ``config.json``."""
        return str(self.model.config.model_type)

    @property
    def d_model(self) -> int:
        """Width."""
        return int(self.model.config.hidden_size)

    @property
    def word_embeddings(self) -> Tensor:
        """The frozen table, (vocabulary, d_model)."""
        table: Tensor = self.model.get_input_embeddings().weight
        return table

    @property
    def score_dtype(self) -> torch.dtype:
        """The precision attention scores will have: autocast's where it is on, else the weights'."""
        weights = self.word_embeddings
        if torch.is_autocast_enabled(weights.device.type):
            return torch.get_autocast_dtype(weights.device.type)
        return weights.dtype

    def check_lengths(self, num_virtual_tokens: int, max_source_length: int) -> None:
        """Refuses a prompt and text length that leave no position for a target, before any training.

        Raises:
            ConfigError: They are longer than `max_positions`.
        """
        if self.max_positions is not None and num_virtual_tokens + max_source_length >= self.max_positions:
            raise ConfigError(
                f"data.max_source_length: a prompt of {num_virtual_tokens} and a text of {max_source_length} tokens "
                f"leave no room for a target in the {self.max_positions} positions of this {self.family} backbone; "
                "shorten one of them"
            )

    def identity(self, name: str) -> dict[str, Any]:
        """Returns what an adapter records of its backbone; another backbone's differs in more than `name`.

        `weights_sha256` covers the word embeddings and `final_norm` rounded to bfloat16, so that float32 and bfloat16
        copies of one checkpoint agree.

        Args:
            name: As it was asked for; of a local folder only its last part is kept.
        """
        digest = hashlib.sha256()
        for tensor in (self.word_embeddings, self.final_norm):
            digest.update(_bfloat16_bytes(tensor))
        num_layers, num_decoder_layers = self.num_layers
        return {
            "name": Path(name).name if Path(name).is_dir() else name,
            "family": self.family,
            "d_model": self.d_model,
            "num_layers": num_layers,
            "num_decoder_layers": num_decoder_layers,
            "vocab_size": self.model.config.vocab_size,
            "weights_sha256": digest.hexdigest(),
        }

    def generation_config(self, **settings: Any) -> GenerationConfig:
        """Returns generation settings with the special tokens and nothing else of the checkpoint's own."""
        return GenerationConfig.from_dict({**self._special_tokens, **settings})


def concatenate(worded_embeds: Tensor, visual_embeds: Tensor | None, text_mask: Tensor) -> tuple[Tensor, Tensor, bool]:
    """Puts visual tokens behind prompt and padded text.

    Returns:
        (batch, prompt + text + visual, d_model), its mask with 0 for text padding, and whether padding must be
        reckoned with.
    """
    num_virtual_tokens = worded_embeds.shape[1] - text_mask.shape[1]
    num_visual_tokens = 0 if visual_embeds is None else visual_embeds.shape[1]
    inputs_embeds = worded_embeds
    if visual_embeds is not None:
        inputs_embeds = torch.cat([worded_embeds, visual_embeds.to(worded_embeds.dtype)], dim=1)
    attention_mask = nn.functional.pad(text_mask, (num_virtual_tokens, num_visual_tokens), value=1)
    # Asking a GPU whether there is padding would make the CPU wait for it; there the mask is always used.
    has_padding = text_mask.device.type != "cpu" or not bool(text_mask.all())
    return inputs_embeds, attention_mask, has_padding


def _bfloat16_bytes(tensor: Tensor) -> bytes:
    rounded = tensor.detach().to("cpu", torch.bfloat16).contiguous()
    return rounded.view(torch.int16).numpy().astype("<i2", copy=False).tobytes()
