"""Settings of DePT. No torch."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator
from pydantic.dataclasses import dataclass

from dept_vl.errors import ConfigError
from dept_vl.strict import MAX_SIZE, STRICT
from dept_vl.tuners.context import TunerContext
from dept_vl.tuners.dept.budget import Budget, solve
from dept_vl.tuners.prompts.config import PromptInit, PromptRate
from dept_vl.tuners.rates import PROMPT_RATE, UPDATE_RATE, checked_rate
from dept_vl.tuners.settings import TunerSettings

RowAlignment = Literal["first-token", "last-token"]
"""The end of a text that A's rows are counted from."""


@dataclass(frozen=True, config=STRICT)
class DeptConfig(PromptInit):
    """A short soft prompt and a low-rank update of the text's word embeddings, together l * d parameters.

    Give `num_virtual_tokens` or `rank`; the other follows from the budget. With neither, see
    `dept_vl.tuners.dept.budget.solve`. The released code's recipe is ``lowrank_init="kaiming-uniform"`` with
    ``scaling="alpha/sqrt(r)"``.
    """

    implementation: ClassVar[str] = "dept_vl.tuners.dept.model:Dept"
    reference: ClassVar[str] = "Shi & Lipani 2024, DePT, arXiv 2309.05173"
    recipe_source: ClassVar[str] = "the fields' defaults: Table 10 of Shi & Lipani 2024, but the rates"
    name: Literal["dept"] = "dept"
    lr: PromptRate = PROMPT_RATE
    lowrank_lr: Annotated[
        float | str,
        Field(description="peak rate of the low-rank pair A, B; 0.1x: of A 0.1, and of B times as lr's"),
    ] = UPDATE_RATE
    budget_tokens: Annotated[
        int, Field(ge=1, le=MAX_SIZE, description="prompt length l whose l * d_model parameters are shared out, tokens")
    ] = 100
    num_virtual_tokens: Annotated[
        int | None, Field(ge=0, le=MAX_SIZE, description="soft prompt length m, tokens; null: from rank and budget")
    ] = None
    rank: Annotated[
        int | None, Field(ge=0, le=MAX_SIZE, description="rank r of the low-rank pair; null: from m and the budget")
    ] = None
    allow_nearest: Annotated[
        bool, Field(description="take the nearest m or rank where the budget cannot be met exactly")
    ] = False
    lowrank_init: Annotated[
        Literal["gaussian", "kaiming-uniform"],
        Field(description="start of A: the paper's Gaussian, or the released code's uniform"),
    ] = "gaussian"
    lowrank_init_std: Annotated[
        float, Field(gt=0, allow_inf_nan=False, description="standard deviation of lowrank_init=gaussian")
    ] = 0.1
    scaling: Annotated[
        Literal["one", "alpha/sqrt(r)"],
        Field(description="factor on A B: 1 as in the paper, or alpha / sqrt(rank) as in the released code"),
    ] = "one"
    alpha: Annotated[
        float, Field(gt=0, allow_inf_nan=False, description="alpha of scaling=alpha/sqrt(r) (released code: 8)")
    ] = 8.0

    row_alignment: Annotated[
        RowAlignment | None,
        Field(
            description="row of A for token i of n: i, or s - n + i; null: as the released code, the first where the "
            "backbone has an encoder, the second where it has none"
        ),
    ] = None
    lowrank_rows: Annotated[
        int | None,
        Field(
            ge=1,
            le=MAX_SIZE,
            description="rows of A, spread over the s places, those between interpolated; 1: one "
            "shift for every token; null: s of them",
        ),
    ] = None
    position_jitter: Annotated[
        int | None,
        Field(ge=1, le=MAX_SIZE, description="while training, a text begins up to so many rows of A further on"),
    ] = None

    @field_validator("lowrank_lr", mode="before")
    @classmethod
    def _check_lowrank_rate(cls, value: Any) -> float | str:
        return checked_rate(value)

    @property
    def unfoldable(self) -> str | None:  # type: ignore[override]
        """Why A B has no plain form; None where the settings may mean a prompt alone."""
        if self.rank == 0 or self.num_virtual_tokens == self.budget_tokens:
            return None
        return "A B is added to a token by its place in the text, which no word embedding knows"

    def budget(self, d_model: int, max_source_length: int) -> Budget:
        """Returns m and r for a backbone and text length.

        Raises:
            ConfigError: The budget cannot be met exactly and `allow_nearest` is off; or A has more rows than a text
                has places, or a text cannot begin so far on.
        """
        for name, value, most in (
            ("lowrank_rows", self.lowrank_rows or 1, max_source_length),
            ("position_jitter", self.position_jitter or 0, max_source_length - 1),
        ):
            if value > most:
                raise ConfigError(
                    f"tuner.{name}: {value:,} is more than data.max_source_length={max_source_length:,} has room for; "
                    f"give at most {most:,}"
                )
        return solve(
            budget_tokens=self.budget_tokens,
            d_model=d_model,
            lowrank_rows=self.lowrank_rows or max_source_length,
            num_virtual_tokens=self.num_virtual_tokens,
            rank=self.rank,
            allow_nearest=self.allow_nearest,
        )

    def prompt_length(self, d_model: int, max_source_length: int) -> int:
        """Returns m; see `TunerSettings.prompt_length` and `budget`."""
        return self.budget(d_model, max_source_length).num_virtual_tokens

    def as_source_of(self, target: TunerSettings, context: TunerContext, max_source_length: int) -> TunerSettings:
        """Returns these settings with the target's m and r where they follow from the budget alone, or agree with it.

        The budget gives another r at another s; a pair that misses it there is taken as it is. See
        `TunerSettings.as_source_of`.
        """
        if not isinstance(target, DeptConfig) or target.budget_tokens != self.budget_tokens:
            return self
        wanted = target.budget(context.d_model, context.max_source_length)
        pair = wanted.num_virtual_tokens, wanted.rank
        told = self.num_virtual_tokens, self.rank
        if any(given not in (None, size) for given, size in zip(told, pair, strict=True)):
            return self
        if not self._misses(pair, context.d_model, max_source_length):
            return self
        return replace(self, num_virtual_tokens=pair[0], rank=pair[1], allow_nearest=True)

    def _misses(self, pair: tuple[int, int], d_model: int, max_source_length: int) -> bool:
        """Returns whether the budget does not give this m and r by itself."""
        try:
            own = self.budget(d_model, max_source_length)
        except ConfigError:
            return True
        return (own.num_virtual_tokens, own.rank) != pair

    def scaling_factor(self, rank: int) -> float:
        """Returns the factor on A B at this rank; 1.0 at rank 0, where there is no A B."""
        return 1.0 if self.scaling == "one" or rank == 0 else self.alpha / math.sqrt(rank)
