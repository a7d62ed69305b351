"""What a method does at one place inside the backbone, and what linear map a place becomes by it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from dept_vl.tuners.forward_info import ForwardInfo
from dept_vl.tuners.places.sites import Site


@dataclass(frozen=True)
class NarrowMap:
    """U f(x) beside a linear map, where f has few outputs and need not be linear: LoRA's A dropout(x).

    Attributes:
        reduce: f, from (..., inputs) to (..., narrow).
        expand: U, (outputs, narrow).
    """

    reduce: Callable[[Tensor], Tensor]
    expand: Tensor


@dataclass(frozen=True)
class LinearMap:
    """W x + b, and narrow maps of the same input added to it.

    Attributes:
        weight: W, (outputs, inputs).
        bias: b, (outputs,), or None.
        narrow: What is added.
    """

    weight: Tensor
    bias: Tensor | None = None
    narrow: tuple[NarrowMap, ...] = ()

    def __call__(self, inputs: Tensor) -> Tensor:
        """Returns (..., outputs)."""
        output = nn.functional.linear(inputs, self.weight, self.bias)
        for narrow in self.narrow:
            output = output + nn.functional.linear(narrow.reduce(inputs), narrow.expand)
        return output


class SiteHook(ABC):
    """What a method does at one place of the backbone.

    Attributes:
        acts_before: Whether `before` changes what goes in.
        acts_by_token: Whether it makes of a token the same in every row, whatever stands around it, so that what rows
            have in common may be read once for all (`dept_vl.models.language.shared_prompt`). Not while dropout draws.
    """

    acts_before: bool = False

    @property
    def acts_by_token(self) -> bool:
        """See the class."""
        return False

    def before(self, inputs: Tensor, info: ForwardInfo) -> Tensor:
        """Returns what goes into the place instead of `inputs`; see `acts_before`."""
        return inputs

    @abstractmethod
    def __call__(self, inputs: Tensor, output: Tensor, info: ForwardInfo) -> Tensor | None:
        """Returns what comes out there instead of `output`, or None to leave it.

        Args:
            inputs: What went in, (..., inputs of the site), as `before` left it.
            output: What the backbone made of it, (..., outputs of the site).
            info: The forward pass.
        """

    def fold(self, linear: LinearMap) -> LinearMap | None:
        """Returns what a map becomes by this hook, in every detail; None if it is no such map any more.

        A hook with `acts_before` that folds changes the input alone.

        A backbone may then compute with the map instead of calling module and hook
        (`dept_vl.models.language.cross_attention`).
        """
        return None


class HookChain(SiteHook):
    """Several hooks at one place, one after the other.

    What changes the input does so first, whatever its place in the order: the others see the input as it left it.
    """

    def __init__(self, hooks: Sequence[SiteHook]) -> None:
        """Takes the hooks in their order."""
        flat = (each for hook in hooks for each in (hook._hooks if isinstance(hook, HookChain) else (hook,)))
        self._hooks: tuple[SiteHook, ...] = tuple(flat)
        self._early = tuple(hook for hook in self._hooks if hook.acts_before)
        self.acts_before = bool(self._early)

    @property
    def acts_by_token(self) -> bool:
        """Whether all of them do."""
        return all(hook.acts_by_token for hook in self._hooks)

    def before(self, inputs: Tensor, info: ForwardInfo) -> Tensor:
        """Lets each hook change the input as the one before it left it."""
        for hook in self._early:
            inputs = hook.before(inputs, info)
        return inputs

    def __call__(self, inputs: Tensor, output: Tensor, info: ForwardInfo) -> Tensor:
        """Lets each hook have what the one before it left."""
        for hook in self._hooks:
            changed = hook(inputs, output, info)
            output = output if changed is None else changed
        return output

    def fold(self, linear: LinearMap) -> LinearMap | None:
        """Folds one hook after the other; None as soon as one cannot be."""
        folded: LinearMap | None = linear
        late = [hook for hook in self._hooks if not hook.acts_before]
        for hook in (*late, *reversed(self._early)):
            folded = None if folded is None else hook.fold(folded)
        return folded


def merge_hooks(*sides: Mapping[Site, SiteHook]) -> dict[Site, SiteHook]:
    """Returns the hooks of several sides, those at one place in a chain."""
    merged: dict[Site, list[SiteHook]] = {}
    for side in sides:
        for site, hook in side.items():
            merged.setdefault(site, []).append(hook)
    return {site: hooks[0] if len(hooks) == 1 else HookChain(hooks) for site, hooks in merged.items()}
