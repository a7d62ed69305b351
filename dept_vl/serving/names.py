"""What an adapter is called by the requests of a server. No torch."""

from __future__ import annotations

import re
from pathlib import Path

from dept_vl.errors import ConfigError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")


def split_word(word: str) -> tuple[str | None, str]:
    """Returns name and run of ``NAME=RUN``; a folder that has the sign in its own name is a run."""
    name, sign, run = word.partition("=")
    if not sign or "/" in name or Path(word).exists():
        return None, word
    return name, run


def name_of(run: str) -> str:
    """Returns the last part of a folder or hub id."""
    return run.partition("@")[0].rstrip("/").rpartition("/")[2] if not Path(run).exists() else Path(run).resolve().name


def check_name(name: str, folder: Path) -> None:
    """Refuses what is no name for an adapter.

    Args:
        name: As requests are to name it.
        folder: The adapter's, for the message.

    Raises:
        ConfigError: It has other characters, or too many.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{folder}: {name!r:.140} is no name for an adapter: letters, digits and ._+- are, 128 at most, and the "
            f"first is a letter or digit; give one: NAME={folder}"
        )
