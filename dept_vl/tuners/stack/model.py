"""Several methods as one."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from dept_vl.errors import CheckpointError, ConfigError
from dept_vl.tuners.base import Fact, ParamGroup, Tuner
from dept_vl.tuners.context import TunerContext
from dept_vl.tuners.forward_info import ForwardInfo
from dept_vl.tuners.places.extra_keys import ExtraKeys, merge_extra_keys
from dept_vl.tuners.places.hooks import SiteHook, merge_hooks
from dept_vl.tuners.places.sites import Site
from dept_vl.tuners.settings import TunerSettings
from dept_vl.tuners.stack.config import StackConfig

if TYPE_CHECKING:
    from dept_vl.tuners.methods import Method


class Stack(Tuner):
    """Parts that act together: embeddings one after the other, hooks in one chain a place, groups under a part's name.

    A part sees the text as the part before it left it; prompts stand in the order of the parts, [P_1; P_2; text].

    Attributes:
        parts: The methods by their names.
    """

    config: StackConfig

    def __init__(self, config: StackConfig, context: TunerContext) -> None:
        """Builds every part.

        Raises:
            ConfigError: As a part; a part has a teacher, which knows nothing of the others; or two parts train the same
                tensors of the backbone.
        """
        super().__init__(config, context)
        self.parts = nn.ModuleDict({name: part.empty(context) for name, part in config.parts.items()})
        for name, part in self._parts.items():
            if part.teacher() is not None:
                raise ConfigError(
                    f"tuner.parts.{name}: learns from teachers, who answer without the other parts; leave its teachers "
                    "out, or train it alone"
                )
        self._hooks = merge_hooks(*(part.site_hooks() for part in self._parts.values()))
        self._own: dict[str, tuple[str, ...]] = {}

    @property
    def _parts(self) -> dict[str, Tuner]:
        return cast(dict[str, Tuner], dict(self.parts.items()))

    def embed(self, text_embeds: Tensor, info: ForwardInfo | None = None) -> Tensor:
        """Returns [P_1; P_2; ...; text]; see `Tuner.embed`."""
        length = text_embeds.shape[1]
        prompts: list[Tensor] = []
        for part in self._parts.values():
            worded = part.embed(text_embeds, info)
            if worded.shape[1] > length:
                prompts.append(worded[:, :-length])
            text_embeds = worded[:, worded.shape[1] - length :]
        return torch.cat([*prompts, text_embeds], dim=1) if prompts else text_embeds

    def has_common_prompt(self, info: ForwardInfo) -> bool:
        """Returns whether each part with a prompt does; see `Tuner.has_common_prompt`."""
        return all(part.has_common_prompt(info) for part in self._parts.values() if part.num_virtual_tokens)

    def site_hooks(self) -> Mapping[Site, SiteHook]:
        """Returns every part's, chained where several act."""
        return self._hooks

    def extra_keys(self, info: ForwardInfo) -> Mapping[Site, ExtraKeys]:
        """Returns every part's, one after the other where several act."""
        return merge_extra_keys(*(part.extra_keys(info) for part in self._parts.values()))

    def auxiliary_loss(self, info: ForwardInfo) -> Tensor | None:
        """Returns the sum of what the parts add; see `Tuner.auxiliary_loss`."""
        losses = [loss for part in self._parts.values() if (loss := part.auxiliary_loss(info)) is not None]
        return sum(losses[1:], losses[0]) if losses else None

    def after_step(self, step: int, max_steps: int) -> None:
        """Tells every part."""
        for part in self._parts.values():
            part.after_step(step, max_steps)

    def training_state(self) -> dict[str, Tensor]:
        """Returns every part's, named ``part.name``."""
        return {
            f"{key}.{name}": value for key, part in self._parts.items() for name, value in part.training_state().items()
        }

    def load_training_state(self, state: Mapping[str, Tensor]) -> None:
        """Gives every part its own; see `Tuner.load_training_state`."""
        left = dict(state)
        for key, part in self._parts.items():
            mine = [name for name in left if name.startswith(f"{key}.")]
            part.load_training_state({name.removeprefix(f"{key}."): left.pop(name) for name in mine})
        if left:
            raise CheckpointError(f"holds {min(left)} of a tuner, of which this run's stack has no part")

    def trained_backbone_parameters(self, names: Collection[str]) -> Collection[str]:
        """Returns every part's.

        Raises:
            ConfigError: Two parts ask for the same one.
        """
        self._own = {key: tuple(part.trained_backbone_parameters(names)) for key, part in self._parts.items()}
        every = [name for own in self._own.values() for name in own]
        if len(set(every)) < len(every):
            both = " and ".join(repr(key) for key, own in self._own.items() if own)
            raise ConfigError(f"tuner.parts: {both} train the same tensors of the backbone; leave one of them out")
        return every

    def reset_parameters(self, context: TunerContext) -> None:
        """Sets every part's first values, each as if it were alone."""
        for part in self._parts.values():
            part.reset_parameters(context)

    def frozen_state(self) -> dict[str, Tensor]:
        """Returns every part's; see `Tuner.frozen_state`."""
        return self._named({key: part.frozen_state() for key, part in self._parts.items()})

    def saved_values(self) -> dict[str, Tensor]:
        """Returns every part's; see `Tuner.saved_values`."""
        return self._named({key: part.saved_values() for key, part in self._parts.items()})

    @staticmethod
    def _named(states: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
        return {f"parts.{key}.{name}": tensor for key, state in states.items() for name, tensor in state.items()}

    def recorded_settings(self) -> TunerSettings:
        """Returns the settings with every part's as it records them."""
        recorded = {key: cast("Method", part.recorded_settings()) for key, part in self._parts.items()}
        return self.config if recorded == self.config.parts else replace(self.config, parts=recorded)

    def param_groups(self, own: Mapping[str, nn.Parameter]) -> list[ParamGroup]:
        """Returns every part's groups, named ``part.group``."""
        groups = []
        for key, part in self._parts.items():
            asked = {name: own[name] for name in self._own.get(key, ()) if name in own}
            groups += [replace(group, name=f"{key}.{group.name}") for group in part.param_groups(asked)]
        return groups

    def without(self, groups: Collection[str]) -> Stack:
        """Returns a stack in which each part is without its own of the groups; see `Tuner.without`."""
        left = deepcopy(self)
        for key, part in left._parts.items():
            mine = [name.removeprefix(f"{key}.") for name in groups if name.startswith(f"{key}.")]
            left.parts[key] = part.without(mine) if mine else part
        left.num_virtual_tokens = sum(part.num_virtual_tokens for part in left._parts.values())
        left._hooks = merge_hooks(*(part.site_hooks() for part in left._parts.values()))
        return left

    def prompt(self) -> nn.Parameter | None:
        """Returns the first prompt of its parts."""
        return next((prompt for part in self._parts.values() if (prompt := part.prompt()) is not None), None)

    def facts(self) -> dict[str, Fact]:
        """Returns every part's, named ``part.fact``."""
        return {f"{key}.{name}": fact for key, part in self._parts.items() for name, fact in part.facts().items()}

    def start_from(self, tensors: Mapping[str, Tensor], source: TunerSettings) -> list[str]:
        """Takes another stack's values, part by part; see `Tuner.start_from`."""
        self.check_method(source)
        assert isinstance(source, StackConfig)  # it has this method's name
        theirs = {key: part.name for key, part in source.parts.items()}
        ours = {key: part.name for key, part in self.config.parts.items()}
        if theirs != ours:
            raise CheckpointError(f"the source stacks {theirs}, this run stacks {ours}")
        notes = []
        for key, part in self._parts.items():
            prefix = f"parts.{key}."
            mine = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
            notes += part.start_from(mine, source.parts[key])
        return notes
