"""constraints.txt names a version for every dependency of the tests, within the range that pyproject.toml declares."""

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
    services = ("trackio", "wandb")  # what the tests do without: newest releases of these are not pinned
    extras = (texts for extra, texts in project["optional-dependencies"].items() if extra not in services)
    for text in chain(project["dependencies"], *extras):
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        if name != project["name"]:
            assert name in pins, f"{name} has no line in constraints.txt; run `make constraints`"
            assert requirement.specifier.contains(pins[name]), f"{text}, but constraints.txt has {pins[name]}"
