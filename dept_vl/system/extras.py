"""Optional packages: which extra brings them, and what is said where one is missing. Imports none of them."""

from __future__ import annotations

from importlib import metadata

from dept_vl.errors import ConfigError

EXTRAS = {
    "completion": ("shtab",),
    "optimizers": ("prodigyopt", "schedulefree"),
    "peft": ("peft",),
    "plots": ("matplotlib",),
    "report": ("jinja2", "matplotlib"),
    "serve": ("anyio", "httpx", "starlette", "uvicorn"),
    "smolvlm": ("num2words",),
    "sweep": ("optuna", "matplotlib"),
    "tensorboard": ("tensorboard",),
    "ui": ("anyio", "gradio", "jinja2", "starlette", "uvicorn"),
    "wandb": ("wandb",),
    "trackio": ("trackio",),
    "xlsx": ("openpyxl",),
}
"""Extra, as ``pip install 'dept-vl[sweep]'`` names it -> the packages it brings; their floors are in pyproject.toml."""


def is_installed(extra: str) -> bool:
    """Returns whether every package of an extra is there."""
    return not _missing(extra)


def require_extra(extra: str, what: str) -> None:
    """Refuses what needs an extra that is not installed.

    Args:
        extra: Its name.
        what: Who needs it, for the message.

    Raises:
        ConfigError: A package of it is missing.
    """
    missing = _missing(extra)
    if missing:
        raise ConfigError(
            f"{what} needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed; run: "
            f"pip install 'dept-vl[{extra}]' (in a checkout: pip install '.[{extra}]')"
        )


def _missing(extra: str) -> list[str]:
    missing = []
    for package in EXTRAS[extra]:
        try:
            metadata.version(package)
        except metadata.PackageNotFoundError:
            missing.append(package)
    return missing
