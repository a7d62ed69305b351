"""The commands that answer over HTTP: serve, proxy."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from dept_vl.cli.settings import add_command, check_paths, config_overrides, read_name, refuse_settings
from dept_vl.errors import ConfigError
from dept_vl.serving.limits import ServeLimits

_BATCHES = (
    ("max-batch", int, "rows answered at once"),
    ("max-wait-ms", float, "how long a row waits for others, milliseconds"),
    ("image-cache", int, "images whose features are kept"),
)
_REQUESTS = (
    ("max-queue", int, "requests that wait; a further one gets status 429"),
    ("max-body-mib", float, "a request's body, MiB"),
    ("max-pixels", int, "width x height of an image"),
    ("max-text", int, "characters of a text"),
)
"""Flag, type and meaning of the numbers in `ServeLimits`."""


def _add_limits(parser: argparse.ArgumentParser, *groups: Sequence[tuple[str, type, str]]) -> None:
    default = ServeLimits()
    for flag, kind, what in chain(*groups):
        value = getattr(default, flag.replace("-", "_"))
        parser.add_argument(f"--{flag}", type=kind, default=value, metavar="N", help=f"{what}; default: {value}")


def _add_serve(commands: Any) -> None:
    text = "Answer over HTTP, as OpenAI's chat completions, with several adapters on one backbone (extra `serve`)."
    parser = add_command(commands, "serve", _serve, text)
    add_server(parser, port=8000)
    _add_limits(parser, _BATCHES, _REQUESTS)
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
    _add_address(parser, port=port)
    parser.add_argument("--device", help="where the models are; default: an accelerator if there is one")


def _add_address(parser: argparse.ArgumentParser, *, port: int) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; default: this machine's alone")
    parser.add_argument("--port", type=int, default=port, help=f"default: {port}; 0: a free one")


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
    DrainingServer(service.queue, make_app(service)).run(sockets=[listening])
    print("stopped: everything that waited is answered")


def _add_proxy(commands: Any) -> None:
    text = "Answer as `dept-vl serve` does with exported adapters and an engine, vLLM, behind it (extra `serve`)."
    parser = add_command(commands, "proxy", _proxy, text, has_settings=False)
    parser.add_argument(
        "exports", type=read_name, nargs="+", metavar="EXPORT",
        help="folders that `dept-vl export --vllm` wrote, of one backbone; NAME=EXPORT gives another name",
    )  # fmt: skip
    parser.add_argument("--upstream", required=True, metavar="URL", help="of vLLM, such as http://127.0.0.1:8000")
    parser.add_argument("--upstream-model", metavar="NAME", help="vLLM's name of the backbone; default: its first")
    parser.add_argument(
        "--upstream-timeout-s", type=float, default=120, metavar="SECONDS",
        help="how long an answer is waited for; default: %(default)s",
    )  # fmt: skip
    parser.add_argument("--backbone", type=read_name, metavar="PATH_OR_ID", help="the backbone, where it has moved")
    _add_address(parser, port=8001)
    _add_limits(parser, _REQUESTS)


def _proxy(options: argparse.Namespace, overrides: dict[str, Any]) -> None:
    from dept_vl.system.extras import require_extra

    refuse_settings("proxy", overrides)
    require_extra("serve", "`dept-vl proxy`")
    from dept_vl.serving.vllm.startup import check_upstream, read_exports

    names = {flag.replace("-", "_") for flag, *_ in _REQUESTS}
    limits = ServeLimits(**{name: getattr(options, name) for name in names})
    limits.check()
    if not 0 < options.upstream_timeout_s < float("inf"):
        raise ConfigError(f"--upstream-timeout-s: should be a number above 0, got {options.upstream_timeout_s}")
    address = check_upstream(options.upstream)
    exports = read_exports(options.exports, options.backbone)
    from dept_vl.serving.server import DrainingServer, bind, shown_address

    listening = bind(options.host, options.port)
    from dept_vl.serving.vllm.adapters import ProxiedAdapter
    from dept_vl.serving.vllm.app import Proxy, make_proxy_app
    from dept_vl.serving.vllm.upstream import Upstream

    adapters = [ProxiedAdapter.open(export) for export in exports]
    upstream = Upstream(address, model=options.upstream_model, timeout_s=options.upstream_timeout_s)
    proxy = Proxy(adapters, upstream, limits)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    print(
        f"answering as {', '.join(export.name for export in exports)} at http://{shown_address(listening)}/v1, "
        f"with the engine at {address}",
        flush=True,
    )
    DrainingServer(proxy.queue, make_proxy_app(proxy)).run(sockets=[listening])
    print("stopped: everything that waited is answered")


COMMANDS = (_add_serve, _add_proxy)
