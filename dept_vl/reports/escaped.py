"""Templates of pages, in which what data say is text and nothing else."""

from __future__ import annotations

from typing import Any


def escaped_template(folder: str, name: str) -> Any:
    """Returns a template of jinja2, which escapes whatever it is given; a name that it lacks is an error.

    Args:
        folder: Below the package's ``assets``.
        name: Of the file.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("dept_vl", f"assets/{folder}")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(name)
