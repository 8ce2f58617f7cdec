"""What lessons share: the store, the videos that all of them follow, the scoreboard at the end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from avadclip_lite.config import soundstage_path
from avadclip_lite.dataset import FeatureStore
from avadclip_lite.model import Detector
from avadclip_lite.train import load
from avadclip_lite.viz import plots

FPS = 24.0  # frames a second, of Soundstage and of XD-Violence

# Three test videos of Soundstage, followed through all notebooks.
EXAMPLES = {
    "sound saves": "soundstage_1126_label_B6-0-0",  # four crashes, of which one is heard
    "sound lies": "soundstage_1036_label_A",  # fireworks, three times; harmless all through
    "many labels": "soundstage_1135_label_B6-G-0",  # crashes and explosions, the last of each heard
}


def open_stage(data: str | Path = "") -> FeatureStore:
    """The feature store in the folder ``data``; the Soundstage set that ships where it is empty."""
    return FeatureStore.open(data or soundstage_path())


def clip_path(name: str) -> Path | None:
    """The example clip (MP4 with sound) that ships of the Soundstage video called ``name``; of most
    there is none."""
    path = soundstage_path() / "clips" / f"{name}.mp4"
    return path if path.is_file() else None


def shipped(store: FeatureStore, role: str) -> Detector | None:
    """The detector that ships for Soundstage: "teacher", or its vision-only "student", of the seed
    that ``models/index.json`` tells. ``None`` for other data, where a lesson trains its own."""
    home = soundstage_path()
    if not (home / "meta.json").is_file() or store.digest != FeatureStore.open(home).digest:
        return None
    return load(home / "models" / role)


def row_of(store: FeatureStore, name: str) -> int:
    """The first row of the video called ``name``. Raises ``ValueError`` where there is none."""
    for i, row in enumerate(store.videos):
        if row.name == name:
            return i
    raise ValueError(f"no video called {name!r} in {store.path}")


def examples(store: FeatureStore) -> dict[str, int]:
    """The running examples as rows of the store, by role. Other data fill them by what labels can
    tell: the longest test video with the most classes, with one class, and with none."""
    names = [row.name for row in store.videos]
    if set(EXAMPLES.values()) <= set(names):
        return {role: names.index(name) for role, name in EXAMPLES.items()}
    test = store.indices("test")
    labels = store.labels(test)
    order = test[np.argsort(-store.snippets[test], kind="stable")].tolist()  # the longest first
    count = dict(zip(test.tolist(), np.where(labels[:, 0] > 0, 0, labels.sum(1)), strict=True))
    roles = {"sound saves": 1, "sound lies": 0, "many labels": int(max(count.values()))}
    return {k: next((i for i in order if count[i] == n), order[0]) for k, n in roles.items()}


# The scoreboard, in the order of the lessons: the lesson in which a bar is set, its label, and the
# names under which a study's file may hold it. Chance stands in every file, as the share of
# anomalous frames; what needs no training a lesson may hand over itself.
CHANCE, MEASURES = "chance", ("frame_ap_classification", "frame_ap_alignment")
BOARD = (
    ("00", CHANCE, ()),
    ("00", "loudness", ("loudness",)),
    ("01", "class words, untrained", ("class words", "zero_shot, audio-visual")),
    ("01", "class words, median filter", ("class words, median",)),
    ("02", "vision only", ("vision",)),
    ("02", "audio only", ("audio",)),
    ("02", "DeepMIL", ("DeepMIL", "deepmil, vision")),
    ("03", "late fusion", ("late fusion", "late_fusion, audio-visual")),
    ("06", "teacher, as published", ("paper",)),
    ("06", "teacher, ours", ("ours", "bidirectional TCN")),
    ("07", "vision student", ("vision, UKD x 1",)),
    ("07", "audio student", ("audio, UKD x 1",)),
    ("09", "teacher, as released", ("released",)),
    ("11", "CLIP-TSA", ("clip_tsa, vision",)),
)


class Bar(NamedTuple):
    """A line of the scoreboard: frame AP in percent, mean and 95 % interval over its seeds."""

    label: str
    mean: float
    low: float
    high: float
    seeds: int
    own: bool  # set in this very lesson


def standings(rows: pd.DataFrame, upto: str, known: Mapping[str, float] | None = None) -> list[Bar]:
    """Every bar that was set up to the lesson ``upto``, "00" to "11", in the order of the lessons.

    ``rows``: a study's file with its columns variant and seed, one protocol (``study.results()``).
    ``known``: AP (fractions) by label of what the file lacks. A bar that neither knows is left
    out. AP is the classification branch's, or where there is none the alignment branch's.
    """
    found, held = dict(known or {}), set(rows["variant"])
    found.setdefault(CHANCE, float(rows["positive_share"].mean()))
    bars = []
    for lesson, label, names in BOARD:
        own = rows[rows["variant"] == next((name for name in names if name in held), None)]
        columns = [c for c in MEASURES if c in own and own[c].notna().any()]
        numbers = 100 * np.array(own[columns[0]] if columns else [found.get(label, np.nan)])
        if lesson > upto or np.isnan(numbers).any():
            continue
        mean, n, half = float(numbers.mean()), len(numbers), 0.0
        if n > 1:
            half = stats.t.ppf(0.975, n - 1) * numbers.std(ddof=1) / np.sqrt(n)
        bars.append(Bar(label, mean, mean - half, mean + half, n, lesson == upto))
    return bars


def scoreboard(
    rows: pd.DataFrame, upto: str, known: Mapping[str, float] | None = None, data: str = ""
) -> Figure | None:
    """The figure that closes a lesson: ``standings`` as bars (this lesson's in blue), and printed.
    A lesson that sets no bar gets a line and no figure. ``data`` names the data set."""
    bars = standings(rows, upto, known)
    if not any(bar.own for bar in bars):
        top = max(bars, key=lambda bar: bar.mean)
        print(f"no new bar; the highest of {len(bars)} is {top.label}, {top.mean:.1f}")
        return None
    fig, ax = plt.subplots(figsize=(plots.WIDTH * 0.75, 0.9 + 0.3 * len(bars)))
    for place, bar in enumerate(bars):
        ax.barh(place, bar.mean, color=plots.MODEL if bar.own else "#BBBBBB", height=0.7)
        ax.plot([bar.low, bar.high], [place] * 2, color=plots.INK, lw=1.5)
        ax.annotate(f" {bar.mean:.1f}", (bar.high, place), va="center", fontsize="x-small")
        seeds = f"[{bar.low:.1f}, {bar.high:.1f}] of {bar.seeds} seeds" if bar.seeds > 1 else ""
        print(f"{bar.label:28}{bar.mean:6.1f} {seeds}".rstrip())
    ax.set_yticks(range(len(bars)), [bar.label for bar in bars], fontsize="small")
    ax.invert_yaxis()
    ax.set(xlabel=f"frame AP, classification branch, %{data and f', {data}'}", xlim=(0, 100))
    return fig
