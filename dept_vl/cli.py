"""Arguments to a configuration to one call. No logic, and no heavy import before a command is known."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dept_vl import __version__
from dept_vl.errors import CheckpointError, ConfigError, DataError, DivergenceError

if TYPE_CHECKING:
    from dept_vl.config import TrainConfig

ALIASES = {
    "task": "task",
    "output-dir": "output_dir",
    "seed": "seed",
    "tuner": "tuner.name",
    "lr": "optim.prompt_lr",
    "lowrank-lr": "optim.lowrank_lr",
    "projection-lr": "optim.projection_lr",
    "data-dir": "data.dir",
    "on-long": "data.on_long",
}
"""Named flag -> the dotted key it stands for. Every other setting is ``--dotted.key value``."""

_USER_ERRORS = (ConfigError, DataError, CheckpointError)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0, 2 for bad input, 1 for a diverged run, 130 when interrupted."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for library in ("httpx", "datasets", "accelerate", "urllib3", "PIL"):
        logging.getLogger(library).setLevel(logging.WARNING)
    try:
        words, overrides = _split_overrides(arguments)
        options = _parser().parse_args(words)
        command: Callable[[argparse.Namespace, dict[str, Any]], None] = options.command
        command(options, overrides)
    except _USER_ERRORS as error:
        return _fail(str(error), 2)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}", 2)
    except DivergenceError as error:
        return _fail(str(error), 1)
    except KeyboardInterrupt:
        return _fail(
            "interrupted; `dept-vl train --resume` with the same settings goes on from the last checkpoint", 130
        )
    return 0


def _say(text: str) -> None:
    """Prints, on the main process of a launch only."""
    if int(os.environ.get("RANK", "0")) == 0:
        print(text)


def _fail(message: str, code: int) -> int:
    print(f"dept-vl: error: {message}", file=sys.stderr)
    return code


def _split_overrides(arguments: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Takes ``--dotted.key value`` and ``--dotted.key=value`` out of the arguments; values are read as YAML."""
    import yaml

    words: list[str] = []
    overrides: dict[str, Any] = {}
    rest = iter(arguments)
    for word in rest:
        key, has_value, value = word[2:].partition("=")
        if not word.startswith("--") or "." not in key:
            words.append(word)
            continue
        if not has_value:
            following = next(rest, None)
            if following is None:
                raise ConfigError(f"--{key}: expected a value after it")
            value = following
        try:
            overrides[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            overrides[key] = value
    return words, overrides


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dept-vl",
        description="Decomposed Prompt Tuning (DePT) of a frozen CLIP-T5: VQA v2, COCO captions and text tasks.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"dept-vl {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for add in (_add_train, _add_eval, _add_predict, _add_info, _add_prepare, _add_cache, _add_scenes):
        add(commands)
    return parser


def _command(
    commands: Any,
    name: str,
    run: Callable[[argparse.Namespace, dict[str, Any]], None],
    text: str,
    *,
    has_settings: bool = True,
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=text, allow_abbrev=False, add_help=not has_settings
    )
    parser.set_defaults(command=run)
    if has_settings:
        _add_settings(parser)
    return parser


class _HelpWithSettings(argparse.Action):
    """Prints the options and then every setting; the settings are only looked up when help is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from dept_vl.config import describe_settings

        print(parser.format_help())
        print("settings (--dotted.key value; also keys of a --config file): type, default, meaning")
        print(describe_settings())
        parser.exit()


def _add_settings(parser: argparse.ArgumentParser) -> None:
    """Adds ``--config``, the aliases of dotted keys, and help that lists every setting."""
    parser.add_argument("-h", "--help", nargs=0, action=_HelpWithSettings, help="show this and every setting, and exit")
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file of settings, or 'demo'")
    for flag, key in ALIASES.items():
        parser.add_argument(f"--{flag}", dest=f"set:{key}", metavar="VALUE", help=f"sets {key}")


def _config_overrides(options: argparse.Namespace, overrides: dict[str, Any]) -> dict[str, Any]:
    """Returns dotted overrides, those given through aliases among them."""
    import yaml

    given = {
        key.removeprefix("set:"): yaml.safe_load(value) if value != "" else value
        for key, value in vars(options).items()
        if key.startswith("set:") and value is not None
    }
    twice = sorted(set(given) & set(overrides))
    if twice:
        raise ConfigError(f"{twice[0]}: given twice on the command line")
    return {**given, **overrides}


def _load(options: argparse.Namespace, overrides: dict[str, Any]) -> TrainConfig:
    """Returns the configuration; the embedded one when neither a file nor data are named."""
    from dept_vl.config import load_config
    from dept_vl.demo import demo_config

    settings = _config_overrides(options, overrides)
    task, tuner = str(settings.get("task", "vqa")), str(settings.get("tuner.name", "dept"))
    path = options.config
    if path is None and getattr(options, "resume", False):
        path = Path(str(settings.get("output_dir", f"runs/{task}-{tuner}"))) / "config.yaml"
    elif path == Path("demo"):
        path = demo_config(task, tuner)
    elif path is None and settings.get("data.dir", "demo") == "demo":
        path = demo_config(task, tuner)
        logging.info("no data and no --config given: using the embedded scenes, CLIP and T5")
    return load_config(path, settings)


def _data_dir(config: TrainConfig) -> Path:
    """Returns the folder of prepared data, making the embedded ones on first use."""
    if config.is_demo_data:
        from data_prep.demo_data import demo_data_dir

        return demo_data_dir()
    if config.data.dir is None:
        raise ConfigError("data.dir: not set; give --data-dir DATA (what `dept-vl prepare` wrote), or 'demo'")
    return Path(config.data.dir)


def _add_train(commands: Any) -> None:
    parser = _command(commands, "train", _train, "Train a tuner and the visual projection.")
    parser.add_argument("--resume", action="store_true", help="go on with the run in the output folder")
    parser.add_argument("--overwrite", action="store_true", help="replace the run in the output folder")


def _train(options: argparse.Namespace, overrides: dict[str, Any]) -> None:
    config = _load(options, overrides)
    data_dir = _data_dir(config)
    from dept_vl.report import describe_training
    from dept_vl.train import train

    result = train(config, data_dir, resume=options.resume, overwrite=options.overwrite)
    _say(describe_training(result))


def _add_eval(commands: Any) -> None:
    parser = _command(commands, "eval", _eval, "Score a trained run, or a file of predictions in an official format.")
    parser.add_argument("--checkpoint", type=Path, metavar="RUN", help="run folder; default: runs/<task>-<tuner>")
    parser.add_argument("--split", default="test", choices=("train", "val", "test"), help="default: test")
    parser.add_argument("--metric", metavar="NAMES", help="comma-separated evaluators; default: the task's own")
    parser.add_argument("--predictions", type=Path, metavar="FILE", help="results file in the official format")
    parser.add_argument("--questions", type=Path, metavar="FILE", help="VQA questions, with --predictions")
    parser.add_argument("--annotations", type=Path, metavar="FILE", help="VQA annotations, with --predictions")
    parser.add_argument("--references", type=Path, metavar="FILE", help="captions_*.json, with --predictions")
    parser.add_argument("--tokenizer", default="ptb", choices=("ptb", "stanford"), help="caption tokenizer")
    parser.add_argument("--allow-missing", action="store_true", help="score absent predictions as empty")
    parser.add_argument("--output", type=Path, metavar="FILE", help="where the scores go as JSON")
    parser.add_argument("--question-types", action="store_true", help="also print VQA accuracy per question type")


def _eval(options: argparse.Namespace, overrides: dict[str, Any]) -> None:
    from dept_vl.report import describe_evaluation

    metrics = options.metric.split(",") if options.metric else None
    if options.predictions:
        from dept_vl.evaluate import evaluate_file

        files = {name: getattr(options, name) for name in ("questions", "annotations", "references")}
        settings = _config_overrides(options, overrides)
        if set(settings) - {"task"}:
            raise ConfigError(f"{sorted(set(settings) - {'task'})[0]}: has no effect with --predictions")
        result = evaluate_file(
            str(settings.get("task", "vqa")),
            options.predictions,
            {name: path for name, path in files.items() if path},
            metrics=metrics,
            tokenizer=options.tokenizer,
            allow_missing=options.allow_missing,
            output=options.output,
        )
    else:
        from dept_vl.evaluate import evaluate_run

        config, run_dir = _run_config(options, overrides)
        result = evaluate_run(
            config,
            _data_dir(config),
            run_dir,
            split=options.split,
            metrics=metrics,
            tokenizer=options.tokenizer,
            output=options.output,
        )
    _say(describe_evaluation(result, question_types=options.question_types))


def _run_config(options: argparse.Namespace, overrides: dict[str, Any]) -> tuple[TrainConfig, Path]:
    """Returns a run's settings with overrides laid over them, and its folder."""
    from dept_vl.config import load_config
    from dept_vl.run_folder import read_run_config

    settings = _config_overrides(options, overrides)
    if options.config:
        raise ConfigError("--config: a run has its own settings; override single ones with --dotted.key value")
    task, tuner = settings.get("task", "vqa"), settings.pop("tuner.name", "dept")
    run_dir = options.checkpoint or Path(f"runs/{task}-{tuner}")
    recorded = read_run_config(run_dir)
    if settings.get("task", recorded.task) != recorded.task:
        raise ConfigError(f"task: {run_dir} was trained on {recorded.task!r}, asked for {settings['task']!r}")
    return load_config(run_dir / "config.yaml", settings), run_dir


def _add_predict(commands: Any) -> None:
    parser = _command(commands, "predict", _predict, "Answer questions about images, or caption them.")
    parser.add_argument("--checkpoint", type=Path, metavar="RUN", help="run folder; default: runs/<task>-<tuner>")
    parser.add_argument(
        "--image", type=Path, required=True, metavar="PATH",
        help="an image, a folder of images, or a JSONL file of {image, question}",
    )  # fmt: skip
    parser.add_argument("--question", metavar="TEXT", help="asked of every image that brings none of its own")
    parser.add_argument("--beams", type=int, default=5, metavar="N", help="beams, beside greedy; default: 5")
    parser.add_argument("--sheet", type=Path, metavar="PNG", help="draw images with question and predictions")
    parser.add_argument("--output", type=Path, metavar="JSONL", help="write predictions to a file too")


def _predict(options: argparse.Namespace, overrides: dict[str, Any]) -> None:
    from dept_vl.predict import predict_images, read_inputs, write_predictions
    from dept_vl.report import describe_predictions

    config, run_dir = _run_config(options, overrides)
    inputs = read_inputs(config.task, options.image, options.question)
    predictions = predict_images(config, run_dir, inputs, num_beams=options.beams)
    print(describe_predictions(predictions))
    if options.output:
        write_predictions(options.output, predictions)
    if options.sheet:
        from dept_vl.sheet import write_sheet

        write_sheet(options.sheet, predictions)
        print(f"sheet: {options.sheet}")


def _add_info(commands: Any) -> None:
    _command(commands, "info", _info, "Print the trainable-parameter budget of a configuration.")


def _info(options: argparse.Namespace, overrides: dict[str, Any]) -> None:
    config = _load(options, overrides)
    from dept_vl.info import count_budget
    from dept_vl.report import format_budget

    print(f"{config.task}, {config.tuner.name} on {config.model.backbone}:\n{format_budget(count_budget(config))}")


def _add_prepare(commands: Any) -> None:
    parser = _command(
        commands, "prepare", _prepare, "Turn official raw files into prepared splits.", has_settings=False
    )
    parser.add_argument("--task", required=True, metavar="NAME", help="vqa or coco")
    parser.add_argument("--raw", type=Path, required=True, metavar="DIR", help="folder of the official files")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="data folder; each task gets its own in it"
    )
    parser.add_argument("--images", type=Path, metavar="DIR", help="root of the image folders; default: --raw")
    parser.add_argument("--answer-vocabulary", type=Path, metavar="JSON", help="VQA: train on these answers only")
    parser.add_argument("--no-image-check", action="store_true", help="do not look for the image files")


def _prepare(options: argparse.Namespace, overrides: dict[str, Any]) -> None:
    _refuse_settings("prepare", overrides)
    from data_prep.prepare import prepare

    stats = prepare(
        options.task,
        options.raw,
        options.out,
        images=options.images,
        answer_vocabulary=options.answer_vocabulary,
        check_images=not options.no_image_check,
    )
    print(f"prepared: {stats.folder}")


def _add_cache(commands: Any) -> None:
    parser = _command(commands, "cache-features", _cache, "Encode every image of a task once with the frozen CLIP.")
    parser.add_argument("--batch-size", type=int, default=64, metavar="N", help="images a forward; default: 64")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="decoding processes; default: 2")
    parser.add_argument("--on-error", default="stop", choices=("stop", "skip"), help="at an image that cannot be read")


def _cache(options: argparse.Namespace, overrides: dict[str, Any]) -> None:
    config = _load(options, overrides)
    data_dir = _data_dir(config)
    from data_prep.cache_features import cache_features

    folder = cache_features(
        config.model.clip,
        data_dir,
        config.task,
        batch_size=options.batch_size,
        num_workers=options.workers,
        on_error=options.on_error,
    )
    print(f"features: {folder}")


def _add_scenes(commands: Any) -> None:
    text = "Draw small scenes in the official raw formats of VQA v2, COCO captions and the Karpathy split."
    parser = _command(commands, "draw-scenes", _draw_scenes, text, has_settings=False)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="new folder")
    parser.add_argument("--images", type=int, default=100, metavar="N", help="images, at least 10; default: 100")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="default: 1")


def _draw_scenes(options: argparse.Namespace, overrides: dict[str, Any]) -> None:
    _refuse_settings("draw-scenes", overrides)
    if options.images < 10:
        raise ConfigError(f"--images: must be at least 10, so that every split has one, got {options.images}")
    from data_prep.scenes import write_scenes

    tenth = options.images // 10
    write_scenes(
        options.out,
        num_train=options.images - 4 * tenth,
        num_restval=tenth,
        num_val=tenth,
        num_test=2 * tenth,
        seed=options.seed,
    )
    print(f"scenes: {options.out}")


def _refuse_settings(command: str, overrides: dict[str, Any]) -> None:
    if overrides:
        raise ConfigError(f"--{next(iter(overrides))}: `dept-vl {command}` takes no settings; see its --help")
