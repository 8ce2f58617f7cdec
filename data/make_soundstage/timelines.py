"""When things happen: lengths of videos, events and their number, as XD-Violence has them.

Source: XD-Violence's test annotations (Wu et al., ECCV 2020; 486 annotated violent and 300 normal
test videos, 1,272 events), counted in snippets of 16 frames. Lengths are scaled by
``World.time_scale``, so that a video fits the size of this data set; shares and numbers are not.
Abuse is rare there (7 test videos, 1 % of the training videos): its row is coarse, and it is drawn
more often here, or nothing could be learned of it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
LONGEST = 540.0  # snippets before scaling: the 95 % quantile of normal videos
SHORTEST_EVENT = 8  # frames, half a snippet
PARTS = 1.8  # Dirichlet concentration: how evenly a video's events share its anomalous time
STARTS_AT_ONCE = 0.2  # share of violent videos whose first event is on from the beginning


class Timeline(NamedTuple):
    """Quantiles of a video's length (snippets) and positive share, and how many of the videos have
    1, 2, ... 10 (or more) events."""

    snippets: tuple[float, ...]
    share: tuple[float, ...]
    events: tuple[int, ...]


NORMAL_SNIPPETS = (9, 59, 112, 211, 301, 540, 2074)
SINGLE = {
    "fighting": Timeline(
        (16, 25, 66, 117, 176, 315, 737),
        (0.05, 0.11, 0.27, 0.42, 0.57, 0.93, 1.00),
        (52, 28, 11, 5, 3, 4, 1),
    ),
    "shooting": Timeline(
        (13, 22, 33, 61, 90, 197, 303),
        (0.03, 0.05, 0.13, 0.20, 0.34, 0.75, 0.99),
        (36, 15, 5, 1, 1, 1, 2, 0, 0, 1),
    ),
    "riot": Timeline(
        (16, 49, 94, 157, 260, 596, 1224),
        (0.13, 0.31, 0.71, 0.92, 1.00, 1.00, 1.00),
        (66, 18, 7, 6, 1),
    ),
    "abuse": Timeline(
        (21, 30, 57, 85, 159, 253, 265),
        (0.04, 0.06, 0.14, 0.22, 0.52, 0.87, 1.00),
        (5, 1, 1),
    ),
    "car accident": Timeline(
        (22, 36, 82, 105, 157, 235, 652),
        (0.04, 0.10, 0.20, 0.26, 0.35, 0.61, 0.94),
        (9, 10, 19, 8, 7, 13, 10, 4, 2, 6),
    ),
    "explosion": Timeline(
        (5, 22, 42, 65, 103, 315, 508),
        (0.03, 0.05, 0.12, 0.24, 0.49, 0.88, 0.99),
        (60, 13, 4, 2, 0, 0, 1, 0, 1),
    ),
}
SEVERAL = Timeline(  # two or three classes in one video
    (20, 23, 60, 100, 151, 292, 303),
    (0.05, 0.09, 0.28, 0.39, 0.49, 0.76, 0.86),
    (0, 16, 11, 4, 3, 5, 3, 3, 0, 1),
)
# Share of the violent videos by class: XD's training labels, abuse raised from 0.02 to 0.09.
CLASS_SHARES = {"fighting": 0.20, "shooting": 0.18, "riot": 0.17, "abuse": 0.09,
                "car accident": 0.19, "explosion": 0.17}  # fmt: skip
LABEL_COUNTS = (0.87, 0.11, 0.02)  # violent training videos with 1, 2, 3 classes
NORMAL_SHARES = {"train": 0.52, "test": 0.375}


def draw_snippets(rng: np.random.Generator, kinds: list[str], scale: float) -> int:
    """Length of a video (T) with events of these classes; none: a normal one."""
    table = _timeline(kinds).snippets if kinds else NORMAL_SNIPPETS
    return max(3, round(scale * min(LONGEST, _draw(rng, table))))


def draw_events(
    rng: np.random.Generator, kinds: list[str], frames: int
) -> list[tuple[str, int, int]]:
    """(class word, first frame, end frame) of each event of a video, in time order; every class
    occurs."""
    table = _timeline(kinds)
    odds = np.array(table.events, dtype=float)
    count = max(len(kinds), 1 + int(rng.choice(len(odds), p=odds / odds.sum())))
    count = min(count, max(len(kinds), frames // (4 * SHORTEST_EVENT)))
    total = max(count * SHORTEST_EVENT, int(_draw(rng, table.share) * frames))
    spare = total - count * SHORTEST_EVENT
    lengths = SHORTEST_EVENT + np.floor(spare * rng.dirichlet([PARTS] * count)).astype(int)
    gaps = rng.dirichlet(np.ones(count + 1))
    if rng.random() < STARTS_AT_ONCE:
        gaps[0] = 0.0
    gaps = np.floor((frames - lengths.sum()) * gaps / gaps.sum()).astype(int)
    names = [*kinds, *rng.choice(kinds, count - len(kinds))]
    events, at = [], 0
    for name, length, gap in zip(rng.permutation(names), lengths, gaps, strict=False):
        at += int(gap)
        events.append((str(name), at, at + int(length)))
        at += int(length)
    return events


def _timeline(kinds: list[str]) -> Timeline:
    return SINGLE[kinds[0]] if len(kinds) == 1 else SEVERAL


def _draw(rng: np.random.Generator, values: tuple[float, ...]) -> float:
    """A number whose quantiles are ``values``, log-linear in between."""
    return float(np.exp(np.interp(rng.random(), QUANTILES, np.log(values))))
