"""The library ``peft`` behind the protocol of a tuner: its layers compute, and the backbone stays as it is."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, ClassVar

import peft
import torch
from torch import Tensor, nn

from dept_vl.tuners.base import Fact, ParamGroup, Tuner
from dept_vl.tuners.context import TunerContext
from dept_vl.tuners.forward_info import ForwardInfo
from dept_vl.tuners.peft.config import PeftSettings
from dept_vl.tuners.places.choice import choose_sites
from dept_vl.tuners.places.hooks import LinearMap, NarrowMap, SiteHook
from dept_vl.tuners.places.sites import Site, SiteShape

ADAPTER = "default"
"""What ``peft`` calls an adapter that is given no name."""


class FrozenMap(nn.Linear):
    """What ``peft`` takes for the linear map at a place: the backbone's own matrix, and the output it has just made.

    It has no tensors: the matrix is looked up in the backbone, so that it is on its device and never held twice.

    Attributes:
        output: What the backbone made of the input that the layer around this one is called with, (..., outputs).
        is_whole: Whether the output has the backbone's bias in it.
    """

    output: Tensor | None = None
    is_whole = True

    def __init__(
        self, shape: SiteShape, matrix: Callable[[], Tensor], bias: Callable[[], Tensor | None], *, copies: bool
    ) -> None:
        """Takes where matrix and bias are looked up, and whether the layer around it changes an output in place."""
        nn.Module.__init__(self)  # and not nn.Linear's, which makes tensors
        self.in_features, self.out_features = shape.inputs, shape.outputs
        self._matrix, self._bias, self._copies = matrix, bias, copies

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """The frozen matrix, (outputs, inputs), in float32, which trained tensors then have too."""
        return self._matrix().float()

    @property
    def bias(self) -> Tensor | None:  # type: ignore[override]
        """The bias that is in the output, (outputs,), or None."""
        return self._bias() if self.is_whole else None

    def forward(self, input: Tensor) -> Tensor:
        """Returns what the backbone made of the input, (..., outputs)."""
        assert self.output is not None
        return self.output.clone() if self._copies else self.output


class Places(nn.ModuleDict):
    """The places that are adapted, as a model that ``peft`` puts its layers into.

    Attributes:
        hf_device_map: Where ``peft`` looks for the device of a model that has no tensors.
    """

    hf_device_map: ClassVar[dict[str, str]] = {"": "cpu"}

    def forward(self) -> SimpleNamespace:
        """Returns a loss of 0, for methods of ``peft`` that add to one."""
        device = next(self.parameters()).device
        return SimpleNamespace(loss=torch.zeros((), device=device))


class _LayerHook(SiteHook):
    """Lets a layer of ``peft`` act on what the backbone made."""

    def __init__(self, layer: nn.Module, place: FrozenMap) -> None:
        self._layer, self._place = layer, place

    @property
    def acts_by_token(self) -> bool:
        """See `SiteHook`."""
        return not self._draws

    @property
    def _draws(self) -> bool:
        """Whether dropout is active."""
        return any(isinstance(one, nn.Dropout) and one.p and one.training for one in self._layer.modules())

    def __call__(self, inputs: Tensor, output: Tensor, info: ForwardInfo) -> Tensor:
        return self._apply(inputs, output)

    def _apply(self, inputs: Tensor, output: Tensor) -> Tensor:
        self._place.output = output
        try:
            changed: Tensor = self._layer(inputs)
        finally:
            self._place.output = None
        return changed.to(output.dtype)

    def fold(self, linear: LinearMap) -> LinearMap | None:
        """Returns what the layer makes of a map, asked of the layer itself; None while dropout is active.

        Without dropout a layer is linear in the input and the output that it is given together: the changed matrix is
        what it makes of the unit vectors, and a bias of what it makes of 0.
        """
        if self._draws:
            return None
        bias, own, dtype = linear.bias, self._place.bias, linear.weight.dtype
        eye = torch.eye(self._place.in_features, device=linear.weight.device)
        nothing = eye.new_zeros(1, self._place.in_features)
        self._place.is_whole = False
        try:
            weight = self._apply(eye, linear.weight.T.float()).T
            if bias is not None:  # what the layer knows to be the bias, it leaves as it is
                kept = torch.zeros_like(bias) if own is None else own
                bias = (kept + self._apply(nothing, (bias - kept).float()[None])[0]).to(dtype)
            narrow = tuple(
                NarrowMap(part.reduce, self._expand(part.expand, nothing).to(dtype)) for part in linear.narrow
            )
        finally:
            self._place.is_whole = True
        return replace(linear, weight=weight.to(dtype), bias=bias, narrow=narrow)

    def _expand(self, expand: Tensor, nothing: Tensor) -> Tensor:
        """Returns what the layer makes of the outputs (outputs, narrow) of something else."""
        return self._apply(nothing.expand(expand.shape[1], -1), expand.T.float()).T


class PeftTuner(Tuner):
    """Any method of ``peft`` that puts a layer around a linear map and adds to, or rescales, its output.

    Attributes:
        layers: One layer of ``peft`` a place, by the place's name.
    """

    config: PeftSettings
    changes_in_place: ClassVar[bool] = False

    def __init__(self, config: PeftSettings, context: TunerContext) -> None:
        """Makes a layer for every place that the settings name."""
        super().__init__(config, context)
        sites = choose_sites(config.sites, context.shape)
        with private_draws(seed=0):
            self.layers, self._library = self._build(sites, context)
        self._hooks: dict[Site, SiteHook] = {}
        for site in sites:
            layer: Any = self.layers[site.key]
            self._hooks[site] = _LayerHook(layer, layer.get_base_layer())

    def _build(self, sites: list[Site], context: TunerContext) -> tuple[Places, tuple[Any]]:
        """Returns ``peft``'s layers and, in a tuple that hides it from torch, its model around them."""
        places = Places({site.key: self._place(site, context) for site in sites})
        settings = getattr(peft, self.config.library)(target_modules=list(places), **self.config.arguments)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what it does with models of transformers
            library = peft.get_peft_model(places, settings)
        return places, (library,)

    def _place(self, site: Site, context: TunerContext) -> FrozenMap:
        weight, bias = context.weight, context.bias
        assert weight is not None  # every backbone gives its matrices
        return FrozenMap(
            context.sites[site],
            lambda: weight(site),
            lambda: None if bias is None else bias(site),
            copies=self.changes_in_place,
        )

    @property
    def library(self) -> Any:
        """The model of ``peft`` around the layers."""
        return self._library[0]

    @property
    def _trained(self) -> tuple[nn.Parameter, ...]:
        return tuple(parameter for parameter in self.layers.parameters() if parameter.requires_grad)

    @torch.no_grad()
    def reset_parameters(self, context: TunerContext) -> None:
        """Sets what ``peft`` starts from, its draws made by the seed alone."""
        with private_draws(context.seed), torch.device("cpu"):
            fresh, _ = self._build(list(self._hooks), context)
        self.layers.load_state_dict(fresh.state_dict())

    def frozen_state(self) -> dict[str, Tensor]:
        """Returns nothing: what a layer has of frozen tensors is drawn by the seed."""
        return {}

    def site_hooks(self) -> Mapping[Site, SiteHook]:
        """Returns the layers."""
        return self._hooks

    def param_groups(self, own: Mapping[str, nn.Parameter]) -> list[ParamGroup]:
        """Returns the one group, called after the method."""
        return [ParamGroup(self.config.name, self._trained, self.config.lr)]

    def facts(self) -> dict[str, Fact]:
        """Returns the rank and how many places have a layer."""
        return {"r": self.config.shown_rank, "sites": len(self._hooks)}


@contextmanager
def private_draws(seed: int) -> Iterator[None]:
    """Lets a library that draws from torch's own generator on the CPU do so by a seed, and leaves that as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
