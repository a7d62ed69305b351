"""AdaLoRA: what its ranks need to know of training, handed to the library ``peft``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from dept_vl.errors import CheckpointError
from dept_vl.tuners.forward_info import ForwardInfo
from dept_vl.tuners.peft.config import AdaLoraConfig
from dept_vl.tuners.peft.model import ADAPTER, PeftTuner

_AVERAGES = {"importance": "exp_avg_ipt", "uncertainty": "exp_avg_unc"}
"""What a checkpoint calls a running average -> what ``peft`` does."""

_KEPT = "kept"
"""What a checkpoint calls the choice of singular values that are not zero."""


class AdaLora(PeftTuner):
    """Updates whose singular values are set to zero during training where they matter least (Zhang et al. 2023).

    A singular value that has been given up stays zero in the tensors themselves, so that an adapter needs nothing else.
    """

    config: AdaLoraConfig
    changes_in_place: ClassVar[bool] = True

    @property
    def _settings(self) -> Any:
        return self.library.peft_config[ADAPTER]

    @property
    def _allocator(self) -> Any:
        return self.library.base_model.rankallocator

    def auxiliary_loss(self, info: ForwardInfo) -> Tensor:
        """Returns how far the singular vectors are from orthogonal, as ``peft`` adds it to a model's loss."""
        loss: Tensor = self.library.base_model().loss
        return loss

    def after_step(self, step: int, max_steps: int) -> None:
        """Updates importances, and gives up singular values as the schedule of the whole run has it."""
        schedule = self._settings
        schedule.total_step = max_steps
        schedule.tinit = int(self.config.warmup_share * max_steps)
        schedule.tfinal = int(self.config.final_share * max_steps)
        last_choice = max_steps - schedule.tfinal
        if step > last_choice:
            if self._allocator.exp_avg_ipt:
                step = last_choice  # that step was skipped, and the choice is still to be made
            elif schedule.rank_pattern is None:
                return  # every step so far was skipped
        self.library.base_model.update_and_allocate(step)

    def training_state(self) -> dict[str, Tensor]:
        """Returns the running averages of every trained tensor, and which singular values are kept."""
        state = {
            f"{ours}.{name}": value
            for ours, theirs in _AVERAGES.items()
            for name, value in getattr(self._allocator, theirs).items()
        }
        for name, kept in (self._settings.rank_pattern or {}).items():
            state[f"{_KEPT}.{name}"] = torch.tensor(kept)
        return state

    def load_training_state(self, state: Mapping[str, Tensor]) -> None:
        """Takes what `training_state` returned; see `Tuner.load_training_state`."""
        parameters = {name: p for name, p in self.layers.named_parameters() if p.requires_grad}
        expected: dict[str, tuple[int, ...]] = {}
        for name, parameter in parameters.items():
            expected |= {f"{ours}.{name}": tuple(parameter.shape) for ours in _AVERAGES}
            if ".lora_E." in name:
                expected[f"{_KEPT}.{name}"] = (len(parameter),)
        wrong = sorted(key for key, value in state.items() if expected.get(key) != tuple(value.shape))
        if wrong:
            raise CheckpointError(f"holds {wrong[0]} {tuple(state[wrong[0]].shape)}, this run's AdaLoRA has no such")
        parts: dict[str, dict[str, Tensor]] = {part: {} for part in (*_AVERAGES, _KEPT)}
        for key, value in state.items():
            part, _, name = key.partition(".")
            parts[part][name] = value
        for ours, theirs in _AVERAGES.items():
            averages = {name: value.to(parameters[name].device) for name, value in parts[ours].items()}
            setattr(self._allocator, theirs, averages)
        self._allocator.ipt = dict(self._allocator.exp_avg_ipt)  # what is there already is not begun again
        self._settings.rank_pattern = {name: kept.tolist() for name, kept in parts[_KEPT].items()} or None
