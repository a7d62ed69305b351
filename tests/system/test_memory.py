"""Freed memory is used again inside, and given back after. In a process of its own: one heap is not another."""

import ctypes
import resource

import pytest
import torch

from dept_vl.system.memory import reused_memory

MIB = 2**20


def page_faults(times=10):
    torch.ones(64 * MIB // 4)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.ones(64 * MIB // 4)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def measure():
    outside, before = page_faults(), resident()
    with reused_memory():
        page_faults()  # the heap grows to its size
        inside = page_faults()
        torch.ones(512 * MIB // 4)
        assert resident() > before + 400 * MIB, (resident(), before)
    assert inside < outside / 20, (inside, outside)
    assert resident() < before + 100 * MIB, (resident(), before)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="another C library than glibc: nothing to tune")
def test_pages_are_asked_for_once_inside_and_given_back_after(fresh_process):
    assert fresh_process.run(measure) == 0, fresh_process.printed()
