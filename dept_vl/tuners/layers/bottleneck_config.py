"""Settings of a bottleneck, shared by the methods that have one. No torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from dept_vl.errors import ConfigError
from dept_vl.strict import MAX_SIZE, STRICT
from dept_vl.tuners.places.backbone_shape import BackboneShape
from dept_vl.tuners.settings import TunerSettings

NonLinearity = Literal["gelu_new", "gelu", "relu", "swish", "tanh"]
"""Names of transformers' activations; ``gelu_new`` is GELU's tanh approximation."""

_REDUCTION = 32
"""Where neither width nor factor is given (rabeehk/compacter ``seq2seq/configs/adapters.json``)."""


@dataclass(frozen=True, config=STRICT)
class BottleneckSettings(TunerSettings):
    """How wide a bottleneck is, and what is between its two maps."""

    bottleneck: Annotated[
        int | None, Field(ge=1, le=MAX_SIZE, description="width of the bottleneck; null: by tuner.reduction")
    ] = None
    reduction: Annotated[
        int | None,
        Field(
            ge=1,
            le=MAX_SIZE,
            description=f"the width is the backbone's divided by it, rounded down; null: {_REDUCTION}, where no "
            "tuner.bottleneck is given",
        ),
    ] = None
    non_linearity: Annotated[NonLinearity, Field(description="between the two maps")] = "gelu_new"

    @model_validator(mode="after")
    def _check_width(self) -> BottleneckSettings:
        if self.bottleneck is not None and self.reduction is not None:
            raise ValueError(
                f"bottleneck={self.bottleneck} and reduction={self.reduction} both say how wide it is; leave one of "
                "them out"
            )
        return self

    def check_backbone(self, shape: BackboneShape) -> None:
        """Refuses a backbone that leaves no width too; see `TunerSettings.check_backbone`."""
        super().check_backbone(shape)
        self.width_of(shape.d_model)

    def width_of(self, d_model: int) -> int:
        """Returns the width of the bottleneck on a backbone.

        Raises:
            ConfigError: It would be 0.
        """
        if self.bottleneck is not None:
            return self.bottleneck
        width = d_model // (self.reduction or _REDUCTION)
        if width == 0:
            given = f"{self.reduction}" if self.reduction else f"{_REDUCTION} (the default)"
            raise ConfigError(
                f"tuner.reduction: {given} leaves no width of a backbone that is {d_model} wide; at most {d_model}, or "
                "set tuner.bottleneck to the width"
            )
        return width
