"""Runs command lines that must be refused, in a process that torch may not enter.

``python -m tests.cli.refusing FOLDER`` reads a list of command lines as JSON and prints what came of each.
"""

import io
import json
import os
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from dept_vl.cli import main

HEAVY = ("accelerate", "datasets", "open_clip", "optuna", "torch", "transformers")


class HeavyImportError(BaseException):
    """Nothing may catch this one."""


class NoHeavyImport:
    def find_spec(self, name, path=None, target=None):
        if name in HEAVY:
            raise HeavyImportError(name)


def refuse(words: list[str]) -> dict[str, object]:
    """Runs one command line; says its exit code, what it printed, its seconds of CPU and what it imported or left."""
    error, before, started = io.StringIO(), set(Path().rglob("*")), time.process_time()
    imported = None
    try:
        with redirect_stderr(error), redirect_stdout(io.StringIO()):
            code = main(words)
    except SystemExit as stop:  # argparse's way to refuse
        code = stop.code
    except HeavyImportError as heavy:
        code, imported = None, str(heavy)
    left = sorted(str(path) for path in set(Path().rglob("*")) - before)
    return {
        "code": code, "printed": error.getvalue(), "seconds": time.process_time() - started, "imported": imported,
        "left": left,
    }  # fmt: skip


if __name__ == "__main__":
    sys.meta_path.insert(0, NoHeavyImport())
    os.chdir(sys.argv[1])
    json.dump([refuse(words) for words in json.load(sys.stdin)], sys.stdout)
