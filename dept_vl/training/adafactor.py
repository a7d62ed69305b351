"""Adafactor at given rates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import transformers

from dept_vl.settings.schema import OptimConfig


class Adafactor(transformers.Adafactor):
    """Adafactor (Shazeer & Stern 2018, arXiv 1804.04235) at the rates it is given, without momentum.

    That of transformers, updates clipped at a root mean square of 1, and a choice that it has not: second moments of
    each entry, which T5X keeps for a soft prompt (`prompt_tuning/train/optim.py` of google-research/prompt-tuning) and
    for any matrix with a side below 128. Beside T5X's, its weight decay is multiplied by the rate (T5X's is not), and
    ``scale_parameter`` is as T5X's ``multiply_by_parameter_scale``.
    """

    def __init__(self, param_groups: list[dict[str, Any]], config: OptimConfig) -> None:
        """Takes groups with their rates and weight decays."""
        for group in param_groups:
            group["factored"] = config.factored
        super().__init__(
            param_groups,
            lr=1.0,  # of a group without one; every group has its own
            decay_rate=-config.decay_rate,
            scale_parameter=config.scale_parameter,
            relative_step=False,
            warmup_init=False,
        )

    @staticmethod
    def _get_options(param_group: dict[str, Any], param_shape: Sequence[int]) -> tuple[bool, bool]:
        """Returns whether a tensor's second moment is factored and whether there is a first; the library asks."""
        return param_group["factored"] and len(param_shape) >= 2, False

    def moment_shapes(self, shape: Sequence[int]) -> dict[str, tuple[int, ...]]:
        """Returns what is kept of a tensor of a shape; see `dept_vl.training.optim.moment_shapes`."""
        if self._get_options(self.param_groups[0], shape)[0]:
            rows, columns = tuple(shape[:-1]), (*shape[:-2], shape[-1])
            return {"step": (), "RMS": (), "exp_avg_sq_row": rows, "exp_avg_sq_col": columns}
        return {"step": (), "RMS": (), "exp_avg_sq": tuple(shape)}
