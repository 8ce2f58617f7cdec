"""What moves on Soundstage, and the pen that draws it: people, cars, smoke, fire, splinters.

A ``Canvas`` draws in unit coordinates from the top left corner, through a fixed camera, and keeps
a list of glows, which are added once the scene is lit. People are jointed puppets: a ``Pose`` is a
handful of angles, ``h`` a person's height.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

TAU = 2 * math.pi

Colour = tuple[int, int, int]
Point = tuple[float, float]


@lru_cache(maxsize=4096)
def table(seed: int, rows: int, columns: int) -> list[list[float]]:
    """Fixed random numbers in [0, 1) that belong to ``seed``."""
    return np.random.default_rng(seed).random((rows, columns)).tolist()


def blend(a: Colour, b: Colour, share: float) -> Colour:
    return tuple(round(p + (q - p) * share) for p, q in zip(a, b, strict=True))


# --- the canvas -----------------------------------------------------------------------------


@lru_cache(maxsize=8)
def _puff_master(variant: int) -> Image.Image:
    """A billowy blob, 96 px, as an alpha mask."""
    rng = np.random.default_rng((0xC10D, variant))
    y, x = np.mgrid[0:96, 0:96] / 48 - 1
    blob = np.zeros((96, 96))
    for _ in range(9):
        angle, far, wide = rng.uniform(0, TAU), rng.uniform(0.1, 0.5), rng.uniform(0.16, 0.32)
        d = (x - far * np.cos(angle)) ** 2 + (y - far * np.sin(angle)) ** 2
        blob = np.maximum(blob, np.exp(-0.5 * d / wide**2))
    edge = np.clip(1.25 * (1 - np.sqrt(x * x + y * y)), 0, 1)
    alpha = np.clip(1.8 * blob - 0.35, 0, 1) * np.clip(2.5 * edge, 0, 1)
    return Image.fromarray((255 * alpha).astype(np.uint8))


@lru_cache(maxsize=768)
def _puff(pixels: int, variant: int, alpha: int) -> Image.Image:
    """Puff mask of ``pixels`` with ``alpha`` sixteenths of opacity."""
    mask = _puff_master(variant).resize((pixels, pixels), Image.Resampling.BILINEAR)
    return mask.point([v * alpha // 16 for v in range(256)])


class Canvas:
    """PIL drawing in unit coordinates through a fixed camera, plus a list of glows."""

    def __init__(self, image: Image.Image, camera: tuple[float, float, float]):
        zoom, left, top = camera
        self.image = image
        self.draw = ImageDraw.Draw(image)
        self.unit = image.width * zoom
        self.left, self.top = left * self.unit, top * self.unit
        self.glows: list[tuple[float, float, float, Colour, float]] = []
        self.lightning = 0.0

    def at(self, p: Point) -> Point:
        return p[0] * self.unit - self.left, p[1] * self.unit - self.top

    def line(self, points: list[Point], width: float, colour: Colour, caps: bool = True) -> None:
        xy = [self.at(p) for p in points]
        w = width * self.unit
        self.draw.line(xy, colour, max(1, round(w)))
        if caps and w >= 3.5:
            r = w / 2 - 0.3
            for x, y in xy:
                self.draw.ellipse((x - r, y - r, x + r, y + r), colour)

    def poly(self, points: list[Point], colour: Colour) -> None:
        self.draw.polygon([self.at(p) for p in points], colour)

    def box(self, x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
        self.draw.rectangle((*self.at((x0, y0)), *self.at((x1, y1))), colour)

    def oval(self, x: float, y: float, rx: float, ry: float, colour: Colour) -> None:
        (px, py), rx, ry = self.at((x, y)), rx * self.unit, ry * self.unit
        self.draw.ellipse((px - rx, py - ry, px + rx, py + ry), colour)

    def puff(self, x: float, y: float, r: float, colour: Colour, alpha: float, kind: int) -> None:
        """A soft blob of smoke or fire of radius ``r``."""
        pixels = max(4, 2 * round(r * self.unit))
        strength = min(16, round(16 * alpha))
        if strength > 0:
            px, py = self.at((x, y))
            corner = (round(px - pixels / 2), round(py - pixels / 2))
            self.image.paste(
                colour,
                (*corner, corner[0] + pixels, corner[1] + pixels),
                _puff(pixels, kind % 8, strength),
            )

    def glow(self, x: float, y: float, r: float, colour: Colour, strength: float) -> None:
        """Light of radius ``r`` added after the lamps."""
        px, py = self.at((x, y))
        width = self.image.width
        self.glows.append((px / width, py / width, r * self.unit / width, colour, strength))


# --- people ---------------------------------------------------------------------------------


class Look(NamedTuple):
    shirt: Colour
    trousers: Colour
    skin: Colour
    hair: Colour


SHIRTS = (
    (200, 60, 55),
    (60, 105, 190),
    (235, 190, 70),
    (70, 150, 95),
    (235, 235, 230),
    (145, 80, 160),
    (235, 130, 60),
    (90, 170, 190),
    (60, 60, 75),
)
_TROUSERS = ((45, 50, 75), (60, 55, 55), (95, 85, 70), (40, 65, 110), (75, 75, 80))
SKINS = ((240, 200, 170), (215, 165, 130), (165, 115, 80), (110, 75, 55))
_HAIRS = ((45, 35, 30), (90, 60, 40), (190, 150, 90), (25, 25, 30), (120, 120, 120))


def dress(seed: int) -> Look:
    a, b, c, d = table(seed, 1, 4)[0]
    return Look(
        SHIRTS[int(a * len(SHIRTS))],
        _TROUSERS[int(b * len(_TROUSERS))],
        SKINS[int(c * len(SKINS))],
        _HAIRS[int(d * len(_HAIRS))],
    )


class Pose(NamedTuple):
    """Angles in radians: 0 hangs down (for the torso: stands up), positive turns forward."""

    lean: float = 0.0
    drop: float = 0.0  # how far the hips sink, in body heights
    thigh1: float = 0.0
    shin1: float = 0.0
    thigh2: float = 0.0
    shin2: float = 0.0
    arm1: float = 0.0
    fore1: float = 0.0
    arm2: float = 0.0
    fore2: float = 0.0
    tilt: float = 0.0  # of the whole body about the feet, backwards
    lift: float = 0.0  # off the ground


def walk(p: float) -> Pose:
    s, c = math.sin(p), math.cos(p)
    return Pose(0.04, 0.01, 0.5 * s, 0.5 * s - 0.45 * max(0, c), -0.5 * s,
                -0.5 * s - 0.45 * max(0, -c), -0.45 * s, -0.45 * s + 0.3, 0.45 * s,
                0.45 * s + 0.3)  # fmt: skip


def run(p: float) -> Pose:
    s, c = math.sin(p), math.cos(p)
    return Pose(0.28, 0.03, 0.95 * s, 0.95 * s - 0.9 * max(0.1, c), -0.95 * s,
                -0.95 * s - 0.9 * max(0.1, -c), -0.9 * s, -0.9 * s + 1.4, 0.9 * s,
                0.9 * s + 1.4, 0, 0.02 * abs(c))  # fmt: skip


STAND = Pose(0.0, 0.0, -0.1, -0.1, 0.12, 0.08, 0.1, 0.25, -0.05, 0.15)
GUARD = Pose(0.10, 0.02, -0.35, -0.45, 0.4, 0.15, 0.7, 2.3, 0.9, 2.2)
COWER = Pose(0.95, 0.29, 1.75, -0.55, 1.55, -0.75, 2.05, 0.5, 2.45, 0.95)


def aim(recoil: float) -> Pose:
    up = 1.52 + 0.35 * recoil
    return Pose(-0.05 - 0.1 * recoil, 0.03, -0.4, -0.4, 0.45, 0.25, up - 0.25, up + 0.1, up, up)


def punch(reach: float) -> Pose:
    return Pose(0.12 + 0.25 * reach, 0.03, -0.45 - 0.1 * reach, -0.6, 0.5, 0.2, 0.6,
                2.1, 0.9 + 0.65 * reach, 2.2 - 0.6 * reach)  # fmt: skip


def kick(reach: float) -> Pose:
    return Pose(-0.3 * reach, 0.0, -0.15, -0.2, 1.45 * reach, 1.6 * reach, 0.7, 1.9, -0.6, 0.6)


def strike(swing: float) -> Pose:
    """``swing`` 0: stick raised behind the head, 1: it lands."""
    up = 3.5 - 2.5 * swing
    return Pose(-0.15 + 0.6 * swing, 0.03, -0.4, -0.45, 0.45, 0.15, 0.4, 0.9, up, up + 0.25)


def hug(sway: float) -> Pose:
    return Pose(0.10 + 0.03 * sway, 0.0, -0.06, -0.08, 0.06, 0.0, 1.15, 1.75, 1.45, 1.9)


def dance(p: float, style: int) -> Pose:
    s, c = math.sin(p), math.cos(p)
    if style % 3 == 0:  # both arms wave overhead
        return Pose(0.12 * s, 0.03 * abs(c), -0.25 + 0.2 * s, -0.3 * c,
                    0.25 + 0.2 * s, 0.3 * s, 2.7 + 0.4 * s, 3.0 + 0.6 * s,
                    3.3 + 0.4 * s, 3.2 + 0.6 * s)  # fmt: skip
    if style % 3 == 1:  # a knee up, arms wide
        return Pose(-0.1 * s, 0.0, 1.2 * max(0, s), -0.3, 1.2 * max(0, -s), -0.3,
                    1.9, 2.5 + s, -1.9, -2.5 + s, 0, 0.03 * abs(s))  # fmt: skip
    return Pose(0.15 * s, 0.05 * abs(s), -0.3, 0.3 * s, 0.35, -0.3 * s,
                1.2 + 0.8 * s, 2.6, 1.2 - 0.8 * s, 2.6)  # fmt: skip


def cheer(p: float) -> Pose:
    s = math.sin(p)
    hop = 0.06 * max(0.0, s)
    return Pose(
        0.02, 0.02, -0.12, -0.15, 0.12, 0.1, 2.7 + 0.2 * s, 2.95, -2.7 - 0.2 * s, -2.95, 0, hop
    )


def throw(p: float) -> Pose:
    """``p`` in [0, 1): winds up, throws, comes back."""
    up = 4.2 - 3.0 * min(1.0, max(0.0, p - 0.3) / 0.25)
    return Pose(-0.2 + 0.5 * p, 0.02, -0.5, -0.5, 0.5, 0.3, 1.2, 1.6, up, up + 0.3)


def photograph() -> Pose:
    return Pose(0.03, 0.0, -0.08, -0.1, 0.12, 0.08, 1.1, 2.5, 1.2, 2.6)


def person(
    c: Canvas, x: float, y: float, h: float, look: Look, pose: Pose, face: int = 1
) -> tuple[Point, Point, Point]:
    """Draw a person standing at ``(x, y)``; returns both hands and the head."""
    p = pose
    sin_t, cos_t = math.sin(p.tilt), math.cos(p.tilt)

    def place(q: Point) -> Point:  # body coordinates (forward, up) -> picture
        forward, up = q[0] * cos_t - q[1] * sin_t, q[0] * sin_t + q[1] * cos_t
        return x + face * forward * h, y - (up + p.lift + 0.06 * abs(sin_t)) * h

    def limb(q: Point, a: float, b: float, l1: float, l2: float) -> tuple[Point, Point]:
        knee = (q[0] + l1 * math.sin(a), q[1] - l1 * math.cos(a))
        return knee, (knee[0] + l2 * math.sin(b), knee[1] - l2 * math.cos(b))

    hip = (0.0, 0.47 - p.drop)
    neck = (hip[0] + 0.34 * math.sin(p.lean), hip[1] + 0.34 * math.cos(p.lean))
    head = (neck[0] + 0.11 * math.sin(1.2 * p.lean), neck[1] + 0.11 * math.cos(1.2 * p.lean))
    shoulder = (neck[0] - 0.04 * math.sin(p.lean), neck[1] - 0.04 * math.cos(p.lean))
    dark = blend(look.trousers, (0, 0, 0), 0.25)
    shade = blend(look.shirt, (0, 0, 0), 0.22)
    c.oval(x, y, 0.16 * h, 0.03 * h, (52, 52, 56))
    elbow1, hand1 = limb(shoulder, p.arm1, p.fore1, 0.17, 0.17)
    knee1, foot1 = limb(hip, p.thigh1, p.shin1, 0.24, 0.23)
    knee2, foot2 = limb(hip, p.thigh2, p.shin2, 0.24, 0.23)
    elbow2, hand2 = limb(shoulder, p.arm2, p.fore2, 0.17, 0.17)
    c.line([place(shoulder), place(elbow1), place(hand1)], 0.062 * h, shade)
    c.line([place(hip), place(knee1), place(foot1)], 0.085 * h, dark)
    c.line([place(hip), place(knee2), place(foot2)], 0.085 * h, look.trousers)
    c.line([place(hip), place((neck[0], neck[1] - 0.02))], 0.17 * h, look.shirt)
    hx, hy = place(head)
    c.oval(hx, hy, 0.078 * h, 0.09 * h, look.hair)
    c.oval(hx + face * 0.02 * h, hy + 0.018 * h, 0.064 * h, 0.072 * h, look.skin)
    c.line([place(shoulder), place(elbow2), place(hand2)], 0.062 * h, shade)
    for hand in (hand1, hand2):
        c.oval(*place(hand), 0.036 * h, 0.036 * h, look.skin)
    return place(hand1), place(hand2), (hx, hy)


# --- things ---------------------------------------------------------------------------------

CAR_COLOURS = (
    (190, 50, 45),
    (50, 90, 165),
    (225, 225, 228),
    (60, 62, 68),
    (215, 170, 60),
    (80, 135, 110),
    (150, 155, 165),
)


def car(
    c: Canvas,
    x: float,
    y: float,
    length: float,
    seed: int,
    face: int = 1,
    tilt: float = 0.0,
    crushed: float = 0.0,
    lamps: float = 0.0,
) -> Callable[[float, float], Point]:
    """A car from the side, wheels on ``y``; ``crushed`` shortens its nose. Returns the mapping from
    car coordinates (forward -0.5 to 0.5, up) to the picture."""
    a, b = table(seed, 1, 2)[0]
    body = CAR_COLOURS[int(a * len(CAR_COLOURS))]
    van = b > 0.75
    sin_t, cos_t = math.sin(tilt), math.cos(tilt)

    def at(forward: float, up: float) -> Point:
        if forward > 0.1:
            forward = 0.1 + (forward - 0.1) * (1 - 0.5 * crushed)
        u, v = forward * cos_t - up * sin_t, forward * sin_t + up * cos_t
        return x + face * u * length, y - v * length

    c.oval(x, y, 0.5 * length, 0.035 * length, (40, 40, 44))
    roof = 0.40 if van else 0.33
    rear, front = (-0.46, 0.24) if van else (-0.36, 0.20)
    dent = 0.05 * crushed
    c.poly(
        [
            at(-0.5, 0.07),
            at(-0.5, 0.2),
            at(-0.47, 0.22),
            at(0.4, 0.2 + dent),
            at(0.49, 0.16 - dent),
            at(0.5, 0.07),
        ],
        body,
    )
    c.poly(
        [at(rear - 0.06, 0.2), at(rear + 0.04, roof), at(front - 0.08, roof), at(front + 0.1, 0.2)],
        body,
    )
    glass = (165, 195, 212) if not crushed else (120, 140, 150)
    c.poly(
        [
            at(rear + 0.01, 0.22),
            at(rear + 0.07, roof - 0.03),
            at(-0.03, roof - 0.03),
            at(-0.03, 0.22),
        ],
        glass,
    )
    c.poly(
        [
            at(0.0, 0.22),
            at(0.0, roof - 0.03),
            at(front - 0.09, roof - 0.03),
            at(front + 0.05, 0.22),
        ],
        glass,
    )
    c.line([at(-0.48, 0.12), at(0.46, 0.12)], 0.012 * length, blend(body, (0, 0, 0), 0.35), False)
    for wheel in (-0.29, 0.29 - 0.06 * crushed):
        wx, wy = at(wheel, 0.075)
        c.oval(wx, wy, 0.088 * length, 0.088 * length, (30, 30, 34))
        c.oval(wx, wy, 0.045 * length, 0.045 * length, (150, 152, 158))
    c.poly([at(0.46, 0.13), at(0.46, 0.17), at(0.495, 0.16), at(0.5, 0.13)], (255, 245, 200))
    c.poly([at(-0.5, 0.14), at(-0.5, 0.19), at(-0.47, 0.19), at(-0.47, 0.14)], (200, 30, 30))
    if lamps > 0:
        fx, fy = at(0.52, 0.14)
        c.glow(fx + face * 0.05, fy, 0.05, (255, 240, 190), 0.8 * lamps)
        c.glow(fx + face * 0.16, fy + 0.02, 0.09, (255, 235, 180), 0.35 * lamps)
        rx, ry = at(-0.52, 0.16)
        c.glow(rx, ry, 0.025, (255, 30, 20), 0.8 * lamps)
    return at


def star(c: Canvas, x: float, y: float, r: float, points: int, colour: Colour, turn: float) -> None:
    """A jagged burst."""
    outline = []
    for k in range(2 * points):
        radius = r * (1.0 if k % 2 == 0 else 0.38)
        angle = turn + math.pi * k / points
        outline.append((x + radius * math.cos(angle), y + radius * math.sin(angle)))
    c.poly(outline, colour)


def plume(
    c: Canvas,
    x: float,
    y: float,
    age: float,
    rise: float,
    width: float,
    colour: Colour,
    seed: int,
    count: int = 12,
    alpha: float = 0.75,
) -> None:
    """Smoke that has been rising for ``age`` s from ``(x, y)`` to ``rise`` above it."""
    for k, (a, b, d) in enumerate(table(seed ^ 0x5110, count, 3)):
        life = 2.2 + a
        born = life * k / count
        if age < born:
            continue
        p = ((age - born) % life) / life
        if p > 0.9 and age - born < 0:
            continue
        px = x + width * (b - 0.5) * (0.4 + 1.8 * p) + 0.10 * p * p
        tone = blend(colour, (150, 150, 150), 0.45 * p * d)
        c.puff(px, y - rise * p**0.8, width * (0.28 + 0.75 * p), tone, alpha * (1 - p) ** 0.7, k)


def flames(c: Canvas, x: float, y: float, size: float, t: float, seed: int, count: int = 7) -> None:
    """A fire of width ``size`` that burns at ``(x, y)``."""
    rows = table(seed ^ 0xF1A3, count, 3)
    for colour, wide, tall in (
        ((214, 62, 18), 1.0, 1.0),
        ((250, 140, 28), 0.72, 0.72),
        ((255, 226, 110), 0.42, 0.45),
    ):
        for k, (a, b, d) in enumerate(rows):  # tongues, hotter inside
            fx = x + wide * size * (k / (count - 1) - 0.5)
            reach = 0.75 + 0.45 * math.sin(9 * t * (0.7 + 0.6 * a) + TAU * b)
            up = tall * size * (0.55 + 0.6 * d) * reach * (1.2 - abs(2 * k / (count - 1) - 1))
            sway = 0.12 * size * math.sin(7 * t + TAU * a)
            half = 0.8 * wide * size / count
            c.poly(
                [
                    (fx - half, y),
                    (fx - 0.8 * half + 0.3 * sway, y - 0.45 * up),
                    (fx + sway, y - up),
                    (fx + 0.8 * half + 0.3 * sway, y - 0.4 * up),
                    (fx + half, y),
                ],
                colour,
            )
    flicker = 0.85 + 0.15 * math.sin(23 * t + seed % 7)
    c.glow(x, y - 0.35 * size, 0.9 * size, (255, 130, 40), 0.45 * flicker)


def shards(
    c: Canvas,
    x: float,
    y: float,
    age: float,
    ground: float,
    seed: int,
    count: int,
    colour: Colour,
    speed: float = 0.8,
) -> None:
    """Pieces that fly from ``(x, y)``, fall and stay where they land."""
    for a, b, d in table(seed ^ 0xDEB, count, 3):
        vx, vy = speed * (a - 0.5) * 1.6, -speed * (0.35 + 0.9 * b)
        rest = ground + 0.06 * (d - 0.4)
        land = (-vy + math.sqrt(max(0.0, vy * vy + 2 * 1.6 * max(0.0, rest - y)))) / 1.6
        s = min(age, land)
        px, py = x + vx * s, min(rest, y + vy * s + 0.8 * s * s)
        size = 0.008 + 0.014 * d
        turn = 9 * s * (a - 0.5) + 6 * b
        c.poly(
            [
                (px + size * math.cos(turn + g), py + size * math.sin(turn + g))
                for g in (0.0, 2.0, 4.0)
            ],
            colour,
        )
