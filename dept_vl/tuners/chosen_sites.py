"""The places that a method's settings name, in the backbone at hand."""

from __future__ import annotations

from collections.abc import Sequence

from dept_vl.errors import ConfigError
from dept_vl.tuners.context import TunerContext
from dept_vl.tuners.sites import LINEAR_PARTS, LinearChoice, Site


def choose_linear(parts: Sequence[LinearChoice], context: TunerContext) -> list[Site]:
    """Returns the linear maps that ``tuner.sites`` names, from the first layer to the last.

    Raises:
        ConfigError: A part that the backbone does not have; those that it has are named.
    """
    linear = [site for site in context.sites if site.part in LINEAR_PARTS]
    there = {site.part for site in linear}
    wanted: set[str] = set()
    for part in parts:
        found: set[str] = there & {part.replace("attn.", "self_attn."), part.replace("attn.", "cross_attn.")}
        if part in there:
            found = {part}
        if not found:
            known = ", ".join(sorted(there)) or "none"
            raise ConfigError(f"tuner.sites: this backbone has no {part!r} (it has: {known})")
        wanted |= found
    return [site for site in linear if site.part in wanted]
