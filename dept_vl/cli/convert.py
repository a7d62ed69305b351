"""The command about weights in other formats: convert."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dept_vl.cli.settings import add_command, refuse_settings


def _add_convert(commands: Any) -> None:
    text = "Turn weights in pickles (.bin, OpenAI's .pt) or GGUF into a folder of safetensors."
    parser = add_command(commands, "convert", _convert, text, has_settings=False)
    parser.add_argument(
        "source",
        metavar="IN",
        help="a weight file, a folder with one, or a hub id in the cache: a language model, CLIP",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="OUT", help="new folder")


def _convert(options: argparse.Namespace, overrides: dict[str, Any]) -> None:
    refuse_settings("convert", overrides)
    from dept_vl.models.weight_files import check_conversion

    source = check_conversion(options.source, options.out)
    from dept_vl.models.convert import convert

    what = convert(source, options.out)
    print(f"converted: {options.out} ({what})\nuse it with: {source.setting} {options.out}")


COMMANDS = (_add_convert,)
