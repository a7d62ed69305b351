"""The extras that messages name are those of pyproject.toml."""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement

from dept_vl.system.extras import EXTRAS

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]


def test_every_extra_brings_what_its_message_names():
    declared = PROJECT["optional-dependencies"]
    for extra, packages in EXTRAS.items():
        assert {Requirement(text).name for text in declared[extra]} == set(packages)


def test_what_an_extra_brings_is_no_dependency_of_all():
    always = {Requirement(text).name for text in PROJECT["dependencies"]}
    assert not always & {package for packages in EXTRAS.values() for package in packages}
