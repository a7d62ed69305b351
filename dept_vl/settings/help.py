"""Every setting of a tree of dataclasses, for ``--help`` and for naming the one that was meant."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any, get_origin

from pydantic import RootModel
from pydantic.fields import FieldInfo

from dept_vl.strict import Whole


@dataclasses.dataclass(frozen=True)
class Setting:
    """One line of help.

    Attributes:
        kind: Type, or the values it may take.
        default: Of the field, as text.
        text: What it means.
        only: The kinds of its group that have it; empty where all do.
    """

    kind: str
    default: str
    text: str
    only: tuple[str, ...] = ()

    def line(self, key: str) -> str:
        """Returns the line of help of the setting with a dotted key."""
        only = f" [{', '.join(self.only)}]" if self.only else ""
        if "." not in key:
            key = key.replace("_", "-")  # a short flag
        return f"  --{key:<34} {self.kind:<28} {self.default:<16} {self.text}{only}"


def fields_of(cls: type, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yields every setting's field under `cls` with its dotted key, those of every kind of a group."""
    for name, info in cls.__pydantic_fields__.items():  # type: ignore[attr-defined]  # set by pydantic
        groups = _groups_in(info)
        if not groups:
            yield f"{prefix}{info.alias or name}", info
        for group in groups:
            yield from fields_of(group, f"{prefix}{name}.")


def settings_of(cls: type, prefix: str = "") -> Iterable[tuple[str, Setting]]:
    """Yields every setting under `cls` with its dotted key."""
    for name, info in cls.__pydantic_fields__.items():  # type: ignore[attr-defined]  # set by pydantic
        groups = _groups_in(info)
        if info.discriminator is not None:
            yield from _settings_of_kinds(info, f"{prefix}{name}.")
        elif groups:
            yield from settings_of(groups[0], f"{prefix}{name}.")
        else:
            default = info.get_default(call_default_factory=True)
            shown = "null" if default is None else str(default)
            yield f"{prefix}{info.alias or name}", Setting(_kind(info.annotation), shown, info.description or "")


def _settings_of_kinds(info: FieldInfo, prefix: str) -> Iterable[tuple[str, Setting]]:
    """Yields the settings of every kind of a group; one that several share alike once, with their names."""
    tag, members = str(info.discriminator), groups_of(info.annotation)
    names = [member.__pydantic_fields__[tag].default for member in members]  # type: ignore[attr-defined]
    default = getattr(info.get_default(call_default_factory=True), tag)
    yield f"{prefix}{tag}", Setting(" | ".join(names), default, info.description or "")
    merged: dict[tuple[str, Setting], list[str]] = {}
    for member, name in zip(members, names, strict=True):
        for key, setting in settings_of(member, prefix):
            if key != f"{prefix}{tag}":
                merged.setdefault((key, setting), []).append(name)
    for (key, setting), only in merged.items():
        yield key, setting if len(only) == len(members) else dataclasses.replace(setting, only=tuple(only))


def _groups_in(info: FieldInfo) -> list[type]:
    """Returns the groups that a field is, whose fields are settings of their own."""
    is_one = get_origin(info.annotation) is dict or any(isinstance(mark, Whole) for mark in info.metadata)
    return [] if is_one else groups_of(info.annotation)


def groups_of(annotation: Any) -> list[type]:
    """Returns the dataclasses an annotation names, through ``Annotated`` and unions."""
    if isinstance(annotation, type):
        return [annotation] if dataclasses.is_dataclass(annotation) else []
    return [group for argument in getattr(annotation, "__args__", ()) for group in groups_of(argument)]


def _kind(annotation: Any) -> str:
    schema = RootModel[annotation].model_json_schema()
    names: list[str] = []
    for option in schema.get("anyOf", [schema]):
        if "enum" in option.get("items", {}):
            names.append(",".join(option["items"]["enum"]))
        else:
            names += [str(value) for value in option.get("enum", [option.get("type", "value")])]
    return " | ".join(names)
