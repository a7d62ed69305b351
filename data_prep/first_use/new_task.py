"""A first declaration of a task, guessed from the columns of a table and written with what each field means."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

from data_prep.first_use.column_profiles import look_at
from data_prep.first_use.task_guess import KINDS, NewTask, guess_task
from data_prep.raw.row_sources import open_rows
from dept_vl.errors import ConfigError, DataError
from dept_vl.registry import suggest
from dept_vl.settings.declared import check_declaration
from dept_vl.system.atomic import write_text
from dept_vl.tasks import task_names
from dept_vl.tasks.declaration import SplitDeclaration


def write_new_task(
    rows: str | Path,
    *,
    images: Path | None = None,
    kind: str | None = None,
    target: str | None = None,
    image_column: str | None = None,
    name: str | None = None,
    out: Path | None = None,
    overwrite: bool = False,
    tsv_quotes: bool = False,
) -> tuple[Path, NewTask]:
    """Writes a first declaration for a table's rows.

    Args:
        rows: The rows, as `open_rows` takes them.
        images: Folder of the images.
        kind: What the task is; None: guessed.
        target: Column of the answer, label or caption; None: guessed.
        image_column: Column of the image, of several images separated by commas; None: guessed.
        name: The task's name; None: that of the rows.
        out: The file; None: the name with ``.yaml``, in the current folder.
        overwrite: Whether the file may be there.
        tsv_quotes: Whether the fields of TSV files may be quoted.

    Returns:
        Where it was written, and what was guessed.

    Raises:
        ConfigError: It cannot be guessed, and the message says which flag decides; or the file is there.
        DataError: The rows cannot be read.
    """
    if kind is not None and kind not in KINDS:
        raise ConfigError(f"--kind: unknown kind {kind!r}{suggest(kind, KINDS)} (known: {', '.join(KINDS)})")
    name = name if name is not None else _task_name(rows)
    path = out if out is not None else Path(f"{name}.yaml")
    if path.suffix.lower() not in (".yaml", ".yml"):
        raise ConfigError(f"--out: {path} should end in .yaml, by which commands tell a file from a task's name")
    if path.exists() and not overwrite:
        raise ConfigError(f"{path}: is there already; choose another --out, or give --overwrite")
    source = open_rows(rows, SplitDeclaration().names, tsv_quotes=tsv_quotes)
    if images is not None and not images.is_dir():
        raise DataError(f"{images}: no such folder of images")
    columns = look_at(source, images or source.folder)
    if not any(column.rows for column in columns):
        raise DataError(f"{rows}: holds no row to guess from")
    task = guess_task(source, columns, kind, target, image_column)
    task.fields = {"name": (name, "folders and results are called so"), **task.fields}
    check_declaration({name: value for name, (value, _) in task.fields.items()}, "the guessed task")
    write_text(path, _text(task, str(rows)))
    return path, task


def _task_name(rows: str | Path) -> str:
    stem = Path(str(rows).rstrip("/")).name.split(".")[0].split(":")[0]
    made = re.sub(r"[^a-z0-9_-]+", "-", stem.lower()).strip("-_") or "task"
    return f"my-{made}" if made in task_names() else made


def _text(task: NewTask, rows: str) -> str:
    """Returns the YAML file of a task."""
    lines = [
        f"# A task, guessed by `dept-vl new-task` from {json.dumps(rows)[1:-1]}.",
        '# Look it through: docs/data.md, "Your own rows", has every field.',
    ]
    for name, (value, comment) in task.fields.items():
        style = None if isinstance(value, list) and len(value) <= 4 else False  # short lists stand on one line
        field = yaml.safe_dump({name: value}, default_flow_style=style, sort_keys=False, allow_unicode=True, width=1000)
        lines += [f"# {comment}", field.rstrip()]
    return "\n".join(lines) + "\n"
