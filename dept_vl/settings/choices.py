"""Groups of settings that are one of several kinds, told apart by one of their own: the tuner by its ``name``, ..."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dept_vl.errors import SettingProblem, SettingsError
from dept_vl.registry import suggest
from dept_vl.settings.help import groups_of
from dept_vl.settings.schema import TrainConfig

Tree = dict[str, Any]


@dataclass(frozen=True)
class Choice:
    """One such group.

    Attributes:
        place: The keys that lead to it.
        tag: The setting that tells its kind.
        kinds: What it may be.
        default: The kind where none is given.
    """

    place: tuple[str, ...]
    tag: str
    kinds: tuple[str, ...]
    default: str

    @property
    def noun(self) -> str:
        """What is chosen, for messages."""
        return self.place[-1].replace("_", " ")

    def group(self, tree: Any) -> Tree | None:
        """Returns the group's settings in nested ones; None where there are none, or no group."""
        for key in self.place:
            tree = tree.get(key) if isinstance(tree, dict) else None
        return tree if isinstance(tree, dict) else None


def _choices_of(cls: type, place: tuple[str, ...] = ()) -> Iterator[Choice]:
    for name, info in cls.__pydantic_fields__.items():  # type: ignore[attr-defined]  # set by pydantic
        groups = groups_of(info.annotation)
        if info.discriminator is not None:
            tag, chosen = str(info.discriminator), info.get_default(call_default_factory=True)
            kinds = tuple(group.__pydantic_fields__[tag].default for group in groups)  # type: ignore[attr-defined]
            yield Choice((*place, name), tag, kinds, getattr(chosen, tag))
        else:
            for group in groups:
                yield from _choices_of(group, (*place, name))


CHOICES = tuple(_choices_of(TrainConfig))
"""Every such group of a run's settings."""


def with_kinds(tree: Tree) -> Tree:
    """Returns nested settings with the kind of every group that is there, the default where none is given."""
    for choice in CHOICES:
        tree = _with_default(tree, choice.place, {choice.tag: choice.default})
    return tree


def _with_default(tree: Any, place: Sequence[str], default: Tree) -> Any:
    if not isinstance(tree, dict):
        return tree
    if not place:
        return {**default, **tree}
    return {**tree, place[0]: _with_default(tree[place[0]], place[1:], default)} if place[0] in tree else tree


def check_same_kinds(tree: Tree, overlay: Tree, names: Mapping[str, str]) -> None:
    """Refuses to lay another kind over a group that sets fields of the first.

    Args:
        tree: Nested settings of a file.
        overlay: What is laid over them.
        names: Dotted key of `overlay` -> the one it was given under.

    Raises:
        ConfigError: As said.
    """
    for choice in CHOICES:
        given, wanted = choice.group(tree), choice.group(overlay)
        if given is None or wanted is None or choice.tag not in wanted:
            continue
        written, asked = given.get(choice.tag, choice.default), wanted[choice.tag]
        if not set(str(asked).split("+")) <= set(choice.kinds):
            continue  # one kind or several at once; what is none is refused with near names later
        where = ".".join(choice.place)
        extra = sorted(set(given) - {choice.tag})
        if asked != written and extra:
            key = f"{where}.{choice.tag}"
            text = (
                f"{asked!r} was asked for, but the configuration sets fields of {written!r} "
                f"({', '.join(f'{where}.{name}' for name in extra)}); use a configuration made for {asked!r}"
            )
            raise SettingsError([SettingProblem(key, text, names.get(key, key))])


def dotted(location: Sequence[int | str]) -> str:
    """Joins an error's place, leaving out the kind that pydantic puts behind such a group."""
    parts = tuple(str(part) for part in location)
    for choice in CHOICES:
        depth = len(choice.place)
        if parts[:depth] == choice.place:
            parts = parts[:depth] + parts[depth + 1 :]
    if len(parts) > 3 and parts[:2] == ("tuner", "parts"):
        parts = parts[:3] + parts[4:]
    return ".".join(parts)


def unknown_kind(detail: Mapping[str, Any]) -> SettingProblem:
    """Words pydantic's error of a kind that is none, with near names."""
    location, context = dotted(detail["loc"]), detail["ctx"]
    noun = next(choice.noun for choice in CHOICES if f"{location}.".startswith(f"{'.'.join(choice.place)}."))
    expected = str(context["expected_tags"]).replace("'", "").split(", ")
    tag, kind = str(context["discriminator"]).strip("'"), str(context["tag"])
    text = f"unknown {noun} {kind!r}{suggest(kind, expected)} (known: {', '.join(expected)})"
    return SettingProblem(f"{location}.{tag}", text)
