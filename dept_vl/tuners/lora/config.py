"""Settings of LoRA. No torch."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from dept_vl.strict import MAX_SIZE, STRICT
from dept_vl.tuners.places.backbone_shape import BackboneShape
from dept_vl.tuners.places.choice import choose_sites
from dept_vl.tuners.places.sites import LinearChoice
from dept_vl.tuners.settings import Recipe, TunerSettings
from dept_vl.tuners.shared_recipes import GLUE, GLUE_SOURCE


@dataclass(frozen=True, config=STRICT)
class LoraConfig(TunerSettings):
    """Low-rank updates of linear maps in the backbone, by default of q and v of every attention.

    The two recipes of the paper's tables on T5-base: Table 1's rows, from Sung et al.'s code
    (``ylsung/Ladder-Side-Tuning``), have rank 32 and biases, 3,821,412 parameters at their vocabulary of 32,100; Table
    2's, DePT's own, rank 35 without, 3,870,720.
    """

    implementation: ClassVar[str] = "dept_vl.tuners.lora.model:Lora"
    reference: ClassVar[str] = "Hu et al. 2022, LoRA, arXiv 2106.09685"
    recipe: ClassVar[Recipe] = GLUE
    recipe_source: ClassVar[str] = GLUE_SOURCE
    name: Literal["lora"] = "lora"
    lr: Annotated[float, Field(gt=0, description="peak rate of the updates (and of added biases)")] = 3e-4
    rank: Annotated[int, Field(ge=1, le=MAX_SIZE, description="rank r of every update")] = 8
    alpha: Annotated[
        float, Field(gt=0, description="an update is scaled by alpha / rank (32 in Sung et al.'s code)")
    ] = 32.0
    dropout: Annotated[float, Field(ge=0, lt=1, description="on what goes into an update, while training")] = 0.1
    sites: Annotated[
        tuple[LinearChoice, ...],
        Field(
            min_length=1,
            description="linear maps that get one; 'attn.q' is q of every attention, 'self_attn.q' of self-attentions",
        ),
    ] = ("attn.q", "attn.v")
    biases: Annotated[
        Literal["none", "all"], Field(description="'all': train biases too, as the method 'bitfit' does")
    ] = "none"

    @property
    def has_norm_biases(self) -> bool:  # type: ignore[override]
        """Whether it trains biases as BitFit does."""
        return self.biases == "all"

    def check_backbone(self, shape: BackboneShape) -> None:
        """Refuses parts that the backbone does not have too; see `TunerSettings.check_backbone`."""
        super().check_backbone(shape)
        choose_sites(self.sites, shape)
