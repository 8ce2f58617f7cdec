"""False alarms per hour against recall: which threshold a detector should be used with.

AP says how well snippets are ranked; whoever is to look at the alarms asks something else: how
often will it call me for nothing, and how much will it miss?

- An *alarm* is a run of neighbouring snippets whose score reaches the threshold.
- It is *false* if it touches no annotated event (of its class, for a class's own curve).
- An event is *found* if any of its snippets reaches the threshold; recall is the share found.

The score for "anything" is the classification branch's confidence; a class's score is that
confidence, shared out by the alignment branch's probabilities of the anomaly classes.

Two limits. One alarm that covers a whole video touches whatever is in it, so the rate falls again
once everything is an alarm; ``AlarmCurve.pick`` therefore comes from above and stops where the rate
first exceeds what is wanted. And a threshold picked on the videos that it is reported on is a
little too good.

Shape letters: V videos, S snippets of all videos one after another, C classes, K thresholds,
E annotated events.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .annotations import Segment
from .config import ClassSet
from .evaluate import Predictions, predict
from .store import FeatureStore

__all__ = [
    "THRESHOLDS",
    "AlarmCurve",
    "OperatingPoint",
    "add_arguments",
    "alarm_curve",
    "alarm_curves",
    "class_scores",
    "main",
    "read_threshold",
    "runs_above",
    "save_thresholds",
]

THRESHOLDS = "thresholds.json"  # in the folder of the trained detector
ANY = "any"  # the curve of all classes together
STEPS = 512  # thresholds of a curve, at most
FRAME_RATE = 24.0  # frames a second where the store does not tell; Soundstage, and most films


@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """What a threshold costs and finds."""

    threshold: float
    false_alarms_per_hour: float
    recall: float


@dataclass(frozen=True, kw_only=True)
class AlarmCurve:
    """Thresholds from high to low, and what each costs and finds."""

    thresholds: np.ndarray  # (K,)
    per_hour: np.ndarray  # (K,) false alarms
    recall: np.ndarray  # (K,)
    hours: float
    events: int  # E

    def pick(self, per_hour: float) -> OperatingPoint:
        """The lowest threshold down to which the rate never exceeds ``per_hour``.

        Raises ``ValueError`` when the highest threshold already does.
        """
        over = np.flatnonzero(self.per_hour > per_hour)
        place = (over[0] if len(over) else len(self.thresholds)) - 1
        if place < 0:
            raise ValueError(
                f"no threshold keeps false alarms at {per_hour:g} an hour; the highest gives "
                f"{self.per_hour[0]:g}"
            )
        return OperatingPoint(
            threshold=float(self.thresholds[place]),
            false_alarms_per_hour=float(self.per_hour[place]),
            recall=float(self.recall[place]),
        )


def runs_above(
    scores: np.ndarray, threshold: float, offsets: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """First and end (exclusive) snippets of the runs of ``scores (S,)`` that reach the threshold.

    ``offsets (V + 1,)``: where videos begin; no run crosses into the next.
    """
    above = np.asarray(scores) >= threshold
    before = np.concatenate([[False], above[:-1]])
    after = np.concatenate([above[1:], [False]])
    if offsets is not None:
        before[offsets[:-1][offsets[:-1] < len(above)]] = False
        after[offsets[1:] - 1] = False
    return np.flatnonzero(above & ~before), np.flatnonzero(above & ~after) + 1


def class_scores(confidence: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Confidence (S,) and class probabilities (S, C), normal first -> (S, C - 1): the confidence
    shared among the anomaly classes."""
    anomalies = probabilities[:, 1:]
    total = np.maximum(anomalies.sum(axis=1, keepdims=True), 1e-12)
    return confidence[:, None] * anomalies / total


def alarm_curve(
    scores: np.ndarray, offsets: np.ndarray, events: np.ndarray, hours: float
) -> AlarmCurve:
    """The curve of one score.

    ``scores (S,)``; ``offsets (V + 1,)``; ``events (E, 2)`` first and end (exclusive) snippets of
    the annotated events, counted through all videos; ``hours`` of video.
    """
    true = np.zeros(len(scores) + 1, np.int64)
    np.add.at(true, events[:, 0], 1)
    np.add.at(true, events[:, 1], -1)
    covered = np.concatenate([[0], np.cumsum(np.cumsum(true)[:-1] > 0)])  # (S + 1,)
    highest = np.array([scores[a:b].max() for a, b in events])
    levels = np.unique(np.concatenate([scores, highest]))
    if len(levels) > STEPS:
        places = np.linspace(0, len(levels) - 1, STEPS).round().astype(int)
        levels = levels[places]
    levels = levels[::-1]
    false = np.empty(len(levels))
    for k, level in enumerate(levels):
        first, end = runs_above(scores, level, offsets)
        false[k] = np.count_nonzero(covered[end] == covered[first])
    found = (highest[None] >= levels[:, None]).mean(axis=1) if len(events) else 0 * levels
    return AlarmCurve(
        thresholds=levels, per_hour=false / hours, recall=found, hours=hours, events=len(events)
    )


def alarm_curves(
    predictions: Predictions,
    segments: Sequence[Sequence[Segment]],
    classes: ClassSet,
    stride: int,
    frame_rate: float = FRAME_RATE,
) -> dict[str, AlarmCurve]:
    """The curve for anything ("any"), and one for each anomaly class that is annotated, by code.

    ``segments``: each video's events in frames, end exclusive. ``frame_rate``: frames a second.
    """
    offsets = predictions.offsets
    hours = float(offsets[-1]) * stride / frame_rate / 3600
    rows = [
        (code, offsets[v] + start // stride, offsets[v] - (-end // stride))
        for v, events in enumerate(segments)
        for code, start, end in events
    ]
    spans = np.array([row[1:] for row in rows], np.int64).reshape(-1, 2)
    codes = np.array([row[0] or "" for row in rows])
    curves = {ANY: alarm_curve(predictions.anomaly, offsets, spans, hours)}
    shared = class_scores(predictions.anomaly, predictions.alignment)
    for c, code in enumerate(classes.codes[1:]):
        if (codes == code).any():
            curves[code] = alarm_curve(shared[:, c], offsets, spans[codes == code], hours)
    return curves


def save_thresholds(
    run: str | Path, curves: dict[str, AlarmCurve], per_hour: float, **about: Any
) -> dict[str, Any]:
    """Pick a threshold for each curve and write them into the trained detector's folder, where
    ``score`` looks for them; returns what was written. ``about`` is recorded with them."""
    points = {}
    for name, curve in curves.items():
        try:
            points[name] = asdict(curve.pick(per_hour)) | {"events": curve.events}
        except ValueError:
            if name == ANY:
                raise
    written = {"wanted_per_hour": per_hour, "hours": curves[ANY].hours, **about, "points": points}
    path = Path(run) / THRESHOLDS
    half = path.with_name(path.name + ".part")
    half.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    half.replace(path)
    return written


def read_threshold(run: str | Path) -> float | None:
    """The threshold saved with a detector, None if there is none; ``ValueError`` if damaged."""
    path = Path(run) / THRESHOLDS
    if not path.is_file():
        return None
    try:
        return float(json.loads(path.read_text(encoding="utf-8"))["points"][ANY]["threshold"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error!r}); delete it") from None


# ---- command line --------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``python -m avadclip_lite alarms``."""
    parser.description = (
        "False alarms per hour against recall, and the threshold for a wanted rate, saved with "
        "the detector for `score`."
    )
    parser.add_argument("--run", type=Path, required=True, help="folder of the trained detector")
    parser.add_argument("--data", type=Path, required=True, help="feature store")
    parser.add_argument("--split", default="test", help="with annotated events (%(default)s)")
    parser.add_argument(
        "--rate", type=float, default=10.0, help="false alarms an hour wanted (%(default)s)"
    )
    parser.add_argument(
        "--fps", type=float, default=FRAME_RATE, help="frames a second of the videos (%(default)s)"
    )


def main(args: argparse.Namespace) -> int:
    """Print the table, save the thresholds. Bad input raises ``ValueError``."""
    from .train import load

    store = FeatureStore.open(args.data)
    rows = store.indices(args.split)
    predictions = predict(load(args.run), store, rows)
    segments = [store.segments(row) for row in rows]
    if not any(segments):
        raise ValueError(f"{args.data} has no annotated events in its split {args.split!r}")
    curves = alarm_curves(predictions, segments, store.classes, store.stride, args.fps)
    about = {"split": args.split, "store": store.digest, "frame_rate": args.fps}
    saved = save_thresholds(args.run, curves, args.rate, **about)
    words = dict(zip(store.classes.codes, store.classes.words, strict=True))
    print(f"{saved['hours']:.2f} h of video; at most {args.rate:g} false alarms an hour:")
    for code, curve in curves.items():
        point = saved["points"].get(code)
        name = f"{words.get(code, 'anything'):14s}{curve.events:5d} events"
        if point is None:
            print(f"{name}  no threshold keeps to that rate")
            continue
        print(
            f"{name}  threshold {point['threshold']:.3f}  "
            f"{point['false_alarms_per_hour']:6.2f} /h  recall {100 * point['recall']:5.1f} %"
        )
    print(f"saved in {args.run / THRESHOLDS}")
    return 0
