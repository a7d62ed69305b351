"""The computation of MPT."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from copy import deepcopy
from dataclasses import replace

import torch
from torch import Tensor, nn

from dept_vl.errors import CheckpointError, ConfigError
from dept_vl.tuners.base import Fact, ParamGroup, Tuner, prepend_prompt
from dept_vl.tuners.context import TunerContext
from dept_vl.tuners.forward_info import ForwardInfo
from dept_vl.tuners.left_out import Inactive
from dept_vl.tuners.mpt.config import MptConfig
from dept_vl.tuners.prompts.init import initial_prompt
from dept_vl.tuners.prompts.sources import check_size, last_names, read_prompts
from dept_vl.tuners.prompts.teacher import Teacher
from dept_vl.tuners.settings import TunerSettings


class Mpt(Tuner):
    """[P * (u_k v_k^T); text] for task k (Wang et al. 2023, section 3.1), * feature by feature.

    u and v start at 1, so that every task starts with P. (PEFT's port draws them from N(0, 0.02), which makes all
    prompts nearly zero.) With teachers, stage 1, the distance to what each row's teacher answers is part of the loss
    (section 3.2; `dept_vl.models.distillation`).

    Attributes:
        soft_prompt: P, (num_virtual_tokens, d_model).
        task_tokens: u of each task, (tasks, num_virtual_tokens).
        task_features: v of each task, (tasks, d_model).
        teachers: The teachers' prompts, (tasks, num_virtual_tokens, d_model), or none of them.
    """

    config: MptConfig
    teachers: Tensor

    def __init__(self, config: MptConfig, context: TunerContext) -> None:
        """Makes tensors of the right shapes; `reset_parameters` sets their values.

        Raises:
            ConfigError: There are teachers, and not one for each task; or as `check_size`.
        """
        super().__init__(config, context)
        num_tasks = max(1, len(context.tasks))
        if config.teachers and len(config.teachers) != num_tasks:
            tasks = f" ({', '.join(context.tasks)})" if context.tasks else ""
            raise ConfigError(
                f"tuner.teachers: names {len(config.teachers)} runs for {num_tasks} tasks{tasks}; name one trained on "
                "each, in that order"
            )
        m, d = config.num_virtual_tokens, context.d_model
        check_size(num_tasks + len(config.teachers), m)
        self.soft_prompt = nn.Parameter(torch.zeros(m, d))
        self.task_tokens = nn.Parameter(torch.zeros(num_tasks, m))
        self.task_features = nn.Parameter(torch.zeros(num_tasks, d))
        self.register_buffer("teachers", torch.zeros(len(config.teachers), m, d), persistent=False)

    @torch.no_grad()
    def reset_parameters(self, context: TunerContext) -> None:
        """Sets P as configured and u and v to 1, and reads the teachers.

        Raises:
            CheckpointError: As `read_prompts`.
        """
        generator = torch.Generator().manual_seed(context.seed)
        self.soft_prompt.copy_(initial_prompt(self.config, context, self.num_virtual_tokens, generator))
        self.task_tokens.fill_(1)
        self.task_features.fill_(1)
        teachers = read_prompts("tuner.teachers", self.config.teachers, context, self.num_virtual_tokens)
        if teachers is not None:
            self.teachers.copy_(teachers)

    def recorded_settings(self) -> MptConfig:
        """Returns the settings with the teachers' last names; see `Tuner.recorded_settings`."""
        return replace(self.config, teachers=last_names(self.config.teachers))

    def frozen_state(self) -> dict[str, Tensor]:
        """Returns nothing: an adapter needs no teacher."""
        return {}

    def training_state(self) -> dict[str, Tensor]:
        """Returns the teachers' prompts, so that a run goes on without their runs."""
        return {"teachers": self.teachers} if len(self.teachers) else {}

    def without(self, groups: Collection[str]) -> Tuner:
        """Returns MPT without its prompt, which is nothing, or without the tasks' factors: u = v = 1 is P itself."""
        if "soft_prompt" in groups:
            return Inactive(self)
        left = deepcopy(self)
        if "task_factors" in groups:
            for factor in (left.task_tokens, left.task_features):
                factor.detach().fill_(1.0)
        return left

    def embed(self, text_embeds: Tensor, info: ForwardInfo | None = None) -> Tensor:
        """Returns [the task's prompt; text]; see `Tuner.embed`."""
        self.check_length(text_embeds)
        return prepend_prompt(self._prompts(_tasks(info)), text_embeds)

    def has_common_prompt(self, info: ForwardInfo) -> bool:
        """Returns whether the pass is of one task, as far as that is known; see `Tuner.has_common_prompt`."""
        return info.only_task is not None

    def _prompts(self, tasks: Tensor | None) -> Tensor:
        """Returns the prompts of some tasks, (rows, m, d_model); of None the first's, (m, d_model)."""
        tokens, features = (
            factor[0] if tasks is None else factor[tasks] for factor in (self.task_tokens, self.task_features)
        )
        return self.soft_prompt * tokens.unsqueeze(-1) * features.unsqueeze(-2)

    def teacher(self) -> Teacher | None:
        """Returns the teachers, each row's by its task; None without."""
        return Teacher(self._embed_taught, self.config.teacher_weight) if len(self.teachers) else None

    def _embed_taught(self, text_embeds: Tensor, info: ForwardInfo) -> Tensor:
        tasks = _tasks(info)
        return prepend_prompt(self.teachers[0] if tasks is None else self.teachers[tasks], text_embeds)

    @torch.no_grad()
    def as_prompt(self) -> Tensor | None:
        """Returns the prompt of the one task; None for several, whose prompts differ."""
        return self._prompts(None) if len(self.task_tokens) == 1 else None

    @torch.no_grad()
    def start_from(self, tensors: Mapping[str, Tensor], source: TunerSettings) -> list[str]:
        """Takes another run's P and, for each task, the mean of its u and of its v: stage 2 (section 3.2).

        The source may have been trained on other tasks, and on another number of them. See `Tuner.start_from`.
        """
        self.check_method(source)
        ours = (self.num_virtual_tokens, self.soft_prompt.shape[1])
        theirs = tuple(tensors["soft_prompt"].shape)
        if theirs != ours:
            raise CheckpointError(
                f"the source's prompt is {theirs}, this run's {ours}; set tuner.num_virtual_tokens to the source's"
            )
        self.soft_prompt.copy_(tensors["soft_prompt"])
        self.task_tokens.copy_(tensors["task_tokens"].mean(dim=0))
        self.task_features.copy_(tensors["task_features"].mean(dim=0))
        num_tasks = len(tensors["task_tokens"])
        return [] if num_tasks == 1 else [f"u and v of every task start at the mean of the source's {num_tasks} tasks"]

    def param_groups(self, own: Mapping[str, nn.Parameter]) -> list[ParamGroup]:
        """Returns ``soft_prompt`` and ``task_factors``, which train at different rates."""
        return [
            ParamGroup("soft_prompt", (self.soft_prompt,), self.config.lr),
            ParamGroup("task_factors", (self.task_tokens, self.task_features), self.config.task_lr),
        ]

    def prompt(self) -> nn.Parameter:
        """Returns the shared prompt P."""
        return self.soft_prompt

    def facts(self) -> dict[str, Fact]:
        """Returns the sizes and the number of tasks."""
        return {
            "m": self.num_virtual_tokens,
            "s": self.max_source_length,
            "d": self.soft_prompt.shape[1],
            "tasks": len(self.task_tokens),
        }


def _tasks(info: ForwardInfo | None) -> Tensor | None:
    return None if info is None else info.task_ids
