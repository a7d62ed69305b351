"""Prints the lowest release that pyproject.toml allows of each dependency, as constraints for pip.

python .ci/floor_pins.py > floors.txt
"""

from __future__ import annotations

import sys
from pathlib import Path

from check_floors import floors


def main() -> None:
    """Prints a pin a line; a dependency without a floor is left to pip."""
    for name, floor in floors(Path(__file__).resolve().parents[1] / "pyproject.toml", is_together=True).items():
        if floor is not None:
            sys.stdout.write(f"{name}=={floor}\n")


if __name__ == "__main__":
    main()
