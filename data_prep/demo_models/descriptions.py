"""Scenes described in words, for the demo T5's text-only training.

Two kinds. A *sentence* is ordinary text. A *bag list* is an unordered list of word bags, one bag per place of the scene
("top left small red circle", "bottom empty"); the words of a bag share one position of the encoder's input, their
embeddings added up. Bag lists are text too, but terse, unordered and with several words to a position, which is what
image features look like once a linear layer has translated them: a T5 that can read them can be adapted to images by a
projection. No image or image feature is involved.
"""

from __future__ import annotations

import random
from typing import Literal

from data_prep.demo_world.questions import place
from data_prep.demo_world.scene import GRID, POSITIONS, Scene, SceneObject

BagListKind = Literal["objects", "cells", "numbered"]

_CELLS = GRID * GRID


def describe_in_sentences(scene: Scene, rng: random.Random) -> str:
    """A description with every attribute of every object, in one of several styles and in random order."""
    items = list(scene.objects)
    rng.shuffle(items)
    style = rng.randrange(4)
    if style == 0:
        parts = [f"{o.size} {o.color} {o.shape} {o.position}" for o in items]
    elif style == 1:
        parts = [f"a {o.size} {o.color} {o.shape} {place(o.position)}" for o in items]
    elif style == 2:
        parts = [f"{o.position}: {o.size} {o.color} {o.shape}" for o in items]
    else:
        parts = [f"{place(o.position)} there is a {o.size} {o.color} {o.shape}" for o in items]
    parts.insert(rng.randint(0, len(parts)), f"{scene.background} background")
    return rng.choice((", ", "; ", ". ")).join(parts)


def describe_in_bags(scene: Scene, kind: BagListKind, rng: random.Random) -> list[list[str]]:
    """A description as word bags in random order.

    Args:
        scene: What to describe.
        kind: ``"objects"``: one or two bags per object and a few empty places; ``"cells"``: one bag for each of the
            nine cells; ``"numbered"``: the same in reading order, for bags whose numbers tell the place, so that most
            descriptions do not name it.
        rng: Decides the order, the repetitions and which optional words are there.
    """
    ground = rng.choice(
        ("empty", "all") if kind == "numbered" else ("single", "empty", "all")
    )  # which bags tell the background's colour
    empty_word = rng.choice(("empty", "background", "nothing"))
    by_cell = {item.cell: item for item in scene.objects}
    is_placed = kind != "numbered" or rng.random() < 0.3
    bags: list[list[str]] = []
    for cell in range(_CELLS):
        item = by_cell.get(cell)
        copies = 1
        if kind == "objects":
            copies = rng.choice((1, 1, 2)) if item else int(rng.random() < 0.2)
        for copy in range(copies):
            bag = _bag(cell, item, scene.background, ground, empty_word, is_partial=copy > 0, rng=rng)
            bags.append(bag if is_placed else bag[len(POSITIONS[cell].split()) :])
    if kind == "numbered":
        return bags
    if ground == "single" or kind == "objects":
        bags.append(["background", scene.background])
    rng.shuffle(bags)
    return bags


def _bag(
    cell: int,
    item: SceneObject | None,
    background: str,
    ground: str,
    empty_word: str,
    *,
    is_partial: bool,
    rng: random.Random,
) -> list[str]:
    """One place's words. A partial bag, of an object that another bag names in full, lacks some of its words."""
    words = POSITIONS[cell].split()
    if item is None:
        words.append(empty_word)
        if ground != "single":
            words.append(background)
        return words
    attributes = [item.size, item.color, item.shape]
    if is_partial and rng.random() < 0.4:
        attributes = [word for word in attributes if rng.random() < 0.6]
    words += attributes
    if ground == "all":
        words.append(background)
    return words
