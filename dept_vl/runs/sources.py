"""What lies outside a run's folder and may change beneath it: told when it starts, and compared when it goes on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dept_vl.data.manifest import hash_rows
from dept_vl.errors import CheckpointError, DataError
from dept_vl.models.adapted_model import AdaptedModel
from dept_vl.models.adapter.files import read_adapter_config
from dept_vl.models.adapter.fits import check_fits
from dept_vl.models.adapter.presence import ADAPTER_CONFIG_FILE, WEIGHTS_FILE, projection_source
from dept_vl.runs.folder import RECORD_FILE, RUN_CONFIG_FILE, read_record
from dept_vl.runs.hub import find_run
from dept_vl.settings.schema import TrainConfig

ROWS = "rows_sha256"
"""Key of `RECORD_FILE`: the sha256 of the rows of each split, of a task with rows of one's own."""

PROJECTION_WEIGHTS = "frozen_projection_weights_sha256"
"""Another: the sha256 of the weights file that the frozen projection was read from."""


def sources_record(config: TrainConfig, data_dir: Path) -> dict[str, Any]:
    """Returns what ``run.json`` says of what may change beneath a run: rows of one's own, and a frozen projection.

    Raises:
        DataError: A split is not prepared, or damaged.
        CheckpointError: As `projection_source`.
    """
    task = config.each_task()[0].resolve_task()  # several are none of one's own
    record: dict[str, Any] = {}
    if task.is_own:
        record[ROWS] = {split: hash_rows(data_dir, task, split) for split in ("train", "val")}
    if config.uses_images and config.model.frozen_projection is not None:
        weights = projection_source(config.model, find_run) / WEIGHTS_FILE
        record[PROJECTION_WEIGHTS] = hashlib.sha256(weights.read_bytes()).hexdigest()
    return record


def check_same_model(folder: Path, model: AdaptedModel) -> None:
    """Refuses to go on with other frozen weights than those that the adapter of a run was trained on, if it has one.

    Raises:
        CheckpointError: They differ; see `check_fits`.
    """
    if (folder / ADAPTER_CONFIG_FILE).is_file():
        check_fits(folder, read_adapter_config(folder), model.adapter_config())


def check_same_sources(folder: Path, record: Mapping[str, Any]) -> None:
    """Refuses to go on with a run with other rows or another projection than it was started with.

    Args:
        folder: The run's.
        record: As `sources_record` tells them now.

    Raises:
        DataError: The rows differ.
        CheckpointError: The projection differs, or the record of the run cannot be read.
    """
    if not record or not (folder / RUN_CONFIG_FILE).is_file():
        return
    before = read_record(folder / RECORD_FILE)
    if before.get(PROJECTION_WEIGHTS, (now := record.get(PROJECTION_WEIGHTS))) != now:
        raise CheckpointError(
            f"cannot resume {folder}: model.frozen_projection is another than when it was started (sha256 of its "
            f"{WEIGHTS_FILE} {before[PROJECTION_WEIGHTS][:12]}, now {str(now)[:12]}); give back the one it had"
        )
    earlier = before.get(ROWS, {})
    changed = [split for split, digest in record.get(ROWS, {}).items() if earlier.get(split, digest) != digest]
    if changed:
        raise DataError(
            f"cannot resume {folder}: the rows of {' and '.join(changed)} are others than those it was started with; "
            f"give those, or start another run from its result with --init-from {folder} and another --output-dir"
        )
