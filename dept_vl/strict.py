"""How every dataclass that is read from a file or a command line is checked. Importing this imports no torch."""

from pydantic import ConfigDict

STRICT = ConfigDict(extra="forbid", validate_default=True, allow_inf_nan=False)
"""No unknown fields, defaults checked too, no number that is infinite or NaN."""

MAX_SIZE = 1_000_000
"""Cap on lengths and ranks, far above any real one: a slip of the keyboard fails here and not in the allocator."""
