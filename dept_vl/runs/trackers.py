"""Services that show what a run measures: Weights & Biases and Trackio as callbacks. No torch until a run starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dept_vl.errors import ConfigError
from dept_vl.registry import suggest
from dept_vl.runs.callbacks import Callback
from dept_vl.settings.schema import TrainConfig
from dept_vl.system.extras import is_installed, require_extra

TENSORBOARD = "tensorboard"
"""The tracker that writes to a folder of the run, and that folder's name; `dept_vl.runs.log` has it."""

SERVICES = ("wandb", "trackio")
"""Those that have a place of their own, each an extra of its name."""


class Tracker(Callback):
    """Sends every line of ``metrics.jsonl`` to a service, from the main process of a launch.

    One may be given to several runs in turn: each is a run of its own there, and so is one that is resumed, unless the
    service's own options say otherwise (wandb: ``id`` and ``resume``).

        train(config, data_dir, callbacks=[Tracker("wandb", project="mine", tags=["first"])])
    """

    def __init__(
        self,
        service: str,
        *,
        project: str = "dept-vl",
        name: str | None = None,
        **options: Any,
    ) -> None:
        """Checks that the service's package is there; nothing is started or sent before a run is.

        Args:
            service: ``"wandb"`` or ``"trackio"``.
            project: What the service files runs under.
            name: The run's name there; None for that of its folder.
            options: What else the service's own ``init`` takes, such as wandb's ``tags`` and ``config``.

        Raises:
            ConfigError: There is no such service, or its package is not installed.
        """
        if service not in SERVICES:
            raise ConfigError(
                f"Tracker: unknown service {service!r}{suggest(service, SERVICES)} (known: {', '.join(SERVICES)})"
            )
        require_extra(service, f"Tracker({service!r})")
        self.service, self.project, self.name, self.options = service, project, name, options
        self._running: Any = None

    def on_start(self, config: TrainConfig, run_dir: Path) -> None:
        """Begins the run there.

        Raises:
            ConfigError: The service does not start: it wants to be logged in to, say, or does not know an option.
        """
        from dept_vl.system.processes import process_state

        if process_state().is_main_process:
            name = self.name or run_dir.name
            try:
                self._running = start_tracker(self.service, self.project, name=name, **self.options)
            except Exception as error:  # whatever a service's client raises: no account, no network
                raise ConfigError(f"tracker {self.service!r} does not start: {error}") from error

    def on_log(self, config: TrainConfig, step: int, values: Mapping[str, float]) -> None:
        """Sends a line."""
        if self._running:
            self._running.log(dict(values), step=step)

    def on_end(self, config: TrainConfig, run_dir: Path) -> None:
        """Ends the run there."""
        if self._running:
            self._running.finish()
            self._running = None


def chosen_trackers(asked: Sequence[str] | None) -> list[str]:
    """Returns the trackers of ``loop.trackers``: those named, or TensorBoard where it is installed.

    Raises:
        ConfigError: One that is named is not installed.
    """
    if asked is None:
        return [TENSORBOARD] if is_installed(TENSORBOARD) else []
    for name in asked:
        require_extra(name, f"loop.trackers: {name!r}")
    return list(dict.fromkeys(asked))


def start_tracker(kind: str, /, *arguments: Any, **options: Any) -> Any:
    """Starts one of accelerate's trackers, made with some arguments.

    Raises:
        ConfigError: accelerate has none of that kind; others are the tracker's own.
    """
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    if kind not in LOGGER_TYPE_TO_CLASS:
        raise ConfigError(f"the accelerate installed here has no tracker {kind!r}; install a newer one")
    tracker = LOGGER_TYPE_TO_CLASS[kind](*arguments, **options)
    tracker.start()
    return tracker
