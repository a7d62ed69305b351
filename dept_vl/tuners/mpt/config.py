"""Settings of MPT. No torch."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from dept_vl.strict import MAX_SIZE, STRICT, LocalPath, Names
from dept_vl.tuners.prompts.config import MAX_RUNS, PromptInit
from dept_vl.tuners.settings import Recipe
from dept_vl.tuners.shared_recipes import GLUE, TRAINER


@dataclass(frozen=True, config=STRICT)
class MptConfig(PromptInit):
    """A soft prompt that tasks share, times a matrix of rank one for each task.

    Stage 1 trains it on source tasks together, each with the trained prompt of a run of its own as teacher; stage 2
    starts from that run (``init.from``) on one target, or several together. On T5-base one task is 77,668 parameters.

    The rates are those that the authors are remembered to have had: their code is not to be had, and they are not
    checked.
    """

    implementation: ClassVar[str] = "dept_vl.tuners.mpt.model:Mpt"
    reference: ClassVar[str] = "Wang et al. 2023, MPT, arXiv 2303.02861"
    recipe: ClassVar[Recipe] = {**GLUE, "optim": {**TRAINER, "weight_decay": 1e-5}}
    recipe_source: ClassVar[str] = (
        "Wang et al. 2023, from memory; what it leaves open: AkariAsai/ATTEMPT, whose runs it follows"
    )
    name: Literal["mpt"] = "mpt"
    task_lr: Annotated[float, Field(gt=0, description="peak rate of the tasks' own factors u and v")] = 4e-1
    num_virtual_tokens: Annotated[
        int, Field(ge=1, le=MAX_SIZE, description="soft prompt length, tokens: the teachers' too")
    ] = 100
    teachers: Annotated[
        tuple[Annotated[str, Field(min_length=1)], ...],
        LocalPath(or_name=True),
        Names(),
        Field(
            max_length=MAX_RUNS,
            description="a trained run of each task, in the order of the tasks: folders or hub ids; []: no teachers",
        ),
    ] = ()
    teacher_weight: Annotated[
        float,
        Field(ge=0, allow_inf_nan=False, description="weight of the distance to the teacher's answers and states"),
    ] = 0.9
