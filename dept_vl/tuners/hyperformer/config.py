"""Settings of HyperFormer++. No torch."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from dept_vl.strict import MAX_SIZE, STRICT
from dept_vl.tuners.layers.bottleneck_config import BottleneckSettings
from dept_vl.tuners.settings import Recipe
from dept_vl.tuners.shared_recipes import SEVERAL_TASKS


@dataclass(frozen=True, config=STRICT)
class HyperFormerConfig(BottleneckSettings):
    """Adapters whose weights a network makes from embeddings of task, block and place: one network a stack.

    On T5-base with eight tasks 5,211,056, which is 651,382 a task. The 638k of the paper's tables does not come out: it
    is 0.29 % of 220M, HyperFormer's own rounded share of a rounded size.
    """

    implementation: ClassVar[str] = "dept_vl.tuners.hyperformer.model:HyperFormer"
    reference: ClassVar[str] = "Karimi Mahabadi et al. 2021, HyperFormer++, arXiv 2106.04489"
    needs_encoder: ClassVar[bool] = True
    needs_tasks: ClassVar[bool] = True
    recipe: ClassVar[Recipe] = SEVERAL_TASKS
    recipe_source: ClassVar[str] = "rabeehk/hyperformer: hyperformer/configs/hyperformer++.json"
    name: Literal["hyperformer"] = "hyperformer"
    lr: Annotated[float, Field(gt=0, description="peak rate of the networks (and of the norms)")] = 3e-4
    embedding_dim: Annotated[
        int, Field(ge=1, le=MAX_SIZE, description="width of the embeddings of task, block and place")
    ] = 64
    hidden_dim: Annotated[int, Field(ge=1, le=MAX_SIZE, description="width between the network's two first maps")] = 128
    projected_dim: Annotated[int, Field(ge=1, le=MAX_SIZE, description="width of what the weights are linear in")] = 64
    norms: Annotated[bool, Field(description="train the backbone's own norms too")] = True
    init_std: Annotated[
        float, Field(ge=0, allow_inf_nan=False, description="standard deviation of the network's matrices at the start")
    ] = 0.01
