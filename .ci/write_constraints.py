"""Prints what is installed beside this Python as constraints for pip; `make constraints` runs it.

It wants the lowest Python that pyproject.toml allows: what runs there also installs on newer ones, not the other way.
"""

from __future__ import annotations

import platform
import re
import sys
import tomllib
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

LEFT_OUT = re.compile(r"dept-vl|pip|triton|(nvidia|cuda)-.*")
"""Names that get no line: ourselves, pip, and the CUDA wheels, which torch pins for each platform."""


def pins() -> list[str]:
    """Returns a pin for each installed package that is not left out, by name."""
    versions = {canonicalize_name(found.name): found.version for found in metadata.distributions()}
    return [f"{name}=={versions[name]}" for name in sorted(versions) if not LEFT_OUT.fullmatch(name)]


def main() -> int:
    """Prints the constraints and returns the exit code."""
    project = tomllib.loads((Path(__file__).resolve().parents[1] / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = SpecifierSet(project["requires-python"])
    below = f"{sys.version_info.major}.{sys.version_info.minor - 1}"
    if wanted.contains(below):
        sys.stderr.write(f"this is Python {platform.python_version()}: make constraints with the lowest of {wanted}\n")
        return 1
    sys.stdout.write(
        "# The versions that the tests pass with; `make install` takes these.\n"
        "# Made by `make constraints`: the newest releases that install together on "
        f"Python {platform.python_version()},\n"
        f"# {platform.system()} {platform.machine()}, on {datetime.now(UTC):%Y-%m-%d}. "
        "torch pins its CUDA wheels itself.\n"
    )
    sys.stdout.write("".join(f"{pin}\n" for pin in pins()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
