"""Questions with their answers, and captions, about a `Scene`: pure functions of the scene and a `random.Random`.

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


@dataclass(frozen=True)
class Question:
    """A question about a scene. `question_type` is its opening words, as in VQA v2."""

    text: str
    answer: str
    question_type: str
    answer_type: AnswerType


def plural(shape: str) -> str:
    """``"circles"`` for ``"circle"``, ``"crosses"`` for ``"cross"``."""
    return shape + ("es" if shape == "cross" else "s")


def place(position: str) -> str:
    """The words for being in a cell of the layout: ``"in the center"``, ``"on the left"``, ``"at the top"``."""
    if position == "center":
        return "in the center"
    return f"{'on' if position in ('left', 'right') else 'at'} the {position}"


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


def _yes_no(text: str, is_true: bool, question_type: str) -> Question:
    return Question(text, "yes" if is_true else "no", question_type, "yes/no")


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
        return _yes_no(f"Are there any {many}?", is_true, "are there any")
    return _yes_no(form, is_true, f"is there {article}")


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
    return _yes_no(f"Is the {words} {value}?", is_true, "is the")


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
    return _yes_no(f"Is the {first} {relation} the {second}?", is_true, "is the")


def _ask_comparison(scene: Scene, rng: random.Random) -> Question | None:
    """Is the star bigger than the circle? Only for pairs of different sizes."""
    if len(scene.objects) < 2:
        return None
    one, other = rng.sample(scene.objects, 2)
    first, second = (_describe(scene, o, rng, without="size") for o in (one, other))
    if one.size == other.size or first is None or second is None:
        return None
    word, bigger = rng.choice((("bigger", "large"), ("smaller", "small")))
    return _yes_no(f"Is the {first} {word} than the {second}?", one.size == bigger, "is the")


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
    return _yes_no(f"Are the {first} and the {second} the same {field}?", is_same, "are the")


def _ask_background_yes_no(scene: Scene, rng: random.Random) -> Question:
    is_true = rng.random() < 0.5
    value = scene.background if is_true else rng.choice([b for b in BACKGROUNDS if b != scene.background])
    return _yes_no(f"Is the background {value}?", is_true, "is the")


def _ask_occupied(scene: Scene, rng: random.Random) -> Question:
    is_true = rng.random() < 0.5
    taken = {o.position for o in scene.objects}
    position = rng.choice([p for p in POSITIONS if (p in taken) == is_true])
    return _yes_no(f"Is there anything {place(position)}?", is_true, "is there")


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
    return Question(form, str(count), "how many", "number")


def _ask_color(scene: Scene, rng: random.Random) -> Question | None:
    item = rng.choice(scene.objects)
    words = _describe(scene, item, rng, without="color")
    if words is None or words == "object":
        return None
    form, kind = rng.choice(((f"What color is the {words}?", "what color is the"),
                             (f"What is the color of the {words}?", "what is the color of the")))  # fmt: skip
    return Question(form, item.color, kind, "other")


def _ask_shape(scene: Scene, rng: random.Random) -> Question | None:
    item = rng.choice(scene.objects)
    words = _describe(scene, item, rng, without="shape")
    if words is None:
        return None
    return Question(f"What shape is the {words}?", item.shape, "what shape is the", "other")


def _ask_size(scene: Scene, rng: random.Random) -> Question | None:
    item = rng.choice(scene.objects)
    words = _describe(scene, item, rng, without="size")
    return None if words is None else Question(f"What size is the {words}?", item.size, "what size is the", "other")


def _ask_place(scene: Scene, rng: random.Random) -> Question | None:
    item = rng.choice(scene.objects)
    words = _describe(scene, item, rng)
    return None if words is None else Question(f"Where is the {words}?", item.position, "where is the", "other")


def _ask_at_place(scene: Scene, rng: random.Random) -> Question:
    item = rng.choice(scene.objects)
    if rng.random() < 0.5:
        return Question(f"What color is the object {place(item.position)}?", item.color, "what color is the", "other")
    return Question(f"What shape is {place(item.position)}?", item.shape, "what shape is", "other")


def _ask_extreme(scene: Scene, rng: random.Random) -> Question | None:
    """What shape is the leftmost object? Only when one object alone is furthest out."""
    word, score = rng.choice(tuple(_EXTREMES.items()))
    ordered = sorted(scene.objects, key=score)
    if len(ordered) < 2 or score(ordered[0]) == score(ordered[1]):
        return None
    return _color_or_shape(f"is the {word} object?", ordered[0], rng)


def _ask_neighbour(scene: Scene, rng: random.Random) -> Question | None:
    """What color is the object above the star? Only when exactly one object is."""
    other = rng.choice(scene.objects)
    words = _describe(scene, other, rng)
    relation = rng.choice(tuple(_DIRECTIONS))
    found = [o for o in scene.objects if _DIRECTIONS[relation](o, other)]
    if words is None or len(found) != 1:
        return None
    return _color_or_shape(f"is the object {relation} the {words}?", found[0], rng)


def _color_or_shape(rest: str, item: SceneObject, rng: random.Random) -> Question:
    field = rng.choice(("color", "shape"))
    return Question(f"What {field} {rest}", getattr(item, field), f"what {field} is the", "other")


def _ask_background(scene: Scene, rng: random.Random) -> Question:
    return Question("What color is the background?", scene.background, "what color is the", "other")


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


def draw_questions(scene: Scene, count: int, rng: random.Random) -> list[Question]:
    """Returns `count` different questions about `scene`, drawn in VQA v2's mix of answer types."""
    questions: dict[str, Question] = {}
    answer_types, weights = tuple(_TYPE_WEIGHTS), tuple(_TYPE_WEIGHTS.values())
    while len(questions) < count:
        answer_type = rng.choices(answer_types, weights)[0]
        question = _draw_question(scene, answer_type, rng)
        questions.setdefault(question.text, question)
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


def draw_captions(scene: Scene, rng: random.Random) -> list[str]:
    """Returns five captions: paraphrases that name the objects in reading order, as five people would."""
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
