"""constraints.txt names a version for every dependency, within the range that pyproject.toml declares."""

from __future__ import annotations

import tomllib
from itertools import chain
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]


def test_every_dependency_is_pinned_within_its_range():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for text in chain(project["dependencies"], *project["optional-dependencies"].values()):
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        if name != project["name"]:
            assert name in pins, f"{name} has no line in constraints.txt; run `make constraints`"
            assert requirement.specifier.contains(pins[name]), f"{text}, but constraints.txt has {pins[name]}"
