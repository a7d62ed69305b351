"""Backbones in pickles, whole and in shards, become folders that load to the same bits."""

import json
import shutil
from importlib.util import find_spec

import pytest
import torch
from safetensors.torch import load_file

from dept_vl.cli import main
from dept_vl.models.language.load import load_backbone
from tests.models.language.causal_folders import save_tiny_gpt2


def pickled(folder, tmp_path, *, shards=1, name="pytorch_model.bin", dtype=None):
    """Copies a backbone with its weights as torch.save wrote them before safetensors: tied names for one memory."""
    copied = shutil.copytree(folder, tmp_path / "old")
    tensors = {key: tensor.to(dtype or tensor.dtype) for key, tensor in load_file(copied / "model.safetensors").items()}
    if "shared.weight" in tensors:
        tied = ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight"]
        tensors |= dict.fromkeys(tied, tensors["shared.weight"])
        tensors.setdefault("lm_head.weight", tensors["shared.weight"])
    else:
        tensors["lm_head.weight"] = tensors["transformer.wte.weight"]
    (copied / "model.safetensors").unlink()
    if shards == 1:
        torch.save(tensors, copied / name)
        return copied
    weight_map = {
        key: f"pytorch_model-{number % shards + 1:05d}-of-{shards:05d}.bin" for number, key in enumerate(tensors)
    }
    for file in set(weight_map.values()):
        torch.save({key: tensor for key, tensor in tensors.items() if weight_map[key] == file}, copied / file)
    (copied / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return copied


def same(one, other):
    first, second = (load_backbone(str(folder))[0].model.state_dict() for folder in (one, other))
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("gated", [False, True])
def test_a_t5_in_pickles_becomes_a_folder_of_the_same_bits(t5_folder, t5_v1_1_folder, tmp_path, shards, gated, capsys):
    folder = t5_v1_1_folder if gated else t5_folder
    old, out = pickled(folder, tmp_path, shards=shards), tmp_path / "new"
    assert main(["convert", str(old), "--out", str(out)]) == 0
    assert f"use it with: --model.backbone {out}" in capsys.readouterr().out
    assert same(folder, out)
    written = load_file(out / "model.safetensors").keys()
    assert written - {"lm_head.weight"} == load_file(folder / "model.safetensors").keys() - {"lm_head.weight"}
    assert not list(out.glob("*.bin"))


def test_a_gpt2_in_a_pickle_of_any_name_becomes_one_too(tmp_path):
    folder = save_tiny_gpt2(tmp_path / "gpt2")
    old = pickled(folder, tmp_path, name="weights.dat")
    torch.save({"seed": 3}, old / "training_args.bin")
    for number, given in enumerate((old, old / "weights.dat")):
        assert main(["convert", str(given), "--out", str(tmp_path / f"new{number}")]) == 0
        assert same(folder, tmp_path / f"new{number}")


def test_weights_keep_their_type(t5_folder, tmp_path):
    old = pickled(t5_folder, tmp_path, dtype=torch.bfloat16)
    assert main(["convert", str(old), "--out", str(tmp_path / "new")]) == 0
    assert {tensor.dtype for tensor in load_file(tmp_path / "new" / "model.safetensors").values()} == {torch.bfloat16}


def test_what_would_not_load_leaves_nothing(t5_folder, tmp_path, capsys):
    old = pickled(t5_folder, tmp_path)
    (old / "tokenizer.json").unlink()
    assert main(["convert", str(old), "--out", str(tmp_path / "new")]) == 2
    assert f"cannot load '{old}': no tokenizer there" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old"]


@pytest.mark.skipif(find_spec("gguf") is not None, reason="the package gguf is installed")
def test_gguf_names_the_package_it_needs(tmp_path, capsys):
    (tmp_path / "model.gguf").write_bytes(b"GGUF" + bytes(60))
    assert main(["convert", str(tmp_path / "model.gguf"), "--out", str(tmp_path / "new")]) == 2
    assert "is GGUF, which needs the package gguf to be read; install it (pip install gguf)" in capsys.readouterr().err


def test_safetensors_need_no_conversion(t5_folder, tmp_path, capsys):
    for given in (t5_folder, t5_folder / "model.safetensors"):
        assert main(["convert", str(given), "--out", str(tmp_path / "new")]) == 2
        assert "safetensors already" in capsys.readouterr().err


def test_two_weight_files_are_told_apart_by_naming_one(t5_folder, tmp_path, capsys):
    old = pickled(t5_folder, tmp_path, name="one.bin")
    shutil.copy(old / "one.bin", old / "two.bin")
    assert main(["convert", str(old), "--out", str(tmp_path / "new")]) == 2
    assert "several weight files (one.bin, two.bin); name the one to convert" in capsys.readouterr().err
    assert main(["convert", str(old / "one.bin"), "--out", str(tmp_path / "new")]) == 0


def test_a_file_called_bin_that_is_something_else_is_named(t5_folder, tmp_path, capsys):
    folder = shutil.copytree(t5_folder, tmp_path / "old")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert main(["convert", str(folder / "pytorch_model.bin"), "--out", str(tmp_path / "new")]) == 2
    assert "is safetensors already" in capsys.readouterr().err
    (folder / "pytorch_model.bin").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    assert main(["convert", str(folder), "--out", str(tmp_path / "new")]) == 2
    assert "pytorch_model.bin: a pointer of git-lfs and not the weights" in capsys.readouterr().err
