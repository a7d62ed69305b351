"""`load_backbone` under its earlier public name; it lies in `dept_vl.models.language.load`."""

from dept_vl.models.language.load import load_backbone

__all__ = ["load_backbone"]
