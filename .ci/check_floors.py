"""Compares the floors of pyproject.toml with the first releases that fix what is known. No network.

    python .ci/check_floors.py

Exit code 0 when every floor, and every installed version, is at least the fixed release; 1 with a line each otherwise.
"""

from __future__ import annotations

import sys
import tomllib
from importlib import metadata
from itertools import chain
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

FIXED = {
    "filelock": ("3.20.3", "CVE-2025-68146, CVE-2026-22701: a link planted at the lock's path is followed"),
    "pillow": (
        "12.3.0",
        "CVE-2023-4863 (WebP), CVE-2026-25990, CVE-2026-40192, CVE-2026-54059, CVE-2026-54060, CVE-2026-55379, "
        "CVE-2026-55380, CVE-2026-55798",
    ),
    "pyarrow": ("23.0.1", "CVE-2023-47248: code from Parquet and IPC files; CVE-2026-25087: use after free, IPC files"),
    "pydantic": ("2.4.0", "CVE-2024-3772: slow pattern"),
    "pyyaml": ("5.4", "CVE-2020-14343: code through full_load"),
    "scikit-learn": ("1.5.0", "CVE-2024-5206"),
    "sentencepiece": ("0.2.1", "CVE-2026-1260: memory access with a crafted model"),
    "starlette": ("0.49.1", "CVE-2024-47874: forms without end; CVE-2025-62727: a Range header of quadratic cost"),
    "timm": ("1.0.29", "a folder's pickle is read in place of the safetensors beside it"),
    "torch": ("2.10.0", "CVE-2025-32434 and CVE-2026-24747: the weights-only unpickler"),
    "tqdm": ("4.66.3", "CVE-2024-34062"),
    "transformers": (
        "5.10.0",
        "CVE-2026-1839, CVE-2026-4372 (code through config.json), CVE-2026-5241 (trust_remote_code from a file), "
        "CVE-2026-9856 (paths from a chat template)",
    ),
}
"""Package -> the first release without the flaws named."""


def floors(pyproject: Path, *, is_together: bool = False) -> dict[str, Version | None]:
    """Returns the lowest release that a project allows of each dependency, those of its extras included.

    Args:
        pyproject: The project's file.
        is_together: Of a dependency with several floors whether all extras are installed, and the highest one counts.
    """
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    found: dict[str, list[Version | None]] = {}
    for requirement in map(Requirement, chain(project["dependencies"], *project["optional-dependencies"].values())):
        lowest = [Version(part.version) for part in requirement.specifier if part.operator in (">=", "==", "~=")]
        found.setdefault(requirement.name.lower(), []).append(max(lowest, default=None))
    choose = max if is_together else min
    return {
        name: None if None in each else choose(one for one in each if one is not None) for name, each in found.items()
    }


def problems(declared: dict[str, Version | None]) -> list[str]:
    """Returns a line for each floor or installed version below the fixed release."""
    lines = []
    for name, (fixed, why) in FIXED.items():
        floor = declared.get(name)
        if floor is None or floor < Version(fixed):
            lines.append(f"{name}: the floor is {floor}, should be {fixed} ({why})")
        try:
            installed = Version(metadata.version(name))
        except metadata.PackageNotFoundError:
            continue
        if installed < max(Version(fixed), floor or Version(fixed)):
            lines.append(f"{name}: {installed} is installed, should be {max(Version(fixed), floor or Version(fixed))}")
    return lines


def main() -> int:
    """Prints what is wrong and returns the exit code."""
    found = problems(floors(Path(__file__).resolve().parents[1] / "pyproject.toml"))
    sys.stdout.write("".join(f"{line}\n" for line in found) or f"floors: {len(FIXED)} packages checked, none too low\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
