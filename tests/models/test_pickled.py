"""Tensors out of pickled files: what comes out, and that nothing in them runs."""

import os
import zipfile

import pytest
import torch

from dept_vl.errors import CheckpointError
from dept_vl.models.pickled import read_pickled, read_torchscript

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1, 2]), "half": torch.ones(2).half()}


class _Runs:
    """Unpickled without care, this makes a file called hacked."""

    def __reduce__(self):
        return os.system, ("touch hacked",)


def equal(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}], ids=["zip", "old format"])
@pytest.mark.parametrize("wrap", [lambda tensors: tensors, lambda tensors: {"state_dict": tensors, "epoch": 3}])
def test_tensors_keep_their_bits_and_types(tmp_path, options, wrap):
    torch.save(wrap(TENSORS), tmp_path / "w.bin", **options)
    equal(read_pickled(tmp_path / "w.bin"), TENSORS)


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}], ids=["zip", "old format"])
def test_code_in_a_pickle_is_not_run(tmp_path, monkeypatch, options):
    monkeypatch.chdir(tmp_path)
    torch.save({**TENSORS, "x": _Runs()}, "w.bin", **options)
    with pytest.raises(CheckpointError, match=r"w\.bin: refused, nothing in it was executed"):
        read_pickled(tmp_path / "w.bin")
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "expected tensors by name, got list"),
        ({}, "expected tensors by name, got dict"),
        ({"step": 3}, "'step' is int: is it the state of a training"),
        ({"optimizer": {"a": torch.ones(1)}}, "'optimizer' is dict"),
    ],
)
def test_what_is_no_weights_is_named(tmp_path, content, message):
    torch.save(content, tmp_path / "w.bin")
    with pytest.raises(CheckpointError, match=message):
        read_pickled(tmp_path / "w.bin")


class Inner(torch.nn.Module):
    sizes: list[int]

    def __init__(self):
        super().__init__()
        self.sizes = [1, 2]
        self.weight = torch.nn.Parameter(torch.arange(4.0))
        self.register_buffer("count", torch.tensor(7))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight


class Outer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Inner()
        self.layers = torch.nn.Sequential(torch.nn.Linear(4, 2).half(), torch.nn.BatchNorm1d(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)


def archive(path, module=None):
    module = module or Outer()
    torch.jit.script(module).save(str(path))
    return module.state_dict()


@pytest.mark.filterwarnings("ignore")  # torch.jit is to go some day
def test_a_torchscript_archive_gives_its_state_without_its_code(tmp_path):
    expected = archive(tmp_path / "model.pt")
    equal(read_torchscript(tmp_path / "model.pt"), expected)


@pytest.mark.filterwarnings("ignore")
def test_an_archive_whose_pickle_names_something_else_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    archive(tmp_path / "model.pt")
    torch.save(_Runs(), tmp_path / "evil.pt")
    with zipfile.ZipFile(tmp_path / "evil.pt") as evil:
        pickled = evil.read(next(name for name in evil.namelist() if name.endswith("data.pkl")))
    with zipfile.ZipFile(tmp_path / "model.pt") as source, zipfile.ZipFile(tmp_path / "mixed.pt", "w") as target:
        for record in source.infolist():
            content = pickled if record.filename.endswith("data.pkl") else source.read(record)
            target.writestr(record.filename, content)
    with pytest.raises(CheckpointError, match=r"mixed\.pt: refused, nothing in it was executed"):
        read_torchscript(tmp_path / "mixed.pt")
    assert not (tmp_path / "hacked").exists()


def test_a_zip_that_unpacks_to_more_than_itself_is_refused(tmp_path):
    torch.save(TENSORS, tmp_path / "w.bin")
    with zipfile.ZipFile(tmp_path / "w.bin") as source, zipfile.ZipFile(tmp_path / "bomb.bin", "w") as target:
        for record in source.infolist():
            target.writestr(record.filename, source.read(record), zipfile.ZIP_DEFLATED)
        target.writestr("w/data/99", b"\0" * (24 << 20), zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match=r"unpacks to [\d,]+ bytes, far more than the file has; refused"):
        read_pickled(tmp_path / "bomb.bin")
