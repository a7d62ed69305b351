"""Training samples/s of this tree beside another checkout of it, in turns: what a change costs."""

from __future__ import annotations

from pathlib import Path

from benchmarks.speed.competition import Entry, compete
from benchmarks.speed.harness import Floor, Result
from benchmarks.speed.settings import BenchSettings
from benchmarks.speed.workload import TASK, glue_lengths, shape, write_backbone, write_text_work
from dept_vl.errors import ConfigError

_JOB = "benchmarks.speed.revision_jobs:CommandLine"
_HERE = Path(__file__).resolve().parents[2]


def measure_revision(settings: BenchSettings) -> list[Result]:
    """Measures DePT and prompt tuning through each tree's own ``dept-vl train``.

    Raises:
        ConfigError: No other checkout was named.
    """
    if settings.before is None:
        raise ConfigError("--before: name a checkout of this repository to compare with")
    kind = shape(settings.shape)
    backbone = write_backbone(settings.work_dir / "backbone", kind)
    works = {
        name: write_text_work(
            settings.work_dir / name, backbone, glue_lengths(name), batch_size=settings.batch_size, steps=settings.steps
        )
        for name in settings.data_sets
    }
    every = dict.fromkeys(
        (f"loop.{key}_steps" for key in ("max", "eval_every", "save_every", "log_every")), settings.steps
    )
    tuners = {
        "dept": {"budget_tokens": kind.budget_tokens, "num_virtual_tokens": kind.num_virtual_tokens, "rank": kind.rank},
        "prompt-tuning": {"num_virtual_tokens": kind.budget_tokens},
    }
    entries = [
        Entry(
            f"{tuner}, {tree}",
            _JOB,
            {
                "checkout": str(checkout),
                "backbone": str(backbone),
                "works": {name: {**work.save(), "task": TASK} for name, work in works.items()},
                "batch_size": settings.batch_size,
                "run_dir": str(settings.work_dir / f"{tuner}-{tree}"),
                "settings": {
                    "tuner.name": tuner,
                    **{f"tuner.{key}": value for key, value in sizes.items()},
                    **every,
                },
            },
        )
        for tuner, sizes in tuners.items()
        for tree, checkout in (("now", _HERE), ("before", settings.before))
    ]
    rounds = compete(entries, settings.data_sets, settings)
    floors = [Floor(f"{tuner}: samples/s over before", f"{tuner}, now", f"{tuner}, before", 0.97) for tuner in tuners]
    note = f"batch {settings.batch_size}, float32, {settings.steps} steps a round; each run's own samples/s"
    return [
        Result(f"revision, {name} lengths, T5-{settings.shape}", "samples", rounds[name], floors, [note])
        for name in works
    ]
