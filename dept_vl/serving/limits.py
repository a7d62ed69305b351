"""What a server takes at most, and how it batches. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dept_vl.errors import ConfigError


@dataclass(frozen=True)
class ServeLimits:
    """The numbers of a server; each is a flag of ``dept-vl serve``.

    Attributes:
        max_batch: Rows answered at once.
        max_wait_ms: How long a row waits for others to share its batch, in milliseconds.
        max_queue: Rows that wait; a further one gets status 429.
        image_cache: Images whose features are kept; 0 for none.
        max_body_mib: A request's body, in MiB.
        max_pixels: Width x height of an image.
        max_text: Characters of a request's text.
        allow_loading: Folder below which adapters may be loaded at run time; None: loading and unloading are off.
    """

    max_batch: int = 32
    max_wait_ms: float = 5.0
    max_queue: int = 256
    image_cache: int = 1024
    max_body_mib: float = 20.0
    max_pixels: int = 25_000_000
    max_text: int = 10_000
    allow_loading: Path | None = None

    def check(self) -> None:
        """Refuses numbers that make no server.

        Raises:
            ConfigError: One is too small, or the folder to load from is not there.
        """
        least = {
            "max_batch": 1, "max_wait_ms": 0, "max_queue": 1, "image_cache": 0, "max_pixels": 1, "max_text": 1,
        }  # fmt: skip
        for name, smallest in least.items():
            value = getattr(self, name)
            if not smallest <= value < float("inf"):
                raise ConfigError(f"--{name.replace('_', '-')}: should be a number from {smallest} on, got {value}")
        if not 0 < self.max_body_mib < float("inf"):
            raise ConfigError(f"--max-body-mib: should be a number above 0, got {self.max_body_mib}")
        if self.allow_loading is not None and not self.allow_loading.is_dir():
            raise ConfigError(f"--allow-loading: {self.allow_loading} is no folder")

    @property
    def max_body_bytes(self) -> int:
        """A request's body, in bytes."""
        return int(self.max_body_mib * 1024 * 1024)
