"""Settings of ATTEMPT. No torch."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from dept_vl.errors import ConfigError
from dept_vl.strict import MAX_SIZE, STRICT, LocalPath, Names
from dept_vl.tuners.places.backbone_shape import BackboneShape
from dept_vl.tuners.prompts.config import MAX_RUNS, PromptInit
from dept_vl.tuners.settings import Recipe
from dept_vl.tuners.shared_recipes import GLUE


@dataclass(frozen=True, config=STRICT)
class AttemptConfig(PromptInit):
    """Each text's own mixture of trained prompts of other tasks, which stay as they are, and of one that is trained.

    Sizes, rate and the prompt's start are those of the released configurations (``AkariAsai/ATTEMPT``,
    ``attempt/configs/attempt``). On T5-base 100 tokens and an attention of width 100 are 231,936 parameters; 230,400
    with ``train_norm: false``, as the released code freezes its norm (``attempt/utils/utils.py``).
    """

    implementation: ClassVar[str] = "dept_vl.tuners.attempt.model:Attempt"
    reference: ClassVar[str] = "Asai et al. 2022, ATTEMPT, arXiv 2205.11961"
    recipe: ClassVar[Recipe] = GLUE
    recipe_source: ClassVar[str] = "AkariAsai/ATTEMPT: attempt/configs/attempt/sinlge_task.json (sic)"
    name: Literal["attempt"] = "attempt"
    attention_lr: Annotated[
        float,
        Field(gt=0, description="peak rate of the attention (released code: an option for 0.1 that reaches no tensor)"),
    ] = 3e-1
    num_virtual_tokens: Annotated[
        int, Field(ge=1, le=MAX_SIZE, description="soft prompt length, tokens: the sources' too")
    ] = 100
    sources: Annotated[
        tuple[Annotated[str, Field(min_length=1)], ...],
        LocalPath(or_name=True),
        Names(),
        Field(
            max_length=MAX_RUNS,
            description="trained runs whose prompts are mixed in: folders or hub ids; the adapter keeps their values",
        ),
    ] = ()
    attention_width: Annotated[int, Field(ge=1, le=MAX_SIZE, description="hidden width of the attention")] = 100
    attention_std: Annotated[
        float, Field(ge=0, allow_inf_nan=False, description="standard deviation of its matrices' start (released code)")
    ] = 0.01
    temperature: Annotated[
        float | None,
        Field(
            gt=0, allow_inf_nan=False, description="divides the scores; null: d_model * e rounded down, T5-base 2087"
        ),
    ] = None
    train_norm: Annotated[
        bool, Field(description="whether the attention's LayerNorm is trained; false: as the released code")
    ] = True
    target_start: Annotated[
        Literal["first-source", "prompt-init"],
        Field(description="start of the trained prompt: the first source's (released code), or as prompt_init says"),
    ] = "first-source"
    text_maximum: Annotated[
        Literal["text", "padded"],
        Field(
            description="what the text's maximum is taken over: its tokens, or as in the released code also padding, "
            "where it has less than data.max_source_length tokens (T5 alone)"
        ),
    ] = "text"

    def check_backbone(self, shape: BackboneShape) -> None:
        """Refuses T5's padding on a decoder-only backbone too; see `TunerSettings.check_backbone`."""
        super().check_backbone(shape)
        if self.text_maximum == "padded" and not shape.has_encoder:
            raise ConfigError(
                "tuner.text_maximum: 'padded' is how the released code pads T5's text, and the backbone is "
                "decoder-only; take 'text'"
            )

    def temperature_at(self, d_model: int) -> float:
        """Returns what divides the attention's scores at a width."""
        return math.floor(d_model * math.e) if self.temperature is None else self.temperature
