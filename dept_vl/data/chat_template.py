"""A chat template as text, the same on every day."""

from __future__ import annotations

import datetime
import json
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

logger = logging.getLogger(__name__)

TODAY = datetime.date(2025, 1, 1)
"""The day that templates write which write today's date: else what a model reads would change from day to day."""

_NOW = "strftime_now"
"""What transformers calls the function that gives templates the date."""

_FORMAT = re.compile(_NOW + r"\s*\(\s*(?:'([^']*)'|\"([^\"]*)\")\s*\)")


def render_turn(owner: Any, messages: Sequence[Mapping[str, Any]]) -> str:
    """Returns what a chat template makes of some messages, and what leads to an answer.

    Args:
        owner: transformers' tokenizer or processor.
        messages: As it takes them.

    Raises:
        Exception: Of any type: there is no template, or it raises what it likes; or it asks for the date in a way
            that is not written out in it.
    """
    template = owner.chat_template
    if isinstance(template, Mapping):
        template = template.get("default")
    if not isinstance(template, str) or _NOW not in template:
        return str(owner.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True))
    days = {form: TODAY.strftime(form) for pair in _FORMAT.findall(template) for form in pair if form}
    fixed = _macro(days) + template
    turn = str(
        owner.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True, chat_template=fixed)
    )
    if any(day in turn for day in days.values()):
        logger.warning(
            "the backbone's chat template writes today's date; here it is always %s, so that a run reads the same on "
            "every day", TODAY.isoformat(),
        )  # fmt: skip
    return turn


def _macro(days: Mapping[str, str]) -> str:
    """Returns what, before a template, stands for `_NOW` in it; from format to date."""
    unknown = "it asks for the date in a format that is not written out in it, and a date would change from day to day"
    return (
        f"{{% macro {_NOW}(format) %}}{{% set days = {json.dumps(days)} %}}"
        f"{{% if format not in days %}}{{{{ raise_exception({unknown!r}) }}}}{{% endif %}}{{{{ days[format] }}}}"
        "{% endmacro %}{{ '' }}"
    )
