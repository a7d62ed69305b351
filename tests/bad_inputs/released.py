"""Adapters of the released DePT code: the one pickle this package reads, through torch's restricted unpickler."""

import io
import json
import os
import pickle
import zipfile

import torch
from safetensors.torch import save_file

from tests.bad_inputs.case import Case, cut

WEIGHTS, CONFIG = "adapter_model.bin", "adapter_config.json"
_SETTINGS = {
    "peft_type": "PROMPT_TUNING_LORA", "task_type": "SEQ_2_SEQ_LM", "num_virtual_tokens": 2, "token_dim": 768,
    "num_transformer_submodules": 1, "r": 3, "lora_alpha": 8, "max_length": 4, "num_layers": 12,
    "base_model_name_or_path": "t5-base", "prompt_tuning_init": "RANDOM",
}  # fmt: skip
_TENSORS = {
    "prompt_embeddings": torch.zeros(2, 768),
    "prompt_encoder.lora_embedding_A": torch.zeros(4, 3),
    "prompt_encoder.lora_embedding_B": torch.zeros(3, 768),
}


class _Runs:
    """Unpickled without care, this makes a file called hacked."""

    def __reduce__(self):
        return os.system, ("touch hacked",)


def _import(weights=None, settings=_SETTINGS):
    """Imports a folder with these settings and whatever `weights` writes."""

    def make(folder, base):
        source = folder / "cola"
        source.mkdir()
        torch.save(_TENSORS, source / WEIGHTS)
        content = settings if isinstance(settings, bytes) else json.dumps(settings).encode()
        (source / CONFIG).write_bytes(content)
        if weights:
            weights(source / WEIGHTS)
        return ["import-released", "cola", "--out", "run"]

    return make


def _safetensors(write):
    """Leaves `write` 's adapter_model.safetensors in the pickle's place."""

    def spoil(path):
        path.unlink()
        write(path.with_suffix(".safetensors"))

    return spoil


def _saved(content, **options):
    return lambda path: torch.save(content, path, **options)


def _bytes(content):
    return lambda path: path.write_bytes(content)


def _zip_bomb(path):
    """Packs the pickled tensors' values as 70 MB of zeros in a few kilobytes."""
    with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as source, zipfile.ZipFile(path, "w") as target:
        for record in source.infolist():
            packed = zipfile.ZIP_DEFLATED
            target.writestr(record.filename, source.read(record), packed)
        target.writestr("archive/data/99", b"\0" * (70 << 20), zipfile.ZIP_DEFLATED)


def _pipe(path):
    path.unlink()
    os.mkfifo(path)


def _changed(**changes):
    return {**_SETTINGS, **changes}


def _with(**tensors):
    return _saved({**_TENSORS, **tensors})


_NESTED: list = []
_NESTED.append(_NESTED)

_WEIGHTS = {
    "pickle-runs-code": (_bytes(pickle.dumps(_Runs())), ("refused, nothing in it was executed",)),
    "zip-runs-code": (_saved(_Runs()), ("refused, nothing in it was executed",)),
    "code-beside-tensors": (_saved({**_TENSORS, "x": _Runs()}), ("refused, nothing in it was executed",)),
    "old-format-runs-code": (
        _saved({"x": _Runs()}, _use_new_zipfile_serialization=False),
        ("refused, nothing in it was executed",),
    ),
    "global-eval": (_bytes(b"\x80\x02cbuiltins\neval\nX\x01\0\0\0001\x85R."), ("refused",)),
    "whole-module": (_saved(torch.nn.Linear(2, 2)), ("refused",)),
    "nested-dict": (_saved({"state_dict": _TENSORS}), ("expected a flat dict of tensors",)),
    "list": (_saved(list(_TENSORS.values())), ("expected a flat dict of tensors",)),
    "refers-to-itself": (_saved(_NESTED), ("refused",)),
    "numbers": (_saved({"prompt_embeddings": 3.0}), ("expected a flat dict of tensors",)),
    "names-are-numbers": (_saved({1: torch.zeros(2)}), ("expected a flat dict of tensors",)),
    "tensor-alone": (_saved(torch.zeros(2, 768)), ("expected a flat dict of tensors",)),
    "nan": (_with(prompt_embeddings=torch.full((2, 768), float("nan"))), ("not finite",)),
    "shape": (_with(prompt_embeddings=torch.zeros(3, 768)), ("prompt_embeddings is (3, 768)",)),
    "dtype": (_with(prompt_embeddings=torch.zeros(2, 768).long()), ("int64",)),
    "sparse": (_with(prompt_embeddings=torch.zeros(2, 768).to_sparse()), ("prompt_embeddings",)),
    "meta": (_with(prompt_embeddings=torch.zeros(2, 768, device="meta")), ()),
    "extra": (_with(lm_head=torch.zeros(1)), ("unexpected lm_head",)),
    "too-large": (_with(lm_head=torch.zeros(1 << 20)), ("is larger than",)),
    "zip-bomb": (_zip_bomb, ("unpacks to",)),
    "empty": (_bytes(b""), ("damaged",)),
    "text": (_bytes(b"version https://git-lfs.github.com/spec/v1\n"), ("damaged",)),
    "zip-empty": (_bytes(b"PK\x05\x06" + b"\0" * 18), ("damaged",)),
    "pipe": (_pipe, ("is missing",)),
}

_SAFETENSORS = {
    "damaged": (lambda path: path.write_bytes(b"\xff" * 40), ("damaged or not a safetensors file",)),
    "shape": (
        lambda path: save_file({**_TENSORS, "prompt_embeddings": torch.zeros(3, 768)}, path),
        ("prompt_embeddings is (3, 768)",),
    ),
    "extra": (lambda path: save_file({**_TENSORS, "lm_head": torch.zeros(1)}, path), ("unexpected lm_head",)),
    "too-large": (lambda path: save_file({**_TENSORS, "x": torch.zeros(1 << 20)}, path), ("is larger than",)),
}

_CONFIGS = {
    "config-list": (b"[]", ("adapter_config.json",)),
    "config-deep": (b"[" * 90_000, ("adapter_config.json", "deeply")),
    "config-huge": (b" " * (2 << 20), ("adapter_config.json", "larger than")),
    "config-prompt-huge": (_changed(num_virtual_tokens=10**15), ("num_virtual_tokens",)),
    "config-rank-negative": (_changed(r=-3), ("r:",)),
    "config-alpha-nan": (_changed(lora_alpha=float("nan")), ("lora_alpha",)),
    "config-lora": (_changed(peft_type="LORA"), ("peft_type",)),
    "config-backbone-path": (_changed(base_model_name_or_path="../../evil"), ("'../../evil'", "not a published T5")),
    "config-backbone-url": (_changed(base_model_name_or_path="https://example.org/t5"), ("not a published T5",)),
}

CASES = [
    *(Case(f"bin/{name}", _import(spoil), ("cola", WEIGHTS, *says)) for name, (spoil, says) in _WEIGHTS.items()),
    *(Case(f"bin/{name}", _import(None, settings), ("cola", *says)) for name, (settings, says) in _CONFIGS.items()),
    *(
        Case(f"bin/cut-at-{share}", _import(lambda path, share=share: cut(path, share)), ("cola/", WEIGHTS, "damaged"))
        for share in (0.2, 0.6, 0.98)
    ),
    *(
        Case(f"released-safetensors/{name}", _import(_safetensors(write)), ("cola/adapter_model.safetensors", *says))
        for name, (write, says) in _SAFETENSORS.items()
    ),
    Case(
        "bin/own-adapter",
        _import(settings={**_SETTINGS, "dept_vl_version": "0.1.0"}),
        ("cola: an adapter of this package, which needs no import",),
    ),
    Case("bin/task-path", lambda f, b: [*_import()(f, b), "--task", "../../x"], ("unknown task '../../x'",)),
]
