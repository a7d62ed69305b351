"""The kinds of tasks that a file can declare, and what any task may be called."""

from __future__ import annotations

import re
from typing import Literal

TaskKind = Literal["question", "caption", "image-label", "text-label", "text"]
"""What goes in and what comes out.

``question``: an image and a question to an answer; ``caption``: an image to captions; ``image-label`` and
``text-label``: one of a set of labels, whose likelihoods are compared; ``text``: text to text.
"""

VALID_NAME = re.compile(r"^[a-z0-9][a-z0-9_-]*$")
