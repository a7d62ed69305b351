"""Commands about the released DePT checkpoints: import-released, export-released."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from dept_vl.cli.settings import add_command, next_command, refuse_settings


def _add_import(commands: Any) -> None:
    text = "Turn an adapter of the released DePT code into a run folder."
    parser = add_command(
        commands, "import-released", _import, text, has_settings=False, earlier_names=["import-official"]
    )
    parser.add_argument(
        "folder", type=Path, metavar="DIR", help="holds adapter_config.json and adapter_model.bin or .safetensors"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="RUN", help="run folder to make")
    parser.add_argument("--task", metavar="NAME", help="what it was trained on; default: the folder's name")
    parser.add_argument(
        "--backbone", metavar="PATH_OR_ID",
        help="its T5, loaded to record the weights' hash; default: the published T5 it names, weights not recorded",
    )  # fmt: skip
    parser.add_argument("--prompt-only", action="store_true", help="import the soft prompt without the low-rank pair")
    parser.add_argument("--overwrite", action="store_true", help="replace the run in the output folder")


def _import(options: argparse.Namespace, overrides: dict[str, Any]) -> None:
    refuse_settings("import-released", overrides)
    from dept_vl.runs.refusals import check_import

    check_import(options.folder, options.out, task=options.task, overwrite=options.overwrite, backbone=options.backbone)
    from dept_vl.runs.released import import_released

    adapter = import_released(
        options.folder,
        options.out,
        task=options.task,
        backbone=options.backbone and os.path.expanduser(options.backbone),
        prompt_only=options.prompt_only,
        overwrite=options.overwrite,
    )
    print(
        f"imported: {options.out} ({adapter.tuner.name} for {adapter.task} on {adapter.backbone.name}, "
        f"{', '.join(f'{name} = {fact}' for name, fact in adapter.facts.items())})"
    )
    print(next_command("eval", "--task", adapter.task, "--checkpoint", options.out))


def _add_export(commands: Any) -> None:
    text = "Write a run's adapter as the released DePT code loads it."
    parser = add_command(
        commands, "export-released", _export, text, has_settings=False, earlier_names=["export-official"]
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder with a text-only adapter on a T5")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="new folder")


def _export(options: argparse.Namespace, overrides: dict[str, Any]) -> None:
    refuse_settings("export-released", overrides)
    from dept_vl.runs.refusals import check_export

    check_export(options.run, options.out)
    from dept_vl.runs.released import export_released

    export_released(options.run, options.out)
    print(f"exported: {options.out} (the released code needs every text padded to max_length tokens)")


COMMANDS = (_add_import, _add_export)
