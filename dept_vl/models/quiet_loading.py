"""How transformers is kept from what it does beside loading a model: bars, warnings, and sharing weights out."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from transformers.utils import logging as transformers_logging


@contextmanager
def weights_in_every_process() -> Iterator[None]:
    """Keeps transformers from reading weights in the first process only.

    Launched with FSDP it would leave them to accelerate to send on, by default; `dept_vl.models.sharding` has no need
    of that.
    """
    name = "FSDP_CPU_RAM_EFFICIENT_LOADING"
    before = os.environ.get(name)
    os.environ[name] = "false"
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silences loading bars and the warning that T5 v1.1 has an output matrix of its own; what matters is raised."""
    verbosity = transformers_logging.get_verbosity()
    had_bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.ERROR)
    cast(Any, transformers_logging).disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if had_bars:
            cast(Any, transformers_logging).enable_progress_bar()
