"""VQA v2 as downloaded -> prepared splits of the task ``vqa`` on the Karpathy images."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from data_prep.prepared import Preparation, PreparedStats
from data_prep.raw.json_files import RawFile, find_raw, read_json
from data_prep.raw.karpathy import FILE, KarpathySplits, read_karpathy
from data_prep.raw.vqa_files import Question, join_questions
from dept_vl.data.image_files import locate_images
from dept_vl.data.manifest import manifest_schema, task_folder
from dept_vl.errors import DataError
from dept_vl.system.atomic import refuse_existing
from dept_vl.tasks import Row, SplitSize, Task
from dept_vl.tasks.splits import SPLITS
from dept_vl.tasks.vqa_answers import soft_scores

logger = logging.getLogger(__name__)

YEARS = ("train2014", "val2014")
SCHEMA = manifest_schema(images=True, text_columns=("question", "answer_type", "question_type"))


def prepare_vqa(
    task: Task,
    raw: Path,
    out: Path,
    *,
    answer_vocabulary: Path | None = None,
    images: Path | None = None,
    image_check: bool = True,
) -> PreparedStats:
    """Writes ``out/<task>/{train,val,test}.parquet`` and ``stats.json`` from the official files, all or nothing.

    Args:
        task: The task that the splits are of.
        raw: Folder with ``v2_OpenEnded_mscoco_{train,val}2014_questions.json``,
            ``v2_mscoco_{train,val}2014_annotations.json`` and ``dataset_coco.json``.
        out: The data folder.
        answer_vocabulary: JSON list of answers (or object with answers as keys, such as ``trainval_ans2label.json``);
            targets outside it are dropped. None: every answer is a target.
        images: Root of the image folders; None: `raw`.
        image_check: Whether each image's file is looked for. If not, rows carry the official path.

    Returns:
        Counts by split, also logged.

    Raises:
        DataError: A raw file is missing, damaged or of another shape, questions and annotations do not belong
            together, image files are missing, counts of complete data differ, or the task's folder is not empty.
    """
    refuse_existing(task_folder(out, task))
    karpathy = read_karpathy(raw)
    if karpathy.sentences is not None:
        raise DataError(f"{karpathy.file.path}: not COCO's images, which {task.name} asks about; put {FILE} beside it")
    vocabulary = None if answer_vocabulary is None else read_vocabulary(answer_vocabulary)
    questions: list[Question] = []
    inputs = [karpathy.file]
    for year in YEARS:
        found, files = read_questions(raw, year)
        questions += found
        inputs += files
    _refuse_twice(questions, raw)
    used = {q.image_id: karpathy.path_of[q.image_id] for q in questions if q.image_id in karpathy.split_of}
    root = images if images is not None else raw
    paths = locate_images(root, used) if image_check else used
    return build(task, questions, karpathy, paths, vocabulary, inputs).write(out, raw, root)


def build(
    task: Task,
    questions: Sequence[Question],
    karpathy: KarpathySplits,
    paths: Mapping[int, str],
    vocabulary: Collection[str] | None,
    inputs: Sequence[RawFile],
) -> Preparation:
    """Sorts questions into splits and counts them; reads and writes nothing.

    Training questions without a target are left out and counted; validation and test keep every question.
    """
    by_split: dict[str, list[Question]] = {split: [] for split in SPLITS}
    unlisted = 0
    for question in questions:
        if question.image_id in karpathy.split_of:
            by_split[karpathy.split_of[question.image_id]].append(question)
        else:
            unlisted += 1
    trainable = [q for q in by_split["train"] if targets(q, vocabulary)]
    examples = {split: SplitSize(len(asked), len({q.image_id for q in asked})) for split, asked in by_split.items()}
    return Preparation(
        task=task,
        schema=SCHEMA,
        rows={
            split: convert(trainable if split == "train" else by_split[split], paths, vocabulary) for split in SPLITS
        },
        examples=examples,
        left_out={
            f"questions left out: their image is not in {karpathy.file.path.name}": unlisted,
            "training questions left out: no answer is a target": len(by_split["train"]) - len(trainable),
        },
        inputs=inputs,
        **karpathy.completeness(task, examples),
    )


def convert(
    questions: Sequence[Question], paths: Mapping[int, str], vocabulary: Collection[str] | None = None
) -> Iterator[Row]:
    """Yields the manifest row of each question, in order.

    Args:
        questions: Questions whose image is in `paths`.
        paths: Image id to path.
        vocabulary: Answers that may be targets; None: all.
    """
    for question in questions:
        scores = targets(question, vocabulary)
        yield {
            "example_id": question.question_id,
            "image_id": question.image_id,
            "image": paths[question.image_id],
            "question": question.question,
            "answer_type": question.answer_type,
            "question_type": question.question_type,
            "targets": list(scores),
            "target_weights": list(scores.values()),
            "references": list(question.answers),
        }


def targets(question: Question, vocabulary: Collection[str] | None) -> dict[str, float]:
    """Returns the normalised answers training may draw and their soft scores in (0, 1]."""
    scores = soft_scores(question.answers)
    return {answer: score for answer, score in scores.items() if vocabulary is None or answer in vocabulary}


def read_questions(raw: Path, year: str) -> tuple[list[Question], tuple[RawFile, RawFile]]:
    """Reads the questions of ``"train2014"`` or ``"val2014"`` and joins them with their annotations.

    Raises:
        DataError: As `join_questions`.
    """
    folders = ("annotations", "vqa", "questions")
    question_file = read_json(find_raw(raw, f"v2_OpenEnded_mscoco_{year}_questions.json", *folders))
    annotation_file = read_json(find_raw(raw, f"v2_mscoco_{year}_annotations.json", *folders))
    found = join_questions(question_file, annotation_file)
    return found, (question_file.without_content(), annotation_file.without_content())


def _refuse_twice(questions: Sequence[Question], raw: Path) -> None:
    """Raises if the two years share a question id."""
    twice = [i for i, n in Counter(q.question_id for q in questions).items() if n > 1]
    if twice:
        raise DataError(f"{raw}: question {twice[0]} is in both the train2014 and the val2014 file ({len(twice)} are)")


def read_vocabulary(path: Path) -> frozenset[str]:
    """Reads the answers that may be targets: a JSON list, or the keys of an object. The empty string is none.

    Raises:
        DataError: The file is missing, damaged or of another shape, or holds no answer.
    """
    content = read_json(path).content
    if not isinstance(content, list | dict) or not all(isinstance(answer, str) for answer in content):
        raise DataError(f"{path}: expected a JSON list of answers, or an object with answers as keys")
    vocabulary = frozenset(answer for answer in content if answer)
    if not vocabulary:
        raise DataError(f"{path}: holds no answer")
    return vocabulary
