"""The chat template of a processor as the pieces that a source is put together from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from dept_vl.data.chat_template import render_turn
from dept_vl.errors import ConfigError, first_line

_MARK = "what the user says"


@dataclass(frozen=True)
class Template:
    """One user's turn with images and a text, and what leads to the answer, as texts.

    Attributes:
        head: Before the first image of a turn.
        image: What stands for one image, before the processor makes as many placeholders of it as it needs.
        between: Between the last image and the text.
        text_head: Before the text of a turn without images.
        tail: Behind the text.
    """

    head: str
    image: str
    between: str
    text_head: str
    tail: str


def read_template(processor: Any, system_prompt: str | None = None) -> Template:
    """Returns the chat template of a processor, taken apart.

    It is rendered for a turn without an image, with one and with two: what the second image adds is what stands for an
    image, and what the first two have in common before it is the head. So no family's markers need be known here.

    Args:
        processor: transformers' processor of images and texts.
        system_prompt: What a system's turn before it says; None for none, or the template's own.

    Raises:
        ConfigError: There is no chat template, or it leaves out what the user says, or does not put a turn's images
            one after the other before it; or it has no room for a system prompt.
    """
    without, tail = _around_text(processor, 0, system_prompt)
    one, its_tail = _around_text(processor, 1, system_prompt)
    two, their_tail = _around_text(processor, 2, system_prompt)
    head = _common_start(without, one)
    size = len(two) - len(one)
    image, between = two[len(head) : len(head) + size], one[len(head) + size :]
    if size <= 0 or (one, two) != (head + image + between, head + image * 2 + between):
        raise ConfigError(
            "model.backbone: the chat template of its processor does not put the images of a user's turn one after "
            f"the other before the text ({two!r:.200} with two images); another template is needed"
        )
    if not tail == its_tail == their_tail:
        raise ConfigError(
            "model.backbone: what the chat template of its processor puts behind a user's text depends on how many "
            f"images there are ({tail!r:.80} without one, {its_tail!r:.80} with one); another template is needed"
        )
    return Template(head, image, between, without, tail)


def _around_text(processor: Any, num_images: int, system_prompt: str | None) -> tuple[str, str]:
    """Returns what stands before and behind what a user says beside so many images."""
    content = [*({"type": "image"} for _ in range(num_images)), {"type": "text", "text": _MARK}]
    messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
    if system_prompt is not None:
        messages.insert(0, {"role": "system", "content": [{"type": "text", "text": system_prompt}]})
    try:
        turn = render_turn(processor, messages)
    except Exception as error:  # no template, or one that raises what it likes
        raise ConfigError(
            "model.backbone: a vision-language model is asked by the chat template of its processor"
            f"{'' if system_prompt is None else ', here with model.system_prompt'}: {first_line(error)[:200]}"
        ) from error
    before, found, behind = turn.partition(_MARK)
    if not found or _MARK in behind:
        raise ConfigError(
            "model.backbone: the chat template of its processor leaves a user's text out, or says it twice; it needs a "
            "template that has it once"
        )
    if system_prompt is not None and system_prompt.strip() not in before:
        raise ConfigError("model.system_prompt: the chat template of the backbone's processor leaves it out")
    return before, behind


def _common_start(one: str, other: str) -> str:
    end = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return one[:end]


def tokenize(tokenizer: Callable[..., Any], text: str) -> tuple[int, ...]:
    """Returns the ids of a piece of a template, without special tokens beside those that it writes out."""
    ids: Sequence[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"] if text else ()
    return tuple(ids)
