"""False alarms per hour against recall: which threshold a detector should be used with.

- An event is *found* if any of its snippets reaches the threshold; recall is the share found.
- A *false alarm* is a run of neighbouring snippets that reach the threshold where there is no
  event. Within ``TOLERANCE`` snippets of an event nothing is false: edges are not annotated that
  finely. An alarm that begins with an event and goes on long after it is a false alarm as well;
  otherwise a low threshold would look good because everything is one long alarm.

Scores are anomaly logits, which still tell snippets apart where confidences have all become 1, and
every score that occurs is a level: what is wanted may lie among the highest few of 100,000.

Two limits. False alarms run together when the threshold is very low, so their number falls again;
``AlarmCurve.pick`` therefore comes from above and stops where the rate first exceeds what is
wanted, and ``false_share`` tells what share of the uneventful time is alarmed. And a threshold
picked on the videos that it is reported on is a little too good.

Shape letters: V videos, S snippets of all videos one after another, K levels, E annotated events.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit, logit

from avadclip_lite.config import add_device_argument, find_device
from avadclip_lite.dataset import FeatureStore
from avadclip_lite.evaluate import Predictions, Segments, predict_store
from avadclip_lite.train import load, write_file

THRESHOLDS = "thresholds.json"  # in the folder of the trained detector
TOLERANCE = 1  # snippets before and after an event
FRAME_RATE = 24.0  # frames a second where the store does not tell; Soundstage, and most films


@dataclass(frozen=True)
class OperatingPoint:
    """What a threshold costs and finds."""

    threshold: float  # on the scores' own scale
    false_alarms_per_hour: float
    false_share: float  # of the time without events
    recall: float


@dataclass(frozen=True, kw_only=True)
class AlarmCurve:
    """Every value of a score as a threshold, from high to low, and what it costs and finds."""

    thresholds: np.ndarray  # (K,)
    per_hour: np.ndarray  # (K,) false alarms
    false_share: np.ndarray  # (K,) of the time without events
    recall: np.ndarray  # (K,)
    hours: float
    events: int  # E

    def pick(self, per_hour: float) -> OperatingPoint:
        """The lowest threshold down to which the rate never exceeds ``per_hour``; ``ValueError``
        when the highest already does."""
        over = np.flatnonzero(self.per_hour > per_hour)
        place = (over[0] if len(over) else len(self.thresholds)) - 1
        if place < 0:
            wanted = f"no threshold keeps false alarms at {per_hour:g} an hour"
            raise ValueError(f"{wanted}; the highest gives {self.per_hour[0]:g}")
        columns = (self.thresholds, self.per_hour, self.false_share, self.recall)
        return OperatingPoint(*(float(column[place]) for column in columns))


def alarm_curve(
    scores: np.ndarray, offsets: np.ndarray, events: np.ndarray, hours: float
) -> AlarmCurve:
    """The curve of ``scores (S,)`` with ``offsets (V + 1,)``; ``events (E, 2)`` are first and end
    (exclusive) snippets, counted through all videos; ``hours`` of video."""
    quiet = np.ones(len(scores), bool)  # more than TOLERANCE away from every event of its video
    for first, end in events:
        v = np.searchsorted(offsets, first, side="right") - 1
        quiet[max(first - TOLERANCE, offsets[v]) : min(end + TOLERANCE, offsets[v + 1])] = False
    pairs = quiet[:-1] & quiet[1:]  # neighbours of one video, neither in an event
    pairs[offsets[1:-1] - 1] = False
    highest = np.array([scores[first:end].max() for first, end in events])
    levels = np.unique(scores)[::-1]
    alarmed = _reaching(scores[quiet], levels)
    # snippets that reach a level, less the neighbours that both do, are the runs of them
    runs = alarmed - _reaching(np.minimum(scores[:-1], scores[1:])[pairs], levels)
    return AlarmCurve(
        thresholds=levels,
        per_hour=runs / hours,
        false_share=alarmed / max(np.count_nonzero(quiet), 1),
        recall=_reaching(highest, levels) / max(len(events), 1),
        hours=hours,
        events=len(events),
    )


def detector_curve(
    predictions: Predictions, segments: Segments, stride: int, frame_rate: float = FRAME_RATE
) -> AlarmCurve:
    """The curve of a detector's anomaly logits. ``segments``: each video's events in frames, end
    exclusive, whatever their class; ``frame_rate``: frames a second."""
    offsets = predictions.offsets
    events = [
        (offsets[v] + start // stride, offsets[v] - (-end // stride))
        for v, own in enumerate(segments)
        for _, start, end in own
    ]
    hours = float(offsets[-1]) * stride / frame_rate / 3600
    events = np.array(events, np.int64).reshape(-1, 2)
    return alarm_curve(predictions.anomaly_logits, offsets, events, hours)


def _reaching(values: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """How many of ``values`` reach each of the falling ``levels (K,)``."""
    return len(values) - np.searchsorted(np.sort(values), levels, side="left")


def save_threshold(
    run: str | Path, curve: AlarmCurve, per_hour: float, **about: Any
) -> dict[str, Any]:
    """Pick the threshold for a wanted rate and write it, and ``about``, into the trained detector's
    folder, where ``score`` looks for it; returns what was written."""
    point = asdict(curve.pick(per_hour)) | {"events": curve.events}
    level = point["threshold"]
    point |= {"logit": level, "threshold": float(expit(level))}
    written = {"wanted_per_hour": per_hour, "hours": curve.hours, **about, "points": {"any": point}}
    write_file(Path(run) / THRESHOLDS, (json.dumps(written, indent=1) + "\n").encode())
    return written


def read_threshold(run: str | Path) -> float | None:
    """The anomaly logit saved as a detector's threshold, None if there is none; ``ValueError`` if
    damaged. Early files hold the confidence only."""
    path = Path(run) / THRESHOLDS
    if not path.is_file():
        return None
    try:
        point = json.loads(path.read_text(encoding="utf-8"))["points"]["any"]
        return float(point["logit"] if "logit" in point else logit(point["threshold"]))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error!r}); delete it") from None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``python -m avadclip_lite thresholds``."""
    parser.description = "Find the threshold for a wanted rate of false alarms; `score` uses it."
    add = parser.add_argument
    add("--run", type=Path, required=True, help="folder of the trained detector")
    add("--data", type=Path, required=True, help="feature store")
    add("--split", default="test", help="with annotated events (%(default)s)")
    add("--rate", type=float, default=10.0, help="false alarms an hour wanted (%(default)s)")
    add("--fps", type=float, default=FRAME_RATE, help="of the videos (%(default)s)")
    add_device_argument(parser)


def main(args: argparse.Namespace) -> int:
    """Print what the threshold costs and finds, and save it. Bad input raises ``ValueError``."""
    if not 0 < args.fps < np.inf or not 0 <= args.rate < np.inf:
        raise ValueError(f"--fps must be above 0 and --rate not below, got {args.fps}, {args.rate}")
    store = FeatureStore.open(args.data)
    rows = store.indices(args.split)
    segments = [store.segments(row) for row in rows]
    if not any(segments):
        raise ValueError(f"{args.data} has no annotated events in its split {args.split!r}")
    detector = load(args.run, find_device(args.device))
    curve = detector_curve(predict_store(detector, store, rows), segments, store.stride, args.fps)
    about = {"split": args.split, "store": store.digest, "frame_rate": args.fps}
    point = save_threshold(args.run, curve, args.rate, **about)["points"]["any"]
    print(
        f"{curve.hours:.2f} h of video, {curve.events} events; at most {args.rate:g} false alarms "
        f"an hour:\nthreshold {point['threshold']:.5f} (logit {point['logit']:.3f}), "
        f"{point['false_alarms_per_hour']:.2f} an hour, recall {100 * point['recall']:.1f} %, "
        f"alarmed for nothing {100 * point['false_share']:.1f} % of the time\n"
        f"saved in {args.run / THRESHOLDS}"
    )
    return 0
