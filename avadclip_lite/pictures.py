"""The pictures of Soundstage: places, people, cars, anomalies and pictures that lie.

A frame is drawn twice as large as asked (PIL, no anti-aliasing of its own), halved, lit and noised
in numpy:

    lit = albedo * (light + glow * (1 - light))
    picture = lit + (1 - exp(-glow)) * (1 - lit)

``albedo`` is the drawing by daylight, ``light`` the place's lamps and sky, ``glow`` whatever emits
(windows, headlights, muzzle flashes, fire): strong in the dark, pale by day. Backgrounds are cached per scene and size; everything
that moves is a function of the frame's index alone, so frames render in any order.

Coordinates are unit coordinates from the top left corner; ``h`` is a person's height.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

if TYPE_CHECKING:
    from avadclip_lite.scenes import Event, Scene

__all__ = ["CAR_LOOP", "CAR_MIDDLE", "render"]

CAR_LOOP = 4.0  # a car comes round again after four picture widths
CAR_MIDDLE = 0.8  # of that loop, when it is in the middle of the picture
OVERSAMPLE = 2
TAU = 2 * math.pi

Colour = tuple[int, int, int]
Point = tuple[float, float]


class _Place(NamedTuple):
    horizon: float
    stage: float  # ground line of events
    figure: float  # height of a person there
    paths: tuple[float, ...]  # ground lines of passers-by
    lanes: tuple[float, ...]
    wall: float  # ground line of the wall behind


_PLACES = {
    "street": _Place(0.56, 0.93, 0.44, (0.65, 0.68), (0.77, 0.88), 0.615),
    "road": _Place(0.46, 0.93, 0.44, (), (0.72, 0.86), 0.60),
    "square": _Place(0.54, 0.92, 0.44, (0.62, 0.68, 0.76), (), 0.58),
    "stadium": _Place(0.52, 0.92, 0.42, (0.62, 0.70, 0.78), (), 0.56),
    "corridor": _Place(0.45, 0.93, 0.50, (0.72, 0.80), (), 0.67),
}


@lru_cache(maxsize=4096)
def _table(seed: int, rows: int, columns: int) -> list[list[float]]:
    """Fixed random numbers in [0, 1) that belong to ``seed``."""
    return np.random.default_rng(seed).random((rows, columns)).tolist()


def _blend(a: Colour, b: Colour, share: float) -> Colour:
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


class _Canvas:
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
            self.image.paste(colour, (*corner, corner[0] + pixels, corner[1] + pixels),
                             _puff(pixels, kind % 8, strength))  # fmt: skip

    def glow(self, x: float, y: float, r: float, colour: Colour, strength: float) -> None:
        """Light of radius ``r`` added after the lamps."""
        px, py = self.at((x, y))
        width = self.image.width
        self.glows.append((px / width, py / width, r * self.unit / width, colour, strength))


# --- people ---------------------------------------------------------------------------------


class _Look(NamedTuple):
    shirt: Colour
    trousers: Colour
    skin: Colour
    hair: Colour


_SHIRTS = ((200, 60, 55), (60, 105, 190), (235, 190, 70), (70, 150, 95), (235, 235, 230),
           (145, 80, 160), (235, 130, 60), (90, 170, 190), (60, 60, 75))  # fmt: skip
_TROUSERS = ((45, 50, 75), (60, 55, 55), (95, 85, 70), (40, 65, 110), (75, 75, 80))
_SKINS = ((240, 200, 170), (215, 165, 130), (165, 115, 80), (110, 75, 55))
_HAIRS = ((45, 35, 30), (90, 60, 40), (190, 150, 90), (25, 25, 30), (120, 120, 120))


def _look(seed: int) -> _Look:
    a, b, c, d = _table(seed, 1, 4)[0]
    return _Look(
        _SHIRTS[int(a * len(_SHIRTS))],
        _TROUSERS[int(b * len(_TROUSERS))],
        _SKINS[int(c * len(_SKINS))],
        _HAIRS[int(d * len(_HAIRS))],
    )


class _Pose(NamedTuple):
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


def _walk(p: float) -> _Pose:
    s, c = math.sin(p), math.cos(p)
    return _Pose(0.04, 0.01, 0.5 * s, 0.5 * s - 0.45 * max(0, c), -0.5 * s,
                 -0.5 * s - 0.45 * max(0, -c), -0.45 * s, -0.45 * s + 0.3, 0.45 * s,
                 0.45 * s + 0.3)  # fmt: skip


def _run(p: float) -> _Pose:
    s, c = math.sin(p), math.cos(p)
    return _Pose(0.28, 0.03, 0.95 * s, 0.95 * s - 0.9 * max(0.1, c), -0.95 * s,
                 -0.95 * s - 0.9 * max(0.1, -c), -0.9 * s, -0.9 * s + 1.4, 0.9 * s,
                 0.9 * s + 1.4, 0, 0.02 * abs(c))  # fmt: skip


_STAND = _Pose(0.0, 0.0, -0.1, -0.1, 0.12, 0.08, 0.1, 0.25, -0.05, 0.15)
_GUARD = _Pose(0.10, 0.02, -0.35, -0.45, 0.4, 0.15, 0.7, 2.3, 0.9, 2.2)
_COWER = _Pose(0.95, 0.29, 1.75, -0.55, 1.55, -0.75, 2.05, 0.5, 2.45, 0.95)
_FALLEN = _Pose(0.1, 0.0, 0.2, -0.2, -0.1, -0.3, 2.3, 2.8, -0.5, -0.8, 1.5)


def _aim(recoil: float) -> _Pose:
    up = 1.52 + 0.35 * recoil
    return _Pose(-0.05 - 0.1 * recoil, 0.03, -0.4, -0.4, 0.45, 0.25, up - 0.25, up + 0.1, up, up)


def _punch(reach: float) -> _Pose:
    return _Pose(0.12 + 0.25 * reach, 0.03, -0.45 - 0.1 * reach, -0.6, 0.5, 0.2, 0.6, 2.1,
                 0.9 + 0.65 * reach, 2.2 - 0.6 * reach)  # fmt: skip


def _kick(reach: float) -> _Pose:
    return _Pose(-0.3 * reach, 0.0, -0.15, -0.2, 1.45 * reach, 1.6 * reach, 0.7, 1.9, -0.6, 0.6)


def _strike(swing: float) -> _Pose:
    """``swing`` 0: stick raised behind the head, 1: it lands."""
    up = 3.5 - 2.5 * swing
    return _Pose(-0.15 + 0.6 * swing, 0.03, -0.4, -0.45, 0.45, 0.15, 0.4, 0.9, up, up + 0.25)


def _hug(sway: float) -> _Pose:
    return _Pose(0.10 + 0.03 * sway, 0.0, -0.06, -0.08, 0.06, 0.0, 1.15, 1.75, 1.45, 1.9)


def _dance(p: float, style: int) -> _Pose:
    s, c = math.sin(p), math.cos(p)
    if style % 3 == 0:  # both arms wave overhead
        return _Pose(0.12 * s, 0.03 * abs(c), -0.25 + 0.2 * s, -0.3 * c, 0.25 + 0.2 * s, 0.3 * s,
                     2.7 + 0.4 * s, 3.0 + 0.6 * s, 3.3 + 0.4 * s, 3.2 + 0.6 * s)  # fmt: skip
    if style % 3 == 1:  # a knee up, arms wide
        return _Pose(-0.1 * s, 0.0, 1.2 * max(0, s), -0.3, 1.2 * max(0, -s), -0.3, 1.9, 2.5 + s,
                     -1.9, -2.5 + s, 0, 0.03 * abs(s))  # fmt: skip
    return _Pose(0.15 * s, 0.05 * abs(s), -0.3, 0.3 * s, 0.35, -0.3 * s, 1.2 + 0.8 * s, 2.6,
                 1.2 - 0.8 * s, 2.6)  # fmt: skip


def _cheer(p: float) -> _Pose:
    s = math.sin(p)
    hop = 0.06 * max(0.0, s)
    return _Pose(0.02, 0.02, -0.12, -0.15, 0.12, 0.1, 2.7 + 0.2 * s, 2.95, -2.7 - 0.2 * s, -2.95,
                 0, hop)  # fmt: skip


def _throw(p: float) -> _Pose:
    """``p`` in [0, 1): winds up, throws, comes back."""
    up = 4.2 - 3.0 * min(1.0, max(0.0, p - 0.3) / 0.25)
    return _Pose(-0.2 + 0.5 * p, 0.02, -0.5, -0.5, 0.5, 0.3, 1.2, 1.6, up, up + 0.3)


def _photograph() -> _Pose:
    return _Pose(0.03, 0.0, -0.08, -0.1, 0.12, 0.08, 1.1, 2.5, 1.2, 2.6)


def _person(
    c: _Canvas, x: float, y: float, h: float, look: _Look, pose: _Pose, face: int = 1
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
    dark = _blend(look.trousers, (0, 0, 0), 0.25)
    shade = _blend(look.shirt, (0, 0, 0), 0.22)
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

_CAR_COLOURS = ((190, 50, 45), (50, 90, 165), (225, 225, 228), (60, 62, 68), (215, 170, 60),
                (80, 135, 110), (150, 155, 165))  # fmt: skip


def _car(
    c: _Canvas,
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
    a, b = _table(seed, 1, 2)[0]
    body = _CAR_COLOURS[int(a * len(_CAR_COLOURS))]
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
    c.poly([at(-0.5, 0.07), at(-0.5, 0.2), at(-0.47, 0.22), at(0.4, 0.2 + dent),
            at(0.49, 0.16 - dent), at(0.5, 0.07)], body)  # fmt: skip
    c.poly([at(rear - 0.06, 0.2), at(rear + 0.04, roof), at(front - 0.08, roof), at(front + 0.1, 0.2)],
           body)  # fmt: skip
    glass = (165, 195, 212) if not crushed else (120, 140, 150)
    c.poly([at(rear + 0.01, 0.22), at(rear + 0.07, roof - 0.03), at(-0.03, roof - 0.03),
            at(-0.03, 0.22)], glass)  # fmt: skip
    c.poly([at(0.0, 0.22), at(0.0, roof - 0.03), at(front - 0.09, roof - 0.03),
            at(front + 0.05, 0.22)], glass)  # fmt: skip
    c.line([at(-0.48, 0.12), at(0.46, 0.12)], 0.012 * length, _blend(body, (0, 0, 0), 0.35), False)
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


def car_position(t: float, lane: int, speed: float, phase: float) -> float:
    """Middle of a car at ``t`` seconds; lane 0 drives to the right, lane 1 to the left."""
    x = (t * speed / CAR_LOOP + phase) % 1.0 * CAR_LOOP - (CAR_MIDDLE - 0.5)
    return x if lane == 0 else 1.0 - x


def _star(c: _Canvas, x: float, y: float, r: float, points: int, colour: Colour, turn: float) -> None:
    """A jagged burst."""
    outline = []
    for k in range(2 * points):
        radius = r * (1.0 if k % 2 == 0 else 0.38)
        angle = turn + math.pi * k / points
        outline.append((x + radius * math.cos(angle), y + radius * math.sin(angle)))
    c.poly(outline, colour)


def _plume(
    c: _Canvas,
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
    for k, (a, b, d) in enumerate(_table(seed ^ 0x5110, count, 3)):
        life = 2.2 + a
        born = life * k / count
        if age < born:
            continue
        p = ((age - born) % life) / life
        if p > 0.9 and age - born < 0:
            continue
        px = x + width * (b - 0.5) * (0.4 + 1.8 * p) + 0.10 * p * p
        tone = _blend(colour, (150, 150, 150), 0.45 * p * d)
        c.puff(px, y - rise * p**0.8, width * (0.28 + 0.75 * p), tone, alpha * (1 - p) ** 0.7, k)


def _flames(c: _Canvas, x: float, y: float, size: float, t: float, seed: int, count: int = 7) -> None:
    """A fire of width ``size`` that burns at ``(x, y)``."""
    rows = _table(seed ^ 0xF1A3, count, 3)
    for colour, wide, tall in (((214, 62, 18), 1.0, 1.0), ((250, 140, 28), 0.72, 0.72),
                               ((255, 226, 110), 0.42, 0.45)):  # fmt: skip
        for k, (a, b, d) in enumerate(rows):  # tongues, hotter inside
            fx = x + wide * size * (k / (count - 1) - 0.5)
            reach = 0.75 + 0.45 * math.sin(9 * t * (0.7 + 0.6 * a) + TAU * b)
            up = tall * size * (0.55 + 0.6 * d) * reach * (1.2 - abs(2 * k / (count - 1) - 1))
            sway = 0.12 * size * math.sin(7 * t + TAU * a)
            half = 0.8 * wide * size / count
            c.poly([(fx - half, y), (fx - 0.8 * half + 0.3 * sway, y - 0.45 * up),
                    (fx + sway, y - up), (fx + 0.8 * half + 0.3 * sway, y - 0.4 * up),
                    (fx + half, y)], colour)  # fmt: skip
    flicker = 0.85 + 0.15 * math.sin(23 * t + seed % 7)
    c.glow(x, y - 0.35 * size, 0.9 * size, (255, 130, 40), 0.45 * flicker)


def _shards(
    c: _Canvas, x: float, y: float, age: float, ground: float, seed: int, count: int, colour: Colour,
    speed: float = 0.8,
) -> None:  # fmt: skip
    """Pieces that fly from ``(x, y)``, fall and stay where they land."""
    for a, b, d in _table(seed ^ 0xDEB, count, 3):
        vx, vy = speed * (a - 0.5) * 1.6, -speed * (0.35 + 0.9 * b)
        rest = ground + 0.06 * (d - 0.4)
        land = (-vy + math.sqrt(max(0.0, vy * vy + 2 * 1.6 * max(0.0, rest - y)))) / 1.6
        s = min(age, land)
        px, py = x + vx * s, min(rest, y + vy * s + 0.8 * s * s)
        size = 0.008 + 0.014 * d
        turn = 9 * s * (a - 0.5) + 6 * b
        c.poly([(px + size * math.cos(turn + g), py + size * math.sin(turn + g))
                for g in (0.0, 2.0, 4.0)], colour)  # fmt: skip


# --- events ---------------------------------------------------------------------------------


class _Cue(NamedTuple):
    """What an event's painter needs to know."""

    event: Event
    t: float  # s since its start
    left: float  # s until its end
    place: _Place
    h: float  # height of a person on the stage
    night: bool
    glows: bool  # False when something stands before it

    def last(self) -> tuple[int, float]:
        """Number of the last beat and the seconds since; (-1, inf) before the first."""
        k = sum(beat <= self.t for beat in self.event.beats) - 1
        return k, (self.t - self.event.beats[k] if k >= 0 else math.inf)

    def ahead(self) -> float:
        """Seconds to the next beat, inf after the last."""
        return min((b - self.t for b in self.event.beats if b > self.t), default=math.inf)


def _shooting(c: _Canvas, cue: _Cue) -> None:
    e, h, y = cue.event, cue.h, cue.place.stage
    seed = e.seed
    (r0, r1, r2, _), *_rest = _table(seed, 4, 4)
    side = 1 if r0 < 0.5 else -1
    middle = 0.5 + 0.5 * (e.x - 0.5)
    x = middle - side * 0.16
    k, since = cue.last()
    # those who are shot at: one falls, one runs
    fall = min(1.0, max(0.0, (cue.t - 0.5) / 0.35))
    target = middle + side * 0.27
    hurt = _STAND._replace(tilt=1.5 * fall, arm1=2.2 * fall, arm2=-0.6 * fall, lean=-0.2 * fall)
    _person(c, target, y, h, _look(seed + 2), hurt, -side)
    cover = _COWER._replace(lean=1.0)  # one has thrown himself down
    _person(c, middle + side * 0.36, y - 0.06, 0.85 * h, _look(seed + 3), cover, -side)
    recoil = max(0.0, 1 - since / 0.16)
    gunman = _look(seed + 1)._replace(shirt=(38, 38, 46), trousers=(30, 30, 36), hair=(20, 20, 24))
    _, hand, _ = _person(c, x, y, h, gunman, _aim(recoil), side)
    angle = -0.3 * recoil
    rifle = r1 < 0.5
    reach = (0.30 if rifle else 0.15) * h
    tip = (hand[0] + side * reach * math.cos(angle), hand[1] + reach * math.sin(angle))
    back = (hand[0] - side * (0.14 * h if rifle else 0.0), hand[1] + 0.01 * h)
    c.line([back, hand, tip], 0.045 * h, (18, 18, 20), caps=False)
    c.line([hand, (hand[0] - side * 0.02 * h, hand[1] + 0.08 * h)], 0.04 * h, (18, 18, 20), False)
    for j in range(max(0, k - 2), k + 1):  # powder smoke drifts
        age = cue.t - e.beats[j]
        c.puff(tip[0] + side * 0.07 * age, tip[1] - 0.10 * age, 0.025 + 0.06 * age, (185, 185, 185),
               max(0.0, 0.55 - 0.5 * age), j)  # fmt: skip
    if since < 0.13:
        power = 1 - since / 0.2
        fx, fy = tip[0] + side * 0.055 * power, tip[1]
        _star(c, fx, fy, 0.10 * power, 7, (255, 170, 40), r2 * 6 + k)
        _star(c, fx, fy, 0.06 * power, 6, (255, 250, 200), r2 * 3 + 2 * k)
        if cue.glows:
            c.glow(fx, fy, 0.05, (255, 235, 160), 1.5 * power)
            c.glow(fx, fy, 0.22, (255, 180, 80), 0.55 * power)
        if since < 0.06:  # the bullet's way
            c.line([(fx + side * 0.06, fy), (fx + side * 0.45, fy)], 0.006, (255, 235, 170), False)


def _explosion(c: _Canvas, cue: _Cue) -> None:
    e, h = cue.event, cue.h
    x, y, seed = e.x, cue.place.stage - 0.06, e.seed
    k, since = cue.last()
    if k < 0:
        return
    age = cue.t - e.beats[0]
    for j, side in enumerate((-1, 1)):  # people run
        away = x + side * (0.16 + 0.24 * age)
        if -0.2 < away < 1.2:
            _person(c, away, y + 0.05, 0.85 * h, _look(seed + j), _run(9 * cue.t + j), side)
    _plume(c, x, y - 0.05, age, 0.95, 0.34, (46, 43, 42), seed, 16, 0.95)
    _flames(c, x, y + 0.03, 0.26 + 0.04 * math.sin(3 * age), cue.t, seed, 9)
    _shards(c, x, y, since, y + 0.05, seed + k, 18, (35, 30, 28), 1.0)
    if since < 1.3:  # the fireball
        p = since / 1.3
        swell = 0.10 + 0.26 * (1 - math.exp(-5 * p))
        shells = (  # from the sooty rim to the white-hot core: colour, distance, size, count
            ((70, 44, 36), 1.10, 0.50, 9),
            ((200, 64, 16), 0.86, 0.46, 9),
            ((248, 132, 24), 0.62, 0.42, 8),
            ((255, 208, 72), 0.40, 0.36, 6),
            ((255, 248, 205), 0.18, 0.30, 3),
        )
        for layer, (colour, far, wide, count) in enumerate(shells):
            cooled = min(1.0, max(0.0, 1.5 * p - 0.55 + 0.12 * layer))  # the core goes out first
            tone = _blend(colour, (66, 52, 46), cooled)
            for j, (a, b, d) in enumerate(_table(seed + 7 * k + 61 * layer, count, 3)):
                angle, reach = TAU * (j + 0.7 * a) / count, swell * far * (0.7 + 0.4 * b)
                px = x + reach * math.cos(angle)
                py = y - 0.14 - 0.22 * p + 0.8 * reach * math.sin(angle)
                size = swell * wide * (0.8 + 0.4 * d) * (1 - 0.5 * cooled * (layer > 1))
                c.puff(px, py, size, tone, 1.0 - 0.35 * p, j + layer)
        c.glow(x, y - 0.15, 0.10 + 0.5 * swell, (255, 170, 60), 0.55 * (1 - p))
        c.glow(x, y - 0.15, 0.60, (255, 140, 60), 0.40 * (1 - p))
        if since < 0.10:
            c.glow(x, y - 0.1, 0.40, (255, 245, 215), 1.4 * (1 - since / 0.12))


def _car_accident(c: _Canvas, cue: _Cue) -> None:
    e, seed = cue.event, cue.event.seed
    y = cue.place.stage - 0.06
    length = 1.02 * cue.h
    impact = e.beats[0]
    gap = 0.42 * length
    if cue.t < impact:  # two cars skid towards each other
        s = 1 - cue.t / impact
        way = 0.75 * s**1.3
        lefts, rights = e.x - gap - way, e.x + gap + way
        wobble = 0.06 * math.sin(14 * cue.t)
        _car(c, lefts, y, length, seed, 1, wobble, 0, 0.8 if cue.night else 0)
        _car(c, rights, y + 0.02, length, seed + 1, -1, -wobble, 0, 0.8 if cue.night else 0)
        for j in range(4):  # burning rubber
            far = 0.10 * j
            for px, side in ((lefts - 0.3 * length, -1), (rights + 0.3 * length, 1)):
                c.puff(px + side * far, y - 0.01 - 0.1 * far, 0.04 + 0.2 * far, (205, 205, 205),
                       0.7 - 1.2 * far, j)  # fmt: skip
        for side, px in ((1, lefts), (-1, rights)):
            c.line([(px - side * 0.35, y + 0.01), (px, y + 0.01)], 0.01, (28, 28, 30), False)
        return
    k, since = cue.last()
    age = cue.t - impact
    spin = 0.32 * (1 - math.exp(-5 * age))
    shove = 0.05 * (1 - math.exp(-6 * age))
    c.line([(e.x - 0.45, y + 0.012), (e.x - 0.1, y + 0.01)], 0.01, (28, 28, 30), False)
    c.line([(e.x + 0.45, y + 0.032), (e.x + 0.1, y + 0.03)], 0.01, (28, 28, 30), False)
    back = _car(c, e.x + gap - 0.08 + shove, y, length, seed + 1, -1, -0.35 * spin, 1.0)
    front = _car(c, e.x - gap + 0.08 - shove, y + 0.02, length, seed, 1, spin, 1.0)
    c.oval(e.x, y + 0.05, 0.12, 0.014, (70, 66, 62))
    for j in range(k + 1):  # every hit leaves its pieces
        hit = cue.t - e.beats[j]
        _shards(c, e.x, y - 0.12, hit, y + 0.05, seed + j, 16, (205, 225, 235), 0.75)
        _shards(c, e.x, y - 0.12, hit, y + 0.05, seed + 50 + j, 9, (60, 60, 66), 0.6)
    _plume(c, e.x, y - 0.14, age, 0.6, 0.17, (120, 118, 116), seed, 12, 0.8)
    _flames(c, e.x, y - 0.11, 0.085, cue.t, seed, 6)
    if since < 0.22:
        power = 1 - since / 0.3
        _star(c, e.x, y - 0.12, 0.17 * power, 9, (255, 205, 90), k + 0.3)
        _star(c, e.x, y - 0.12, 0.10 * power, 7, (255, 255, 235), k + 0.8)
        c.glow(e.x, y - 0.12, 0.15, (255, 220, 150), 0.9 * power)
    if math.sin(TAU * 1.4 * cue.t) > 0:  # hazard lamps
        for lamp in (front(-0.5, 0.17), back(-0.5, 0.17)):
            c.glow(*lamp, 0.04, (255, 140, 20), 0.9)
            c.oval(*lamp, 0.012, 0.012, (255, 170, 50))


def _fighting(c: _Canvas, cue: _Cue) -> None:
    e, h, y, seed = cue.event, cue.h, cue.place.stage, cue.event.seed
    k, since = cue.last()
    lunge = max(math.exp(-since / 0.10), math.exp(-cue.ahead() / 0.06)) if k >= 0 else 0.0
    drift = 0.03 * math.sin(1.7 * cue.t + seed % 5)
    x = e.x + drift
    rows = _table(seed, 3, 3)
    three = rows[0][2] < 0.45
    attacker = k % 2 == 0
    near = 0.16 * h + 0.10 * h * (1 - lunge)
    looks = [_look(seed + j) for j in range(3)]
    if three:  # a third one comes from behind
        reach = 0.5 + 0.5 * math.sin(7 * cue.t)
        _person(c, x + 0.62 * h, y - 0.04, 0.95 * h, looks[2], _punch(reach), -1)
    hurt = _GUARD._replace(lean=-0.35 * lunge, tilt=0.18 * lunge)
    kick = rows[1][k % 3] < 0.35 if k >= 0 else False
    blow = _kick(lunge) if kick else _punch(lunge)
    for side in (-1, 1):
        active = attacker == (side < 0)
        hop = 0.015 * abs(math.sin(8 * cue.t + side))
        pose = (blow if active else hurt)._replace(lift=hop)
        shift = 0.05 * h * lunge if active else -0.02 * h * lunge
        _person(c, x + side * (near - shift), y, h, looks[side > 0], pose, -side)
    for j, (a, b, d) in enumerate(_table(seed ^ 77, 5, 3)):  # dust from their feet
        p = (cue.t * 0.9 + a) % 1.0
        c.puff(x + 0.9 * h * (b - 0.5), y - 0.02 - 0.05 * p, 0.02 + 0.05 * p, (170, 160, 145),
               0.5 * (1 - p) * (0.5 + d), j)  # fmt: skip
    if 0 <= since < 0.13:  # the blow lands
        side = 1 if attacker else -1
        hit = (x + side * 0.07 * h, y - (0.55 if kick else 0.78) * h)
        _star(c, *hit, 0.13 * h * (1 - since / 0.26), 6, (255, 250, 235), k)
        _star(c, *hit, 0.07 * h, 5, (225, 60, 45), k + 0.5)


def _riot(c: _Canvas, cue: _Cue) -> None:
    e, h, y0, seed = cue.event, cue.h, cue.place.stage, cue.event.seed
    top = cue.place.horizon + 0.14
    rows = _table(seed, 14, 5)
    # burning barricade and smoke behind the crowd
    bx = 0.82 if e.x < 0.5 else 0.18
    for j in range(3):
        c.oval(bx + 0.05 * (j - 1), top + 0.03 - 0.02 * (j % 2), 0.035, 0.022, (30, 30, 32))
    _plume(c, bx, top - 0.02, cue.t + 3, 0.6, 0.22, (62, 58, 56), seed, 12, 0.85)
    _flames(c, bx, top + 0.03, 0.13, cue.t, seed, 8)
    order = sorted(range(len(rows)), key=lambda j: rows[j][1])
    side = 1 if bx > 0.5 else -1
    for rank, j in enumerate(order):
        a, b, d, f, g = rows[j]
        y = top + (y0 + 0.04 - top) * b
        scale = 0.55 + 0.45 * (y - top) / (y0 - top)
        x = 0.04 + 0.92 * ((rank * 0.618 + 0.3 * a) % 1.0) + 0.05 * math.sin((2 + d) * cue.t + 9 * a)
        phase = 5 * cue.t + 9 * f
        hooligan = _look(seed + 11 * j)
        if j % 3 == 0:  # hooded
            hooligan = hooligan._replace(shirt=(48, 48, 56), hair=(40, 40, 46))
        if j % 4 == 0:
            p = (cue.t * 0.9 + f) % 1.0
            pose = _throw(p)
        elif j % 4 == 1:
            pose = _Pose(0.1, 0.02, -0.4, -0.4, 0.4, 0.2, 2.2 + 0.6 * math.sin(phase), 2.9, 1.0, 1.8)
        elif j % 4 == 2:
            pose = _run(7 * cue.t + 9 * f)
        else:
            pose = _strike(0.5 + 0.5 * math.sin(phase))
        _, hand, _ = _person(c, x, y, 0.8 * h * scale, hooligan, pose, side if g < 0.75 else -side)
        size = 0.8 * h * scale
        if j % 4 == 3:  # sticks
            tip = (hand[0] + side * 0.10 * size, hand[1] - 0.30 * size)
            c.line([hand, tip], 0.035 * size, (115, 80, 45), caps=False)
        if j % 7 == 1:  # a flare
            fx, fy = hand[0], hand[1] - 0.05
            c.line([hand, (fx, fy)], 0.012, (200, 60, 60), caps=False)
            c.puff(fx, fy - 0.02, 0.028, (255, 150, 140), 1.0, j)
            for q in range(4):
                up = ((cue.t * 0.8 + 0.25 * q) % 1.0)
                c.puff(fx + 0.05 * up, fy - 0.03 - 0.2 * up, 0.02 + 0.07 * up, (225, 120, 120),
                       0.6 * (1 - up), q)  # fmt: skip
            c.glow(fx, fy, 0.10, (255, 50, 40), 0.6 + 0.15 * math.sin(40 * cue.t))
        if j % 7 == 4:  # a banner
            mast = (hand[0], hand[1] - 0.42 * size)
            c.line([hand, mast], 0.02 * size, (90, 70, 50), caps=False)
            wave = 0.02 * math.sin(6 * cue.t + j)
            c.poly([mast, (mast[0] - side * 0.34 * size, mast[1] + wave),
                    (mast[0] - side * 0.34 * size, mast[1] + 0.2 * size + wave),
                    (mast[0], mast[1] + 0.2 * size)], (195, 40, 40))  # fmt: skip
    for j, (a, b, d, f, _g) in enumerate(rows[:7]):  # things in the air
        p = (cue.t * (0.75 + 0.3 * a) + d) % 1.0
        x0, x1 = (0.05 + 0.5 * f, 0.6 + 0.35 * b) if side > 0 else (0.95 - 0.5 * f, 0.4 - 0.35 * b)
        px = x0 + (x1 - x0) * p
        py = top - 0.02 - (0.9 + 0.5 * b) * p * (1 - p) + 0.10 * p
        turn = 14 * p + j
        reach = 0.020
        if j % 3 == 0:  # a burning bottle
            c.puff(px - 0.02 * side, py, 0.035, (255, 180, 60), 0.95, j)
            c.glow(px, py, 0.05, (255, 140, 40), 0.5)
        c.line([(px - reach * math.cos(turn), py - reach * math.sin(turn)),
                (px + reach * math.cos(turn), py + reach * math.sin(turn))], 0.017,
               (60, 95, 60) if j % 2 else (75, 70, 68), caps=False)  # fmt: skip


def _abuse(c: _Canvas, cue: _Cue) -> None:
    e, h, y, seed = cue.event, cue.h, cue.place.stage, cue.event.seed
    side = 1 if _table(seed, 1, 1)[0][0] < 0.5 else -1
    k, since = cue.last()
    # the arm goes up before every stroke
    swing = max(0.0, 1 - since / 0.35) if k >= 0 else 0.0
    ahead = cue.ahead()
    if ahead < 0.10:
        swing = max(swing, 1 - ahead / 0.10)
    shiver = 0.006 * math.sin(31 * cue.t)
    flinch = 0.10 * math.exp(-since / 0.15) if k >= 0 else 0.0
    cower = _COWER._replace(lean=0.95 + flinch, drop=0.29 + 0.02 * flinch)
    vx = e.x + side * 0.22 * h
    _person(c, vx + shiver, y + 0.01, 0.92 * h, _look(seed + 1), cower, side)
    brute = _look(seed)._replace(shirt=_blend(_look(seed).shirt, (20, 20, 25), 0.55))
    _, hand, _ = _person(c, e.x - side * 0.30 * h, y, 1.1 * h, brute, _strike(swing), side)
    angle = 2.6 - 2.0 * swing
    tip = (hand[0] + side * 0.36 * h * math.cos(angle), hand[1] - 0.36 * h * math.sin(angle))
    c.line([hand, tip], 0.045 * h, (95, 60, 30), caps=False)
    if since < 0.14:
        mark = (e.x + side * 0.30 * h, y - 0.45 * h)
        _star(c, *mark, 0.11 * h, 6, (255, 245, 225), k)
        _star(c, *mark, 0.06 * h, 5, (220, 50, 40), k + 0.4)
    for j in range(3):  # the cry
        angle = -1.2 + 0.45 * j
        p = (vx + side * (0.30 * h + 0.05 * math.cos(angle)), y - 0.52 * h + 0.06 * math.sin(angle))
        q = (p[0] + side * 0.07 * math.cos(angle) * 0.8, p[1] + 0.07 * math.sin(angle))
        if since < 0.5:
            c.line([p, q], 0.007, (245, 245, 250), caps=False)


# --- pictures that lie, and the causes of sounds that lie -------------------------------------


def _thunder(c: _Canvas, cue: _Cue) -> None:
    e, seed = cue.event, cue.event.seed
    for j, (a, b, d) in enumerate(_table(seed, 14, 3)):  # the sky closes
        c.puff(j % 7 / 6 + 0.02 * math.sin(cue.t + j), 0.03 + 0.15 * b, 0.13 + 0.05 * a,
               _blend((66, 70, 86), (112, 116, 132), d), 1.0, j)  # fmt: skip
    k, since = cue.last()
    for j, (a, b, d) in enumerate(_table(seed ^ 0x5EE7, 4, 3)):  # sheet lightning in the clouds
        flicker = max(0.0, math.sin(TAU * cue.t * (1.1 + b) + TAU * d)) ** 2
        c.glow(0.12 + 0.25 * j + 0.1 * (a - 0.5), 0.09 + 0.06 * b, 0.10, (150, 165, 255), 0.5 * flicker)
    if since > 0.40:
        return
    power = max(0.0, 1 - since / 0.45) * (0.55 if 0.08 < since < 0.14 else 1.0)
    (a, b, _), *bends = _table(seed + 13 * k, 9, 3)
    x, y = 0.15 + 0.7 * a, 0.05
    points = [(x, y)]
    for p, _, _ in bends:
        x += 0.13 * (p - 0.5)
        y += (cue.place.horizon - 0.06) / len(bends)
        points.append((x, y))
    fork = points[3:4] + [(points[3][0] + (0.09 + 0.08 * b) * s, points[3][1] + 0.07 * s)
                          for s in (0.6, 1.4)]  # fmt: skip
    for way, width in ((points, 0.030), (fork, 0.018)):
        c.line(way, width, (150, 165, 235), caps=False)
        c.line(way, 0.5 * width, (255, 255, 255), caps=False)
    for p in points[::2]:
        c.glow(*p, 0.05, (190, 200, 255), 0.9 * power)
    c.lightning = max(c.lightning, 0.45 * power)


def _fireworks(c: _Canvas, cue: _Cue) -> None:
    e, seed = cue.event, cue.event.seed
    colours = ((255, 90, 80), (255, 210, 90), (110, 220, 255), (190, 255, 130), (255, 130, 230))
    for k, beat in enumerate(e.beats):
        age = cue.t - beat
        if not -0.4 < age < 1.0:
            continue
        a, b, d = _table(seed + 5 * k, 1, 3)[0]
        x, y = 0.18 + 0.64 * a, 0.17 + 0.12 * b
        colour = colours[int(d * len(colours))]
        if age < 0:  # still rising
            p = 1 + age / 0.4
            py = cue.place.horizon + (y - cue.place.horizon) * p
            c.line([(x, py), (x, py + 0.06)], 0.008, (255, 225, 160), caps=False)
            c.glow(x, py, 0.02, (255, 220, 150), 0.7)
            continue
        r = 0.20 * (1 - math.exp(-5 * age)) * (0.85 + 0.4 * b)
        fade = max(0.0, 1 - age)
        for j in range(18):
            angle = TAU * j / 18 + d
            s = 1.0 if j % 2 else 0.62
            p = (x + s * r * math.cos(angle), y + s * r * math.sin(angle) + 0.07 * age * age)
            q = (x + 0.72 * s * r * math.cos(angle), y + 0.72 * s * r * math.sin(angle))
            c.line([q, p], 0.012 * (0.5 + fade), colour, caps=False)
            c.oval(*p, 0.012, 0.012, (255, 255, 255))
            c.glow(*p, 0.022, colour, 0.8 * fade)
        c.glow(x, y, 0.05 + 0.8 * r, colour, 0.35 * fade)
        if age < 0.12:
            c.glow(x, y, 0.05, (255, 255, 240), 1.2)


def _horn(c: _Canvas, cue: _Cue) -> None:
    e, seed = cue.event, cue.event.seed
    y = cue.place.stage - 0.05
    length = 1.15 * cue.h
    side = 1 if _table(seed, 1, 1)[0][0] < 0.5 else -1
    k, since = cue.last()
    on = since < 0.5
    shake = 0.003 * math.sin(60 * cue.t) if on else 0.0
    at = _car(c, e.x - side * 0.06, y + shake, length, seed, side, 0, 0, 0.9 if on else 0.0)
    if on:
        nose = at(0.56, 0.16)
        for j in range(3):  # the sound itself, as comics draw it
            r = 0.05 + 0.045 * j + 0.06 * (since % 0.25)
            arc = [(nose[0] + side * r * math.cos(g), nose[1] + r * math.sin(g))
                   for g in (-0.7, -0.35, 0.0, 0.35, 0.7)]  # fmt: skip
            c.line(arc, 0.012, (255, 240, 130), caps=False)


def _door_slam(c: _Canvas, cue: _Cue) -> None:
    e, seed = cue.event, cue.event.seed
    y, h = cue.place.wall, 0.40
    w = 0.50 * h
    x = 0.5 + 0.9 * (e.x - 0.5)
    k, since = cue.last()
    ahead = cue.ahead()
    wide = 0.10
    if ahead < 0.55:  # opens, then falls shut
        wide = 0.85 * min(1.0, ahead / 0.12)
    elif since < 0.05:
        wide = 0.0
    elif since > 0.25:
        wide = min(0.85, (since - 0.25) * 2.5)
    wood = _blend((150, 95, 55), (90, 110, 130), _table(seed, 1, 1)[0][0])
    c.box(x - 0.60 * w, y - 1.06 * h, x + 0.60 * w, y, (225, 220, 208))  # frame
    c.box(x - 0.5 * w, y - h, x + 0.5 * w, y, (28, 24, 24))
    if wide > 0.3:
        c.box(x - 0.1 * w, y - h, x + 0.5 * w, y, (250, 215, 140))  # light in the room behind
        _person(c, x + 0.22 * w, y - 0.01, 0.72 * h, _look(seed), _STAND, -1)
        c.glow(x + 0.2 * w, y - 0.5 * h, 0.12, (255, 205, 120), 0.25)
    edge = x - 0.5 * w + w * (1 - wide)
    skew = 0.10 * h * wide
    c.poly([(x - 0.5 * w, y - h), (edge, y - h - 0.4 * skew), (edge, y + skew), (x - 0.5 * w, y)], wood)
    inset = _blend(wood, (0, 0, 0), 0.25)
    for top, bottom in ((0.92, 0.55), (0.45, 0.08)):
        c.poly([(x - 0.5 * w + 0.12 * (edge - x + 0.5 * w), y - top * h),
                (x - 0.5 * w + 0.85 * (edge - x + 0.5 * w), y - top * h),
                (x - 0.5 * w + 0.85 * (edge - x + 0.5 * w), y - bottom * h),
                (x - 0.5 * w + 0.12 * (edge - x + 0.5 * w), y - bottom * h)], inset)  # fmt: skip
    c.oval(edge - 0.07 * w, y - 0.48 * h, 0.04 * w, 0.04 * w, (240, 205, 90))
    if since < 0.25:  # it shakes in its frame
        for j in (-1, 1):
            for up in (0.3, 0.6, 0.9):
                p = (x + j * 0.68 * w, y - up * h)
                c.line([p, (p[0] + j * 0.05, p[1] - 0.02)], 0.009, (250, 250, 245), caps=False)


def _cheering(c: _Canvas, cue: _Cue) -> None:
    e, h, seed = cue.event, cue.h, cue.event.seed
    y0, top = cue.place.stage, cue.place.horizon + 0.16
    rows = _table(seed, 11, 4)
    team = ((240, 200, 50), (50, 110, 220))
    for rank, j in enumerate(sorted(range(len(rows)), key=lambda j: rows[j][1])):
        a, b, d, f = rows[j]
        y = top + (y0 + 0.05 - top) * b
        scale = 0.6 + 0.4 * (y - top) / (y0 - top)
        x = 0.05 + 0.9 * ((rank * 0.618 + 0.15 * a) % 1.0)
        look = _look(seed + j)._replace(shirt=team[j % 2])
        left, right, _ = _person(c, x, y, 0.78 * h * scale, look, _cheer(9 * cue.t + 9 * f))
        if j % 4 == 0:  # a scarf held up
            c.line([left, right], 0.03 * h, team[(j + 1) % 2], caps=False)
        elif j % 4 == 2:  # a flag
            mast = (right[0], right[1] - 0.22 * h)
            c.line([right, mast], 0.014 * h, (230, 230, 230), caps=False)
            wave = 0.02 * math.sin(7 * cue.t + j)
            c.poly([mast, (mast[0] + 0.2 * h, mast[1] + wave), (mast[0] + 0.2 * h, mast[1] + 0.13 * h),
                    (mast[0], mast[1] + 0.13 * h)], team[0])  # fmt: skip
    bright = ((255, 90, 90), (255, 220, 80), (90, 200, 255), (150, 240, 120), (255, 255, 255))
    for j, (a, b, d) in enumerate(_table(seed ^ 0xC0F, 26, 3)):  # confetti
        p = (0.35 * cue.t * (0.6 + 0.6 * a) + b) % 1.0
        x, y = d + 0.03 * math.sin(5 * cue.t + 9 * a), 0.02 + 0.85 * p
        c.box(x, y, x + 0.016, y + 0.010, bright[j % 5])


def _camera_flash(c: _Canvas, cue: _Cue) -> None:
    e, h, y, seed = cue.event, cue.h, cue.place.stage, cue.event.seed
    side = 1 if _table(seed, 1, 1)[0][0] < 0.5 else -1
    k, since = cue.last()
    model = e.x + side * 0.27
    _person(c, model, y - 0.03, h, _look(seed + 5), _Pose(
        0, 0, -0.15, -0.12, 0.18, 0.1, 0.9, -0.5, 2.4, 2.9), -side)  # fmt: skip
    for j in range(3):
        x = e.x - side * (0.10 + 0.13 * j)
        _, hand, head = _person(c, x, y - 0.03 * (j % 2), 0.95 * h, _look(seed + j), _photograph(),
                                side)  # fmt: skip
        box = (head[0] + side * 0.11 * h, head[1] + 0.01 * h)
        c.box(box[0] - 0.055 * h, box[1] - 0.04 * h, box[0] + 0.055 * h, box[1] + 0.045 * h,
              (32, 32, 36))  # fmt: skip
        c.oval(*box, 0.03 * h, 0.03 * h, (130, 150, 175))
        if since < 0.11 and j == k % 3:
            power = 1 - since / 0.16
            _star(c, box[0], box[1] - 0.03 * h, 0.085 * power, 4, (255, 255, 255), 0.8)
            c.glow(*box, 0.05, (235, 240, 255), 1.6 * power)
            c.glow(*box, 0.30, (215, 225, 255), 0.6 * power)


def _headlights(c: _Canvas, cue: _Cue) -> None:
    e, seed = cue.event, cue.event.seed
    whole = cue.t + cue.left
    p = math.sin(math.pi * min(1.0, cue.t / whole)) ** 0.8
    size = 0.16 + 0.16 * p
    x, y = e.x, cue.place.horizon + 0.18 + (cue.place.stage - cue.place.horizon - 0.20) * p
    body = _CAR_COLOURS[seed % len(_CAR_COLOURS)]
    dark = _blend(body, (0, 0, 0), 0.35)
    c.oval(x, y, 1.05 * size, 0.07 * size, (38, 38, 42))
    for wheel in (-0.78, 0.78):
        c.box(x + (wheel - 0.16) * size, y - 0.3 * size, x + (wheel + 0.16) * size, y, (26, 26, 30))
    c.poly([(x - 0.7 * size, y - 0.75 * size), (x - 0.52 * size, y - 1.25 * size),
            (x + 0.52 * size, y - 1.25 * size), (x + 0.7 * size, y - 0.75 * size)], body)  # fmt: skip
    c.poly([(x - 0.6 * size, y - 0.77 * size), (x - 0.46 * size, y - 1.17 * size),
            (x + 0.46 * size, y - 1.17 * size), (x + 0.6 * size, y - 0.77 * size)], (110, 130, 145))  # fmt: skip
    c.box(x - 0.95 * size, y - 0.78 * size, x + 0.95 * size, y - 0.2 * size, body)
    c.box(x - 0.45 * size, y - 0.55 * size, x + 0.45 * size, y - 0.30 * size, dark)
    for side in (-1, 1):
        lx, ly = x + side * 0.70 * size, y - 0.50 * size
        c.oval(lx, ly, 0.19 * size, 0.17 * size, (255, 250, 225))
        c.glow(lx, ly, 0.035 + 0.05 * p, (255, 250, 225), 1.3)
        c.glow(lx, ly, 0.14 + 0.12 * p, (255, 240, 200), 0.40 + 0.3 * p)


def _hugging(c: _Canvas, cue: _Cue) -> None:
    e, h, y, seed = cue.event, cue.h, cue.place.stage, cue.event.seed
    sway = math.sin(2.2 * cue.t)
    x = e.x + 0.012 * sway
    near = 0.105 * h
    if _table(seed, 1, 1)[0][0] < 0.4:  # friends look on
        _person(c, x + 0.55 * h, y - 0.04, 0.95 * h, _look(seed + 2), _STAND, -1)
    _person(c, x - near, y, h, _look(seed), _hug(sway), 1)
    _person(c, x + near, y, 0.95 * h, _look(seed + 1), _hug(-sway), -1)
    # the front arm across the other's back
    c.line([(x - near, y - 0.74 * h), (x + 0.04 * h, y - 0.68 * h), (x + 0.17 * h, y - 0.64 * h)],
           0.06 * h, _blend(_look(seed).shirt, (0, 0, 0), 0.2))  # fmt: skip
    c.oval(x + 0.17 * h, y - 0.64 * h, 0.036 * h, 0.036 * h, _look(seed).skin)
    k, since = cue.last()
    if since < 0.8:  # laughter
        for j in range(2):
            up = since / 0.8
            hx, hy = x + (0.12 * j - 0.06) * h, y - 1.08 * h - 0.12 * up - 0.03 * j
            r = 0.020
            c.oval(hx - r / 2, hy, r * 0.62, r * 0.62, (235, 90, 120))
            c.oval(hx + r / 2, hy, r * 0.62, r * 0.62, (235, 90, 120))
            c.poly([(hx - 1.1 * r, hy + r * 0.25), (hx + 1.1 * r, hy + r * 0.25), (hx, hy + 1.5 * r)],
                   (235, 90, 120))  # fmt: skip


def _dancing(c: _Canvas, cue: _Cue) -> None:
    e, h, y, seed = cue.event, cue.h, cue.place.stage, cue.event.seed
    count = 4
    lights = ((255, 80, 160), (90, 200, 255), (255, 210, 80))
    beat = TAU * cue.t  # half a turn a beat
    for j in range(3):
        lit = 0.5 + 0.5 * math.sin(beat + 2 * j)
        c.oval(e.x + 0.26 * (j - 1), y + 0.01, 0.15, 0.035, _blend((120, 115, 120), lights[j], lit))
        c.glow(e.x + 0.26 * (j - 1), y - 0.04, 0.10, lights[j], 0.22 + 0.22 * lit)
    for j in range(count):
        x = e.x + 0.19 * (j - (count - 1) / 2) + 0.02 * math.sin(beat + j)
        bright = _look(seed + j)._replace(shirt=_SHIRTS[(seed + 3 * j) % 8])
        _person(c, x, y - 0.04 * (j % 2), 0.9 * h, bright, _dance(beat + 0.6 * (j % 2), seed + j),
                1 if j % 2 else -1)  # fmt: skip
    for j, (a, b, _) in enumerate(_table(seed ^ 0x7E, 4, 3)):  # notes
        p = (0.5 * cue.t + b) % 1.0
        nx, ny = 0.12 + 0.76 * a + 0.02 * math.sin(6 * p), y - h - 0.02 - 0.25 * p
        c.oval(nx, ny, 0.017, 0.013, (30, 28, 34))
        c.line([(nx + 0.014, ny), (nx + 0.014, ny - 0.06), (nx + 0.04, ny - 0.045)], 0.009,
               (30, 28, 34), caps=False)  # fmt: skip


PAINTERS: dict[str, Callable[[_Canvas, _Cue], None]] = {
    "shooting": _shooting,
    "explosion": _explosion,
    "car accident": _car_accident,
    "fighting": _fighting,
    "riot": _riot,
    "abuse": _abuse,
    "thunder": _thunder,
    "fireworks": _fireworks,
    "horn": _horn,
    "door_slam": _door_slam,
    "cheering": _cheering,
    "camera_flash": _camera_flash,
    "headlights": _headlights,
    "hugging": _hugging,
    "dancing": _dancing,
}


# --- places ---------------------------------------------------------------------------------

_SKIES = {  # top and horizon
    "day": ((95, 155, 220), (205, 225, 240)),
    "dusk": ((85, 80, 135), (250, 165, 105)),
    "night": ((14, 18, 40), (40, 46, 80)),
}
_LIGHTS = {"day": (1.0, 1.0, 0.98), "dusk": (0.78, 0.62, 0.60), "night": (0.33, 0.36, 0.50)}
_GREY_SKY = (168, 174, 180)


def _camera(scene: Scene) -> tuple[float, float, float]:
    """Zoom and the top left corner of what the lens sees."""
    a, b, d = _table(scene.seed ^ 0xCA3E, 1, 3)[0]
    zoom = 1.0 + 0.14 * a
    return zoom, (1 - 1 / zoom) * (0.2 + 0.6 * b), (1 - 1 / zoom) * (0.6 + 0.4 * d)


def _gradient(image: Image.Image, top: Colour, bottom: Colour, horizon: float) -> None:
    rows = max(1, int(image.height * horizon))
    ramp = np.linspace(0, 1, rows)[:, None] ** 1.3
    colours = (np.array(top) + (np.array(bottom) - np.array(top)) * ramp).astype(np.uint8)
    strip = Image.fromarray(colours[:, None, :]).resize((image.width, rows))
    image.paste(strip, (0, 0))


def _sky(c: _Canvas, scene: Scene, horizon: float) -> None:
    top, low = _SKIES[scene.light]
    if scene.weather != "clear":
        share = 0.75 if scene.light == "day" else 0.35
        top, low = _blend(top, _GREY_SKY, share), _blend(low, _GREY_SKY, share)
    _gradient(c.image, top, low, horizon)
    rows = _table(scene.seed ^ 0x51, 6, 4)
    if scene.light == "night" and scene.weather == "clear":
        for a, b, d, _ in _table(scene.seed ^ 0x57A2, 40, 4):
            c.oval(a, 0.5 * b * horizon, 0.003 + 0.003 * d, 0.003 + 0.003 * d, (225, 225, 240))
        if scene.place != "stadium":
            c.oval(0.15 + 0.7 * rows[0][0], 0.13, 0.035, 0.035, (240, 238, 220))
    elif scene.light == "day":
        tone = (250, 251, 253) if scene.weather == "clear" else (150, 156, 164)
        for j, (a, b, d, _) in enumerate(rows[:4]):
            for q in range(3):
                c.puff(a + 0.07 * (q - 1), 0.05 + 0.14 * b + 0.01 * q, 0.06 + 0.03 * d, tone, 0.7, j + q)
    elif scene.weather == "clear":
        c.oval(0.15 + 0.7 * rows[0][0], horizon * 0.72, 0.05, 0.05, (255, 215, 140))


def _tree(c: _Canvas, x: float, y: float, h: float, seed: int, snow: bool) -> None:
    c.line([(x, y), (x, y - 0.5 * h)], 0.07 * h, (90, 65, 45), caps=False)
    for a, b, d in _table(seed, 7, 3):
        tone = _blend((45, 95, 50), (90, 145, 70), d)
        if snow:
            tone = _blend(tone, (235, 240, 245), 0.65)
        c.oval(x + 0.36 * h * (a - 0.5), y - h * (0.5 + 0.38 * b), 0.20 * h, 0.18 * h, tone)


def _windows(
    c: _Canvas, x0: float, x1: float, y0: float, y1: float, columns: int, rows: int, seed: int,
    lit: float,
) -> None:  # fmt: skip
    """A grid of windows; a share ``lit`` of them glows."""
    w, h = (x1 - x0) / columns, (y1 - y0) / rows
    draws = _table(seed, columns * rows, 2)
    for j in range(columns):
        for i in range(rows):
            a, b = draws[j * rows + i]
            left, up = x0 + (j + 0.25) * w, y0 + (i + 0.22) * h
            glow = a < lit
            colour = _blend((250, 210, 120), (255, 235, 180), b) if glow else (92, 112, 132)
            c.box(left, up, left + 0.5 * w, up + 0.58 * h, colour)
            if glow:
                c.glow(left + 0.25 * w, up + 0.3 * h, 0.3 * w, (255, 200, 110), 0.75)


def _street_lamp(c: _Canvas, x: float, y: float, h: float, side: int, on: bool) -> None:
    c.line([(x, y), (x, y - h), (x + side * 0.06, y - h - 0.01)], 0.011, (62, 66, 72), caps=False)
    c.oval(x + side * 0.07, y - h, 0.022, 0.010, (255, 240, 190) if on else (200, 204, 208))
    if on:
        c.glow(x + side * 0.07, y - h + 0.005, 0.03, (255, 225, 150), 1.0)


_WALLS = ((170, 105, 85), (195, 165, 130), (150, 150, 158), (185, 130, 100), (130, 140, 155),
          (205, 190, 165))  # fmt: skip
_AWNINGS = ((190, 60, 55), (60, 120, 90), (60, 90, 150), (215, 160, 60))


def _paint_street(c: _Canvas, scene: Scene, snow: bool) -> None:
    dark = scene.light != "day"
    base, seed = 0.60, scene.seed
    x, k = -0.08, 0
    while x < 1.1:
        a, b, d, f = _table(seed + 31 * k, 1, 4)[0]
        w, top = 0.17 + 0.12 * a, 0.03 + 0.20 * b
        wall = _WALLS[int(d * len(_WALLS))]
        c.box(x, top, x + w, base, wall)
        c.box(x, top, x + w, top + 0.018, (240, 244, 248) if snow else _blend(wall, (0, 0, 0), 0.3))
        c.line([(x + w, top), (x + w, base)], 0.006, _blend(wall, (0, 0, 0), 0.4), caps=False)
        _windows(c, x + 0.01, x + w - 0.01, top + 0.03, base - 0.15, 2 + (w > 0.23), 3 + (top < 0.12),
                 seed + 31 * k, 0.45 if dark else 0.0)  # fmt: skip
        shop = f < 0.7
        glass = (240, 205, 130) if dark and shop else (105, 128, 145)
        c.box(x + 0.02, base - 0.11, x + w - 0.06, base - 0.015, glass)
        c.box(x + w - 0.05, base - 0.11, x + w - 0.018, base, (75, 58, 50))
        if shop:
            awning = _AWNINGS[int(f / 0.7 * len(_AWNINGS))]
            c.poly([(x + 0.015, base - 0.14), (x + w - 0.05, base - 0.14), (x + w - 0.04, base - 0.10),
                    (x + 0.005, base - 0.10)], awning)  # fmt: skip
            if dark:
                c.glow(x + 0.4 * w, base - 0.06, 0.07, (255, 190, 100), 0.4)
        x, k = x + w, k + 1
    pave = (228, 232, 238) if snow else (172, 168, 162)
    tar = (180, 184, 192) if snow else (84, 86, 92)
    if scene.weather == "rain":
        pave, tar = _blend(pave, (60, 70, 85), 0.35), _blend(tar, (40, 48, 62), 0.5)
    c.box(-1, base, 2, 0.705, pave)
    for j in range(12):
        c.line([(j / 10 - 0.1, base), (j / 10 - 0.13, 0.70)], 0.004, _blend(pave, (0, 0, 0), 0.18), False)
    c.box(-1, 0.70, 2, 0.72, _blend(pave, (0, 0, 0), 0.3))
    c.box(-1, 0.72, 2, 1.4, tar)
    for j in range(6):
        c.box(0.2 * j - 0.05, 0.806, 0.2 * j + 0.06, 0.820, (225, 222, 205))
    for j, side in ((0.10, 1), (0.90, -1)):
        _street_lamp(c, j, 0.70, 0.42, side, dark)
    _tree(c, 0.30 + 0.4 * _table(seed ^ 5, 1, 1)[0][0], 0.69, 0.26, seed, snow)


def _paint_road(c: _Canvas, scene: Scene, snow: bool) -> None:
    seed = scene.seed
    horizon = 0.46
    rows = _table(seed ^ 0x40AD, 6, 4)
    far = (215, 222, 232) if snow else (105, 135, 130)
    near = (235, 239, 244) if snow else (110, 150, 85)
    hills = [(s / 24, horizon - 0.05 - 0.06 * math.sin(5 * s / 24 + 6 * rows[0][0])
              - 0.03 * math.sin(11 * s / 24 + 6 * rows[1][0])) for s in range(-4, 29)]  # fmt: skip
    c.poly([*hills, (1.2, 0.6), (-0.2, 0.6)], far)
    c.box(-1, horizon, 2, 0.66, near)
    for j in range(4):  # fields
        tone = _blend(near, (210, 190, 90), 0.5 * rows[j][2])
        left = rows[j][0] - 0.2
        c.poly([(left, horizon + 0.02), (left + 0.35, horizon + 0.02), (left + 0.5, 0.56),
                (left - 0.1, 0.56)], tone)  # fmt: skip
    for a, b, _, _ in rows:
        _tree(c, a, 0.52 + 0.06 * b, 0.12 + 0.10 * b, seed + int(99 * a), snow)
    for j in range(9):  # guard rail
        c.line([(j / 8, 0.655), (j / 8, 0.595)], 0.012, (150, 152, 156), caps=False)
    c.box(-1, 0.595, 2, 0.625, (196, 200, 205))
    tar = (176, 180, 188) if snow else (92, 93, 98)
    if scene.weather == "rain":
        tar = _blend(tar, (40, 48, 62), 0.5)
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


def _paint_square(c: _Canvas, scene: Scene, snow: bool) -> None:
    dark, seed = scene.light != "day", scene.seed
    a, b, d, _ = _table(seed ^ 0x5A, 1, 4)[0]
    stone = _blend((214, 196, 160), (190, 150, 125), a)
    roof = (232, 237, 243) if snow else _blend((165, 80, 60), (95, 105, 115), d)
    tx = 0.14 if b < 0.5 else 0.86
    c.box(tx - 0.06, 0.10, tx + 0.06, 0.55, _blend(stone, (120, 110, 100), 0.35))  # church tower
    c.poly([(tx - 0.075, 0.10), (tx, -0.06), (tx + 0.075, 0.10)], roof)
    c.oval(tx, 0.17, 0.03, 0.03, (245, 240, 220))
    c.line([(tx, 0.17), (tx, 0.148)], 0.006, (50, 45, 45), False)
    c.line([(tx, 0.17), (tx + 0.015, 0.175)], 0.006, (50, 45, 45), False)
    left, right = (0.24, 1.05) if tx < 0.5 else (-0.05, 0.76)
    c.box(left, 0.22, right, 0.55, stone)
    c.poly([(left - 0.02, 0.22), (left + 0.03, 0.15), (right - 0.03, 0.15), (right + 0.02, 0.22)], roof)
    _windows(c, left + 0.01, right - 0.01, 0.235, 0.37, 8, 1, seed, 0.5 if dark else 0.0)
    arches = 8
    w = (right - left) / arches
    for j in range(arches):
        x = left + (j + 0.5) * w
        inside = (225, 180, 110) if dark else _blend(stone, (40, 35, 35), 0.62)
        c.box(x - 0.32 * w, 0.45, x + 0.32 * w, 0.55, inside)
        c.oval(x, 0.45, 0.32 * w, 0.045, inside)
        if dark:
            c.glow(x, 0.49, 0.04, (255, 190, 100), 0.4)
    ground = (232, 235, 240) if snow else (196, 182, 160)
    if scene.weather == "rain":
        ground = _blend(ground, (60, 70, 88), 0.4)
    c.box(-1, 0.55, 2, 1.4, ground)
    line = _blend(ground, (60, 50, 45), 0.28)
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
        c.line([(fx, 0.42), (fx + 0.05 * side, 0.47), (fx + 0.08 * side, 0.60)], 0.007, (205, 228, 240),
               caps=False)  # fmt: skip
    _tree(c, 0.07 if tx > 0.5 else 0.93, 0.64, 0.22, seed, snow)
    for j, side in ((0.26, -1), (0.76, 1)):
        _street_lamp(c, j, 0.66, 0.30, side, dark)


def _paint_stadium(c: _Canvas, scene: Scene, snow: bool) -> None:
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
                c.oval(x_, y - 0.005, 0.0075, 0.0075, _SKINS[int(rng.integers(4))])
    c.box(-1, 0.50, 2, 0.555, (40, 60, 120))  # boards
    for j in range(7):
        tone = ((235, 235, 240), (235, 190, 60), (205, 60, 60))[j % 3]
        c.box(0.15 * j, 0.512, 0.15 * j + 0.10, 0.543, tone)
    for j in range(10):  # pitch
        tone = (78, 150, 70) if j % 2 else (92, 166, 82)
        if snow:
            tone = _blend(tone, (240, 244, 248), 0.75)
        x0, x1 = (0.5 + 0.14 * (j - 5), 0.5 + 0.14 * (j - 4))
        y0, y1 = 0.555, 1.1
        c.poly([(x0, y0), (x1, y0), (0.5 + 2.2 * (x1 - 0.5), y1), (0.5 + 2.2 * (x0 - 0.5), y1)], tone)
    white = (240, 244, 240)
    c.line([(-0.2, 0.575), (1.2, 0.575)], 0.007, white, caps=False)
    c.line([(0.5, 0.575), (0.5, 1.1)], 0.009, white, caps=False)
    ring = [(0.5 + 0.24 * math.cos(g), 0.76 + 0.10 * math.sin(g)) for g in np.linspace(0, TAU, 40)]
    c.line(ring, 0.008, white, caps=False)


def _paint_corridor(c: _Canvas, scene: Scene, snow: bool) -> None:
    a, b, d, _ = _table(scene.seed ^ 0xC0, 1, 4)[0]
    wall = _blend((206, 212, 205), (214, 200, 178), a)
    floor = _blend((140, 150, 158), (165, 145, 120), b)
    x0, x1, y0, y1 = 0.27, 0.73, 0.20, 0.66  # the far end
    c.poly([(0, 0), (1, 0), (x1, y0), (x0, y0)], (228, 230, 228))
    c.poly([(0, 0), (x0, y0), (x0, y1), (0, 1.0)], wall)
    c.poly([(1, 0), (x1, y0), (x1, y1), (1, 1.0)], _blend(wall, (0, 0, 0), 0.10))
    c.poly([(0, 1.0), (x0, y1), (x1, y1), (1, 1.0)], floor)
    c.box(x0, y0, x1, y1, _blend(wall, (0, 0, 0), 0.06))
    line = _blend(floor, (0, 0, 0), 0.18)
    for j in range(-3, 4):
        c.line([(0.5 + 0.065 * j, y1), (0.5 + 0.19 * j, 1.05)], 0.004, line, caps=False)
    for y in (0.69, 0.73, 0.79, 0.88):
        s = (y - y1) / (1.0 - y1)
        c.line([(x0 * (1 - s), y), (1 - x0 * (1 - s), y)], 0.004, line, caps=False)
    trim = _blend(wall, (70, 80, 95), 0.55)
    c.line([(0, 1.0), (x0, y1), (x1, y1), (1, 1.0)], 0.014, trim, caps=False)
    c.line([(0, 0.63), (x0, 0.51), (x1, 0.51), (1, 0.63)], 0.010, _blend(wall, trim, 0.5), caps=False)
    door = _blend((120, 85, 60), (70, 95, 120), d)
    for s0, s1 in ((0.18, 0.42), (0.62, 0.80)):  # doors in the side walls

        def side(s: float, v: float) -> Point:
            return x0 * s, (0.04 + (y0 + 0.02 - 0.04) * s) * (1 - v) + (1.0 + (y1 - 1.0) * s) * v

        quad = [side(s0, 0.28), side(s1, 0.28), side(s1, 1.0), side(s0, 1.0)]
        c.poly(quad, door)
        c.poly([(1 - x, y) for x, y in quad], _blend(door, (0, 0, 0), 0.12))
    c.box(0.44, 0.36, 0.56, y1, _blend(door, (0, 0, 0), 0.2))  # and one at the end
    c.box(0.455, 0.39, 0.545, 0.47, (150, 175, 190))
    c.box(0.46, 0.27, 0.54, 0.31, (40, 140, 80))  # exit sign
    c.line([(0.475, 0.29), (0.525, 0.29)], 0.012, (235, 245, 238), caps=False)
    for y, w, t in ((0.02, 0.20, 0.035), (0.10, 0.14, 0.025), (0.16, 0.10, 0.016)):
        c.poly([(0.5 - w, y), (0.5 + w, y), (0.5 + 0.86 * w, y + t), (0.5 - 0.86 * w, y + t)],
               (255, 255, 250))  # fmt: skip


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


def _add_glows(glow: np.ndarray, glows: list, size: int) -> None:
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
def _background(scene: Scene, size: int) -> _Background:
    image = Image.new("RGB", (OVERSAMPLE * size,) * 2)
    camera = _camera(scene)
    c = _Canvas(image, camera)
    place = _PLACES[scene.place]
    if scene.place != "corridor":
        _sky(c, scene, place.horizon + 0.05)
    _PAINT[scene.place](c, scene, scene.weather == "snow")
    image = image.filter(ImageFilter.GaussianBlur(0.35 * OVERSAMPLE * size / 128))

    y, x = ((np.mgrid[0:size, 0:size] + 0.5) / size).astype(np.float32)
    light = np.empty((size, size, 3), dtype=np.float32)
    light[:] = np.array(_LIGHTS[scene.light], dtype=np.float32)
    if scene.place == "corridor":
        light *= 0.72 + 0.28 * _table(scene.seed ^ 0x11, 1, 1)[0][0]
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
    _add_glows(light, lamps, size)
    if scene.dark_corner is not None:
        spot = np.exp(-0.5 * (((x - scene.dark_corner) / 0.17) ** 2 + ((y - 0.74) / 0.26) ** 2))
        light *= (1 - 0.94 * np.minimum(1, 1.25 * spot))[..., None]
    edge = (x - 0.5) ** 2 + (y - 0.5) ** 2
    light *= (1.04 - 0.42 * edge)[..., None]
    glow = np.zeros_like(light)
    _add_glows(glow, c.glows, size)
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
    haze = np.array({"day": (0.80, 0.82, 0.84), "dusk": (0.62, 0.52, 0.52),
                     "night": (0.16, 0.18, 0.24)}[scene.light], dtype=np.float32)  # fmt: skip
    return _Background(image, light, glow, fog, haze)


# --- passers-by, weather, and what stands in the way ---------------------------------------------


def _height(place: _Place, y: float, scale: float) -> float:
    near = (y - place.horizon) / (place.stage - place.horizon)
    return place.figure * (0.48 + 0.52 * near) * scale


def _passers_by(c: _Canvas, scene: Scene, place: _Place, t: float) -> None:
    """Walkers and cars, the farthest first."""
    actors: list[tuple[float, Callable[[], None]]] = []
    scale = scene.world.figure_scale
    count = {"square": 5, "stadium": 6, "street": 4, "corridor": 2, "road": 0}[scene.place]
    ball = None
    for k in range(count):
        a, b, d, f = _table(scene.seed + 101 * k, 1, 4)[0]
        y = place.paths[k % len(place.paths)]
        h = _height(place, y, scale) * (0.92 + 0.14 * f)
        face = 1 if b < 0.5 else -1
        if scene.place == "stadium":  # players after a ball
            x = 0.5 + 0.38 * math.sin(0.5 * t + TAU * a) + 0.06 * math.sin(1.7 * t + k)
            face = 1 if math.cos(0.5 * t + TAU * a) > 0 else -1
            look = _look(scene.seed + k)._replace(
                shirt=(215, 55, 50) if k % 2 else (245, 245, 245), trousers=(245, 245, 245))  # fmt: skip
            pose = _run(7 * t + 6 * a)
            if k == 0:
                ball = (x + 0.05 * face, y)
        else:
            speed = 0.05 + 0.05 * d
            x = (a * 1.5 + speed * t) % 1.5 - 0.25
            x = x if face > 0 else 1 - x
            look, pose = _look(scene.seed + k), _walk(7.0 * t * (0.85 + 0.3 * f) + 6 * b)
        actors.append((y, lambda x=x, y=y, h=h, look=look, pose=pose, face=face: _person(
            c, x, y, h, look, pose, face)))  # fmt: skip
        if scene.weather in ("rain", "snow") and scene.place != "stadium" and k % 2 == 0:
            actors.append((y + 1e-3, lambda x=x, y=y, h=h, k=k: _umbrella(c, x, y, h, k)))
    for lane, speed, phase, seed in scene.cars:
        x = car_position(t, lane, speed, phase)
        if -0.4 < x < 1.4:
            y = place.lanes[1 - lane]
            length = 0.92 * _height(place, y, 1.0)
            lamps = 0.7 if scene.light != "day" else 0.0
            actors.append((y, lambda x=x, y=y, length=length, seed=seed, lane=lane, lamps=lamps: _car(
                c, x, y, length, seed, 1 if lane == 0 else -1, 0, 0, lamps)))  # fmt: skip
    for _, paint in sorted(actors, key=lambda actor: actor[0]):
        paint()
    if ball is not None:
        c.oval(ball[0], ball[1] - 0.012, 0.014, 0.014, (250, 250, 250))


def _umbrella(c: _Canvas, x: float, y: float, h: float, k: int) -> None:
    top, tone = y - 1.22 * h, _SHIRTS[(3 * k + 1) % len(_SHIRTS)]
    c.line([(x + 0.08 * h, y - 0.6 * h), (x + 0.08 * h, top)], 0.02 * h, (60, 60, 64), caps=False)
    c.poly([(x + 0.08 * h + 0.34 * h * math.cos(g), top + 0.16 * h - 0.20 * h * math.sin(g))
            for g in (0.0, 0.5, 1.0, 1.57, 2.14, 2.64, math.pi)], tone)  # fmt: skip


def _occlude(c: _Canvas, scene: Scene, place: _Place) -> None:
    """The lorry (indoors: the lockers) that stands in the way."""
    x, y = scene.occluder, place.stage + 0.04
    tone = _CAR_COLOURS[scene.seed % len(_CAR_COLOURS)]
    if scene.place == "corridor":
        c.box(x - 0.19, y - 0.62, x + 0.19, y, (96, 112, 128))
        for j in range(4):
            left = x - 0.18 + 0.09 * j
            c.box(left, y - 0.60, left + 0.083, y - 0.02, (120, 138, 152))
            for q in range(3):
                c.line([(left + 0.02, y - 0.55 + 0.03 * q), (left + 0.06, y - 0.55 + 0.03 * q)], 0.007,
                       (80, 95, 110), caps=False)  # fmt: skip
        return
    c.oval(x, y, 0.24, 0.02, (40, 40, 44))
    c.box(x - 0.23, y - 0.56, x + 0.23, y - 0.07, _blend(tone, (235, 235, 235), 0.45))
    c.box(x - 0.23, y - 0.36, x + 0.23, y - 0.25, tone)
    for edge in (-0.23, 0.0, 0.23):
        c.line([(x + edge, y - 0.56), (x + edge, y - 0.07)], 0.006, (110, 112, 118), caps=False)
    c.box(x - 0.23, y - 0.08, x + 0.23, y - 0.045, (60, 62, 68))
    for wheel in (-0.14, 0.13):
        c.oval(x + wheel, y - 0.03, 0.045, 0.045, (28, 28, 32))
        c.oval(x + wheel, y - 0.03, 0.02, 0.02, (150, 152, 158))


def _precipitation(c: _Canvas, scene: Scene, t: float) -> None:
    if scene.weather == "rain":
        for a, b, d in _table(0x4A14, 46, 3):
            y = (b + (1.6 + 0.6 * d) * t) % 1.15 - 0.1
            x = (a - 0.12 * y + 0.13 * t) % 1.1 - 0.05
            c.line([(x, y), (x - 0.012, y + 0.055)], 0.0045, (196, 206, 220), caps=False)
    elif scene.weather == "snow":
        for a, b, d in _table(0x5401, 60, 3):
            y = (b + (0.16 + 0.14 * d) * t) % 1.1 - 0.05
            x = (a + 0.03 * math.sin(1.5 * t + 9 * d) + 0.05 * t) % 1.1 - 0.05
            r = 0.004 + 0.006 * d
            c.oval(x, y, r, r, (250, 251, 253))


@lru_cache(maxsize=6)
def _grain(size: int) -> np.ndarray:
    """Unit noise, (2 S, 2 S, 3), from which every frame's grain is cut."""
    rng = np.random.default_rng(0x6A1)
    return rng.standard_normal((2 * size, 2 * size, 3), dtype=np.float32)


def render(scene: Scene, index: int, size: int) -> np.ndarray:
    """Frame number ``index`` of ``scene``, (size, size, 3) uint8."""
    if size < 8:
        raise ValueError(f"size must be at least 8 pixels, got {size}")
    state = (scene.seed * 0x9E3779B1 + index * 0x85EBCA77) & 0xFFFFFFFF
    state = ((state ^ (state >> 15)) * 0x2C1B3C6D) & 0xFFFFFFFF
    corner = (state % size, (state >> 12) % size)
    grain = _grain(size)[corner[0] : corner[0] + size, corner[1] : corner[1] + size]
    faults = {f.kind for f in scene.faults if f.start <= index < f.end}
    if "black_frames" in faults:
        return np.clip(4 + 2 * grain, 0, 255).astype(np.uint8)

    back = _background(scene, size)
    place = _PLACES[scene.place]
    t = index / scene.fps
    c = _Canvas(back.image.copy(), _camera(scene))
    _passers_by(c, scene, place, t)
    hidden, shown, shake = [], [], 0.0
    for event in scene.events:
        if not event.start <= index < event.end:
            continue
        if not event.visible and event.unseen == "off_camera":
            continue
        behind = event.unseen == "occluded"
        h = place.figure * scene.world.figure_scale * (0.8 if behind else 1.0)
        cue = _Cue(event, (index - event.start) / scene.fps, (event.end - index) / scene.fps, place,
                   h, scene.light == "night", not behind)  # fmt: skip
        (hidden if behind else shown).append(cue)
        if event.visible and event.kind in ("explosion", "car accident"):
            k, since = cue.last()
            if k >= 0:
                shake += max(0.0, 1 - since / 0.5) * (0.03 if event.kind == "explosion" else 0.015)
    for cue in hidden:
        PAINTERS[cue.event.kind](c, cue)
    if scene.occluder is not None:
        _occlude(c, scene, place)
    for cue in shown:
        PAINTERS[cue.event.kind](c, cue)
    if scene.weather in ("rain", "snow"):
        _precipitation(c, scene, t)

    albedo = np.asarray(c.image.reduce(OVERSAMPLE), dtype=np.float32) * np.float32(1 / 255)
    light, glow = back.light, back.glow
    if c.glows:
        extra = np.zeros_like(glow)
        _add_glows(extra, c.glows, size)
        light = light + extra * np.clip(1 - light, 0.1, 1)
        glow = glow + extra
    if c.lightning:
        light = light + np.array((0.8, 0.85, 1.0), dtype=np.float32) * np.float32(c.lightning)
    out = albedo * light
    if back.fog is not None:
        out += (back.fog_colour - out) * back.fog
    out += (1 - np.exp(-glow)) * np.clip(1.05 - out, 0, 1)
    noise = scene.world.sensor_noise / 255
    if "low_light" in faults:
        out *= np.float32(0.16)
        noise = max(noise, 0.045)
    out += grain * np.float32(noise)
    if shake:
        step = max(1, round(shake * size))
        out = np.roll(out, (step if index % 2 else -step, -step if index % 3 else step), (0, 1))
    if scene.seed % 2:  # half of the cameras look from the other side
        out = out[:, ::-1]
    return (np.clip(out, 0, 1) * np.float32(255)).astype(np.uint8)
