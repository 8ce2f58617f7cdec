"""What an edited video shows besides its stage: inserts, and the look of the whole.

An *insert* is a shot of something else: a face that talks, a landscape, shapes that move, a title
card, in any colours, fire's and blood's among them. A *look* is a video's own grading: hue,
saturation, contrast, blur, bars, a logo, subtitles. Real videos differ far more in these than an
anomaly makes them differ, so that what is merely unusual is seldom an anomaly.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from data.make_soundstage.figures import SKINS, TAU, Canvas, Colour, blend, dress, table

INSERTS = ("face", "landscape", "shapes", "card", "people")


def insert(seed: int, t: float, size: int) -> np.ndarray:
    """A frame of the insert ``seed`` at ``t`` seconds since its start, (size, size, 3) float32 in
    [0, 1]."""
    image = Image.new("RGB", (2 * size, 2 * size))
    c = Canvas(image, (1.0, 0.0, 0.0))
    (a, b, d, e), *_ = rows = table(seed ^ 0x1A5E7, 12, 4)
    top, low = _colour(seed), _colour(seed + 1)
    for k in range(12):
        c.box(-0.1, k / 12, 1.1, (k + 1) / 12, blend(top, low, k / 11))
    kind = INSERTS[seed % len(INSERTS)]
    if kind == "face":
        _face(c, seed, 0.5 + 0.2 * (a - 0.5), 0.52 + 0.06 * b, 0.22 + 0.14 * d, t)
    elif kind == "people":
        for j, (a, b, d, _) in enumerate(rows[: 2 + seed // 5 % 4]):
            _face(c, seed + 7 * j, a, 0.40 + 0.25 * b, 0.08 + 0.08 * d, t + j)
    elif kind == "landscape":
        for j in range(3):
            level, tone = 0.45 + 0.18 * j, _colour(seed + 5 * j + 2)
            ridge = [
                (s / 8, level + 0.16 * (rows[s % 12][j] - 0.5) + 0.01 * math.sin(t + s))
                for s in range(-1, 10)
            ]
            c.poly([*ridge, (1.2, 1.1), (-0.2, 1.1)], tone)
        c.oval(a, 0.15 + 0.2 * b, 0.05 + 0.06 * d, 0.05 + 0.06 * d, _colour(seed + 9))
    elif kind == "shapes":
        for j, (a, b, d, e) in enumerate(rows[: 4 + seed // 5 % 8]):
            x, y = a + 0.15 * math.sin(t * (1 + 3 * d) + 9 * e), b + 0.15 * math.cos(2 * t + 9 * d)
            r, tone = 0.03 + 0.18 * e * d, _colour(seed + 3 * j)
            if j % 3 == 0:
                c.oval(x, y, r, r, tone)
            elif j % 3 == 1:
                turn = t * (a - 0.5) * 6
                c.poly([(x + r * math.cos(turn + g), y + r * math.sin(turn + g))
                        for g in (0.0, TAU / 3, 2 * TAU / 3)], tone)  # fmt: skip
            else:
                c.puff(x, y, r, tone, 0.9, j)
    else:
        for j in range(2 + seed // 5 % 4):
            y = 0.3 + 0.13 * j
            _words(c, seed + j, 0.15 + 0.1 * a, y, 0.05 + 0.03 * d, _colour(seed + 40 + j), 0.7)
    return np.asarray(image.reduce(2), dtype=np.float32) * np.float32(1 / 255)


def _colour(seed: int) -> Colour:
    """Any colour; a third of them are warm."""
    a, b, d = table(seed ^ 0xC0108, 1, 3)[0]
    if a < 0.35:
        return round(140 + 115 * b), round(230 * d * b), round(60 * d)
    return tuple(round(255 * v) for v in (b, d, (7 * a) % 1.0))


def _face(c: Canvas, seed: int, x: float, y: float, r: float, t: float) -> None:
    look, skin = dress(seed), SKINS[seed % len(SKINS)]
    x += 0.02 * math.sin(2.1 * t + seed % 7)
    c.oval(x, y + 2.3 * r, 1.7 * r, 1.3 * r, look.shirt)
    c.oval(x, y - 0.15 * r, 1.05 * r, 1.2 * r, look.hair)
    c.oval(x, y, 0.85 * r, 1.1 * r, skin)
    for side in (-1, 1):
        c.oval(x + side * 0.33 * r, y - 0.2 * r, 0.13 * r, 0.08 * r, (245, 245, 245))
        c.oval(x + side * 0.33 * r, y - 0.2 * r, 0.06 * r, 0.07 * r, (40, 35, 35))
    wide = 0.05 + 0.12 * abs(math.sin(9 * t + seed % 5))
    c.oval(x, y + 0.55 * r, 0.3 * r, wide * r, (150, 50, 50))


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
