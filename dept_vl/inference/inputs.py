"""What to predict on, from files and the command line, and whether it can be. No torch, so that it is said at once."""

from __future__ import annotations

import json
import logging
import pkgutil
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dept_vl.data.image_files import IMAGE_SUFFIXES, coco_image_id, find_images, list_images
from dept_vl.data.images import is_turned, open_image
from dept_vl.errors import ConfigError, DataError
from dept_vl.models.language.stored import check_files
from dept_vl.runs.decoding import choose_decoding
from dept_vl.settings.schema import TrainConfig
from dept_vl.system.text_files import is_stream, parse_lines, read_text
from dept_vl.tasks import Task

if TYPE_CHECKING:
    from dept_vl.evaluators import Reference

logger = logging.getLogger(__name__)

REFERENCES = "references"
"""Key of what people answered, in a line of JSON lines."""


@dataclass(frozen=True)
class PredictionInput:
    """One thing to predict on.

    Attributes:
        images: Its image, or its images in the order that the model reads them in; empty for a text task.
        columns: The columns that the task's template reads, such as ``question``, and what else a line held.
        place: Where it stands, for messages: ``in.jsonl, line 3``; "" where it is an image or the command line.
        example_id: Its id in the official results format, where it has one; a text for a task of one's own alone.
        references: What people answered, where that is known.
    """

    images: tuple[Path, ...]
    columns: dict[str, Any]
    place: str = ""
    example_id: int | str | None = None
    references: tuple[str, ...] = ()

    def named(self, number: int) -> str:
        """Returns a name for messages; `number` counts the inputs from 1."""
        return self.place or " ".join(map(str, self.images)) or f"input {number}"


def image_column(images: Sequence[Path]) -> str | list[str] | None:
    """Returns images as the column ``image`` of a row has them: a path, of several a list; None without any."""
    paths = list(map(str, images))
    return paths if len(paths) > 1 else next(iter(paths), None)


@dataclass(frozen=True)
class Questions:
    """A file of official questions to answer.

    Attributes:
        file: ``v2_OpenEnded_mscoco_test2015_questions.json`` or one like it.
        images: The root of its images.
        annotations: The file of people's answers, where there is one.
    """

    file: Path
    images: Path
    annotations: Path | None = None


def read_inputs(
    task: Task,
    *,
    images: Sequence[Path] = (),
    file: Path | None = None,
    questions: Questions | None = None,
    rows: Iterable[tuple[str, dict[str, Any]]] | None = None,
    columns: Mapping[str, str],
) -> list[PredictionInput]:
    """Returns what to predict, from an image, a folder of images, JSON lines, official questions, or columns alone.

    Args:
        task: Decides which columns are needed, and whether an image is.
        images: An image, or as many as a row of the task has; a folder, of which every JPEG, PNG and WebP is taken; or
            a file as `file`.
        file: JSON lines: objects with the task's input columns and, for a task with images, ``image`` (relative to the
            file; to the current folder where the file is a pipe; of several a list). They may bring the task's id of
            the official results format, such as ``question_id``, and ``references``, what people answered.
        questions: Official questions.
        rows: Objects as those of `file`, each with its place.
        columns: Columns of every input that brings none of its own.

    Raises:
        ConfigError: The task needs an image or column that is not given, or does not take one that is.
        DataError: Nothing there, or a file is malformed.
    """
    unknown = sorted(set(columns) - set(task.input_columns))
    if unknown:
        takes = ", ".join(task.input_columns) or "none"
        raise ConfigError(f"--column {unknown[0]}: task {task.name!r} takes no such column (it takes: {takes})")
    if questions is not None:
        if images or file is not None:
            raise ConfigError("--questions: brings images and questions; leave --image and --input out")
        given = _read_questions(task, questions)
    elif rows is not None:
        if images or file is not None:
            raise ConfigError("--rows: name images and columns; leave --image and --input out")
        given = [_read_record(task, place, record, Path()) for place, record in rows]
    else:
        given = _given(task, images=images, file=file)
    inputs = [replace(item, columns={**columns, **item.columns}) for item in given]
    for number, item in enumerate(inputs, start=1):
        for name in task.input_columns:
            how = "--question TEXT" if name == "question" else f"--column {name}=TEXT"
            check_column(task, name, item.columns.get(name), item.named(number), how_to_give=how)
    return inputs


def check_inputs(
    config: TrainConfig, inputs: Sequence[PredictionInput], *, num_beams: int | None, on_error: Literal["stop", "skip"]
) -> list[PredictionInput]:
    """Refuses what cannot be answered, before any model is loaded.

    Args:
        config: The run's settings.
        inputs: From `read_inputs`.
        num_beams: Of the second answer; None for the default.
        on_error: What happens at an image that cannot be read: an error, or it is left out, and said.

    Returns:
        The inputs that can be answered.

    Raises:
        ConfigError: There is no such number of beams, the answers cannot be made as the settings say, or files of the
            backbone or the encoder are incomplete or do not fit together.
        DataError: An image is missing or damaged, all of them are, or the template cannot read an input's columns.
    """
    if num_beams is not None and num_beams < 0:
        raise ConfigError(f"--beams: must be at least 0 (greedy alone), got {num_beams}")
    bad: dict[Path, str] = {}
    for item in inputs:
        for image in item.images:
            if image not in bad:
                bad[image] = _look_at(image)
    bad = {path: problem for path, problem in bad.items() if problem}
    first_bad = [next((bad[image] for image in item.images if image in bad), "") for item in inputs]
    unreadable = [
        f"{f'{item.place}: ' if item.place else ''}{why}" for item, why in zip(inputs, first_bad, strict=True) if why
    ]
    if unreadable and on_error == "stop":
        others = f" (and {len(bad) - 1:,} more images)" if len(bad) > 1 else ""
        raise DataError(f"{unreadable[0]}{others}; --on-error skip answers the others")
    kept = [item for item, why in zip(inputs, first_bad, strict=True) if not why]
    if unreadable:
        logger.warning(
            "%d of %d inputs are left out, as their image cannot be read: %s%s",
            len(unreadable), len(inputs), "; ".join(unreadable[:3]), "; ..." if len(unreadable) > 3 else "",
        )  # fmt: skip
    if not kept:
        raise DataError("no input is left to answer: no image can be read")
    task = config.resolve_task()
    choose_decoding(config, task)
    source_texts(task, kept)
    check_files(config.model.backbone, config.model.revision)
    if task.uses_images:
        config.model.image_encoder.check_files()
    _say_what_stays_turned(config, kept)
    return kept


def source_texts(task: Task, inputs: Sequence[PredictionInput]) -> list[str]:
    """Returns the source text of every input.

    Args:
        task: Under the run's protocol.
        inputs: Images and columns.

    Raises:
        DataError: The template cannot read an input's columns: it is made for prepared rows, and inputs may hold
            anything.
    """
    texts = []
    for number, item in enumerate(inputs, start=1):
        try:
            texts.append(task.source_text({**item.columns, "image": image_column(item.images)}))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{item.named(number)}: task {task.name!r} cannot read these columns "
                f"({type(error).__name__}: {error}); given: {json.dumps(item.columns, ensure_ascii=False)[:200]}"
            ) from error
    return texts


def _look_at(image: Path) -> str:
    """Returns what is wrong with an image, "" if nothing is."""
    try:
        open_image(image)
    except DataError as error:
        return str(error)
    return ""


def _say_what_stays_turned(config: TrainConfig, inputs: Sequence[PredictionInput]) -> None:
    """Says which pictures a run sees as they are stored and not as every viewer shows them."""
    if config.model.image_encoder.exif == "apply":
        return
    turned = [
        str(image) for image in dict.fromkeys(image for item in inputs for image in item.images) if is_turned(image)
    ]
    if turned:
        logger.warning(
            "%d of the images are stored turned, and their EXIF rotation is not applied, as the run was trained with "
            "model.image_encoder.exif=ignore: %s%s",
            len(turned), ", ".join(turned[:3]), ", ..." if len(turned) > 3 else "",
        )  # fmt: skip


def check_column(task: Task, name: str, value: Any, where: str, *, how_to_give: str) -> None:
    """Refuses a column that the task's template would not read as what it is.

    Args:
        task: The task.
        name: The column.
        value: What it holds; None where it is missing.
        where: The input, for the message.
        how_to_give: How the column is given, for the message.

    Raises:
        ConfigError: It is missing or empty.
        DataError: It is of another kind, or holds bytes that are not text.
    """
    if value is None or not str(value).strip():
        raise ConfigError(f"{where}: task {task.name!r} needs a {name}; give {how_to_give}")
    kind = task.columns.get(name, "text")
    if kind in ("text", "text or empty") and not isinstance(value, str):
        raise DataError(f"{where}: column {name!r} should be a text, found {type(value).__name__} {str(value)[:80]!r}")
    try:
        str(value).encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{where}: column {name!r} is not UTF-8 text: {str(value)[:80]!a} ({error.reason})") from None


def _given(task: Task, *, images: Sequence[Path], file: Path | None) -> list[PredictionInput]:
    """Returns the inputs that images or file name, before the columns given to all."""
    if images and file is not None:
        raise ConfigError("--image and --input: give one of them")
    if images and not task.uses_images:
        raise ConfigError(f"--image: task {task.name!r} reads text alone; give --input JSONL or --column NAME=VALUE")
    if not images and file is None:
        if task.uses_images:
            what = "an image, a folder of images" if task.num_images == 1 else f"{task.num_images} images"
            raise ConfigError(f"--image: task {task.name!r} needs {what} or a JSONL file")
        return [PredictionInput((), {})]
    path = file or images[0]
    if path.is_dir() and task.num_images == 1 and len(images) < 2:
        return _read_folder(task, path)
    is_lines = is_stream(path) or path.name.lower().removesuffix(".gz").endswith(".jsonl")
    if file is not None or (is_lines and len(images) == 1):
        return _read_jsonl(task, path)
    if len(images) != task.num_images or any(one.is_dir() for one in images):
        raise ConfigError(
            f"--image: a row of task {task.name!r} has {_number(task)}, got {' '.join(map(str, images))}; for several "
            "rows give --input JSONL"
        )
    return [_of_images(task, images)]


def _number(task: Task) -> str:
    return "one image" if task.num_images == 1 else f"{task.num_images} images"


def _read_folder(task: Task, folder: Path) -> list[PredictionInput]:
    """Returns a folder's images, and says what else is in it."""
    found = list_images(folder)
    if not found.images:
        also = f"; {'; '.join(found.notes())}" if found.left_out else ""
        raise DataError(f"{folder}: no image in this folder (looked for {', '.join(IMAGE_SUFFIXES)}){also}")
    for note in found.notes():
        logger.info("%s: %s", folder, note)
    return [_of_images(task, [path]) for path in found.images]


def _of_images(task: Task, images: Sequence[Path]) -> PredictionInput:
    """Returns images as an input; where results are by image, one that is named as COCO's has its id."""
    example_id = coco_image_id(images[0].name) if task.result_keys[0] == "image_id" else None
    return PredictionInput(tuple(images), {}, example_id=example_id)


def _read_jsonl(task: Task, path: Path) -> list[PredictionInput]:
    root = Path() if is_stream(path) else path.parent
    inputs = [_read_record(task, place, record, root) for place, record in parse_lines(read_text(path), path)]
    if not inputs:
        raise DataError(f"{path}: no lines")
    return inputs


def _read_record(task: Task, place: str, record: dict[str, Any], root: Path) -> PredictionInput:
    """Returns an object of JSON lines as an input; `root` is what its image starts from."""
    images = _read_images(task, place, record) if task.uses_images else []
    references = record.pop(REFERENCES, [])
    if not isinstance(references, list) or not all(isinstance(text, str) for text in references):
        raise DataError(f'{place}: "{REFERENCES}" should be a list of texts, found {str(references)[:80]}')
    example_id = record.get(task.result_keys[0])
    has_id = type(example_id) is int or (task.declaration is not None and isinstance(example_id, str))
    return PredictionInput(
        tuple(root / image for image in images),
        {name: value for name, value in record.items() if name != "image"},
        place,
        example_id if has_id else None,
        tuple(references),
    )


def _read_images(task: Task, place: str, record: dict[str, Any]) -> list[str]:
    """Returns the paths of the images that an object of JSON lines names, as many as a row of the task has."""
    found = record.get("image")
    if task.num_images == 1:
        if not isinstance(found, str):
            raise DataError(f'{place}: missing "image", a path (has: {", ".join(record)})')
        return [found]
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise DataError(f'{place}: missing "image", a list of {task.num_images} paths (has: {", ".join(record)})')
    if len(found) != task.num_images:
        raise DataError(f'{place}: "image" has {len(found)} paths, and a row of task {task.name!r} has {_number(task)}')
    return found


def _read_questions(task: Task, questions: Questions) -> list[PredictionInput]:
    """Returns official questions with their images, and with the people's answers where they are given."""
    if "questions" not in task.reference_files or task.reference_reader is None:
        raise ConfigError(f"--questions: task {task.name!r} has no official questions; give --image or --input")
    from dept_vl.evaluators.official_files import load_vqa_questions

    asked, subtype = load_vqa_questions(questions.file)
    if not asked:
        raise DataError(f"{questions.file}: holds no question")
    year = re.sub("-(?:dev|std)", "", subtype)
    prefix = f"{year}/COCO_{year}_" if re.fullmatch(r"(?:train|val|test)20\d\d", year) else ""
    official = {image_id: f"{prefix}{image_id:012d}.jpg" for image_id, _ in asked.values()}
    found = {**official, **find_images(questions.images, official, by_number=True)}
    known: dict[int, Reference] = {}
    if questions.annotations is not None:
        read: Callable[..., dict[int, Reference]] = pkgutil.resolve_name(task.reference_reader)
        known = read(questions=questions.file, annotations=questions.annotations)
    return [
        PredictionInput(
            (questions.images / found[image_id],),
            {"question": text},
            f"{questions.file}, question {question_id}",
            question_id,
            tuple(known[question_id].references) if question_id in known else (),
        )
        for question_id, (image_id, text) in asked.items()
    ]
