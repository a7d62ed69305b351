"""Benchmarks run in this process here; what they set for it must not outlast the test."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Puts the number of threads back: sums over two round otherwise than sums over one."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
