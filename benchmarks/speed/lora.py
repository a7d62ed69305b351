"""Training samples/s of LoRA on q and v of every attention, beside PEFT's in transformers' Trainer."""

from __future__ import annotations

from benchmarks.speed.competition import Entry, compete, mix_all
from benchmarks.speed.harness import Floor, Result
from benchmarks.speed.settings import BenchSettings
from benchmarks.speed.workload import glue_lengths, shape, write_backbone, write_text_work

OURS = "dept-vl lora"
PEFT = "PEFT LoRA"
PEFT_GROUPED = "PEFT LoRA, grouped"

RANK, ALPHA, DROPOUT = 32, 32, 0.1
"""The paper's recipe on GLUE (Sung et al.'s code), without its biases, which PEFT cannot add to T5."""

_MODULE = "benchmarks.speed.training_jobs"


def measure_lora(settings: BenchSettings) -> list[Result]:
    """Measures every data set's lengths; every contestant trains the same tensors on the same rows."""
    backbone = write_backbone(settings.work_dir / "backbone", shape(settings.shape))
    works = {
        name: write_text_work(
            settings.work_dir / name, backbone, glue_lengths(name), batch_size=settings.batch_size, steps=settings.steps
        )
        for name in settings.data_sets
    }
    shared = {
        "backbone": str(backbone),
        "works": {name: work.save() for name, work in works.items()},
        "shape_name": settings.shape,
        "steps": settings.steps,
    }
    tuner = {"name": "lora", "rank": RANK, "alpha": ALPHA, "dropout": DROPOUT}
    theirs = {"r": RANK, "lora_alpha": ALPHA, "lora_dropout": DROPOUT, "target_modules": ["q", "v"]}
    peft = {**shared, "method": "lora", "lora": theirs, "run_dir": str(settings.work_dir / "trainer")}
    ours = {**shared, "run_dir": str(settings.work_dir / "ours"), "settings": {"tuner": tuner}}
    entries = [
        Entry(OURS, f"{_MODULE}:Ours", ours),
        Entry(PEFT, f"{_MODULE}:Peft", {**peft, "is_grouped": False}),
        Entry(PEFT_GROUPED, f"{_MODULE}:Peft", {**peft, "is_grouped": True}),
    ]
    rounds = compete(entries, settings.data_sets, settings)
    floors = [
        Floor("samples/s over PEFT LoRA (dynamic padding)", OURS, PEFT, 1.2),
        Floor("samples/s over PEFT LoRA, grouped by length", OURS, PEFT_GROUPED, 1.0),
    ]
    note = f"batch {settings.batch_size}, float32, {settings.steps} steps a round, rank {RANK}, dropout {DROPOUT}"
    results = [
        Result(f"lora, {name} lengths, T5-{settings.shape}", "samples", rounds[name], floors, [note]) for name in works
    ]
    if len(works) > 1:
        name, mixed, rows = mix_all(rounds)
        results.append(Result(f"lora, {name}, T5-{settings.shape}", "samples", mixed, floors, [rows]))
    return results
