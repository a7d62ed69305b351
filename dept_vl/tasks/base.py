"""What a task is: data, not code. The field docs below are the schema."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from dept_vl.errors import ConfigError
from dept_vl.tasks.kinds import VALID_NAME

if TYPE_CHECKING:
    from dept_vl.tasks.declaration import TaskDeclaration

Row = Mapping[str, Any]
"""One row of a prepared split: column name -> value (``dept_vl.data.manifest`` has the columns)."""

Template = Callable[[Row], str]
"""Row to source text."""

ColumnKind = Literal["text", "text or empty", "label", "number", "integer", "texts", "answers", "spans", "group"]
"""What a raw column holds.

``text``: a text that is not blank; ``text or empty``; ``label``: a class, as a number or a text; ``number``;
``integer``; ``texts``: texts the template reads; ``answers``: texts that people gave; ``spans``: SQuAD's
``{"text": [...], "answer_start": [...]}``; ``group``: MultiRC's ``{"paragraph", "question", "answer"}``.
"""

PREPARED_SPLIT = {"references": "DATA/<task>/<split>.parquet"}
"""What the predictions of a declared task are scored against without a model, as `Task.reference_files` has it."""

AnswerForm = Literal["plain", "released", "chat"]
"""How a decoder-only backbone is led from a source to its answer.

``plain``: the task's cue right before the answer, behind an image if there is one, and an answer that begins with its
space; ``released``: the released code's cue `` Label : `` behind the text, whose space the answer then lacks; ``chat``:
the tokenizer's own chat template, the text as what the user says.
"""

PLAIN_CUE = " Label :"
"""What leads to an answer in form ``plain`` where a task says nothing else."""


@dataclass(frozen=True)
class SplitSize:
    """How many rows and images a complete split holds, as the data set's authors count them."""

    rows: int
    images: int | None = None


@dataclass(frozen=True)
class Source:
    """A data set on the hub, free of scripts.

    Attributes:
        path: Hub id.
        config: Its configuration, None for the only one.
        rows: Rows of each hub split that is used, when complete.
        revision: The pinned commit; None where none could be verified offline (the newest is taken).
    """

    path: str
    config: str | None
    rows: Mapping[str, int]
    revision: str | None = None

    def __str__(self) -> str:
        config = f" {self.config}" if self.config else ""
        return f"{self.path}{config}{f' @{self.revision[:12]}' if self.revision else ', newest revision'}"


@dataclass(frozen=True)
class SplitRule:
    """Which rows of a hub split make one of ours.

    Attributes:
        hub_split: The hub split.
        part: ``"all"``: every row in its order. ``"first"`` and ``"rest"``: the two parts of the rows in the order of
            ``torch.randperm(rows)`` with seed 42, as ``AbstractTask.get`` of the released ``src/tasks.py``.
        cut: Rows of the first part; None: half of them, rounded down.
        limit: Only the first so many rows of the part.
        by_group: Permute and cut whole groups (questions of MultiRC) instead of rows.
    """

    hub_split: str
    part: Literal["all", "first", "rest"] = "all"
    cut: int | None = None
    limit: int | None = None
    by_group: bool = False


@dataclass(frozen=True)
class Gold:
    """What a row is trained on and scored against.

    Attributes:
        targets: Texts that training draws from, all with weight 1; empty: no training row.
        references: Texts a prediction is compared with.
    """

    targets: tuple[str, ...]
    references: tuple[str, ...]


@dataclass(frozen=True)
class RenderedExample:
    """A row as the model sees it: what goes in, what should come out, under which protocol."""

    protocol: str | None
    source: str
    targets: tuple[str, ...]


@dataclass(frozen=True)
class Protocol:
    """One way to make a text task's rows: what ``fixed`` and ``paper`` differ in.

    Attributes:
        template: Row to source text.
        golds: Raw row to the examples it makes, one nearly always. Raises `DataError` for a bad label.
        splits: Our split -> rule.
        split_sizes: Expected size of each complete split.
        labels: Every target string, or None for a task without a label set.
        groups: Whether examples carry a group that scores are taken over.
        selection_metric: Metric key that picks the best checkpoint; None: the task's primary one.
        answer_form: How a decoder-only backbone is led to an answer where the settings do not say.
    """

    template: Template
    golds: Callable[[Row], list[Gold]]
    splits: Mapping[str, SplitRule]
    split_sizes: Mapping[str, SplitSize]
    labels: tuple[str, ...] | None = None
    groups: bool = False
    selection_metric: str | None = None
    answer_form: AnswerForm = "plain"


@dataclass(frozen=True)
class Task:
    """One task, declared once. Adding a task is one of these, a template and, for new raw files, a converter.

    Functions of packages that this one must not import are named, ``"package.module:function"``, and looked up where
    they are called.

    Attributes:
        name: Lower case, digits, ``-`` and ``_``; what ``--task`` takes.
        template: Row to source text; of a text task the one of its default protocol. Nothing else builds prompts.
        evaluators: Names in ``dept_vl.evaluators.EVALUATORS``, computed at every evaluation.
        also_scored: Evaluators that a trained run is scored with too, and training is not.
        primary_metric: The metric key that papers report; higher is better.
        max_source_length: Text tokens kept by default (s), the end-of-sequence token included.
        max_target_length: Target tokens kept and generated at most, the end-of-sequence token included.
        input_columns: The columns the template reads.
        split_sizes: Expected size of each complete split.
        paper: Where splits and metric come from.
        converter: What makes the task's prepared splits of its raw files, called as ``convert(task, raw, out,
            **options)`` by ``data_prep.prepare``; its options are its keyword-only parameters. None: nothing does, and
            who has the rows writes them with ``dept_vl.data.manifest``.
        uses_images: Whether rows carry ``image_id`` and ``image``.
        num_images: Images that every row has, where rows have any; of several, ``image_id`` and ``image`` are lists.
        result_keys: Names of id and text in the official results file of this task.
        reference_files: Flag of ``dept-vl eval`` -> which of the official reference files it names; empty: predictions
            are not scored without a model.
        reference_reader: What reads these files, called with their paths by the same names, after the task itself where
            that is a declared one: id -> reference.
        few_shot_classes: Classes that few-shot sampling counts, where they are not the labels themselves.
        few_shot_class: A target's class among them.
        source: Where a text task's rows come from; None for images.
        columns: Columns of a text task's raw rows that are read -> what they hold.
        variants: A text task's protocols, the default one first, which `under` resolves; empty for tasks with one way.
        protocol: The protocol this is the task under; None for a task without any, or not yet under one.
        labels: Every target string, where the task has a label set.
        selected_by: Metric key that picks the best checkpoint; None: the primary one.
        answer_form: How a decoder-only backbone is led to an answer where the settings do not say.
        answer_cue: The last text before an answer in form ``plain``.
        declaration: What a task is declared by that is a file; None for one of the package's own modules.
    """

    name: str
    template: Template
    evaluators: tuple[str, ...]
    primary_metric: str
    max_source_length: int
    max_target_length: int
    paper: str
    also_scored: tuple[str, ...] = ()
    input_columns: tuple[str, ...] = ()
    split_sizes: Mapping[str, SplitSize] = field(default_factory=dict)
    converter: str | None = None
    uses_images: bool = False
    num_images: int = 1
    result_keys: tuple[str, str] = ("example_id", "prediction")
    reference_files: Mapping[str, str] = field(default_factory=dict)
    reference_reader: str | None = None
    few_shot_classes: tuple[str, ...] = ()
    few_shot_class: Callable[[str], str] = str
    source: Source | None = None
    columns: Mapping[str, ColumnKind] = field(default_factory=dict)
    variants: Mapping[str, Protocol] = field(default_factory=dict)
    protocol: str | None = None
    labels: tuple[str, ...] | None = None
    selected_by: str | None = None
    answer_form: AnswerForm = "plain"
    answer_cue: str = PLAIN_CUE
    declaration: TaskDeclaration | None = None

    def __post_init__(self) -> None:
        """Checks the declaration, so that a bad one fails at import and not in a user's run."""
        if not VALID_NAME.match(self.name):
            raise ValueError(f"task name {self.name!r} must match {VALID_NAME.pattern}")
        if self.num_images < 1:
            raise ValueError(f"task {self.name!r}: num_images must be at least 1, got {self.num_images}")
        if bool(self.reference_files) != (self.reference_reader is not None):
            raise ValueError(f"task {self.name!r}: reference_files and reference_reader come together")

    @property
    def protocols(self) -> tuple[str, ...]:
        """``("fixed", "paper")`` for text tasks, the default first; ``()`` for tasks with one way only."""
        return tuple(self.variants)

    def check_protocol(self, protocol: str | None) -> None:
        """Checks that the task has this protocol; None is right for a task without any.

        Raises:
            ConfigError: It has not.
        """
        if protocol is None and self.variants:
            raise ConfigError(f"data.protocol: task {self.name!r} needs one of {', '.join(self.variants)}")
        if protocol is not None and protocol not in self.variants:
            known = f"expected {' or '.join(self.variants)}" if self.variants else "it has none; leave it out"
            raise ConfigError(f"data.protocol: task {self.name!r} has no protocol {protocol!r}; {known}")

    def under(self, protocol: str | None) -> Task:
        """Returns the task as one of its protocols has it: template, labels, sizes and selection are that one's.

        Args:
            protocol: One of `protocols`; None for a task without any.

        Raises:
            ConfigError: The task has no such protocol.
        """
        self.check_protocol(protocol)
        if protocol is None:
            return self
        variant = self.variants[protocol]
        return replace(
            self,
            protocol=protocol,
            template=variant.template,
            labels=variant.labels,
            split_sizes=variant.split_sizes,
            selected_by=variant.selection_metric,
            answer_form=variant.answer_form,
        )

    def ways(self) -> list[Task]:
        """Returns the task under each of its protocols; the task alone where there are none."""
        return [self.under(protocol) for protocol in self.protocols or (None,)]

    @property
    def is_own(self) -> bool:
        """Whether it is declared by a file for rows of somebody's own, not by official files."""
        return self.declaration is not None and self.declaration.format is None

    @property
    def variant(self) -> Protocol:
        """What the protocol is, of a text task from `under`."""
        assert self.protocol is not None
        return self.variants[self.protocol]

    @property
    def selection_metric(self) -> str:
        """The metric key that picks the best checkpoint."""
        return self.selected_by or self.primary_metric

    def source_text(self, row: Row) -> str:
        """Returns the source text of a row of a prepared split, or of a raw row."""
        return self.template(row)

    def render(self, row: Row) -> list[RenderedExample]:
        """Returns what each protocol makes of a raw row: an example a gold; for a task without any, its source text."""
        if not self.variants:
            return [RenderedExample(None, self.source_text(row), ())]
        return [
            RenderedExample(way.protocol, way.source_text(row), gold.targets)
            for way in self.ways()
            for gold in way.variant.golds(row)
        ]
