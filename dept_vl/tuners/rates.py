"""Peak learning rates: numbers, or multiples of the size of the word embeddings (``0.25x``). No torch."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

PROMPT_RATE, UPDATE_RATE = "0.4x", "0.02x"
"""Peak rates of a soft prompt and of a low-rank update of word embeddings where none is given, for any backbone.

In hundreds of steps both move by a part of the embeddings' own size that matters and does not drown it (measured in
docs/method.md). The paper's 0.3 and 5e-4, for tens of thousands of steps of T5-base, are in ``configs``.
"""

_SIGN = "x"
_NUMBER: TypeAdapter[float] = TypeAdapter(Annotated[float, Field(gt=0, allow_inf_nan=False)])


def checked_rate(value: Any) -> float | str:
    """Returns a number above 0, or one followed by ``x``, as it is written here.

    ``0.25x`` is 0.25 times the root mean square of the frozen word embeddings, so that it means the same for backbones
    whose embeddings differ in size. It suits what stands beside word embeddings or is added to them.

    Raises:
        ValueError: It is neither.
    """
    if not (isinstance(value, str) and value.endswith(_SIGN)):
        return _NUMBER.validate_python(value)
    try:
        return f"{_NUMBER.validate_python(value.removesuffix(_SIGN))!r}{_SIGN}"
    except ValidationError:
        raise ValueError("should be a number above 0 before the x, as in 0.3x") from None


def rate_number(rate: float | str) -> float:
    """Returns the number of a rate, without its unit."""
    return float(rate.removesuffix(_SIGN)) if isinstance(rate, str) else rate


def shown_rate(rate: float | str) -> str:
    """Returns a rate in few digits, with its unit."""
    return f"{rate_number(rate):g}{_SIGN if isinstance(rate, str) else ''}"
