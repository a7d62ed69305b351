"""What is wrong with a run's folders and files that can be seen without torch, and so before it is imported.

The command line asks first; what opens a folder or a file looks again, for other callers and for what changed since.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dept_vl.data.feature_format import finished_stores, no_store_fits, read_index
from dept_vl.data.manifest import split_info, split_path
from dept_vl.errors import CheckpointError, ConfigError
from dept_vl.models.adapter.presence import projection_source, require_adapter, require_released
from dept_vl.models.config import MAX_IMAGES
from dept_vl.models.language.families import stored_family
from dept_vl.models.language.family import check_image_settings, check_positions, no_position_bias
from dept_vl.models.language.stored import check_files
from dept_vl.runs.folder import RUN_CONFIG_FILE, check_resumable, check_run_folder, read_run_config, refuse_several
from dept_vl.runs.hub import find_run
from dept_vl.runs.trackers import chosen_trackers
from dept_vl.settings.own_encoder import has_own_image_encoder
from dept_vl.settings.schema import TrainConfig
from dept_vl.system.atomic import refuse_existing
from dept_vl.system.extras import require_extra
from dept_vl.system.locks import folder_lock
from dept_vl.tasks import get_task
from dept_vl.tasks.mixture import find_mix
from dept_vl.tasks.released_names import our_name
from dept_vl.tuners.context import TunerContext
from dept_vl.tuners.settings import TunerSettings


def check_start(config: TrainConfig, *, resume: bool, overwrite: bool) -> None:
    """Refuses a training that cannot start in its folder, or from its source.

    Raises:
        ConfigError: Another process is at work in the run folder, or it is taken, or its run has other settings; a
            tracker is not installed; or as `check_method`.
        CheckpointError: There is no adapter to start from.
    """
    check_method(config)
    chosen_trackers(config.loop.trackers)
    check_place(config, resume=resume, overwrite=overwrite)
    if resume and (config.run_dir / RUN_CONFIG_FILE).is_file():
        check_resumable(config.run_dir, config)
    else:
        check_source(config)


def check_forecast(config: TrainConfig) -> None:
    """Refuses what `check_start` does of a new run, but for its folder: a forecast writes none.

    Raises:
        ConfigError, CheckpointError: As `check_start`.
    """
    check_method(config)
    chosen_trackers(config.loop.trackers)
    check_source(config)


def check_place(config: TrainConfig, *, resume: bool, overwrite: bool) -> None:
    """Refuses a run folder that another process is at work in, or that is taken.

    Raises:
        ConfigError: As said.
    """
    folder = config.run_dir
    folder_lock(folder, f"output_dir: {folder}").refuse_if_taken()
    check_run_folder(folder, resume=resume, overwrite=overwrite)


def check_source(config: TrainConfig) -> None:
    """Refuses a run to start from that holds no adapter, or several.

    Raises:
        CheckpointError: As said.
    """
    if config.init.source is not None:
        source = find_run(config.init.source)
        refuse_several(source, "--init-from")
        require_adapter(source)


def check_method(config: TrainConfig, target: TrainConfig | None = None) -> None:
    """Refuses a method that cannot be trained as the settings have it.

    Args:
        config: Of a run.
        target: Of the run that will start from it (`TunerSettings.as_source_of`); None for none.

    Raises:
        ConfigError: What computes it, or the optimiser, is not installed; it is made for several tasks, and there is
            one; nothing would be trained; the frozen projection lies in the run's folder; some tasks have images and
            others none, and the backbone reads no images itself; a feature store would not be read; or as
            `check_backbone`.
    """
    config.tuner.check_packages()
    if config.optim.name in ("prodigy", "schedule-free"):
        require_extra("optimizers", f"optim.name: {config.optim.name!r}")
    if not config.tuner.can_train:
        raise ConfigError(
            f"tuner.name: {config.tuner.name!r} is what `dept-vl fold` leaves of a method, and trains nothing; choose "
            "a method"
        )
    frozen = config.model.frozen_projection
    if frozen is not None and Path(frozen).resolve().is_relative_to(config.run_dir.resolve()):
        raise ConfigError(
            f"model.frozen_projection: {frozen}: lies in the run's own folder {config.run_dir}; choose another "
            "--output-dir"
        )
    if not config.tuner.has_tensors and (frozen is not None or not config.uses_images):
        why = "model.frozen_projection is given; set it to null" if config.uses_images else "the task has no images"
        raise ConfigError(
            f"tuner.name: {config.tuner.name!r} trains the visual projection alone, and here is none to train: {why}, "
            "or choose a method"
        )
    config.tuner.check_tasks(config.task_names)
    if config.is_mix and config.uses_images and not has_own_image_encoder(config):
        find_mix(config.task).check_alike()
    if config.data.feature_dir is not None and config.data.visual_features == "encode":
        raise ConfigError(
            f"data.feature_dir: {config.data.feature_dir}: is not read where data.visual_features is 'encode'; leave "
            "one of them out"
        )
    check_backbone(config, target)


def check_backbone(config: TrainConfig, target: TrainConfig | None = None) -> None:
    """Refuses a backbone that has no place for the method, or too few positions, as far as files here say what it has.

    Args:
        config: As `check_method`.
        target: As `check_method`.

    Raises:
        ConfigError: As `TunerSettings.check_backbone`, `TunerSettings.prompt_length`, `check_positions`,
            `stored_family`, `no_position_bias` and `check_image_settings`; or an answer form that the backbone has not.
    """
    found = stored_family(config.model.backbone, config.model.revision)
    if found is None:
        return
    family, stored = found
    rule = config.model.visual_position_bias
    if rule is not None and not family.has_position_bias:
        raise no_position_bias(rule)
    check_image_settings(family, config.model)
    if config.model.train_connector and not config.uses_images:
        raise ConfigError(
            f"model.train_connector: task {config.task!r} reads no images, so nothing would train it; leave it out"
        )
    if family.reads_images and config.data.answer_form not in (None, "chat"):
        raise ConfigError(
            f"data.answer_form: a vision-language backbone is led to its answers by the chat template of its processor "
            f"('chat'), given {config.data.answer_form!r}; leave it out"
        )
    shape = family.shape(stored)
    if shape is None:
        return
    tuner: TunerSettings = config.tuner
    length = config.data.max_source_length
    if target is not None:
        tuner = tuner.as_source_of(target.tuner, TunerContext(shape.d_model, target.data.max_source_length), length)
    tuner.check_backbone(shape)
    num_virtual_tokens = tuner.prompt_length(shape.d_model, length)
    check_positions(family.max_positions(stored), stored["model_type"], num_virtual_tokens, length)


def check_prepared(config: TrainConfig, data_dir: Path, splits: Sequence[str]) -> None:
    """Refuses what is not there: files of some splits, of the backbone, and cached features where a run reads them.

    Raises:
        ConfigError: Files of the backbone, or of an encoder that is to run, are incomplete or do not fit together; or
            rows have more images than the settings have room for.
        DataError: A split is not prepared, or no feature store is finished.
        CheckpointError: As `projection_source`.
    """
    if config.uses_images:
        check_images(config, splits)
        if config.model.frozen_projection is not None:
            projection_source(config.model, find_run)
    check_files(config.model.backbone, config.model.revision)
    check_splits(config, data_dir, splits)
    if not config.uses_images:
        return
    is_own = has_own_image_encoder(config)
    if config.data.visual_features == "encode":
        if not is_own:
            config.model.image_encoder.check_files()
        return
    if config.data.feature_dir is not None:
        read_index(Path(config.data.feature_dir))
    elif not is_own and not finished_stores(data_dir):
        raise no_store_fits(data_dir)


def check_images(config: TrainConfig, splits: Sequence[str]) -> None:
    """Refuses tasks whose rows have more images than the projection tells apart, or than fit into the same steps.

    Raises:
        ConfigError: As said; the tasks are named.
    """
    counts = {task.name: task.num_images for task in (one.resolve_task() for one in config.each_task())}
    for name, count in counts.items():
        if config.model.visual_projection == "vl-t5" and count > MAX_IMAGES:
            raise ConfigError(
                f"model.visual_projection: 'vl-t5' tells {MAX_IMAGES} images of a row apart, as Sung et al.'s does, "
                f"and rows of {name!r} have {count}; use model.visual_projection=linear"
            )
    has_rows_of_any = has_own_image_encoder(config)
    is_mixed = config.mix.batches in (None, "mixed") and not has_rows_of_any
    if "train" in splits and len({*counts.values()}) > 1 and is_mixed:
        each = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise ConfigError(
            f"mix.batches: rows of these tasks have different numbers of images ({each}) and cannot share a step; set "
            "mix.batches=one-task"
        )


def check_splits(config: TrainConfig, data_dir: Path, splits: Sequence[str]) -> None:
    """Refuses splits that are not prepared, of every task of a run.

    Raises:
        ConfigError: A task has none to train on.
        DataError: The file of one is missing or not what `dept-vl prepare` writes.
    """
    for task in (one.resolve_task() for one in config.each_task()):
        if "train" in splits and task.declaration is not None and not task.declaration.can_train:
            raise ConfigError(
                f"task {task.name!r} has no training split; its predictions are scored by `dept-vl eval --task "
                f"{task.name} --predictions FILE --references {split_path(data_dir, task, 'test')}`"
            )
        for split in splits:
            split_info(data_dir, task, split)


def check_import(
    folder: Path, run_dir: Path, *, task: str | None, overwrite: bool, backbone: str | None = None
) -> None:
    """Refuses to import what is not a released adapter, of no task that is known, or into a folder that is taken.

    Raises:
        CheckpointError: A file of the adapter is missing.
        ConfigError: There is no such task, `run_dir` is taken, or the backbone's files do not do.
    """
    require_released(folder)
    get_task(our_name(task or folder.resolve().name))
    check_run_folder(run_dir, resume=False, overwrite=overwrite)
    if backbone is not None:
        check_files(backbone)


def check_fold(run_dir: Path, out: Path) -> None:
    """Refuses to fold what has no adapter or is known to have no plain form, or into a folder that is taken.

    Raises:
        DataError: `out` is taken.
        CheckpointError: There is no run, a file of the adapter is missing, or the method cannot be folded.
        ConfigError: What computes the method is not installed.
    """
    refuse_existing(out)
    config = read_run_config(run_dir, "RUN")
    require_adapter(run_dir)
    why = config.tuner.unfoldable
    if why is None and config.tuner.needs_tasks:
        why = "it answers each of its tasks in another way"
    if why is not None:
        raise CheckpointError(f"{run_dir}: cannot be folded: {config.tuner.label!r}: {why}")
    config.tuner.check_packages()


def check_export(run_dir: Path, out: Path) -> None:
    """Refuses to export what is not an adapter, or into a folder that is taken.

    Raises:
        ConfigError: `out` is taken.
        CheckpointError: A file of the adapter is missing.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"--out: {out} is not an empty folder; choose another")
    refuse_several(run_dir, "RUN")
    require_adapter(run_dir)
