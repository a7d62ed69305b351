"""What the settings of every method have in common. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, ClassVar

from pydantic.dataclasses import dataclass

from dept_vl.errors import ConfigError
from dept_vl.strict import STRICT
from dept_vl.system.extras import require_extra
from dept_vl.tuners.context import TunerContext
from dept_vl.tuners.places.backbone_shape import BackboneShape

Recipe = Mapping[str, Mapping[str, Any]]
"""Settings of a run, nested as in a file: ``{"optim": {"weight_decay": 0.0}}``."""


@dataclass(frozen=True, config=STRICT)
class TunerSettings:
    """The settings of a method: a field `name` of its own and what its numbers depend on.

    A setting whose name ends in ``lr`` is a peak learning rate: it decides how tensors are trained and not what they
    mean, so an adapter fits whatever it was. `lr` is that of the method's first group. The length of a soft prompt
    is called `num_virtual_tokens`.

    Attributes:
        name: What ``--tuner`` takes.
        implementation: ``module:Class`` of the `Tuner`, imported when one is built.
        reference: What a model card cites for it.
        recipe: Settings of a run that are not the method's and of which it has defaults of its own. They lie over the
            defaults of the fields and below everything that is given (`dept_vl.tuners.recipes`). Empty: the fields'
            defaults, which are those of Table 10 of the DePT paper.
        recipe_source: Where those settings come from, or why the fields' defaults are the method's own.
        has_norm_biases: Whether the norms of the visual projection get biases, as those of the backbone do.
        needs_encoder: Whether the method has no place in a decoder-only model.
        needs_tasks: Whether it is made for several tasks trained together, and has no meaning for one.
        needs_backbone_gradient: Whether its gradients come through the backbone. A method that has a network beside it
            (`Tuner.side_network`) does without, and nothing else is trained with it.
        extra: The extra of this package that brings what computes it (`dept_vl.system.extras`); None for the package.
        can_train: Whether a run can be started with it.
        has_tensors: Whether it trains anything beside the visual projection.
        unfoldable: Why neither plain weights nor a plain prompt can do what it does, where that is known from the
            settings; None where the `Tuner` says.
        reads_weights: Whether it reads the frozen matrices in every forward pass, which must then be whole.
    """

    implementation: ClassVar[str]
    reference: ClassVar[str]
    recipe: ClassVar[Recipe] = {}
    recipe_source: ClassVar[str] = ""
    has_norm_biases: ClassVar[bool] = False
    needs_encoder: ClassVar[bool] = False
    needs_tasks: ClassVar[bool] = False
    needs_backbone_gradient: ClassVar[bool] = True
    extra: ClassVar[str | None] = None
    can_train: ClassVar[bool] = True
    has_tensors: ClassVar[bool] = True
    unfoldable: ClassVar[str | None] = None
    reads_weights: ClassVar[bool] = False
    name: str

    @property
    def references(self) -> tuple[str, ...]:
        """What a model card cites for it, one text a method."""
        return (self.reference,)

    @property
    def label(self) -> str:
        """What a run folder is called after."""
        return self.name

    def as_source_of(self, target: TunerSettings, context: TunerContext, max_source_length: int) -> TunerSettings:
        """Returns these settings as those of a run that another will start from: sizes they leave open are its.

        A method whose sizes follow from the text's length overrides this.

        Args:
            target: The settings of the run that will start from this one.
            context: Its backbone and text length.
            max_source_length: This run's text length, tokens.

        Raises:
            ConfigError: The target's settings do not fit its backbone.
        """
        return self

    def check_packages(self) -> None:
        """Refuses a method whose package is not there, without importing it.

        Raises:
            ConfigError: It is not installed; the message says how to get it.
        """
        if self.extra is not None:
            require_extra(self.extra, f"tuner.name: {self.name!r}")

    def check_tasks(self, tasks: Sequence[str]) -> None:
        """Refuses a run of one task where the method is made for several.

        Raises:
            ConfigError: As said.
        """
        if self.needs_tasks and len(tasks) < 2:
            raise ConfigError(
                f"tuner.name: {self.label!r} shares what several tasks have in common, and the run has one task; name "
                "several (--task rte+cola), or take another method"
            )

    def check_backbone(self, shape: BackboneShape) -> None:
        """Refuses a backbone that has no place for the method, before and after it is loaded.

        A method whose settings name places, or whose sizes follow from the backbone's, overrides this.

        Raises:
            ConfigError: As said.
        """
        if self.needs_encoder and not shape.has_encoder:
            raise ConfigError(
                f"tuner.name: {self.name!r} acts in an encoder, and the backbone is decoder-only; take a T5 for it, or "
                "another method"
            )

    def prompt_length(self, d_model: int, max_source_length: int) -> int:
        """Returns how many vectors stand before the text: `num_virtual_tokens` where there is such a setting, or 0.

        Args:
            d_model: Width of the backbone.
            max_source_length: Longest text, tokens.

        Raises:
            ConfigError: A method whose prompt follows from those finds none.
        """
        return int(getattr(self, "num_virtual_tokens", 0))

    def empty(self, context: TunerContext) -> Any:
        """Builds the `Tuner` with tensors of the right shapes and no set values, on the default device (or meta).

        Raises:
            ConfigError: The settings do not fit the backbone.
        """
        self.check_tasks(context.tasks)
        self.check_packages()
        self.check_backbone(context.shape)
        module, name = self.implementation.split(":")
        return getattr(import_module(module), name)(self, context)

    def build(self, context: TunerContext) -> Any:
        """Builds the `Tuner` at its first values.

        Raises:
            ConfigError: As `empty`, or the first values cannot be had.
        """
        tuner = self.empty(context)
        tuner.reset_parameters(context)
        return tuner


def is_rate(key: str) -> bool:
    """Returns whether a setting, by its dotted key, is a learning rate."""
    return key.rsplit(".", 1)[-1].endswith("lr")


def without_rates(settings: dict[str, Any]) -> dict[str, Any]:
    """Returns nested settings without their learning rates."""
    return {
        key: without_rates(value) if isinstance(value, dict) else value
        for key, value in settings.items()
        if not is_rate(key)
    }
