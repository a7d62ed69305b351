"""Every setting of a tree of dataclasses, for ``--help`` and for naming the one that was meant."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, get_origin

from pydantic import RootModel

from dept_vl.tuners import DeptConfig


@dataclasses.dataclass(frozen=True)
class Setting:
    """One line of help.

    Attributes:
        kind: Type, or the values it may take.
        default: Of the field, as text.
        text: What it means.
        tuners: The methods that have it; empty for a setting of the run's own.
    """

    kind: str
    default: str
    text: str
    tuners: tuple[str, ...] = ()

    def line(self, key: str) -> str:
        """Returns the line of help of the setting with a dotted key."""
        only = f" [{', '.join(self.tuners)}]" if self.tuners else ""
        return f"  --{key:<32} {self.kind:<28} {self.default:<16} {self.text}{only}"


def settings_of(cls: type, prefix: str = "") -> Iterable[tuple[str, Setting]]:
    """Yields every setting under `cls` with its dotted key."""
    for name, info in cls.__pydantic_fields__.items():  # type: ignore[attr-defined]  # set by pydantic
        groups = _groups(info.annotation)
        if name == "tuner":
            yield from _tuner_settings(groups)
        elif groups and get_origin(info.annotation) is not dict:
            yield from settings_of(groups[0], f"{prefix}{name}.")
        else:
            default = info.get_default(call_default_factory=True)
            shown = "null" if default is None else str(default)
            yield f"{prefix}{info.alias or name}", Setting(_kind(info.annotation), shown, info.description or "")


def _tuner_settings(members: Sequence[type]) -> Iterable[tuple[str, Setting]]:
    """Yields the settings of every method; one that several share alike once, with their names."""
    names = [member.__pydantic_fields__["name"].default for member in members]  # type: ignore[attr-defined]
    text = "the method, or several at once: dept+lora"
    yield "tuner.name", Setting(" | ".join(names), DeptConfig().name, text)
    merged: dict[tuple[str, Setting], list[str]] = {}
    for member, name in zip(members, names, strict=True):
        for key, setting in settings_of(member, "tuner."):
            if key != "tuner.name":
                merged.setdefault((key, setting), []).append(name)
    for (key, setting), tuners in merged.items():
        yield key, dataclasses.replace(setting, tuners=tuple(tuners))


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
