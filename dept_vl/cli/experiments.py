"""Commands that make several runs: sweep, transfer."""

from __future__ import annotations

import argparse
from typing import Any

from dept_vl.cli.settings import add_command, config_overrides, open_data_dir, say
from dept_vl.errors import ConfigError


def _add_sweep(commands: Any) -> None:
    text = "Try settings: a grid, random ones or Optuna's TPE; the best on val is scored on test."
    parser = add_command(commands, "sweep", _sweep, text)
    parser.add_argument("--resume", action="store_true", help="go on after a kill, or beside another process")
    parser.add_argument("--overwrite", action="store_true", help="replace the sweep in the output folder")


def _sweep(options: argparse.Namespace, overrides: dict[str, Any]) -> None:
    if options.config is None:
        raise ConfigError("--config: a sweep needs a file with a 'sweep' section, such as configs/sweeps/paper.yaml")
    from dept_vl.experiments.space import load_plan

    plan = load_plan(options.config, config_overrides(options, overrides))
    data_dir = open_data_dir(plan.config({}))
    from dept_vl.experiments.sweep import run_sweep
    from dept_vl.report import describe_sweep

    say(describe_sweep(run_sweep(plan, data_dir, resume=options.resume, overwrite=options.overwrite)))


COMMANDS = (_add_sweep,)
