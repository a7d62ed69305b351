"""The commands about tasks: which there are, what the model sees of one, and a first file for one of your own."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dept_vl.cli.settings import add_command, next_command, refuse_settings


def _add_tasks(commands: Any) -> None:
    text = "List the tasks, or show three examples of one as the model sees them."
    parser = add_command(commands, "tasks", _tasks, text, has_settings=False)
    parser.add_argument(
        "name", nargs="?", metavar="TASK", help="show examples of this task, or of a YAML file that declares one"
    )
    parser.add_argument("--raw", type=Path, metavar="DIR", help="of the rows in this folder of raw files")
    parser.add_argument("--data-dir", type=Path, metavar="DATA", help="of the rows that `dept-vl prepare` wrote here")


def _tasks(options: argparse.Namespace, overrides: dict[str, Any]) -> None:
    refuse_settings("tasks", overrides)
    from dept_vl.reports.text import describe_examples, describe_tasks
    from dept_vl.tasks import get_task, task_names

    if options.name is None:
        print(describe_tasks(map(get_task, task_names())))
        return
    from data_prep.task_examples import render_examples
    from dept_vl.settings.declared import find_task

    task = find_task(options.name)
    if task.declaration is not None and options.raw is None and options.data_dir is None:
        print(describe_tasks([task]))
        print(f"{task.name}: {task.paper}\ntemplate: {task.declaration.text!r} (--data-dir DATA shows rows)")
        return
    examples, origin = render_examples(task, raw=options.raw, data_dir=options.data_dir)
    print(describe_tasks([task]))
    print(describe_examples(task, examples, origin))


def _add_new_task(commands: Any) -> None:
    text = "Write a first YAML file of a task for rows of your own, and say what was guessed."
    parser = add_command(commands, "new-task", _new_task, text, has_settings=False)
    parser.add_argument(
        "--from", dest="rows", required=True, metavar="ROWS",
        help="file (CSV, TSV, JSON, JSON lines, Parquet), folder, or data set on the hub (user/name)",
    )  # fmt: skip
    parser.add_argument("--images", type=Path, metavar="DIR", help="folder of the images; default: the rows' own")
    parser.add_argument("--kind", metavar="KIND", help="question, caption, image-label, text-label or text")
    parser.add_argument("--target", metavar="COLUMN", help="column of the answer, label or caption")
    parser.add_argument("--image-column", metavar="COLUMN", help="column of the image; LEFT,RIGHT: of each of several")
    parser.add_argument("--name", metavar="NAME", help="of the task; default: that of the rows")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: the name with .yaml, in this folder")
    parser.add_argument("--overwrite", action="store_true", help="replace the file")
    parser.add_argument("--tsv-quotes", action="store_true", help="fields of TSV files are quoted, as in CSV")


def _new_task(options: argparse.Namespace, overrides: dict[str, Any]) -> None:
    refuse_settings("new-task", overrides)
    from data_prep.first_use.new_task import write_new_task

    arguments = {name: value for name, value in vars(options).items() if name != "command"}
    path, task = write_new_task(arguments.pop("rows"), **arguments)
    print(f"written: {path}")
    for heading, lines in (("guessed", task.guessed), ("could not tell", task.untold)):
        for line in lines:
            print(f"{heading}: {line}")
    images = ["--images", options.images] if options.images else []
    print(next_command("train", "--task", path, "--rows", options.rows, *images))


COMMANDS = (_add_tasks, _add_new_task)
