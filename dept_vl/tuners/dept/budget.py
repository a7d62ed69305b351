"""The parameter budget of a decomposed prompt: how prompt length m and rank r share l * d parameters. No torch.

Shi & Lipani 2024 (arXiv 2309.05173, section 2.2): a prompt of l vectors of width d is replaced by a prompt of m < l
vectors and a low-rank pair A (s, r), B (r, d) of the same size,

    l * d = m * d + (s + d) * r,

where s is the longest text in tokens. For T5-base (d = 768), s = 256 and l = 100, that is 76,800 parameters and
(m, r) = (0, 75), (20, 60), (40, 45), (60, 30), (80, 15).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from dept_vl.errors import ConfigError

DEFAULT_PROMPT_SHARE = Fraction(2, 5)
"""Prompt share m / l aimed at when neither m nor r is given: (40, 45), the first pair of the released README."""


@dataclass(frozen=True)
class Budget:
    """How many parameters a tuner trains.

    Attributes:
        num_virtual_tokens: Vectors of the soft prompt (m).
        rank: Rank of the low-rank pair (r); 0 means there is none.
        lowrank_rows: Rows of A: s, the longest text in tokens, unless the settings say fewer.
        d_model: Width of the backbone (d).
        budget_tokens: The prompt length l whose l * d parameters are aimed at.
    """

    num_virtual_tokens: int
    rank: int
    lowrank_rows: int
    d_model: int
    budget_tokens: int

    @property
    def soft_prompt(self) -> int:
        """Parameters of the soft prompt, m * d."""
        return self.num_virtual_tokens * self.d_model

    @property
    def lowrank(self) -> int:
        """Parameters of the low-rank pair, (s + d) * r."""
        return (self.lowrank_rows + self.d_model) * self.rank

    @property
    def total(self) -> int:
        """Parameters of the tuner."""
        return self.soft_prompt + self.lowrank

    @property
    def target(self) -> int:
        """Parameters aimed at, l * d."""
        return self.budget_tokens * self.d_model

    @property
    def is_exact(self) -> bool:
        """Whether `total` is `target`."""
        return self.total == self.target


def exact_choices(budget_tokens: int, d_model: int, lowrank_rows: int) -> list[Budget]:
    """Returns every (m, r) that meets the budget exactly, from m = l (rank 0, prompt tuning) downwards.

    A rank is exact when (s + d) * r is a multiple of d, that is every d / gcd(d, s + d)-th one.
    """
    columns = lowrank_rows + d_model
    step = d_model // math.gcd(d_model, columns)
    largest = budget_tokens * d_model // columns
    return [
        Budget(budget_tokens - columns * rank // d_model, rank, lowrank_rows, d_model, budget_tokens)
        for rank in range(0, largest + 1, step)
    ]


def solve(
    *,
    budget_tokens: int,
    d_model: int,
    lowrank_rows: int,
    num_virtual_tokens: int | None = None,
    rank: int | None = None,
    allow_nearest: bool = False,
) -> Budget:
    """Completes (m, r) so that m * d + (s + d) * r = l * d.

    Args:
        budget_tokens: l, the prompt length whose parameter count is matched.
        d_model: d, width of the backbone.
        lowrank_rows: Rows of A: s, the longest text in tokens, or fewer.
        num_virtual_tokens: m, or None to derive it from `rank`. With neither given, the exact choice with a rank
            above 0 whose m is nearest to `DEFAULT_PROMPT_SHARE` of l.
        rank: r, or None to derive it from `num_virtual_tokens`.
        allow_nearest: Take the value that comes nearest to the budget (the smaller one on a tie) instead of raising;
            with both given, take them as they are.

    Raises:
        ConfigError: The budget cannot be met exactly, or m or r alone exceeds it. The message names the nearest
            exact choices.
    """
    shape = (lowrank_rows, d_model, budget_tokens)
    if num_virtual_tokens is None and rank is None:
        return _default(*shape, allow_nearest=allow_nearest)
    if num_virtual_tokens is not None and rank is not None:
        given = Budget(num_virtual_tokens, rank, *shape)
        if given.is_exact or allow_nearest:
            return given
        raise ConfigError(_describe(given, f"num_virtual_tokens={num_virtual_tokens} and rank={rank}"))
    if num_virtual_tokens is not None:
        left = (budget_tokens - num_virtual_tokens) * d_model
        budget = Budget(num_virtual_tokens, _divide(left, lowrank_rows + d_model), *shape)
        asked = f"num_virtual_tokens={num_virtual_tokens}"
    else:
        assert rank is not None  # both None was handled above
        left = budget_tokens * d_model - rank * (lowrank_rows + d_model)
        budget = Budget(_divide(left, d_model), rank, *shape)
        asked = f"rank={rank}"
    if left < 0 or not (budget.is_exact or allow_nearest):
        raise ConfigError(_describe(budget, asked, over=left < 0))
    return budget


def _default(lowrank_rows: int, d_model: int, budget_tokens: int, *, allow_nearest: bool) -> Budget:
    aim = DEFAULT_PROMPT_SHARE * budget_tokens
    choices = [c for c in exact_choices(budget_tokens, d_model, lowrank_rows) if c.rank > 0]
    if choices:
        return min(choices, key=lambda choice: abs(choice.num_virtual_tokens - aim))
    left = (budget_tokens - round(aim)) * d_model
    nearest = Budget(round(aim), _divide(left, lowrank_rows + d_model), lowrank_rows, d_model, budget_tokens)
    if allow_nearest:
        return nearest
    raise ConfigError(_describe(nearest, "a rank above 0"))


def _divide(parameters: int, size: int) -> int:
    """Returns parameters / size rounded to the nearest whole number, halves down, and not below 0."""
    return max(0, math.ceil(Fraction(parameters, size) - Fraction(1, 2)))


def _describe(budget: Budget, asked: str, *, over: bool = False) -> str:
    """Says why `asked` does not meet the budget and which exact choices lie next to it."""
    choices = exact_choices(budget.budget_tokens, budget.d_model, budget.lowrank_rows)
    near = sorted(choices, key=lambda c: (abs(c.num_virtual_tokens - budget.num_virtual_tokens), c.rank))[:4]
    pairs = ", ".join(f"({c.num_virtual_tokens}, {c.rank})" for c in sorted(near, key=lambda c: c.rank))
    target = (
        f"tuner: a budget of {budget.budget_tokens} tokens x d_model {budget.d_model} = {budget.target:,} parameters"
    )
    if over:
        return f"{target} is smaller than {asked} alone; nearest exact (num_virtual_tokens, rank): {pairs}"
    return (
        f"{target} is not met exactly by {asked}: num_virtual_tokens={budget.num_virtual_tokens}, rank={budget.rank} "
        f"at {budget.lowrank_rows} rows of A has {budget.total:,}; nearest exact "
        f"(num_virtual_tokens, rank): {pairs}; take one of these, or set tuner.allow_nearest=true"
    )
