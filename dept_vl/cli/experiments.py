"""Commands about several runs: sweep, transfer, report."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dept_vl.cli.settings import (
    add_command,
    config_overrides,
    parse_seeds,
    print_on_main_process,
    refuse_settings,
)
from dept_vl.errors import ConfigError


def _add_sweep(commands: Any) -> None:
    text = "Try settings: a grid, random ones or Optuna's TPE; the best on val is scored on test."
    parser = add_command(commands, "sweep", _sweep, text)
    parser.add_argument("--resume", action="store_true", help="go on after a kill, or beside another process")
    parser.add_argument("--overwrite", action="store_true", help="replace the sweep in the output folder")


def _sweep(options: argparse.Namespace, overrides: dict[str, Any]) -> None:
    if options.config is None:
        raise ConfigError("--config: a sweep needs a file with a 'sweep' section, such as sweeps/paper")
    from data_prep.first_use.data_dir import open_data_dir
    from dept_vl.experiments.folder import check_experiment
    from dept_vl.experiments.space import load_plan
    from dept_vl.runs.selection import check_data
    from dept_vl.system.extras import require_extra

    require_extra("sweep", "`dept-vl sweep`")
    plan = load_plan(options.config, config_overrides(options, overrides))
    plan.check_methods()
    check_experiment(plan.folder, "sweep", plan.record, resume=options.resume, overwrite=options.overwrite)
    data_dir = open_data_dir(plan.config({}))
    check_data(plan.config({}), data_dir, ["train", "val", "test"])
    from dept_vl.experiments.sweep import run_sweep
    from dept_vl.reports.text import describe_sweep

    print_on_main_process(describe_sweep(run_sweep(plan, data_dir, resume=options.resume, overwrite=options.overwrite)))


def _add_transfer(commands: Any) -> None:
    text = "Train a target task from each of several source tasks; the source is chosen on val."
    parser = add_command(commands, "transfer", _transfer, text)
    parser.add_argument("--target", required=True, metavar="TASK", help="the task to train, as cb")
    parser.add_argument("--sources", required=True, metavar="TASK,...", help="source tasks, as mnli,sst2,squad")
    parser.add_argument(
        "--source-runs",
        nargs="+",
        default=[],
        metavar="TASK=RUN",
        help="finished source runs to use; others are trained",
    )
    parser.add_argument(
        "--source-config",
        type=Path,
        metavar="FILE",
        help="settings the sources are trained with; default: the target's",
    )
    parser.add_argument("--seeds", type=parse_seeds, metavar="N,N,...", help="of the target's runs; default: --seed")
    parser.add_argument("--resume", action="store_true", help="go on in the output folder; finished runs are kept")
    parser.add_argument("--overwrite", action="store_true", help="replace the transfer in the output folder")


def _transfer(options: argparse.Namespace, overrides: dict[str, Any]) -> None:
    settings = config_overrides(options, overrides)
    if "task" in settings:
        raise ConfigError("task: a transfer has --target and --sources instead")
    if options.seeds and "seed" in settings:
        raise ConfigError("seed: has no effect beside --seeds; give one of them")
    from data_prep.first_use.data_dir import open_data_dir
    from dept_vl.experiments.folder import check_experiment
    from dept_vl.experiments.plan import check_seeds, check_transfer, plan_transfer, transfer_record
    from dept_vl.runs.refusals import check_method
    from dept_vl.runs.selection import check_data

    target, sources = plan_transfer(
        options.target,
        options.sources.split(","),
        options.config,
        settings,
        source_config=options.source_config,
        source_runs=options.source_runs,
    )
    if options.seeds is not None:
        check_seeds(options.seeds)
    check_transfer(target, sources)
    check_method(target)
    for source in sources.values():
        if not isinstance(source, Path):
            check_method(source, target)
    record = transfer_record(target, sources)
    check_experiment(target.run_dir, "transfer", record, resume=options.resume, overwrite=options.overwrite)
    data_dir = open_data_dir(target)
    check_data(target, data_dir, ["train", "val", "test"])
    for source in sources.values():
        if not isinstance(source, Path):
            open_data_dir(source)  # makes what is made on first use, in the same folder
            check_data(source, data_dir, ["train", "val"])
    from dept_vl.experiments.transfer import transfer
    from dept_vl.reports.text import describe_transfer

    result = transfer(
        target, sources, data_dir, seeds=options.seeds, resume=options.resume, overwrite=options.overwrite
    )
    print_on_main_process(describe_transfer(result))


def _add_report(commands: Any) -> None:
    text = "Write scored runs as a page to look at, or print a table or figure of the paper with scored runs beside."
    parser = add_command(commands, "report", _report, text, has_settings=False)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--paper", metavar="TABLE", help="table1 to table6")
    which.add_argument(
        "--figure", type=int, metavar="N",
        help="3: training time and memory by m; 4: speed by m; 5: one rate or two; 6: score against parameters",
    )  # fmt: skip
    which.add_argument(
        "--html", type=Path, metavar="FILE",
        help="one page of a run: scores, curves, examples; of several runs their scores and where they differ",
    )  # fmt: skip
    parser.add_argument(
        "runs", nargs="*", type=Path, metavar="RUN",
        help="folders of runs, seeds or transfers; figures 3 and 4: files of `python -m benchmarks paper-efficiency`",
    )  # fmt: skip
    parser.add_argument("--mixed", action="store_true", help="tables: print runs of different protocols, a line each")
    parser.add_argument(
        "--format", choices=("text", "markdown", "csv"), help="of a table; default: text, with what each run differs in"
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="write the table, or draw the figure: .png, .svg, .pdf"
    )
    parser.add_argument("--images", type=Path, metavar="DIR", help="page: where the runs' images are, if they moved")


def _report(options: argparse.Namespace, overrides: dict[str, Any]) -> None:
    refuse_settings("report", overrides)
    if options.html is not None:
        _report_page(options)
        return
    if options.images is not None:
        raise ConfigError("--images: is for a page, and has no effect without --html")
    if options.figure is not None:
        _report_figure(options)
        return
    from dept_vl.reports.paper_tables import compare
    from dept_vl.system.atomic import check_output_file, write_text

    if options.out is not None:
        check_output_file("--out", options.out)
    text = compare(options.paper, options.runs, mixed=options.mixed, form=options.format or "text")
    if options.out is None:
        print(text)
        return
    write_text(options.out, f"{text}\n")
    print(f"written: {options.out}")


def _report_page(options: argparse.Namespace) -> None:
    for name, value in (("mixed", options.mixed), ("format", options.format), ("out", options.out)):
        if value:
            raise ConfigError(f"--{name}: is for tables and figures, and has no effect with --html")
    from dept_vl.reports.page.write import write_page

    written = write_page(options.runs, options.html, images=options.images)
    print(f"written: {options.html} ({written.size_bytes / 1e6:.1f} MB, {written.cards:,} examples)")


def _report_figure(options: argparse.Namespace) -> None:
    from dept_vl.reports.drawing import check_drawing, draw_figure
    from dept_vl.reports.figures import figure_data, format_figure

    for name, value in (("mixed", options.mixed), ("format", options.format)):
        if value:
            raise ConfigError(f"--{name}: is for tables, and has no effect with --figure")
    if options.out is not None:
        check_drawing(options.out)
    data = figure_data(options.figure, options.runs)
    print(format_figure(data))
    if options.out is not None:
        draw_figure(data, options.out)
        print(f"drawn: {options.out}")


COMMANDS = (_add_sweep, _add_transfer, _add_report)
