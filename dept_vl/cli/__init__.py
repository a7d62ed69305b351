"""Arguments to a configuration to one call. No logic, and no heavy import before a command is known.

A command is a function that adds its parser, listed in the ``COMMANDS`` of its module.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any

from dept_vl import __version__
from dept_vl.cli import bench, data, experiments, released, runs, tasks
from dept_vl.cli.settings import split_overrides
from dept_vl.errors import CheckpointError, ConfigError, DataError, DivergenceError

_USER_ERRORS = (ConfigError, DataError, CheckpointError)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0, 2 for bad input, 1 for a diverged run, 130 when interrupted."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for library in ("httpx", "datasets", "accelerate", "urllib3", "PIL"):
        logging.getLogger(library).setLevel(logging.WARNING)
    try:
        words, overrides = split_overrides(arguments)
        options = _parser().parse_args(words)
        command: Callable[[argparse.Namespace, dict[str, Any]], None] = options.command
        command(options, overrides)
    except _USER_ERRORS as error:
        return _fail(str(error), 2)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}", 2)
    except DivergenceError as error:
        return _fail(str(error), 1)
    except KeyboardInterrupt:
        return _fail(
            "interrupted; `dept-vl train --resume` with the same settings goes on from the last checkpoint", 130
        )
    return 0


def _fail(message: str, code: int) -> int:
    print(f"dept-vl: error: {message}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dept-vl",
        description="Decomposed Prompt Tuning (DePT) of a frozen CLIP-T5: VQA v2, COCO captions and text tasks.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"dept-vl {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for add in (
        *runs.COMMANDS,
        *experiments.COMMANDS,
        *data.COMMANDS,
        *tasks.COMMANDS,
        *released.COMMANDS,
        *bench.COMMANDS,
    ):
        add(commands)
    return parser
