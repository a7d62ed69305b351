"""A model inside which methods act, for as long as a block lasts: where, and what acts now."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from dept_vl.models.language.extra_keys import Attention, Packing, Reading, reading
from dept_vl.models.language.places import Place, hook_places
from dept_vl.tuners.forward_info import ForwardInfo
from dept_vl.tuners.layers.side_network import SideNetwork
from dept_vl.tuners.places.extra_keys import ExtraKeys, merge_extra_keys
from dept_vl.tuners.places.hooks import SiteHook
from dept_vl.tuners.places.sites import Site


@dataclass(frozen=True)
class _Hooked:
    """What acts inside the model now.

    Attributes:
        hooks: By their place.
        extra_keys: By their attention.
        side_network: What stands beside it.
        info: What every hook is told; None without hooks.
        packing: How rows are packed (`Reading`).
    """

    hooks: Mapping[Site, SiteHook] = field(default_factory=dict)
    extra_keys: Mapping[Site, ExtraKeys] = field(default_factory=dict)
    side_network: SideNetwork | None = None
    info: ForwardInfo | None = None
    packing: Packing | None = None


class HookedModel(nn.Module, ABC):
    """A model with places for hooks, attentions for extra keys, and room for a side network.

    Attributes:
        model: The transformers model.
        recomputes_activations: Whether gradient checkpointing is on.
    """

    model: Any
    recomputes_activations = False
    _hooked: _Hooked | None = None

    @abstractmethod
    def find_places(self) -> Iterator[tuple[Site, Place]]:
        """Yields every place where a method can act, from the first layer to the last.

        Each is a module that every use of the model calls, `dept_vl.models.language.cross_attention` excepted.
        """

    @abstractmethod
    def find_attentions(self) -> Iterator[tuple[Site, Attention]]:
        """Yields every attention, from the first layer to the last."""

    @cached_property
    def places(self) -> dict[Site, Place]:
        """Every place where a method can act, in order."""
        return dict(self.find_places())

    @cached_property
    def attentions(self) -> dict[Site, Attention]:
        """Every attention, in order."""
        return dict(self.find_attentions())

    @contextmanager
    def hooked(
        self,
        hooks: Mapping[Site, SiteHook],
        info: ForwardInfo,
        extra_keys: Mapping[Site, ExtraKeys] | None = None,
        side_network: SideNetwork | None = None,
    ) -> Iterator[None]:
        """Lets hooks, extra keys and a side network act on the model for the block, and leaves it as it was.

        Args:
            hooks: By their place; all of them in `places`.
            info: What every hook is told of the forward pass.
            extra_keys: By their attention; all of them in `attentions`.
            side_network: What stands beside the model, for a family that has `narrow_blocks`.
        """
        extra_keys = extra_keys or {}
        if not hooks and not extra_keys and side_network is None:
            yield
            return
        with self._acting(_Hooked(hooks, extra_keys, side_network, info)):
            yield

    @contextmanager
    def attending(
        self,
        *,
        extra_keys: Mapping[Site, ExtraKeys] | None = None,
        packing: Packing | None = None,
        made: dict[nn.Module, tuple[Tensor, Tensor]] | None = None,
    ) -> Iterator[None]:
        """Lets attentions read in another way for the block, beside what acts on the model already.

        Args:
            extra_keys: What they read further, by their attention.
            packing: How rows are packed; all attentions then read them so.
            made: Where all attentions put down their own keys and values.
        """
        now = self._hooked or _Hooked()
        merged = merge_extra_keys(now.extra_keys, extra_keys or {})
        with self._reading(replace(now, extra_keys=merged, packing=packing), made):
            yield

    @contextmanager
    def _acting(self, hooked: _Hooked) -> Iterator[None]:
        with ExitStack() as stack:
            if hooked.info is not None:
                hooks = {self.places[site]: hook for site, hook in hooked.hooks.items()}
                for handle in hook_places(hooks, hooked.info):
                    stack.callback(handle.remove)
            stack.enter_context(self._reading(hooked))
            yield

    @contextmanager
    def _reading(self, hooked: _Hooked, made: dict[nn.Module, tuple[Tensor, Tensor]] | None = None) -> Iterator[None]:
        """Lets attentions read as what acts wants it; its hooks are on the model already."""
        concerned = self.attentions if hooked.packing or made is not None else hooked.extra_keys
        each = {
            self.attentions[site].module: Reading(hooked.extra_keys.get(site), hooked.packing, made)
            for site in concerned
        }
        before, self._hooked = self._hooked, hooked
        with reading(each):
            try:
                yield
            finally:
                self._hooked = before

    @property
    def acts_by_token(self) -> bool:
        """Whether what acts on the model now makes of a token the same in every row, whatever stands around it."""
        now = self._hooked or _Hooked()
        has_common_keys = all(len(extra.keys) == 1 for extra in now.extra_keys.values())
        return now.side_network is None and has_common_keys and all(hook.acts_by_token for hook in now.hooks.values())

    @property
    def is_acted_on(self) -> bool:
        """Whether anything acts inside the model now."""
        return self._hooked is not None

    def hook_at(self, site: Site) -> SiteHook | None:
        """Returns what acts at a place now."""
        return None if self._hooked is None else self._hooked.hooks.get(site)

    @property
    def side_network(self) -> SideNetwork | None:
        """What stands beside the model now."""
        return None if self._hooked is None else self._hooked.side_network

    def recompute_activations(self) -> None:
        """Switches gradient checkpointing on: activations of the (first) stack are made again in the backward pass.

        Backward comes after the block of `hooked`, so the hooks of the forward pass are put on again for it.
        """
        # transformers renamed the method after 5.17; the old name warns where the new one exists.
        old: Callable[..., None] = self.model.gradient_checkpointing_enable
        enable = getattr(self.model, "activation_checkpointing_enable", old)
        enable({"use_reentrant": False, "context_fn": self._checkpoint_contexts})
        self.recomputes_activations = True

    def _checkpoint_contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """Returns what surrounds a block's forward pass, and its recomputation."""
        return nullcontext(), self._hooked_again(self._hooked)

    @contextmanager
    def _hooked_again(self, hooked: _Hooked | None) -> Iterator[None]:
        if hooked is None or hooked is self._hooked:  # nothing acted, or its block is still open
            yield
            return
        # In a block that is still open, the hooks are on the model, and only what attentions read is another.
        with self._reading(hooked) if self._hooked is not None else self._acting(hooked):
            yield
