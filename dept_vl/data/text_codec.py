"""Text to token ids and back, as a family of backbones reads and writes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from dept_vl.errors import ConfigError, DataError


class TextCodec:
    """The text of encoder-decoder models (T5): source and target end with the tokenizer's end of sequence.

    Attributes:
        tokenizer: The backbone's.
        answer_cue: Put behind every source text; what is cut off a long text is cut before it.
        default_answer_cue: The family's cue where none is given.
    """

    default_answer_cue: ClassVar[str] = ""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, answer_cue: str | None = None) -> None:
        """Takes a tokenizer and a cue; None for the family's own, ``""`` for none."""
        self.tokenizer = tokenizer
        self.answer_cue = self.default_answer_cue if answer_cue is None else answer_cue

    @property
    def pad_token_id(self) -> int:
        """Fills ``input_ids`` behind a text; masked, so its value is never read."""
        pad = self.tokenizer.pad_token_id
        return int(self.tokenizer.eos_token_id if pad is None else pad)

    def source_ids(self, texts: Sequence[str], max_length: int) -> list[list[int]]:
        """Returns the ids of source texts, cut to `max_length` tokens so that the cue and special tokens survive.

        Raises:
            ConfigError: `max_length` has no room for one token of text.
            DataError: A text has no tokens, nor a cue.
        """
        rows = self._encode(texts)
        long = [number for number, ids in enumerate(rows) if len(ids) > max_length]
        for number in long:
            rows[number] = self._cut(texts[number], rows[number], max_length)
        if not all(rows):
            raise DataError(f"a source text has no tokens: {texts[[len(ids) for ids in rows].index(0)]!r}")
        return rows

    def count_longer(self, texts: Sequence[str], max_length: int) -> int:
        """Returns how many source texts have more than `max_length` tokens.

        Only texts whose bytes could exceed it are tokenised: no tokenizer makes more tokens than bytes plus the
        leading space, the beginning and the end of sequence.
        """
        room = max_length - len(self.answer_cue.encode()) - 3
        suspects = [text for text in texts if len(text.encode()) > room]
        return sum(len(ids) > max_length for ids in self._encode(suspects)) if suspects else 0

    def target_ids(self, texts: Sequence[str], max_length: int | None = None) -> list[list[int]]:
        """Returns the ids of target texts, cut to `max_length` tokens, the end of sequence included and kept."""
        encoded = self.tokenizer(
            text_target=list(texts), truncation=max_length is not None, max_length=max_length, verbose=False
        )
        ids: list[list[int]] = encoded["input_ids"]
        return ids

    def label_ids(self, labels: Sequence[str], max_length: int) -> list[list[int]]:
        """Returns the whole ids of a task's label strings, for scoring.

        Raises:
            ConfigError: There are none, two are the same in tokens, or one is longer than `max_length`.
        """
        if not labels:
            raise ConfigError("decode.method: 'score' needs a label set, and the one given is empty")
        rows = self.target_ids(labels)
        seen: dict[tuple[int, ...], str] = {}
        for label, ids in zip(labels, rows, strict=True):
            if len(ids) > max_length:
                raise ConfigError(
                    f"data.max_target_length: {max_length} is shorter than the label {label!r}, which has {len(ids)} "
                    "tokens with its end of sequence"
                )
            if tuple(ids) in seen:
                raise ConfigError(
                    f"decode.method: 'score' cannot tell the labels {seen[tuple(ids)]!r} and {label!r} apart: this "
                    "tokenizer gives both the same tokens; use decode.method=generate"
                )
            seen[tuple(ids)] = label
        return rows

    def decode(self, tokens: Tensor) -> list[str]:
        """Returns the texts of generated ids (batch, tokens), special tokens removed."""
        return [text.strip() for text in self.tokenizer.batch_decode(tokens, skip_special_tokens=True)]

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the whole ids of source texts and their cue."""
        rows: list[list[int]] = self.tokenizer([text + self.answer_cue for text in texts], verbose=False)["input_ids"]
        return rows

    def _cut(self, text: str, ids: list[int], max_length: int) -> list[int]:
        """Takes tokens off the text's end, before the cue and whatever special tokens stand last."""
        encoded = self.tokenizer(text + self.answer_cue, return_offsets_mapping=True, verbose=False)
        spans = enumerate(encoded["offset_mapping"])  # (0, 0) for special tokens
        last_text = max((index for index, (start, end) in spans if start < end <= len(text)), default=-1)
        tail = ids[last_text + 1 :]
        if len(tail) >= max_length:
            raise ConfigError(
                f"data.max_source_length: {max_length} has no room for text before the {len(tail)} tokens of "
                f"data.answer_cue ({self.answer_cue!r}) and of the end of sequence"
            )
        return ids[: max_length - len(tail)] + tail


class CausalTextCodec(TextCodec):
    """The text of decoder-only models: a source without an end, so that the target goes on from it.

    The beginning of sequence is there if the tokenizer adds one. A target has none, and ends with the end of sequence
    whether or not the tokenizer adds one.

    The default cue is the released DePT code's (``train.py``, ``decoder_preprocess_function``).
    """

    default_answer_cue = " Label : "

    def __init__(self, tokenizer: PreTrainedTokenizerBase, answer_cue: str | None = None) -> None:
        """Takes a tokenizer and a cue; see `TextCodec`."""
        super().__init__(tokenizer, answer_cue)
        plain, whole = (tokenizer("a", add_special_tokens=special)["input_ids"] for special in (False, True))
        self._ends_sources = whole[-len(plain) :] != plain  # a Llama tokenizer may be set to

    def target_ids(self, texts: Sequence[str], max_length: int | None = None) -> list[list[int]]:
        """Returns the ids of target texts; see `TextCodec.target_ids`."""
        rows = self.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
        kept = None if max_length is None else max_length - 1
        return [[*ids[:kept], self.tokenizer.eos_token_id] for ids in rows]

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        rows = super()._encode(texts)
        return [ids[:-1] for ids in rows] if self._ends_sources else rows
