"""The extras that messages name are those of pyproject.toml."""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement

from dept_vl.system.extras import EXTRAS

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]


def test_every_extra_brings_what_its_message_names():
    declared, always = PROJECT["optional-dependencies"], {Requirement(text).name for text in PROJECT["dependencies"]}
    for extra, packages in EXTRAS.items():
        brought = {Requirement(text).name for text in declared[extra]} - always  # of those it may need a later one
        assert brought == set(packages)


def test_what_an_extra_brings_is_no_dependency_of_all():
    always = {Requirement(text).name for text in PROJECT["dependencies"]}
    assert not always & {package for packages in EXTRAS.values() for package in packages}
