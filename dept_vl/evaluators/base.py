"""What an evaluator takes and gives: aligned predictions and references in, named scores out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, cast, get_args

from dept_vl.errors import DataError
from dept_vl.tasks.kinds import TaskKind

T = TypeVar("T")
Id = TypeVar("Id", bound=Hashable)

TokenizerName = Literal["ptb", "stanford"]
"""How captions are tokenised: in Python, or by the original program, which needs Java. Both give the same tokens."""

_NAMED_IDS = 5


@dataclass(frozen=True)
class Reference:
    """What people wrote for one example.

    Attributes:
        references: The raw texts: the ten answers of a VQA question in the official order, or all
            captions of an image.
        answer_type: What scores are broken down by first. VQA: "yes/no", "number" or "other"; nocaps: the domain.
        question_type: And second. VQA: the first words of the question ("what is the"), as annotated.
        example_id: The question id or image id, or another name of the example, for messages.
        annotators: VQA: who gave each answer, in the order of `references`. None where every answer
            comes from another person, which is so in the official files. The official script takes
            two answers for one where answer and annotator are equal.
        group: MultiRC: the question that the answer belongs to; None where questions were torn apart.
    """

    references: Sequence[str]
    answer_type: str | None = None
    question_type: str | None = None
    example_id: Hashable | None = None
    annotators: Sequence[Hashable] | None = None
    group: str | None = None


@dataclass(frozen=True)
class EvaluationInput:
    """Predictions and references that belong together, and what several evaluators make of them once.

    Attributes:
        predictions: One text for each example.
        references: What people wrote, in the same order (see `align`).
        tokenizer: How captions are tokenised; evaluators of other texts ignore it.

    Raises:
        DataError: There is nothing to score, the two lengths differ, or an example has no reference.
    """

    predictions: Sequence[str]
    references: Sequence[Reference]
    tokenizer: TokenizerName = "ptb"
    _shared: dict[Callable[[EvaluationInput], Any], Any] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        """Checks once what every evaluator needs."""
        if len(self.predictions) != len(self.references):
            raise DataError(
                f"{len(self.predictions)} predictions for {len(self.references)} references: give one prediction "
                "for each, in the same order"
            )
        if not self.references:
            raise DataError("nothing to score: 0 predictions and 0 references")
        require_texts(self.references)

    def shared(self, make: Callable[[EvaluationInput], T]) -> T:
        """Returns ``make(self)``, made at the first call and kept for the other evaluators of this input."""
        if make not in self._shared:
            self._shared[make] = make(self)
        return cast(T, self._shared[make])


def require_texts(references: Sequence[Reference]) -> None:
    """Refuses examples without a reference.

    Raises:
        DataError: There is one.
    """
    if len(references) > 1 and not any(reference.references for reference in references):
        raise DataError(
            f"none of the {len(references):,} examples has an answer to score against; `dept-vl predict --rows` "
            "answers rows without"
        )
    for index, reference in enumerate(references):
        if not reference.references:
            where = f"id {reference.example_id}" if reference.example_id is not None else f"number {index}"
            raise DataError(f"example {where} has no reference text to score against")


@dataclass(frozen=True)
class Scale:
    """How a score is printed.

    Attributes:
        factor: What the score, in its scorer's own scale, is multiplied by.
        text: What the printed number is, in the words that stand beside it.
        digits: Printed behind the point.
    """

    factor: float
    text: str
    digits: int = 1

    def printed(self, value: float) -> str:
        """Returns a score, given in its scorer's own scale, as papers print it: the one place that rounds."""
        return f"{value * self.factor:.{self.digits}f}"


LABELS: tuple[TaskKind, ...] = ("image-label", "text-label")
"""The kinds of tasks that have a set of labels."""

PERCENT = Scale(1.0, "of 100")
TIMES_100 = Scale(100.0, "x 100, as papers print it")


@dataclass(frozen=True)
class Concern:
    """An assumption of a score that these references do not keep, so that the score says less than it seems to.

    Attributes:
        text: What is assumed, what is there, and what becomes of the score.
        instead: The evaluator that fits where this score cannot tell good predictions from bad ones; else None.
    """

    text: str
    instead: str | None = None


@dataclass(frozen=True)
class Evaluator:
    """One scorer and what it declares. Of every score, higher is better: checkpoints and trials are picked by it.

    Attributes:
        compute: Scores an input: score key -> value, unrounded, in the scale of the reference implementation.
        scores: Every key that `compute` may return -> how it is printed. Behind a slash it may add a detail
            (``vqa_accuracy/number``), which is printed in the same way. The first picks a checkpoint.
        check_available: Raises `ConfigError` where it cannot run on this machine, given the tokenizer of captions.
        check_references: Returns what the scores assume and these references do not keep. Raises `DataError` where they
            cannot be scored against at all.
        each: Scores of each example: name -> one value an example, in the scale of `compute`. None where an example has
            none of its own, as of a correlation.
        kinds: The kinds of tasks whose predictions it is made for.
    """

    compute: Callable[[EvaluationInput], dict[str, float]]
    scores: Mapping[str, Scale]
    check_available: Callable[[TokenizerName], None] = lambda tokenizer: None
    check_references: Callable[[Sequence[Reference]], list[Concern]] = lambda references: []
    each: Callable[[EvaluationInput], dict[str, list[float]]] | None = None
    kinds: tuple[TaskKind, ...] = get_args(TaskKind)


def add_up(values: Iterable[float]) -> float:
    """Returns the sum, added from left to right.

    The built-in ``sum`` compensates rounding from Python 3.12 on; the reference scripts do not, and results are meant
    to equal theirs to the last digit.
    """
    total = 0.0
    for value in values:
        total += value
    return total


def mean(values: Sequence[float]) -> float:
    """Returns the mean of some values, added as the built-in ``sum`` adds."""
    return sum(values) / len(values)


def by_type(
    key: str, values: Sequence[float], references: Sequence[Reference], average: Callable[[Sequence[float]], float]
) -> dict[str, float]:
    """Returns means of the examples of each type, where references have types.

    Args:
        key: Name of the score: the names are ``key/<answer type>`` and ``key/question_type/<question type>``, each kind
            in alphabetical order.
        values: What each example scored.
        references: With the types, in the same order.
        average: What the score makes of several values.
    """
    by_answer_type: dict[str, list[float]] = defaultdict(list)
    by_question_type: dict[str, list[float]] = defaultdict(list)
    for value, reference in zip(values, references, strict=True):
        if reference.answer_type is not None:
            by_answer_type[reference.answer_type].append(value)
        if reference.question_type is not None:
            by_question_type[reference.question_type].append(value)
    return {
        **{f"{key}/{name}": average(group) for name, group in sorted(by_answer_type.items())},
        **{f"{key}/question_type/{name}": average(group) for name, group in sorted(by_question_type.items())},
    }


def how_many_have(count: int, total: int, noun: str) -> str:
    """Returns ``every question has``, ``1 of 10 questions has`` or ``3 of 10 questions have``."""
    if count == total:
        return f"every {noun} has"
    return f"{count:,} of {total:,} {noun}s {'has' if count == 1 else 'have'}"


def align(
    predictions: Mapping[Id, str],
    references: Mapping[Id, Reference],
    *,
    allow_missing: bool = False,
    noun: str = "example",
    instead: str = "predict them, or give --allow-missing to score them as empty",
) -> tuple[list[str], list[Reference]]:
    """Puts predictions in the order of the references.

    Args:
        predictions: Prediction by question id or image id.
        references: Reference by the same id; its order is the order of the result.
        allow_missing: Score an id without a prediction as the empty string instead of refusing.
        noun: What an id names, for the messages: "question" or "image".
        instead: What to do about missing predictions, for the message.

    Returns:
        Predictions and references, of the same length and order.

    Raises:
        DataError: A prediction has an id that the references lack, or an id has no prediction and
            `allow_missing` is false; the message counts them and names some.
    """
    unknown = [example_id for example_id in predictions if example_id not in references]
    if unknown:
        alike = {str(example_id) for example_id in references} & set(map(str, unknown))
        todo = (
            "ids are numbers on one side and texts on the other" if alike else "give the references of the same split"
        )
        raise DataError(
            f"{len(unknown)} of {len(predictions)} predictions have {noun} ids that are not among the "
            f"{len(references)} references: {_some(unknown)}; {todo}"
        )
    missing = [example_id for example_id in references if example_id not in predictions]
    if missing and not allow_missing:
        raise DataError(
            f"predictions missing for {len(missing)} of {len(references)} {noun}s: {_some(missing)}; {instead}"
        )
    return [predictions.get(example_id, "") for example_id in references], list(references.values())


def _some(ids: Sequence[Hashable]) -> str:
    """Returns the first few of `ids` as text."""
    more = ", ..." if len(ids) > _NAMED_IDS else ""
    return ", ".join(map(str, ids[:_NAMED_IDS])) + more
