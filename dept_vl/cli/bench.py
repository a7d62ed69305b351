"""The command about speed: this package beside its peers."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from dept_vl.cli.settings import add_command, refuse_settings

_NAMES = ("training", "evaluation", "captions", "vision", "features", "startup", "means", "growth", "paper-efficiency")


def _add_bench(commands: Any) -> None:
    text = "Measure speed and memory beside what you would otherwise run; prints ratios and whether floors are met."
    parser = add_command(commands, "bench", _bench, text, has_settings=False)
    parser.add_argument("names", nargs="+", metavar="NAME", choices=_NAMES, help=", ".join(_NAMES))
    parser.add_argument("--output", type=Path, metavar="DIR", help="write JSON (and plots, CSV) here")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="interleaved rounds; default: 5")
    parser.add_argument(
        "--shape", choices=("tiny", "small", "base", "large"), default="small",
        help="of the T5; 'tiny' is for trying out; default: small",
    )  # fmt: skip
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="rows a step; default: 32")
    parser.add_argument("--steps", type=int, default=2, metavar="N", help="optimiser steps a round; default: 2")
    parser.add_argument(
        "--data-sets", default="cola,sst2,mrpc", metavar="NAME,...", help="whose lengths; default: cola,sst2,mrpc"
    )
    parser.add_argument("--released", type=Path, metavar="DIR", help="folder with the released code's `peft` package")
    parser.add_argument(
        "--skip", action="append", default=[], metavar="TEXT", help="leave out contestants with TEXT in their name"
    )


def _bench(options: argparse.Namespace, overrides: dict[str, Any]) -> None:
    refuse_settings("bench", overrides)
    from data_prep.cache_features import cache_features
    from dept_vl.bench.run import check_request, run_benchmark

    check_request(options.names, options.data_sets.split(","), options.released, options.rounds)
    for name in options.names:
        with tempfile.TemporaryDirectory(prefix="dept-vl-bench-") as work_dir:
            print(
                run_benchmark(
                    name,
                    cache_features=cache_features,
                    work_dir=Path(work_dir),
                    output_dir=options.output,
                    rounds=options.rounds,
                    shape=options.shape,
                    batch_size=options.batch_size,
                    steps=options.steps,
                    data_sets=tuple(options.data_sets.split(",")),
                    released=options.released.resolve() if options.released else None,
                    skip=tuple(options.skip),
                )
            )


COMMANDS = (_add_bench,)
