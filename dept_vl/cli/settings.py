"""What commands share: flags that stand for settings, dotted overrides, and the configuration they make."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dept_vl.cli.aliases import ALIASES, flag_of
from dept_vl.cli.reads import GIVEN_ALONE, reads, refuse_unread
from dept_vl.errors import ConfigError, SettingProblem, SettingsError

if TYPE_CHECKING:
    from dept_vl.settings.schema import TrainConfig

_NAMES = frozenset({"task", "output_dir", "tuner.name", "data.dir", "init.from"})
"""Keys whose flags take a name as it is: as YAML, a folder called ``run: 2`` would be a mapping, ``2024`` a number."""

_OF_A_RUN = ("eval", "ablate", "predict", "push", "fold", "serve", "ui")
"""Commands that take the settings a run has recorded."""

_METAVARS = {"integer": "N", "number": "X", "string": "NAME", "boolean": "{true,false}"}


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


def flag_names(arguments: Sequence[str]) -> Callable[[str], str]:
    """Returns from a dotted key to how it was typed: ``--tuner.lr``, or ``--lr (tuner.lr)``."""
    typed = {word.partition("=")[0] for word in arguments}

    def name(key: str) -> str:
        flag = flag_of(key)
        return f"{flag} ({key})" if flag in typed and flag != f"--{key}" else f"--{key}"

    return name


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
    parser.register("type", Path, _read_path)
    parser.set_defaults(command=run)
    if has_settings:
        _add_settings(parser, name)
    return parser


def _read_path(text: str) -> Path:
    """Reads a path of the command line: what every flag with ``type=Path`` does."""
    return Path(read_name(text))


def read_name(text: str) -> str:
    """Reads what is a path or a name of the command line, such as a run's folder or hub id; ``~`` is expanded."""
    from dept_vl.strict import expand_home

    try:
        return expand_home(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}, got {text!r}") from None


class _HelpWithSettings(argparse.Action):
    """Prints the options, then every setting that the command reads; these are looked up when help is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, *_: Any) -> None:
        from dept_vl.settings.load import describe_settings

        command = namespace.reading
        _show_choices(parser)
        print(parser.format_help())
        file = "" if command in _OF_A_RUN else "; also keys of a --config file"
        print(f"settings (--dotted.key value{file}): type, default, meaning\n")
        print(describe_settings(lambda key: reads(command, key)))
        parser.exit()


def _show_choices(parser: argparse.ArgumentParser) -> None:
    """Puts what a short flag takes in place of its value."""
    from dept_vl.settings.help import settings_of
    from dept_vl.settings.marked import path_settings
    from dept_vl.settings.schema import TrainConfig

    kinds: dict[str, str] = {}
    for key, setting in settings_of(TrainConfig):
        kinds.setdefault(key, setting.kind)
    for action in parser._actions:
        key = action.dest.removeprefix("set:")
        if key == action.dest:
            continue
        options = [kind for kind in kinds[key].split(" | ") if kind != "null"]
        if key in path_settings():
            action.metavar = "PATH"
        elif len(options) > 1:
            action.metavar = f"{{{','.join(options)}}}"
        else:
            action.metavar = _METAVARS.get(options[0], options[0].upper())


def _add_settings(parser: argparse.ArgumentParser, command: str) -> None:
    """Adds ``--config``, the aliases of dotted keys, and help that lists every setting the command reads."""
    parser.set_defaults(reading=command)
    parser.add_argument("-h", "--help", nargs=0, action=_HelpWithSettings, help="show this and every setting, and exit")
    file = "YAML file of settings, a name that `dept-vl configs` lists, or 'demo'"
    shown = argparse.SUPPRESS if command in _OF_A_RUN else file
    parser.add_argument("--config", type=Path, metavar="FILE", help=shown)
    short = parser.add_argument_group("short flags of settings")
    for flag, key in ALIASES.items():
        text = f"sets {key}" if reads(command, key) else argparse.SUPPRESS
        short.add_argument(f"--{flag}", dest=f"set:{key}", metavar="VALUE", help=text)


def config_overrides(options: argparse.Namespace, overrides: dict[str, Any]) -> dict[str, Any]:
    """Returns dotted overrides, those given through aliases among them, a task by its full name, ``~`` expanded.

    Raises:
        ConfigError: One is given twice, is not read by the command, or names no task or home folder; or a command that
            takes a run's settings is given a file.
    """
    from dept_vl.settings.declared import find_tasks
    from dept_vl.settings.load import setting_names
    from dept_vl.settings.marked import path_setting
    from dept_vl.settings.renamed import new_key

    if options.config and options.reading in _OF_A_RUN:
        raise ConfigError("--config: a run has its own settings; override single ones with --dotted.key value")
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
    known = setting_names()
    for key, value in settings.items():
        refuse_unread(options.reading, new_key(key), flag_of(key) if key in given else f"--{key}", known)
        try:
            path = path_setting(key)
            if path is not None:
                settings[key] = path.expanded(value)
            if key == "task":
                settings[key] = str(value) if _may_be_own(options, str(value)) else find_tasks(str(value)).name
        except ValueError as error:
            raise SettingsError([SettingProblem(key, str(error), key)]) from None
    return settings


def _may_be_own(options: argparse.Namespace, task: str) -> bool:
    """Returns whether a task is a file that declares it, or may be the name of a run's own."""
    from dept_vl.settings.declared import is_task_file
    from dept_vl.tasks import is_task
    from dept_vl.tasks.mixture import is_mix

    return is_task_file(task) or (options.reading in _OF_A_RUN and not is_task(task) and not is_mix(task))


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
    from dept_vl.runs.folder import RUN_CONFIG_FILE, describe_other
    from dept_vl.settings.declared import find_tasks
    from dept_vl.settings.demo import choose_settings
    from dept_vl.settings.load import load_config

    settings = config_overrides(options, overrides)
    task, tuner = find_tasks(str(settings.get("task", "vqa"))), str(settings.get("tuner.name", "dept"))
    path = options.config
    if path is None and getattr(options, "resume", False):
        folder = Path(str(settings.get("output_dir", f"runs/{task.name}-{tuner}")))
        if not folder.is_dir() or not any(folder.iterdir()):
            raise ConfigError(f"--resume: nothing has begun in {folder}; leave --resume out")
        if not (folder / resume_from).is_file():
            what = describe_other(folder, "run" if resume_from == RUN_CONFIG_FILE else Path(resume_from).stem)
            raise ConfigError(f"{folder / resume_from}: cannot read what to resume: {folder} {what}")
        config = load_config(folder / resume_from, settings)
        check_paths(config, folder, settings, options.reading)
        return config
    return choose_settings(path, settings)


def check_paths(config: TrainConfig, folder: Path, given: Mapping[str, Any], command: str) -> None:
    """Refuses recorded paths that lead nowhere and that a command reads (`check_recorded_paths`)."""
    from dept_vl.runs.recorded import check_recorded_paths

    check_recorded_paths(
        config, folder, given,
        is_read=lambda key: reads(command, key) and not (command == "predict" and key in GIVEN_ALONE),
        how_to_give=lambda key: f"{flag_of(key)} PATH",
    )  # fmt: skip


def refuse_settings(command: str, overrides: dict[str, Any]) -> None:
    """Refuses dotted overrides of a command that has no settings.

    Raises:
        ConfigError: There are some.
    """
    if overrides:
        raise ConfigError(f"--{next(iter(overrides))}: `dept-vl {command}` takes no settings; see its --help")


def next_command(*words: object) -> str:
    """Returns the line that ends what a command prints: what to type next."""
    return f"next: {shlex.join(['dept-vl', *map(str, words)])}"


def print_on_main_process(text: str) -> None:
    """Prints, on the main process of a launch only."""
    if int(os.environ.get("RANK", "0")) == 0:
        print(text)
