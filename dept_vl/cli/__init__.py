"""Arguments to a configuration to one call. No logic, and no heavy import before a command is known.

A command is a function that adds its parser, listed in the ``COMMANDS`` of its module.
"""

from __future__ import annotations

import argparse
import io
import logging
import os
import shlex
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from dept_vl.cli import (
    completion,
    configs,
    convert,
    data,
    experiments,
    released,
    runs,
    serve,
    share,
    studies,
    tasks,
    ui,
)
from dept_vl.cli.settings import flag_names, split_overrides
from dept_vl.errors import CheckpointError, ConfigError, DataError, DivergenceError, MismatchError, SettingsError
from dept_vl.registry import lookup
from dept_vl.system.progress import no_bars_in_files
from dept_vl.system.signals import StoppedError, is_resumable, listen
from dept_vl.system.version import __version__

_USER_ERRORS = (ConfigError, DataError, CheckpointError)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code.

    0; 2 for bad input; 1 for a diverged run, or a result that comes out otherwise; 130 (SIGINT) or 143 (SIGTERM) when
    stopped by a signal; 141 when the reader of its output is gone, as a shell reports it.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for library in ("httpx", "httpx2", "datasets", "accelerate", "urllib3", "PIL", "torch"):
        logging.getLogger(library).setLevel(logging.WARNING)
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # else two lines, twice, for every retry of five
    _print_any_name()
    can_resume = False
    try:
        if any("\0" in word for word in arguments):
            raise ConfigError(f"an argument holds a NUL character: {next(w for w in arguments if chr(0) in w)!r}")
        with listen(), _quiet_threads(), no_bars_in_files():
            words, overrides = split_overrides(arguments)
            parser, commands = _parser()
            if words and not words[0].startswith("-"):
                lookup(commands, words[0], "command")
            options = parser.parse_args(words)
            command: Callable[[argparse.Namespace, dict[str, Any]], None] = options.command
            try:
                command(options, overrides)
            finally:
                can_resume = is_resumable()
            sys.stdout.flush()
    except SettingsError as error:
        return _fail(error.describe(flag_names(arguments)), 2)
    except _USER_ERRORS as error:
        return _fail(str(error), 2)
    except BrokenPipeError:  # who read our output, such as `head`, has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        where = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        after = f"; once that is mended, go on with: {_resuming(arguments)}" if can_resume else ""
        return _fail(f"{where}{error.strerror or error}{after}", 2)
    except (DivergenceError, MismatchError) as error:
        return _fail(str(error), 1)
    except StoppedError as stopped:
        if int(os.environ.get("RANK", "0")) == 0:
            print(f"dept-vl: {_describe_stop(stopped, arguments)}", file=sys.stderr)
        return stopped.exit_code
    finally:
        processes = sys.modules.get("dept_vl.system.processes")  # None: no command has joined a launch
        if processes is not None:
            processes.leave_launch()
    return 0


def _print_any_name() -> None:
    """Lets names of files be printed that the terminal's encoding lacks, escaped, instead of failing over them."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def _quiet_threads() -> Iterator[None]:
    """Leaves a failed write to the main thread, which meets it again (TensorBoard writes in a thread of its own)."""
    earlier = threading.excepthook

    def report(problem: threading.ExceptHookArgs) -> None:
        if not isinstance(problem.exc_value, OSError):
            earlier(problem)

    threading.excepthook = report
    try:
        yield
    finally:
        threading.excepthook = earlier


def _describe_stop(stopped: StoppedError, arguments: Sequence[str]) -> str:
    """Returns what a stopped command leaves, and the command that goes on with it."""
    launch = " (under the same launcher)" if "WORLD_SIZE" in os.environ else ""
    done = f"{stopped.done}; " if stopped.done else ""
    return f"stopped by {stopped}; {done}go on with{launch}: {_resuming(arguments, is_resumable=stopped.is_resumable)}"


def _resuming(arguments: Sequence[str], *, is_resumable: bool = True) -> str:
    """Returns the command that goes on with one that has ended early."""
    if is_resumable:
        arguments = [*(word for word in arguments if word not in ("--overwrite", "--resume")), "--resume"]
    program = Path(sys.argv[0]).name
    words = [*(["python", "-m", "dept_vl"] if program == "__main__.py" else [program]), *arguments]
    return shlex.join(words)


def _fail(message: str, code: int) -> int:
    print(f"dept-vl: error: {message}", file=sys.stderr)
    return code


@cache
def _parser() -> tuple[argparse.ArgumentParser, Mapping[str, argparse.ArgumentParser]]:
    """Returns the parser, and that of each command by its name, of which there is one in a process."""
    return make_parser()


def make_parser() -> tuple[argparse.ArgumentParser, Mapping[str, argparse.ArgumentParser]]:
    """Returns a new parser, and that of each command by its name."""
    parser = argparse.ArgumentParser(
        prog="dept-vl",
        description="Decomposed Prompt Tuning (DePT) of a frozen CLIP-T5: VQA v2, COCO captions and text tasks.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"dept-vl {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for add in (
        *runs.COMMANDS,
        *studies.COMMANDS,
        *share.COMMANDS,
        *serve.COMMANDS,
        *ui.COMMANDS,
        *experiments.COMMANDS,
        *data.COMMANDS,
        *tasks.COMMANDS,
        *configs.COMMANDS,
        *released.COMMANDS,
        *convert.COMMANDS,
        *completion.COMMANDS,
    ):
        add(commands)
    return parser, commands.choices
