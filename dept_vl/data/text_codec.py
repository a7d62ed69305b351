"""Text to token ids and back, as a family of backbones reads and writes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from dept_vl.data.chat_template import render_turn
from dept_vl.errors import ConfigError, DataError, first_line
from dept_vl.tasks.base import PLAIN_CUE, AnswerForm

RELEASED_CUE = " Label : "
"""What the released DePT code puts behind a source (``train.py``, ``decoder_preprocess_function``)."""


@dataclass(frozen=True)
class Frame:
    """Token ids that stand around prompt, images and text in every source.

    Attributes:
        head: Before the prompt of a source with images, where the family's template has something there.
        between: Between the last image and the text.
        text_head: Before the prompt of a source without images.
        tail: Behind the text, and an image behind it.
    """

    head: tuple[int, ...] = ()
    between: tuple[int, ...] = ()
    text_head: tuple[int, ...] = ()
    tail: tuple[int, ...] = ()


@dataclass(frozen=True)
class SourceForm:
    """What a source text's tokens are made of, for who has the tokenizer alone.

    Attributes:
        before: Put before the text.
        behind: Put behind it.
        adds_special_tokens: Whether the tokenizer adds its own.
        ends_sources: Whether the last token is then taken off, as it is the end of a sequence.
    """

    before: str
    behind: str
    adds_special_tokens: bool
    ends_sources: bool


class TextCodec:
    """The text of encoder-decoder models (T5): source and target end with the tokenizer's end of sequence.

    Attributes:
        tokenizer: The backbone's.
        answer_cue: The last text before an answer, put behind every source; what is cut off a long text is cut before.
        answer_form: How a decoder-only model is led to an answer; None for T5, whose decoder starts anew.
        cue_ids: The cue's tokens where they stand behind an image instead of behind the text.
        has_forms: Whether there is a choice of forms.
    """

    has_forms: ClassVar[bool] = False
    answer_form: AnswerForm | None = None
    cue_ids: tuple[int, ...] = ()
    _head = ""
    """What stands before every source text."""
    _adds_special_tokens = True
    """False where `_head` has the beginning of sequence in it, if there is one."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        answer_cue: str | None = None,
        *,
        answer_form: AnswerForm = "plain",
        task_cue: str = PLAIN_CUE,
        has_image: bool = False,
    ) -> None:
        """Takes a tokenizer and how texts lead to answers.

        Args:
            tokenizer: The backbone's.
            answer_cue: The cue; None for that of the form, ``""`` for none.
            answer_form: As `AnswerForm` says; T5 has one form only.
            task_cue: The cue of form ``"plain"`` where none is given.
            has_image: Whether an image stands behind the text.

        Raises:
            ConfigError: The tokenizer or the family has no such form, or the cue does not fit the form.
        """
        if answer_form == "chat":
            raise ConfigError("data.answer_form: 'chat' is a form of decoder-only backbones, and this one is a T5")
        self.tokenizer = tokenizer
        self.answer_cue = answer_cue or ""
        self._ending = self.answer_cue

    @property
    def frame(self) -> Frame:
        """What stands around every source as ids: here the cue, where it is behind an image."""
        return Frame(tail=self.cue_ids)

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
        room = max_length - len((self._head + self._ending).encode()) - 3
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

    def _whole(self, text: str) -> str:
        return f"{self._head}{text}{self._ending}"

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the whole ids of source texts with what stands before and behind them."""
        whole = [self._whole(text) for text in texts]
        options = {"add_special_tokens": self._adds_special_tokens, "verbose": False}
        rows: list[list[int]] = self.tokenizer(whole, **options)["input_ids"]
        return rows

    def _cut(self, text: str, ids: list[int], max_length: int) -> list[int]:
        """Takes tokens off the text's end, before the cue and whatever special tokens stand last."""
        if not self.tokenizer.is_fast and not (self._head or self._ending):  # ByT5's says no offsets
            kept: list[int] = self.tokenizer(text, truncation=True, max_length=max_length)["input_ids"]
            return kept
        options = {"add_special_tokens": self._adds_special_tokens, "return_offsets_mapping": True, "verbose": False}
        spans = self.tokenizer(self._whole(text), **options)["offset_mapping"]
        begin, finish = len(self._head), len(self._head) + len(text)
        texts = [index for index, (start, end) in enumerate(spans) if start < end <= finish]  # (0, 0): special tokens
        head = sum(spans[index][1] <= begin for index in texts)
        tail = ids[max(texts, default=-1) + 1 :]
        if head + len(tail) >= max_length:
            raise ConfigError(
                f"data.max_source_length: {max_length} has no room for text before the {len(tail)} tokens of "
                f"data.answer_cue ({self.answer_cue!r}) and of the end of sequence"
            )
        return ids[: max_length - len(tail)] + tail


class CausalTextCodec(TextCodec):
    """The text of decoder-only models: a source without an end, so that the target goes on from it.

    The beginning of sequence is there if the tokenizer adds one. A target has none, and ends with the end of sequence
    whether or not the tokenizer adds one.

    A byte-level tokenizer writes a word with the space before it as one token. So a pretrained model expects the answer
    after ``Label :`` to begin with its space, and is lost after a space that stands alone: in form ``"plain"`` the
    space belongs to the target. The released form has it in the cue.
    """

    has_forms = True

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        answer_cue: str | None = None,
        *,
        answer_form: AnswerForm = "plain",
        task_cue: str = PLAIN_CUE,
        has_image: bool = False,
    ) -> None:
        """Takes a tokenizer and how texts lead to answers; see `TextCodec`."""
        self.tokenizer = tokenizer
        self.answer_form = answer_form
        if answer_form == "chat":
            self._head, self.answer_cue = self._chat_turn(answer_cue)
            self._adds_special_tokens = False
        else:
            own = RELEASED_CUE if answer_form == "released" else task_cue
            self.answer_cue = own if answer_cue is None else answer_cue
        if answer_form == "plain" and self.answer_cue.endswith(" "):
            raise ConfigError(
                f"data.answer_cue: {self.answer_cue!r} ends in a space, which belongs to the answer's first word; "
                "leave it off (data.answer_form=released has it in the cue, as the released code)"
            )
        is_behind_image = has_image and answer_form != "released"
        self.cue_ids = tuple(self._ids([self.answer_cue])[0]) if is_behind_image and self.answer_cue else ()
        self._ending = "" if is_behind_image else self.answer_cue
        plain, whole = (tokenizer("a", add_special_tokens=special)["input_ids"] for special in (False, True))
        self._ends_sources = self._adds_special_tokens and whole[-len(plain) :] != plain  # a Llama's may be set to

    @property
    def source_form(self) -> SourceForm:
        """What the tokens of a source are made of."""
        return SourceForm(self._head, self._ending, self._adds_special_tokens, self._ends_sources)

    def target_ids(self, texts: Sequence[str], max_length: int | None = None) -> list[list[int]]:
        """Returns the ids of target texts; see `TextCodec.target_ids`."""
        rows = self._ids(texts) if self.answer_form == "released" else self._continued(texts)
        kept = None if max_length is None else max_length - 1
        return [[*ids[:kept], self.tokenizer.eos_token_id] for ids in rows]

    def _continued(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the ids of texts as they go on from the cue, with a space between where the cue ends in none.

        They are cut from those of cue and text together: whether a first word alone gets a space differs from one
        tokenizer to another.
        """
        gap = "" if self.answer_cue[-1:].isspace() else " "
        parts = [gap + text if text else "" for text in texts]
        before = self._ids([self.answer_cue])[0] if self.answer_cue else []
        whole = self._ids([self.answer_cue + part for part in parts])
        alone = self._ids(parts)
        return [
            ids[len(before) :] if ids[: len(before)] == before else own for ids, own in zip(whole, alone, strict=True)
        ]

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        rows: list[list[int]] = self.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
        return rows

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        rows = super()._encode(texts)
        return [ids[:-1] for ids in rows] if self._ends_sources else rows

    def _chat_turn(self, answer_cue: str | None) -> tuple[str, str]:
        """Returns what the tokenizer's chat template puts before what a user says, and between that and the answer."""
        mark = "what the user says"
        messages = [{"role": "user", "content": mark}]
        try:
            turn = render_turn(self.tokenizer, messages)
        except Exception as error:  # no template, or one that raises what it likes
            raise ConfigError(
                "data.answer_form: 'chat' needs a tokenizer with a chat template: "
                f"{first_line(error)[:200]}; use 'plain'"
            ) from error
        head, found, tail = turn.partition(mark)
        if not found or mark in tail:
            raise ConfigError("data.answer_form: the tokenizer's chat template leaves a user's text out; use 'plain'")
        cue = tail.rstrip(" ")  # the space belongs to the answer
        if answer_cue not in (None, cue):
            raise ConfigError(
                f"data.answer_cue: {answer_cue!r} is not what the tokenizer's chat template has before an answer "
                f"({cue!r}); leave it out with data.answer_form=chat"
            )
        return head, cue
