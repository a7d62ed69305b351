"""The command that answers over HTTP: serve."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

from dept_vl.cli.settings import add_command, check_paths, config_overrides, read_name
from dept_vl.serving.limits import ServeLimits


def _add_serve(commands: Any) -> None:
    text = "Answer over HTTP, as OpenAI's chat completions, with several adapters on one backbone (extra `serve`)."
    parser = add_command(commands, "serve", _serve, text)
    add_server(parser, port=8000)
    default = ServeLimits()
    for flag, kind, what in (
        ("max-batch", int, "rows answered at once"),
        ("max-wait-ms", float, "how long a row waits for others, milliseconds"),
        ("max-queue", int, "rows that wait; a further one gets status 429"),
        ("image-cache", int, "images whose features are kept"),
        ("max-body-mib", float, "a request's body, MiB"),
        ("max-pixels", int, "width x height of an image"),
        ("max-text", int, "characters of a text"),
    ):
        value = getattr(default, flag.replace("-", "_"))
        parser.add_argument(f"--{flag}", type=kind, default=value, metavar="N", help=f"{what}; default: {value}")
    parser.add_argument(
        "--allow-loading", type=Path, metavar="DIR",
        help="let clients load and unload adapters at run time, from folders below this one; default: off",
    )  # fmt: skip


def add_server(parser: argparse.ArgumentParser, *, port: int) -> None:
    """Adds which runs a server answers with, and where it listens."""
    parser.add_argument(
        "runs",
        type=read_name,
        nargs="+",
        metavar="RUN",
        help="run folders or hub ids, of one backbone; NAME=RUN gives another name than the folder's own",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; default: this machine's alone")
    parser.add_argument("--port", type=int, default=port, help=f"default: {port}; 0: a free one")
    parser.add_argument("--device", help="where the models are; default: an accelerator if there is one")


def _serve(options: argparse.Namespace, overrides: dict[str, Any]) -> None:
    from dept_vl.system.extras import require_extra

    require_extra("serve", "`dept-vl serve`")
    from dept_vl.serving.startup import RunReader, read_runs

    limits = ServeLimits(**{name: getattr(options, name) for name in ServeLimits.__dataclass_fields__})
    limits.check()
    settings = config_overrides(options, overrides)

    def check(config: Any, folder: Path) -> None:
        check_paths(config, folder, settings, options.reading)

    runs = read_runs(options.runs, settings, check)
    from dept_vl.serving.server import DrainingServer, bind, shown_address

    listening = bind(options.host, options.port)
    from dept_vl.serving.app import make_app
    from dept_vl.serving.service import Service

    service = Service(RunReader(settings, check), runs, limits, device=options.device)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    print(f"serving {', '.join(run.name for run in runs)} at http://{shown_address(listening)}/v1", flush=True)
    DrainingServer(service, make_app(service)).run(sockets=[listening])
    print("stopped: everything that waited is answered")


COMMANDS = (_add_serve,)
