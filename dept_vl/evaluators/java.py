"""What needs Java: finding it, and saying how to install it where it is not."""

from __future__ import annotations

import shutil

from dept_vl.errors import ConfigError


def require_java(purpose: str, instead: str) -> str:
    """Returns the path of the ``java`` program.

    Args:
        purpose: What needs it, for the message: ``"METEOR"``.
        instead: What works without it, for the message.

    Raises:
        ConfigError: There is no ``java`` on the PATH; the message says how to install it.
    """
    java = shutil.which("java")
    if java is None:
        raise ConfigError(
            f"{purpose} needs Java, and there is no `java` on the PATH. Install a Java runtime (Debian and "
            "Ubuntu: `apt-get install default-jre-headless`; conda: `conda install -c conda-forge openjdk`; "
            f"macOS: `brew install openjdk`), or {instead}"
        )
    return java
