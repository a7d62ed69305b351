"""Commands that look at trained runs: ablate and compare."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dept_vl.cli.runs import one_task_config
from dept_vl.cli.settings import add_command, print_on_main_process, read_name, refuse_settings
from dept_vl.errors import ConfigError


def _add_ablate(commands: Any) -> None:
    text = "Set each part of a trained run to its start and to nothing, and score it again: what does it contribute?"
    parser = add_command(commands, "ablate", _ablate, text)
    parser.add_argument("checkpoint", type=read_name, metavar="RUN", help="run folder or hub id")
    parser.set_defaults(named_with="RUN")
    parser.add_argument("--split", default="val", choices=("train", "val", "test"), help="default: val")
    parser.add_argument(
        "--set-to", default="both", choices=("start", "nothing", "both"),
        help="first values, left out, or one after the other; default: both",
    )  # fmt: skip
    parser.add_argument("--parts", metavar="NAME,...", help="these alone, as soft_prompt,features; default: all")
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: ablation-<split>.json in the run folder")


def _ablate(options: argparse.Namespace, overrides: dict[str, Any]) -> None:
    from data_prep.first_use.data_dir import open_data_dir
    from dept_vl.experiments.ablation import STATES, ablate, check_ablation

    config, run_dir = one_task_config(options, overrides)
    only = [name for name in options.parts.split(",") if name] if options.parts is not None else None
    if only == []:
        raise ConfigError("--parts: names no part")
    data_dir = open_data_dir(config)
    check_ablation(config, data_dir, run_dir, split=options.split, output=options.output)
    result = ablate(
        config, data_dir, run_dir,
        split=options.split, states=STATES if options.set_to == "both" else (options.set_to,), only=only,
        output=options.output,
    )  # fmt: skip
    from dept_vl.reports.studies import describe_ablation

    print_on_main_process(describe_ablation(result))


def _add_compare(commands: Any) -> None:
    text = "Print scored runs of several methods beside each other, with what is between them more than chance."
    parser = add_command(commands, "compare", _compare, text, has_settings=False)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders of runs, seeds or transfers")
    parser.add_argument("--metric", metavar="NAME", help="a score that the runs have; default: each task's own")
    parser.add_argument(
        "--against", metavar="METHOD", help="the others are tested against this row; default: the first"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="write what is printed as JSON too")


def _compare(options: argparse.Namespace, overrides: dict[str, Any]) -> None:
    refuse_settings("compare", overrides)
    from dept_vl.reports.comparison import compare_runs, write_comparison
    from dept_vl.reports.studies import describe_comparison

    result = compare_runs(options.runs, metric=options.metric, against=options.against, output=options.output)
    print(describe_comparison(result))
    if options.output:
        write_comparison(options.output, result)
        print(f"written: {options.output}")


COMMANDS = (_add_ablate, _add_compare)
