"""Commands about runs: train, eval, predict, info."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dept_vl.cli.settings import (
    add_command,
    check_paths,
    config_overrides,
    load_settings,
    parse_seeds,
    print_on_main_process,
    read_name,
)
from dept_vl.errors import ConfigError

if TYPE_CHECKING:
    from dept_vl.inference.inputs import Questions
    from dept_vl.settings.schema import TrainConfig
    from dept_vl.tasks import Task

    Rows = Iterator[tuple[str, dict[str, Any]]]


def _add_train(commands: Any) -> None:
    parser = add_command(commands, "train", _train, "Train a method, and the visual projection unless it is frozen.")
    parser.add_argument("--resume", action="store_true", help="go on with the run in the output folder")
    parser.add_argument("--overwrite", action="store_true", help="replace the run in the output folder")
    parser.add_argument(
        "--dry-run", action="store_true",
        help="write nothing: run the first steps, and print how long all of it will take, its memory and disk",
    )  # fmt: skip
    parser.add_argument(
        "--seeds", type=parse_seeds, metavar="N,N,...",
        help="train and score a run for each, in <output-dir>/seed-N; prints mean and standard deviation",
    )  # fmt: skip


def _train(options: argparse.Namespace, overrides: dict[str, Any]) -> None:
    if options.dry_run:
        _forecast(options, overrides)
        return
    if options.seeds:
        _train_seeds(options, overrides)
        return
    from data_prep.first_use.data_dir import open_data_dir
    from dept_vl.runs.decoding import choose_decoding
    from dept_vl.runs.refusals import check_start
    from dept_vl.runs.selection import check_best_metric, check_data

    config = load_settings(options, overrides)
    check_best_metric(config)
    for one in config.each_task():
        choose_decoding(one, one.resolve_task())
    check_start(config, resume=options.resume, overwrite=options.overwrite)
    data_dir = open_data_dir(config)
    check_data(config, data_dir, ["train", "val"])
    from dept_vl.reports.text import describe_training
    from dept_vl.training.trainer import train

    result = train(config, data_dir, resume=options.resume, overwrite=options.overwrite)
    print_on_main_process(describe_training(result))


def _forecast(options: argparse.Namespace, overrides: dict[str, Any]) -> None:
    for name in ("seeds", "resume"):
        if getattr(options, name):
            raise ConfigError(f"--{name}: has no effect with --dry-run, which forecasts one run from its start")
    from data_prep.first_use.data_dir import open_data_dir
    from dept_vl.reports.forecast import describe_forecast
    from dept_vl.training.forecast import forecast_run

    config = load_settings(options, overrides)
    forecast = forecast_run(config, lambda: open_data_dir(config, may_make=False), overwrite=options.overwrite)
    print_on_main_process(describe_forecast(forecast))


def _train_seeds(options: argparse.Namespace, overrides: dict[str, Any]) -> None:
    if "seed" in config_overrides(options, overrides):
        raise ConfigError("seed: has no effect beside --seeds; give one of them")
    from data_prep.first_use.data_dir import open_data_dir
    from dept_vl.experiments.folder import check_experiment
    from dept_vl.experiments.plan import check_seeds, seeds_record
    from dept_vl.runs.refusals import check_method
    from dept_vl.runs.selection import check_best_metric, check_data

    check_seeds(options.seeds)
    config = load_settings(options, overrides, resume_from="seeds.yaml")
    check_best_metric(config)
    check_method(config)
    check_experiment(config.run_dir, "seeds", seeds_record(config), resume=options.resume, overwrite=options.overwrite)
    data_dir = open_data_dir(config)
    check_data(config, data_dir, ["train", "val", "test"])
    from dept_vl.experiments.seeds import train_seeds
    from dept_vl.reports.text import describe_seeds

    result = train_seeds(config, data_dir, options.seeds, resume=options.resume, overwrite=options.overwrite)
    print_on_main_process(describe_seeds(result))


def _add_eval(commands: Any) -> None:
    parser = add_command(
        commands, "eval", _eval, "Score a trained run, or a file of predictions in an official format."
    )
    parser.add_argument(
        "--checkpoint", type=read_name, metavar="RUN", help="run folder or hub id; default: runs/<task>-<tuner>"
    )
    parser.add_argument("--split", default="test", choices=("train", "val", "test"), help="default: test")
    parser.add_argument(
        "--metric", metavar="NAMES", help="evaluators or scores, as CIDEr,BLEU-4; default: the task's own"
    )
    parser.add_argument("--predictions", type=Path, metavar="FILE", help="official results, lmms-eval or VLMEvalKit")
    for name, text in _reference_files().items():
        parser.add_argument(f"--{name}", type=Path, metavar="FILE", help=f"{text}, with --predictions")
    parser.add_argument("--tokenizer", default="ptb", choices=("ptb", "stanford"), help="caption tokenizer")
    parser.add_argument("--allow-missing", action="store_true", help="score absent predictions as empty")
    parser.add_argument("--output", type=Path, metavar="FILE", help="where the scores go as JSON, the rest beside them")
    parser.add_argument(
        "--decode-agreement", action="store_true",
        help="answer by scoring labels and by generating, and report the share of equal answers",
    )  # fmt: skip
    parser.add_argument(
        "--verify", type=Path, metavar="RESULTS",
        help="make the scores in this results file again and compare; exit code 1 if they differ",
    )  # fmt: skip
    parser.add_argument("--question-types", action="store_true", help="also print VQA accuracy per question type")


def _reference_files() -> dict[str, str]:
    """Returns every flag that names an official reference file, and which one, as the tasks declare them."""
    from dept_vl.tasks import TASKS
    from dept_vl.tasks.base import PREPARED_SPLIT

    declared = [item for task in TASKS.values() for item in task.reference_files.items()] + [*PREPARED_SPLIT.items()]
    flags = {name for name, _ in declared}
    return {flag: " or ".join(dict.fromkeys(text for name, text in declared if name == flag)) for flag in sorted(flags)}


def _eval(options: argparse.Namespace, overrides: dict[str, Any]) -> None:
    if options.verify:
        _verify(options, overrides)
        return
    from data_prep.first_use.data_dir import open_data_dir
    from dept_vl.reports.text import describe_evaluation

    metrics = [name for name in options.metric.split(",") if name.strip()] if options.metric else None
    if options.predictions:
        from dept_vl.inference.score_file import evaluate_file
        from dept_vl.settings.declared import find_task

        files = {name: getattr(options, name) for name in _reference_files()}
        settings = config_overrides(options, overrides)
        if set(settings) - {"task"}:
            raise ConfigError(f"{sorted(set(settings) - {'task'})[0]}: has no effect with --predictions")
        if options.decode_agreement:
            raise ConfigError("--decode-agreement: has no effect with --predictions")
        result = evaluate_file(
            find_task(str(settings.get("task", "vqa"))),
            options.predictions,
            {name: path for name, path in files.items() if path},
            metrics=metrics,
            tokenizer=options.tokenizer,
            allow_missing=options.allow_missing,
            output=options.output,
        )
    else:
        from dept_vl.inference.evaluate import check_evaluation, evaluate_run

        config, run_dir, task = run_config(options, overrides)
        check_evaluation(
            config, run_dir, metrics=metrics, tokenizer=options.tokenizer, with_agreement=options.decode_agreement,
            task=task,
        )  # fmt: skip
        result = evaluate_run(
            config,
            open_data_dir(config),
            run_dir,
            split=options.split,
            metrics=metrics,
            tokenizer=options.tokenizer,
            output=options.output,
            with_agreement=options.decode_agreement,
            task=task,
        )
    print_on_main_process(describe_evaluation(result, question_types=options.question_types))


def _verify(options: argparse.Namespace, overrides: dict[str, Any]) -> None:
    from data_prep.first_use.data_dir import open_data_dir
    from dept_vl.inference.verify import MOVABLE, read_record, verify_file, verify_run
    from dept_vl.settings.renamed import new_key

    settings = config_overrides(options, overrides)
    given = [f"--{name}" for name in ("checkpoint", "metric", "output", "config") if getattr(options, name)]
    given += sorted(key for key in settings if new_key(key) not in MOVABLE)
    if given:
        raise ConfigError(
            f"{given[0]}: has no effect with --verify (only what moved may be given: {', '.join(MOVABLE)})"
        )
    files = {name: getattr(options, name) for name in ("predictions", *_reference_files()) if getattr(options, name)}
    record = read_record(options.verify)
    if record.config is None:
        if settings:
            raise ConfigError(f"{next(iter(settings))}: has no effect on scores of a predictions file")
        notes = verify_file(record, files)
    elif files:
        raise ConfigError(f"--{next(iter(files))}: has no effect on scores of a run")
    else:
        config = record.settings(settings)
        check_paths(config, options.verify.parent, settings, options.reading)
        notes = verify_run(record, config, open_data_dir(config))
    for note in notes:
        print_on_main_process(f"note: {note}")
    print_on_main_process(f"verified: {options.verify}: made again, equal")


def run_config(options: argparse.Namespace, overrides: dict[str, Any]) -> tuple[TrainConfig, Path, str | None]:
    """Returns a run's settings with overrides laid over them, its folder, and which of its tasks is asked for."""
    from dept_vl.runs.folder import read_run_config
    from dept_vl.runs.hub import find_run
    from dept_vl.settings.declared import find_task, find_tasks, is_task_file
    from dept_vl.settings.load import load_config

    settings = config_overrides(options, overrides)
    asked, tuner = settings.pop("task", None), settings.pop("tuner.name", "dept")
    file = find_task(asked) if asked is not None and is_task_file(asked) else None
    name = file.name if file else asked
    run_dir = find_run(options.checkpoint) if options.checkpoint else Path(f"runs/{name or 'vqa'}-{tuner}")
    if name is not None and not file and not run_dir.exists():
        find_tasks(name)  # a task that nobody knows is said before a folder that is not there
    recorded = read_run_config(run_dir, getattr(options, "named_with", "--checkpoint"))
    if name not in (None, recorded.task, *recorded.task_names):
        raise ConfigError(f"task: {run_dir} was trained on {recorded.task!r}, asked for {name!r}")
    if file and file.declaration != recorded.declaration:
        raise ConfigError(
            f"task: {run_dir} was trained on another declaration of {recorded.task!r} than {asked} has; leave --task "
            "out to use the recorded one"
        )
    protocol = settings.get("data.protocol", recorded.data.protocol)
    if protocol != recorded.data.protocol:
        raise ConfigError(
            f"data.protocol: {run_dir} was trained under {recorded.data.protocol!r}, asked for {protocol!r}; "
            "the two are not comparable"
        )
    for one, other in (("data.dir", "data.rows"), ("data.rows", "data.dir")):
        if one in settings:  # in place of the recorded data, in whichever way those are named
            settings.setdefault(other, None)
    config = load_config(run_dir / "config.yaml", settings)
    check_paths(config, run_dir, settings, options.reading)
    return config, run_dir, None if name == config.task else name


def one_task_config(options: argparse.Namespace, overrides: dict[str, Any]) -> tuple[TrainConfig, Path]:
    """Returns a run's settings as one task has them, the one that is asked for of several, and its folder.

    Raises:
        ConfigError: The run was trained on several, and none is asked for.
    """
    config, run_dir, asked = run_config(options, overrides)
    if config.is_mix and asked is None:
        raise ConfigError(f"--task: {run_dir} was trained on {', '.join(config.task_names)}; name the one to ask")
    return (config if asked is None else config.for_task(asked)), run_dir


def _add_predict(commands: Any) -> None:
    parser = add_command(commands, "predict", _predict, "Answer about images or texts with a trained run.")
    parser.add_argument(
        "--checkpoint", type=read_name, metavar="RUN", help="run folder or hub id; default: runs/<task>-<tuner>"
    )
    parser.add_argument(
        "--image", type=Path, nargs="+", action="extend", default=[], metavar="PATH",
        help="an image (as many as a row of the task has), a folder of images, or a JSONL file of {image, question}",
    )  # fmt: skip
    parser.add_argument(
        "--input", type=Path, metavar="JSONL", help="objects of the task's input columns, a line each; -: from a pipe"
    )
    parser.add_argument(
        "--questions", type=Path, metavar="JSON", help="VQA: a file of official questions, answers or not"
    )
    parser.add_argument("--annotations", type=Path, metavar="JSON", help="what people answered to --questions")
    parser.add_argument("--question", metavar="TEXT", help="same as --column question=TEXT")
    parser.add_argument(
        "--column", action="append", default=[], metavar="NAME=VALUE",
        help="an input column of every input that brings none of its own; repeatable",
    )  # fmt: skip
    parser.add_argument(
        "--beams", type=int, metavar="N",
        help="beams of the second answer, 0: the greedy one alone; default: 5, for an official file the run's own",
    )  # fmt: skip
    parser.add_argument(
        "--on-error", choices=("stop", "skip"), help="at an image that cannot be read; default: data.on_image_error"
    )
    parser.add_argument("--sheet", type=Path, metavar="PNG", help="draw images with question and predictions")
    parser.add_argument(
        "--output", type=Path, metavar="FILE",
        help="write predictions too: .json (or .zip of it) in the official results format, else JSONL",
    )  # fmt: skip


def _predict(options: argparse.Namespace, overrides: dict[str, Any]) -> None:
    from dept_vl.inference.inputs import check_inputs, read_inputs
    from dept_vl.inference.prediction_files import check_output, is_official, write_predictions
    from dept_vl.models.adapter.presence import require_adapter

    config, run_dir = one_task_config(options, overrides)
    task = config.resolve_task()
    columns = _columns(options.column)
    if options.question is not None:
        columns["question"] = options.question
    inputs = read_inputs(
        task, images=options.image, file=options.input, questions=_questions(options),
        rows=_rows(options, overrides, task), columns=columns,
    )  # fmt: skip
    if options.sheet and any(not item.images for item in inputs):
        raise ConfigError(f"--sheet: draws images, and task {config.task!r} has none")
    if options.output:
        check_output(options.output, task, inputs)
    on_error = options.on_error or config.data.on_image_error
    inputs = check_inputs(config, inputs, num_beams=options.beams, on_error=on_error)
    config.tuner.check_packages()
    require_adapter(run_dir)
    from dept_vl.inference.predict import predict_inputs
    from dept_vl.reports.text import MAX_SHOWN, describe_predictions

    predictions = predict_inputs(
        config, run_dir, inputs,
        num_beams=options.beams, as_scored=is_official(options.output), with_confidence=options.sheet is not None,
    )  # fmt: skip
    print(describe_predictions(predictions, limit=MAX_SHOWN if options.output else None))
    if options.output:
        write_predictions(options.output, predictions, task)
        print(f"written: {options.output}: {len(predictions):,} predictions")
    if options.sheet:
        from dept_vl.reports.sheet import write_sheet

        write_sheet(options.sheet, predictions, has_one_answer=bool(task.input_columns))
        print(f"sheet: {options.sheet}")


def _rows(options: argparse.Namespace, overrides: dict[str, Any], task: Task) -> Rows | None:
    """Returns the rows that the command line names; those that the run was trained on are not meant."""
    rows = getattr(options, "set:data.rows") or overrides.get("data.rows")
    if rows is None:
        return None
    from data_prep.converters.row_inputs import read_row_inputs

    images = getattr(options, "set:data.image_dir") or overrides.get("data.image_dir")
    return read_row_inputs(task, str(rows), Path(str(images)) if images else None)


def _questions(options: argparse.Namespace) -> Questions | None:
    """Returns the official questions that flags name."""
    from dept_vl.inference.inputs import Questions

    images = getattr(options, "set:data.image_dir")
    if options.questions is None:
        alone = {} if getattr(options, "set:data.rows") else {"--images": images}
        given = [flag for flag, value in {**alone, "--annotations": options.annotations}.items() if value]
        if given:
            raise ConfigError(f"{given[0]}: belongs to --questions, which is not given")
        return None
    if images is None:
        raise ConfigError("--questions: needs --images DIR, the root of their images")
    return Questions(options.questions, Path(images), options.annotations)


def _columns(pairs: list[str]) -> dict[str, str]:
    """Returns the columns given as NAME=VALUE."""
    columns = {}
    for pair in pairs:
        name, has_value, value = pair.partition("=")
        if not has_value or name in columns:
            raise ConfigError(f"--column: expected NAME=VALUE, each name once, got {pair!r}")
        columns[name] = value
    return columns


def _add_info(commands: Any) -> None:
    add_command(commands, "info", _info, "Print the trainable-parameter budget of a configuration.")


def _info(options: argparse.Namespace, overrides: dict[str, Any]) -> None:
    from dept_vl.runs.refusals import check_backbone

    config = load_settings(options, overrides)
    check_backbone(config)
    from dept_vl.reports.text import format_budget, format_recipe
    from dept_vl.runs.info import count_as_table_3, count_budget

    print(f"{config.task}, {config.tuner.label} on {config.model.backbone}:")
    print(format_budget(count_budget(config), count_as_table_3(config)))
    if recipe := format_recipe(config):
        print(recipe)


COMMANDS = (_add_train, _add_eval, _add_predict, _add_info)
