"""Stops glibc from returning freed memory between two forward passes."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # malloc.h
_MIB = 2**20


@contextmanager
def reused_memory() -> Iterator[None]:
    """Keeps what is freed inside for what is allocated next; gives it back at the end.

    A large activation otherwise gets fresh pages from the kernel, each cleared at its first touch: a fifth of an
    RN101's forward pass on a CPU (docs/benchmarks.md). Does nothing where the C library is not glibc.
    """
    library = ctypes.CDLL(None)
    if not (hasattr(library, "mallopt") and hasattr(library, "malloc_trim")):
        yield
        return
    library.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    library.mallopt(_MMAP_MAX, 0)
    try:
        yield
    finally:
        # glibc's defaults, the two thresholds at what they adapt to in any process with large arrays
        library.mallopt(_MMAP_MAX, 65_536)
        library.mallopt(_MMAP_THRESHOLD, 32 * _MIB)
        library.mallopt(_TRIM_THRESHOLD, 64 * _MIB)
        library.malloc_trim(0)
