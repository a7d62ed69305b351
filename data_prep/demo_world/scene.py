"""What a drawn scene is: up to five coloured shapes, each in its own cell of a 3 x 3 layout.

Everything here is pure and depends on nothing but the standard library: a scene drawn from a given `random.Random`
is the same on every machine and in every process.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, replace
from typing import Literal

SHAPES = ("circle", "square", "triangle", "star", "cross", "diamond")
COLORS = ("red", "green", "blue", "yellow", "orange", "purple", "pink", "brown")
SIZES = ("small", "large")
BACKGROUNDS = ("white", "gray", "black", "beige")
POSITIONS = (
    "top left",
    "top",
    "top right",
    "left",
    "center",
    "right",
    "bottom left",
    "bottom",
    "bottom right",
)
"""The name of each cell of the 3 x 3 layout, row by row."""

GRID = 3
"""Cells per side of the layout."""

MAX_OBJECTS = 5

Split = Literal["pretrain", "train", "restval", "val", "test"]

_SPLIT_BOUNDS: tuple[tuple[Split, int], ...] = (
    ("pretrain", 50),
    ("train", 75),
    ("restval", 82),
    ("val", 91),
    ("test", 100),
)
# How many objects a scene holds, as (count, weight).
_OBJECT_COUNTS = ((1, 2), (2, 5), (3, 6), (4, 4), (5, 3))
_DRAWS_BEFORE_GIVING_UP = 10_000


@dataclass(frozen=True, order=True)
class SceneObject:
    """One shape. `cell` counts the layout's cells row by row, 0 (top left) to 8 (bottom right)."""

    cell: int
    color: str
    shape: str
    size: str

    @property
    def row(self) -> int:
        """0 (top) to 2 (bottom)."""
        return self.cell // GRID

    @property
    def column(self) -> int:
        """0 (left) to 2 (right)."""
        return self.cell % GRID

    @property
    def position(self) -> str:
        """The name of the object's cell, such as ``"top left"``."""
        return POSITIONS[self.cell]


@dataclass(frozen=True)
class Scene:
    """A background and its objects in reading order (row by row); no two objects share a cell."""

    background: str
    objects: tuple[SceneObject, ...]

    @property
    def key(self) -> str:
        """The canonical description: equal for two scenes exactly when their contents are equal."""
        items = ";".join(f"{o.cell} {o.size} {o.color} {o.shape}" for o in self.objects)
        return f"{self.background}|{items}"

    @property
    def split(self) -> Split:
        """The split this scene belongs to, decided by a hash of its contents alone.

        No scene can therefore be in two splits, whatever the seeds; ``"pretrain"`` is what the demo backbone learns
        from, the others are the Karpathy splits of the demo data.
        """
        bucket = int.from_bytes(hashlib.sha256(self.key.encode()).digest()[:8], "big") % 100
        return next(name for name, bound in _SPLIT_BOUNDS if bucket < bound)


def _draw_any_scene(rng: random.Random, max_objects: int) -> Scene:
    counts, weights = zip(*_OBJECT_COUNTS[:max_objects], strict=True)
    cells = sorted(rng.sample(range(GRID * GRID), rng.choices(counts, weights)[0]))
    objects: list[SceneObject] = []
    for cell in cells:
        drawn = SceneObject(cell, rng.choice(COLORS), rng.choice(SHAPES), rng.choice(SIZES))
        if objects and rng.random() < 0.35:  # share an attribute, so that counts and comparisons have something to find
            other = rng.choice(objects)
            shares_color = rng.random() < 0.5
            drawn = replace(drawn, color=other.color) if shares_color else replace(drawn, shape=other.shape)
        objects.append(drawn)
    return Scene(rng.choice(BACKGROUNDS), tuple(objects))


def draw_scene(rng: random.Random, split: Split, max_objects: int = MAX_OBJECTS) -> Scene:
    """Draws a scene of at most `max_objects` objects that belongs to `split`, from the state of `rng` alone."""
    for _ in range(_DRAWS_BEFORE_GIVING_UP):
        scene = _draw_any_scene(rng, max_objects)
        if scene.split == split:
            return scene
    raise AssertionError(f"no scene of split {split!r} in {_DRAWS_BEFORE_GIVING_UP} draws")


def draw_variant(rng: random.Random, scene: Scene) -> Scene:
    """Returns `scene` with one thing changed; the result may belong to another split.

    That is an object's colour, shape, size or cell, an attribute swapped between two objects, or the background.
    """
    change = rng.choices(("color", "shape", "size", "cell", "swap", "background"), (3, 6, 4, 3, 3, 1))[0]
    if change == "background":
        return replace(scene, background=rng.choice([b for b in BACKGROUNDS if b != scene.background]))
    objects = list(scene.objects)
    if change == "swap" and len(objects) > 1:
        first, second = rng.sample(range(len(objects)), 2)
        field = rng.choice(("color", "shape", "size"))
        one, two = objects[first], objects[second]
        objects[first] = _changed(one, field, getattr(two, field))
        objects[second] = _changed(two, field, getattr(one, field))
        return replace(scene, objects=tuple(objects))
    index = rng.randrange(len(objects))
    old = objects[index]
    if change == "cell":
        taken = {o.cell for o in objects}
        objects[index] = replace(old, cell=rng.choice([c for c in range(GRID * GRID) if c not in taken]))
    else:
        field, values = {"color": ("color", COLORS), "shape": ("shape", SHAPES)}.get(change, ("size", SIZES))
        objects[index] = _changed(old, field, rng.choice([v for v in values if v != getattr(old, field)]))
    return replace(scene, objects=tuple(sorted(objects)))


def _changed(item: SceneObject, field: str, value: str) -> SceneObject:
    attributes = {"color": item.color, "shape": item.shape, "size": item.size, field: value}
    return SceneObject(item.cell, **attributes)
