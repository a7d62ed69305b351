"""Adapters: header tricks of safetensors, settings that lie; met by `predict` and by `--init-from`."""

import json
import os
import struct

import torch
from safetensors.torch import load_file, save, save_file

from tests.bad_inputs.caches import header, with_header
from tests.bad_inputs.case import Case, copied, cut, edited

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


def _eval(spoil):
    """Copies the text run, spoils its adapter, and answers with it."""

    def make(folder, base):
        spoil(copied(base.text_run, folder, "run"))
        return ["predict", "--checkpoint", "run", "--column", "sentence=a small red cube"]

    return make


def _init(spoil):
    def make(folder, base):
        spoil(copied(base.text_run, folder, "source"))
        return [
            "train", "--task", "cola", "--data-dir", base.text_data, "--output-dir", "run", "--init-from", "source",
            "--model.backbone", base.t5, "--data.max_source_length", "16", "--tuner.budget_tokens", "20",
            "--tuner.num_virtual_tokens", "4",
        ]  # fmt: skip

    return make


def _tensors(change):
    """Rewrites the tensors and keeps the header's copy of the settings."""

    def spoil(run):
        path = run / WEIGHTS
        metadata = header(path.read_bytes())[0]["__metadata__"]
        save_file(change(load_file(path)), path, metadata)

    return spoil


def _value(number, dtype=torch.float32):
    def change(tensors):
        name = sorted(tensors)[0]
        flat = tensors[name].flatten().clone()
        flat[0] = number
        return {**tensors, name: flat.reshape(tensors[name].shape).to(dtype)}

    return _tensors(change)


def _dtype(dtype):
    return _tensors(lambda tensors: {name: tensor.to(dtype) for name, tensor in tensors.items()})


def _both(**changes):
    return both_settings(lambda config: changes)


def both_settings(change_settings):
    """Changes an adapter's settings in both places, as whoever makes one can."""

    def spoil(run):
        edited(run / CONFIG, lambda config: {**config, **change_settings(config)})
        config = json.loads((run / CONFIG).read_text())

        def change(described):
            described["__metadata__"]["adapter_config"] = json.dumps(config)

        with_header(run / WEIGHTS, change)

    return spoil


def _header(change, size=None):
    return lambda run: with_header(run / WEIGHTS, change, size)


def _first(**changes):
    def change(described):
        name = next(name for name in described if name != "__metadata__")
        described[name] |= changes

    return _header(change)


def _overlap(described):
    names = [name for name in described if name != "__metadata__"]
    described[names[0]] = described[names[1]]


def _many(run):
    metadata = header((run / WEIGHTS).read_bytes())[0]["__metadata__"]
    entries = {f"t{n}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in range(100_000)}
    text = json.dumps({"__metadata__": metadata, **entries}).encode()
    (run / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text)


def _settings(change):
    return lambda run: edited(run / CONFIG, change)


def _write(name, content):
    return lambda run: (run / name).write_bytes(content)


def _pipe(name):
    def spoil(run):
        (run / name).unlink()
        os.mkfifo(run / name)

    return spoil


def _pickle(run):
    torch.save({"tuner.soft_prompt": torch.zeros(4, 16)}, run / WEIGHTS)


def _bare(run):
    (run / WEIGHTS).write_bytes(save({"a": torch.zeros(1)}))


_BACKBONE = {
    "name": "evil", "d_model": 10**9, "num_layers": 10**9, "num_decoder_layers": 2, "vocab_size": 10**9,
    "weights_sha256": None, "family": "t5",
}  # fmt: skip

_CASES = {
    "weights-missing": (lambda r: (r / WEIGHTS).unlink(), ("no adapter here", WEIGHTS)),
    "weights-empty": (_write(WEIGHTS, b""), (WEIGHTS, "damaged or not a safetensors file")),
    "weights-pickle": (_pickle, (WEIGHTS, "damaged or not a safetensors file")),
    "weights-pipe": (_pipe(WEIGHTS), (WEIGHTS,)),
    "weights-foreign": (_bare, (WEIGHTS, "was not written by dept-vl")),
    "header-huge": (_header(lambda d: None, size=2**60), (WEIGHTS, "damaged or not")),
    "header-over-the-limit": (_header(lambda d: None, size=101 * 2**20), (WEIGHTS, "damaged or not")),
    "header-not-json": (_header(lambda d: b"{" * 50), (WEIGHTS, "damaged or not")),
    "header-deep": (_header(lambda d: b"[" * 90_000), (WEIGHTS, "damaged or not")),
    "header-overlap": (_header(_overlap), (WEIGHTS,)),
    "header-100000-entries": (_many, ("run", "missing tuner.", "in all")),
    "header-shape-huge": (_first(shape=[2**40, 2**40]), (WEIGHTS, "damaged or not")),
    "header-shape-lies": (_first(shape=[1, 1]), (WEIGHTS, "damaged or not")),
    "header-offsets-outside": (_first(data_offsets=[0, 2**40]), (WEIGHTS, "damaged or not")),
    "header-offsets-reversed": (_first(data_offsets=[64, 0]), (WEIGHTS, "damaged or not")),
    "header-dtype-unknown": (_first(dtype="PICKLE"), (WEIGHTS, "damaged or not")),
    "header-settings-differ": (
        _settings(lambda c: {**c, "answer_cue": "x"}),
        (WEIGHTS, CONFIG, "do not belong together"),
    ),
    "tensor-nan": (_value(float("nan")), (WEIGHTS, "not finite")),
    "tensor-infinite": (_value(float("-inf")), (WEIGHTS, "not finite")),
    "tensor-float64": (_dtype(torch.float64), ("run", "torch.float64")),
    "tensor-int64": (_dtype(torch.int64), ("run", "torch.int64")),
    "tensor-bool": (_dtype(torch.bool), ("run", "torch.bool")),
    "tensor-float8": (_dtype(torch.float8_e4m3fn), ("run", "F8_E4M3")),
    "tensor-complex": (_dtype(torch.complex64), ("run", "C64")),
    "tensor-missing": (_tensors(lambda t: dict(list(t.items())[1:])), ("run", "missing tuner.")),
    "tensor-extra": (_tensors(lambda t: {**t, "extra": torch.zeros(1)}), ("run", "unexpected extra")),
    "tensor-name-path": (_tensors(lambda t: {**t, "../../x": torch.zeros(1)}), ("run", "unexpected ../../x")),
    "tensor-shape": (_tensors(lambda t: {n: v[:1].clone() for n, v in t.items()}), ("run", "does not fit")),
    "config-missing": (lambda r: (r / CONFIG).unlink(), ("no adapter here", CONFIG)),
    "config-empty": (_write(CONFIG, b""), (CONFIG, "not valid JSON")),
    "config-list": (_write(CONFIG, b"[]"), (CONFIG, "format_version is None")),
    "config-deep": (_write(CONFIG, b"[" * 90_000), (CONFIG, "deeply")),
    "config-huge": (_write(CONFIG, b" " * (2 << 20)), (CONFIG, "larger than 1,048,576 bytes")),
    "config-pipe": (_pipe(CONFIG), (CONFIG,)),
    "config-latin-1": (_write(CONFIG, b'{"task": "\xe9"}'), (CONFIG, "not valid JSON")),
    "config-version": (_both(format_version=3), (CONFIG, "format_version is 3")),
    "config-remote-code": (_both(trust_remote_code=True), (CONFIG, "trust_remote_code")),
    "config-tokenizer": (_both(tokenizer_kwargs={"trust_remote_code": True}), (CONFIG, "tokenizer_kwargs")),
    "config-url": (_both(weights_url="https://example.org/x"), (CONFIG, "weights_url")),
    "config-backbone-huge": (_both(backbone=_BACKBONE), ("run", "backbone.d_model", "1000000000")),
    "config-prompt-huge": (_both(facts={"m": 10**12}), ("run", "tuner's m", "1000000000000")),
    "config-rank-nan": (_both(facts={"r": float("nan")}), (CONFIG, "facts.r")),
    "config-length-huge": (_both(max_source_length=10**15), ("run", "max_source_length")),
    "config-tuner-huge": (_both(tuner={"name": "dept", "num_virtual_tokens": 10**9}), (CONFIG, "tuner")),
    "config-tuner-unknown": (_both(tuner={"name": "os.system"}), (CONFIG, "tuner")),
    "config-cue-is-a-list": (_both(answer_cue=["a"]), (CONFIG, "answer_cue")),
    "run-config-climbs": (_write("config.yaml", b"task: ../../x\n"), ("unknown task '../../x'",)),
    "run-config-object": (_write("config.yaml", b"task: !!python/name:os.system\n"), ("config.yaml", "not valid")),
    "run-config-missing": (lambda r: (r / "config.yaml").unlink(), ("run: no run here",)),
}

_BOTH_WAYS = ("tensor-nan", "tensor-float8", "tensor-shape", "header-overlap", "config-tuner-huge", "weights-pickle")

CASES = [
    *(Case(f"adapter/{name}", _eval(spoil), says) for name, (spoil, says) in _CASES.items()),
    *(
        Case(f"adapter/cut-at-{share}", _eval(lambda run, share=share: cut(run / WEIGHTS, share)), (WEIGHTS, "damaged"))
        for share in (0.001, 0.3, 0.99)
    ),
    *(Case(f"init-from/{name}", _init(_CASES[name][0]), ("source",)) for name in _BOTH_WAYS),
    Case("init-from/nowhere", _init(lambda run: run.rename(run.parent / "elsewhere")), ("source", "no adapter here")),
]
