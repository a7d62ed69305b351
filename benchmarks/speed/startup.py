"""How long ``dept-vl --help`` takes, and whether it imports torch."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial

from benchmarks.speed.harness import Contestant, Floor, Result, run_rounds
from benchmarks.speed.settings import BenchSettings

OURS = "dept-vl --help"
BARE = "python -c pass"
TORCH = "python -c 'import torch'"


def measure_startup(settings: BenchSettings) -> list[Result]:
    """Measures whole processes."""
    commands = {OURS: ["-m", "dept_vl", "--help"], BARE: ["-c", "pass"], TORCH: ["-c", "import torch"]}

    contestants = [Contestant(name, partial(_timed, arguments)) for name, arguments in commands.items()]
    for one in contestants:
        one.measure()  # fills the page cache
    rounds = run_rounds(contestants, settings.rounds, settings.report_round)
    floors = [Floor("seconds of `dept-vl --help`", OURS, None, 0.3, "seconds", "at most")]
    return [Result("startup", "starts", rounds, floors, [f"torch imported: {'yes' if imports_torch() else 'no'}"])]


def _timed(arguments: Sequence[str]) -> dict[str, float]:
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - started
    return {"rate": 1 / seconds, "seconds": seconds}


def imports_torch() -> bool:
    """Returns whether ``dept-vl --help`` imports torch."""
    code = (
        "import contextlib, io, sys\nfrom dept_vl.cli import main\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n    main(['--help'])\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return done.stdout.strip() == "True"
