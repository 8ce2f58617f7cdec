"""False alarms per hour against recall: which threshold a detector should be used with.

AP says how well snippets are ranked; whoever is to look at the alarms asks something else: how
often will it call me for nothing, and how much will it miss?

- An event is *found* if any of its snippets reaches the threshold; recall is the share found.
- A *false alarm* is a run of neighbouring snippets that reach the threshold where there is no event
  (of its class, for a class's own curve). Within ``TOLERANCE`` snippets of an event nothing is
  false: edges are not annotated that finely. An alarm that begins with an event and goes on long
  after it is a false alarm as well; otherwise a low threshold would look good because everything
  is one long alarm that touches something.

The score for "anything" is the classification branch's confidence; a class's score is that
confidence, shared out by the alignment branch's probabilities of the anomaly classes.

Two limits. False alarms run together when the threshold is very low, so their number falls again;
``AlarmCurve.pick`` therefore comes from above and stops where the rate first exceeds what is
wanted, and ``false_share`` tells what share of the uneventful time is alarmed. And a threshold
picked on the videos that it is reported on is a little too good.

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

from avadclip_lite.config import ClassSet
from avadclip_lite.dataset import FeatureStore, Segment
from avadclip_lite.evaluate import Predictions, predict

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
TOLERANCE = 1  # snippets before and after an event
STEPS = 512  # thresholds of a curve, at most
FRAME_RATE = 24.0  # frames a second where the store does not tell; Soundstage, and most films


@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """What a threshold costs and finds."""

    threshold: float
    false_alarms_per_hour: float
    false_share: float  # of the time without events
    recall: float


@dataclass(frozen=True, kw_only=True)
class AlarmCurve:
    """Thresholds from high to low, and what each costs and finds."""

    thresholds: np.ndarray  # (K,)
    per_hour: np.ndarray  # (K,) false alarms
    false_share: np.ndarray  # (K,) of the time without events
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
            false_share=float(self.false_share[place]),
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
    quiet = _without_events(len(scores), offsets, events)
    highest = np.array([scores[a:b].max() for a, b in events])
    levels = np.unique(np.concatenate([scores, highest]))
    if len(levels) > STEPS:
        places = np.linspace(0, len(levels) - 1, STEPS).round().astype(int)
        levels = levels[places]
    levels = levels[::-1]
    alarms, share = np.empty(len(levels)), np.empty(len(levels))
    outside = np.where(quiet, scores, -np.inf)
    for k, level in enumerate(levels):
        alarms[k] = len(runs_above(outside, level, offsets)[0])
        share[k] = np.count_nonzero(outside >= level) / max(np.count_nonzero(quiet), 1)
    found = (highest[None] >= levels[:, None]).mean(axis=1) if len(events) else 0 * levels
    return AlarmCurve(
        thresholds=levels,
        per_hour=alarms / hours,
        false_share=share,
        recall=found,
        hours=hours,
        events=len(events),
    )


def _without_events(count: int, offsets: np.ndarray, events: np.ndarray) -> np.ndarray:
    """(S,) bool: more than ``TOLERANCE`` snippets away from every event of its video."""
    video = np.searchsorted(offsets, events[:, 0], side="right") - 1
    steps = np.zeros(count + 1, np.int64)  # +1 where an event begins, -1 where it is over
    np.add.at(steps, np.maximum(events[:, 0] - TOLERANCE, offsets[video]), 1)
    np.add.at(steps, np.minimum(events[:, 1] + TOLERANCE, offsets[video + 1]), -1)
    return np.cumsum(steps)[:-1] == 0


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
    from avadclip_lite.train import load

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
            f"{name}  threshold {point['threshold']:.5f}  "
            f"{point['false_alarms_per_hour']:6.2f} /h  recall {100 * point['recall']:5.1f} %  "
            f"alarmed for nothing {100 * point['false_share']:4.1f} % of the time"
        )
    print(f"saved in {args.run / THRESHOLDS}")
    return 0
