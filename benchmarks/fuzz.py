"""Mutates adapters, feature stores and what else is read from disk, for a bounded time, and counts what escapes.

    python -m benchmarks.fuzz --seconds 60                    # both readers, atheris if it is installed
    python -m benchmarks.fuzz --engine mutate --target cache  # this file's own mutations, reproducible by --seed

Only `ConfigError`, `DataError` and `CheckpointError` may come out of a reader. Everything else is an escape; so is a
store that `FeatureStore.verify` takes although its bytes changed. Exit code 1 if there was one; the input is kept in
``--keep``. atheris (a coverage-guided fuzzer, ``pip install atheris``, Linux) is not a dependency of the package.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch

from data_prep.feature_writer import FeatureWriter
from dept_vl.data import feature_format
from dept_vl.data.features import FeatureStore
from dept_vl.errors import CheckpointError, ConfigError, DataError
from dept_vl.models.adapter.card import model_card
from dept_vl.models.adapter.files import AdapterConfig, BackboneIdentity, load_adapter, save_adapter
from dept_vl.models.adapter.released_format import read_released
from dept_vl.models.config import ModelConfig
from dept_vl.system.bounded_reading import parse_json
from dept_vl.tuners import DeptConfig
from dept_vl.tuners.context import TunerContext

OURS = (ConfigError, DataError, CheckpointError)
_PARSERS = (
    load_adapter, read_released, parse_json, feature_format.read_header, feature_format.read_index,
    feature_format.check_shard, FeatureStore.verify,
)  # fmt: skip
_WORDS = (
    b'"shape"',
    b'"dtype"',
    b"F32",
    b"F8_E4M3",
    b"-1",
    b"1e999",
    b"NaN",
    b"[",
    b"{",
    b"null",
    b"9" * 40,
    b"\\ud800",
)


def write_adapter(folder: Path) -> list[Path]:
    """Writes a small adapter; returns its files, the one to spoil most first."""
    identity = BackboneIdentity("t5", 16, 2, 2, 32, "0" * 64)
    settings = DeptConfig(num_virtual_tokens=4, rank=2, allow_nearest=True)
    tuner = settings.empty(TunerContext(16, 8))
    config = AdapterConfig("0.1", identity, 8, settings, tuner.facts())
    tensors = {f"tuner.{name}": tensor for name, tensor in tuner.trainable_state().items()}
    save_adapter(folder, tensors, config, model_card(config, ModelConfig()))
    return [folder / "adapter_model.safetensors", folder / "adapter_config.json"]


def read_adapter(folder: Path) -> None:
    """Loads an adapter as a model does: its tensors are compared with those that its settings announce."""

    def announced(config: AdapterConfig) -> dict[str, torch.Tensor]:
        with torch.device("meta"):
            tuner = config.tuner.empty(TunerContext(config.backbone.d_model, config.max_source_length))
        return {f"tuner.{name}": tensor for name, tensor in tuner.trainable_state().items()}

    load_adapter(folder, announced)


def write_cache(folder: Path) -> list[Path]:
    """Writes a small feature store; returns its files."""
    fingerprint = {"model": "tiny", "num_visual_tokens": 2, "feature_dim": 4, "dtype": "float16"}
    with FeatureWriter(folder, fingerprint, range(1, 6), rows_per_shard=3) as writer:
        for plan in writer.pending():
            writer.write(plan, torch.rand(len(plan.image_ids), 2, 4), [1] * len(plan.image_ids))
        writer.finish()
    return [folder / "00000.safetensors", folder / "index.json"]


def write_released(folder: Path) -> list[Path]:
    """Writes a small adapter of the released code; returns its files."""
    settings = {
        "peft_type": "PROMPT_TUNING", "task_type": "SEQ_2_SEQ_LM", "num_virtual_tokens": 2, "token_dim": 4,
        "num_transformer_submodules": 1, "base_model_name_or_path": "t5-small",
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    torch.save({"prompt_embeddings": torch.ones(2, 4)}, folder / "adapter_model.bin")
    return [folder / "adapter_model.bin", folder / "adapter_config.json"]


def read_cache(folder: Path) -> None:
    """Opens a store, reads every image and verifies it."""
    store = FeatureStore.open(folder)
    store.read(store.image_ids.tolist())
    store.verify()


TARGETS: dict[str, tuple[Callable[[Path], list[Path]], Callable[[Path], object]]] = {
    "adapter": (write_adapter, read_adapter),
    "cache": (write_cache, read_cache),
    "released": (write_released, read_released),
}


def mutate(content: bytes, rng: random.Random) -> bytes:
    """Returns `content` with one to four changes: bits, bytes, cuts, copies, words, lengths."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(7)
        if kind == 0 and data:
            data[at % len(data)] ^= 1 << rng.randrange(8)
        elif kind == 1 and data:
            data[at % len(data)] = rng.randrange(256)
        elif kind == 2:
            del data[at : at + rng.randrange(1, 64)]
        elif kind == 3:
            data[at:at] = data[at : at + rng.randrange(1, 64)]
        elif kind == 4:
            data[at:at] = rng.choice(_WORDS)
        elif kind == 5:
            data[:8] = rng.choice([rng.randrange(2**63), len(data), len(data) - 8, 0, 2]).to_bytes(8, "little")
        else:
            data[at : at + 8] = rng.randbytes(8)
    return bytes(data)


def try_one(target: str, folder: Path, path: Path, content: bytes) -> str | None:
    """Reads a target with one file replaced; returns how an error escaped, or None."""
    original = path.read_bytes()
    path.write_bytes(content)
    try:
        TARGETS[target][1](folder)
    except OURS:
        return None
    except Exception as error:  # what this script looks for
        return f"{type(error).__name__}: {error}"[:300]
    finally:
        path.write_bytes(original)
    is_unseen_change = target == "cache" and path.suffix == ".safetensors" and content != original
    return "an altered shard was verified" if is_unseen_change else None


def mutate_for(target: str, seconds: float, seed: int, keep: Path) -> tuple[int, Counter[str]]:
    """Tries mutations for some seconds; returns how many, and the escapes."""
    rng, escapes, tried = random.Random(seed), Counter[str](), 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = TARGETS[target][0](folder)
        contents = [path.read_bytes() for path in files]
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            which = 0 if rng.random() < 0.7 else rng.randrange(len(files))
            content = mutate(contents[which], rng)
            problem = try_one(target, folder, files[which], content)
            tried += 1
            if problem is not None:
                escapes[problem] += 1
                keep.mkdir(parents=True, exist_ok=True)
                (keep / f"{target}-{len(escapes)}-{files[which].name}").write_bytes(content)
    return tried, escapes


def atheris_worker(target: str, which: int, seconds: int, seed: int, corpus: Path) -> None:
    """Runs atheris in this process; it ends the process itself, with a code above 0 when something escaped."""
    import atheris

    folder = Path(tempfile.mkdtemp(prefix="dept-vl-fuzz-"))
    path = TARGETS[target][0](folder)[which]
    (corpus / "seed").write_bytes(path.read_bytes())

    def one(content: bytes) -> None:
        problem = try_one(target, folder, path, content)
        if problem is not None:
            raise RuntimeError(problem)

    for function in _PARSERS:  # what decides; all of torch and safetensors would take minutes to instrument
        atheris.instrument_func(function)
    words = [sys.argv[0], f"-max_total_time={seconds}", f"-seed={seed}", "-verbosity=0", "-print_final_stats=1"]
    atheris.Setup([*words, f"-artifact_prefix={corpus}/", str(corpus)], one)
    atheris.Fuzz()


def atheris_for(target: str, seconds: float, seed: int, keep: Path) -> tuple[int, Counter[str]]:
    """Fuzzes each of a target's files for its share of the time, each in a process of its own."""
    tried, escapes = 0, Counter[str]()
    for which in (0, 1):
        corpus = Path(tempfile.mkdtemp(prefix="dept-vl-corpus-"))
        words = [sys.executable, "-m", "benchmarks.fuzz", "--worker", target, str(which), str(corpus)]
        words += ["--seconds", str(max(1, int(seconds / 2))), "--seed", str(seed)]
        done = subprocess.run(words, capture_output=True, text=True, check=False, env={**os.environ})
        counts = [line.split()[-1] for line in done.stderr.splitlines() if "number_of_executed_units" in line]
        tried += int(counts[-1]) if counts else 0
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if "RuntimeError: " in line or "Error" in line]
            escapes[(lines or [f"exit code {done.returncode}: {done.stderr[-300:]}"])[0]] += 1
            keep.mkdir(parents=True, exist_ok=True)
            for artifact in corpus.glob("crash-*"):
                shutil.copy(artifact, keep)
        shutil.rmtree(corpus, ignore_errors=True)
    return tried, escapes


def main() -> int:
    """Parses the command line, fuzzes, prints a line a target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="for each target; default: 60")
    parser.add_argument("--target", choices=(*TARGETS, "all"), default="all")
    parser.add_argument("--engine", choices=("auto", "atheris", "mutate"), default="auto")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-escapes"), help="where inputs that escaped go")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        target, which, corpus = options.worker
        atheris_worker(target, int(which), int(options.seconds), options.seed, Path(corpus))
    has_atheris = importlib.util.find_spec("atheris") is not None
    if options.engine == "atheris" and not has_atheris:
        parser.error("--engine atheris: it is not installed (pip install atheris)")
    engine = "mutate" if options.engine == "mutate" or not has_atheris else "atheris"
    fuzz = atheris_for if engine == "atheris" else mutate_for
    failed = False
    for target in TARGETS if options.target == "all" else [options.target]:
        tried, escapes = fuzz(target, options.seconds, options.seed, options.keep)
        failed |= bool(escapes)
        print(f"{target}: {engine}, {options.seconds:.0f} s: {tried:,} inputs, {escapes.total()} escaped")
        for problem, count in escapes.most_common():
            print(f"  {count} x {problem}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
