"""Settings of several methods at once. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal, cast

from pydantic import Field, field_validator
from pydantic.dataclasses import dataclass

from dept_vl.errors import ConfigError
from dept_vl.strict import STRICT
from dept_vl.tuners.context import TunerContext
from dept_vl.tuners.methods import Method
from dept_vl.tuners.places.backbone_shape import BackboneShape
from dept_vl.tuners.settings import TunerSettings


@dataclass(frozen=True, config=STRICT)
class StackConfig(TunerSettings):
    """Several methods on one backbone, such as DePT and LoRA: ``--tuner dept+lora --tuner.parts.lora.rank 4``.

    The key of a part is its method's name; for two parts of one method, any name and a field `name` in each.
    """

    implementation: ClassVar[str] = "dept_vl.tuners.stack.model:Stack"
    name: Literal["stack"] = "stack"
    parts: Annotated[
        dict[str, Method], Field(min_length=1, description="settings of each part by its name, in the order they act")
    ] = Field(default_factory=dict)

    @property
    def has_norm_biases(self) -> bool:  # type: ignore[override]
        """Whether a part does."""
        return any(part.has_norm_biases for part in self.parts.values())

    @property
    def needs_encoder(self) -> bool:  # type: ignore[override]
        """Whether a part does."""
        return any(part.needs_encoder for part in self.parts.values())

    @property
    def needs_tasks(self) -> bool:  # type: ignore[override]
        """Whether a part does."""
        return any(part.needs_tasks for part in self.parts.values())

    @property
    def unfoldable(self) -> str | None:  # type: ignore[override]
        """Why the first part that has no plain form has none."""
        found = {key: part.unfoldable for key, part in self.parts.items() if part.unfoldable is not None}
        return next((f"its part {key!r}: {why}" for key, why in found.items()), None)

    @property
    def reads_weights(self) -> bool:  # type: ignore[override]
        """Whether a part does."""
        return any(part.reads_weights for part in self.parts.values())

    def check_packages(self) -> None:
        """Asks every part; see `TunerSettings.check_packages`."""
        for part in self.parts.values():
            part.check_packages()

    def check_backbone(self, shape: BackboneShape) -> None:
        """Asks every part; see `TunerSettings.check_backbone`."""
        super().check_backbone(shape)
        for part in self.parts.values():
            part.check_backbone(shape)

    def prompt_length(self, d_model: int, max_source_length: int) -> int:
        """Returns the sum of its parts' prompts; see `TunerSettings.prompt_length`."""
        return sum(part.prompt_length(d_model, max_source_length) for part in self.parts.values())

    @property
    def label(self) -> str:
        """The names of its parts: ``dept+lora``."""
        return "+".join(self.parts)

    @property
    def references(self) -> tuple[str, ...]:
        """Those of its parts."""
        return tuple(text for part in self.parts.values() for text in part.references)

    def as_source_of(self, target: TunerSettings, context: TunerContext, max_source_length: int) -> TunerSettings:
        """Returns these settings, each part's as those of a run that the target's part of that name starts from."""
        if not isinstance(target, StackConfig):
            return self
        parts = {
            key: cast("Method", part.as_source_of(target.parts.get(key, part), context, max_source_length))
            for key, part in self.parts.items()
        }
        return self if parts == self.parts else replace(self, parts=parts)

    @field_validator("parts", mode="before")
    @classmethod
    def _name_parts(cls, parts: Any) -> Any:
        """Takes a part's key for its method where it names none."""
        if not isinstance(parts, dict):
            return parts
        return {
            key: {"name": key, **(part or {})} if isinstance(part, dict | None) else part for key, part in parts.items()
        }

    @field_validator("parts", mode="after")
    @classmethod
    def _refuse_side_networks(cls, parts: dict[str, Any]) -> dict[str, Any]:
        """Refuses a part that keeps the others from being trained."""
        for key, part in parts.items():
            if not part.needs_backbone_gradient:
                raise ValueError(
                    f"{key!r} runs the backbone without gradients, so that no other part would be trained; name "
                    f"{part.name!r} alone"
                )
        return parts


def expand_name(tuner: dict[str, Any], below: dict[str, Any] | None = None) -> dict[str, Any]:
    """Returns the settings of ``dept+lora`` as those of a stack; others as they are.

    A rate given to the whole is the first part's, as `lr` is always that of the first group.

    Args:
        tuner: Nested settings of a tuner.
        below: Those that they will be laid over, expanded; None where there are none.

    Raises:
        ConfigError: They have settings of a part that the stack has not, or name a method twice.
    """
    names = _part_names(tuner) or _part_names(below or {})
    if not names:
        return tuner
    if twice := [name for name in dict.fromkeys(names) if name and names.count(name) > 1]:
        raise ConfigError(
            f"tuner.name: {'+'.join(names)!r} names {twice[0]!r} twice; name it once, or give two parts of it names of "
            "their own in a file (tuner.name: stack, tuner.parts)"
        )
    given = tuner.get("parts") or {}
    rest = {key: value for key, value in tuner.items() if key not in ("name", "parts", "lr")}
    if not isinstance(given, dict):
        return {**rest, "name": "stack", "parts": given}
    for part in given:
        if part not in names:
            raise ConfigError(f"tuner.parts.{part}: {'+'.join(names)!r} has no such part")
    parts = {part: given.get(part) or {} for part in names}
    first = parts[names[0]]
    if "lr" in tuner and isinstance(first, dict):
        parts[names[0]] = {"lr": tuner["lr"], **first}
    return {**rest, "name": "stack", "parts": parts}


def collapse_name(tuner: dict[str, Any], below: dict[str, Any] | None = None) -> dict[str, Any]:
    """Returns settings with a stack called after its parts, as it is on the command line; see `expand_name`."""
    names = _part_names(tuner) or (_part_names(below or {}) if tuner.get("name") == "stack" else [])
    return {**tuner, "name": "+".join(names)} if names else tuner


def leading_method(tuner: Mapping[str, Any]) -> str:
    """Returns the method of a tuner's nested settings, of a stack's (as `expand_name` returns them) its first part's.

    Empty where they name none.
    """
    name, parts = tuner.get("name"), tuner.get("parts")
    if name == "stack" and isinstance(parts, dict) and parts:
        key, part = next(iter(parts.items()))
        name = part.get("name", key) if isinstance(part, dict) else key
    return name if isinstance(name, str) else ""


def _part_names(tuner: dict[str, Any]) -> list[str]:
    """Returns the names of a stack's parts; none where it is not a stack, or does not say."""
    name, parts = tuner.get("name"), tuner.get("parts")
    if isinstance(name, str) and "+" in name:
        return name.split("+")
    return list(parts) if name == "stack" and isinstance(parts, dict) else []
