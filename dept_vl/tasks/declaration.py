"""Tasks as files: what a YAML file outside the package says of a task (`dept_vl.tasks.declared` makes it one).

The file has the fields of `TaskDeclaration`; `dept-vl new-task` writes a first one. It holds data only: a template
names columns and computes nothing.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass

from dept_vl.strict import MAX_SIZE, STRICT
from dept_vl.tasks.kinds import VALID_NAME, TaskKind

Split = Literal["train", "val", "test"]

RESERVED_COLUMNS = (
    "example_id", "id", "image_id", "image", "targets", "target_weights", "references", "answer_type", "question_type",
    "group",
)  # fmt: skip
"""Columns of prepared rows with a meaning of their own, which a template cannot read."""

_COLUMN = re.compile(r"\{([^{}]*)\}")
_CODE = re.compile(r"\{\{|\}\}|\{%|%\}")
_IMAGE_KINDS = ("question", "caption", "image-label")
_LABEL_KINDS = ("image-label", "text-label")
_SPLIT_NAMES: Mapping[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test",),
}
_TEMPLATES = {"caption": "caption:", "image-label": "class:"}


def _as_text(value: Any) -> Any:
    """Takes numbers for the text they are written as; YAML's booleans are refused in words."""
    if isinstance(value, bool):
        raise ValueError(f"YAML reads yes, no, on and off as {value}; put quotes around the word")
    return str(value) if isinstance(value, int | float) else value


def _as_texts(value: Any) -> Any:
    """Takes one text for a list of it."""
    return [_as_text(one) for one in (value if isinstance(value, list | tuple) else [value])]


def _as_one_or_several(value: Any) -> Any:
    """Takes a list of one text for that text."""
    if value is None:
        return None
    texts = _as_texts(value)
    if not texts:
        raise ValueError("names no column; leave the field out, or name one")
    return texts[0] if len(texts) == 1 else texts


def _as_label(value: Any) -> Any:
    """Takes blanks off, as they are off the rows' labels."""
    text = _as_text(value)
    return text.strip() if isinstance(text, str) else text


def _as_labels(value: Any) -> Any:
    """Takes a list of labels for a mapping of each to itself; none may be there twice."""
    if not isinstance(value, Mapping | list | tuple):
        return value
    pairs = value.items() if isinstance(value, Mapping) else zip(value, value, strict=True)
    labels: dict[Any, Any] = {}
    for raw, word in pairs:
        label = _as_label(raw)
        if label in labels:
            raise ValueError(f"{label!r} is there twice")
        labels[label] = _as_label(word)
    return labels


_MAX_NAME = 100  # characters: with what is put before and behind it, still a name of a folder
_Name = Annotated[str, BeforeValidator(_as_text), Field(min_length=1)]
_Names = Annotated[tuple[str, ...], BeforeValidator(_as_texts), Field(min_length=1)]


@dataclass(frozen=True, config=STRICT)
class SplitDeclaration:
    """Which rows train, validate and test.

    Rows that come in splits (``train.csv`` and ``test.csv`` in a folder, splits of a `datasets` data set) or have a
    column that says it keep them. Where there is no ``val``, a share of ``train`` validates; where there are no splits
    at all, test and validation are drawn. The draw depends on the seed and on what is drawn alone: all rows of an image
    (or of one value of `by`) go to one split.
    """

    column: Annotated[str | None, Field(description="column that says each row's split; null: none does")] = None
    names: Annotated[
        dict[Split, _Names],
        Field(description="what our splits are called in the column or the files"),
    ] = Field(default_factory=lambda: dict(_SPLIT_NAMES))
    val: Annotated[float, Field(gt=0, lt=1, description="share drawn to validate")] = 0.1
    test: Annotated[float, Field(ge=0, lt=1, description="share drawn to test, where no splits are given")] = 0.1
    by: Annotated[
        str | None, Field(description="column whose equal values stay together; null: the image, else the row")
    ] = None
    seed: Annotated[int, Field(ge=0, le=2**63 - 1, description="of the draw")] = 0
    shared_images: Annotated[
        bool, Field(description="whether an image may stand in several given splits; else that is refused")
    ] = False

    def __post_init__(self) -> None:
        """Checks that something is left to train on, and that a name means one split."""
        if self.val + self.test >= 1:
            raise ValueError(
                f"val and test take {self.val:g} and {self.test:g} of the rows: nothing is left to train on"
            )
        named = [name for names in self.names.values() for name in names]
        twice = sorted({name for name in named if named.count(name) > 1})
        if twice:
            raise ValueError(f"names: {twice[0]!r} is there twice")


@dataclass(frozen=True, config=STRICT)
class TaskDeclaration:
    """A task of one's own. What is left out follows from `kind`."""

    name: Annotated[_Name, Field(description="lower case, digits, - and _; folders and results are called so")]
    kind: Annotated[TaskKind, Field(description="what goes in and what comes out")]
    version: Annotated[_Name, Field(description="yours; raise it when rows or template change")] = "1"
    about: Annotated[str, Field(description="where rows and metric come from, for the card")] = ""
    template: Annotated[
        str | None,
        Field(description="what the model reads: text, with names of columns in braces; nothing is computed"),
    ] = None
    image: Annotated[
        str | tuple[str, ...] | None,
        BeforeValidator(_as_one_or_several),
        Field(
            description="column of the image's file, of tasks with images; several columns: a row has as many images"
        ),
    ] = None
    target: Annotated[
        _Names | None,
        Field(description="column, or columns, of the answer, label or caption; lists in it hold several"),
    ] = None
    labels: Annotated[
        dict[str, str] | None,
        BeforeValidator(_as_labels),
        Field(description="label tasks: every label, or what the rows call it -> the word that is scored"),
    ] = None
    id: Annotated[str | None, Field(description="column of the row's own id; null: rows are numbered from 0")] = None
    details: Annotated[
        dict[Literal["answer_type", "question_type", "group"], str],
        Field(description="columns that scores are broken down by; group: of what is only right together"),
    ] = Field(default_factory=dict)
    metrics: Annotated[_Names | None, Field(description="evaluators; null: those of the kind")] = None
    primary_metric: Annotated[
        str | None, Field(description="score that picks the best checkpoint; null: the first of metrics")
    ] = None
    max_source_length: Annotated[int, Field(ge=1, le=MAX_SIZE, description="text tokens kept (s)")] = 64
    max_target_length: Annotated[
        int | None, Field(ge=1, le=MAX_SIZE, description="target tokens kept and generated; null: the kind's")
    ] = None
    answer_cue: Annotated[str | None, Field(description="decoder-only: last text before an answer")] = None
    split: Annotated[SplitDeclaration, Field(description="which rows train, validate and test")] = Field(
        default_factory=SplitDeclaration
    )
    result_keys: Annotated[tuple[str, str], Field(description="what a results file calls id and prediction")] = (
        "id",
        "prediction",
    )
    format: Annotated[
        str | None, Field(description="official files: which of the known forms they have; null: rows of one's own")
    ] = None
    files: Annotated[
        dict[Split, _Names],
        Field(description="official files: each split's, by name"),
    ] = Field(default_factory=dict)
    sizes: Annotated[
        dict[Split, tuple[int, int | None]],
        Field(description="rows, and images, of each split where it is complete"),
    ] = Field(default_factory=dict)

    def __post_init__(self) -> None:
        """Checks what hangs together.

        Raises:
            ValueError: The name is not one, the template is none or is code, or fields do not fit the kind.
        """
        if not VALID_NAME.match(self.name):
            raise ValueError(
                f"name: must be lower case, digits, - and _, beginning with a letter or digit, got {self.name!r}"
            )
        if len(self.name) > _MAX_NAME:
            raise ValueError(f"name: may have {_MAX_NAME} characters at most, got {len(self.name)}")
        self._check_template()
        if self.uses_images and self.format is None and self.image is None:
            raise ValueError(f"image: kind {self.kind!r} needs the column of the image's file")
        if not self.uses_images and self.image is not None:
            raise ValueError(f"image: kind {self.kind!r} reads text alone; leave it out")
        if self.image is not None and len(set(self.images)) < len(self.images):
            raise ValueError(f"image: names a column twice: {', '.join(self.images)}")
        if self.kind == "caption" and len(self.images) > 1:
            raise ValueError(f"image: captions are of one image, got {len(self.images)} columns; take kind 'question'")
        if (self.labels is not None) != (self.kind in _LABEL_KINDS):
            what = "needs every label" if self.labels is None else "has no labels; leave them out"
            raise ValueError(f"labels: kind {self.kind!r} {what}")
        if self.labels is not None and len(set(self.labels.values())) < 2:
            raise ValueError(f"labels: there must be two different ones at least, got {list(self.labels)}")
        if any(not word.strip() for word in (self.labels or {}).values()):
            raise ValueError("labels: a label is empty")
        if self.target is None and self.format is None:
            raise ValueError("target: not given; it names the column of the answer, label or caption")
        self._check_columns()

    def _check_columns(self) -> None:
        """Checks that columns have names, and that the target is none that the model reads."""
        for field, name in columns_read(self):
            if not name.strip():
                raise ValueError(f"{field}: the name of a column is empty; leave the field out, or name one")
        for name in self.target or ():
            if name in self.images or name in self.columns:
                field = "image" if name in self.images else "template"
                raise ValueError(
                    f"target: {name!r} is a column of {field} too, so that the model would read the answer"
                )

    def _check_template(self) -> None:
        if self.template is None:
            if self.kind not in _TEMPLATES:
                raise ValueError(f'template: kind {self.kind!r} needs one, such as "question: {{question}}"')
            return
        rest = _COLUMN.sub("", self.template)
        if _CODE.search(self.template) or "{" in rest or "}" in rest:
            raise ValueError(
                f"template: {self.template!r} has braces that name no column; a template is text with names of columns "
                "in single braces, and nothing in it is computed"
            )
        if not self.columns and self.kind not in _TEMPLATES:
            raise ValueError(f"template: {self.template!r} reads no column, so that every row would be the same")
        for name in self.columns:
            if not name.strip() or name != name.strip():
                raise ValueError(f"template: {{{name}}} names no column")
            if name in RESERVED_COLUMNS:
                raise ValueError(f"template: a column it reads cannot be called {name!r}; rename it in the rows")

    @property
    def uses_images(self) -> bool:
        """Whether the task's rows have images."""
        return self.kind in _IMAGE_KINDS

    @property
    def images(self) -> tuple[str, ...]:
        """The columns of a row's images, in the order that the model reads them in; none of tasks without."""
        if not self.uses_images:
            return ()
        return (self.image or "image",) if self.image is None or isinstance(self.image, str) else self.image

    @property
    def can_train(self) -> bool:
        """Whether there are rows to train on; official files may be there to test on alone."""
        return not self.files or "train" in self.files

    @property
    def text(self) -> str:
        """The template, the kind's where none is given."""
        return self.template if self.template is not None else _TEMPLATES[self.kind]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the template reads, each once, in its order."""
        return tuple(dict.fromkeys(_COLUMN.findall(self.text)))

    @property
    def label_words(self) -> tuple[str, ...] | None:
        """The labels' words, each once; None for kinds without labels."""
        return None if self.labels is None else tuple(dict.fromkeys(self.labels.values()))

    def rows_key(self) -> str:
        """Returns a sha256 of what prepared rows depend on: another template over the same columns gives the same.

        Rows are prepared again where it differs; template, metrics and lengths are applied later.
        """
        parts = [
            self.name, self.kind, sorted(self.columns), self.image, self.target, self.labels, self.id,
            sorted(self.details.items()), self.format, sorted(self.files.items()),
            [self.split.column, sorted(self.split.names.items()), self.split.val, self.split.test, self.split.by,
             self.split.seed, self.split.shared_images],
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def fill_template(text: str, row: Mapping[str, Any]) -> str:
    """Returns the template with the row's columns in it."""
    return _COLUMN.sub(lambda match: str(row[match[1]]), text)


def columns_read(declaration: TaskDeclaration) -> list[tuple[str, str]]:
    """Returns every column that a declaration reads, with the field that names it, as ``split.column``, before it."""
    named = [
        *(("template", name) for name in declaration.columns),
        *(("image", name) for name in declaration.images if declaration.image is not None),
        *(("target", name) for name in declaration.target or ()),
        ("id", declaration.id),
        *((f"details.{key}", name) for key, name in declaration.details.items()),
        ("split.column", declaration.split.column),
        ("split.by", declaration.split.by),
    ]
    return [(field, name) for field, name in named if name is not None]
