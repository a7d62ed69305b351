"""What a server is to serve, read from its runs' folders and refused where it cannot work. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dept_vl.errors import CheckpointError, ConfigError
from dept_vl.models.adapter.presence import read_settings, require_adapter
from dept_vl.models.language.stored import check_files
from dept_vl.runs.decoding import choose_decoding
from dept_vl.runs.folder import RUN_CONFIG_FILE, read_run_config
from dept_vl.runs.hub import find_run
from dept_vl.serving.names import check_name, name_of, split_word
from dept_vl.settings.load import load_config
from dept_vl.settings.own_encoder import has_own_image_encoder
from dept_vl.settings.schema import TrainConfig

_SHARED = ("backbone", "revision", "dtype", "dropout_rate", "gradient_checkpointing", "visual_position_bias")
"""Settings of the frozen backbone that all adapters of a server have as its first one."""

CheckPaths = Callable[[TrainConfig, Path], None]
"""Refuses paths of a run's settings that lead nowhere; it gets the settings and the run's folder."""


@dataclass(frozen=True)
class ServedRun:
    """A run that is to be served.

    Attributes:
        name: As requests name it.
        folder: The run's.
        config: Its settings, the frozen models those of the server's first run.
        backbone: What its adapter records of its backbone, by name.
    """

    name: str
    folder: Path
    config: TrainConfig
    backbone: Mapping[str, Any]


@dataclass(frozen=True)
class RunReader:
    """Reads runs that share one backbone: that of the first one it read.

    Attributes:
        settings: Dotted settings that are laid over those of every run.
        check_paths: See `CheckPaths`.
        first: The run whose backbone is that of all; None where the next one is to be it.
        others: The runs that are served already.
    """

    settings: Mapping[str, Any]
    check_paths: CheckPaths
    first: ServedRun | None = None
    others: tuple[ServedRun, ...] = ()

    def read(self, name: str, folder: Path) -> ServedRun:
        """Returns a run, ready to be loaded.

        Raises:
            ConfigError: The name is no name or is taken, a recorded path leads nowhere, or files of a frozen model are
                missing.
            CheckpointError: There is no run or adapter, it is of several tasks, or of another backbone than the first.
        """
        check_name(name, folder)
        taken = {one.name: one for one in self.others}
        if name in taken:
            raise ConfigError(
                f"two adapters are called {name!r}, {taken[name].folder} and {folder}; give one another name: NAME=RUN"
            )
        read_run_config(folder, "its folder or hub id")
        require_adapter(folder)
        first, settings = self.first, dict(self.settings)
        if first is not None:
            own = first.config
            settings |= {f"model.{key}": getattr(own.model, key) for key in _SHARED}
            settings["loop.precision"] = own.loop.precision
        backbone = _recorded_backbone(folder)
        if first is not None:
            _check_same_backbone(folder, backbone, first)
        config = load_config(folder / RUN_CONFIG_FILE, settings)
        if config.is_mix:
            raise CheckpointError(
                f"{folder}: was trained on {', '.join(config.task_names)} together, and a server answers with runs of "
                "one task"
            )
        seeing = next((one.config for one in self.others if one.config.uses_images), None)
        if seeing is not None and config.uses_images:
            config = replace(config, model=replace(config.model, image_encoder=seeing.model.image_encoder))
        self.check_paths(config, folder)
        _check_files(config)
        return ServedRun(name, folder, config, backbone)

    def and_also(self, run: ServedRun) -> RunReader:
        """Returns a reader that knows of one more run."""
        return replace(self, first=self.first or run, others=(*self.others, run))


def read_runs(words: Sequence[str], settings: Mapping[str, Any], check_paths: CheckPaths) -> list[ServedRun]:
    """Returns the runs of a command line, the first one's backbone being that of all.

    Args:
        words: Each a run's folder or hub id, or ``NAME=RUN``.
        settings: As `RunReader`.
        check_paths: As `RunReader`.

    Raises:
        ConfigError, CheckpointError: As `RunReader.read`.
    """
    reader = RunReader(settings, check_paths)
    for word in words:
        name, run = split_word(word)
        folder = find_run(run)
        reader = reader.and_also(reader.read(name or name_of(run), folder))
    return list(reader.others)


def _recorded_backbone(folder: Path) -> Mapping[str, Any]:
    """Returns what an adapter records of its backbone, without what is for people."""
    settings = read_settings(folder)
    backbone = settings.get("backbone") if isinstance(settings, dict) else None
    if not isinstance(backbone, dict):
        raise CheckpointError(f"{folder}: its adapter_config.json names no backbone")
    return {key: value for key, value in backbone.items() if key not in ("name", "revision")}


def _check_same_backbone(folder: Path, backbone: Mapping[str, Any], first: ServedRun) -> None:
    differing = [
        f"{key} {first.backbone[key]!r} and {value!r}"
        for key, value in sorted(backbone.items())
        if key in first.backbone and None not in (value, first.backbone[key]) and value != first.backbone[key]
    ]
    if differing:
        raise CheckpointError(
            f"{folder}: was trained on another backbone than {first.folder} ({'; '.join(differing)}); one server has "
            "one backbone, so serve it with another one"
        )


def _check_files(config: TrainConfig) -> None:
    """Refuses what would only be noticed once torch is there: files of frozen models, packages, how to answer."""
    choose_decoding(config, config.resolve_task())
    config.tuner.check_packages()
    check_files(config.model.backbone, config.model.revision)
    if config.uses_images and not has_own_image_encoder(config):
        config.model.image_encoder.check_files()
