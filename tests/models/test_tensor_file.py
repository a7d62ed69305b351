"""safetensors files that are written from the tensors' own memory: the library's bytes, and no copy."""

import json
from io import BytesIO

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from dept_vl.models.tensor_file import CODES, write_tensors


def written(tensors, metadata=None):
    file = BytesIO()
    write_tensors(file, tensors, metadata)
    return file.getvalue()


def some(dtype=torch.float32):
    torch.manual_seed(0)
    return {"b.weight": torch.randn(3, 5).to(dtype), "a": torch.randn(7).to(dtype), "ß": torch.randn(()).to(dtype)}


@pytest.mark.parametrize("dtype", [*CODES.values(), torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_they_are_the_bytes_of_the_library(dtype, metadata):
    assert written(some(dtype), metadata) == save(some(dtype), metadata)


def test_the_library_reads_several_types_and_shapes():
    tensors = {
        **{str(dtype): some(dtype)["b.weight"] for dtype in CODES.values()},
        "empty": torch.zeros(0, 4),
        "turned": torch.arange(12.0).reshape(3, 4).T,
        "trained": torch.nn.Parameter(torch.randn(2)),
    }
    found = load(written(tensors))
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_metadata_is_in_order_whatever_it_is_given_in():
    given = {"z": "1", "a": '{"x": "ö"}', "m": ""}
    content = written(some(), given)
    assert content == written(some(), dict(reversed(given.items())))
    size = int.from_bytes(content[:8], "little")
    assert list(json.loads(content[8 : 8 + size])["__metadata__"].items()) == sorted(given.items())
    assert size % 8 == 0


def test_a_tensor_is_written_from_its_own_memory():
    addresses = []

    class File:
        def write(self, content):
            if isinstance(content, memoryview):
                addresses.append(np.frombuffer(content, dtype=np.uint8).ctypes.data)

    tensors = some()
    write_tensors(File(), tensors)
    assert sorted(addresses) == sorted(tensor.data_ptr() for tensor in tensors.values())
