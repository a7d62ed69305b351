"""Where the sites that methods know lie in a transformers model, and how hooks are put there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers.pytorch_utils import Conv1D

from dept_vl.tuners.forward_info import ForwardInfo
from dept_vl.tuners.places.hooks import SiteHook
from dept_vl.tuners.places.sites import SiteShape


@dataclass(frozen=True)
class Place:
    """A module, or a part of what it puts out.

    Attributes:
        module: Maps one tensor to one.
        part: Which of `parts` equal parts of the output, from 0: GPT-2 makes q, k and v in one module.
        parts: How many there are.
        width: Of what goes in and comes out, where the module is more than one map.
    """

    module: nn.Module
    part: int = 0
    parts: int = 1
    width: int | None = None


def site_shape(place: Place, names: Mapping[int, str]) -> SiteShape:
    """Returns the widths of a place and the names of its weight and of the bias that is added there.

    Args:
        place: A linear map, a norm, or a place that says its width.
        names: Names of the model's parameters by their ``id``.
    """
    if place.width is not None:
        return SiteShape(place.width, place.width)
    weight: Any = place.module.weight
    inputs, outputs = weight.shape[-1], weight.shape[0]
    if isinstance(place.module, Conv1D):  # GPT-2's linear map, whose weight is (inputs, outputs)
        inputs, outputs = outputs, inputs
    bias = getattr(place.module, "bias", None)
    return SiteShape(inputs, outputs // place.parts, None if bias is None else names[id(bias)], names[id(weight)])


def place_matrix(place: Place) -> Tensor:
    """Returns the frozen matrix of a place that is a linear map, (outputs, inputs), or a norm's scale, (outputs,)."""
    weight: Any = place.module.weight
    matrix: Tensor = weight.T if isinstance(place.module, Conv1D) else weight
    return matrix.chunk(place.parts)[place.part].detach()


def place_bias(place: Place) -> Tensor | None:
    """Returns the backbone's own bias at a place that is a linear map, (outputs,); None where it has none."""
    bias: Tensor | None = getattr(place.module, "bias", None)
    return None if bias is None else bias.chunk(place.parts)[place.part].detach()


def hook_places(hooks: Mapping[Place, SiteHook], info: ForwardInfo) -> list[RemovableHandle]:
    """Puts hooks on modules until the handles that are returned are removed.

    One that acts before has a module of its own: parts of an output have their input in common.
    """
    by_module: dict[nn.Module, dict[Place, SiteHook]] = {}
    for place, hook in hooks.items():
        by_module.setdefault(place.module, {})[place] = hook
    handles = [module.register_forward_hook(_run(ours, info)) for module, ours in by_module.items()]
    early = [(place.module, hook) for place, hook in hooks.items() if hook.acts_before]
    return [*handles, *(module.register_forward_pre_hook(_run_before(hook, info)) for module, hook in early)]


def _run_before(hook: SiteHook, info: ForwardInfo) -> Callable[[nn.Module, tuple[Tensor, ...]], Any]:
    """Returns torch's hook on the input of one module."""

    def run(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (hook.before(inputs[0], info), *inputs[1:])

    return run


def _run(hooks: Mapping[Place, SiteHook], info: ForwardInfo) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Any]:
    """Returns torch's hook for one module."""

    def run(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        (place, hook), *others = hooks.items()
        if not others and place.parts == 1:
            return hook(inputs[0], output, info)
        pieces = list(output.chunk(place.parts, dim=-1))
        for one, its_hook in hooks.items():
            changed = its_hook(inputs[0], pieces[one.part], info)
            pieces[one.part] = pieces[one.part] if changed is None else changed
        return torch.cat(pieces, dim=-1)

    return run


def is_plain(module: nn.Module, hook: SiteHook | None) -> bool:
    """Returns whether a module is ``nn.Linear`` without bias, and nothing but our own hook acts on it.

    Args:
        module: Any module, one that PEFT wrapped among them.
        hook: What `hook_places` has put there.
    """
    ours = 0 if hook is None else 1 + hook.acts_before
    foreign = len(module._forward_hooks) + len(module._forward_pre_hooks) - ours
    return type(module) is nn.Linear and module.bias is None and not foreign
