"""What a language model offers to the assembly, whatever its family."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Generic, Self, TypeVar, cast

import torch
from torch import Tensor, nn
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from dept_vl.data.text_codec import TextCodec
from dept_vl.errors import ConfigError
from dept_vl.models.config import VisualPositionBias
from dept_vl.models.language.family import Positions, no_position_bias
from dept_vl.models.language.hooked import HookedModel
from dept_vl.models.language.joint import JointInput
from dept_vl.models.language.label_trie import LabelTrie
from dept_vl.models.language.places import place_bias, place_matrix, site_shape
from dept_vl.models.language.shared_prompt import SharedPrompt
from dept_vl.models.weights_hash import hash_in_order
from dept_vl.tuners.context import TunerContext
from dept_vl.tuners.layers.dropout import replace_dropout
from dept_vl.tuners.layers.side_network import NarrowBlocks

Joint = TypeVar("Joint", bound=JointInput)

CHANGED_WEIGHTS = "dept_vl_weights_sha256"
"""Key of the ``config.json`` of a backbone that `dept_vl.models.language.write` wrote: sha256 of all its weights."""


class Backbone(HookedModel, Generic[Joint]):
    """A frozen language model. The assembly calls `join` once and hands its result to one of the three uses.

    The wrapped model is called as it is and none of its methods is replaced; its dropout is that of
    `dept_vl.tuners.layers.dropout`, the same function in less memory and time. A method that acts inside it does so
    through `hooked`, for as long as a ``with`` block lasts; one that trains its tensors does so in a `private_copy`.

    Attributes:
        model_class: Its class in transformers.
        dropout_fields: The fields of its configuration that are rates of dropout.
        codec_class: How the family reads and writes text.
        word_tables: The parameters that are its word embeddings, all of them one tensor; weights may hold any of them.
        visual_position_bias: T5's rule for pairs with a visual token; None for a family without such a choice.
        is_sharded: Whether each process has a share of the weights only (`dept_vl.models.sharding`); every process must
            then run the model as often as the others.
    """

    model_class: ClassVar[Any]
    dropout_fields: ClassVar[tuple[str, ...]]
    codec_class: ClassVar[type[TextCodec]]
    word_tables: ClassVar[tuple[str, ...]]
    visual_position_bias: VisualPositionBias | None = None
    is_sharded = False

    def __init__(
        self,
        model: PreTrainedModel,
        special_tokens: Mapping[str, int],
        visual_position_bias: VisualPositionBias | None = None,
    ) -> None:
        """Wraps a frozen model.

        Args:
            model: Its weights take no gradient.
            special_tokens: As `special_tokens` returns them; empty for a model that will not generate.
            visual_position_bias: T5's rule as asked for; None for the family's own.

        Raises:
            ConfigError: The family has no such rule.
        """
        super().__init__()
        self.model = model
        self.replace_dropout()
        self._special_tokens = dict(special_tokens)
        if visual_position_bias is not None:
            self.set_position_bias(visual_position_bias)

    def replace_dropout(self) -> None:
        """Puts dropout that keeps less for its backward in the place of the model's own; a family may do more."""
        replace_dropout(self.model)

    def set_position_bias(self, rule: VisualPositionBias) -> None:
        """Takes T5's rule for pairs with a visual token.

        Raises:
            ConfigError: The family has no relative position bias.
        """
        raise no_position_bias(rule)

    @staticmethod
    @abstractmethod
    def special_tokens(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
        """Returns the token ids that generation needs, by the names of ``GenerationConfig``.

        Raises:
            ConfigError: The tokenizer has none of a kind that is needed.
        """

    @staticmethod
    def text_config(config: PretrainedConfig) -> PretrainedConfig:
        """Returns the part of a configuration that describes the language model: all of it, but for one with images."""
        return config

    def new_codec(
        self, tokenizer: PreTrainedTokenizerBase, answer_cue: str | None, *, system_prompt: str | None, **form: Any
    ) -> TextCodec:
        """Returns what makes token ids from text.

        Args:
            tokenizer: The backbone's.
            answer_cue: As `TextCodec`.
            system_prompt: What a system's turn says before the user's, for a family that has one.
            form: The other arguments of `TextCodec`.

        Raises:
            ConfigError: As `TextCodec`.
        """
        return self.codec_class(tokenizer, answer_cue, **form)

    @staticmethod
    def is_output_tied(config: PretrainedConfig, stored: Mapping[str, Any]) -> bool | None:
        """Returns whether the output matrix is the word embeddings; None where it is if the weights have no other.

        Args:
            config: As transformers reads it.
            stored: The content of ``config.json``.
        """
        return bool(config.tie_word_embeddings)

    @classmethod
    def tied_tables(cls, stored: Mapping[str, Any]) -> tuple[str, ...]:
        """Returns those of `word_tables` that are one tensor in a checkpoint with this ``config.json``."""
        return cls.word_tables

    @classmethod
    def loaded_names(cls, stored: set[str], model: PreTrainedModel, missing: Collection[str]) -> set[str]:
        """Returns the names of what a checkpoint's weights filled, for `dept_vl.models.language.fit.tie_words`.

        Args:
            stored: The names in its files.
            model: As transformers loaded it.
            missing: The model's tensors that transformers found none for.
        """
        return stored

    @classmethod
    def uninitialised(cls, config: PretrainedConfig) -> PreTrainedModel:
        """Returns a model of a checkpoint's shape whose weights have no set values, on the default device (or meta)."""
        return cast(PreTrainedModel, cls.model_class(config))

    @abstractmethod
    def join(
        self,
        prompt_and_text_embeds: Tensor,
        visual_embeds: Tensor | None,
        text_mask: Tensor,
        shared: SharedPrompt | None = None,
    ) -> Joint:
        """Joins prompt and text with visual tokens.

        Args:
            prompt_and_text_embeds: (batch, prompt + text, d_model).
            visual_embeds: (batch, visual, d_model), or None without an image.
            text_mask: (batch, text), 1 for text and 0 for padding on the right.
            shared: The prompt that all rows have in common, for a family that can read it once for all; or None.
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
    def run_generation(
        self,
        joint: Joint,
        *,
        num_beams: int,
        max_new_tokens: int,
        observer: LogitsProcessor | None = None,
        **settings: Any,
    ) -> Any:
        """Returns what transformers' ``generate`` does with ``return_dict_in_generate``, ids without a start token.

        Args:
            joint: The source.
            num_beams: 1 for greedy.
            max_new_tokens: Generated tokens at most, the end-of-sequence token included.
            observer: Sees the scores of every step after everything else that has a say in them.
            **settings: Further ones of a ``GenerationConfig``.

        Raises:
            DataError: Source and target together are longer than `max_positions`.
        """

    def generate(
        self, joint: Joint, *, num_beams: int, max_new_tokens: int, observer: LogitsProcessor | None = None
    ) -> Tensor:
        """Returns generated ids, (batch, new tokens), without a start token and padded on the right.

        Arguments and errors are those of `run_generation`.
        """
        ids: Tensor = self.run_generation(
            joint, num_beams=num_beams, max_new_tokens=max_new_tokens, observer=observer
        ).sequences
        return ids

    @abstractmethod
    def trie_logits(self, joint: Joint, trie: LabelTrie) -> Tensor:
        """Returns (batch, 1 + nodes, vocabulary): the prediction after the source, and after every node of a trie.

        One pass over the source and one over the nodes; a node sees the source and the nodes on its way, no others.

        Raises:
            DataError: Source and longest label together are longer than `max_positions`.
        """

    @abstractmethod
    def source_embedding(self, joint: Joint) -> Tensor:
        """Returns (batch, d_model), one vector a source; what it is, the family says."""

    @abstractmethod
    def shardable(self) -> tuple[list[nn.Module], set[nn.Parameter]]:
        """Returns modules that are only ever run by calling them, and those of their weights that are read otherwise.

        What is not in them is used in other ways too and must be whole in every process.
        """

    def narrow_blocks(self) -> NarrowBlocks | None:
        """Returns what makes blocks of this kind for a network beside the model; None for a family without."""
        return None

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
    def max_positions(self) -> Positions | None:
        """How many tokens the model can read, source and target together; None where there is no limit."""
        return None

    @property
    def family(self) -> str:
        """The architecture's name, ``model_type`` of its ``config.json``."""
        return str(self.model.config.model_type)

    @property
    def d_model(self) -> int:
        """Width."""
        return int(self.text_config(self.model.config).hidden_size)

    @property
    def word_embeddings(self) -> Tensor:
        """The table of the word embeddings, (vocabulary, d_model)."""
        table: Tensor = self.model.get_input_embeddings().weight
        return table

    def embed_tokens(self, input_ids: Tensor) -> Tensor:
        """Returns the embeddings that the model itself reads for some ids, (..., d_model).

        Asked of the module and not read from its table: there are families whose module scales (Gemma).
        """
        module: nn.Module = self.model.get_input_embeddings()
        embeds: Tensor = module(input_ids)
        return embeds

    def embed_source(self, input_ids: Tensor) -> Tensor:
        """Returns the embeddings that the model reads a source's text with, (..., d_model)."""
        return self.embed_tokens(input_ids)

    @property
    def source_table(self) -> Tensor:
        """The table of those, (vocabulary, d_model)."""
        return self.word_embeddings

    @property
    def score_dtype(self) -> torch.dtype:
        """The precision attention scores will have: autocast's where it is on, else the weights'."""
        weights = self.word_embeddings
        if torch.is_autocast_enabled(weights.device.type):
            return torch.get_autocast_dtype(weights.device.type)
        return weights.dtype

    def tuner_context(
        self,
        max_source_length: int,
        *,
        seed: int = 0,
        tokenize: Callable[[str], list[int]] | None = None,
        tasks: Sequence[str] = (),
        read_prompt: Callable[[str], Tensor] | None = None,
    ) -> TunerContext:
        """Returns what a tuner for this backbone may know; works on the meta device.

        Args:
            max_source_length: s, longest text in tokens.
            seed: Of the tuner's first values.
            tokenize: Text to ids; None for a tuner whose first values are not set.
            tasks: Names of the tasks that are trained together; empty for one.
            read_prompt: As `TunerContext`.
        """
        names = {id(parameter): name for name, parameter in self.model.named_parameters()}
        return TunerContext(
            d_model=self.d_model,
            max_source_length=max_source_length,
            sites={site: site_shape(place, names) for site, place in self.places.items()},
            attentions={site: attention.shape for site, attention in self.attentions.items()},
            tasks=tuple(tasks),
            vocab_size=self.word_embeddings.shape[0],
            word_table=names[id(self.word_embeddings)],
            narrow=self.narrow_blocks(),
            weight=lambda site: place_matrix(self.places[site]),
            bias=lambda site: place_bias(self.places[site]),
            embed_tokens=lambda ids: self.embed_tokens(ids.to(self.word_embeddings.device)).detach(),
            read_prompt=read_prompt,
            tokenize=tokenize,
            seed=seed,
        )

    def private_copy(self, names: Collection[str]) -> Self:
        """Returns a backbone with some parameters of its own, which take gradients; the others are shared.

        Args:
            names: Parameters of `model`.

        Raises:
            ConfigError: One of them is not float32: what is trained is kept in full precision.
        """
        own = set(names)
        dtypes = {p.dtype for name, p in self.model.named_parameters() if name in own}
        if dtypes - {torch.float32}:
            raise ConfigError(
                f"model.dtype: the tuner trains tensors of the backbone itself, here in {min(map(str, dtypes))}; what "
                "is trained is kept in float32, so set model.dtype=float32"
            )
        if not self.word_embeddings.is_meta:
            _ = self.weights_sha256, self.image_weights_sha256  # those of the weights as they were loaded
        shared: dict[int, Any] = {id(p): p for name, p in self.model.named_parameters() if name not in own}
        twin = copy.copy(self)
        for found in ("places", "attentions"):
            twin.__dict__.pop(found, None)
        twin._modules = {"model": copy.deepcopy(self.model, shared)}
        for name, parameter in twin.model.named_parameters():
            parameter.requires_grad_(name in own)
        if self.recomputes_activations:
            twin.recompute_activations()
        return twin

    @cached_property
    def weights_sha256(self) -> str:
        """The sha256 of the word embeddings and `final_norm` as they were loaded.

        Rounded to bfloat16, so that float32 and bfloat16 copies of one checkpoint agree. Of a backbone that a method
        was folded into, also of the sha256 of all its weights, because those two may be the original's.
        """
        changed = str(getattr(self.model.config, CHANGED_WEIGHTS, ""))
        return hash_in_order((self.word_embeddings, self.final_norm), start=changed)

    @property
    def image_weights_sha256(self) -> str | None:
        """The sha256 of what makes image tokens, as it was loaded; None for a family that reads no images itself."""
        return None

    def search_config(self, num_beams: int, max_new_tokens: int, **settings: Any) -> GenerationConfig:
        """Returns the settings of a search for the best answer, without any drawing; see `run_generation`."""
        own = {"num_beams": num_beams, "max_new_tokens": max_new_tokens, **settings}
        return self.generation_config(do_sample=False, return_dict_in_generate=True, **own)

    def generation_config(self, **settings: Any) -> GenerationConfig:
        """Returns generation settings with the special tokens and nothing else of the checkpoint's own."""
        return GenerationConfig.from_dict({**self._special_tokens, **settings})
