"""How each anomaly and each distractor looks: one painter an event, moved by time alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from data.make_soundstage.figures import (
    CAR_COLOURS,
    COWER,
    GUARD,
    SHIRTS,
    STAND,
    TAU,
    Canvas,
    Pose,
    aim,
    blend,
    car,
    cheer,
    dance,
    dress,
    flames,
    hug,
    kick,
    person,
    photograph,
    plume,
    punch,
    run,
    shards,
    star,
    strike,
    table,
    throw,
)
from data.make_soundstage.places import Layout
from data.make_soundstage.world import Event

# --- events ---------------------------------------------------------------------------------


class Cue(NamedTuple):
    """What an event's painter needs to know."""

    event: Event
    t: float  # s since its start
    left: float  # s until its end
    place: Layout
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


def _shooting(c: Canvas, cue: Cue) -> None:
    e, h, y = cue.event, cue.h, cue.place.stage
    seed = e.seed
    (r0, r1, r2, _), *_rest = table(seed, 4, 4)
    side = 1 if r0 < 0.5 else -1
    middle = 0.5 + 0.5 * (e.x - 0.5)
    x = middle - side * 0.16
    k, since = cue.last()
    # those who are shot at: one falls, one runs
    fall = min(1.0, max(0.0, (cue.t - 0.5) / 0.35))
    target = middle + side * 0.27
    hurt = STAND._replace(tilt=1.5 * fall, arm1=2.2 * fall, arm2=-0.6 * fall, lean=-0.2 * fall)
    person(c, target, y, h, dress(seed + 2), hurt, -side)
    cover = COWER._replace(lean=1.0)  # one has thrown himself down
    person(c, middle + side * 0.36, y - 0.06, 0.85 * h, dress(seed + 3), cover, -side)
    recoil = max(0.0, 1 - since / 0.16)
    gunman = dress(seed + 1)._replace(shirt=(38, 38, 46), trousers=(30, 30, 36), hair=(20, 20, 24))
    _, hand, _ = person(c, x, y, h, gunman, aim(recoil), side)
    angle = -0.3 * recoil
    rifle = r1 < 0.5
    reach = (0.30 if rifle else 0.15) * h
    tip = (hand[0] + side * reach * math.cos(angle), hand[1] + reach * math.sin(angle))
    back = (hand[0] - side * (0.14 * h if rifle else 0.0), hand[1] + 0.01 * h)
    c.line([back, hand, tip], 0.045 * h, (18, 18, 20), caps=False)
    c.line([hand, (hand[0] - side * 0.02 * h, hand[1] + 0.08 * h)], 0.04 * h, (18, 18, 20), False)
    for j in range(max(0, k - 2), k + 1):  # powder smoke drifts
        age = cue.t - e.beats[j]
        c.puff(
            tip[0] + side * 0.07 * age,
            tip[1] - 0.10 * age,
            0.025 + 0.06 * age,
            (185, 185, 185),
            max(0.0, 0.55 - 0.5 * age),
            j,
        )
    if since < 0.13:
        power = 1 - since / 0.2
        fx, fy = tip[0] + side * 0.055 * power, tip[1]
        star(c, fx, fy, 0.10 * power, 7, (255, 170, 40), r2 * 6 + k)
        star(c, fx, fy, 0.06 * power, 6, (255, 250, 200), r2 * 3 + 2 * k)
        if cue.glows:
            c.glow(fx, fy, 0.05, (255, 235, 160), 1.5 * power)
            c.glow(fx, fy, 0.22, (255, 180, 80), 0.55 * power)
        if since < 0.06:  # the bullet's way
            c.line([(fx + side * 0.06, fy), (fx + side * 0.45, fy)], 0.006, (255, 235, 170), False)


def _explosion(c: Canvas, cue: Cue) -> None:
    e, h = cue.event, cue.h
    x, y, seed = e.x, cue.place.stage - 0.06, e.seed
    k, since = cue.last()
    if k < 0:
        return
    age = cue.t - e.beats[0]
    for j, side in enumerate((-1, 1)):  # people run
        away = x + side * (0.16 + 0.24 * age)
        if -0.2 < away < 1.2:
            person(c, away, y + 0.05, 0.85 * h, dress(seed + j), run(9 * cue.t + j), side)
    plume(c, x, y - 0.05, age, 0.95, 0.34, (46, 43, 42), seed, 16, 0.95)
    flames(c, x, y + 0.03, 0.26 + 0.04 * math.sin(3 * age), cue.t, seed, 9)
    shards(c, x, y, since, y + 0.05, seed + k, 18, (35, 30, 28), 1.0)
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
            tone = blend(colour, (66, 52, 46), cooled)
            for j, (a, b, d) in enumerate(table(seed + 7 * k + 61 * layer, count, 3)):
                angle, reach = TAU * (j + 0.7 * a) / count, swell * far * (0.7 + 0.4 * b)
                px = x + reach * math.cos(angle)
                py = y - 0.14 - 0.22 * p + 0.8 * reach * math.sin(angle)
                size = swell * wide * (0.8 + 0.4 * d) * (1 - 0.5 * cooled * (layer > 1))
                c.puff(px, py, size, tone, 1.0 - 0.35 * p, j + layer)
        c.glow(x, y - 0.15, 0.10 + 0.5 * swell, (255, 170, 60), 0.55 * (1 - p))
        c.glow(x, y - 0.15, 0.60, (255, 140, 60), 0.40 * (1 - p))
        if since < 0.10:
            c.glow(x, y - 0.1, 0.40, (255, 245, 215), 1.4 * (1 - since / 0.12))


def _car_accident(c: Canvas, cue: Cue) -> None:
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
        car(c, lefts, y, length, seed, 1, wobble, 0, 0.8 if cue.night else 0)
        car(c, rights, y + 0.02, length, seed + 1, -1, -wobble, 0, 0.8 if cue.night else 0)
        for j in range(4):  # burning rubber
            far = 0.10 * j
            for px, side in ((lefts - 0.3 * length, -1), (rights + 0.3 * length, 1)):
                c.puff(
                    px + side * far,
                    y - 0.01 - 0.1 * far,
                    0.04 + 0.2 * far,
                    (205, 205, 205),
                    0.7 - 1.2 * far,
                    j,
                )
        for side, px in ((1, lefts), (-1, rights)):
            c.line([(px - side * 0.35, y + 0.01), (px, y + 0.01)], 0.01, (28, 28, 30), False)
        return
    k, since = cue.last()
    age = cue.t - impact
    spin = 0.32 * (1 - math.exp(-5 * age))
    shove = 0.05 * (1 - math.exp(-6 * age))
    c.line([(e.x - 0.45, y + 0.012), (e.x - 0.1, y + 0.01)], 0.01, (28, 28, 30), False)
    c.line([(e.x + 0.45, y + 0.032), (e.x + 0.1, y + 0.03)], 0.01, (28, 28, 30), False)
    back = car(c, e.x + gap - 0.08 + shove, y, length, seed + 1, -1, -0.35 * spin, 1.0)
    front = car(c, e.x - gap + 0.08 - shove, y + 0.02, length, seed, 1, spin, 1.0)
    c.oval(e.x, y + 0.05, 0.12, 0.014, (70, 66, 62))
    for j in range(k + 1):  # every hit leaves its pieces
        hit = cue.t - e.beats[j]
        shards(c, e.x, y - 0.12, hit, y + 0.05, seed + j, 16, (205, 225, 235), 0.75)
        shards(c, e.x, y - 0.12, hit, y + 0.05, seed + 50 + j, 9, (60, 60, 66), 0.6)
    plume(c, e.x, y - 0.14, age, 0.6, 0.17, (120, 118, 116), seed, 12, 0.8)
    flames(c, e.x, y - 0.11, 0.085, cue.t, seed, 6)
    if since < 0.22:
        power = 1 - since / 0.3
        star(c, e.x, y - 0.12, 0.17 * power, 9, (255, 205, 90), k + 0.3)
        star(c, e.x, y - 0.12, 0.10 * power, 7, (255, 255, 235), k + 0.8)
        c.glow(e.x, y - 0.12, 0.15, (255, 220, 150), 0.9 * power)
    if math.sin(TAU * 1.4 * cue.t) > 0:  # hazard lamps
        for lamp in (front(-0.5, 0.17), back(-0.5, 0.17)):
            c.glow(*lamp, 0.04, (255, 140, 20), 0.9)
            c.oval(*lamp, 0.012, 0.012, (255, 170, 50))


def _fighting(c: Canvas, cue: Cue) -> None:
    e, h, y, seed = cue.event, cue.h, cue.place.stage, cue.event.seed
    k, since = cue.last()
    lunge = max(math.exp(-since / 0.10), math.exp(-cue.ahead() / 0.06)) if k >= 0 else 0.0
    drift = 0.03 * math.sin(1.7 * cue.t + seed % 5)
    x = e.x + drift
    rows = table(seed, 3, 3)
    three = rows[0][2] < 0.45
    attacker = k % 2 == 0
    near = 0.16 * h + 0.10 * h * (1 - lunge)
    looks = [dress(seed + j) for j in range(3)]
    if three:  # a third one comes from behind
        reach = 0.5 + 0.5 * math.sin(7 * cue.t)
        person(c, x + 0.62 * h, y - 0.04, 0.95 * h, looks[2], punch(reach), -1)
    hurt = GUARD._replace(lean=-0.35 * lunge, tilt=0.18 * lunge)
    low = rows[1][k % 3] < 0.35 if k >= 0 else False
    blow = kick(lunge) if low else punch(lunge)
    for side in (-1, 1):
        active = attacker == (side < 0)
        hop = 0.015 * abs(math.sin(8 * cue.t + side))
        pose = (blow if active else hurt)._replace(lift=hop)
        shift = 0.05 * h * lunge if active else -0.02 * h * lunge
        person(c, x + side * (near - shift), y, h, looks[side > 0], pose, -side)
    for j, (a, b, d) in enumerate(table(seed ^ 77, 5, 3)):  # dust from their feet
        p = (cue.t * 0.9 + a) % 1.0
        c.puff(
            x + 0.9 * h * (b - 0.5),
            y - 0.02 - 0.05 * p,
            0.02 + 0.05 * p,
            (170, 160, 145),
            0.5 * (1 - p) * (0.5 + d),
            j,
        )
    if 0 <= since < 0.13:  # the blow lands
        side = 1 if attacker else -1
        hit = (x + side * 0.07 * h, y - (0.55 if low else 0.78) * h)
        star(c, *hit, 0.13 * h * (1 - since / 0.26), 6, (255, 250, 235), k)
        star(c, *hit, 0.07 * h, 5, (225, 60, 45), k + 0.5)


def _riot(c: Canvas, cue: Cue) -> None:
    e, h, y0, seed = cue.event, cue.h, cue.place.stage, cue.event.seed
    top = cue.place.horizon + 0.14
    rows = table(seed, 14, 5)
    # burning barricade and smoke behind the crowd
    bx = 0.82 if e.x < 0.5 else 0.18
    for j in range(3):
        c.oval(bx + 0.05 * (j - 1), top + 0.03 - 0.02 * (j % 2), 0.035, 0.022, (30, 30, 32))
    plume(c, bx, top - 0.02, cue.t + 3, 0.6, 0.22, (62, 58, 56), seed, 12, 0.85)
    flames(c, bx, top + 0.03, 0.13, cue.t, seed, 8)
    order = sorted(range(len(rows)), key=lambda j: rows[j][1])
    side = 1 if bx > 0.5 else -1
    for rank, j in enumerate(order):
        a, b, d, f, g = rows[j]
        y = top + (y0 + 0.04 - top) * b
        scale = 0.55 + 0.45 * (y - top) / (y0 - top)
        x = (
            0.04
            + 0.92 * ((rank * 0.618 + 0.3 * a) % 1.0)
            + 0.05 * math.sin((2 + d) * cue.t + 9 * a)
        )
        phase = 5 * cue.t + 9 * f
        hooligan = dress(seed + 11 * j)
        if j % 3 == 0:  # hooded
            hooligan = hooligan._replace(shirt=(48, 48, 56), hair=(40, 40, 46))
        if j % 4 == 0:
            p = (cue.t * 0.9 + f) % 1.0
            pose = throw(p)
        elif j % 4 == 1:
            pose = Pose(0.1, 0.02, -0.4, -0.4, 0.4, 0.2, 2.2 + 0.6 * math.sin(phase), 2.9, 1.0, 1.8)
        elif j % 4 == 2:
            pose = run(7 * cue.t + 9 * f)
        else:
            pose = strike(0.5 + 0.5 * math.sin(phase))
        _, hand, _ = person(c, x, y, 0.8 * h * scale, hooligan, pose, side if g < 0.75 else -side)
        size = 0.8 * h * scale
        if j % 4 == 3:  # sticks
            tip = (hand[0] + side * 0.10 * size, hand[1] - 0.30 * size)
            c.line([hand, tip], 0.035 * size, (115, 80, 45), caps=False)
        if j % 7 == 1:  # a flare
            fx, fy = hand[0], hand[1] - 0.05
            c.line([hand, (fx, fy)], 0.012, (200, 60, 60), caps=False)
            c.puff(fx, fy - 0.02, 0.028, (255, 150, 140), 1.0, j)
            for q in range(4):
                up = (cue.t * 0.8 + 0.25 * q) % 1.0
                c.puff(
                    fx + 0.05 * up,
                    fy - 0.03 - 0.2 * up,
                    0.02 + 0.07 * up,
                    (225, 120, 120),
                    0.6 * (1 - up),
                    q,
                )
            c.glow(fx, fy, 0.10, (255, 50, 40), 0.6 + 0.15 * math.sin(40 * cue.t))
        if j % 7 == 4:  # a banner
            mast = (hand[0], hand[1] - 0.42 * size)
            c.line([hand, mast], 0.02 * size, (90, 70, 50), caps=False)
            wave = 0.02 * math.sin(6 * cue.t + j)
            c.poly(
                [
                    mast,
                    (mast[0] - side * 0.34 * size, mast[1] + wave),
                    (mast[0] - side * 0.34 * size, mast[1] + 0.2 * size + wave),
                    (mast[0], mast[1] + 0.2 * size),
                ],
                (195, 40, 40),
            )
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
        c.line(
            [
                (px - reach * math.cos(turn), py - reach * math.sin(turn)),
                (px + reach * math.cos(turn), py + reach * math.sin(turn)),
            ],
            0.017,
            (60, 95, 60) if j % 2 else (75, 70, 68),
            caps=False,
        )


def _abuse(c: Canvas, cue: Cue) -> None:
    e, h, y, seed = cue.event, cue.h, cue.place.stage, cue.event.seed
    side = 1 if table(seed, 1, 1)[0][0] < 0.5 else -1
    k, since = cue.last()
    # the arm goes up before every stroke
    swing = max(0.0, 1 - since / 0.35) if k >= 0 else 0.0
    ahead = cue.ahead()
    if ahead < 0.10:
        swing = max(swing, 1 - ahead / 0.10)
    shiver = 0.006 * math.sin(31 * cue.t)
    flinch = 0.10 * math.exp(-since / 0.15) if k >= 0 else 0.0
    cower = COWER._replace(lean=0.95 + flinch, drop=0.29 + 0.02 * flinch)
    vx = e.x + side * 0.22 * h
    person(c, vx + shiver, y + 0.01, 0.92 * h, dress(seed + 1), cower, side)
    brute = dress(seed)._replace(shirt=blend(dress(seed).shirt, (20, 20, 25), 0.55))
    _, hand, _ = person(c, e.x - side * 0.30 * h, y, 1.1 * h, brute, strike(swing), side)
    angle = 2.6 - 2.0 * swing
    tip = (hand[0] + side * 0.36 * h * math.cos(angle), hand[1] - 0.36 * h * math.sin(angle))
    c.line([hand, tip], 0.045 * h, (95, 60, 30), caps=False)
    if since < 0.14:
        mark = (e.x + side * 0.30 * h, y - 0.45 * h)
        star(c, *mark, 0.11 * h, 6, (255, 245, 225), k)
        star(c, *mark, 0.06 * h, 5, (220, 50, 40), k + 0.4)
    for j in range(3):  # the cry
        angle = -1.2 + 0.45 * j
        p = (vx + side * (0.30 * h + 0.05 * math.cos(angle)), y - 0.52 * h + 0.06 * math.sin(angle))
        q = (p[0] + side * 0.07 * math.cos(angle) * 0.8, p[1] + 0.07 * math.sin(angle))
        if since < 0.5:
            c.line([p, q], 0.007, (245, 245, 250), caps=False)


# --- distractors: harmless pictures, and the causes of harmless sounds ------------------------


def _thunder(c: Canvas, cue: Cue) -> None:
    seed = cue.event.seed
    for j, (a, b, d) in enumerate(table(seed, 14, 3)):  # the sky closes
        c.puff(
            j % 7 / 6 + 0.02 * math.sin(cue.t + j),
            0.03 + 0.15 * b,
            0.13 + 0.05 * a,
            blend((66, 70, 86), (112, 116, 132), d),
            1.0,
            j,
        )
    k, since = cue.last()
    for j, (a, b, d) in enumerate(table(seed ^ 0x5EE7, 4, 3)):  # sheet lightning in the clouds
        flicker = max(0.0, math.sin(TAU * cue.t * (1.1 + b) + TAU * d)) ** 2
        c.glow(
            0.12 + 0.25 * j + 0.1 * (a - 0.5), 0.09 + 0.06 * b, 0.10, (150, 165, 255), 0.5 * flicker
        )
    if since > 0.40:
        return
    power = max(0.0, 1 - since / 0.45) * (0.55 if 0.08 < since < 0.14 else 1.0)
    (a, b, _), *bends = table(seed + 13 * k, 9, 3)
    x, y = 0.15 + 0.7 * a, 0.05
    points = [(x, y)]
    for p, _, _ in bends:
        x += 0.13 * (p - 0.5)
        y += (cue.place.horizon - 0.06) / len(bends)
        points.append((x, y))
    fork = points[3:4] + [
        (points[3][0] + (0.09 + 0.08 * b) * s, points[3][1] + 0.07 * s) for s in (0.6, 1.4)
    ]
    for way, width in ((points, 0.030), (fork, 0.018)):
        c.line(way, width, (150, 165, 235), caps=False)
        c.line(way, 0.5 * width, (255, 255, 255), caps=False)
    for p in points[::2]:
        c.glow(*p, 0.05, (190, 200, 255), 0.9 * power)
    c.lightning = max(c.lightning, 0.45 * power)


def _fireworks(c: Canvas, cue: Cue) -> None:
    e, seed = cue.event, cue.event.seed
    colours = ((255, 90, 80), (255, 210, 90), (110, 220, 255), (190, 255, 130), (255, 130, 230))
    for k, beat in enumerate(e.beats):
        age = cue.t - beat
        if not -0.4 < age < 1.0:
            continue
        a, b, d = table(seed + 5 * k, 1, 3)[0]
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


def _horn(c: Canvas, cue: Cue) -> None:
    e, seed = cue.event, cue.event.seed
    y = cue.place.stage - 0.05
    length = 1.15 * cue.h
    side = 1 if table(seed, 1, 1)[0][0] < 0.5 else -1
    k, since = cue.last()
    on = since < 0.5
    shake = 0.003 * math.sin(60 * cue.t) if on else 0.0
    at = car(c, e.x - side * 0.06, y + shake, length, seed, side, 0, 0, 0.9 if on else 0.0)
    if on:
        nose = at(0.56, 0.16)
        for j in range(3):  # the sound itself, as comics draw it
            r = 0.05 + 0.045 * j + 0.06 * (since % 0.25)
            arc = [
                (nose[0] + side * r * math.cos(g), nose[1] + r * math.sin(g))
                for g in (-0.7, -0.35, 0.0, 0.35, 0.7)
            ]
            c.line(arc, 0.012, (255, 240, 130), caps=False)


def _door_slam(c: Canvas, cue: Cue) -> None:
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
    wood = blend((150, 95, 55), (90, 110, 130), table(seed, 1, 1)[0][0])
    c.box(x - 0.60 * w, y - 1.06 * h, x + 0.60 * w, y, (225, 220, 208))  # frame
    c.box(x - 0.5 * w, y - h, x + 0.5 * w, y, (28, 24, 24))
    if wide > 0.3:
        c.box(x - 0.1 * w, y - h, x + 0.5 * w, y, (250, 215, 140))  # light in the room behind
        person(c, x + 0.22 * w, y - 0.01, 0.72 * h, dress(seed), STAND, -1)
        c.glow(x + 0.2 * w, y - 0.5 * h, 0.12, (255, 205, 120), 0.25)
    edge = x - 0.5 * w + w * (1 - wide)
    skew = 0.10 * h * wide
    c.poly(
        [(x - 0.5 * w, y - h), (edge, y - h - 0.4 * skew), (edge, y + skew), (x - 0.5 * w, y)], wood
    )
    inset = blend(wood, (0, 0, 0), 0.25)
    for top, bottom in ((0.92, 0.55), (0.45, 0.08)):
        c.poly(
            [
                (x - 0.5 * w + 0.12 * (edge - x + 0.5 * w), y - top * h),
                (x - 0.5 * w + 0.85 * (edge - x + 0.5 * w), y - top * h),
                (x - 0.5 * w + 0.85 * (edge - x + 0.5 * w), y - bottom * h),
                (x - 0.5 * w + 0.12 * (edge - x + 0.5 * w), y - bottom * h),
            ],
            inset,
        )
    c.oval(edge - 0.07 * w, y - 0.48 * h, 0.04 * w, 0.04 * w, (240, 205, 90))
    if since < 0.25:  # it shakes in its frame
        for j in (-1, 1):
            for up in (0.3, 0.6, 0.9):
                p = (x + j * 0.68 * w, y - up * h)
                c.line([p, (p[0] + j * 0.05, p[1] - 0.02)], 0.009, (250, 250, 245), caps=False)


def _cheering(c: Canvas, cue: Cue) -> None:
    h, seed = cue.h, cue.event.seed
    y0, top = cue.place.stage, cue.place.horizon + 0.16
    rows = table(seed, 11, 4)
    team = ((240, 200, 50), (50, 110, 220))
    for rank, j in enumerate(sorted(range(len(rows)), key=lambda j: rows[j][1])):
        a, b, d, f = rows[j]
        y = top + (y0 + 0.05 - top) * b
        scale = 0.6 + 0.4 * (y - top) / (y0 - top)
        x = 0.05 + 0.9 * ((rank * 0.618 + 0.15 * a) % 1.0)
        look = dress(seed + j)._replace(shirt=team[j % 2])
        left, right, _ = person(c, x, y, 0.78 * h * scale, look, cheer(9 * cue.t + 9 * f))
        if j % 4 == 0:  # a scarf held up
            c.line([left, right], 0.03 * h, team[(j + 1) % 2], caps=False)
        elif j % 4 == 2:  # a flag
            mast = (right[0], right[1] - 0.22 * h)
            c.line([right, mast], 0.014 * h, (230, 230, 230), caps=False)
            wave = 0.02 * math.sin(7 * cue.t + j)
            c.poly(
                [
                    mast,
                    (mast[0] + 0.2 * h, mast[1] + wave),
                    (mast[0] + 0.2 * h, mast[1] + 0.13 * h),
                    (mast[0], mast[1] + 0.13 * h),
                ],
                team[0],
            )
    bright = ((255, 90, 90), (255, 220, 80), (90, 200, 255), (150, 240, 120), (255, 255, 255))
    for j, (a, b, d) in enumerate(table(seed ^ 0xC0F, 26, 3)):  # confetti
        p = (0.35 * cue.t * (0.6 + 0.6 * a) + b) % 1.0
        x, y = d + 0.03 * math.sin(5 * cue.t + 9 * a), 0.02 + 0.85 * p
        c.box(x, y, x + 0.016, y + 0.010, bright[j % 5])


def _camera_flash(c: Canvas, cue: Cue) -> None:
    e, h, y, seed = cue.event, cue.h, cue.place.stage, cue.event.seed
    side = 1 if table(seed, 1, 1)[0][0] < 0.5 else -1
    k, since = cue.last()
    model = e.x + side * 0.27
    person(
        c,
        model,
        y - 0.03,
        h,
        dress(seed + 5),
        Pose(0, 0, -0.15, -0.12, 0.18, 0.1, 0.9, -0.5, 2.4, 2.9),
        -side,
    )
    for j in range(3):
        x = e.x - side * (0.10 + 0.13 * j)
        _, hand, head = person(
            c, x, y - 0.03 * (j % 2), 0.95 * h, dress(seed + j), photograph(), side
        )
        box = (head[0] + side * 0.11 * h, head[1] + 0.01 * h)
        c.box(
            box[0] - 0.055 * h,
            box[1] - 0.04 * h,
            box[0] + 0.055 * h,
            box[1] + 0.045 * h,
            (32, 32, 36),
        )
        c.oval(*box, 0.03 * h, 0.03 * h, (130, 150, 175))
        if since < 0.11 and j == k % 3:
            power = 1 - since / 0.16
            star(c, box[0], box[1] - 0.03 * h, 0.085 * power, 4, (255, 255, 255), 0.8)
            c.glow(*box, 0.05, (235, 240, 255), 1.6 * power)
            c.glow(*box, 0.30, (215, 225, 255), 0.6 * power)


def _headlights(c: Canvas, cue: Cue) -> None:
    e, seed = cue.event, cue.event.seed
    whole = cue.t + cue.left
    p = math.sin(math.pi * min(1.0, cue.t / whole)) ** 0.8
    size = 0.16 + 0.16 * p
    x, y = e.x, cue.place.horizon + 0.18 + (cue.place.stage - cue.place.horizon - 0.20) * p
    body = CAR_COLOURS[seed % len(CAR_COLOURS)]
    dark = blend(body, (0, 0, 0), 0.35)
    c.oval(x, y, 1.05 * size, 0.07 * size, (38, 38, 42))
    for wheel in (-0.78, 0.78):
        c.box(x + (wheel - 0.16) * size, y - 0.3 * size, x + (wheel + 0.16) * size, y, (26, 26, 30))
    c.poly(
        [
            (x - 0.7 * size, y - 0.75 * size),
            (x - 0.52 * size, y - 1.25 * size),
            (x + 0.52 * size, y - 1.25 * size),
            (x + 0.7 * size, y - 0.75 * size),
        ],
        body,
    )
    c.poly(
        [
            (x - 0.6 * size, y - 0.77 * size),
            (x - 0.46 * size, y - 1.17 * size),
            (x + 0.46 * size, y - 1.17 * size),
            (x + 0.6 * size, y - 0.77 * size),
        ],
        (110, 130, 145),
    )
    c.box(x - 0.95 * size, y - 0.78 * size, x + 0.95 * size, y - 0.2 * size, body)
    c.box(x - 0.45 * size, y - 0.55 * size, x + 0.45 * size, y - 0.30 * size, dark)
    for side in (-1, 1):
        lx, ly = x + side * 0.70 * size, y - 0.50 * size
        c.oval(lx, ly, 0.19 * size, 0.17 * size, (255, 250, 225))
        c.glow(lx, ly, 0.035 + 0.05 * p, (255, 250, 225), 1.3)
        c.glow(lx, ly, 0.14 + 0.12 * p, (255, 240, 200), 0.40 + 0.3 * p)


def _hugging(c: Canvas, cue: Cue) -> None:
    e, h, y, seed = cue.event, cue.h, cue.place.stage, cue.event.seed
    sway = math.sin(2.2 * cue.t)
    x = e.x + 0.012 * sway
    near = 0.105 * h
    if table(seed, 1, 1)[0][0] < 0.4:  # friends look on
        person(c, x + 0.55 * h, y - 0.04, 0.95 * h, dress(seed + 2), STAND, -1)
    person(c, x - near, y, h, dress(seed), hug(sway), 1)
    person(c, x + near, y, 0.95 * h, dress(seed + 1), hug(-sway), -1)
    # the front arm across the other's back
    c.line(
        [(x - near, y - 0.74 * h), (x + 0.04 * h, y - 0.68 * h), (x + 0.17 * h, y - 0.64 * h)],
        0.06 * h,
        blend(dress(seed).shirt, (0, 0, 0), 0.2),
    )
    c.oval(x + 0.17 * h, y - 0.64 * h, 0.036 * h, 0.036 * h, dress(seed).skin)
    k, since = cue.last()
    if since < 0.8:  # laughter
        for j in range(2):
            up = since / 0.8
            hx, hy = x + (0.12 * j - 0.06) * h, y - 1.08 * h - 0.12 * up - 0.03 * j
            r = 0.020
            c.oval(hx - r / 2, hy, r * 0.62, r * 0.62, (235, 90, 120))
            c.oval(hx + r / 2, hy, r * 0.62, r * 0.62, (235, 90, 120))
            c.poly(
                [(hx - 1.1 * r, hy + r * 0.25), (hx + 1.1 * r, hy + r * 0.25), (hx, hy + 1.5 * r)],
                (235, 90, 120),
            )


def _dancing(c: Canvas, cue: Cue) -> None:
    e, h, y, seed = cue.event, cue.h, cue.place.stage, cue.event.seed
    count = 4
    lights = ((255, 80, 160), (90, 200, 255), (255, 210, 80))
    beat = TAU * cue.t  # half a turn a beat
    for j in range(3):
        lit = 0.5 + 0.5 * math.sin(beat + 2 * j)
        c.oval(e.x + 0.26 * (j - 1), y + 0.01, 0.15, 0.035, blend((120, 115, 120), lights[j], lit))
        c.glow(e.x + 0.26 * (j - 1), y - 0.04, 0.10, lights[j], 0.22 + 0.22 * lit)
    for j in range(count):
        x = e.x + 0.19 * (j - (count - 1) / 2) + 0.02 * math.sin(beat + j)
        bright = dress(seed + j)._replace(shirt=SHIRTS[(seed + 3 * j) % 8])
        person(
            c,
            x,
            y - 0.04 * (j % 2),
            0.9 * h,
            bright,
            dance(beat + 0.6 * (j % 2), seed + j),
            1 if j % 2 else -1,
        )
    for a, b, _ in table(seed ^ 0x7E, 4, 3):  # notes
        p = (0.5 * cue.t + b) % 1.0
        nx, ny = 0.12 + 0.76 * a + 0.02 * math.sin(6 * p), y - h - 0.02 - 0.25 * p
        c.oval(nx, ny, 0.017, 0.013, (30, 28, 34))
        c.line(
            [(nx + 0.014, ny), (nx + 0.014, ny - 0.06), (nx + 0.04, ny - 0.045)],
            0.009,
            (30, 28, 34),
            caps=False,
        )


PAINTERS: dict[str, Callable[[Canvas, Cue], None]] = {
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
