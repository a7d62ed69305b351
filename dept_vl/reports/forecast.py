"""What a run will take, as text: what `dept-vl train --dry-run` prints."""

from __future__ import annotations

from collections.abc import Iterator

from dept_vl.data.feature_format import number_bytes
from dept_vl.system.progress import format_seconds
from dept_vl.training.forecast import MEASURED_STEPS, WARMUP_STEPS, FeatureSize, Forecast, Measured

_GIB, _MIB = 2**30, 2**20


def describe_forecast(forecast: Forecast) -> str:
    """Returns the lines of a forecast; what could not be measured has a line that says why."""
    config = forecast.config
    rows = [
        ("steps", _steps(forecast)),
        *(_measured(forecast.measured) if forecast.measured is not None else ()),
        *(_features(forecast.features) if forecast.features is not None else ()),
        ("run folder", _folder(forecast)),
    ]
    width = max(len(name) for name, _ in rows)
    head = f"forecast of {config.task}, {config.tuner.label} on {config.model.backbone}; nothing is written:"
    lines = [f"  {name:<{width}}  {text}" for name, text in rows]
    missing = [f"not measured: {why}" for why in forecast.unmeasured]
    if missing:
        missing.append("so time, memory and the disk of checkpoints are not known yet")
    return "\n".join([head, *lines, *missing])


def _steps(forecast: Forecast) -> str:
    length, loop = forecast.length, forecast.config.loop
    if length is not None:
        epoch = f"{length.steps_per_epoch:,} steps of {forecast.config.data.batch_size}"
        found = f"{length.max_steps:,}: {length.epochs:.4g} epochs of {length.num_rows:,} rows ({epoch})"
    elif loop.max_steps is not None:
        found = f"{loop.max_steps:,}; epochs follow from the rows"
    else:
        found = f"{loop.epochs:g} epochs; steps follow from the rows"
    patience = loop.early_stop_evals
    return found if patience is None else f"{found}, or fewer: loop.early_stop_evals={patience}"


def _folder(forecast: Forecast) -> str:
    folder = forecast.config.run_dir
    if forecast.folder_problem is not None:
        return f"{folder}; the run would be refused: {forecast.folder_problem}"
    return f"{folder}, whose run would be replaced" if forecast.is_folder_taken else f"{folder}, free"


def _measured(found: Measured) -> Iterator[tuple[str, str]]:
    samples_per_s = found.rows / found.step_s
    evaluations_s = found.evaluations * found.evaluation_s
    yield "rows a step", f"{found.rows:,.0f}"
    yield "text tokens a step", f"{found.text_tokens:,.0f} ({found.padded_tokens:,.0f} with padding)"
    how = f"mean of {MEASURED_STEPS} steps after {WARMUP_STEPS} to warm up"
    yield "speed", f"{samples_per_s:,.3g} samples/s, {found.step_s:.3g} s a step: {how}"
    yield "training", _hours(found.training_s)
    each = f"{found.evaluations:,} of {found.evaluation_rows:,} rows of val"
    how = "by one batch of the untrained model, whose answers may be longer"
    yield "evaluations", f"{_hours(evaluations_s)}: {each}, {how}"
    yield "all of it", _hours(found.whole_s)
    gpu = "" if found.gpu_gib is None else f", GPU {found.gpu_gib:.1f} GiB"
    yield "peak memory", f"{found.resident_gib:.1f} GiB{gpu}; longer texts than in these steps take more"
    one, number = found.checkpoint_bytes, found.checkpoints
    yield "disk", f"{_size(number * one)}: checkpoints kept: {number}, {_size(one)} each"


def _features(found: FeatureSize) -> Iterator[tuple[str, str]]:
    if found.num_bytes is None:
        tokens, size = "the encoder's own tokens", "not known before the encoder is loaded"
    else:
        tokens, size = f"{found.visual_tokens} tokens", _size(found.num_bytes)
    each = f"{tokens} x {found.width:,} numbers of {number_bytes(found.dtype)} bytes"
    yield "features to cache", f"{size}: {found.images:,} images x {each}"


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.3g} h ({format_seconds(seconds)})"


def _size(num_bytes: int) -> str:
    """Returns a size on disk in GiB, a small one in MiB."""
    return f"{num_bytes / _GIB:.3g} GiB" if num_bytes >= _GIB / 10 else f"{num_bytes / _MIB:.3g} MiB"
