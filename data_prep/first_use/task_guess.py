"""What a table's columns make of a task: its kind, target, template, labels, splits, metrics and lengths."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from data_prep.first_use.column_profiles import Column, by_name, find_id, find_split, numbered
from data_prep.raw.row_sources import RowSource, class_name
from data_prep.raw.row_values import read_texts
from dept_vl.errors import ConfigError
from dept_vl.registry import suggest
from dept_vl.tasks.declaration import RESERVED_COLUMNS
from dept_vl.tasks.kinds import TaskKind

KINDS = get_args(TaskKind)
MAX_LABELS = 1_000
_LABEL_WORDS = 5
_MAX_INPUTS = 6
_DEFAULT_LENGTH = 64
_MAX_LENGTH = 512
_WHAT = {
    "question": "a question about an image",
    "caption": "a caption of an image",
    "image-label": "one of a set of labels for an image",
    "text-label": "one of a set of labels for a text",
    "text": "text to text",
}


@dataclass
class NewTask:
    """A first declaration.

    Attributes:
        fields: Field of `TaskDeclaration` -> value, and the comment that stands beside it.
        guessed: What was guessed, and why.
        untold: What could not be told.
    """

    fields: dict[str, tuple[Any, str]] = field(default_factory=dict)
    guessed: list[str] = field(default_factory=list)
    untold: list[str] = field(default_factory=list)

    def set(self, name: str, value: Any, comment: str, why: str | None = None) -> None:
        """Sets a field; `why` is a line about how it was guessed."""
        self.fields[name] = (value, comment)
        if why:
            self.guessed.append(f"{name}: {why}")


def guess_task(
    source: RowSource,
    columns: Sequence[Column],
    kind: str | None = None,
    target: str | None = None,
    image_column: str | None = None,
) -> NewTask:
    """Returns a declaration of some rows; see `write_new_task`.

    Raises:
        ConfigError: It cannot be guessed, or a column that is named is not there.
    """
    task = NewTask()
    split, own_id = find_split(columns), find_id(columns)
    rest = [column for column in columns if column not in (split, own_id)]
    images = _image_columns(rest, image_column, kind, task)
    rest = [column for column in rest if column not in images and not column.is_image]
    kind, targets, why = _kind_and_targets(rest, images, kind, _named(columns, target, "--target"))
    task.set("kind", kind, f"what goes in and comes out: {', '.join(KINDS)}", f"{kind} ({_WHAT[kind]}), {why}")
    if images and kind in ("question", "caption", "image-label"):
        whose = "its name" if len(images) == 1 else "their names"
        given, comment = [image.name for image in images], "column of the image's file"
        task.set("image", given if len(given) > 1 else given[0], comment, _of(images, f"{whose} and values say so"))
        for image in images:
            if image.values and not image.found:
                task.untold.append(f"where the images are: no name in {image.name!r} was found; --images DIR says it")
    names = [one.name for one in targets]
    task.set("target", names, "column, or columns, of the answer, label or caption", ", ".join(map(repr, names)))
    left = [column for column in rest if column not in targets]
    inputs = _set_template(task, kind, left)
    if kind.endswith("-label"):
        _set_labels(task, source, targets)
    _set_split(task, source, split, rest)
    if own_id is not None:
        task.set(
            "id", own_id.name, "column of the row's own id; results name it", _of([own_id], "no value is there twice")
        )
    _set_metrics(task, kind, targets)
    _set_lengths(task, kind, inputs, targets)
    details = {key: column.name for key in ("answer_type", "question_type") for column in by_name(left, key)[:1]}
    if details:
        task.set("details", details, "columns that scores are broken down by", ", ".join(details.values()))
    used = [*inputs, *(column for column in left if column.name in details.values())]
    unused = [column.name for column in columns if column in left and column not in used]
    if unused:
        task.untold.append(f"what these columns are for: {', '.join(map(repr, unused))}; they are not read")
    return task


def _named(columns: Iterable[Column], name: str | None, flag: str) -> Column | None:
    if name is None:
        return None
    known = {column.name: column for column in columns}
    if name not in known:
        raise ConfigError(f"{flag}: no column {name!r}{suggest(name, known)} (there are: {', '.join(known)})")
    return known[name]


def _of(columns: Iterable[Column], why: str) -> str:
    return f"{_listed(columns)}: {why}"


def _image_columns(columns: Sequence[Column], name: str | None, kind: str | None, task: NewTask) -> list[Column]:
    """Returns the columns of images, one but where several are named; none where the task has none."""
    if name is not None:
        names = [name] if name in [column.name for column in columns] else name.split(",")
        return [column for one in names if (column := _named(columns, one, "--image-column")) is not None]
    if kind in ("text-label", "text"):
        return []
    found = [column for column in columns if column.is_image]
    named = [column for column in by_name(columns, "image") if column in found]
    if len(found) > 1 and not named:
        both = ", ".join(repr(column.name) for column in found)
        every = ",".join(column.name for column in found)
        raise ConfigError(
            f"--image-column: several columns look like images ({both}); say which it is, or that a row has all of "
            f"them: --image-column {every}"
        )
    if not found and kind is not None:
        raise ConfigError(
            f"--kind {kind}: no column looks like images (names ending in .jpg or the like, names found below "
            "--images, or pictures); give --image-column COLUMN, or --images DIR"
        )
    if not found and by_name(columns, "image"):
        one = by_name(columns, "image")[0].name
        task.untold.append(f"whether {one!r} names images: no such files were found; --images DIR says where they are")
    return (named or found)[:1]


def _kind_and_targets(
    columns: Sequence[Column], images: Sequence[Column], kind: str | None, target: Column | None
) -> tuple[str, list[Column], str]:
    """Returns the kind, the columns of the target, and why."""
    asks = [column for column in by_name(columns, "question") if column is not target]
    found = _Targets.of(columns, asks, target)
    if kind is None:
        kind, targets = found.guess(has_image=bool(images), asks=bool(asks))
        why = f"as there are {'images' if images else 'no images'}"
        why += f", a question in {asks[0].name!r}" if asks and images else ""
        why += f" and {' and '.join(repr(column.name) for column in targets)}"
    else:
        targets, why = found.of_kind(kind), "as --kind says"
    if not targets:
        pictures = f"images in {_listed(images)}" if images else "no images"
        raise ConfigError(
            f"--target: which column has the answer, label or caption cannot be told ({pictures}; the others are "
            f"{_listed(columns)}); give --target COLUMN, and --kind, one of {', '.join(KINDS)}, if it is guessed wrong"
        )
    return kind, targets, why


@dataclass(frozen=True)
class _Targets:
    """Columns that may be the target, by what they would be."""

    answers: list[Column]
    captions: list[Column]
    labels: list[Column]
    few: list[Column]

    @classmethod
    def of(cls, columns: Sequence[Column], asks: Sequence[Column], target: Column | None) -> _Targets:
        """Returns what is likely by names, and in `few` the last column by values; `target` alone where it is given."""
        if target is not None:
            is_label = _is_label(target)
            return cls([target], [] if is_label else [target], [target] if is_label else [], [])
        several = numbered(columns)
        role = several[0].called.split("_")[0].rstrip("0123456789") if several else ""
        few = [column for column in columns if _is_label(column) and column not in asks]
        return cls(
            several if role in ("answer", "a", "target") else by_name(columns, "answer")[:1],
            several if role == "caption" else by_name(columns, "caption")[:1],
            several if role == "label" else by_name(columns, "label")[:1],
            few[-1:],
        )

    def guess(self, *, has_image: bool, asks: bool) -> tuple[str, list[Column]]:
        """Returns the likeliest kind and its target's columns; none where nothing is likely."""
        if has_image:
            if asks and (self.answers or self.labels):
                return "question", self.answers or self.labels
            if self.captions:
                return "caption", self.captions
            labels = self.labels or ([] if asks else self.few)
            return ("image-label", labels) if labels else ("caption", [] if asks else self.answers)
        if self.labels:
            return "text-label", self.labels
        if self.answers:
            return "text-label" if all(map(_is_label, self.answers)) else "text", self.answers
        return ("text-label", self.few) if self.few else ("text", self.captions)

    def of_kind(self, kind: str) -> list[Column]:
        """Returns the likeliest columns of a kind's target."""
        by_kind = {
            "caption": [self.captions, self.answers],
            "image-label": [self.labels, self.few, self.answers],
            "text-label": [self.labels, self.few, self.answers],
        }
        return next(filter(None, by_kind.get(kind, [self.answers, self.labels, self.captions])), [])


def _is_label(column: Column) -> bool:
    """Returns whether a column's values are few and short."""
    return column.is_text and column.has_few_values and column.long_words() <= _LABEL_WORDS


def _listed(columns: Iterable[Column]) -> str:
    return ", ".join(repr(column.name) for column in columns) or "none"


def _set_template(task: NewTask, kind: str, columns: Sequence[Column]) -> list[Column]:
    """Sets what the model reads; returns the columns in it."""
    comment = "what the model reads: names of columns in braces; nothing is computed"
    if kind in ("caption", "image-label"):
        task.set("template", "caption:" if kind == "caption" else "class:", comment)
        return []
    others = [*by_name(columns, "split"), *by_name(columns, "id")]
    usable = [
        column
        for column in columns
        if column.is_text
        and column not in others
        and column.name not in RESERVED_COLUMNS
        and not {"{", "}"} & set(column.name)
    ]
    if kind == "question":
        asked = by_name(usable, "question") or [
            column for column in usable if sum(value.endswith("?") for value in column.values) > column.rows / 2
        ]
        asked = asked[:1] or sorted(usable, key=lambda column: -column.long_words())[:1]
    else:
        asked = [column for column in usable if not column.is_numeric or len(usable) == 1][:_MAX_INPUTS]
    if not asked:
        raise ConfigError(f"template: no column to read is left among {_listed(columns)}; write the file by hand")
    template = " ".join(f"{column.called or 'text'}: {{{column.name}}}" for column in asked)
    if kind == "question":
        template = f"vqa: {{{asked[0].name}}}"
    task.set("template", template, comment, f"reads {', '.join(repr(column.name) for column in asked)}")
    return asked


def _set_labels(task: NewTask, source: RowSource, targets: Sequence[Column]) -> None:
    """Sets every label that the rows have."""
    found: Counter[str] = Counter()
    names = [column.name for column in targets]
    classes: dict[str, None] = {}
    for part in source.parts:
        known = {name: part.classes[name] for name in names if name in part.classes}
        classes |= dict.fromkeys(one for listed in known.values() for one in listed)
        for _, record in part.read(names):
            for name in names:
                found.update(read_texts(class_name(record.get(name), known.get(name))))
    labels = list(classes) or sorted(found)
    if not 2 <= len(labels) <= MAX_LABELS:
        raise ConfigError(
            f"--kind: column {names[0]!r} has {len(labels):,} different values; labels are 2 to {MAX_LABELS:,}; give "
            "another --target or --kind"
        )
    if all(re.fullmatch(r"-?\d+(\.\d+)?", label) for label in labels):
        task.untold.append("what the labels' numbers mean: put a word behind each, which is what the model scores")
        task.set("labels", {label: label for label in labels}, "what the rows call a label: the word that is scored")
    else:
        task.set("labels", labels, "every label; `name in the rows: word` gives it another word")
    task.guessed.append(f"labels: {len(labels)}, {', '.join(labels[:8])}{', ...' if len(labels) > 8 else ''}")


def _set_split(task: NewTask, source: RowSource, split: Column | None, columns: Sequence[Column]) -> None:
    given = [part.split for part in source.parts if part.split is not None]
    if split is not None:
        task.set(
            "split", {"column": split.name}, "which rows train, validate and test", f"column {split.name!r} says it"
        )
    elif given:
        task.guessed.append(f"split: the rows come in {', '.join(dict.fromkeys(given))}")
    else:
        rule = {"val": 0.1, "test": 0.1, "seed": 0}
        comment = "shares drawn to validate and to test; rows of one image, or that read the same, stay together"
        task.set("split", rule, comment, "no split is given, so a tenth each is drawn to validate and to test")
    unknown = [column for column in by_name(columns, "split") if column is not split]
    if unknown and not given:
        values = ", ".join(list(unknown[0].values)[:5])
        task.untold.append(
            f"whether {unknown[0].name!r} ({values}) says the split; if so: split: {{column: {unknown[0].name}, "
            "names: {train: ..., val: ..., test: ...}}"
        )


def _set_metrics(task: NewTask, kind: str, targets: Sequence[Column]) -> None:
    several = len(targets) > 1 or any(column.lists for column in targets)
    metrics = {
        "question": ["vqa-soft-accuracy", "exact-match"] if several else ["exact-match", "vqa-soft-accuracy"],
        "caption": ["cider", "bleu", "rouge-l"],
        "text": ["exact-match"],
    }.get(kind, ["accuracy"])
    why = "answers of several people a row" if several and kind == "question" else f"what kind {kind} is scored with"
    task.set("metrics", metrics, "the first picks the best checkpoint", f"{', '.join(metrics)}: {why}")


def _set_lengths(task: NewTask, kind: str, inputs: Iterable[Column], targets: Iterable[Column]) -> None:
    """Sets how many tokens are kept where the default may be too few: about two for each word and mark."""
    read = 2 * sum(column.long_words() for column in inputs) + 8
    if read > _DEFAULT_LENGTH:
        length = min(_MAX_LENGTH, -(-read // 32) * 32)
        task.set("max_source_length", length, "tokens of text kept", f"{length} tokens, by the texts' length in words")
    usual = {"caption": 40, "text": 64}.get(kind, 16)
    written = 2 * max((column.long_words() for column in targets), default=0) + 2
    if written > usual:
        length = min(_MAX_LENGTH, -(-written // 8) * 8)
        task.set(
            "max_target_length", length, "tokens of an answer kept and written", f"{length} tokens, by their length"
        )
