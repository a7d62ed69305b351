"""Draws a `Scene` as a small RGB image, antialiased, with varying shades, sizes and offsets."""

from __future__ import annotations

import functools
import math
import random

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from data_prep.demo_world.scene import GRID, Scene

IMAGE_SIZE = 96
"""Pixels per side."""

CELL_SIZE = IMAGE_SIZE // GRID
"""Pixels per side of one cell of the layout."""

_SUPERSAMPLING = 8
_RADII = {"small": (8, 9), "large": (13, 14)}  # pixels
_MAX_OFFSET = 1  # pixels between the middles of an object and of its cell, along each axis
_RGB = {
    "red": (215, 35, 40),
    "green": (40, 155, 60),
    "blue": (40, 85, 205),
    "yellow": (240, 215, 45),
    "orange": (245, 130, 25),
    "purple": (130, 55, 165),
    "pink": (245, 135, 190),
    "brown": (120, 75, 45),
    "white": (245, 245, 245),
    "gray": (150, 150, 150),
    "black": (25, 25, 25),
    "beige": (225, 210, 175),
}
_SHADE_JITTER = 8  # largest change of each channel of a colour, of 255
_NOISE_STD = 2.5  # per pixel and channel, of 255


def _polygon(shape: str, center: float, radius: float) -> list[tuple[float, float]]:
    """The corners of a shape that is not a circle, in pixels of the supersampled mask."""
    if shape == "square":
        side = 0.85 * radius
        corners = [(-side, -side), (side, -side), (side, side), (-side, side)]
    elif shape == "diamond":
        corners = [(0.0, -radius), (0.75 * radius, 0.0), (0.0, radius), (-0.75 * radius, 0.0)]
    elif shape == "triangle":
        corners = [(0.0, -radius), (radius, 0.8 * radius), (-radius, 0.8 * radius)]
    elif shape == "cross":
        arm = 0.32 * radius
        quarter = [(-arm, -radius), (arm, -radius), (arm, -arm)]
        corners = [p for turn in range(4) for p in (_turned(q, turn) for q in quarter)]
    else:  # star
        radii = (radius, 0.42 * radius)
        angles = [math.pi * (k / 5 - 0.5) for k in range(10)]
        corners = [(radii[k % 2] * math.cos(a), radii[k % 2] * math.sin(a)) for k, a in enumerate(angles)]
    return [(center + x, center + y) for x, y in corners]


def _turned(point: tuple[float, float], quarter_turns: int) -> tuple[float, float]:
    x, y = point
    for _ in range(quarter_turns):
        x, y = -y, x
    return x, y


@functools.cache
def _mask(shape: str, radius: int) -> NDArray[np.float32]:
    """Returns the share of each pixel that the shape covers, in [0, 1], (2 radius + 2, 2 radius + 2)."""
    side = 2 * radius + 2
    large = Image.new("L", (side * _SUPERSAMPLING,) * 2)
    pen = ImageDraw.Draw(large)
    center, scaled = side * _SUPERSAMPLING / 2, radius * _SUPERSAMPLING
    if shape == "circle":
        pen.ellipse([center - scaled, center - scaled, center + scaled, center + scaled], fill=255)
    else:
        pen.polygon(_polygon(shape, center, scaled), fill=255)
    mask = np.asarray(large.resize((side, side), Image.Resampling.BOX), dtype=np.float32) / np.float32(255)
    mask.setflags(write=False)
    return mask


def _shade(color: str, rng: random.Random) -> NDArray[np.float32]:
    return np.array([c + rng.uniform(-_SHADE_JITTER, _SHADE_JITTER) for c in _RGB[color]], dtype=np.float32)


def draw_image(scene: Scene, seed: int) -> NDArray[np.uint8]:
    """Draws `scene`; offsets within the cells, radii, shades and noise are drawn from `seed` alone.

    Returns:
        RGB in 0..255, (IMAGE_SIZE, IMAGE_SIZE, 3).
    """
    rng = random.Random(seed)
    noise = np.random.Generator(np.random.PCG64(seed))
    canvas = noise.standard_normal((IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.float32) * _NOISE_STD
    canvas += _shade(scene.background, rng)
    for item in scene.objects:
        radius = rng.choice(_RADII[item.size])
        mask = _mask(item.shape, radius)[..., None]
        side = mask.shape[0]
        margin = (CELL_SIZE - side) // 2
        reach = min(margin, _MAX_OFFSET)
        top = item.row * CELL_SIZE + margin + rng.randint(-reach, reach)
        left = item.column * CELL_SIZE + margin + rng.randint(-reach, reach)
        window = canvas[top : top + side, left : left + side]
        window += mask * (_shade(item.color, rng) - _shade(scene.background, rng))
    return np.clip(np.rint(canvas), 0, 255).astype(np.uint8)
