"""Questions with their answers, and captions, about a `Scene`: pure functions of the scene and a `random.Random`.

Each question is worded twice, as a sentence and in keywords, as one types them into a search box. The packaged T5 has
read sentences; the demo's questions and captions are in keywords, which a method must teach it.

Every question has exactly one right answer, and its answer is hard to guess without the picture: yes and no are
equally likely for each form, a wrong colour, shape or place asked about is usually one of another object, and the
other answers are close to uniform.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from data_prep.demo_world.scene import BACKGROUNDS, COLORS, POSITIONS, SHAPES, SIZES, Scene, SceneObject

AnswerType = Literal["yes/no", "number", "other"]

CAPTIONS_PER_SCENE = 5

# Shares of the three answer types, close to those of VQA v2.
_TYPE_WEIGHTS: dict[AnswerType, float] = {"yes/no": 0.38, "number": 0.14, "other": 0.48}
_DIRECTIONS: dict[str, Callable[[SceneObject, SceneObject], bool]] = {
    "to the left of": lambda one, other: one.column < other.column,
    "to the right of": lambda one, other: one.column > other.column,
    "above": lambda one, other: one.row < other.row,
    "below": lambda one, other: one.row > other.row,
}
_EXTREMES: dict[str, Callable[[SceneObject], int]] = {
    "leftmost": lambda item: item.column,
    "rightmost": lambda item: -item.column,
    "topmost": lambda item: item.row,
    "lowest": lambda item: -item.row,
}
_VALUES = {"color": COLORS, "shape": SHAPES, "size": SIZES}
_DRAWS_BEFORE_GIVING_UP = 200


Wording = Literal["sentences", "keywords"]


@dataclass(frozen=True)
class Question:
    """A question about a scene.

    Attributes:
        text: As a sentence: ``"What color is the small circle?"``.
        keywords: ``"small circle color"``.
        answer: The right one.
        question_type: The sentence's opening words, as in VQA v2.
        answer_type: VQA v2's.
    """

    text: str
    keywords: str
    answer: str
    question_type: str
    answer_type: AnswerType

    def worded(self, wording: Wording) -> str:
        """Returns the question as it is asked."""
        return self.text if wording == "sentences" else self.keywords


def plural(shape: str) -> str:
    """``"circles"`` for ``"circle"``, ``"crosses"`` for ``"cross"``."""
    return shape + ("es" if shape == "cross" else "s")


def place(position: str) -> str:
    """The words for being in a cell of the layout: ``"in the center"``, ``"on the left"``, ``"at the top"``."""
    if position == "center":
        return "in the center"
    return f"{'on' if position in ('left', 'right') else 'at'} the {position}"


def _short(relation: str) -> str:
    """``"left of"`` for ``"to the left of"``."""
    return relation.removeprefix("to the ")


def _matches(item: SceneObject, wanted: dict[str, str]) -> bool:
    return all(getattr(item, field) == value for field, value in wanted.items())


def _words(wanted: dict[str, str], noun: str = "object") -> str:
    """``"small red circle"`` for a description by any of size, colour and shape."""
    return " ".join([wanted[f] for f in ("size", "color") if f in wanted] + [wanted.get("shape", noun)])


def _describe(scene: Scene, item: SceneObject, rng: random.Random, without: str = "") -> str | None:
    """Returns words that fit `item` and no other object, without naming the attribute `without`; None if none do."""
    choices = [("shape",), ("color",), ("color", "shape"), ("size", "shape"), ("size", "color"), ("size",)]
    rng.shuffle(choices)
    for fields in sorted(choices, key=len):
        wanted = {f: getattr(item, f) for f in fields}
        if without not in fields and sum(_matches(o, wanted) for o in scene.objects) == 1:
            return _words(wanted)
    return None


def _yes_no(text: str, keywords: str, is_true: bool, question_type: str) -> Question:
    return Question(text, keywords, "yes" if is_true else "no", question_type, "yes/no")


def _ask_existence(scene: Scene, rng: random.Random) -> Question | None:
    """Is there a red circle? When not, one attribute of a real object is changed."""
    fields = rng.choice((("color",), ("shape",), ("color", "shape"), ("color", "shape"), ("size", "shape")))
    item = rng.choice(scene.objects)
    wanted = {f: getattr(item, f) for f in fields}
    is_true = rng.random() < 0.5
    if not is_true:
        changed = rng.choice(fields)
        near = [getattr(o, changed) for o in scene.objects]
        absent = [v for v in _VALUES[changed] if not any(_matches(o, wanted | {changed: v}) for o in scene.objects)]
        if not absent:
            return None
        wanted[changed] = rng.choice([v for v in near if v in absent and rng.random() < 0.6] or absent)
    words = _words(wanted)
    article = "an" if words[0] in "aeiou" else "a"
    form = rng.choice((f"Is there {article} {words}?", f"Is there {article} {words} in the picture?", "plural"))
    if form == "plural":
        many = " ".join([wanted[f] for f in ("size", "color") if f in wanted] + [plural(wanted.get("shape", "object"))])
        return _yes_no(f"Are there any {many}?", f"any {many}", is_true, "are there any")
    return _yes_no(form, f"any {words}", is_true, f"is there {article}")


def _ask_attribute(scene: Scene, rng: random.Random) -> Question | None:
    """Is the circle red? Is the red star large?"""
    item = rng.choice(scene.objects)
    field = rng.choice(("color", "color", "size"))
    words = _describe(scene, item, rng, without=field)
    if words is None:
        return None
    true_value = getattr(item, field)
    is_true = rng.random() < 0.5
    pool = [v for v in (COLORS if field == "color" else SIZES) if v != true_value]
    near = [getattr(o, field) for o in scene.objects if getattr(o, field) != true_value]
    value = true_value if is_true else rng.choice(near if near and rng.random() < 0.5 else pool)
    return _yes_no(f"Is the {words} {value}?", f"{words} {value}", is_true, "is the")


def _ask_relation(scene: Scene, rng: random.Random) -> Question | None:
    """Is the star above the blue square? Only for pairs that differ along the direction asked about."""
    if len(scene.objects) < 2:
        return None
    one, other = rng.sample(scene.objects, 2)
    first, second = _describe(scene, one, rng), _describe(scene, other, rng)
    relation = rng.choice(tuple(_DIRECTIONS))
    is_true, is_opposite = _DIRECTIONS[relation](one, other), _DIRECTIONS[relation](other, one)
    if first is None or second is None or is_true == is_opposite:
        return None
    keywords = f"{first} {_short(relation)} {second}"
    return _yes_no(f"Is the {first} {relation} the {second}?", keywords, is_true, "is the")


def _ask_comparison(scene: Scene, rng: random.Random) -> Question | None:
    """Is the star bigger than the circle? Only for pairs of different sizes."""
    if len(scene.objects) < 2:
        return None
    one, other = rng.sample(scene.objects, 2)
    first, second = (_describe(scene, o, rng, without="size") for o in (one, other))
    if one.size == other.size or first is None or second is None:
        return None
    word, bigger = rng.choice((("bigger", "large"), ("smaller", "small")))
    text = f"Is the {first} {word} than the {second}?"
    return _yes_no(text, f"{first} {word} {second}", one.size == bigger, "is the")


def _ask_same(scene: Scene, rng: random.Random) -> Question | None:
    """Are the star and the circle the same color? Only where both a yes and a no could be asked for."""
    field = rng.choice(("color", "shape"))
    described = [(item, _describe(scene, item, rng, without=field)) for item in scene.objects]
    pairs: dict[bool, list[tuple[str, str]]] = {True: [], False: []}
    for one, first in described:
        for other, second in described:
            if one != other and first is not None and second is not None:
                pairs[getattr(one, field) == getattr(other, field)].append((first, second))
    if not pairs[True] or not pairs[False]:
        return None
    is_same = rng.random() < 0.5
    first, second = rng.choice(pairs[is_same])
    text = f"Are the {first} and the {second} the same {field}?"
    return _yes_no(text, f"{first} {second} same {field}", is_same, "are the")


def _ask_background_yes_no(scene: Scene, rng: random.Random) -> Question:
    is_true = rng.random() < 0.5
    value = scene.background if is_true else rng.choice([b for b in BACKGROUNDS if b != scene.background])
    return _yes_no(f"Is the background {value}?", f"background {value}", is_true, "is the")


def _ask_occupied(scene: Scene, rng: random.Random) -> Question:
    is_true = rng.random() < 0.5
    taken = {o.position for o in scene.objects}
    position = rng.choice([p for p in POSITIONS if (p in taken) == is_true])
    return _yes_no(f"Is there anything {place(position)}?", f"anything {position}", is_true, "is there")


def _ask_count(scene: Scene, rng: random.Random) -> Question | None:
    fields = rng.choice(((), ("color",), ("shape",), ("shape",), ("size",)))
    if fields and rng.random() < 0.25:
        wanted = {f: rng.choice(_VALUES[f]) for f in fields}
    else:
        item = rng.choice(scene.objects)
        wanted = {f: getattr(item, f) for f in fields}
    count = sum(_matches(o, wanted) for o in scene.objects)
    if count == 1 and fields and rng.random() < 0.6:  # "1" would be the answer far too often
        return None
    many = " ".join([wanted[f] for f in ("size", "color") if f in wanted] + [plural(wanted.get("shape", "object"))])
    form = rng.choice((f"How many {many} are there?", f"How many {many} are in the picture?"))
    return Question(form, f"count {many}", str(count), "how many", "number")


def _ask_color(scene: Scene, rng: random.Random) -> Question | None:
    item = rng.choice(scene.objects)
    words = _describe(scene, item, rng, without="color")
    if words is None or words == "object":
        return None
    form, kind = rng.choice(((f"What color is the {words}?", "what color is the"),
                             (f"What is the color of the {words}?", "what is the color of the")))  # fmt: skip
    return Question(form, f"{words} color", item.color, kind, "other")


def _ask_shape(scene: Scene, rng: random.Random) -> Question | None:
    item = rng.choice(scene.objects)
    words = _describe(scene, item, rng, without="shape")
    if words is None:
        return None
    return Question(f"What shape is the {words}?", f"{words} shape", item.shape, "what shape is the", "other")


def _ask_size(scene: Scene, rng: random.Random) -> Question | None:
    item = rng.choice(scene.objects)
    words = _describe(scene, item, rng, without="size")
    if words is None:
        return None
    return Question(f"What size is the {words}?", f"{words} size", item.size, "what size is the", "other")


def _ask_place(scene: Scene, rng: random.Random) -> Question | None:
    item = rng.choice(scene.objects)
    words = _describe(scene, item, rng)
    if words is None:
        return None
    return Question(f"Where is the {words}?", f"{words} place", item.position, "where is the", "other")


def _ask_at_place(scene: Scene, rng: random.Random) -> Question:
    item = rng.choice(scene.objects)
    where = place(item.position)
    if rng.random() < 0.5:
        text, keywords = f"What color is the object {where}?", f"{item.position} color"
        return Question(text, keywords, item.color, "what color is the", "other")
    return Question(f"What shape is {where}?", f"{item.position} shape", item.shape, "what shape is", "other")


def _ask_extreme(scene: Scene, rng: random.Random) -> Question | None:
    """What shape is the leftmost object? Only when one object alone is furthest out."""
    word, score = rng.choice(tuple(_EXTREMES.items()))
    ordered = sorted(scene.objects, key=score)
    if len(ordered) < 2 or score(ordered[0]) == score(ordered[1]):
        return None
    return _color_or_shape(f"is the {word} object?", f"{word} object", ordered[0], rng)


def _ask_neighbour(scene: Scene, rng: random.Random) -> Question | None:
    """What color is the object above the star? Only when exactly one object is."""
    other = rng.choice(scene.objects)
    words = _describe(scene, other, rng)
    relation = rng.choice(tuple(_DIRECTIONS))
    found = [o for o in scene.objects if _DIRECTIONS[relation](o, other)]
    if words is None or len(found) != 1:
        return None
    rest, keywords = f"is the object {relation} the {words}?", f"{_short(relation)} {words}"
    return _color_or_shape(rest, keywords, found[0], rng)


def _color_or_shape(rest: str, keywords: str, item: SceneObject, rng: random.Random) -> Question:
    field = rng.choice(("color", "shape"))
    answer = getattr(item, field)
    return Question(f"What {field} {rest}", f"{keywords} {field}", answer, f"what {field} is the", "other")


def _ask_background(scene: Scene, rng: random.Random) -> Question:
    text, keywords = "What color is the background?", "background color"
    return Question(text, keywords, scene.background, "what color is the", "other")


_FORMS: dict[AnswerType, Sequence[tuple[Callable[[Scene, random.Random], Question | None], float]]] = {
    "yes/no": (
        (_ask_existence, 10),
        (_ask_attribute, 6),
        (_ask_relation, 7),
        (_ask_comparison, 3),
        (_ask_same, 2),
        (_ask_background_yes_no, 2),
        (_ask_occupied, 3),
    ),
    "number": ((_ask_count, 1),),
    "other": (
        (_ask_color, 10),
        (_ask_shape, 9),
        (_ask_at_place, 8),
        (_ask_place, 6),
        (_ask_extreme, 4),
        (_ask_neighbour, 3),
        (_ask_background, 3),
        (_ask_size, 2),
    ),
}


def draw_questions(scene: Scene, count: int, rng: random.Random, wording: Wording = "sentences") -> list[Question]:
    """Returns `count` questions about `scene`, different ones as worded, drawn in VQA v2's mix of answer types."""
    questions: dict[str, Question] = {}
    answer_types, weights = tuple(_TYPE_WEIGHTS), tuple(_TYPE_WEIGHTS.values())
    while len(questions) < count:
        answer_type = rng.choices(answer_types, weights)[0]
        question = _draw_question(scene, answer_type, rng)
        questions.setdefault(question.worded(wording), question)
    return list(questions.values())


def _draw_question(scene: Scene, answer_type: AnswerType, rng: random.Random) -> Question:
    forms, weights = zip(*_FORMS[answer_type], strict=True)
    for _ in range(_DRAWS_BEFORE_GIVING_UP):
        ask = rng.choices(forms, weights)[0]
        question: Question | None = ask(scene, rng)
        if question is not None:
            return question
    raise AssertionError(f"no {answer_type} question about {scene.key!r}")


def _listed(items: Sequence[str]) -> str:
    """Joins with commas and a final ``and``."""
    if len(items) == 1:
        return items[0]
    return f"{', '.join(items[:-1])} and {items[-1]}"


def _noun_phrase(item: SceneObject, has_size: bool = True) -> str:
    words = f"{item.size} {item.color} {item.shape}" if has_size else f"{item.color} {item.shape}"
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def draw_captions(scene: Scene, rng: random.Random, wording: Wording = "sentences") -> list[str]:
    """Returns five captions: paraphrases that name the objects in reading order, as five people would."""
    return _sentences(scene, rng) if wording == "sentences" else _keyword_captions(scene, rng)


def _keyword_captions(scene: Scene, rng: random.Random) -> list[str]:
    """Five lists of words: the background first, and each object with its place before it or behind."""
    ground = f"{scene.background} background"
    before = ", ".join(f"{o.position} {o.size} {o.color} {o.shape}" for o in scene.objects)
    behind = ", ".join(f"{o.size} {o.color} {o.shape} {o.position}" for o in scene.objects)
    short = ", ".join(f"{o.position} {o.color} {o.shape}" for o in scene.objects)
    captions = [
        f"{ground}, {before}",
        f"{ground}, {short}",
        rng.choice((f"{ground}, {before}", f"{ground}, {behind}")),
        rng.choice((before, short)),
        rng.choice((f"{ground}, {before}", f"{before}, {ground}")),
    ]
    rng.shuffle(captions)
    return captions


def _sentences(scene: Scene, rng: random.Random) -> list[str]:
    full = _listed([_noun_phrase(o) for o in scene.objects])
    short = _listed([_noun_phrase(o, has_size=False) for o in scene.objects])
    placed = _listed([f"{_noun_phrase(o, has_size=False)} {place(o.position)}" for o in scene.objects])
    background = f"{'an' if scene.background[0] in 'aeiou' else 'a'} {scene.background} background"
    captions = [
        f"{full} on {background}.",
        f"{short} on {background}.",
        rng.choice((f"there is {full}.", f"a picture of {full}.", f"{full} on {background}")),
        rng.choice((f"{background} with {full}.", f"{background} with {short}.")),
        rng.choice((f"{placed}.", f"{short}.", f"{full}.")),
    ]
    rng.shuffle(captions)
    return [caption[0].upper() + caption[1:] for caption in captions]
