"""The speed benchmarks' command: ``python -m benchmarks NAME ...``, run from the repository's root."""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.speed.run import BENCHMARKS, check_request, run_benchmark
from benchmarks.speed.settings import DATA_SETS, BenchSettings
from dept_vl.errors import CheckpointError, ConfigError, DataError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmarks asked for and prints their tables; returns the exit code, 2 for bad input."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for library in ("httpx", "datasets", "accelerate", "urllib3", "PIL"):
        logging.getLogger(library).setLevel(logging.WARNING)
    options = _parser().parse_args(argv)
    try:
        _bench(options)
    except (ConfigError, DataError, CheckpointError) as error:
        print(f"benchmarks: error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    text = "Measure speed and memory beside what you would otherwise run; prints ratios and whether floors are met."
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=text, allow_abbrev=False)
    parser.add_argument("names", nargs="+", metavar="NAME", choices=tuple(BENCHMARKS), help=", ".join(BENCHMARKS))
    parser.add_argument("--output", type=Path, metavar="DIR", help="write JSON (and plots, CSV) here")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="interleaved rounds; default: 5")
    parser.add_argument(
        "--shape", choices=("tiny", "small", "base", "large"), default="small",
        help="of the T5; 'tiny' is for trying out; default: small",
    )  # fmt: skip
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="rows a step; default: 32")
    parser.add_argument("--steps", type=int, default=2, metavar="N", help="optimiser steps a round; default: 2")
    every = ",".join(DATA_SETS)
    parser.add_argument("--data-sets", default=every, metavar="NAME,...", help=f"whose lengths; default: {every}")
    parser.add_argument("--released", type=Path, metavar="DIR", help="folder with the released code's `peft` package")
    parser.add_argument(
        "--before", type=Path, metavar="DIR", help="another checkout of this repository, for 'revision'"
    )
    parser.add_argument("--only", default="", metavar="NAME,...", help="rows of 'methods'; default: every method")
    parser.add_argument(
        "--skip", action="append", default=[], metavar="TEXT", help="leave out contestants with TEXT in their name"
    )
    return parser


def _bench(options: argparse.Namespace) -> None:
    data_sets = tuple(options.data_sets.split(","))
    check_request(options.names, data_sets, options.released, options.rounds)
    for name in options.names:
        with tempfile.TemporaryDirectory(prefix="dept-vl-bench-") as work_dir:
            settings = BenchSettings(
                work_dir=Path(work_dir),
                output_dir=options.output,
                rounds=options.rounds,
                shape=options.shape,
                batch_size=options.batch_size,
                steps=options.steps,
                data_sets=data_sets,
                released=options.released.resolve() if options.released else None,
                before=options.before.resolve() if options.before else None,
                skip=tuple(options.skip),
                only=tuple(options.only.split(",")) if options.only else (),
            )
            print(run_benchmark(name, settings))


if __name__ == "__main__":
    sys.exit(main())
