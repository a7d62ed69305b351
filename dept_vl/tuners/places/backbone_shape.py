"""What a method's settings are checked against: a backbone before it is loaded. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from dept_vl.tuners.places.sites import Site, StackName


@dataclass(frozen=True)
class BackboneShape:
    """What follows from a backbone's ``config.json``.

    Attributes:
        d_model: Its width.
        sites: The places where methods can act, from the first layer to the last.
        narrow_widths: Widths that blocks beside it have a fraction of, by the names they have in
            `dept_vl.tuners.layers.side_network.NarrowBlocks`; empty for a family without such blocks.
    """

    d_model: int
    sites: tuple[Site, ...] = ()
    narrow_widths: Mapping[str, int] = field(default_factory=dict)

    @property
    def has_encoder(self) -> bool:
        """Whether it reads the source in a stack of its own (T5)."""
        return "encoder" in self.depths

    @cached_property
    def depths(self) -> dict[StackName, int]:
        """How many blocks each stack has."""
        depths: dict[StackName, int] = {}
        for site in self.sites:
            if site.layer is not None:
                depths[site.stack] = max(depths.get(site.stack, 0), site.layer + 1)
        return depths
