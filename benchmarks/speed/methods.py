"""Every method's training samples/s, peak memory and milliseconds an answer, beside PEFT's in transformers' Trainer."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.speed.competition import Entry, compete
from benchmarks.speed.harness import Floor, Result
from benchmarks.speed.settings import BenchSettings
from benchmarks.speed.training import PEFT_PROMPT_TUNING
from benchmarks.speed.workload import TextWork, glue_lengths, shape, train_config, write_backbone, write_text_work

_JOBS = "benchmarks.speed.training_jobs"
_SOURCES = 6
"""As many trained prompts as ATTEMPT's code starts from."""

_ENCODER_ALONE = {"num_transformer_submodules": 1}
_LORA = {"rank": 32, "alpha": 32.0, "sites": ["attn.q", "attn.v"]}
_PEFT_LORA = {"kind": "LoraConfig", "r": 32, "lora_alpha": 32, "lora_dropout": 0.1, "target_modules": ["q", "v"]}


@dataclass(frozen=True)
class Method:
    """One method in the size of the paper's tables, on both sides.

    Attributes:
        tuner: Our settings of it.
        peft: The same in PEFT: ``kind`` of its configuration and fields; ``"trainer"``: no PEFT is needed; None where
            PEFT has no such method.
        floor: What training must reach over PEFT's.
        note: In what PEFT's is another method.
    """

    tuner: Mapping[str, Any]
    peft: Mapping[str, Any] | Literal["trainer"] | None = None
    floor: float = 1.2
    note: str = ""


_SIDE_LAYERS = [1, 2, 3, 5, 6, 7, 9, 10, 11]
_QV = {"target_modules": ["q", "v"]}

METHODS: dict[str, Method] = {
    "dept": Method({"name": "dept", "num_virtual_tokens": 40}),
    "prompt-tuning": Method({"name": "prompt-tuning", "num_virtual_tokens": 100}, PEFT_PROMPT_TUNING),
    "p-tuning": Method(
        {"name": "p-tuning", "num_virtual_tokens": 40},
        {"kind": "PromptEncoderConfig", "num_virtual_tokens": 40, "encoder_hidden_size": 800, **_ENCODER_ALONE},
        note="PEFT's network has three layers, Sung et al.'s and ours two",
    ),
    "prefix-tuning": Method(
        {"name": "prefix-tuning", "prefix_length": 20}, {"kind": "PrefixTuningConfig", "num_virtual_tokens": 20},
        note="PEFT's prefixes are in the decoder's self-attentions alone: 12 of 36",
    ),
    "adept": Method({"name": "adept"}),
    "ulpt": Method({"name": "ulpt"}),
    "attempt": Method({"name": "attempt", "sources": []}),
    "mpt": Method({"name": "mpt"}),  # PEFT's wants a task id in every batch, which the Trainer's loader does not give
    "lora": Method({"name": "lora", **_LORA, "dropout": 0.1}, _PEFT_LORA),
    "rslora": Method({"name": "rslora", "rank": 8}, {"kind": "LoraConfig", "r": 8, "use_rslora": True, **_QV}),
    "dora": Method({"name": "dora", "rank": 8}, {"kind": "LoraConfig", "r": 8, "use_dora": True, **_QV}),
    "vera": Method({"name": "vera"}, {"kind": "VeraConfig", "r": 256, **_QV}),
    "ia3": Method(
        {"name": "ia3"},
        {"kind": "IA3Config", "target_modules": ["k", "v", "wo"], "feedforward_modules": ["wo"]},
    ),
    "adapter": Method({"name": "adapter", "reduction": 32}),
    "adapterdrop": Method({"name": "adapterdrop", "reduction": 32}),
    "hyperdecoder": Method({"name": "hyperdecoder"}),
    "lst": Method(
        {"name": "lst", "encoder_layers": _SIDE_LAYERS, "decoder_layers": _SIDE_LAYERS, "init": "magnitude"}
    ),
    "bitfit": Method({"name": "bitfit"}),
    "fine-tuning": Method({"name": "fine-tuning"}, "trainer"),
}  # fmt: skip
"""Row of the table to method."""


def measure_methods(settings: BenchSettings) -> list[Result]:
    """Measures method after method; ours and PEFT's train the same rows in turns.

    Only those are measured that ``--only`` leaves, by a part of their name.
    """
    backbone = write_backbone(settings.work_dir / "backbone", shape(settings.shape))
    works = {
        name: write_text_work(
            settings.work_dir / name, backbone, glue_lengths(name), batch_size=settings.batch_size, steps=settings.steps
        )
        for name in settings.data_sets
    }
    results = []
    for name, method in METHODS.items():
        if not settings.has(name):
            continue
        entries = _entries(name, method, settings, backbone, works)
        rounds = compete(entries, settings.data_sets, settings)
        results += [
            Result(
                f"{name}, {data_set} lengths, T5-{settings.shape}", "samples", rounds[data_set],
                _floors(name, method), _notes(method, settings),
            )
            for data_set in settings.data_sets
        ]  # fmt: skip
    return results


def _entries(
    name: str, method: Method, settings: BenchSettings, backbone: Path, works: Mapping[str, TextWork]
) -> list[Entry]:
    shared = {
        "backbone": str(backbone),
        "works": {data_set: work.save() for data_set, work in works.items()},
        "steps": settings.steps,
    }
    tuner = dict(method.tuner)
    if tuner.get("sources") == []:
        tuner["sources"] = _sources(settings, backbone, next(iter(works.values())))
    ours = {"shape_name": settings.shape, "run_dir": str(settings.work_dir / f"run-{name}"), "answers": True}
    entries = [Entry(_ours(name), f"{_JOBS}:Ours", {**shared, **ours, "settings": {"tuner": tuner}})]
    if method.peft is not None:
        peft = None if method.peft == "trainer" else dict(method.peft)
        theirs = {**shared, "peft": peft, "run_dir": str(settings.work_dir / f"trainer-{name}")}
        entries.append(Entry(_theirs(name, method), f"{_JOBS}:Peft", theirs))
    return entries


def _sources(settings: BenchSettings, backbone: Path, work: TextWork) -> list[str]:
    """Returns runs of prompt tuning to start from: one of a step, under several names."""
    from dept_vl.training.trainer import train

    folders = [settings.work_dir / f"source-{number}" for number in range(_SOURCES)]
    if not folders[0].exists():
        tuner = {"name": "prompt-tuning", "num_virtual_tokens": 100}
        config = train_config(str(backbone), work, shape(settings.shape), str(folders[0]), 1, tuner=tuner)
        train(config, work.data_dir)
        for folder in folders[1:]:
            shutil.copytree(folders[0], folder)
    return [str(folder) for folder in folders]


def _ours(name: str) -> str:
    return f"dept-vl {name}"


def _theirs(name: str, method: Method) -> str:
    return f"{'Trainer' if method.peft == 'trainer' else 'PEFT'} {name}"


def _floors(name: str, method: Method) -> list[Floor]:
    if method.peft is None:
        return []
    ours, theirs = _ours(name), _theirs(name, method)
    return [
        Floor(f"samples/s over {theirs} (dynamic padding)", ours, theirs, method.floor),
        Floor(f"peak memory against {theirs}", ours, theirs, 0.8, "peak_gib", "at most"),
        Floor(f"of it what training adds, against {theirs}", ours, theirs, 0.8, "over_loaded_gib", "at most"),
    ]


def _notes(method: Method, settings: BenchSettings) -> list[str]:
    each = f"batch {settings.batch_size}, float32, {settings.steps} steps a round"
    answers = "answer_ms: of one row of the test split, both labels scored, in batches"
    memory = "peak memory: the process's VmHWM within the round, weights and libraries included"
    return [f"{each}; {answers}", memory, *([method.note] if method.note else [])]
