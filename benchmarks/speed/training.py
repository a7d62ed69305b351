"""Training samples/s and peak memory beside the released code, PEFT and the backbone's own limit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.speed.competition import Entry, compete, mix_all
from benchmarks.speed.harness import Floor, Result
from benchmarks.speed.settings import BenchSettings
from benchmarks.speed.workload import Shape, TextWork, glue_lengths, shape, write_backbone, write_text_work

OURS = "dept-vl"
PADDED = "dept-vl, padded to s"
RELEASED = "released DePT"
RELEASED_PROMPT = "released prompt tuning, l=100"
PEFT_PROMPT = "PEFT prompt tuning, l=100"
PEFT_GROUPED = "PEFT prompt tuning, l=100, grouped"
PEFT_LORA = "PEFT LoRA"
LIMIT = "backbone alone (limit)"

PEFT_PROMPT_TUNING = {"kind": "PromptTuningConfig", "num_virtual_tokens": 100, "num_transformer_submodules": 1}

_MODULE = "benchmarks.speed.training_jobs"


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
    rounds = compete(entries, settings.data_sets, settings)
    results = [
        Result(
            f"training, {name} lengths, T5-{settings.shape}",
            "samples",
            rounds[name],
            _floors(),
            _notes(work, settings),
        )
        for name, work in works.items()
    ]
    if len(works) > 1:
        name, mixed, note = mix_all(rounds)
        results.append(Result(f"training, {name}, T5-{settings.shape}", "samples", mixed, _floors(), [note]))
    return results


def _entries(settings: BenchSettings, backbone: Path, works: dict[str, Any]) -> list[Entry]:
    shared = {"backbone": str(backbone), "works": works, "shape_name": settings.shape, "steps": settings.steps}
    one = {**shared, "steps": 1}
    faithful = {"data": {"padding": "max_length", "length_grouping": False}}
    folder = settings.work_dir
    peft = {key: value for key, value in shared.items() if key != "shape_name"}
    peft = {**peft, "run_dir": str(folder / "trainer")}
    prompt = {**peft, "peft": PEFT_PROMPT_TUNING}
    lora = {**peft, "peft": _lora_of_the_budget(shape(settings.shape))}
    entries = [
        Entry(OURS, f"{_MODULE}:Ours", {**shared, "run_dir": str(folder / "ours"), "settings": {}}),
        Entry(LIMIT, f"{_MODULE}:Limit", shared),
        Entry(PEFT_PROMPT, f"{_MODULE}:Peft", prompt),
        Entry(PEFT_GROUPED, f"{_MODULE}:Peft", {**prompt, "is_grouped": True}),
        Entry(PEFT_LORA, f"{_MODULE}:Peft", lora),
        Entry(
            PADDED,
            f"{_MODULE}:Ours",
            {**one, "run_dir": str(folder / "padded"), "settings": faithful},
            is_constant=True,
        ),
    ]
    if settings.released is not None:
        released = {**one, "checkout": str(settings.released)}
        entries += [
            Entry(RELEASED, f"{_MODULE}:Released", {**released, "tuner": "dept"}, is_constant=True),
            Entry(RELEASED_PROMPT, f"{_MODULE}:Released", {**released, "tuner": "prompt-tuning"}, is_constant=True),
        ]
    return entries


def _lora_of_the_budget(kind: Shape) -> dict[str, Any]:
    """Returns PEFT's LoRA on the encoder's q and v of the rank whose tensors come closest to l d parameters."""
    config = kind.config
    per_rank = config.num_layers * 2 * (config.d_model + config.num_heads * config.d_kv)
    rank = max(1, round(kind.budget_tokens * config.d_model / per_rank))
    return {"kind": "LoraConfig", "r": rank, "target_modules": r"encoder\..*SelfAttention\.(q|v)"}


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
