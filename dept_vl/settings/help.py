"""Every setting of a tree of dataclasses, for ``--help`` and for naming the one that was meant."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import RootModel

from dept_vl.tuners import DeptConfig


@dataclasses.dataclass(frozen=True)
class Setting:
    """One line of help.

    Attributes:
        kind: Type, or the values it may take.
        default: Of the field.
        text: What it means.
        tuners: The methods that have it; empty for all.
    """

    kind: str
    default: object
    text: str
    tuners: tuple[str, ...] = ()

    def line(self, key: str) -> str:
        """Returns the line of help of the setting with a dotted key."""
        default = "null" if self.default is None else self.default
        only = f" [{', '.join(self.tuners)}]" if self.tuners else ""
        return f"  --{key:<32} {self.kind:<28} {default!s:<16} {self.text}{only}"


def settings_of(cls: type, prefix: str = "") -> Iterable[tuple[str, Setting]]:
    """Yields every setting under `cls` with its dotted key."""
    for name, info in cls.__pydantic_fields__.items():  # type: ignore[attr-defined]  # set by pydantic
        groups = _groups(info.annotation)
        if name == "tuner":
            yield from _tuner_settings(groups)
        elif groups:
            yield from settings_of(groups[0], f"{prefix}{name}.")
        else:
            default = info.get_default(call_default_factory=True)
            yield f"{prefix}{info.alias or name}", Setting(_kind(info.annotation), default, info.description or "")


def _tuner_settings(members: Sequence[type]) -> Iterable[tuple[str, Setting]]:
    """Yields the settings of every method, one that several share once."""
    names = [member().name for member in members]
    yield "tuner.name", Setting(" | ".join(names), DeptConfig().name, "the method")
    merged: dict[str, Setting] = {}
    for member, name in zip(members, names, strict=True):
        for key, setting in settings_of(member, "tuner."):
            if key != "tuner.name":
                first = merged.get(key, setting)
                merged[key] = dataclasses.replace(first, tuners=(*first.tuners, name))
    for key, setting in merged.items():
        yield key, dataclasses.replace(setting, tuners=() if len(setting.tuners) == len(names) else setting.tuners)


def _groups(annotation: Any) -> list[type]:
    """Returns the dataclasses an annotation names, through ``Annotated`` and unions."""
    if isinstance(annotation, type):
        return [annotation] if dataclasses.is_dataclass(annotation) else []
    return [group for argument in getattr(annotation, "__args__", ()) for group in _groups(argument)]


def _kind(annotation: Any) -> str:
    schema = RootModel[annotation].model_json_schema()
    options = schema.get("anyOf", [schema])
    names = [str(value) for option in options for value in option.get("enum", [option.get("type", "value")])]
    return " | ".join(names)
