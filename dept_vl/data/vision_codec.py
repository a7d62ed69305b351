"""The text of vision-language models: a user's text alone, and the pieces of the chat template around it."""

from __future__ import annotations

from typing import ClassVar

from transformers import PreTrainedTokenizerBase

from dept_vl.data.image_template import Template, tokenize
from dept_vl.data.text_codec import CausalTextCodec, Frame
from dept_vl.errors import ConfigError


class VisionLanguageTextCodec(CausalTextCodec):
    """A source is what the user says, and nothing else; prompt, images and template are put around it as ids.

    So its tokens, and the rows of a low-rank update, are counted from the user's first word whatever the template has,
    and template and text are cut into tokens where a server that is given the pieces one after the other cuts them.
    """

    has_forms: ClassVar[bool] = False

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: Template, answer_cue: str | None = None) -> None:
        """Takes a tokenizer and the template of its processor.

        Args:
            tokenizer: The backbone's.
            template: Its last piece is the cue.
            answer_cue: Checked against that, if given.

        Raises:
            ConfigError: Another cue is asked for.
        """
        self.tokenizer = tokenizer
        self.answer_form = "chat"
        self.answer_cue = template.tail.rstrip(" ")  # the space belongs to the answer
        self.cue_ids = tokenize(tokenizer, self.answer_cue)
        self._ending = ""
        self._adds_special_tokens = False
        self._ends_sources = False
        self._frame = Frame(
            head=tokenize(tokenizer, template.head),
            between=tokenize(tokenizer, template.between),
            text_head=tokenize(tokenizer, template.text_head),
            tail=self.cue_ids,
        )
        if answer_cue not in (None, self.answer_cue):
            raise ConfigError(
                f"data.answer_cue: {answer_cue!r} is not what the template of the backbone's processor has before an "
                f"answer ({self.answer_cue!r}); leave it out with a vision-language backbone"
            )

    @property
    def frame(self) -> Frame:
        """See `TextCodec.frame`."""
        return self._frame

    def _cut(self, text: str, ids: list[int], max_length: int) -> list[int]:
        return ids[:max_length]
