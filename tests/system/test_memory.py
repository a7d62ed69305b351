"""Peak memory; freed memory is used again inside, and given back after. In processes of their own: one heap each."""

import ctypes
import resource

import pytest
import torch

from dept_vl.system.memory import describe_peak, peak_gpu_gib, peak_resident_gib, reused_memory

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


def grow_and_shrink():
    before = peak_resident_gib()
    torch.ones(512 * MIB // 4)
    assert before + 0.4 < peak_resident_gib() < before + 0.6
    if not torch.cuda.is_available():
        assert peak_gpu_gib() is None
        assert describe_peak() == f"{peak_resident_gib():.1f} GiB"


def test_the_peak_stays_when_memory_is_given_back(fresh_process):
    assert fresh_process.run(grow_and_shrink) == 0, fresh_process.printed()


@pytest.mark.gpu
def test_the_peak_of_a_gpu_is_what_torch_has_held():
    kept = torch.ones(256 * MIB // 4, device="cuda")
    found = peak_gpu_gib()
    assert found is not None
    assert found >= 0.25
    assert f", GPU {found:.1f} GiB" in describe_peak()
    del kept
