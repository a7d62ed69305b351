"""The computation of DePT."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from dept_vl.errors import CheckpointError
from dept_vl.tuners.base import Fact, ParamGroup, Tuner, prepend_prompt
from dept_vl.tuners.context import TunerContext
from dept_vl.tuners.dept.config import DeptConfig
from dept_vl.tuners.forward_info import ForwardInfo
from dept_vl.tuners.prompts.init import initial_prompt
from dept_vl.tuners.row_embedding import RowEmbedding
from dept_vl.tuners.settings import TunerSettings


class Dept(Tuner):
    """Soft prompt P (m, d) before the text, and scaling * (A B)[i] added to text token i.

    Shi & Lipani 2024, section 2.2: the model reads [P; E(x) + A B], with A (s, r) and B (r, d). Prompt and visual
    tokens get no update. With B = 0 at the start this is prompt tuning. ``row_alignment`` says which row a token gets:

    - ``"first-token"``: row i belongs to the i-th token of the text, whatever the prompt's length. A batch of L text
      tokens uses the first L rows alone, which equals padding to s tokens on the right (the released code's way with
      T5) because masked tokens are never read, and costs less.
    - ``"last-token"``: token i of n gets row s - n + i, so that the last token has the last row. This is what the
      released code does for decoder-only models, whose texts it pads to s tokens on the left. In its training the
      label tokens are part of that text; here they are not, so that training and generation give a token one row.
    - None: the first where the backbone has an encoder, the second where it has none.

    Beside the paper: ``lowrank_rows`` makes A's s rows out of fewer by interpolation, and with ``position_jitter`` a
    text begins at a row drawn anew for each example while training, so that what is learnt depends less on places.

    A row of A that no training text has reached still has its random start, which B would make noise of in longer
    texts: in evaluation, and in an adapter, it is zero.

    Attributes:
        soft_prompt: (num_virtual_tokens, d_model), or None for an empty prompt.
        lowrank_a: (max_source_length or lowrank_rows, rank), or None at rank 0.
        lowrank_b: (rank, d_model), or None at rank 0.
        scaling: Factor on A B.
        reached: (max_source_length or lowrank_rows,) bool, the rows of A that count in evaluation.
    """

    reached: Tensor
    config: DeptConfig
    soft_prompt: nn.Parameter | None
    lowrank_a: nn.Parameter | None
    lowrank_b: nn.Parameter | None

    def __init__(self, config: DeptConfig, context: TunerContext) -> None:
        """Makes tensors of the right shapes; `reset_parameters` sets their values.

        Raises:
            ConfigError: As `DeptConfig.budget`.
        """
        alignment = config.row_alignment or ("last-token" if context.is_decoder_only else "first-token")
        config = replace(config, row_alignment=alignment)
        super().__init__(config, context)
        budget = config.budget(context.d_model, context.max_source_length)
        self._budget = budget
        self.rank = budget.rank
        self.scaling = config.scaling_factor(budget.rank)
        m, rows, r, d = budget.num_virtual_tokens, budget.lowrank_rows, budget.rank, budget.d_model
        self.soft_prompt = nn.Parameter(torch.zeros(m, d)) if m else None
        self.lowrank_a = nn.Parameter(torch.zeros(rows, r)) if r else None
        self.lowrank_b = nn.Parameter(torch.zeros(r, d)) if r else None
        self.register_buffer("reached", torch.ones(rows, dtype=torch.bool), persistent=False)
        self._is_drawn = False

    @torch.no_grad()
    def reset_parameters(self, context: TunerContext) -> None:
        """Sets the first values: the prompt as configured, A Gaussian or Kaiming-uniform, B zero.

        The prompt is drawn first, so prompt tuning with the same seed and length has the same prompt.
        """
        generator = torch.Generator().manual_seed(context.seed)
        if self.soft_prompt is not None:
            self.soft_prompt.copy_(initial_prompt(self.config, context, self.num_virtual_tokens, generator))
        if self.lowrank_a is not None and self.lowrank_b is not None:
            self.lowrank_a.copy_(self._drawn(tuple(self.lowrank_a.shape), generator))
            self.lowrank_b.zero_()
            self._is_drawn = True

    def _drawn(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        values = torch.empty(shape)
        if self.config.lowrank_init == "gaussian":
            return nn.init.normal_(values, std=self.config.lowrank_init_std, generator=generator)
        return nn.init.kaiming_uniform_(values, a=math.sqrt(5), generator=generator)  # +-1 / sqrt(rank)

    def embed(self, text_embeds: Tensor, info: ForwardInfo | None = None) -> Tensor:
        """Returns [P; text + scaling * A B]; see `Tuner.embed`."""
        self.check_length(text_embeds)
        if self.lowrank_a is None or self.lowrank_b is None:
            return prepend_prompt(self.soft_prompt, text_embeds)
        length, index = text_embeds.shape[1], self._rows_of_tokens(text_embeds, info)
        if self.training:
            self._note_reached(text_embeds, info, index)
        with torch.autocast(text_embeds.device.type, enabled=False):  # a few MFLOP: not worth bf16's rounding
            rows = self._rows(self.lowrank_a if self.training else self._counting_rows(self.lowrank_a))
            chosen = rows[:length] if index is None else rows[index]  # ([1 or batch,] text, rank)
            update = chosen @ self.lowrank_b  # ([1 or batch,] text, d_model)
            shifted = torch.add(text_embeds, update, alpha=self.scaling)  # (batch, text, d_model)
        return prepend_prompt(self.soft_prompt, shifted.to(text_embeds.dtype))

    def has_common_prompt(self, info: ForwardInfo) -> bool:
        """Returns that it does; see `Tuner.has_common_prompt`."""
        return True

    @torch.no_grad()
    def _note_reached(self, text_embeds: Tensor, info: ForwardInfo | None, index: Tensor | None) -> None:
        """Notes which rows of A the tokens of a batch have, padding left out."""
        if self._is_drawn:
            self.reached.zero_()
            self._is_drawn = False
        batch, length = text_embeds.shape[:2]
        mask = text_embeds.new_ones(batch, length) if info is None else info.text_mask
        places = torch.arange(length, device=mask.device) if index is None else index
        counts = mask.new_zeros(self.max_source_length)
        counts.scatter_add_(0, places.expand(batch, length).flatten(), mask.flatten())
        self.reached |= self._rows_of_places(counts > 0)

    def _rows_of_places(self, places: Tensor) -> Tensor:
        """Returns, of the s places that are wanted, which rows of A they are made of."""
        few, many = len(self.reached), self.max_source_length
        if few == many:
            return places
        at = torch.arange(many, device=places.device) * (few - 1) / max(1, many - 1)
        wanted = torch.zeros(few, device=places.device)
        for row in (at.floor(), at.ceil()):
            wanted.scatter_add_(0, row.long(), places.float())
        return wanted > 0

    def _counting_rows(self, a: Tensor) -> Tensor:
        """Returns A with the rows at zero that do not count."""
        return a.masked_fill(~self.reached.unsqueeze(-1), 0)

    def saved_values(self) -> dict[str, Tensor]:
        """Returns A without the random start of rows that no text has reached."""
        return {} if self.lowrank_a is None else {"lowrank_a": self._counting_rows(self.lowrank_a.detach())}

    def after_step(self, step: int, max_steps: int) -> None:
        """Brings together what the texts of several processes have reached."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            reached = self.reached.to(torch.uint8)
            torch.distributed.all_reduce(reached, torch.distributed.ReduceOp.MAX)
            self.reached.copy_(reached)

    def training_state(self) -> dict[str, Tensor]:
        """Returns which rows of A have been reached."""
        return {"reached": self.reached}

    @torch.no_grad()
    def load_training_state(self, state: Mapping[str, Tensor]) -> None:
        """Takes what `training_state` returned; of a checkpoint of an earlier version, which has none, all rows count.

        Raises:
            CheckpointError: It is of another method, or other settings.
        """
        if state:
            super().load_training_state(state)
        self._is_drawn = False

    def _rows(self, a: Tensor) -> Tensor:
        """Returns A's row for each of the s places, (max_source_length, rank), interpolated between those there are."""
        if len(a) == self.max_source_length:
            return a
        size = self.max_source_length
        return nn.functional.interpolate(a.T[None], size=size, mode="linear", align_corners=True)[0].T

    def _rows_of_tokens(self, text_embeds: Tensor, info: ForwardInfo | None) -> Tensor | None:
        """Returns the row of every token, (1 or batch, text); None where token i has row i.

        Where texts of a batch have rows of their own, padding may get the last row, and is not read.
        """
        is_first, jitter = (
            self.config.row_alignment == "first-token",
            (self.config.position_jitter or 0) * self.training,
        )
        if is_first and not jitter:
            return None
        batch, length = text_embeds.shape[:2]
        index = torch.arange(length, device=text_embeds.device)
        num_tokens = index.new_tensor([[length]]) if info is None else info.text_mask.sum(dim=1, keepdim=True)
        room = self.max_source_length - num_tokens  # (1 or batch, 1)
        begins = torch.zeros_like(room) if is_first else room
        if jitter:
            drawn = torch.randint(jitter + 1, (batch, 1), device=text_embeds.device)
            begins = begins + torch.minimum(drawn, room) * (1 if is_first else -1)
        return (index + begins).clamp(max=self.max_source_length - 1)

    @torch.no_grad()
    def start_from(self, tensors: Mapping[str, Tensor], source: TunerSettings) -> list[str]:
        """Takes another DePT tuner's prompt and pair; see `Tuner.start_from`.

        m, r and the row alignment must be equal. Where s differs, the rows of A that both have are taken, counted as
        the alignment counts them, and further rows are zero: text tokens beyond the source's s start without an
        update. Where the scaling differs, B is rescaled so that scaling * A B is the source's.
        """
        self.check_method(source)
        assert isinstance(source, DeptConfig)  # it has this method's name
        prompt, a, b = (tensors.get(name) for name in ("soft_prompt", "lowrank_a", "lowrank_b"))
        sizes = {
            "num_virtual_tokens": (0 if prompt is None else prompt.shape[0], self.num_virtual_tokens),
            "rank": (0 if b is None else b.shape[0], self.rank),
            "row_alignment": (source.row_alignment, self.config.row_alignment),
            "lowrank_rows": (source.lowrank_rows, self.config.lowrank_rows),
        }
        problems = [f"{name}={theirs}, this run has {ours}" for name, (theirs, ours) in sizes.items() if theirs != ours]
        if problems:
            raise CheckpointError(
                f"the source has {'; '.join(problems)}; set these of tuner to the source's "
                "(with tuner.allow_nearest where that misses the budget)"
            )
        if self.soft_prompt is not None and prompt is not None:
            self.soft_prompt.copy_(prompt)
        if self.lowrank_a is None or self.lowrank_b is None or a is None or b is None:
            return []
        shared = min(len(self.lowrank_a), len(a))
        is_first = self.config.row_alignment == "first-token"
        rows = slice(None, shared) if is_first else slice(-shared, None)
        self.lowrank_a.zero_()
        self.lowrank_a[rows] = a[rows]
        self._is_drawn = False
        factor = source.scaling_factor(self.rank) / self.scaling
        self.lowrank_b.copy_(b if factor == 1 else b * factor)
        notes = []
        if len(a) != len(self.lowrank_a):
            further = "; further rows start at zero, without an update" if shared < self.max_source_length else ""
            notes.append(
                f"the source was trained for max_source_length={len(a)}, this run has {self.max_source_length}: "
                f"the {'first' if is_first else 'last'} {shared} rows of A are taken{further}"
            )
        if factor != 1:
            notes.append(f"B is taken times {factor:.6g}, so that this run's scaling gives the source's update")
        return notes

    def param_groups(self, own: Mapping[str, nn.Parameter]) -> list[ParamGroup]:
        """Returns ``soft_prompt`` and ``lowrank``, the two groups the paper trains at different rates."""
        prompt = (self.soft_prompt,) if self.soft_prompt is not None else ()
        groups = [ParamGroup("soft_prompt", prompt, self.config.lr)] if prompt else []
        if self.lowrank_a is not None and self.lowrank_b is not None:
            pair = (self.lowrank_a, self.lowrank_b)
            groups.append(ParamGroup("lowrank", pair, self.config.lowrank_lr, unsized=pair[:1]))
        return groups

    def prompt(self) -> nn.Parameter | None:
        """Returns the soft prompt, None at m = 0."""
        return self.soft_prompt

    def as_prompt(self) -> Tensor | None:
        """Returns a copy of the prompt at rank 0; None where there is a pair."""
        if self.lowrank_a is not None:
            return None
        return torch.zeros(0, self._budget.d_model) if self.soft_prompt is None else self.soft_prompt.detach().clone()

    @torch.no_grad()
    def row_embedding(self) -> RowEmbedding:
        """Returns P and scaling * A B, (max_source_length, d_model)."""
        prompt = torch.zeros(0, self._budget.d_model) if self.soft_prompt is None else self.soft_prompt.detach().clone()
        if self.lowrank_a is None or self.lowrank_b is None:
            return RowEmbedding(prompt)
        with torch.autocast(self.lowrank_b.device.type, enabled=False):  # as `embed`
            update = self.scaling * (self._rows(self._counting_rows(self.lowrank_a)) @ self.lowrank_b)
        return RowEmbedding(prompt, update, is_last_aligned=self.config.row_alignment == "last-token")

    def facts(self) -> dict[str, Fact]:
        """Returns m, r, s, d, l and the parameters aimed at."""
        budget = self._budget
        return {
            "m": budget.num_virtual_tokens,
            "r": budget.rank,
            "s": self.max_source_length,
            "d": budget.d_model,
            "l": budget.budget_tokens,
            "l x d": budget.target,
            **({} if self.config.lowrank_rows is None else {"rows of A": budget.lowrank_rows}),
        }
