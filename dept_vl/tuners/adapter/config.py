"""Settings of adapters. No torch."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from dept_vl.errors import ConfigError
from dept_vl.strict import STRICT
from dept_vl.tuners.context import TunerContext
from dept_vl.tuners.layers.bottleneck_config import BottleneckSettings
from dept_vl.tuners.places.backbone_shape import BackboneShape
from dept_vl.tuners.places.choice import choose_sites
from dept_vl.tuners.settings import Recipe
from dept_vl.tuners.shared_recipes import GLUE

AdapterPart = Literal["self_attn.o", "cross_attn.o", "ff.out"]
"""Where a sublayer ends: what comes out there goes through dropout and is added to the residual stream."""


@dataclass(frozen=True, config=STRICT)
class AdapterSettings(BottleneckSettings):
    """What `AdapterConfig` and `AdapterDropConfig` have in common."""

    implementation: ClassVar[str] = "dept_vl.tuners.adapter.model:Adapter"
    recipe: ClassVar[Recipe] = GLUE
    recipe_source: ClassVar[str] = "rabeehk/compacter: seq2seq/configs/adapters.json; batch: AkariAsai/ATTEMPT"
    lr: Annotated[float, Field(gt=0, description="peak rate of the adapters (and of the norms)")] = 3e-4
    sites: Annotated[
        tuple[AdapterPart, ...],
        Field(min_length=1, description="sublayers that get one: after the attention's o, after the feed-forward"),
    ] = ("self_attn.o", "ff.out")
    layers: Annotated[
        tuple[Annotated[int, Field(ge=0)], ...] | None,
        Field(min_length=1, description="blocks that get them, from 0, in every stack; null: all"),
    ] = None
    norms: Annotated[
        bool, Field(description="train the backbone's own norms too, all of them (false in CLIP-T5's code)")
    ] = True
    init: Annotated[
        Literal["near-identity", "linear"],
        Field(
            description="'near-identity': N(0, init_std^2), biases 0; 'linear': as nn.Linear starts (CLIP-T5's code)"
        ),
    ] = "near-identity"
    init_std: Annotated[
        float, Field(ge=0, allow_inf_nan=False, description="standard deviation of init=near-identity; 0: the identity")
    ] = 0.01
    per_task: Annotated[
        bool, Field(description="an adapter of its own for every task of a run of several (Adapters-dagger)")
    ] = False
    post_norm: Annotated[
        bool | None,
        Field(description="a LayerNorm behind the adapter, shared over tasks; null: with per_task alone"),
    ] = None

    @property
    def has_post_norm(self) -> bool:
        """Whether there is a LayerNorm behind the adapter."""
        return self.per_task if self.post_norm is None else self.post_norm

    def check_backbone(self, shape: BackboneShape) -> None:
        """Refuses parts and blocks that the backbone does not have too; see `TunerSettings.check_backbone`."""
        choose_sites(self.sites, shape, self.layers)
        super().check_backbone(shape)

    def empty(self, context: TunerContext) -> Any:
        """Builds the tuner; see `TunerSettings.empty`.

        Raises:
            ConfigError: As `TunerSettings.empty`, or an adapter for each task of a run with one.
        """
        if self.per_task and len(context.tasks) < 2:
            raise ConfigError(
                "tuner.per_task: true makes an adapter for every task, and the run has one task; name several "
                "(--task rte+cola), or leave it out"
            )
        return super().empty(context)


@dataclass(frozen=True, config=STRICT)
class AdapterConfig(AdapterSettings):
    """A bottleneck after sublayers: y + U f(D y + b_D) + b_U.

    The recipes of the paper's tables on T5-base: "Adapter", from Compacter's code, is the default (1,855,104 with all
    norms); "Adapter (m)", from HyperFormer's, is ``per_task: true`` (1,822,656 a task for eight); that of Table 3, from
    Sung et al.'s, has ``bottleneck: 192``, ``cross_attn.o`` too, ``init: linear`` and no norms (17,752,320).
    """

    reference: ClassVar[str] = "Houlsby et al. 2019, arXiv 1902.00751"
    name: Literal["adapter"] = "adapter"


@dataclass(frozen=True, config=STRICT)
class AdapterDropConfig(AdapterSettings):
    """`adapter` without adapters in the first five blocks (rabeehk/compacter ``configs/adapters_drop.json``)."""

    reference: ClassVar[str] = "Rücklé et al. 2021, AdapterDrop, arXiv 2010.11918"
    name: Literal["adapterdrop"] = "adapterdrop"
    layers: Annotated[
        tuple[Annotated[int, Field(ge=0)], ...],
        Field(min_length=1, description="blocks that get adapters, from 0, in every stack"),
    ] = (5, 6, 7, 8, 9, 10, 11)
