"""The command about tasks: which there are, and what the model sees of one."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dept_vl.cli.settings import add_command, refuse_settings


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
    from dept_vl.settings.declared import find_task
    from dept_vl.tasks import get_task, task_names

    if options.name is None:
        print(describe_tasks(map(get_task, task_names())))
        return
    from data_prep.task_examples import render_examples

    task = find_task(options.name)
    examples, origin = render_examples(task, raw=options.raw, data_dir=options.data_dir)
    print(describe_tasks([task]))
    print(describe_examples(task, examples, origin))


COMMANDS = (_add_tasks,)
