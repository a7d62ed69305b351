"""The errors of a run. The command line prints their message: bad input ends with exit code 2, the others with 1."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class ConfigError(ValueError):
    """A setting is unknown, of the wrong type, out of range, or contradicts another one."""


@dataclass(frozen=True)
class SettingProblem:
    """What is wrong with one setting.

    Attributes:
        key: Its dotted key.
        text: What is wrong.
        given_as: The dotted key, of this version or an earlier one, under which a caller or the command line gave it;
            None where the file, or a default, says it.
    """

    key: str
    text: str
    given_as: str | None = None


class SettingsError(ConfigError):
    """Every problem of some settings: those that were given, by their names, and those of the file.

    Attributes:
        problems: At least one.
        where: The file; empty where there is none.
    """

    def __init__(self, problems: Sequence[SettingProblem], where: str = "") -> None:
        """Words them with the dotted keys; see `describe`."""
        self.problems = tuple(problems)
        self.where = where
        super().__init__(self.describe())

    def describe(self, name_of: Callable[[str], str] = str) -> str:
        """Returns one line a problem, those of the file under its name.

        Args:
            name_of: From the dotted key a setting was given under to what was typed, such as ``--lr``.
        """
        given = sorted(f"{name_of(one.given_as)}: {one.text}" for one in self.problems if one.given_as is not None)
        others = sorted(f"{one.key}: {one.text}" if one.key else one.text for one in self.problems if not one.given_as)
        return "\n".join([*given, *([f"{self.where}:"] if self.where and others else []), *others])


class DataError(ValueError):
    """A file of raw data, a prepared split, an image or a feature store is missing or malformed."""


class NotMadeError(DataError):
    """What is made on first use is not there, and was not to be made.

    Attributes:
        folder: Where it would lie; of rows whose features are missing it is there, and prepared.
    """

    def __init__(self, folder: Path, command: str) -> None:
        super().__init__(f"{folder}: not made yet; the run makes it, or {command} before")
        self.folder = folder


class NoFeaturesError(DataError):
    """There is no finished store of the features that a run reads."""


class CheckpointError(ValueError):
    """An adapter or a training state does not fit the model it is loaded into, or is damaged."""


class DivergenceError(RuntimeError):
    """The loss or a gradient became NaN or infinite, or exploded."""


class MismatchError(RuntimeError):
    """A result, made again, is not what was recorded. The command line exits with code 1, as ``diff`` does."""


class PrunedError(Exception):
    """Raised by a caller's ``on_evaluation`` to end a run that is not worth its remaining steps."""


def shown(value: Any, write: Callable[[Any], str] = repr) -> str:
    """Returns a value's type and how it begins, for messages."""
    text = write(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else f'{text[:57]}...'}"


def first_line(error: BaseException) -> str:
    """Returns what an error of another package says, in a line of a message; its type where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
