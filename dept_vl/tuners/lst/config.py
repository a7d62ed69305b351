"""Settings of ladder side-tuning. No torch."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator
from pydantic.dataclasses import dataclass

from dept_vl.errors import ConfigError
from dept_vl.strict import MAX_SIZE, STRICT
from dept_vl.tuners.places.backbone_shape import BackboneShape
from dept_vl.tuners.places.sites import StackName
from dept_vl.tuners.settings import Recipe, TunerSettings
from dept_vl.tuners.shared_recipes import GLUE

Layers = tuple[Annotated[int, Field(ge=0)], ...]


@dataclass(frozen=True, config=STRICT)
class LstConfig(TunerSettings):
    """A narrow T5 beside the frozen one, which it reads after every block; the backbone takes no gradients.

    The two recipes of the paper's tables on T5-base, from Sung et al.'s code (``ylsung/Ladder-Side-Tuning``): GLUE has
    ``reduction`` 8 and blocks beside 1, 2, 3, 5, 6, 7, 9, 10 and 11 of both stacks, 3,878,712 parameters; CLIP-T5
    ``reduction`` 4 beside all 24 blocks, ``init_std`` null and a decay of 0.03, 16,386,072.
    """

    implementation: ClassVar[str] = "dept_vl.tuners.lst.model:LadderSideTuning"
    reference: ClassVar[str] = "Sung et al. 2022, LST: Ladder Side-Tuning, arXiv 2206.06522"
    recipe: ClassVar[Recipe] = {**GLUE, "data": {"batch_size": 100, "loss_mean": "tokens"}}
    recipe_source: ClassVar[str] = "ylsung/Ladder-Side-Tuning: seq2seq/configs/side_transformers.json"
    needs_encoder: ClassVar[bool] = True
    needs_backbone_gradient: ClassVar[bool] = False
    name: Literal["lst"] = "lst"
    lr: Annotated[float, Field(gt=0, description="peak rate of the side network")] = 3e-3
    reduction: Annotated[
        int, Field(ge=1, le=MAX_SIZE, description="r: the side network has 1/r of d_model, d_kv and d_ff")
    ] = 8
    encoder_layers: Annotated[
        Layers | None, Field(description="encoder blocks, from 0, that have a side block beside them; null: all")
    ] = None
    decoder_layers: Annotated[
        Layers | None, Field(description="decoder blocks, from 0, that have a side block beside them; null: all")
    ] = None
    init: Annotated[
        Literal["fisher", "magnitude", "random"],
        Field(
            description="side blocks start as the rows of the backbone's matrices that matter most, by Fisher "
            "information over training rows (measured before the first step) or by magnitude; or at random"
        ),
    ] = "fisher"
    fisher_rows: Annotated[
        int, Field(ge=1, le=MAX_SIZE, description="training rows that Fisher information is measured on, at most")
    ] = 1024
    init_std: Annotated[
        float | None,
        Field(
            ge=0,
            allow_inf_nan=False,
            description="standard deviation of the first weights between the widths; null: nn.Linear's own start",
        ),
    ] = 0.01
    gate_temperature: Annotated[
        float, Field(gt=0, allow_inf_nan=False, description="T of the gates sigmoid(alpha / T); alpha starts at 0")
    ] = 0.1

    @field_validator("encoder_layers", "decoder_layers")
    @classmethod
    def _check_order(cls, layers: Layers | None) -> Layers | None:
        """Refuses a list that names no block, or one twice, or not from the first to the last."""
        if layers is not None and (not layers or list(layers) != sorted(set(layers))):
            raise ValueError(f"expected different blocks from the first to the last, got {list(layers)}")
        return layers

    def check_backbone(self, shape: BackboneShape) -> None:
        """Refuses a reduction that leaves a rest, and blocks that are not there; see `TunerSettings.check_backbone`."""
        super().check_backbone(shape)
        self._check_widths(shape)
        for stack in shape.depths:
            self._check_blocks(stack, shape)

    def _check_widths(self, shape: BackboneShape) -> None:
        if any(width % self.reduction for width in shape.narrow_widths.values()):
            widths = ", ".join(f"{name} {width}" for name, width in shape.narrow_widths.items())
            largest = math.gcd(*shape.narrow_widths.values())
            fitting = ", ".join(str(number) for number in range(1, largest + 1) if largest % number == 0)
            raise ConfigError(
                f"tuner.reduction: {self.reduction} does not divide every width of this backbone ({widths}); take one "
                f"of {fitting}"
            )

    def _check_blocks(self, stack: StackName, shape: BackboneShape) -> None:
        unknown = [layer for layer in self.chosen_layers(stack) or () if layer >= shape.depths[stack]]
        if unknown:
            raise ConfigError(
                f"tuner.{stack}_layers: this backbone's {stack} has the blocks 0 to {shape.depths[stack] - 1}, and no "
                f"{', '.join(map(str, unknown))}"
            )

    def chosen_layers(self, stack: StackName) -> Layers | None:
        """Returns the blocks of a stack that get one beside them; None for all."""
        return self.encoder_layers if stack == "encoder" else self.decoder_layers
