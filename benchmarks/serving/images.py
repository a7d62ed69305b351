"""A second question about an image beside the first one, whose image is decoded and encoded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.serving.asking import Asked, Clock, picture
from benchmarks.speed.harness import Floor, Result, Round

FIRST, SECOND = "first question", "second question"
PHOTO = (640, 480)
"""Width and height of COCO's photographs."""


def ask_twice(runs: Sequence[Path], rounds: int, tokens: int, clock: Clock) -> Result:
    """Returns answers a second, one row at a time: an image nobody asked about, then the same one again.

    Both are timed from the bytes of the file to the text of the answer.
    """
    asked = Asked(runs)
    measured: list[Round] = []
    for number in range(rounds + 1):
        content = picture(100 + number, PHOTO, "JPEG")
        each: Round = {}
        for question, name in enumerate((FIRST, SECOND)):
            began = clock()
            asked.engine.answer([asked.row(asked.names[0], number + question, tokens, content)])
            each[name] = {"rate": 1 / (clock() - began)}
        measured.append(each)
    return Result("one image", "answers", measured[1:], [Floor("second over first", SECOND, FIRST, 3.0)])
