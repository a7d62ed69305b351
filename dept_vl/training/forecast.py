"""What a run will take, measured on its own first steps: time, memory and disk. It writes nothing.

Torch is imported once something can be measured, so that refusals come at once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dept_vl.data.arrow_copy import temporary_copies
from dept_vl.data.feature_format import differences, finished_stores, read_index, token_bytes
from dept_vl.data.manifest import open_split, split_images, split_path, task_folder
from dept_vl.errors import ConfigError, NoFeaturesError, NotMadeError
from dept_vl.models.language.stored import find_folder, is_offline
from dept_vl.runs.decoding import choose_decoding
from dept_vl.runs.refusals import check_forecast, check_place
from dept_vl.runs.selection import check_best_metric, check_data
from dept_vl.settings.own_encoder import has_own_image_encoder
from dept_vl.settings.schema import TrainConfig
from dept_vl.system.memory import peak_gpu_gib, peak_resident_gib
from dept_vl.tasks.splits import SPLITS

if TYPE_CHECKING:
    from dept_vl.training.trainer import Trainer

WARMUP_STEPS, MEASURED_STEPS = 1, 3


@dataclass(frozen=True)
class Length:
    """How long a run is.

    Attributes:
        max_steps: Optimiser steps in all.
        steps_per_epoch: Of one pass over the training rows.
        num_rows: Training rows.
    """

    max_steps: int
    steps_per_epoch: int
    num_rows: int

    @property
    def epochs(self) -> float:
        """Passes over the training rows."""
        return self.max_steps / self.steps_per_epoch


@dataclass(frozen=True)
class Measured:
    """What the first steps of a run took; means over `MEASURED_STEPS` of them, after `WARMUP_STEPS`.

    Attributes:
        length: Of the run.
        rows: Of a step, over all processes.
        text_tokens: Of a step's source texts, over all processes, without padding.
        padded_tokens: With padding.
        step_s: Seconds of a step: reading the batch, forward, backward and update.
        evaluations: On ``val`` in the run.
        evaluation_s: Seconds that the answers of one take, from its first batch; the scores are not counted.
        evaluation_rows: Rows of one.
        resident_gib: Peak resident memory of this process, GiB.
        gpu_gib: Peak memory that torch held of its GPU, GiB; None without one.
        checkpoint_bytes: Size of a checkpoint.
        checkpoints: That will be there at the end.
    """

    length: Length
    rows: float
    text_tokens: float
    padded_tokens: float
    step_s: float
    evaluations: int
    evaluation_s: float
    evaluation_rows: int
    resident_gib: float
    gpu_gib: float | None
    checkpoint_bytes: int
    checkpoints: int

    @property
    def training_s(self) -> float:
        """Seconds of all steps."""
        return self.step_s * self.length.max_steps

    @property
    def whole_s(self) -> float:
        """Seconds of all steps and evaluations."""
        return self.training_s + self.evaluations * self.evaluation_s


@dataclass(frozen=True)
class FeatureSize:
    """What the features of a run's images take, where they are not stored yet.

    Attributes:
        images: Over all prepared splits.
        visual_tokens: Of an image; None where only the encoder itself knows.
        width: Numbers a token has.
        dtype: Stored type of a number.
    """

    images: int
    visual_tokens: int | None
    width: int
    dtype: str

    @property
    def num_bytes(self) -> int | None:
        """Size on disk, bytes."""
        if self.visual_tokens is None:
            return None
        return self.images * self.visual_tokens * token_bytes(self.dtype, self.width)


@dataclass(frozen=True)
class Forecast:
    """What a run will take.

    Attributes:
        config: Its settings.
        length: How long it is; None where its steps follow from rows that are not prepared.
        measured: What its steps took; None where they could not be run.
        features: Those that are to be stored before; None where they are, or none are read.
        unmeasured: Why steps or features could not be measured, a sentence each.
        folder_problem: Why the run would not start in its folder; None where it would.
        is_folder_taken: Whether something is in the folder; without a problem the run replaces it.
    """

    config: TrainConfig
    length: Length | None
    measured: Measured | None
    features: FeatureSize | None
    unmeasured: tuple[str, ...]
    folder_problem: str | None
    is_folder_taken: bool


def forecast_run(config: TrainConfig, find_data: Callable[[], Path], *, overwrite: bool = False) -> Forecast:
    """Runs the first steps of a training and one batch of its evaluation, and reckons what all of it takes.

    Nothing is written: the run folder, the data folder and the cache stay as they are, and weights of a backbone that
    is not on this machine are not fetched.

    Args:
        config: The run's settings.
        find_data: Returns the folder of prepared data and makes none; raises `NotMadeError` where it is not there.
        overwrite: Whether the run would replace an earlier one in its folder.

    Raises:
        ConfigError, DataError, CheckpointError: As training would, but for the run folder and for what is made, cached
            or fetched before the first step.
        DivergenceError: A step's loss or gradient is not finite or exploded.
    """
    check_best_metric(config)
    for one in config.each_task():
        choose_decoding(one, one.resolve_task())
    check_forecast(config)
    measured, length, features = None, None, None
    unmeasured: list[str] = []
    with temporary_copies():
        data_dir = None
        try:
            data_dir = find_data()
            check_data(config, data_dir, ["train", "val"])
        except NotMadeError as error:
            unmeasured.append(str(error))
            data_dir = error.folder if _is_prepared(config, error.folder) else None
        except NoFeaturesError as error:
            unmeasured.append(str(error))
        if not unmeasured and not is_offline() and find_folder(config.model.backbone, config.model.revision) is None:
            unmeasured.append(f"model.backbone: {config.model.backbone}: not on this machine; the run fetches it")
        if not unmeasured:
            assert data_dir is not None
            try:
                measured = _measure(config, data_dir)
            except NoFeaturesError as error:
                unmeasured.append(str(error))
        if measured is not None:
            length = measured.length
        elif data_dir is not None:
            length = _count_steps(config, data_dir)
            features = _missing_features(config, data_dir) if config.uses_images else None
    problem = _folder_problem(config, overwrite=overwrite)
    folder = config.run_dir
    is_taken = folder.is_dir() and any(folder.iterdir())
    return Forecast(config, length, measured, features, tuple(unmeasured), problem, is_taken)


def _is_prepared(config: TrainConfig, folder: Path) -> bool:
    return all(task_folder(folder, one.resolve_task()).is_dir() for one in config.each_task())


def _folder_problem(config: TrainConfig, *, overwrite: bool) -> str | None:
    try:
        check_place(config, resume=False, overwrite=overwrite)
    except ConfigError as error:
        return str(error)
    return None


def _count_steps(config: TrainConfig, data_dir: Path) -> Length:
    """Returns the length of a run by its prepared rows, those among them whose image cannot be read."""
    from dept_vl.data.sampler import whole_batches

    counts = [len(open_split(data_dir, one.resolve_task(), "train")) for one in config.each_task()]
    num_rows = min(sum(counts), config.data.few_shot or sum(counts))
    steps_per_epoch = whole_batches(num_rows, config.data.batch_size)
    max_steps = config.loop.in_steps(steps_per_epoch).max_steps
    assert max_steps is not None
    return Length(max_steps, steps_per_epoch, num_rows)


def _missing_features(config: TrainConfig, data_dir: Path) -> FeatureSize | None:
    """Returns the size of the features that the run reads, where they are not stored; None where it reads none."""
    if has_own_image_encoder(config):
        return None
    encoder = config.model.image_encoder
    wanted = encoder.known_fingerprint()
    is_stored = any(not differences(read_index(store).fingerprint, wanted) for store in finished_stores(data_dir))
    if is_stored or config.data.visual_features == "encode" or config.data.feature_dir is not None:
        return None
    images: set[int] = set()
    for one in config.each_task():
        task = one.resolve_task()
        for split in SPLITS:
            if split_path(data_dir, task, split).is_file():
                images |= split_images(data_dir, task, split).keys()
    tokens = None if encoder.pooled_grid is None else encoder.pooled_grid**2
    return FeatureSize(len(images), tokens, encoder.feature_dim(), encoder.dtype)


def _measure(config: TrainConfig, data_dir: Path) -> Measured:
    from dept_vl.data.sampler import whole_batches
    from dept_vl.training.calibration import calibrate
    from dept_vl.training.checkpoints import state_bytes
    from dept_vl.training.trainer import Trainer

    trainer = Trainer(config, data_dir)
    if config.init.source is None:
        calibrate(trainer.model, trainer.train_set, seed=config.seed, device=trainer.parts.device)
    rows, tokens, padded, seconds = _time_steps(trainer)
    evaluation_s, evaluation_rows = trainer.validation.time_rows()
    num_rows, max_steps = len(trainer.train_set.indices), trainer.max_steps
    loop, state = trainer.config.loop, trainer.model.tuner.training_state()
    return Measured(
        length=Length(max_steps, whole_batches(num_rows, config.data.batch_size), num_rows),
        rows=rows,
        text_tokens=tokens,
        padded_tokens=padded,
        step_s=seconds,
        evaluations=math.ceil(max_steps / trainer.eval_every_steps),
        evaluation_s=evaluation_s,
        evaluation_rows=evaluation_rows,
        resident_gib=peak_resident_gib(),
        gpu_gib=peak_gpu_gib(),
        checkpoint_bytes=state_bytes(trainer.trainable, trainer.optimizer, state),
        checkpoints=min(loop.keep_checkpoints, math.ceil(max_steps / loop.save_every_steps)),
    )


def _time_steps(trainer: Trainer) -> tuple[float, float, float, float]:
    """Returns rows, text tokens, those with padding, and seconds of a step, as `Measured` has them."""
    import torch

    from dept_vl.system.processes import sum_over_processes
    from dept_vl.training.batches import read_steps

    config, device = trainer.config, trainer.accelerator.device
    loop = replace(config.loop, max_steps=WARMUP_STEPS + MEASURED_STEPS)
    steps = read_steps(
        trainer.train_set, config.data, loop, trainer.accelerator, seed=config.seed, first_step=0
    )  # fmt: skip
    seconds: list[float] = []
    counts: list[list[int]] = []
    started = time.perf_counter()
    for step, parts in enumerate(steps):
        trainer.train_step(min(step, trainer.max_steps - 1), parts)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - started)
        masks = [batch.attention_mask for _, batch in parts]
        counts.append(
            sum_over_processes(
                [sum(map(len, masks)), sum(int(mask.sum()) for mask in masks), sum(mask.numel() for mask in masks)]
            )
        )
        started = time.perf_counter()
    rows, tokens, padded = (sum(values) / MEASURED_STEPS for values in zip(*counts[WARMUP_STEPS:], strict=True))
    return rows, tokens, padded, sum(seconds[WARMUP_STEPS:]) / MEASURED_STEPS
