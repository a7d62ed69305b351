"""Commands about data: prepare, cache-features, draw-scenes."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from dept_vl.cli.settings import (
    add_command,
    config_overrides,
    load_settings,
    next_command,
    refuse_settings,
)
from dept_vl.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from dept_vl.models.language.backbone_encoder import BackboneEncoder
    from dept_vl.models.language.vision_language import VisionLanguageBackbone
    from dept_vl.settings.schema import TrainConfig


def _add_prepare(commands: Any) -> None:
    parser = add_command(
        commands,
        "prepare",
        _prepare,
        "Turn official raw files, a data set of the hub, or rows of your own into prepared splits.",
        has_settings=False,
    )
    parser.add_argument(
        "--task", required=True, metavar="NAME", help="see `dept-vl tasks`; or a YAML file that declares one"
    )
    parser.add_argument("--raw", type=Path, metavar="DIR", help="folder of the raw files; text tasks: default the hub")
    parser.add_argument(
        "--rows", metavar="ROWS", help="your own task: its rows, a file, a folder or a data set on the hub (user/name)"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="data folder; each task gets its own in it"
    )
    parser.add_argument("--protocol", choices=("fixed", "paper"), help="text tasks; default: fixed")
    parser.add_argument(
        "--subset", action="store_const", const=True, help="text tasks: take files that are not complete"
    )
    parser.add_argument(
        "--tsv-quotes", action="store_const", const=True, help="fields of TSV files are quoted, as in CSV"
    )
    parser.add_argument("--images", type=Path, metavar="DIR", help="root of the images; default: --raw, or --rows' own")
    parser.add_argument(
        "--skip-missing-images", action="store_const", const=True, help="your own task: leave out rows without an image"
    )
    parser.add_argument("--answer-vocabulary", type=Path, metavar="JSON", help="VQA: train on these answers only")
    parser.add_argument(
        "--no-image-check",
        dest="image_check",
        action="store_const",
        const=False,
        help="do not look for the image files",
    )


def _prepare(options: argparse.Namespace, overrides: dict[str, Any]) -> None:
    refuse_settings("prepare", overrides)
    from data_prep.prepare import prepare
    from dept_vl.settings.declared import find_task

    arguments = {name: value for name, value in vars(options).items() if name != "command"}
    task, raw, out = (arguments.pop(name) for name in ("task", "raw", "out"))
    found = find_task(task)
    stats = prepare(found, raw, out, **arguments)
    print(f"prepared: {stats.folder}")
    if found.uses_images:
        print(next_command("cache-features", "--task", task, "--data-dir", out))
    else:
        protocol = [] if stats.protocol in (None, *found.protocols[:1]) else ["--data.protocol", stats.protocol]
        print(next_command("train", "--task", task, "--data-dir", out, *protocol))


def _add_cache(commands: Any) -> None:
    parser = add_command(commands, "cache-features", _cache, "Encode every image of a task and store its features.")
    parser.add_argument(
        "--batch-size", type=int, metavar="N", help="images a forward; default: 64, of a vision-language backbone 8"
    )
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="decoding processes; default: 2")
    parser.add_argument(
        "--on-error", choices=("stop", "skip"), help="at an image that cannot be read; default: data.on_image_error"
    )
    parser.add_argument(
        "--where", choices=("auto", "tower", "connector"),
        help="vision-language backbone: take features behind its image tower, or behind the connector after it; "
        "default: auto, where an image has fewer numbers",
    )  # fmt: skip
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16", "int8"),
        help="vision-language backbone: stored type of a number; default: model.dtype",
    )  # fmt: skip
    shards = parser.add_argument_group("shards of pictures in place of a task's images; see docs/data.md")
    shards.add_argument(
        "--shards", nargs="+", metavar="FILES", help="webdataset tars and Parquet files, or patterns of their names"
    )
    shards.add_argument("--stream", metavar="ID", help="or a data set of the hub, user/name or user/name:configuration")
    shards.add_argument("--split", metavar="NAME", help="of --stream; default: train")
    shards.add_argument("--out", type=Path, metavar="STORE", help="folder of the store that is made of them")
    shards.add_argument(
        "--image-column", metavar="NAME", help="of Parquet files and --stream; default: image, jpg, ..."
    )
    shards.add_argument(
        "--rank", type=int, metavar="N", help="which of --world processes; default: torchrun's, SLURM's"
    )
    shards.add_argument("--world", type=int, metavar="N", help="processes that share the shards")
    parser.add_argument(
        "--verify", type=Path, metavar="STORE", help="encode nothing: read this store in full and compare its checksums"
    )


def _cache(options: argparse.Namespace, overrides: dict[str, Any]) -> None:
    for flag, value, least in (("batch-size", options.batch_size, 1), ("workers", options.workers, 0)):
        if value is not None and value < least:
            raise ConfigError(f"--{flag}: should be a whole number from {least} on, got {value}")
    if options.verify is not None:
        _verify_store(options, overrides)
        return
    if options.shards is not None or options.stream is not None:
        _cache_shards(options, overrides)
        return
    for name in _OF_SHARDS:
        if getattr(options, name) is not None:
            raise ConfigError(f"--{name.replace('_', '-')}: is of --shards and --stream; leave it out")
    from data_prep.first_use.data_dir import open_data_dir
    from dept_vl.runs.refusals import check_splits
    from dept_vl.settings.own_encoder import has_own_image_encoder

    config = load_settings(options, overrides)
    if not config.uses_images:
        raise ConfigError(f"task: {config.task!r} has no images; it needs no features")
    is_own = has_own_image_encoder(config)
    _check_flags(options, overrides, is_own=is_own)
    data_dir = open_data_dir(config)
    check_splits(config, data_dir, ["train", "val", "test"])
    if not is_own:
        config.model.image_encoder.check_files()
    from data_prep.cache_features import cache_features
    from dept_vl.system.processes import process_state

    own = _backbone_encoder(options, config, process_state().device) if is_own else None
    for one in (one for one in config.each_task() if one.uses_images):
        folder = cache_features(
            own or config.model.image_encoder,
            data_dir,
            one.resolve_task(),
            batch_size=options.batch_size or (8 if is_own else 64),
            num_workers=options.workers,
            on_error=options.on_error or config.data.on_image_error,
            image_dir=Path(config.data.image_dir) if config.data.image_dir else None,
        )
    print(f"features: {folder}")
    print(next_command("train", *_same_settings(options, overrides, config)))


_OF_SHARDS = ("split", "out", "image_column", "rank", "world")
_OF_TASKS = ("task", "data.dir", "data.rows", "data.image_dir")


def _check_flags(options: argparse.Namespace, overrides: dict[str, Any], *, is_own: bool) -> None:
    """Refuses what an image encoder has settings for, and a backbone flags."""
    if is_own:
        return
    given = [flag for flag in ("where", "dtype") if getattr(options, flag) is not None]
    given += {"model.dtype"} & config_overrides(options, overrides).keys()
    if given:
        instead = "there is one place" if given[0] == "where" else "model.image_encoder.dtype says it"
        raise ConfigError(f"--{given[0]}: is of vision-language backbones; of an image encoder {instead}; leave it out")


def _cache_shards(options: argparse.Namespace, overrides: dict[str, Any]) -> None:
    """Encodes shards of pictures, or this process's share of them."""
    import os

    from dept_vl.settings.own_encoder import has_own_image_encoder
    from dept_vl.system.workers import find_worker

    if options.out is None:
        raise ConfigError("--out: not set; name the folder of the store that is made of the shards")
    if options.shards is not None and options.stream is not None:
        raise ConfigError("--stream: give --shards or --stream, not both")
    if options.stream is None and options.split is not None:
        raise ConfigError("--split: is of --stream; leave it out")
    unread = [key for key in config_overrides(options, overrides) if key in _OF_TASKS]
    if unread:
        raise ConfigError(f"{unread[0]}: has no effect with --shards or --stream, whose pictures are of no task")
    worker = find_worker(options.rank, options.world, os.environ)
    config = load_settings(options, {**overrides, "data.dir": str(options.out)})  # no demo's
    is_own = has_own_image_encoder(config)
    _check_flags(options, overrides, is_own=is_own)
    if not is_own:
        config.model.image_encoder.check_files()
    from data_prep.shard_sources import cache_shards, find_shards, worker_device

    shards = find_shards(options.shards, options.stream, options.split or "train", options.image_column)
    device = worker_device(os.environ)
    is_finished = cache_shards(
        _backbone_encoder(options, config, device) if is_own else config.model.image_encoder,
        shards,
        options.out,
        worker,
        batch_size=options.batch_size or (8 if is_own else 64),
        num_workers=options.workers,
        on_error=options.on_error or config.data.on_image_error,
        device=device,
    )
    print(f"features: {options.out}{'' if is_finished else ' (other processes have shards to do)'}")


def _backbone_encoder(options: argparse.Namespace, config: TrainConfig, device: torch.device) -> BackboneEncoder:
    """Returns the image encoder of a vision-language backbone."""
    from dept_vl.models.language.backbone_encoder import BackboneEncoder
    from dept_vl.models.language.load import open_backbone
    from dept_vl.models.language.stored import check_files

    model = config.model
    check_files(model.backbone, model.revision)
    backbone = cast("VisionLanguageBackbone", open_backbone(model)[0])
    backbone.to(device)
    return BackboneEncoder(
        backbone,
        label=model.backbone.rstrip("/").rpartition("/")[2],
        exif=model.image_encoder.exif,
        where=options.where or "auto",
        dtype=options.dtype or model.dtype,
    )


def _same_settings(options: argparse.Namespace, overrides: dict[str, Any], config: TrainConfig) -> list[str]:
    """Returns the words that give another command the task, the data and the image encoder of this one."""
    from dept_vl.settings.renamed import new_key

    task = getattr(options, "set:task") if config.declaration is not None else config.task
    places = {"--data-dir": config.data.dir, "--rows": config.data.rows}
    if config.data.rows is not None:
        places["--images"] = config.data.image_dir
    words = ["--task", str(task), *(word for flag, place in places.items() if place for word in (flag, place))]
    words += ["--config", str(options.config)] if options.config else []
    for key, value in overrides.items():
        is_backbone = new_key(key) in ("model.backbone", "model.revision", "model.dtype")
        if is_backbone or new_key(key).startswith("model.image_encoder."):
            words += [f"--{key}", value if isinstance(value, str) else json.dumps(value)]
    return words


def _verify_store(options: argparse.Namespace, overrides: dict[str, Any]) -> None:
    given = [*config_overrides(options, overrides), *(["--config"] if options.config else [])]
    flags = ("shards", "stream", *_OF_SHARDS, "where", "dtype")
    given += [f"--{name.replace('_', '-')}" for name in flags if getattr(options, name) is not None]
    if given:
        raise ConfigError(f"{given[0]}: has no effect with --verify")
    from dept_vl.data.feature_format import read_index

    read_index(options.verify)
    from dept_vl.data.features import open_store

    store = open_store(options.verify)
    store.verify()
    print(f"verified: {options.verify}: {len(store):,} images, every shard's sha256 is the index's")


def _add_scenes(commands: Any) -> None:
    text = "Draw small scenes in the official raw formats of VQA v2, COCO captions and the Karpathy split."
    parser = add_command(commands, "draw-scenes", _draw_scenes, text, has_settings=False)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="new folder")
    parser.add_argument("--images", type=int, default=100, metavar="N", help="images, at least 10; default: 100")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="default: 1")
    parser.add_argument(
        "--wording", choices=("keywords", "sentences"), default="keywords",
        help="of questions and captions: the demo's, or what its T5 has read; default: keywords",
    )  # fmt: skip


def _draw_scenes(options: argparse.Namespace, overrides: dict[str, Any]) -> None:
    refuse_settings("draw-scenes", overrides)
    if options.images < 10:
        raise ConfigError(f"--images: must be at least 10, so that every split has one, got {options.images}")
    from data_prep.demo_world.files import write_scenes

    tenth = options.images // 10
    write_scenes(
        options.out,
        num_train=options.images - 4 * tenth,
        num_restval=tenth,
        num_val=tenth,
        num_test=2 * tenth,
        seed=options.seed,
        wording=options.wording,
    )
    print(f"scenes: {options.out}")
    print(next_command("prepare", "--task", "vqa", "--raw", options.out, "--out", f"{options.out}-prepared"))


COMMANDS = (_add_prepare, _add_cache, _add_scenes)
