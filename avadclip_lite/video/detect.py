"""Detectors applied to video files: confidence, classes and events, whole or streamed.

An *event* is a run of snippets whose anomaly logit reaches the threshold: the one saved with the
detector by ``thresholds``, unless another is given. Where the leading anomaly class of the
alignment branch, averaged over ``SMOOTH`` snippets to each side, changes within a run, one event
ends and the next begins. An event is named after the class with the largest share, weighted by
confidence; neighbours of one name are one event. Detectors without classes leave it nameless.

A whole video is scored at its end, in the detector's chunks as in evaluation; a streamed snippet
with what came before it in the detector's window and at least ``AHEAD`` snippets after it, so that
scores differ a little, and only those snippets' features are held.

Shape letters: T snippets, K crops, D feature width, C classes (0 is normal).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit, log_expit, logit, logsumexp

from avadclip_lite.config import MAX_SNIPPETS, ClassSet, Role
from avadclip_lite.dataset import Array
from avadclip_lite.encoders import Encoders
from avadclip_lite.evaluate import predict_videos
from avadclip_lite.model import Detector
from avadclip_lite.train import CONFIG, load
from avadclip_lite.video.extract import QUEUE, FeatureReader, Part, Reading, join
from avadclip_lite.video.reader import clock, printable
from avadclip_lite.video.thresholds import read_threshold

DEFAULT_LOGIT = 0.0  # threshold of a detector with which none was saved: confidence 0.5
SMOOTH = 2  # snippets; a class that leads for a moment does not cut an event in two
AHEAD = 8  # snippets that a streamed snippet waits for
STREAM_BATCH = 8  # pictures encoded at a time while streaming; fewer wait, the delay is shorter
# most snippets between an event and its being told: batches gathered, waiting, encoded; and AHEAD
DELAY = (QUEUE + 2) * STREAM_BATCH + AHEAD


@dataclass(frozen=True, kw_only=True)
class DetectorSet:
    """The detectors at hand, by role, all for the same features and classes."""

    detectors: dict[Role, Detector]
    thresholds: dict[Role, float]  # anomaly logits
    classes: ClassSet
    encoder: str

    @classmethod
    def load(cls, paths: Sequence[str | Path], device: str = "cpu") -> DetectorSet:
        """From folders that ``train`` wrote, or folders of such folders. ``FileNotFoundError`` for
        a path without a detector, ``ValueError`` for detectors that do not go together."""
        found = {run: load(run, device) for path in paths for run in _runs(Path(path))}
        (first, one), *_ = found.items()
        own: dict[Role, Path] = {}
        for run, other in found.items():
            role, width = other.settings.model.role, other.settings.model.dim
            if own.setdefault(role, run) is not run:
                both = f"{own[role]} and {run} are both {role} detectors"
                raise ValueError(f"{both}; name one of them")
            fits = (one.classes, one.features_of, one.settings.model.dim)
            if fits != (other.classes, other.features_of, width):
                different = "were trained on different features or classes; score with one of them"
                raise ValueError(f"{first} and {run} {different}")
        return cls(
            detectors={role: found[run] for role, run in own.items()},
            thresholds={role: read_threshold(run) or DEFAULT_LOGIT for role, run in own.items()},
            classes=one.classes,
            encoder=one.features_of,
        )

    def choose(self, state: str) -> tuple[Role, str]:
        """The role to use for a video whose sound is in this state (present, absent, ...), and why,
        in words. Raises ``ValueError`` where only an audio detector is, and nothing to hear."""
        order: tuple[Role, ...] = ("vision", "audio_visual")
        if state == "present":
            order = ("audio_visual", "vision", "audio")
        role = next((role for role in order if role in self.detectors), None)
        if role is None:
            raise ValueError(f"sound is {state}, and the only detector at hand hears")
        why = f"sound is {state}: {_name(role)}"
        if role != order[0]:
            why += f", because no {_name(order[0])} was given"
        return role, why


def _name(role: Role) -> str:
    return role.replace("_", "-") + " detector" if "_" in role else f"{role}-only detector"


def _runs(path: Path) -> list[Path]:
    if path.is_file():
        how = f"python -m avadclip_lite import-checkpoint {path} --out RUN"
        raise ValueError(f"{path} is a file; convert a checkpoint of the authors first: {how}")
    runs = [path] if (path / CONFIG).is_file() else []
    runs = runs or sorted(inside.parent for inside in path.glob(f"*/{CONFIG}"))
    if not runs:
        raise FileNotFoundError(f"there is no trained detector at {path}; see `train`")
    return runs


@dataclass(frozen=True)
class Event:
    """A run of snippets that reach the threshold; no class where the detector has none."""

    code: str | None
    name: str | None  # the class in words
    start: float  # seconds from the first picture
    end: float
    score: float  # highest confidence
    share: float | None  # of the named class among the anomaly classes
    peak: float  # seconds, middle of the highest snippet
    first_snippet: int
    end_snippet: int  # exclusive

    @property
    def label(self) -> str:
        """What people read."""
        return self.name or "anomaly"


def find_events(
    logits: Array, probabilities: Array | None, times: Array, threshold: float, classes: ClassSet
) -> list[Event]:
    """The events in anomaly ``logits (T,)``, named by ``probabilities (T, C)`` if there are any;
    ``times (T + 1,)`` seconds."""

    def event(first: int, end: int) -> Event:
        code = name = share = None
        if probabilities is not None:
            weight = expit(logits[first:end].astype(np.float64)) @ probabilities[first:end, 1:]
            best = int(weight.argmax())
            code, name = classes.codes[1 + best], classes.words[1 + best]
            share = float(weight[best] / max(weight.sum(), 1e-12))
        top = first + int(logits[first:end].argmax())
        score, peak = float(expit(float(logits[top]))), float(times[top] + times[top + 1]) / 2
        span = float(times[first]), float(times[end])
        return Event(code, name, *span, score, share, peak, first, end)

    above = np.concatenate([[False], logits >= threshold, [False]])
    found: list[Event] = []
    for first, end in np.flatnonzero(np.diff(above)).reshape(-1, 2).tolist():
        cuts = [first, *_changes(probabilities, first, end), end]
        for piece in zip(cuts[:-1], cuts[1:], strict=True):
            one = event(*piece)
            # another class may have led for a while, and the names are the same all the same
            if found and (found[-1].code, found[-1].end_snippet) == (one.code, one.first_snippet):
                one = event(found.pop().first_snippet, one.end_snippet)
            found.append(one)
    return found


def _changes(probabilities: Array | None, first: int, end: int) -> list[int]:
    """Where within a run of snippets the leading anomaly class changes."""
    if probabilities is None:
        return []
    total = np.cumsum(probabilities[first:end, 1:], axis=0, dtype=np.float64)
    total = np.concatenate([np.zeros_like(total[:1]), total])
    place = np.arange(end - first)
    low, high = np.maximum(place - SMOOTH, 0), np.minimum(place + SMOOTH + 1, end - first)
    leading = ((total[high] - total[low]) / (high - low)[:, None]).argmax(axis=1)
    return (first + 1 + np.flatnonzero(np.diff(leading))).tolist()


@dataclass(frozen=True, kw_only=True)
class Scores(Reading):
    """What a detector says about a video."""

    classes: ClassSet
    role: Role
    why: str  # that role
    threshold_logit: float
    times: Array  # (T + 1,) seconds from the first picture
    logits: Array  # (T,) float32, anomaly logits
    probabilities: Array | None  # (T, C); None for detectors without classes
    loudness: Array  # (T,) root mean square of the sound
    streamed: bool

    @property
    def confidence(self) -> Array:
        """(T,) float64, the sigmoid of the anomaly logits."""
        return expit(self.logits.astype(np.float64))

    @property
    def threshold(self) -> float:
        """The confidence that an event's snippets reach."""
        return float(expit(self.threshold_logit))

    @cached_property
    def events(self) -> list[Event]:
        """The events, in the order of time."""
        shown = (self.logits, self.probabilities, self.times, self.threshold_logit, self.classes)
        return find_events(*shown)

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON types, times in seconds from the first picture."""
        snippets: dict[str, Any] = {"start": _rounded(self.times[:-1])}
        snippets["confidence"] = _rounded(self.confidence)
        snippets["anomaly_logit"] = _rounded(self.logits)
        if self.probabilities is not None:
            columns = zip(self.classes.codes, self.probabilities.T, strict=True)
            snippets["classes"] = {code: _rounded(column) for code, column in columns}
        told = {"video": printable(self.source.name), "detector": self.role, "why": self.why}
        told |= {"threshold": round(self.threshold, 6), "streamed": self.streamed}
        told |= {"seconds": round(float(self.times[-1]), 3), "frames": self.frames}
        told |= {"first_picture": round(self.origin, 6)}  # container time
        told |= {"sound": self.sound, "notes": list(self.notes)}
        events = [
            {k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(event).items()}
            for event in self.events
        ]
        return told | {"events": events, "snippets": snippets}


def _rounded(values: Array) -> list[float]:
    return np.round(values.astype(np.float64), 4).tolist()


def score_video(
    path: str | Path,
    detectors: DetectorSet,
    encoders: Encoders,
    *,
    threshold: float | None = None,
    on_event: Callable[[str, Event], None] | None = None,
    progress: Callable[[int], None] = lambda snippets: None,
    **choices: Any,
) -> Scores:
    """Extract a video and score it: as a whole, or with ``on_event`` while it is being decoded.

    ``threshold``: a confidence in [0, 1], in place of the saved one. ``progress`` is told of
    snippets done. ``choices`` go to ``FeatureReader``; of several crops the mean is taken.
    ``on_event("starts", event)`` is called when a run of events begins, as far as it is known then,
    and ``on_event("ends", event)`` for each of its events when it is over, both at most ``DELAY``
    snippets of video later. Held are then one window's features and 4 + C numbers a snippet.
    """
    if on_event is not None:
        choices = {"batch": STREAM_BATCH} | choices
    reader = FeatureReader(path, encoders, **choices)
    state = StreamState(detectors, threshold, on_event)
    for part in reader:
        state.push(part, "present" if reader.sounding else "absent or silent")
        progress(len(part.loudness))
    state.finish(reader.reading.sound)
    return Scores(
        classes=detectors.classes,
        role=state.role,
        why="; ".join(state.reasons),
        threshold_logit=state.limit,
        times=np.array(state.times),
        logits=np.concatenate(state.logits),
        probabilities=state.known_classes(),
        loudness=np.concatenate(state.loudness),
        streamed=on_event is not None,
        **vars(reader.reading),
    )


class StreamState:
    """What is known of a video while its features come in. Without ``on_event`` nothing is scored
    before the end."""

    def __init__(
        self,
        detectors: DetectorSet,
        threshold: float | None,
        on_event: Callable[[str, Event], None] | None,
    ) -> None:
        self._detectors, self._on_event = detectors, on_event
        self._given = None if threshold is None else float(logit(threshold))
        self._parts: list[Part] = []  # the detector's window, and what is not yet scored
        self._pending = self._scored = 0  # snippets not yet scored; those whose events were told
        self._first: int | None = None  # of the event that is going on
        self.role: Role | None = None
        self.limit = DEFAULT_LOGIT  # the threshold in use
        self.reasons: list[str] = []
        self.times: list[float] = [0.0]
        self.loudness: list[Array] = []
        self.logits: list[Array] = []
        self.probabilities: list[Array | None] = []

    def push(self, part: Part, sound: str) -> None:
        """Take the next snippets, and score those that have waited long enough."""
        self._parts.append(part)
        self._pending += len(part.loudness)
        self.times[-1:] = part.times.tolist()
        self.loudness.append(part.loudness)
        if self._on_event is not None and self._pending > AHEAD:
            self._advance(self._pending - AHEAD, sound)

    def finish(self, sound: str) -> None:
        if self._pending:
            self._advance(self._pending, sound)
        if self._first is not None:
            self._tell_end()

    def known_classes(self) -> Array | None:
        """(T, C) so far; None if a detector in use has none."""
        nameless = any(part is None for part in self.probabilities)
        return None if nameless else np.concatenate(self.probabilities)

    def _advance(self, count: int, sound: str) -> None:
        """Score the oldest ``count`` snippets that are pending."""
        role, why = self._detectors.choose(sound)
        model = self._detectors.detectors[role]
        if role != self.role:
            since = f"from {clock(self.times[self._scored])} on " if self._on_event else ""
            self.reasons.append(since + why)
            self.role = role
            own = self._detectors.thresholds[role]
            self.limit = own if self._given is None else self._given
        logits, probabilities = _predict(model, join(self._parts), sound == "present")
        held = len(logits)
        fresh = slice(held - self._pending, held - self._pending + count)
        self.logits.append(logits[fresh])
        self.probabilities.append(None if probabilities is None else probabilities[fresh])
        self._pending -= count
        # with the next part they are to fill one window, and what is pending is needed
        room = (model.max_snippets or MAX_SNIPPETS) - len(self._parts[-1].loudness)
        while held > room and held - len(self._parts[0].loudness) >= self._pending:
            held -= len(self._parts.pop(0).loudness)
        if self._on_event is not None:
            self._follow(self.logits[-1])

    def _follow(self, logits: Array) -> None:
        for value in logits:
            if value >= self.limit and self._first is None:
                self._first = self._scored
                self._on_event("starts", self._events(self._scored + 1)[0])
            elif value < self.limit and self._first is not None:
                self._tell_end()
                self._first = None
            self._scored += 1

    def _tell_end(self) -> None:
        for event in self._events(self._scored):
            self._on_event("ends", event)

    def _events(self, end: int) -> list[Event]:
        logits = np.concatenate(self.logits)
        logits[: self._first] = logits[end:] = -np.inf
        run = (logits, self.known_classes(), np.array(self.times), np.finfo(np.float32).min)
        return find_events(*run, self._detectors.classes)


def _predict(model: Detector, part: Part, sounding: bool) -> tuple[Array, Array | None]:
    """Anomaly logits (T,) and class probabilities (T, C), the mean of confidences over crops."""
    sound = (part.audio, part.audio_coverage > 0) if sounding else (None, None)
    found = predict_videos(model, [(crop, *sound) for crop in part.video])
    logits = found.anomaly_logits.reshape(len(part.video), -1)
    if len(logits) > 1:  # the logit of a mean of confidences, that of confidences near 1 too
        wide = logits.astype(np.float64)
        logits = [logsumexp(log_expit(wide), axis=0) - logsumexp(log_expit(-wide), axis=0)]
    classes = found.alignment
    if classes is not None:
        classes = classes.reshape(len(part.video), -1, classes.shape[-1]).mean(axis=0)
    return np.asarray(logits[0], np.float32), classes
