"""The memory of this process: how much it has needed, and keeping glibc from returning it between forward passes."""

from __future__ import annotations

import ctypes
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # malloc.h
_MIB, _GIB = 2**20, 2**30
_STATUS = Path("/proc/self/status")
_PEAK = "VmHWM:"


def peak_resident_gib() -> float:
    """Returns the most resident memory that this process has had so far, GiB; not that of its loader processes.

    Linux counts it for this program alone; elsewhere it is what `getrusage` says.
    """
    try:
        lines = _STATUS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith(_PEAK):
            return int(line.split()[1]) * 1024 / _GIB
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / _GIB


def peak_gpu_gib() -> float | None:
    """Returns the most memory that torch has held of this process's GPU so far, GiB; None where it has used none.

    The driver's own, some hundred MiB, is not in it.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    return float(torch.cuda.max_memory_reserved()) / _GIB


def describe_peak() -> str:
    """Returns the peaks for people: ``1.4 GiB``, with a GPU ``2.1 GiB, GPU 11.3 GiB``."""
    gpu = peak_gpu_gib()
    return f"{peak_resident_gib():.1f} GiB" + ("" if gpu is None else f", GPU {gpu:.1f} GiB")


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
