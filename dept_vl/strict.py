"""How dataclasses that are read from files or the command line are checked, and marks of their fields. No torch.

`dept_vl.settings.marked` finds the settings that have a mark.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from dept_vl.errors import ConfigError

STRICT = ConfigDict(extra="forbid", validate_default=True, allow_inf_nan=False)
"""No unknown fields, defaults checked too, no number that is infinite or NaN."""

MAX_SIZE = 1_000_000
"""Cap on lengths and ranks, far above any real one: a slip of the keyboard fails here and not in the allocator."""

MAX_SEED = 2**63 - 1
"""The largest that every generator used here takes."""


@dataclass(frozen=True)
class MayDiffer:
    """A resumed run may have another value: it changes no number, only how fast or how safely the run gets there."""


@dataclass(frozen=True)
class Whole:
    """A group that is given as a whole, as a file's content: its fields are no settings of their own."""


@dataclass(frozen=True)
class LocalPath:
    """The value is a path, or several. A ``~`` at a start becomes the home folder; runs record it from the root on.

    Attributes:
        or_name: Whether it may be a name too, such as a hub id. Then it is a path where something lies there.
        words: Values that are no path, such as ``"demo"``.
        prefix: What may stand before the path.
        is_needed: Whether a run that has a path there cannot do without what it names, though it may be null.
    """

    or_name: bool = False
    words: tuple[str, ...] = ()
    prefix: str = ""
    is_needed: bool = False

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Expands ``~`` wherever the setting is checked."""
        return core_schema.no_info_after_validator_function(self.expanded, handler(source))

    def expanded(self, value: Any) -> Any:
        """Returns the value, be it one path, several or None, with the home folder in place of a ``~``.

        Raises:
            ConfigError: As `expand_home`.
        """
        return map_paths(value, lambda path: self._changed(path, expand_home))

    def absolute(self, value: str) -> str:
        """Returns the value from the root on; names and words as they are."""
        return self._changed(value, os.path.abspath) if self.is_local(value) else value

    def real(self, value: str) -> str:
        """Returns what is equal for two spellings of one path: the path behind all links; others as they are."""
        return self._changed(value, os.path.realpath) if self.is_local(value) else value

    def is_relative(self, value: str) -> bool:
        """Returns whether it is a path that means something else, or nothing, in another folder.

        What may be a name too is a path for sure where its form says so.
        """
        bare = value.removeprefix(self.prefix)
        if value in self.words or os.path.isabs(bare):
            return False
        return not self.or_name or self._is_sure_path(value)

    def is_local(self, value: str) -> bool:
        """Returns whether it is a path: what may be a name too is one by its form, or where something lies there."""
        if value in self.words:
            return False
        return not self.or_name or self._is_sure_path(value) or os.path.exists(value)

    def _is_sure_path(self, value: str) -> bool:
        """Returns whether a value is no name: hub ids have one slash at most, and begin with no dot."""
        has_prefix = bool(self.prefix) and value.startswith(self.prefix)
        return has_prefix or os.path.isabs(value) or value.startswith((".", "~")) or value.count("/") > 1

    def _changed(self, value: str, change: Any) -> str:
        bare = value.removeprefix(self.prefix)
        return f"{value[: len(value) - len(bare)]}{change(bare)}"


@dataclass(frozen=True)
class Names:
    """The value is a list of names, which may be typed as one text with commas between: ``a,b``."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Takes the text apart before the list is checked."""
        return core_schema.no_info_before_validator_function(split_names, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Lets editors take both."""
        return {"anyOf": [handler(schema), {"type": "string"}]}


def split_names(value: Any) -> Any:
    """Takes ``a,b``, as it is typed, for a list."""
    return value.split(",") if isinstance(value, str) else value


def map_paths(value: Any, change: Callable[[str], str]) -> Any:
    """Returns the value of a path setting with each path in it changed; what holds none stays as it is."""
    if isinstance(value, str):
        return change(value)
    return type(value)(map_paths(one, change) for one in value) if isinstance(value, list | tuple) else value


def expand_home(text: str) -> str:
    """Returns a path as typed with the home folder in place of a ``~`` or ``~user`` at its start.

    Raises:
        ConfigError: No such home folder is known.
    """
    expanded = os.path.expanduser(text)
    if text.startswith("~") and expanded == text:
        raise ConfigError(f"no home folder of that name is known; write ./{text} for a folder that is called so")
    return expanded
