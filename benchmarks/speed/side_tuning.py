"""Training memory and samples/s of ladder side-tuning beside LoRA: no activation of the backbone is kept."""

from __future__ import annotations

from typing import Any

from benchmarks.speed.competition import Entry, compete
from benchmarks.speed.harness import Floor, Result
from benchmarks.speed.settings import BenchSettings
from benchmarks.speed.workload import glue_lengths, shape, write_backbone, write_text_work

LST = "dept-vl lst"
LORA = "dept-vl lora"

REDUCTION, RANK = 8, 32
"""The paper's recipes on GLUE (Sung et al.'s code), of 3.8 million parameters each; LoRA's without its biases."""

_MODULE = "benchmarks.speed.training_jobs"


def measure_side_tuning(settings: BenchSettings) -> list[Result]:
    """Measures every data set's lengths; both train on the same rows, in processes of their own, in turns."""
    kind = shape(settings.shape)
    backbone = write_backbone(settings.work_dir / "backbone", kind)
    works = {
        name: write_text_work(
            settings.work_dir / name, backbone, glue_lengths(name), batch_size=settings.batch_size, steps=settings.steps
        )
        for name in settings.data_sets
    }
    # The paper's side network has no block beside every fourth of the backbone's, the first among them.
    layers = [layer for layer in range(kind.config.num_layers) if layer % 4]
    tuners: dict[str, dict[str, Any]] = {
        LST: {
            "name": "lst",
            "reduction": REDUCTION,
            "encoder_layers": layers,
            "decoder_layers": layers,
            "init": "magnitude",  # the steps are measured, not what comes before the first
        },
        LORA: {"name": "lora", "rank": RANK, "alpha": 32, "dropout": 0.1},
    }
    entries = [
        Entry(
            name,
            f"{_MODULE}:Ours",
            {
                "backbone": str(backbone),
                "works": {key: work.save() for key, work in works.items()},
                "shape_name": settings.shape,
                "steps": settings.steps,
                "run_dir": str(settings.work_dir / f"run-{tuner['name']}"),
                "settings": {"tuner": tuner},
            },
        )
        for name, tuner in tuners.items()
    ]
    rounds = compete(entries, settings.data_sets, settings)
    floors = [
        Floor("peak memory over the loaded model, against LoRA", LST, LORA, 0.5, "over_loaded_gib", "at most"),
        Floor("peak memory, weights included, against LoRA", LST, LORA, 0.5, "peak_gib", "at most"),
        Floor("samples/s over LoRA", LST, LORA, 1.0),
    ]
    notes = [
        f"batch {settings.batch_size}, float32, {settings.steps} steps a round; lst: reduction {REDUCTION}, blocks "
        f"beside {', '.join(map(str, layers))} of both stacks; lora: rank {RANK} on q and v",
        "peak memory: the process's VmHWM within the round; over_loaded: less what was resident after loading",
    ]
    return [
        Result(f"side tuning, {name} lengths, T5-{settings.shape}", "samples", rounds[name], floors, notes)
        for name in works
    ]
