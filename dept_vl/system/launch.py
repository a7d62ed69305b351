"""Whether this process is one of several that were launched together, without torch."""

from __future__ import annotations

import os

_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
"""What torchrun, ``accelerate launch`` and the MPIs that accelerate knows set; see accelerate's ``PartialState``."""


def is_one_of_several() -> bool:
    """Returns whether a launcher started more processes than this one."""
    return any(os.environ.get(name, "1") not in ("", "0", "1") for name in _SIZES)
