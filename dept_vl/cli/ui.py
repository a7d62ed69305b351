"""The command that shows a page to ask adapters: ui."""

from __future__ import annotations

import argparse
import logging
import tempfile
from pathlib import Path
from typing import Any

from dept_vl.cli.serve import add_server
from dept_vl.cli.settings import add_command, check_paths, config_overrides
from dept_vl.errors import ConfigError, DataError


def _add_ui(commands: Any) -> None:
    text = "Open a page in your browser to ask adapters, draw rows and compare answers, offline (extra `ui`)."
    parser = add_command(commands, "ui", _ui, text)
    add_server(parser, port=7860)


def _ui(options: argparse.Namespace, overrides: dict[str, Any]) -> None:
    from dept_vl.system.extras import require_extra

    require_extra("ui", "`dept-vl ui`")
    from dept_vl.serving.startup import RunReader, read_runs

    settings = config_overrides(options, overrides)

    def check(config: Any, folder: Path) -> None:
        check_paths(config, folder, settings, "serve")  # without the data, rows alone cannot be drawn

    runs = read_runs(options.runs, settings, check)
    from dept_vl.serving.server import DrainingServer, bind, shown_address

    listening = bind(options.host, options.port)
    from dept_vl.serving.limits import ServeLimits
    from dept_vl.serving.page.app import make_page
    from dept_vl.serving.page.split_rows import SplitRows
    from dept_vl.serving.service import Service

    service = Service(RunReader(settings, check), runs, ServeLimits(), device=options.device)
    rows = {run.name: SplitRows(run, _data_dir(run.config)) for run in runs}
    for library in ("uvicorn", "httpx"):
        logging.getLogger(library).setLevel(logging.CRITICAL)  # it ends connections of open pages, and says so
    with tempfile.TemporaryDirectory(prefix="dept-vl-ui-") as uploads:
        page = make_page(service, rows, Path(uploads))
        print(f"asking {', '.join(run.name for run in runs)}: open http://{shown_address(listening)}", flush=True)
        DrainingServer(service.queue, page, last_seconds=1).run(sockets=[listening])
    print("stopped")


def _data_dir(config: Any) -> Path | str:
    """Returns a run's prepared data, or why there are none; nothing is made."""
    from data_prep.first_use.data_dir import open_data_dir

    try:
        return open_data_dir(config, may_make=False)
    except (ConfigError, DataError) as error:
        return str(error)


COMMANDS = (_add_ui,)
