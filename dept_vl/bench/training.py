"""Training samples/s and peak memory beside the released code, PEFT and the backbone's own limit."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from dept_vl.bench.harness import Contestant, Floor, Result, Round, Values, run_rounds
from dept_vl.bench.settings import BenchSettings
from dept_vl.bench.worker import Worker
from dept_vl.bench.workload import TextWork, glue_lengths, shape, write_backbone, write_text_work

OURS = "dept-vl"
PADDED = "dept-vl, padded to s"
RELEASED = "released DePT"
RELEASED_PROMPT = "released prompt tuning, l=100"
PEFT_PROMPT = "PEFT prompt tuning, l=100"
PEFT_GROUPED = "PEFT prompt tuning, l=100, grouped"
PEFT_LORA = "PEFT LoRA"
LIMIT = "backbone alone (limit)"

_MODULE = "dept_vl.bench.training_jobs"


@dataclass(frozen=True)
class _Entry:
    name: str
    job: str
    arguments: dict[str, Any]
    is_padded: bool = False


def measure_training(settings: BenchSettings) -> list[Result]:
    """Measures every data set's lengths; contestants live in processes of their own.

    Every contestant trains on the same rows, ``settings.steps`` steps a data set and round. One that pads every text to
    s does one step a round, which stands for all data sets, as its steps take the same time whatever the lengths.
    """
    backbone = write_backbone(settings.work_dir / "backbone", shape(settings.shape))
    works = {
        name: write_text_work(
            settings.work_dir / name, backbone, glue_lengths(name), batch_size=settings.batch_size, steps=settings.steps
        )
        for name in settings.data_sets
    }
    entries = _entries(settings, backbone, {name: work.save() for name, work in works.items()})
    rounds = _compete(entries, settings)
    return [
        Result(
            f"training, {name} lengths, T5-{settings.shape}",
            "samples",
            [{one: _of(values, name) for one, values in each.items()} for each in rounds],
            _floors(),
            _notes(work, settings),
        )
        for name, work in works.items()
    ]


def _compete(entries: Sequence[_Entry], settings: BenchSettings) -> list[Round]:
    with ExitStack() as stack:
        workers = []
        for number, entry in enumerate(entries):
            workers.append(Worker(f"{_MODULE}:{entry.job}", entry.arguments, settings.work_dir / f"{number}.log"))
            stack.callback(workers[-1].close)
        contestants = []
        for worker, entry in zip(workers, entries, strict=True):
            worker.wait()
            names = settings.data_sets[:1] if entry.is_padded else settings.data_sets
            contestants.append(Contestant(entry.name, partial(_measure, worker, names)))
            if not entry.is_padded:
                worker.measure(names[0])  # warms up
        return run_rounds(contestants, settings.rounds, settings.report_round)


def _measure(worker: Worker, names: Sequence[str]) -> dict[str, float]:
    """Returns the values of every workload, ``key:workload``."""
    return {f"{key}:{name}": value for name in names for key, value in worker.measure(name).items()}


def _of(values: Values, name: str) -> dict[str, float]:
    """Returns the values of one workload; of a contestant that padded, those of the only one it did."""
    own = {key.partition(":")[0]: value for key, value in values.items() if key.endswith(f":{name}")}
    return own or {key.partition(":")[0]: value for key, value in values.items()}


def _entries(settings: BenchSettings, backbone: Path, works: dict[str, Any]) -> list[_Entry]:
    shared = {"backbone": str(backbone), "works": works, "shape_name": settings.shape, "steps": settings.steps}
    one = {**shared, "steps": 1}
    faithful = {"data": {"padding": "max_length", "length_grouping": False}}
    folder = settings.work_dir
    prompt = {"method": "prompt-tuning", "run_dir": str(folder / "trainer")}
    entries = [
        _Entry(OURS, "Ours", {**shared, "run_dir": str(folder / "ours"), "settings": {}}),
        _Entry(LIMIT, "Limit", shared),
        _Entry(PEFT_PROMPT, "Peft", {**shared, **prompt, "is_grouped": False}),
        _Entry(PEFT_GROUPED, "Peft", {**shared, **prompt, "is_grouped": True}),
        _Entry(PEFT_LORA, "Peft", {**shared, **prompt, "method": "lora", "is_grouped": False}),
        _Entry(PADDED, "Ours", {**one, "run_dir": str(folder / "padded"), "settings": faithful}, is_padded=True),
    ]
    if settings.released is not None:
        released = {**one, "checkout": str(settings.released)}
        entries += [
            _Entry(RELEASED, "Released", {**released, "tuner": "dept"}, is_padded=True),
            _Entry(RELEASED_PROMPT, "Released", {**released, "tuner": "prompt-tuning"}, is_padded=True),
        ]
    return [entry for entry in entries if settings.wants(entry.name)]


def _floors() -> list[Floor]:
    return [
        Floor("samples/s over released DePT (pad 256)", OURS, RELEASED, 4),
        Floor("samples/s over our faithful setting (pad 256)", OURS, PADDED, 4),
        Floor("samples/s over released prompt tuning (l=100, pad 256)", OURS, RELEASED_PROMPT, 6),
        Floor("samples/s over PEFT prompt tuning (l=100, dynamic padding)", OURS, PEFT_PROMPT, 1.5),
        Floor("samples/s over PEFT prompt tuning, grouped by length", OURS, PEFT_GROUPED, 1.5),
        Floor("samples/s against the backbone alone", OURS, LIMIT, 0.90),
        Floor("peak memory against released DePT", OURS, RELEASED, 0.40, "peak_gib", "at most"),
        Floor("peak memory over the loaded model, likewise", OURS, RELEASED, 0.40, "over_loaded_gib", "at most"),
    ]


def _notes(work: TextWork, settings: BenchSettings) -> list[str]:
    return [
        f"batch {settings.batch_size}, float32, {settings.steps} steps a round (1 where every text is padded to s), "
        f"mean source length {work.mean_length:.1f} tokens, seed {work.seed}",
        "peak memory: the process's VmHWM within the round, weights included; over_loaded: less what was resident "
        "after loading",
        "GPU: none was lent" if not settings.has_gpu else "on a GPU",
    ]
