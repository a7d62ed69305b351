"""Which places of a backbone a method's settings name. No torch."""

from __future__ import annotations

from collections.abc import Sequence

from dept_vl.errors import ConfigError
from dept_vl.tuners.places.backbone_shape import BackboneShape
from dept_vl.tuners.places.sites import LINEAR_PARTS, Site


def choose_sites(parts: Sequence[str], shape: BackboneShape, layers: Sequence[int] | None = None) -> list[Site]:
    """Returns the linear maps that settings name, from the first layer to the last.

    Args:
        parts: What they are in their layer; ``attn.q`` is q of every attention, self and cross.
        shape: The backbone's.
        layers: The blocks, of every stack that has them; None for all.

    Raises:
        ConfigError: A part or a block that the backbone does not have; those that it has are named.
    """
    linear = [site for site in shape.sites if site.part in LINEAR_PARTS]
    there = {site.part for site in linear}
    wanted: set[str] = set()
    for part in parts:
        found = there & {part, part.replace("attn.", "self_attn."), part.replace("attn.", "cross_attn.")}
        found = {part} if part in there else found
        if not found:
            known = ", ".join(sorted(there)) or "none"
            raise ConfigError(f"tuner.sites: this backbone has no {part!r} (it has: {known})")
        wanted |= found
    if layers is None:
        return [site for site in linear if site.part in wanted]
    _check_layers(layers, shape)
    chosen = [site for site in linear if site.part in wanted and site.layer in layers]
    if not chosen:
        raise ConfigError(
            f"tuner.sites: this backbone has no {' or '.join(map(repr, parts))} in block "
            f"{', '.join(map(str, layers))}; its decoder and encoder are not equally deep: name other blocks"
        )
    return chosen


def _check_layers(layers: Sequence[int], shape: BackboneShape) -> None:
    """Refuses blocks that no stack has.

    Raises:
        ConfigError: It names them, and how many there are.
    """
    lacking = sorted({layer for layer in layers if layer >= max(shape.depths.values())})
    if lacking:
        there = " and ".join(f"{depth} in its {stack} (0 to {depth - 1})" for stack, depth in shape.depths.items())
        raise ConfigError(
            f"tuner.layers: this backbone has no block {', '.join(map(str, lacking))}; it has {there}; name those"
        )
