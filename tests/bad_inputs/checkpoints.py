"""Training states, met by `train --resume`."""

import os

import torch
from safetensors.torch import load_file, save_file

from tests.bad_inputs.adapters import with_header
from tests.bad_inputs.case import Case, copied, cut, edited

STATE = "step-00000002"


def _resume(spoil):
    def make(folder, base):
        run = copied(base.text_run, folder, "run")
        spoil(run / "checkpoints" / STATE)
        return ["train", "--resume", "--config", "run/config.yaml", "--output-dir", "run"]

    return make


def _tensors(name, change):
    return lambda state: save_file(change(load_file(state / name)), state / name)


def _progress(**changes):
    return lambda state: edited(state / "progress.json", lambda progress: {**progress, **changes})


def _write(name, content):
    return lambda state: (state / name).write_bytes(content)


def _nan(tensors):
    return {name: torch.full_like(tensor, float("nan")) for name, tensor in tensors.items()}


def _first_rows(tensors):
    return {name: tensor[:1].clone() if tensor.dim() else tensor for name, tensor in tensors.items()}


def _pipe(name):
    def spoil(state):
        (state / name).unlink()
        os.mkfifo(state / name)

    return spoil


TRAINABLE, OPTIMIZER, PROGRESS = "trainable.safetensors", "optimizer.safetensors", "progress.json"

_CASES = {
    "trainable-missing": (lambda s: (s / TRAINABLE).unlink(), (STATE, "cannot read the checkpoint")),
    "trainable-cut": (lambda s: cut(s / TRAINABLE, 0.7), (STATE, "cannot read the checkpoint")),
    "trainable-pickle": (lambda s: torch.save({"a": torch.zeros(1)}, s / TRAINABLE), (STATE, "cannot read")),
    "trainable-header-huge": (
        lambda s: with_header(s / TRAINABLE, lambda d: None, size=2**60),
        (STATE, "cannot read the checkpoint"),
    ),
    "trainable-nan": (_tensors(TRAINABLE, _nan), (STATE, "not finite")),
    "trainable-shape": (_tensors(TRAINABLE, _first_rows), (STATE, "holds trainable tensors")),
    "trainable-dtype": (
        _tensors(TRAINABLE, lambda t: {n: v.double() for n, v in t.items()}),
        (STATE, "torch.float64"),
    ),
    "trainable-empty": (_tensors(TRAINABLE, lambda t: {}), (STATE, "holds trainable tensors {}")),
    "optimizer-cut": (lambda s: cut(s / OPTIMIZER, 0.7), (STATE, "cannot read the checkpoint")),
    "optimizer-nan": (_tensors(OPTIMIZER, _nan), (STATE, "not finite")),
    "optimizer-shape": (_tensors(OPTIMIZER, _first_rows), (OPTIMIZER, "no moment of this run's")),
    "optimizer-names": (
        _tensors(OPTIMIZER, lambda t: {f"x{n}": v for n, v in t.items()}),
        (OPTIMIZER, "no moment of this run's"),
    ),
    "optimizer-empty": (_tensors(OPTIMIZER, lambda t: {}), (OPTIMIZER, "moments")),
    "progress-missing": (lambda s: (s / PROGRESS).unlink(), (STATE, "cannot read the checkpoint")),
    "progress-cut": (lambda s: cut(s / PROGRESS, 0.5), (f"{STATE}/progress.json",)),
    "progress-empty": (_write(PROGRESS, b""), (f"{STATE}/progress.json",)),
    "progress-deep": (_write(PROGRESS, b"[" * 90_000), (f"{STATE}/progress.json",)),
    "progress-pipe": (_pipe(PROGRESS), (STATE, "pipe")),
    "progress-list": (_write(PROGRESS, b"[]"), (f"{STATE}/progress.json",)),
    "progress-unknown": (_progress(run="rm"), (f"{STATE}/progress.json", "run")),
    "progress-step-text": (_progress(step="two"), (f"{STATE}/progress.json", "step")),
    "progress-step-other": (_progress(step=7), (f"{STATE}/progress.json", "step", "7")),
    "progress-step-negative": (_progress(step=-1), (f"{STATE}/progress.json", "step")),
    "progress-step-huge": (_progress(step=10**40), (f"{STATE}/progress.json", "step")),
    "progress-metric-nan": (_progress(best_metric=float("nan")), (f"{STATE}/progress.json", "best_metric")),
}

CASES = [Case(f"checkpoint/{name}", _resume(spoil), says) for name, (spoil, says) in _CASES.items()]
