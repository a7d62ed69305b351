"""Whether the parts of a loaded backbone belong together: its tokenizer, its word embeddings and its output matrix."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from dept_vl.errors import ConfigError
from dept_vl.models.language.base import Backbone
from dept_vl.models.language.stored import too_many_tokens

_OUTPUT = "lm_head.weight"
_SAMPLES = 16
"""Words of a tokenizer's own that it is tried on."""
_TRIED = 256
"""Tokens looked at to find one of them."""


def check_tokenizer(name: str, tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig) -> None:
    """Refuses a tokenizer with ids that have no embedding, that cannot read its own words, or that ends texts wrongly.

    The second is one of another family, or one without its vocabulary: every text would become ``<unk>``. The third
    concerns encoder-decoders, whose targets end as the tokenizer ends a text.

    Args:
        name: The backbone's, for the message.
        tokenizer: As it was loaded.
        config: The model's.

    Raises:
        ConfigError: It is one of them.
    """
    vocabulary = tokenizer.get_vocab()
    rows = int(config.vocab_size)
    if max(vocabulary.values(), default=0) >= rows:
        raise too_many_tokens(name, len(tokenizer), rows)
    words = _own_words(tokenizer, vocabulary)
    if not any(_is_read(tokenizer, f"{first} {second}") for first, second in zip(words, reversed(words), strict=True)):
        raise ConfigError(
            f"model.backbone: the tokenizer of {name} cannot read its own words, every text would be unknown to the "
            f"model ({len(vocabulary):,} tokens, read as {type(tokenizer).__name__}): it has no vocabulary, or is of "
            "another family; give a folder with the tokenizer that the model was trained with"
        )
    ending = list(tokenizer("a")["input_ids"])[-1:]
    if config.is_encoder_decoder and ending != [config.eos_token_id]:
        raise ConfigError(
            f"model.backbone: targets of {name} end with token {config.eos_token_id} (eos_token_id of its config.json) "
            f"and its tokenizer ends a text with {ending}: it is not the tokenizer of this model"
        )


def _own_words(tokenizer: PreTrainedTokenizerBase, vocabulary: Mapping[str, int]) -> list[str]:
    """Returns words among a tokenizer's tokens, from all over its vocabulary; other texts where none are words."""
    ids = sorted(set(vocabulary.values()) - set(tokenizer.all_special_ids))
    words, others = [], []
    for start in range(_SAMPLES):
        texts = [str(tokenizer.decode([number])).strip() for number in ids[start::_SAMPLES][:_TRIED]]
        words += [text for text in texts if text.isalpha()][:1]
        others += [text for text in texts if text and text.isascii()][:1]
    return words or others


def _is_read(tokenizer: PreTrainedTokenizerBase, text: str) -> bool:
    """Returns whether a text is known tokens that say the text again, upper case or not."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    again = str(tokenizer.decode(ids)).strip()
    return tokenizer.unk_token_id not in ids and again.casefold() == text.casefold()


def tie_words(
    model: PreTrainedModel,
    family: type[Backbone[Any]],
    stored: Collection[str],
    config: Mapping[str, Any],
    name: str,
) -> None:
    """Makes word embeddings and output matrix what the weights say they are, whatever transformers made of them.

    Of names that mean one tensor a file may hold one. transformers fills the others from it, in an order that depends
    on its version: 5.15 takes T5 v1.1's output matrix for the word embeddings where ``shared.weight`` is not there.

    Args:
        model: As transformers loaded it; changed in place.
        family: Its family.
        stored: The names of the tensors in its weights.
        config: The content of its ``config.json``.
        name: The backbone's, for messages.

    Raises:
        ConfigError: The weights hold no word embeddings, several that differ, or not the output matrix that
            ``config.json`` promises.
    """
    prefix = f"{family.model_class.base_model_prefix}."

    def is_stored(parameter: str) -> bool:
        return parameter in stored or parameter.removeprefix(prefix) in stored

    is_tied = family.is_output_tied(model.config, config)
    tied = family.tied_tables(config)
    tables = [table for table in tied if is_stored(table)]
    if not tables and not (is_tied and is_stored(_OUTPUT)):
        other = f"; {_OUTPUT} is there and is another matrix (tie_word_embeddings)" if is_stored(_OUTPUT) else ""
        raise ConfigError(
            f"model.backbone: cannot load {name!r}: its weights hold no word embeddings "
            f"({' or '.join(family.word_tables)}){other}"
        )
    words = model.get_parameter(tables[0] if tables else _OUTPUT)
    for other in tables[1:]:
        _refuse_different(name, tables[0], words, other, model.get_parameter(other))
    for table in tied:
        _put(model, table, words)
    if is_stored(_OUTPUT):
        if is_tied:
            _refuse_different(name, (*tables, _OUTPUT)[0], words, _OUTPUT, model.get_parameter(_OUTPUT))
            _put(model, _OUTPUT, words)
    elif is_tied is False:
        raise ConfigError(
            f"model.backbone: cannot load {name!r}: its config.json says that the output matrix is not the word "
            f"embeddings (tie_word_embeddings: false), and its weights hold no {_OUTPUT}"
        )
    else:
        _put(model, _OUTPUT, words)


def _refuse_different(name: str, first: str, one: Tensor, second: str, other: Tensor) -> None:
    if one is not other and not torch.equal(one, other):
        raise ConfigError(
            f"model.backbone: cannot load {name!r}: {first} and {second} of its weights differ, and are one matrix "
            "for its config.json; an output matrix of its own needs tie_word_embeddings: false there"
        )


def _put(model: PreTrainedModel, name: str, value: nn.Parameter) -> None:
    module, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(module), attribute, value)
