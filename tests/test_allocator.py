"""Freed memory is used again inside, and given back after."""

import ctypes
import resource
from pathlib import Path

import pytest
import torch

from dept_vl.allocator import reused_memory

MIB = 2**20
needs_glibc = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="another C library: nothing to tune")


def page_faults(times: int = 10) -> int:
    """Allocates, fills and frees 64 MiB again and again."""
    torch.ones(64 * MIB // 4)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.ones(64 * MIB // 4)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


@needs_glibc
def test_pages_are_asked_for_once_inside_and_each_time_outside():
    outside = page_faults()
    with reused_memory():
        inside = page_faults()
    assert inside < outside / 20


@needs_glibc
def test_what_was_kept_is_given_back():
    before = resident()
    with reused_memory():
        torch.ones(512 * MIB // 4)
        assert resident() > before + 400 * MIB
    assert resident() < before + 100 * MIB
