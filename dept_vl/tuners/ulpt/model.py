"""The computation of ULPT."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from dept_vl.errors import CheckpointError
from dept_vl.tuners.base import Fact, ParamGroup, Tuner, prepend_prompt
from dept_vl.tuners.context import TunerContext
from dept_vl.tuners.forward_info import ForwardInfo
from dept_vl.tuners.layers.precision import full_precision
from dept_vl.tuners.settings import TunerSettings
from dept_vl.tuners.ulpt.config import UlptConfig

_STREAM = 1
"""Which of the random streams of a seed R is drawn from."""


class Ulpt(Tuner):
    """[gamma * (Z R) + beta; text], with a frozen random R (Wu et al. 2025, section 3).

    R is not saved: the adapter records the seed it is drawn from, and a checksum by which another R is noticed.

    Attributes:
        codes: Z, (num_virtual_tokens, rank).
        scale: gamma, (d_model,).
        shift: beta, (d_model,).
        projection: R, (rank, d_model).
    """

    config: UlptConfig
    projection: Tensor

    def __init__(self, config: UlptConfig, context: TunerContext) -> None:
        """Makes tensors of the right shapes; `reset_parameters` sets their values."""
        super().__init__(config, context)
        self._projection_seed = context.seed if config.projection_seed is None else config.projection_seed
        self.codes = nn.Parameter(torch.zeros(config.num_virtual_tokens, config.rank))
        self.scale = nn.Parameter(torch.zeros(context.d_model))
        self.shift = nn.Parameter(torch.zeros(context.d_model))
        self.register_buffer("projection", torch.zeros(config.rank, context.d_model), persistent=False)

    @torch.no_grad()
    def reset_parameters(self, context: TunerContext) -> None:
        """Draws Z from N(0, 1) and R uniform within sqrt(6 / (r + d)), Xavier's bound; gamma is 1, beta 0.

        R depends on its seed and sizes alone. Its generator is not that of Z, whose draws would be of the same bits.
        """
        generator = torch.Generator().manual_seed(context.seed)
        self.codes.copy_(torch.randn(self.codes.shape, generator=generator))
        self.scale.fill_(1)
        self.shift.zero_()
        state = np.random.SeedSequence((self._projection_seed, _STREAM)).generate_state(1, dtype=np.uint64)
        generator = torch.Generator().manual_seed(int(state[0]) >> 1)
        bound = (6 / sum(self.projection.shape)) ** 0.5
        self.projection.copy_((torch.rand(self.projection.shape, generator=generator) * 2 - 1) * bound)

    def recorded_settings(self) -> UlptConfig:
        """Returns the settings with the seed of R in numbers; see `Tuner.recorded_settings`."""
        return replace(self.config, projection_seed=self._projection_seed)

    def embed(self, text_embeds: Tensor, info: ForwardInfo | None = None) -> Tensor:
        """Returns [the projected prompt; text]; see `Tuner.embed`."""
        self.check_length(text_embeds)
        return prepend_prompt(self._prompt(), text_embeds)

    def has_common_prompt(self, info: ForwardInfo) -> bool:
        """Returns that it does; see `Tuner.has_common_prompt`."""
        return True

    def _prompt(self) -> Tensor:
        with full_precision(self.codes):
            return self.scale * (self.codes @ self.projection) + self.shift

    @torch.no_grad()
    def as_prompt(self) -> Tensor:
        """Returns the projected prompt."""
        return self._prompt()

    def start_from(self, tensors: Mapping[str, Tensor], source: TunerSettings) -> list[str]:
        """Takes another run's Z, gamma and beta; its R must be this run's. See `Tuner.start_from`."""
        self.check_method(source)
        assert isinstance(source, UlptConfig)  # it has this method's name
        if source.projection_seed is None or source.projection_seed != self._projection_seed:
            theirs = "its run's seed" if source.projection_seed is None else source.projection_seed
            raise CheckpointError(
                f"the source's projection R is drawn from {theirs}, this run's from {self._projection_seed}, and Z "
                "means nothing with another R; set tuner.projection_seed to one number in both"
            )
        return super().start_from(tensors, source)

    def param_groups(self, own: Mapping[str, nn.Parameter]) -> list[ParamGroup]:
        """Returns the one group ``soft_prompt``."""
        return [ParamGroup("soft_prompt", (self.codes, self.scale, self.shift), self.config.lr)]

    def facts(self) -> dict[str, Fact]:
        """Returns the sizes, and the first digits of the sha256 of R where it has values."""
        facts: dict[str, Fact] = {
            "m": self.num_virtual_tokens,
            "r": self.config.rank,
            "s": self.max_source_length,
            "d": self.shift.shape[0],
        }
        if not self.projection.is_meta:
            values = self.projection.detach().to("cpu", torch.float32).contiguous().numpy().astype("<f4", copy=False)
            facts["projection"] = hashlib.sha256(values.tobytes()).hexdigest()[:12]
        return facts
