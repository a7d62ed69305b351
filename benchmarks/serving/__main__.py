"""What a server of many adapters does, measured.

    python -m benchmarks.serving table  --work FOLDER [--shape t5-base] [--adapters 1 2 8 32 128] [--tokens 4]
    python -m benchmarks.serving load   --work FOLDER [--adapters 8] [--clients 200] [--seconds 60] [--max-batch 32]
    python -m benchmarks.serving images --work FOLDER [--shape t5-base]

The shapes are the packaged models, and random weights of T5-base's and CLIP RN101's; DePT adapters are drawn.

`table`: the model alone, in this process and without HTTP, image features cached. Batches of 32 rows, the adapters of
their rows round robin, greedy answers that all have as many tokens: in one batch; one adapter after another; with one
adapter; without any; and PEFT's LoRA of (nearly) as many parameters, on the same T5, text and frozen projection, by
`adapter_names` and by `set_adapter` in turn. All in turns; medians of the rounds. A mixed batch's answers must be those
of its adapters alone, and how far its logits are from theirs is printed. With `--clock cpu` a second is one that this
process had the CPU for: for one thread, where others use it too.

`load`: `dept-vl serve` in a process of its own under clients, which ask one question after another for so long. Each
answer is compared with that of its adapter alone, and every request must be answered, by the server's own count too.

`images`: the first question about an image beside the second one, with a CLIP of RN101's shape.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.serving.images import FIRST, SECOND, ask_twice
from benchmarks.serving.load import answered, ask_together, make_questions, server
from benchmarks.serving.shapes import SHAPES, make_runs, make_shape
from benchmarks.serving.table import BASE, IN_TURN, MIXED, ONE, PEFT_IN_TURN, PEFT_MIXED, PLAIN, Ways
from benchmarks.speed.harness import Result

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}

MOVED_APART = 4.0
"""So far are tensors moved where adapters must answer differently."""


def main(arguments: list[str] | None = None) -> int:
    """Measures one thing and prints it; returns 1 where an answer was lost or is not its adapter's own."""
    options = _parser().parse_args(arguments)
    print(f"{options.shape}, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}", flush=True)
    return int(options.measure(options))


def _parser() -> argparse.ArgumentParser:
    lines = (__doc__ or "").splitlines()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=lines[0])
    commands = parser.add_subparsers(required=True, metavar="WHAT")
    for name, measure, adapters, rounds in (
        ("table", _table, [1, 2, 8, 32, 128], 5), ("load", _load, [8], 0), ("images", _images, [1], 9),
    ):  # fmt: skip
        command = commands.add_parser(name)
        command.set_defaults(measure=measure)
        command.add_argument("--work", required=True, type=Path, help="a new folder for models and runs")
        command.add_argument("--shape", choices=SHAPES, default="demo")
        command.add_argument("--tokens", type=int, default=4, help="of an answer")
        if name != "images":
            command.add_argument("--adapters", type=int, nargs="+" if name == "table" else 1, default=adapters)
        if name != "load":
            command.add_argument("--rounds", type=int, default=rounds)
            command.add_argument("--clock", choices=tuple(CLOCKS), default="wall")
    commands.choices["table"].add_argument(
        "--checked", type=int, choices=(4, 8, 16, 32), default=32, help="rows of a batch whose logits are compared"
    )
    commands.choices["table"].add_argument("--own-projections", action="store_true", help="one each, and without PEFT")
    commands.choices["load"].add_argument("--clients", type=int, nargs="+", default=[200])
    commands.choices["load"].add_argument("--seconds", type=float, default=60.0)
    commands.choices["load"].add_argument("--max-batch", type=int, default=32)
    commands.choices["images"].add_argument("--tower", choices=("tiny", "RN101"), default="RN101")
    return parser


def _table(options: argparse.Namespace) -> bool:
    shape = make_shape(options.shape, options.work)
    runs = make_runs(shape, options.work, max(options.adapters), owns_projection=options.own_projections)
    ways = Ways(
        runs, options.adapters, options.tokens, with_peft=not options.own_projections, clock=CLOCKS[options.clock],
    )  # fmt: skip
    peft = f", of PEFT's LoRA {ways.peft[options.adapters[0]].num_parameters:,}" if ways.peft else ""
    print(f"{ways.num_parameters:,} parameters an adapter{peft}; answers of {options.tokens} tokens")
    found = ways.equality(max(options.adapters), options.checked)
    print(
        f"largest difference of a logit (the highest: {found.highest:.1f}): {found.same_batch:.1e} from the adapter's "
        f"own batch of the same rows, {found.single:.1e} from the row by itself"
    )
    results = ways.rates(options.rounds)
    for name in (ONE, BASE, PLAIN):
        if spread := results[0].spread(name):
            print(f"{name}: {spread.median:.2f} rows a second")
    names = [name for name in (MIXED, IN_TURN, PEFT_MIXED, PEFT_IN_TURN) if name in results[0].contestants()]
    print(f"| adapters | {', rows/s | '.join(names)}, rows/s | mixed beside one adapter | beside each of the others |")
    for number, result in zip(options.adapters, results, strict=True):
        rates = " | ".join(f"{spread.median:.2f}" for name in names if (spread := result.spread(name)))
        others = ", ".join(_ratio(result, MIXED, name) for name in names[1:])
        print(f"| {number} | {rates} | {_ratio(result, MIXED, ONE)} | {others} |")
    return False


def _ratio(result: Result, ours: str, peer: str) -> str:
    """Returns the median of the rounds' ratios, and in brackets the least and the most."""
    spread = result.ratio(ours, peer)
    assert spread is not None
    return f"{spread.median:.2f} ({spread.least:.2f} to {spread.most:.2f})"


def _load(options: argparse.Namespace) -> bool:
    runs = make_runs(make_shape(options.shape, options.work), options.work, *options.adapters, moved=MOVED_APART)
    questions, failed = make_questions(runs, options.tokens), False
    print(
        f"{len(questions.bodies):,} questions to {len(runs)} adapters, two of which answer one differently in "
        f"{100 * questions.told_apart:.0f} % of cases"
    )
    with server(runs, "--max-batch", str(options.max_batch)) as port:
        ask_together(port, questions, 1, 1.0)  # warms up
        print("| clients | requests | lost or wrong | answers a second | p50, ms | p99, ms | most, ms |")
        for clients in options.clients:
            before = answered(port)
            found = ask_together(port, questions, clients, options.seconds)
            p50, p99, most = (1000 * float(np.percentile(found.times, share)) for share in (50, 99, 100))
            rate = len(found.times) / found.seconds
            print(
                f"| {clients} | {found.sent:,} | {found.sent - len(found.times)} | {rate:.1f} | {p50:.0f} | {p99:.0f} "
                f"| {most:.0f} |", flush=True,
            )  # fmt: skip
            _say(found.wrong)
            failed |= len(found.times) != found.sent or answered(port) - before != found.sent
    return failed


def _say(wrong: Sequence[str]) -> None:
    for said in wrong[:10]:
        print(said, file=sys.stderr)


def _images(options: argparse.Namespace) -> bool:
    shape = make_shape(options.shape, options.work, tower=options.tower)
    result = ask_twice(make_runs(shape, options.work, 1), options.rounds, options.tokens, CLOCKS[options.clock])
    for name in (FIRST, SECOND):
        spread = result.spread(name)
        assert spread is not None
        print(f"{name}: {1000 / spread.median:.0f} ms")
    print(f"the second is {_ratio(result, SECOND, FIRST)} times as fast")
    return False


if __name__ == "__main__":
    sys.exit(main())
