"""What the faults break: small data made by the ordinary commands, and commands run in forks of one warm process.

A fork starts a command in milliseconds where a fresh interpreter takes ten seconds to import torch, and is a process
of its own: killed, locked out and signalled as any other.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file

from data_prep.cache_features import cache_features
from dept_vl import cli
from dept_vl.experiments import sweep as _sweep  # noqa: F401  # imported once, before any fork
from dept_vl.models.adapted_model import AdaptedModel
from dept_vl.reports.text import describe_training as _describe  # noqa: F401
from dept_vl.settings.load import load_config
from dept_vl.tasks import get_task
from dept_vl.training.checkpoints import Progress, list_states

Work = Sequence[str] | Callable[[], object]
"""What a child does: a command's arguments, or a function."""

TIMEOUT_S = 120.0
STEPS = 12

CALLS = {
    "fsync": (os, "fsync"),
    "rename": (os, "replace"),
    "remove": (os, "unlink"),
    "remove folder": (os, "rmdir"),
    "decode": (AdaptedModel, "generate"),
    "update": (torch.optim.AdamW, "step"),
}
"""Calls before which a child may kill itself: in checkpoint writing, in an evaluation, in mid-epoch."""


@dataclass
class Ended:
    """A command that has ended: its exit code (negative: the signal that killed it), both streams and seconds."""

    code: int
    text: str
    seconds: float


class Child:
    """One command in a fork."""

    def __init__(
        self,
        work: Work,
        log: Path,
        *,
        env: Mapping[str, str] | None = None,
        before: Callable[[], object] | None = None,
    ) -> None:
        self.log = log
        self.started = time.monotonic()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self._run(work, env or {}, before)

    def _run(self, work: Work, env: Mapping[str, str], before: Callable[[], object] | None) -> None:
        code = 99
        try:
            descriptor = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            os.environ.update(env)
            if before:
                before()
            if callable(work):
                work()
                code = 0
            else:
                sys.argv = ["dept-vl", *work]
                code = cli.main(list(work))
        except SystemExit as error:
            code = int(error.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def send(self, number: int) -> None:
        """Sends a signal, if the child is still there."""
        if self.poll() is None:
            os.kill(self.pid, number)

    _status: int | None = None

    def poll(self) -> int | None:
        """Returns the exit code, None while the child is at work."""
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._status = os.waitstatus_to_exitcode(status)
        return self._status

    def wait(self) -> Ended:
        """Waits for the end; a child that hangs is killed and counts as such (code -9)."""
        while self.poll() is None:
            if time.monotonic() - self.started > TIMEOUT_S:
                os.kill(self.pid, signal.SIGKILL)
            time.sleep(0.005)
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return Ended(self._status or 0, text, time.monotonic() - self.started)


def die_before(name: str, number: int) -> Callable[[], None]:
    """Returns what makes a child kill itself with SIGKILL before the `number`-th of the named calls."""

    def install() -> None:
        owner, attribute = CALLS[name]
        original, count = getattr(owner, attribute), [0]

        def counted(*args: Any, **kwargs: Any) -> Any:
            count[0] += 1
            if count[0] == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args, **kwargs)

        setattr(owner, attribute, counted)

    return install


def count_calls(path: Path) -> Callable[[], None]:
    """Returns what makes a child write down how often it does each of the calls."""
    counts = dict.fromkeys(CALLS, 0)

    def install() -> None:
        def counting(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
            def counted(*args: Any, **kwargs: Any) -> Any:
                counts[name] += 1
                path.write_text(json.dumps(counts))
                return original(*args, **kwargs)

            return counted

        for name, (owner, attribute) in CALLS.items():
            setattr(owner, attribute, counting(name, getattr(owner, attribute)))

    return install


def file_hash(path: Path) -> str:
    """Returns the sha256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def tree_hash(folder: Path) -> dict[str, str]:
    """Returns the hash of every file that is not a hidden one, by its place."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): file_hash(path)
        for path in files
        if not path.name.startswith(".") or path.name.endswith(".arrow")
    }


class World:
    """Raw files, prepared data, a feature store, a configuration, and what unbroken commands make of them.

    Attributes:
        grace_s: The longest time seen from a signal to the end of training; None before any was sent.
    """

    def __init__(self, root: Path, seed: int) -> None:
        self.root = root
        self.random = random.Random(seed)
        self.grace_s: float | None = None
        self._number = 0
        self.raw, self.data = root / "raw", root / "data"
        self.config = root / "train.yaml"
        self.durations: dict[str, float] = {}
        self.calls: dict[str, dict[str, int]] = {}
        self.config.write_text(yaml.safe_dump(self.settings()))
        self.must(["draw-scenes", "--out", str(self.raw), "--images", "20"])
        self.must(self.prepare(self.data))
        self.must(lambda: self.cache(self.data))
        self.run = self.new("reference")
        counted = root / "calls.json"
        ended = self.must(self.train(self.run), before=count_calls(counted))
        self.calls["train"] = json.loads(counted.read_text())
        self.durations["train"] = ended.seconds
        self.weights = self.result(self.run)

    def settings(self) -> dict:
        """Returns a run of seconds on the packaged models: dropout on, targets drawn, three evaluations."""
        return {
            "task": "vqa",
            "tuner": {"name": "dept", "budget_tokens": 20, "num_virtual_tokens": 13},
            "model": {"backbone": "demo", "dropout_rate": 0.1, "image_encoder": {"model": "demo", "pooled_grid": None}},
            "data": {"dir": str(self.data), "batch_size": 4, "max_source_length": 32, "max_target_length": 4},
            "loop": {
                "max_steps": STEPS, "eval_every_steps": 4, "save_every_steps": 3, "log_every_steps": 1, "eval_rows": 8,
            },
        }  # fmt: skip

    def new(self, name: str) -> Path:
        """Returns a path nothing has used."""
        self._number += 1
        return self.root / f"{name}-{self._number:04d}"

    def start(self, work: Work, **options: Any) -> Child:
        """Starts a command in a fork."""
        return Child(work, self.new("log"), **options)

    def do(self, work: Work, **options: Any) -> Ended:
        """Runs a command to its end."""
        return self.start(work, **options).wait()

    def must(self, work: Work, **options: Any) -> Ended:
        """Runs a command that has to succeed."""
        ended = self.do(work, **options)
        if ended.code != 0:
            raise RuntimeError(f"exit {ended.code}:\n{ended.text[-3000:]}")
        return ended

    def train(self, run: Path, *more: str) -> list[str]:
        """Returns the arguments of a training run."""
        return ["train", "--config", str(self.config), "--output-dir", str(run), *more]

    def prepare(self, out: Path) -> list[str]:
        """Returns the arguments that prepare VQA."""
        return ["prepare", "--task", "vqa", "--raw", str(self.raw), "--out", str(out)]

    def predict(self, out: Path) -> list[str]:
        """Returns the arguments that predict about every image to a file."""
        question = ["--question", "what color is the circle?", "--beams", "2"]
        return ["predict", "--checkpoint", str(self.run), "--image", str(self.raw), *question, "--output", str(out)]

    def sweep(self, out: Path, *more: str) -> list[str]:
        """Returns the arguments of a sweep of two short runs."""
        path = self.root / "sweep.yaml"
        settings = self.settings()
        settings["loop"] |= {"max_steps": 3, "eval_every_steps": 2, "save_every_steps": 1}
        settings["sweep"] = {"sampler": "grid", "space": {"tuner.lr": [0.1, 0.2]}}
        path.write_text(yaml.safe_dump(settings))
        return ["sweep", "--config", str(path), "--output-dir", str(out), *more]

    def cache(self, data: Path, num_workers: int = 0) -> None:
        """Builds the feature store in five shards."""
        encoder = load_config(self.config).model.image_encoder
        cache_features(encoder, data, get_task("vqa"), batch_size=2, num_workers=num_workers, rows_per_shard=4)

    def launch(self, processes: int) -> list[dict[str, str]]:
        """Returns the environment of each process of a launch."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        common = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        return [
            {**common, "RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(processes)}
            for rank in range(processes)
        ]

    def result(self, run: Path) -> dict[str, str]:
        """Returns what must be equal to the bit at the end of a run: weights, moments, adapter and scores."""
        last = list_states(run / "checkpoints")[-1]
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        kept = [{k: v for k, v in line.items() if k.startswith(("step", "loss", "val/"))} for line in lines]
        return {
            "step": last.name,
            "weights": file_hash(last / "trainable.safetensors"),
            "moments": file_hash(last / "optimizer.safetensors"),
            "adapter": file_hash(run / "adapter_model.safetensors"),
            "metrics": json.dumps(kept),
        }

    def check_checkpoints(self, run: Path) -> str:
        """Returns what is wrong with the checkpoints that can be seen, "" if all can be read."""
        for state in list_states(run / "checkpoints"):
            try:
                load_file(state / "trainable.safetensors")
                load_file(state / "optimizer.safetensors")
                Progress(**json.loads((state / "progress.json").read_text()))
            except Exception as error:  # whatever a torn file makes the readers raise
                return f"{state.name} cannot be read: {error}"
        return ""

    def killed(self, work: Work, kind: str, index: int) -> Ended:
        """Runs a command that is killed: by turns at a random moment and before a random one of its calls."""
        calls = {name: count for name, count in self.calls[kind].items() if count}
        if index % 2 and calls:
            name = list(calls)[index // 2 % len(calls)]
            return self.do(work, before=die_before(name, self.random.randint(1, calls[name])))
        child = self.start(work)
        time.sleep(self.random.uniform(0.02, self.durations[kind]))
        child.send(signal.SIGKILL)
        return child.wait()

    def measure(self, kind: str, work: Work) -> None:
        """Notes how long an unbroken command takes and how often it does each call."""
        counted = self.new("calls")
        self.durations[kind] = self.must(work, before=count_calls(counted)).seconds
        self.calls[kind] = json.loads(counted.read_text()) if counted.exists() else {}
