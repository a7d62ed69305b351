"""What commands share: flags that stand for settings, dotted overrides, and the configuration they make."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dept_vl.errors import ConfigError

if TYPE_CHECKING:
    from dept_vl.settings.schema import TrainConfig

ALIASES = {
    "task": "task",
    "output-dir": "output_dir",
    "seed": "seed",
    "tuner": "tuner.name",
    "lr": "tuner.lr",
    "lowrank-lr": "tuner.lowrank_lr",
    "projection-lr": "optim.projection_lr",
    "data-dir": "data.dir",
    "on-long": "data.on_long",
    "few-shot": "data.few_shot",
    "init-from": "init.from",
    "on-nan": "loop.on_nan",
}
"""Named flag -> the dotted key it stands for. Every other setting is ``--dotted.key value``."""

_NAMES = frozenset({"task", "output_dir", "tuner.name", "data.dir", "init.from"})
"""Keys whose flags take a name as it is: as YAML, a folder called ``run: 2`` would be a mapping, ``2024`` a number."""


def split_overrides(arguments: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Takes ``--dotted.key value`` and ``--dotted.key=value`` out of the arguments; values are read as YAML."""
    words: list[str] = []
    overrides: dict[str, Any] = {}
    rest = iter(arguments)
    for word in rest:
        key, has_value, value = word[2:].partition("=")
        if not word.startswith("--") or "." not in key:
            words.append(word)
            continue
        if not has_value:
            following = next(rest, None)
            if following is None:
                raise ConfigError(f"--{key}: expected a value after it")
            value = following
        overrides[key] = _read_value(value)
    return words, overrides


def _read_value(text: str) -> Any:
    """Returns a value read as YAML; text that is none, such as a file's name that is not UTF-8, as it is."""
    import yaml

    from dept_vl.system.bounded_reading import parse_yaml

    try:
        return parse_yaml(text) if text else text
    except yaml.YAMLError:
        return text


def add_command(
    commands: Any,
    name: str,
    run: Callable[[argparse.Namespace, dict[str, Any]], None],
    text: str,
    *,
    has_settings: bool = True,
    earlier_names: Sequence[str] = (),
) -> argparse.ArgumentParser:
    """Adds a command: its name, what runs it, one line of help, and whether it takes ``--config`` and settings."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=text, allow_abbrev=False, add_help=not has_settings, aliases=earlier_names
    )
    parser.set_defaults(command=run)
    if has_settings:
        _add_settings(parser)
    return parser


class _HelpWithSettings(argparse.Action):
    """Prints the options and then every setting; the settings are only looked up when help is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from dept_vl.settings.load import describe_settings

        print(parser.format_help())
        print("settings (--dotted.key value; also keys of a --config file): type, default, meaning")
        print(describe_settings())
        parser.exit()


def _add_settings(parser: argparse.ArgumentParser) -> None:
    """Adds ``--config``, the aliases of dotted keys, and help that lists every setting."""
    parser.add_argument("-h", "--help", nargs=0, action=_HelpWithSettings, help="show this and every setting, and exit")
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file of settings, or 'demo'")
    for flag, key in ALIASES.items():
        parser.add_argument(f"--{flag}", dest=f"set:{key}", metavar="VALUE", help=f"sets {key}")


def config_overrides(options: argparse.Namespace, overrides: dict[str, Any]) -> dict[str, Any]:
    """Returns dotted overrides, those given through aliases among them, a task by its full name."""
    from dept_vl.tasks import get_task

    flags = {key.removeprefix("set:"): text for key, text in vars(options).items() if key.startswith("set:")}
    given = {
        key: text if key in _NAMES or text == "" else _read_value(text)
        for key, text in flags.items()
        if text is not None
    }
    twice = sorted(set(given) & set(overrides))
    if twice:
        raise ConfigError(f"{twice[0]}: given twice on the command line")
    settings = {**given, **overrides}
    if "task" in settings:
        settings["task"] = get_task(str(settings["task"])).name
    return settings


def parse_seeds(text: str) -> list[int]:
    """Reads ``0,1,2``."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected numbers with commas between, such as 0,1,2, got {text[:80]!r}"
        ) from None


def load_settings(
    options: argparse.Namespace, overrides: dict[str, Any], *, resume_from: str = "config.yaml"
) -> TrainConfig:
    """Returns the configuration; the embedded one when neither a file nor data are named and the task has one.

    Args:
        options: The command's flags.
        overrides: Dotted settings.
        resume_from: With ``--resume`` and no ``--config``: the file of settings in the output folder.
    """
    from dept_vl.settings.demo import demo_settings
    from dept_vl.settings.load import load_config, overlay_config
    from dept_vl.tasks import get_task

    settings = config_overrides(options, overrides)
    task, tuner = str(settings.get("task", "vqa")), str(settings.get("tuner.name", "dept"))
    path = options.config
    if path is None and getattr(options, "resume", False):
        path = Path(str(settings.get("output_dir", f"runs/{task}-{tuner}"))) / resume_from
    elif path == Path("demo"):
        return overlay_config(demo_settings(task, tuner), settings)
    elif path is None and settings.get("data.dir", "demo" if get_task(task).uses_images else None) == "demo":
        logging.info("no data and no --config given: using the embedded scenes, CLIP and T5")
        return overlay_config(demo_settings(task, tuner), settings)
    return load_config(path, settings)


def open_data_dir(config: TrainConfig) -> Path:
    """Returns the folder of prepared data; the embedded ones and text tasks from the hub are made on first use."""
    from dept_vl.tasks import get_task

    if config.is_demo_data:
        from data_prep.first_use.demo import demo_data_dir

        return demo_data_dir(config.model.image_encoder)
    if config.data.dir is None and get_task(config.task).protocols:
        from data_prep.first_use.hub import text_data_dir

        return text_data_dir(config.task, config.data.protocol)
    if config.data.dir is None:
        raise ConfigError("data.dir: not set; give --data-dir DATA (what `dept-vl prepare` wrote), or 'demo'")
    return Path(config.data.dir)


def refuse_settings(command: str, overrides: dict[str, Any]) -> None:
    """Refuses dotted overrides of a command that has no settings.

    Raises:
        ConfigError: There are some.
    """
    if overrides:
        raise ConfigError(f"--{next(iter(overrides))}: `dept-vl {command}` takes no settings; see its --help")


def print_on_main_process(text: str) -> None:
    """Prints, on the main process of a launch only."""
    if int(os.environ.get("RANK", "0")) == 0:
        print(text)
