"""The learning rates of the demo's methods: short runs on drawn scenes, judged on validation questions.

    python -m benchmarks.demo_rates --out RUNS [--only ia3,lora]

Each of a method's rates trains 200 steps of VQA with seed 0 and is judged on 400 questions of ``val``. The best stand
in ``dept_vl/assets/demo/rates.yaml``. DePT and prompt tuning have their defaults.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import dept_vl

STEPS = 200

TRIES: dict[str, tuple[dict[str, float], ...]] = {
    "lora": ({"lr": 3e-4}, {"lr": 1e-3}, {"lr": 3e-3}, {"lr": 1e-2}),
    "adapter": ({"lr": 1e-3}, {"lr": 3e-3}, {"lr": 1e-2}, {"lr": 3e-2}),
    "adapterdrop": ({"lr": 1e-3}, {"lr": 3e-3}, {"lr": 1e-2}, {"lr": 3e-2}),
    "ia3": ({"lr": 1e-2}, {"lr": 3e-2}, {"lr": 0.1}, {"lr": 0.3}),
    "bitfit": ({"lr": 3e-3}, {"lr": 1e-2}, {"lr": 3e-2}, {"lr": 0.1}),
    "fine-tuning": ({"lr": 3e-5}, {"lr": 1e-4}, {"lr": 3e-4}, {"lr": 1e-3}),
    "prefix-tuning": ({"lr": 3e-3}, {"lr": 1e-2}, {"lr": 3e-2}, {"lr": 0.1}, {"lr": 0.3}, {"lr": 1.0}),
    "p-tuning": ({"lr": 1e-3}, {"lr": 3e-3}, {"lr": 1e-2}),
    "adept": (
        {"lr": 0.1, "offset_lr": 3e-3}, {"lr": 0.1, "offset_lr": 0.01}, {"lr": 0.3, "offset_lr": 0.01},
        {"lr": 0.3, "offset_lr": 0.1},
    ),
    "attempt": ({"lr": 0.1}, {"lr": 0.3}, {"lr": 1.0}, {"lr": 3.0}, {"lr": 10.0}),
    "mpt": ({"lr": 0.1}, {"lr": 0.3}, {"lr": 0.3, "task_lr": 0.3}),
    "ulpt": ({"lr": 0.1}, {"lr": 0.3}, {"lr": 1.0}),
    "rslora": ({"lr": 1e-3}, {"lr": 3e-3}),
    "dora": ({"lr": 1e-3}, {"lr": 3e-3}, {"lr": 1e-2}),
    "vera": ({"lr": 1e-2}, {"lr": 3e-2}, {"lr": 0.1}),
    "adalora": ({"lr": 3e-3}, {"lr": 1e-2}, {"lr": 3e-2}),
    "hyperdecoder": ({"lr": 1e-3}, {"lr": 3e-3}, {"lr": 1e-2}, {"lr": 3e-2}),
    "lst": ({"lr": 3e-3}, {"lr": 1e-2}, {"lr": 3e-2}),
}  # fmt: skip
"""``--tuner`` to its rates; where there are two, those that go together."""


def scores(name: str, out: Path, steps: int = STEPS) -> Iterator[tuple[dict[str, float], float]]:
    """Yields a method's rates and their validation score, of 100.

    ATTEMPT starts from a prompt of the captions, 400 steps of prompt tuning.
    """
    sources = {"sources": [str(_train_source(out / "source"))]} if name == "attempt" else {}
    for number, rates in enumerate(TRIES[name]):
        result = dept_vl.train(
            {
                "config": "demo", "task": "vqa", "output_dir": out / f"{name}-{number}",
                "tuner": {"name": name, **sources, **rates},
                "loop": {"max_steps": steps, "eval_every_steps": steps, "trackers": []},
            },
            overwrite=True,
        )  # fmt: skip
        assert result.progress.best_metric is not None
        yield rates, result.progress.best_metric


def _train_source(out: Path) -> Path:
    settings = {
        "config": "demo", "task": "coco", "tuner": {"name": "prompt-tuning"}, "output_dir": out,
        "loop": {"max_steps": 400, "eval_every_steps": 400, "trackers": []},
    }  # fmt: skip
    return dept_vl.train(settings, overwrite=True).run_dir


def main(arguments: list[str] | None = None) -> None:
    """Prints a line a try."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.demo_rates", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--only", type=lambda names: names.split(","), default=list(TRIES))
    parser.add_argument("--steps", type=int, default=STEPS, metavar="N", help=f"default: {STEPS}")
    options = parser.parse_args(arguments)
    for name in options.only:
        for rates, score in scores(name, options.out, options.steps):
            print(f"{name}: {', '.join(f'{key} {value:g}' for key, value in rates.items())}: {score:.1f}", flush=True)


if __name__ == "__main__":
    main()
