"""Where Soundstage plays: streets, roads, squares, stadiums, corridors, their light and weather.

``background`` paints a place once per scene and size; ``passers_by`` sets walkers and traffic in
motion, every position a function of time alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from data.make_soundstage.figures import (
    CAR_COLOURS,
    SHIRTS,
    SKINS,
    TAU,
    Canvas,
    Colour,
    Point,
    blend,
    car,
    dress,
    person,
    run,
    table,
    walk,
)
from data.make_soundstage.world import Scene

OVERSAMPLE = 2  # drawn so many times larger than asked


class Layout(NamedTuple):
    horizon: float
    stage: float  # ground line of events
    figure: float  # height of a person there
    paths: tuple[float, ...]  # ground lines of passers-by
    lanes: tuple[float, ...]
    wall: float  # ground line of the wall behind


LAYOUTS = {
    "street": Layout(0.56, 0.93, 0.44, (0.65, 0.68), (0.77, 0.88), 0.615),
    "road": Layout(0.46, 0.93, 0.44, (), (0.72, 0.86), 0.60),
    "square": Layout(0.54, 0.92, 0.44, (0.62, 0.68, 0.76), (), 0.58),
    "stadium": Layout(0.52, 0.92, 0.42, (0.62, 0.70, 0.78), (), 0.56),
    "corridor": Layout(0.45, 0.93, 0.50, (0.72, 0.80), (), 0.67),
}


# --- places ---------------------------------------------------------------------------------

_SKIES = {  # top and horizon
    "day": ((95, 155, 220), (205, 225, 240)),
    "dusk": ((85, 80, 135), (250, 165, 105)),
    "night": ((14, 18, 40), (40, 46, 80)),
}
_LIGHTS = {"day": (1.0, 1.0, 0.98), "dusk": (0.78, 0.62, 0.60), "night": (0.33, 0.36, 0.50)}
_GREY_SKY = (168, 174, 180)


def camera_of(scene: Scene) -> tuple[float, float, float]:
    """Zoom and the top left corner of what the lens sees."""
    a, b, d = table(scene.seed ^ 0xCA3E, 1, 3)[0]
    zoom = 1.0 + 0.14 * a
    return zoom, (1 - 1 / zoom) * (0.2 + 0.6 * b), (1 - 1 / zoom) * (0.6 + 0.4 * d)


def _gradient(image: Image.Image, top: Colour, bottom: Colour, horizon: float) -> None:
    rows = max(1, int(image.height * horizon))
    ramp = np.linspace(0, 1, rows)[:, None] ** 1.3
    colours = (np.array(top) + (np.array(bottom) - np.array(top)) * ramp).astype(np.uint8)
    strip = Image.fromarray(colours[:, None, :]).resize((image.width, rows))
    image.paste(strip, (0, 0))


def _sky(c: Canvas, scene: Scene, horizon: float) -> None:
    top, low = _SKIES[scene.light]
    if scene.weather != "clear":
        share = 0.75 if scene.light == "day" else 0.35
        top, low = blend(top, _GREY_SKY, share), blend(low, _GREY_SKY, share)
    _gradient(c.image, top, low, horizon)
    rows = table(scene.seed ^ 0x51, 6, 4)
    if scene.light == "night" and scene.weather == "clear":
        for a, b, d, _ in table(scene.seed ^ 0x57A2, 40, 4):
            c.oval(a, 0.5 * b * horizon, 0.003 + 0.003 * d, 0.003 + 0.003 * d, (225, 225, 240))
        if scene.place != "stadium":
            c.oval(0.15 + 0.7 * rows[0][0], 0.13, 0.035, 0.035, (240, 238, 220))
    elif scene.light == "day":
        tone = (250, 251, 253) if scene.weather == "clear" else (150, 156, 164)
        for j, (a, b, d, _) in enumerate(rows[:4]):
            for q in range(3):
                c.puff(
                    a + 0.07 * (q - 1),
                    0.05 + 0.14 * b + 0.01 * q,
                    0.06 + 0.03 * d,
                    tone,
                    0.7,
                    j + q,
                )
    elif scene.weather == "clear":
        c.oval(0.15 + 0.7 * rows[0][0], horizon * 0.72, 0.05, 0.05, (255, 215, 140))


def _tree(c: Canvas, x: float, y: float, h: float, seed: int, snow: bool) -> None:
    c.line([(x, y), (x, y - 0.5 * h)], 0.07 * h, (90, 65, 45), caps=False)
    for a, b, d in table(seed, 7, 3):
        tone = blend((45, 95, 50), (90, 145, 70), d)
        if snow:
            tone = blend(tone, (235, 240, 245), 0.65)
        c.oval(x + 0.36 * h * (a - 0.5), y - h * (0.5 + 0.38 * b), 0.20 * h, 0.18 * h, tone)


def _windows(
    c: Canvas,
    x0: float,
    x1: float,
    y0: float,
    y1: float,
    columns: int,
    rows: int,
    seed: int,
    lit: float,
) -> None:
    """A grid of windows; a share ``lit`` of them glows."""
    w, h = (x1 - x0) / columns, (y1 - y0) / rows
    draws = table(seed, columns * rows, 2)
    for j in range(columns):
        for i in range(rows):
            a, b = draws[j * rows + i]
            left, up = x0 + (j + 0.25) * w, y0 + (i + 0.22) * h
            glow = a < lit
            colour = blend((250, 210, 120), (255, 235, 180), b) if glow else (92, 112, 132)
            c.box(left, up, left + 0.5 * w, up + 0.58 * h, colour)
            if glow:
                c.glow(left + 0.25 * w, up + 0.3 * h, 0.3 * w, (255, 200, 110), 0.75)


def _street_lamp(c: Canvas, x: float, y: float, h: float, side: int, on: bool) -> None:
    c.line([(x, y), (x, y - h), (x + side * 0.06, y - h - 0.01)], 0.011, (62, 66, 72), caps=False)
    c.oval(x + side * 0.07, y - h, 0.022, 0.010, (255, 240, 190) if on else (200, 204, 208))
    if on:
        c.glow(x + side * 0.07, y - h + 0.005, 0.03, (255, 225, 150), 1.0)


_WALLS = (
    (170, 105, 85),
    (195, 165, 130),
    (150, 150, 158),
    (185, 130, 100),
    (130, 140, 155),
    (205, 190, 165),
)
_AWNINGS = ((190, 60, 55), (60, 120, 90), (60, 90, 150), (215, 160, 60))


def _paint_street(c: Canvas, scene: Scene, snow: bool) -> None:
    dark = scene.light != "day"
    base, seed = 0.60, scene.seed
    x, k = -0.08, 0
    while x < 1.1:
        a, b, d, f = table(seed + 31 * k, 1, 4)[0]
        w, top = 0.17 + 0.12 * a, 0.03 + 0.20 * b
        wall = _WALLS[int(d * len(_WALLS))]
        c.box(x, top, x + w, base, wall)
        c.box(x, top, x + w, top + 0.018, (240, 244, 248) if snow else blend(wall, (0, 0, 0), 0.3))
        c.line([(x + w, top), (x + w, base)], 0.006, blend(wall, (0, 0, 0), 0.4), caps=False)
        _windows(
            c,
            x + 0.01,
            x + w - 0.01,
            top + 0.03,
            base - 0.15,
            2 + (w > 0.23),
            3 + (top < 0.12),
            seed + 31 * k,
            0.45 if dark else 0.0,
        )
        shop = f < 0.7
        glass = (240, 205, 130) if dark and shop else (105, 128, 145)
        c.box(x + 0.02, base - 0.11, x + w - 0.06, base - 0.015, glass)
        c.box(x + w - 0.05, base - 0.11, x + w - 0.018, base, (75, 58, 50))
        if shop:
            awning = _AWNINGS[int(f / 0.7 * len(_AWNINGS))]
            c.poly(
                [
                    (x + 0.015, base - 0.14),
                    (x + w - 0.05, base - 0.14),
                    (x + w - 0.04, base - 0.10),
                    (x + 0.005, base - 0.10),
                ],
                awning,
            )
            if dark:
                c.glow(x + 0.4 * w, base - 0.06, 0.07, (255, 190, 100), 0.4)
        x, k = x + w, k + 1
    pave = (228, 232, 238) if snow else (172, 168, 162)
    tar = (180, 184, 192) if snow else (84, 86, 92)
    if scene.weather == "rain":
        pave, tar = blend(pave, (60, 70, 85), 0.35), blend(tar, (40, 48, 62), 0.5)
    c.box(-1, base, 2, 0.705, pave)
    for j in range(12):
        c.line(
            [(j / 10 - 0.1, base), (j / 10 - 0.13, 0.70)],
            0.004,
            blend(pave, (0, 0, 0), 0.18),
            False,
        )
    c.box(-1, 0.70, 2, 0.72, blend(pave, (0, 0, 0), 0.3))
    c.box(-1, 0.72, 2, 1.4, tar)
    for j in range(6):
        c.box(0.2 * j - 0.05, 0.806, 0.2 * j + 0.06, 0.820, (225, 222, 205))
    for j, side in ((0.10, 1), (0.90, -1)):
        _street_lamp(c, j, 0.70, 0.42, side, dark)
    _tree(c, 0.30 + 0.4 * table(seed ^ 5, 1, 1)[0][0], 0.69, 0.26, seed, snow)


def _paint_road(c: Canvas, scene: Scene, snow: bool) -> None:
    seed = scene.seed
    horizon = 0.46
    rows = table(seed ^ 0x40AD, 6, 4)
    far = (215, 222, 232) if snow else (105, 135, 130)
    near = (235, 239, 244) if snow else (110, 150, 85)
    hills = [
        (
            s / 24,
            horizon
            - 0.05
            - 0.06 * math.sin(5 * s / 24 + 6 * rows[0][0])
            - 0.03 * math.sin(11 * s / 24 + 6 * rows[1][0]),
        )
        for s in range(-4, 29)
    ]
    c.poly([*hills, (1.2, 0.6), (-0.2, 0.6)], far)
    c.box(-1, horizon, 2, 0.66, near)
    for j in range(4):  # fields
        tone = blend(near, (210, 190, 90), 0.5 * rows[j][2])
        left = rows[j][0] - 0.2
        c.poly(
            [
                (left, horizon + 0.02),
                (left + 0.35, horizon + 0.02),
                (left + 0.5, 0.56),
                (left - 0.1, 0.56),
            ],
            tone,
        )
    for a, b, _, _ in rows:
        _tree(c, a, 0.52 + 0.06 * b, 0.12 + 0.10 * b, seed + int(99 * a), snow)
    for j in range(9):  # guard rail
        c.line([(j / 8, 0.655), (j / 8, 0.595)], 0.012, (150, 152, 156), caps=False)
    c.box(-1, 0.595, 2, 0.625, (196, 200, 205))
    tar = (176, 180, 188) if snow else (92, 93, 98)
    if scene.weather == "rain":
        tar = blend(tar, (40, 48, 62), 0.5)
    c.box(-1, 0.65, 2, 0.96, tar)
    c.box(-1, 0.665, 2, 0.674, (235, 235, 230))
    for j in range(5):
        c.box(0.26 * j - 0.08, 0.78, 0.26 * j + 0.06, 0.795, (235, 230, 210))
    c.box(-1, 0.945, 2, 0.957, (235, 235, 230))
    c.box(-1, 0.96, 2, 1.4, near)
    sx = 0.2 + 0.6 * rows[5][3]
    c.line([(sx, 0.65), (sx, 0.40)], 0.012, (150, 152, 156), caps=False)
    c.box(sx - 0.07, 0.33, sx + 0.07, 0.42, (40, 85, 160))
    c.line([(sx - 0.05, 0.36), (sx + 0.05, 0.36)], 0.008, (235, 238, 240), caps=False)
    c.line([(sx - 0.05, 0.385), (sx + 0.02, 0.385)], 0.008, (235, 238, 240), caps=False)


def _paint_square(c: Canvas, scene: Scene, snow: bool) -> None:
    dark, seed = scene.light != "day", scene.seed
    a, b, d, _ = table(seed ^ 0x5A, 1, 4)[0]
    stone = blend((214, 196, 160), (190, 150, 125), a)
    roof = (232, 237, 243) if snow else blend((165, 80, 60), (95, 105, 115), d)
    tx = 0.14 if b < 0.5 else 0.86
    c.box(tx - 0.06, 0.10, tx + 0.06, 0.55, blend(stone, (120, 110, 100), 0.35))  # church tower
    c.poly([(tx - 0.075, 0.10), (tx, -0.06), (tx + 0.075, 0.10)], roof)
    c.oval(tx, 0.17, 0.03, 0.03, (245, 240, 220))
    c.line([(tx, 0.17), (tx, 0.148)], 0.006, (50, 45, 45), False)
    c.line([(tx, 0.17), (tx + 0.015, 0.175)], 0.006, (50, 45, 45), False)
    left, right = (0.24, 1.05) if tx < 0.5 else (-0.05, 0.76)
    c.box(left, 0.22, right, 0.55, stone)
    c.poly(
        [(left - 0.02, 0.22), (left + 0.03, 0.15), (right - 0.03, 0.15), (right + 0.02, 0.22)], roof
    )
    _windows(c, left + 0.01, right - 0.01, 0.235, 0.37, 8, 1, seed, 0.5 if dark else 0.0)
    arches = 8
    w = (right - left) / arches
    for j in range(arches):
        x = left + (j + 0.5) * w
        inside = (225, 180, 110) if dark else blend(stone, (40, 35, 35), 0.62)
        c.box(x - 0.32 * w, 0.45, x + 0.32 * w, 0.55, inside)
        c.oval(x, 0.45, 0.32 * w, 0.045, inside)
        if dark:
            c.glow(x, 0.49, 0.04, (255, 190, 100), 0.4)
    ground = (232, 235, 240) if snow else (196, 182, 160)
    if scene.weather == "rain":
        ground = blend(ground, (60, 70, 88), 0.4)
    c.box(-1, 0.55, 2, 1.4, ground)
    line = blend(ground, (60, 50, 45), 0.28)
    for j in range(-8, 9):
        c.line([(0.5 + 0.10 * j, 0.55), (0.5 + 0.30 * j, 1.02)], 0.005, line, caps=False)
    for y in (0.575, 0.61, 0.66, 0.73, 0.82, 0.94):
        c.line([(-0.2, y), (1.2, y)], 0.005, line, caps=False)
    fx = 0.5 + 0.12 * (d - 0.5)  # fountain
    c.oval(fx, 0.615, 0.15, 0.035, (150, 145, 140))
    c.oval(fx, 0.608, 0.125, 0.025, (120, 170, 200))
    c.box(fx - 0.02, 0.47, fx + 0.02, 0.605, (160, 155, 150))
    c.oval(fx, 0.47, 0.05, 0.014, (150, 145, 140))
    c.line([(fx, 0.46), (fx, 0.40)], 0.012, (200, 225, 240), caps=False)
    for side in (-1, 1):
        c.line(
            [(fx, 0.42), (fx + 0.05 * side, 0.47), (fx + 0.08 * side, 0.60)],
            0.007,
            (205, 228, 240),
            caps=False,
        )
    _tree(c, 0.07 if tx > 0.5 else 0.93, 0.64, 0.22, seed, snow)
    for j, side in ((0.26, -1), (0.76, 1)):
        _street_lamp(c, j, 0.66, 0.30, side, dark)


def _paint_stadium(c: Canvas, scene: Scene, snow: bool) -> None:
    seed, dark = scene.seed, scene.light != "day"
    for x in (0.08, 0.92):  # floodlights
        c.line([(x, 0.35), (x, 0.06)], 0.014, (110, 115, 122), caps=False)
        c.box(x - 0.055, 0.01, x + 0.055, 0.07, (245, 246, 240) if dark else (200, 205, 210))
        if dark:
            c.glow(x, 0.04, 0.07, (245, 250, 255), 0.9)
    c.poly([(-0.2, 0.17), (1.2, 0.17), (1.2, 0.13), (-0.2, 0.13)], (205, 210, 216))  # roof
    c.box(-1, 0.17, 2, 0.50, (92, 96, 108))
    rng = np.random.default_rng((seed, 0x57AD))
    tones = np.array([(205, 70, 65), (70, 110, 195), (235, 205, 90), (225, 225, 225), (90, 85, 95)])
    for i in range(9):  # rows of spectators
        y = 0.195 + 0.034 * i
        c.line([(-0.1, y + 0.018), (1.1, y + 0.018)], 0.004, (70, 73, 84), caps=False)
        for x in np.arange(-0.02, 1.02, 0.030):
            if rng.random() < 0.82:
                tone = tuple(int(v) for v in tones[int(rng.integers(5))])
                x_ = float(x + rng.uniform(-0.006, 0.006))
                c.oval(x_, y + 0.010, 0.011, 0.011, tone)
                c.oval(x_, y - 0.005, 0.0075, 0.0075, SKINS[int(rng.integers(4))])
    c.box(-1, 0.50, 2, 0.555, (40, 60, 120))  # boards
    for j in range(7):
        tone = ((235, 235, 240), (235, 190, 60), (205, 60, 60))[j % 3]
        c.box(0.15 * j, 0.512, 0.15 * j + 0.10, 0.543, tone)
    for j in range(10):  # pitch
        tone = (78, 150, 70) if j % 2 else (92, 166, 82)
        if snow:
            tone = blend(tone, (240, 244, 248), 0.75)
        x0, x1 = (0.5 + 0.14 * (j - 5), 0.5 + 0.14 * (j - 4))
        y0, y1 = 0.555, 1.1
        c.poly(
            [(x0, y0), (x1, y0), (0.5 + 2.2 * (x1 - 0.5), y1), (0.5 + 2.2 * (x0 - 0.5), y1)], tone
        )
    white = (240, 244, 240)
    c.line([(-0.2, 0.575), (1.2, 0.575)], 0.007, white, caps=False)
    c.line([(0.5, 0.575), (0.5, 1.1)], 0.009, white, caps=False)
    ring = [(0.5 + 0.24 * math.cos(g), 0.76 + 0.10 * math.sin(g)) for g in np.linspace(0, TAU, 40)]
    c.line(ring, 0.008, white, caps=False)


def _paint_corridor(c: Canvas, scene: Scene, snow: bool) -> None:
    a, b, d, _ = table(scene.seed ^ 0xC0, 1, 4)[0]
    wall = blend((206, 212, 205), (214, 200, 178), a)
    floor = blend((140, 150, 158), (165, 145, 120), b)
    x0, x1, y0, y1 = 0.27, 0.73, 0.20, 0.66  # the far end
    c.poly([(0, 0), (1, 0), (x1, y0), (x0, y0)], (228, 230, 228))
    c.poly([(0, 0), (x0, y0), (x0, y1), (0, 1.0)], wall)
    c.poly([(1, 0), (x1, y0), (x1, y1), (1, 1.0)], blend(wall, (0, 0, 0), 0.10))
    c.poly([(0, 1.0), (x0, y1), (x1, y1), (1, 1.0)], floor)
    c.box(x0, y0, x1, y1, blend(wall, (0, 0, 0), 0.06))
    line = blend(floor, (0, 0, 0), 0.18)
    for j in range(-3, 4):
        c.line([(0.5 + 0.065 * j, y1), (0.5 + 0.19 * j, 1.05)], 0.004, line, caps=False)
    for y in (0.69, 0.73, 0.79, 0.88):
        s = (y - y1) / (1.0 - y1)
        c.line([(x0 * (1 - s), y), (1 - x0 * (1 - s), y)], 0.004, line, caps=False)
    trim = blend(wall, (70, 80, 95), 0.55)
    c.line([(0, 1.0), (x0, y1), (x1, y1), (1, 1.0)], 0.014, trim, caps=False)
    c.line(
        [(0, 0.63), (x0, 0.51), (x1, 0.51), (1, 0.63)], 0.010, blend(wall, trim, 0.5), caps=False
    )
    door = blend((120, 85, 60), (70, 95, 120), d)
    for s0, s1 in ((0.18, 0.42), (0.62, 0.80)):  # doors in the side walls

        def side(s: float, v: float) -> Point:
            return x0 * s, (0.04 + (y0 + 0.02 - 0.04) * s) * (1 - v) + (1.0 + (y1 - 1.0) * s) * v

        quad = [side(s0, 0.28), side(s1, 0.28), side(s1, 1.0), side(s0, 1.0)]
        c.poly(quad, door)
        c.poly([(1 - x, y) for x, y in quad], blend(door, (0, 0, 0), 0.12))
    c.box(0.44, 0.36, 0.56, y1, blend(door, (0, 0, 0), 0.2))  # and one at the end
    c.box(0.455, 0.39, 0.545, 0.47, (150, 175, 190))
    c.box(0.46, 0.27, 0.54, 0.31, (40, 140, 80))  # exit sign
    c.line([(0.475, 0.29), (0.525, 0.29)], 0.012, (235, 245, 238), caps=False)
    for y, w, t in ((0.02, 0.20, 0.035), (0.10, 0.14, 0.025), (0.16, 0.10, 0.016)):
        c.poly(
            [(0.5 - w, y), (0.5 + w, y), (0.5 + 0.86 * w, y + t), (0.5 - 0.86 * w, y + t)],
            (255, 255, 250),
        )


_PAINT = {
    "street": _paint_street,
    "road": _paint_road,
    "square": _paint_square,
    "stadium": _paint_stadium,
    "corridor": _paint_corridor,
}


class _Background(NamedTuple):
    image: Image.Image  # twice the size
    light: np.ndarray  # (S, S, 3) float32
    glow: np.ndarray  # (S, S, 3) float32, what always emits
    fog: np.ndarray | None  # (S, S, 1) share of fog
    fog_colour: np.ndarray


def add_glows(glow: np.ndarray, glows: list, size: int) -> None:
    """Add Gaussian lights to ``glow`` (S, S, 3) in place."""
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    for x, y, r, colour, strength in glows:
        reach = 3.2 * r
        a, b = max(0, int((x - reach) * size)), min(size, int((x + reach) * size) + 2)
        p, q = max(0, int((y - reach) * size)), min(size, int((y + reach) * size) + 2)
        if a >= b or p >= q:
            continue
        across = np.exp(-0.5 * ((axis[a:b] - np.float32(x)) / np.float32(r)) ** 2)
        down = np.exp(-0.5 * ((axis[p:q] - np.float32(y)) / np.float32(r)) ** 2)
        tint = np.array(colour, dtype=np.float32) * np.float32(strength / 255)
        glow[p:q, a:b] += down[:, None, None] * across[None, :, None] * tint


@lru_cache(maxsize=6)
def background(scene: Scene, size: int) -> _Background:
    image = Image.new("RGB", (OVERSAMPLE * size,) * 2)
    camera = camera_of(scene)
    c = Canvas(image, camera)
    place = LAYOUTS[scene.place]
    if scene.place != "corridor":
        _sky(c, scene, place.horizon + 0.05)
    _PAINT[scene.place](c, scene, scene.weather == "snow")
    image = image.filter(ImageFilter.GaussianBlur(0.35 * OVERSAMPLE * size / 128))

    y, x = ((np.mgrid[0:size, 0:size] + 0.5) / size).astype(np.float32)
    light = np.empty((size, size, 3), dtype=np.float32)
    light[:] = np.array(_LIGHTS[scene.light], dtype=np.float32)
    if scene.place == "corridor":
        light *= 0.72 + 0.28 * table(scene.seed ^ 0x11, 1, 1)[0][0]
    if scene.weather != "clear":
        light *= 0.86
    lamps = []
    if scene.light != "day":
        soft = 1.0 if scene.light == "night" else 0.35
        spots = {"street": (0.16, 0.84), "square": (0.22, 0.5, 0.80), "road": (0.5,)}
        for lamp in spots.get(scene.place, ()):
            lamps.append((lamp, 0.74, 0.20, (255, 220, 160), 0.42 * soft))
        if scene.place == "stadium":
            lamps.append((0.5, 0.75, 0.5, (235, 245, 255), 0.75 * soft))
    add_glows(light, lamps, size)
    if scene.dark_corner is not None:
        # from there to the edge of the picture; soft towards the middle and the houses
        inwards = np.maximum(0, (x - scene.dark_corner) * (1 if scene.dark_corner < 0.5 else -1))
        above = np.maximum(0, 0.78 - y)
        spot = np.exp(-0.5 * ((inwards / 0.20) ** 2 + (above / 0.26) ** 2))
        light *= (1 - 0.95 * np.minimum(1, 1.5 * spot))[..., None]
    edge = (x - 0.5) ** 2 + (y - 0.5) ** 2
    light *= (1.04 - 0.42 * edge)[..., None]
    glow = np.zeros_like(light)
    add_glows(glow, c.glows, size)
    if scene.occluder is not None:  # no window shines through it
        zoom, left, top = camera
        across = np.abs(x / zoom + left - scene.occluder) < 0.23
        glow *= 1 - (across & (y / zoom + top > place.stage - 0.52))[..., None]
    fog = None
    if scene.weather == "fog":
        depth = np.clip((place.stage - y) / (place.stage - 0.15), 0, 1)
        fog = (0.18 + 0.62 * depth)[..., None]
    elif scene.weather in ("rain", "snow"):
        depth = np.clip((place.stage - y) / (place.stage - 0.15), 0, 1)
        fog = (0.04 + 0.26 * depth)[..., None]
    haze = np.array(
        {"day": (0.80, 0.82, 0.84), "dusk": (0.62, 0.52, 0.52), "night": (0.16, 0.18, 0.24)}[
            scene.light
        ],
        dtype=np.float32,
    )
    return _Background(image, light, glow, fog, haze)


# --- passers-by, weather, and what stands in the way ---------------------------------------------


CAR_LOOP = 4.0  # a car comes round again after four picture widths
CAR_MIDDLE = 0.8  # of that way, when it is in the middle of the picture


@lru_cache(maxsize=6)
def traffic(scene: Scene) -> tuple[tuple[int, float, float, int], ...]:
    """Traffic: (lane, crossings a second, phase in crossings, seed), two cars a lane at most;
    see ``car_position``."""
    if scene.place not in ("street", "road"):
        return ()
    rng = np.random.default_rng((scene.seed, 0xCA5))
    count = 2 + (scene.place == "road") + int(rng.integers(0, 2))
    speeds, phases = rng.uniform(0.22, 0.40, 2), rng.random(2)
    return tuple(  # cars of one lane keep their distance
        (
            k % 2,
            float(speeds[k % 2]),
            float((phases[k % 2] + 0.4 * (k // 2)) % 1.0),
            int(rng.integers(1 << 30)),
        )
        for k in range(count)
    )


def car_passes(scene: Scene) -> list[tuple[float, float]]:
    """(second at which a car is in the middle of the picture, its speed in widths a second)."""
    passes = []
    for _, speed, phase, _ in traffic(scene):
        period = CAR_LOOP / speed
        first = (CAR_MIDDLE / CAR_LOOP - phase) % 1.0 * period
        count = max(0, math.ceil((scene.duration - first) / period))
        passes += [(first + k * period, speed) for k in range(count)]
    return passes


def car_position(t: float, lane: int, speed: float, phase: float) -> float:
    """Middle of a car at ``t`` seconds; lane 0 drives to the right, lane 1 to the left."""
    x = (t * speed / CAR_LOOP + phase) % 1.0 * CAR_LOOP - (CAR_MIDDLE - 0.5)
    return x if lane == 0 else 1.0 - x


def _height(place: Layout, y: float, scale: float) -> float:
    near = (y - place.horizon) / (place.stage - place.horizon)
    return place.figure * (0.48 + 0.52 * near) * scale


def passers_by(c: Canvas, scene: Scene, place: Layout, t: float) -> None:
    """Walkers and cars, the farthest first."""
    actors: list[tuple[float, Callable[[], None]]] = []
    scale = scene.world.figure_scale
    count = {"square": 5, "stadium": 6, "street": 4, "corridor": 2, "road": 0}[scene.place]
    ball = None
    for k in range(count):
        a, b, d, f = table(scene.seed + 101 * k, 1, 4)[0]
        y = place.paths[k % len(place.paths)]
        h = _height(place, y, scale) * (0.92 + 0.14 * f)
        face = 1 if b < 0.5 else -1
        if scene.place == "stadium":  # players after a ball
            x = 0.5 + 0.38 * math.sin(0.5 * t + TAU * a) + 0.06 * math.sin(1.7 * t + k)
            face = 1 if math.cos(0.5 * t + TAU * a) > 0 else -1
            look = dress(scene.seed + k)._replace(
                shirt=(215, 55, 50) if k % 2 else (245, 245, 245), trousers=(245, 245, 245)
            )
            pose = run(7 * t + 6 * a)
            if k == 0:
                ball = (x + 0.05 * face, y)
        else:
            speed = 0.05 + 0.05 * d
            x = (a * 1.5 + speed * t) % 1.5 - 0.25
            x = x if face > 0 else 1 - x
            look, pose = dress(scene.seed + k), walk(7.0 * t * (0.85 + 0.3 * f) + 6 * b)
        actors.append(
            (
                y,
                lambda x=x, y=y, h=h, look=look, pose=pose, face=face: person(
                    c, x, y, h, look, pose, face
                ),
            )
        )
        if scene.weather in ("rain", "snow") and scene.place != "stadium" and k % 2 == 0:
            actors.append((y + 1e-3, lambda x=x, y=y, h=h, k=k: _umbrella(c, x, y, h, k)))
    for lane, speed, phase, seed in traffic(scene):
        x = car_position(t, lane, speed, phase)
        if -0.4 < x < 1.4:
            y = place.lanes[1 - lane]
            length = 0.92 * _height(place, y, 1.0)
            lamps = 0.7 if scene.light != "day" else 0.0
            actors.append(
                (
                    y,
                    lambda x=x, y=y, length=length, seed=seed, lane=lane, lamps=lamps: car(
                        c, x, y, length, seed, 1 if lane == 0 else -1, 0, 0, lamps
                    ),
                )
            )
    for _, paint in sorted(actors, key=lambda actor: actor[0]):
        paint()
    if ball is not None:
        c.oval(ball[0], ball[1] - 0.012, 0.014, 0.014, (250, 250, 250))


def _umbrella(c: Canvas, x: float, y: float, h: float, k: int) -> None:
    top, tone = y - 1.22 * h, SHIRTS[(3 * k + 1) % len(SHIRTS)]
    c.line([(x + 0.08 * h, y - 0.6 * h), (x + 0.08 * h, top)], 0.02 * h, (60, 60, 64), caps=False)
    c.poly(
        [
            (x + 0.08 * h + 0.34 * h * math.cos(g), top + 0.16 * h - 0.20 * h * math.sin(g))
            for g in (0.0, 0.5, 1.0, 1.57, 2.14, 2.64, math.pi)
        ],
        tone,
    )


def occlude(c: Canvas, scene: Scene, place: Layout) -> None:
    """The lorry (indoors: the lockers) that stands in the way."""
    x, y = scene.occluder, place.stage + 0.04
    tone = CAR_COLOURS[scene.seed % len(CAR_COLOURS)]
    if scene.place == "corridor":
        c.box(x - 0.19, y - 0.62, x + 0.19, y, (96, 112, 128))
        for j in range(4):
            left = x - 0.18 + 0.09 * j
            c.box(left, y - 0.60, left + 0.083, y - 0.02, (120, 138, 152))
            for q in range(3):
                c.line(
                    [(left + 0.02, y - 0.55 + 0.03 * q), (left + 0.06, y - 0.55 + 0.03 * q)],
                    0.007,
                    (80, 95, 110),
                    caps=False,
                )
        return
    c.oval(x, y, 0.24, 0.02, (40, 40, 44))
    c.box(x - 0.23, y - 0.56, x + 0.23, y - 0.07, blend(tone, (235, 235, 235), 0.45))
    c.box(x - 0.23, y - 0.36, x + 0.23, y - 0.25, tone)
    for edge in (-0.23, 0.0, 0.23):
        c.line([(x + edge, y - 0.56), (x + edge, y - 0.07)], 0.006, (110, 112, 118), caps=False)
    c.box(x - 0.23, y - 0.08, x + 0.23, y - 0.045, (60, 62, 68))
    for wheel in (-0.14, 0.13):
        c.oval(x + wheel, y - 0.03, 0.045, 0.045, (28, 28, 32))
        c.oval(x + wheel, y - 0.03, 0.02, 0.02, (150, 152, 158))


def precipitation(c: Canvas, scene: Scene, t: float) -> None:
    if scene.weather == "rain":
        for a, b, d in table(0x4A14, 46, 3):
            y = (b + (1.6 + 0.6 * d) * t) % 1.15 - 0.1
            x = (a - 0.12 * y + 0.13 * t) % 1.1 - 0.05
            c.line([(x, y), (x - 0.012, y + 0.055)], 0.0045, (196, 206, 220), caps=False)
    elif scene.weather == "snow":
        for a, b, d in table(0x5401, 60, 3):
            y = (b + (0.16 + 0.14 * d) * t) % 1.1 - 0.05
            x = (a + 0.03 * math.sin(1.5 * t + 9 * d) + 0.05 * t) % 1.1 - 0.05
            r = 0.004 + 0.006 * d
            c.oval(x, y, r, r, (250, 251, 253))
