"""What of a run is fit for others: its settings, adapter and card without a path of this machine."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dept_vl.errors import ConfigError
from dept_vl.models.adapter.presence import ADAPTER_CONFIG_FILE, CARD_FILE, WEIGHTS_FILE
from dept_vl.models.demo import DEMO
from dept_vl.models.language.stored import recorded_name
from dept_vl.runs.folder import METRICS_FILE, RUN_CONFIG_FILE, SUMMARY_FILE, differences, read_run_config
from dept_vl.settings.help import fields_of
from dept_vl.settings.load import config_from_tree, dump_config, flat_settings, nested_settings, overlay_config
from dept_vl.settings.marked import path_setting, path_settings
from dept_vl.settings.schema import TrainConfig
from dept_vl.system.bounded_reading import hash_file, parse_json, read_file

if TYPE_CHECKING:
    from dept_vl.models.adapter.card import Publication

logger = logging.getLogger(__name__)

RESULTS_FILE = "results-test.json"


def public_config(config: TrainConfig, settings: Mapping[str, Any]) -> TrainConfig:
    """Returns a run's settings as others can use them; no torch.

    A path of this machine is left out where the setting may be null, which is where it says where data and results
    lie; of several in one setting, such as the runs whose prompts an adapter holds, the last names stay. A backbone in
    the hub's cache gets its hub id.

    Args:
        config: The run's.
        settings: Dotted settings that replace the run's, such as ``model.backbone``.

    Raises:
        ConfigError: They are not valid; or a setting that must be there, such as a frozen model, is a path: all such
            are named.
    """
    config = overlay_config(nested_settings(config), settings)
    if path_settings()["model.backbone"].is_local(config.model.backbone) and Path(config.model.backbone).is_dir():
        name, revision = recorded_name(config.model.backbone, config.model.revision)
        config = replace(config, model=replace(config.model, backbone=name, revision=revision))
    tree, defaults = nested_settings(config), dict(fields_of(TrainConfig))
    recorded, needed = flat_settings(tree), []
    replaced: dict[str, Any] = {}
    for key, value in recorded.items():
        if isinstance(value, list) and (path := path_setting(key)) is not None:
            replaced[key] = [Path(one).name if path.is_local(one) else one for one in value]
    for key, mark in path_settings().items():
        value = recorded.get(key)
        if not isinstance(value, str) or not mark.is_local(value):
            continue
        if defaults[key].default is None and not mark.is_needed:
            replaced[key] = None
        else:
            needed.append(
                f"{key}: {value} is a folder of this machine, which others do not have; say what they can load it by, "
                f"with --{key} NAME (such as its hub id; whoever loads the adapter compares the weights)"
            )
    if needed:
        raise ConfigError("\n".join(needed))
    return overlay_config(tree, replaced)


def published_files(folder: Path, config: TrainConfig, *, name: str, licence: str | None) -> dict[str, bytes | str]:
    """Returns what is uploaded of a run: file -> content, or the path of a file that is uploaded as it is.

    Args:
        folder: The run's.
        config: From `public_config`.
        name: What it is loaded by once it is on the hub.
        licence: In the hub's words; None for the backbone's.

    Raises:
        CheckpointError: The adapter is damaged, or holds a value that is not finite.
    """
    from dept_vl.models.adapter.card import model_card
    from dept_vl.models.adapter.files import encode_adapter, load_adapter

    tensors, adapter = load_adapter(folder)
    backbone, model = adapter.backbone, config.model
    is_same = backbone.name == model.backbone and model.revision in (None, backbone.revision)
    files: dict[str, bytes | str] = {file: str(folder / file) for file in (WEIGHTS_FILE, ADAPTER_CONFIG_FILE)}
    if not is_same:
        adapter = replace(adapter, backbone=replace(backbone, name=model.backbone, revision=model.revision))
        files |= encode_adapter(tensors, adapter)
    publication = _publication(folder, config, name, licence)
    card = model_card(adapter, model, _val_scores(folder), publication)
    return {**files, CARD_FILE: card.encode(), RUN_CONFIG_FILE: dump_config(config).encode()}


def _publication(folder: Path, config: TrainConfig, name: str, licence: str | None) -> Publication:
    from dept_vl.models.adapter.card import Publication

    scores, rows, complete_rows = _test_scores(folder)
    is_demo = config.is_demo_data
    of_all = f" of {complete_rows:,}" if complete_rows and not is_demo else ""
    return Publication(
        name, licence, "drawn scenes of dept-vl" if is_demo else None, config.data.protocol, scores,
        f"{rows:,}{of_all} rows",
    )  # fmt: skip


def _test_scores(folder: Path) -> tuple[dict[str, float], int, int | None]:
    """Returns the scores on ``test``, how many rows they are of, and of how many if those are not all.

    Only those count that are this adapter's, made as the run says: others, of an adapter that was trained on since or
    of the blind baseline, are left out with a warning.
    """
    path = folder / RESULTS_FILE
    if not path.is_file():
        return {}, 0, None
    try:
        content = parse_json(read_file(path))
        scores = {str(name): float(value) for name, value in content["metrics"].items()}
        recorded = nested_settings(config_from_tree(content["config"]))
        data = content.get("data") or {}
        rows, complete_rows = int(content["num_scored"]), None if data.get("complete") else data.get("complete_rows")
        adapter = content["sha256"]["adapter"]
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        logger.warning("%s: its scores are left out: it cannot be read (%s)", path, error)
        return {}, 0, None
    others = [
        key
        for key, *values in differences(nested_settings(read_run_config(folder)), recorded)
        if path_setting(key) is None or DEMO in values  # data that have moved are the same, drawn scenes are not
    ]
    reasons = {
        "they are of another adapter than the one here": adapter != hash_file(folder / WEIGHTS_FILE),
        f"they were made with another {', '.join(others)}": bool(others),
        "they are not finite": not all(map(math.isfinite, scores.values())),
    }
    reason = next((text for text, is_so in reasons.items() if is_so), None)
    if reason is not None:
        logger.warning("%s: its scores are left out: %s; score the run again", path, reason)
        return {}, 0, None
    return scores, rows, complete_rows


def _val_scores(folder: Path) -> dict[str, float]:
    """Returns the scores on ``val`` that the adapter was kept for; none where the run has not ended."""
    try:
        step = parse_json(read_file(folder / SUMMARY_FILE))["best_step"]
        lines = [parse_json(line) for line in read_file(folder / METRICS_FILE).splitlines()]
        values = [item for line in lines if line["step"] == step for item in line.items()]
        return {name.removeprefix("val/"): float(value) for name, value in values if name.startswith("val/")}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}
