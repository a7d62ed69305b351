"""The version of the package, which what it writes records."""

__version__ = "0.1.0"
