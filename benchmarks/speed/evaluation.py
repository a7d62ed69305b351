"""Evaluation samples/s of a label task beside the released code's way: pad to s, generate, forward again."""

from __future__ import annotations

from typing import Any

from benchmarks.speed.competition import Entry, compete, mix_all
from benchmarks.speed.evaluation_jobs import decode_agreement
from benchmarks.speed.harness import Floor, Result
from benchmarks.speed.settings import BenchSettings
from benchmarks.speed.workload import glue_lengths, shape, write_backbone, write_text_work

OURS = "dept-vl, labels scored"
PADDED = "dept-vl, padded to s, generate + forward"
RELEASED = "released DePT, generate + forward"
ROOF = "the encoder's matrix products alone (roof)"

_MODULE = "benchmarks.speed.evaluation_jobs"
_LABEL_TOKENS = 2
"""A label and the end of sequence."""


def measure_evaluation(settings: BenchSettings) -> list[Result]:
    """Measures every data set's lengths, and how often both ways give a trained model's answer alike."""
    backbone = write_backbone(settings.work_dir / "backbone", shape(settings.shape))
    works = {
        name: write_text_work(
            settings.work_dir / name, backbone, glue_lengths(name), batch_size=settings.batch_size, steps=1
        ).save()
        for name in settings.data_sets
    }
    shared: dict[str, Any] = {"backbone": str(backbone), "works": works, "shape_name": settings.shape}
    released = {**shared, "label_tokens": _LABEL_TOKENS}
    entries = [
        Entry(OURS, f"{_MODULE}:Ours", shared),
        Entry(ROOF, f"{_MODULE}:Products", shared),
        Entry(PADDED, f"{_MODULE}:Padded", released, is_constant=True),
    ]
    if settings.released is not None:
        arguments = {**released, "checkout": str(settings.released)}
        entries.append(Entry(RELEASED, f"{_MODULE}:Released", arguments, is_constant=True))
    rounds = compete(entries, settings.data_sets, settings)
    share, rows = decode_agreement(settings.work_dir / "agreement")
    notes = [
        f"batch {settings.batch_size}, float32; the padded ones generate {_LABEL_TOKENS} tokens, as a "
        "trained model does",
        f"same predictions: on {rows} held-out texts of a task the packaged T5 was trained on, scoring and generation "
        f"agree on {100 * share:.1f} %",
    ]
    floors = [
        Floor("samples/s over released-style evaluation", OURS, RELEASED, 10),
        Floor("samples/s over ours made to evaluate like it", OURS, PADDED, 10),
        Floor("what the roof has over released-style evaluation", ROOF, RELEASED, 10),
    ]
    results = [
        Result(f"evaluation, {name} lengths, T5-{settings.shape}", "samples", rounds[name], floors, notes)
        for name in settings.data_sets
    ]
    if len(settings.data_sets) > 1:
        name, mixed, note = mix_all(rounds)
        results.append(Result(f"evaluation, {name}, T5-{settings.shape}", "samples", mixed, floors, [note]))
    return results
