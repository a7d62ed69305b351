"""The speed benchmarks' command: ``python -m benchmarks NAME ...``, run from the repository's root."""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.speed.run import check_request, run_benchmark
from data_prep.cache_features import cache_features
from dept_vl.errors import CheckpointError, ConfigError, DataError

_NAMES = ("training", "evaluation", "captions", "vision", "features", "startup", "means", "growth", "paper-efficiency")


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
    return parser


def _bench(options: argparse.Namespace) -> None:
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


if __name__ == "__main__":
    sys.exit(main())
