"""Breaks the package on purpose and counts what was lost: the answer has to be nothing.

Usage: nice -n 5 python -m benchmarks.faults [--times 1.0] [--seed 0] [--only ROW ...] [--json FILE]

Each row does one kind of fault as often as it says times ``--times``, on small data with the packaged models, and
compares with what unbroken commands made. A fault is survived if nothing is lost: results equal to the byte, every
visible file whole, one message and the right exit code. Exit code 1 if anything was lost.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import torch

import benchmarks.faults.interruptions
import benchmarks.faults.surroundings  # noqa: F401  # both add their rows
from benchmarks.faults.rows import ROWS, Row, copy_of_prepared
from benchmarks.faults.world import World


def main() -> int:
    """Runs the rows, prints the table and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=float, default=1.0, help="factor on every row's count; default: 1")
    parser.add_argument("--seed", type=int, default=0, help="decides the random moments; default: 0")
    parser.add_argument("--only", nargs="+", default=[], help="rows whose name holds one of these words")
    parser.add_argument("--json", type=Path, help="write the table here too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    started = time.monotonic()
    rows = [
        (name, max(1, round(times * options.times)), fault)
        for name, (times, fault) in ROWS.items()
        if not options.only or any(word in name for word in options.only)
    ]
    if os.geteuid() != 0:
        print("not root, so no small disk can be mounted: the rows 'disk full' and 'read-only folder' are left out")
        rows = [entry for entry in rows if not entry[0].startswith(("disk full", "read-only"))]
    with tempfile.TemporaryDirectory(prefix="dept-vl-faults-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)  # the read-only row reads it as another user
        world = World(Path(folder), options.seed)
        _measure(world)
        table = [_do(world, name, times, fault) for name, times, fault in rows]
        grace_s = world.grace_s
    lost = sum(entry["lost"] for entry in table)
    tried = sum(entry["tried"] for entry in table)
    seconds = time.monotonic() - started
    print(f"{tried} faults tried, {tried - lost} survived, {lost} lost; {seconds:.0f} s", flush=True)
    if grace_s is not None:
        print(f"from a signal to the end of training: at most {grace_s:.2f} s")
    if options.json:
        machine = {"machine": platform.processor() or platform.machine(), "torch": torch.__version__}
        content = {"rows": table, "seconds": seconds, "seed": options.seed, "grace_s": grace_s, **machine}
        options.json.write_text(json.dumps(content, indent=2) + "\n")
    return 1 if lost else 0


def _measure(world: World) -> None:
    """Notes how long the commands that are to be killed take."""
    data = copy_of_prepared(world)
    world.measure("cache", lambda: world.cache(data))
    for kind, work in (("prepare", world.prepare), ("predict", world.predict), ("sweep", world.sweep)):
        world.measure(kind, work(world.new(kind)))


def _do(world: World, name: str, times: int, fault: Row) -> dict:
    """Does one row and prints its line and what was lost."""
    started, losses = time.monotonic(), []
    for index in range(times):
        try:
            lost = fault(world, index)
        except Exception as error:  # of any kind it is a loss, which the row says
            lost = f"{type(error).__name__}: {error}"
        if lost:
            losses.append(f"{name}, number {index}: {lost}")
    seconds = time.monotonic() - started
    print(f"| {name} | {times} | {times - len(losses)} | {len(losses)} | {seconds:.0f} s |", flush=True)
    for text in losses:
        print(f"    LOST {text}", flush=True)
    with suppress(OSError):
        for path in world.root.glob("run-*"):
            shutil.rmtree(path, ignore_errors=True)
    return {"fault": name, "tried": times, "survived": times - len(losses), "lost": len(losses), "losses": losses}


if __name__ == "__main__":
    sys.exit(main())
