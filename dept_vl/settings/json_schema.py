"""The settings as JSON Schema (draft 2020-12), by which editors complete and check a settings file. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from dept_vl.settings.choices import CHOICES
from dept_vl.settings.layers import EXTENDS
from dept_vl.settings.schema import TrainConfig
from dept_vl.tasks import task_names
from dept_vl.tuners.settings import is_rate
from dept_vl.tuners.stack.config import StackConfig

DIALECT = "https://json-schema.org/draft/2020-12/schema"

Node = dict[str, Any]

_RATE = {
    "anyOf": [
        {"type": "number", "exclusiveMinimum": 0},
        {"type": "string", "pattern": r"^[0-9.]+([eE][-+]?[0-9]+)?x?$"},
    ]
}
"""A learning rate, or one as a multiple of the word embeddings' size (`dept_vl.tuners.rates`)."""

_SEVERAL = r"^[^+]+(\+[^+]+)+$"
"""The name of several methods at once: ``dept+lora``."""


def settings_schema(sections: Mapping[str, type]) -> Node:
    """Returns the JSON Schema of a settings file.

    It knows keys, types, choices, bounds and each kind of a group by its own settings. What follows from several
    settings at once, or from data and weights, `dept-vl` itself says. A kind that is not named may be any: another file
    or the command line can name it. Names of earlier versions, which are still read, are unknown keys here.

    Args:
        sections: Sections of a file that are not of a run, by name, as pydantic's dataclasses: ``sweep``.
    """
    root = TypeAdapter(TrainConfig).json_schema(by_alias=True, ref_template="#/$defs/{model}")
    properties, defs = root["properties"], root["$defs"]
    for name, section in sections.items():
        own = TypeAdapter(section).json_schema(by_alias=True, ref_template="#/$defs/{model}")
        defs |= own.pop("$defs", {})
        properties[name] = own
    whole = "the fields of a task of your own, as its file has them; written by a run"
    properties["declaration"] = {"type": ["object", "null"], "default": None, "description": whole}
    for name in ("TaskDeclaration", "SplitDeclaration"):
        defs.pop(name, None)
    known = [{"enum": task_names()}, {"type": "string"}]
    properties["task"] = {key: value for key, value in properties["task"].items() if key != "type"} | {"anyOf": known}
    properties[EXTENDS] = {
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
        "description": "file, or files, that this one is laid over: a path from here, or a name of `dept-vl configs`",
    }
    tidied: Node = _tidied(root)
    _allow_several(tidied)
    return {"$schema": DIALECT, "title": "Settings of dept-vl", **tidied}


def _tidied(node: Any, key: str = "") -> Any:
    """Returns a part of the schema without titles, its kinds told apart by their tag, and its rates bounded."""
    if isinstance(node, list):
        return [_tidied(item) for item in node]
    if not isinstance(node, dict):
        return node
    kept = {name: value for name, value in node.items() if not (name == "title" and isinstance(value, str))}
    if is_rate(key) and {"type": "string"} in kept.get("anyOf", []):
        return {**kept, **_RATE}
    if "discriminator" in kept:
        mapping = kept.pop("discriminator")
        kept.pop("oneOf")
        return {**kept, **_kinds(mapping["propertyName"], mapping["mapping"], kept.get("description", ""))}
    return {name: _tidied(value, name) for name, value in kept.items()}


def _kinds(tag: str, kinds: Mapping[str, str], text: str) -> Node:
    """Returns what a group is whose settings depend on one of them.

    Args:
        tag: Name of that one.
        kinds: Its value -> reference to the settings of that kind.
        text: What the group is.
    """
    each = [
        {"if": {"properties": {tag: {"const": kind}}, "required": [tag]}, "then": {"$ref": reference}}
        for kind, reference in kinds.items()
    ]
    unnamed = {"if": {"not": {"required": [tag]}}, "then": {"anyOf": [{"$ref": ref} for ref in kinds.values()]}}
    named: Node = {"enum": [*kinds], "description": text}
    for choice in CHOICES:
        if {*choice.kinds} == {*kinds}:
            named["default"] = choice.default
    return {"type": "object", "properties": {tag: named}, "allOf": [*each, unnamed]}


def _allow_several(root: Node) -> None:
    """Lets the tuner be several methods at once, by their names or as a stack with parts.

    A part's key is its method where it names none; a rate of the whole is the first part's.
    """
    tuner, stack = root["properties"]["tuner"], root["$defs"][StackConfig.__name__]
    (choice,) = (one for one in CHOICES if one.place == ("tuner",))
    named = stack["properties"]["parts"]["additionalProperties"]
    methods = {kind: {"$ref": _reference(root, kind)} for kind in named["properties"]["name"]["enum"]}
    root["$defs"]["Part"] = named
    has_name, part = {"type": "object", "required": ["name"]}, {"$ref": "#/$defs/Part"}
    stack["properties"]["parts"] = {
        "type": "object",
        "description": stack["properties"]["parts"]["description"],
        "properties": {
            kind: {"if": has_name, "then": part, "else": {"anyOf": [own, {"type": "null"}]}}
            for kind, own in methods.items()
        },
        "additionalProperties": {"allOf": [part, has_name]},
    }
    stack["properties"]["name"] = {"anyOf": [{"const": "stack"}, {"type": "string", "pattern": _SEVERAL}]}
    stack["properties"]["lr"] = {**_RATE, "description": "peak rate of the first part's first group"}
    tuner["properties"]["name"] = {
        "anyOf": [{"enum": [*choice.kinds]}, {"type": "string", "pattern": _SEVERAL}],
        "default": choice.default,
        "description": tuner["description"],
    }
    several = {"if": {"properties": {"name": {"pattern": _SEVERAL}}, "required": ["name"]}}
    tuner["allOf"].append({**several, "then": {"$ref": f"#/$defs/{StackConfig.__name__}"}})


def _reference(root: Node, kind: str) -> str:
    """Returns the reference to the settings of a method."""
    for name, node in root["$defs"].items():
        if node.get("properties", {}).get("name", {}).get("const") == kind:
            return f"#/$defs/{name}"
    raise AssertionError(kind)
