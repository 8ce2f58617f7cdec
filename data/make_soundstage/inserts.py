"""What an edited video shows besides its stage: inserts, and the look of the whole.

An *insert* is a shot of something else: a face that talks, a landscape, shapes that move, a title
card, an animal, fruit, a house, in any colours, fire's and blood's among them, and no two alike. A
*look* is a video's own grading: hue, saturation, contrast, blur, bars, a logo, subtitles. Real
videos differ far more in these than an anomaly makes them differ, so that what is merely unusual is
seldom an anomaly.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from PIL import Image

from data.make_soundstage.figures import SKINS, TAU, Canvas, Colour, blend, table

COLOURS: dict[str, Colour] = {
    "red": (205, 50, 45), "orange": (235, 130, 50), "yellow": (240, 205, 70),
    "green": (70, 160, 80), "turquoise": (70, 175, 180), "blue": (60, 100, 195),
    "purple": (145, 80, 165), "pink": (235, 140, 175), "brown": (120, 80, 50),
    "black": (30, 30, 35), "white": (240, 240, 235), "grey": (130, 130, 135),
}  # fmt: skip
NAMES = tuple(COLOURS)
NUMBERS = ("one", "two", "three", "four", "five")
# What a shot shows, and the styles it comes in: a voice or a music of its own belongs to each.
SHOTS: dict[str, tuple[str, ...]] = {
    "face": ("man", "woman"),
    "people": ("men", "women"),
    "landscape": ("mountains", "hills", "sea"),
    "shapes": ("circles", "triangles", "clouds"),
    "card": ("title", "lines", "list"),
    "animal": ("cat", "horse", "bird"),
    "fruit": ("apples", "grapes", "melon"),
    "house": ("house", "tower", "shop"),
}


class Shot(NamedTuple):
    """An insert, before it is drawn."""

    kind: str
    style: int  # of its kind
    ground: str  # names of colours
    colour: str
    other: str
    count: int

    @property
    def words(self) -> tuple[str, ...]:
        """Captions that fit, from bare to full."""
        name = SHOTS[self.kind][self.style]
        return {
            "face": (f"a {name} talking", f"a {name} in {self.colour} talking",
                     f"face of a {name} in {self.colour} on {self.ground}"),
            "people": (f"{NUMBERS[self.count]} {name}", f"{NUMBERS[self.count]} {name} on "
                       f"{self.ground}", f"a group of {name} on {self.ground}"),
            "landscape": (name, f"{self.colour} {name}",
                          f"{self.colour} {name} under a {self.ground} sky"),
            "shapes": (f"{self.colour} {name}", f"{NUMBERS[self.count]} {self.colour} {name}",
                       f"cartoon of {self.colour} and {self.other} {name} on {self.ground}"),
            "card": (f"a {name}", f"a {self.colour} {name}",
                     f"a {self.colour} {name} on {self.ground}"),
            "animal": (f"a {name}", f"a {self.colour} {name}",
                       f"a {self.colour} {name} on {self.ground}"),
            "fruit": (name, f"{self.colour} {name}",
                      f"{self.colour} and {self.other} {name} on {self.ground}"),
            "house": (f"a {name}", f"a {self.colour} {name}",
                      f"a {self.colour} {name} under a {self.ground} sky"),
        }[self.kind]  # fmt: skip


def shot(seed: int) -> Shot:
    """What the insert ``seed`` shows."""
    kind = tuple(SHOTS)[seed % len(SHOTS)]
    rows = table(seed ^ 0x1A5E7, 1, 6)[0]
    ground, colour, other = (NAMES[int(v * len(NAMES))] for v in rows[:3])
    if colour == ground:
        colour = NAMES[(NAMES.index(ground) + 5) % len(NAMES)]
    return Shot(kind, style(seed, len(SHOTS[kind])), ground, colour, other, int(rows[4] * 5))


def style(seed: int, count: int) -> int:
    """Which of ``count`` styles a shot has, and the voice or the music that belongs to it."""
    return int(table(seed ^ 0x57E1E, 1, 1)[0][0] * count)


def insert(seed: int, t: float, size: int) -> np.ndarray:
    """A frame of the insert ``seed`` at ``t`` seconds since its start, (size, size, 3) float32 in
    [0, 1]."""
    image = Image.new("RGB", (2 * size, 2 * size))
    c = Canvas(image, (1.0, 0.0, 0.0))
    what, rows = shot(seed), table(seed ^ 0x2B6F8, 14, 4)
    (a, b, d, e), *_ = rows
    ground, colour, other = (_tint(name, seed) for name in (what.ground, what.colour, what.other))
    for k in range(12):
        c.box(-0.1, k / 12, 1.1, (k + 1) / 12, blend(ground, (0, 0, 0), 0.03 * k * d))
    if what.kind == "face":
        x, y, r = 0.5 + 0.2 * (a - 0.5), 0.52 + 0.06 * b, 0.20 + 0.14 * d
        _face(c, seed, x, y, r, t, colour, what.style)
    elif what.kind == "people":
        for j, (a, b, d, _) in enumerate(rows[: 1 + what.count]):
            x = (j + 0.3 + 0.4 * a) / (1 + what.count)
            _face(c, seed + 7 * j, x, 0.45 + 0.2 * b, 0.07 + 0.06 * d, t + j, colour, what.style)
    elif what.kind == "landscape":
        rough = (0.26, 0.10, 0.015)[what.style]
        for j in range(3):
            level, tone = 0.45 + 0.18 * j, blend(colour, (0, 0, 0), 0.25 * j)
            ridge = [
                (s / 8, level + rough * (rows[s % 12][j] - 0.5) + 0.01 * math.sin(t + s))
                for s in range(-1, 10)
            ]
            c.poly([*ridge, (1.2, 1.1), (-0.2, 1.1)], tone)
        c.oval(a, 0.15 + 0.2 * b, 0.05 + 0.06 * d, 0.05 + 0.06 * d, other)
    elif what.kind == "shapes":
        for j, (a, b, d, e) in enumerate(rows[: 1 + 2 * what.count]):
            x, y = a + 0.15 * math.sin(t * (1 + 3 * d) + 9 * e), b + 0.15 * math.cos(2 * t + 9 * d)
            r, tone = 0.06 + 0.16 * e * d, other if j % 3 == 2 else colour
            if what.style == 0:
                c.oval(x, y, r, r, tone)
            elif what.style == 1:
                turn = t * (a - 0.5) * 6
                c.poly([(x + 1.3 * r * math.cos(turn + g), y + 1.3 * r * math.sin(turn + g))
                        for g in (0.0, TAU / 3, 2 * TAU / 3)], tone)  # fmt: skip
            else:
                c.puff(x, y, 1.5 * r, tone, 0.9, j)
    elif what.kind == "card":
        lines, height = ((1, 0.14), (3, 0.07), (6, 0.045))[what.style]
        for j in range(lines):
            y = 0.5 + (j - lines / 2) * 1.8 * height
            _words(c, seed + j, 0.12 + 0.1 * a, y, height, colour, 0.7)
    elif what.kind == "animal":
        _animal(c, what.style, 0.5 + 0.2 * (a - 0.5), 0.55 + 0.1 * b, 0.20 + 0.10 * d, t, colour)
    elif what.kind == "fruit":
        radius = (0.10, 0.045, 0.26)[what.style]
        for j, (a, b, _, _) in enumerate(rows[: (4, 14, 1)[what.style]]):
            x, y = 0.5 + 0.5 * (a - 0.5), 0.52 + 0.3 * (b - 0.5)
            c.oval(x, y, radius, 0.95 * radius, other if j % 3 == 2 else colour)
            c.oval(x - 0.3 * radius, y - 0.3 * radius, 0.2 * radius, 0.2 * radius, (250, 250, 245))
        c.poly([(0.1, 0.72), (0.9, 0.72), (0.75, 0.95), (0.25, 0.95)], blend(other, ground, 0.5))
    else:
        wide, high = ((0.28, 0.35), (0.10, 0.70), (0.40, 0.25))[what.style]
        x, y = 0.5 + 0.2 * (a - 0.5), 0.92
        c.box(x - wide, y - high, x + wide, y, colour)
        if what.style == 0:
            c.poly([(x - 1.2 * wide, y - high), (x, y - high - 0.2), (x + 1.2 * wide, y - high)],
                   other)  # fmt: skip
        for j in range(6):
            left, top = x + wide * (-0.8 + 0.6 * (j % 3)), y - high * (0.85 - 0.4 * (j // 3))
            c.box(left, top, left + 0.3 * wide, top + 0.2 * high, other)
        c.box(-0.1, y, 1.1, 1.1, blend(ground, (0, 0, 0), 0.4))
    return np.asarray(image.reduce(2), dtype=np.float32) * np.float32(1 / 255)


def _tint(name: str, seed: int) -> Colour:
    """A shade of the colour."""
    shift = table(seed ^ 0xC0108, 1, 3)[0]
    return tuple(
        min(255, max(0, round(v + 36 * (s - 0.5))))
        for v, s in zip(COLOURS[name], shift, strict=True)
    )


def _colour(seed: int) -> Colour:
    return _tint(NAMES[seed % len(NAMES)], seed)


def _face(
    c: Canvas, seed: int, x: float, y: float, r: float, t: float, shirt: Colour, long_hair: int
) -> None:
    skin, hair = SKINS[seed % len(SKINS)], ((45, 35, 30), (150, 95, 50))[seed // 4 % 2]
    x += 0.02 * math.sin(2.1 * t + seed % 7)
    if long_hair:
        c.oval(x, y + 0.6 * r, 1.25 * r, 1.7 * r, hair)
    c.oval(x, y + 2.3 * r, 1.7 * r, 1.3 * r, shirt)
    c.oval(x, y - 0.15 * r, 1.05 * r, 1.2 * r, hair)
    c.oval(x, y, 0.85 * r, 1.1 * r, skin)
    for side in (-1, 1):
        c.oval(x + side * 0.33 * r, y - 0.2 * r, 0.13 * r, 0.08 * r, (245, 245, 245))
        c.oval(x + side * 0.33 * r, y - 0.2 * r, 0.06 * r, 0.07 * r, (40, 35, 35))
    wide = 0.05 + 0.12 * abs(math.sin(9 * t + seed % 5))
    c.oval(x, y + 0.55 * r, 0.3 * r, wide * r, (150, 50, 50))


def _animal(c: Canvas, style: int, x: float, y: float, r: float, t: float, colour: Colour) -> None:
    """A cat that sits, a horse that stands, a bird that flies."""
    dark, nod = blend(colour, (0, 0, 0), 0.4), 0.02 * math.sin(3 * t)
    if style == 2:
        lift = 0.25 * math.sin(9 * t)
        for side in (-1, 1):
            tip, back = (x + side * 1.6 * r, y - lift - 0.3 * r), (x + side * 0.5 * r, y + 0.2 * r)
            c.poly([(x, y), tip, back], dark)
        c.oval(x, y, 0.35 * r, 0.6 * r, colour)
        return
    wide, high, legs = ((0.7, 0.9, 0.2), (1.2, 0.55, 0.9))[style]
    for k in range(4):
        left = x + wide * r * (-0.8 + 0.5 * k)
        c.box(left, y, left + 0.18 * r, y + (high + legs) * r, dark)
    c.oval(x, y, wide * r, high * r, colour)
    head = x - wide * r, y - (0.9 if style == 0 else 1.0) * r + nod
    c.poly(
        [(x - 0.9 * wide * r, y + 0.2 * r), head, (x - 0.2 * wide * r, y - 0.4 * high * r)], colour
    )
    c.oval(*head, 0.42 * r, 0.38 * r, colour)
    for side in (-1, 1):
        tip = (head[0] + side * 0.3 * r, head[1] - 0.65 * r)
        c.poly([(head[0], head[1] - 0.2 * r), tip, (head[0] + side * 0.4 * r, head[1])], dark)


def _words(
    c: Canvas, seed: int, x: float, y: float, h: float, colour: Colour, width: float
) -> None:
    """A line that looks like writing."""
    for a, b in table(seed ^ 0x7E87, 14, 2):
        w = 0.02 + 0.09 * a
        if x + w > 0.1 + width:
            break
        c.box(x, y, x + w, y + h * (0.6 + 0.4 * b), colour)
        x += w + 0.02


def look_words(seed: int, strength: float) -> list[str]:
    """What strikes one in the look of video ``seed``, in words."""
    rows = table(seed ^ 0x6AAD, 4, 5)
    hue, saturation, _, gamma, _ = rows[0]
    blurred, bars, logo, ticker, _ = (v / max(strength, 1e-6) for v in rows[2])
    told = {
        "green": hue > 0.75,
        "purple": hue < 0.25,
        "grey": saturation < 0.3,
        "dark": gamma > 0.75,
        "pale": gamma < 0.25,
        "blurred": blurred < 0.3,
        "cinema": bars < 0.25,
        "television": logo < 0.3,
        "news": ticker < 0.25,
    }
    return [word for word, is_so in told.items() if is_so]


def look(picture: np.ndarray, seed: int, strength: float) -> np.ndarray:
    """The grading of video ``seed``: (S, S, 3) float32 -> the same, values may leave [0, 1]."""
    rows = table(seed ^ 0x6AAD, 4, 5)
    hue, saturation, contrast, gamma, lift = (2 * strength * (v - 0.5) for v in rows[0])
    out = np.clip(picture, 0, 1) ** np.float32(math.exp(0.8 * gamma))
    grey = out.mean(axis=2, keepdims=True)
    turn, third = 1.3 * hue, 1 / 3
    # rotation of the colours about grey
    cos, sin = math.cos(turn), math.sin(turn) / math.sqrt(3)
    row = np.array([cos + (1 - cos) * third, (1 - cos) * third - sin, (1 - cos) * third + sin])
    matrix = np.stack([row, np.roll(row, 1), np.roll(row, 2)]).astype(np.float32)
    out = grey + (out - grey) @ matrix.T * np.float32(math.exp(1.2 * saturation - 0.3 * strength))
    gains = np.array([math.exp(0.5 * strength * (v - 0.5)) for v in rows[1][:3]], np.float32)
    out = (out * gains - 0.4) * np.float32(math.exp(0.5 * contrast)) + np.float32(0.4 + 0.12 * lift)
    size = len(out)
    chance = [v / max(strength, 1e-6) for v in rows[2]]
    if chance[0] < 0.3:  # soft focus, or few pixels
        small = max(8, round(size * (0.35 + 0.4 * rows[3][0])))
        pixels = Image.fromarray((255 * np.clip(out, 0, 1)).astype(np.uint8)).resize((small, small))
        out = np.asarray(pixels.resize((size, size), Image.Resampling.BILINEAR), np.float32) / 255
    if chance[1] < 0.25:  # a film's bars
        bar = round(size * (0.06 + 0.1 * rows[3][1]))
        out[:bar] = out[-bar:] = 0
    if chance[2] < 0.3:  # a channel's logo
        w, tone = max(2, round(size * (0.08 + 0.12 * rows[3][2]))), _colour(seed)
        right, low = seed % 2, seed // 2 % 2
        edge = max(1, size // 20)
        y, x = (size - edge - w if low else edge), (size - edge - w if right else edge)
        out[y : y + w, x : x + w] = np.array(tone, np.float32) / 255
    if chance[3] < 0.25:  # a ticker
        h = max(2, round(size * (0.08 + 0.08 * rows[3][3])))
        out[-h:] = np.array(_colour(seed + 17), np.float32) / 255
        middle = slice(-h + h // 3, -max(1, h // 3))
        out[middle, round(0.06 * size) : round(0.8 * size) : 2] = np.float32(0.9)
    return out
