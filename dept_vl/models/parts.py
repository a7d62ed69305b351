"""The parts of a trained model, each of which can be set to its start or left out while the others stay trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from dept_vl.models.adapted_model import AdaptedModel

PROJECTION, CONNECTOR = "visual_projection", "connector"


@dataclass(frozen=True)
class ModelPart:
    """What is looked at by itself.

    Attributes:
        name: A group's; of several groups, that of the method in a stack, or of the whole method.
        groups: The groups it consists of.
        parameters: How many it trains.
    """

    name: str
    groups: tuple[str, ...]
    parameters: int

    @property
    def is_projection(self) -> bool:
        """Whether it is the visual projection."""
        return self.groups == (PROJECTION,)


def model_parts(model: AdaptedModel) -> list[ModelPart]:
    """Returns every group of the method, every method of a stack, the whole where that is more, projection, connector.

    DePT has ``soft_prompt``, ``lowrank`` and ``dept``; DePT with LoRA ``dept.soft_prompt``, ``dept.lowrank``, ``dept``,
    ``lora.lora`` and ``dept+lora``.
    """
    counts = {group.name: sum(p.numel() for p in group.parameters) for group in model.param_groups()}
    beside = [name for name in (PROJECTION, CONNECTOR) if name in counts]
    own = [name for name in counts if name not in beside]
    members: dict[str, list[str]] = {}
    for name in own:
        members[name] = [name]
        stacked = name.partition(".")[0]
        if "." in name:
            members.setdefault(stacked, []).append(name)
    members.setdefault(model.tuner.config.label, own)
    members |= {name: [name] for name in beside}
    distinct: dict[tuple[str, ...], str] = {}
    for name, groups in members.items():
        distinct.setdefault(tuple(groups), name)
    return [ModelPart(name, groups, sum(counts[g] for g in groups)) for groups, name in distinct.items() if groups]


@contextmanager
def set_to_start(model: AdaptedModel, part: ModelPart, start: Mapping[str, Tensor]) -> Iterator[None]:
    """Gives a part its first values for the block.

    Args:
        model: Trained; as it was, after the block.
        part: Of `model_parts`.
        start: First values of all that it trains, as in `AdaptedModel.trainable_state`.
    """
    own = _state(model, part.groups)
    trained = {name: tensor.clone() for name, tensor in own.items()}
    try:
        _copy(own, start)
        yield
    finally:
        _copy(own, trained)


@contextmanager
def left_out(model: AdaptedModel, part: ModelPart, frozen: Mapping[str, Tensor]) -> Iterator[None]:
    """Lets a part do nothing for the block, as `Tuner.without` says; tensors of the backbone have the frozen values.

    Leaving out the projection is not done here but by who gives the model no features.

    Args:
        model: Trained; as it was, after the block.
        part: Of `model_parts`.
        frozen: The backbone's own values of what the method trains of it, by the names of `model.backbone.model`.
    """
    tuner = model.tuner
    state, inside = _state(model, part.groups), "backbone.model."
    own = {name.removeprefix(inside): value for name, value in state.items() if name.startswith(inside)}
    trained = {name: tensor.clone() for name, tensor in own.items()}
    try:
        _copy(own, frozen)
        model.tuner = tuner.without(part.groups)
        yield
    finally:
        model.tuner = tuner
        _copy(own, trained)


def _state(model: AdaptedModel, groups: Sequence[str]) -> dict[str, Tensor]:
    """Returns the tensors of some groups by their names in the model."""
    wanted = {id(p) for group in model.param_groups() if group.name in groups for p in group.parameters}
    return {name: p.detach() for name, p in model.named_parameters() if id(p) in wanted}


@torch.no_grad()
def _copy(targets: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    for name, target in targets.items():
        target.copy_(values[name])
