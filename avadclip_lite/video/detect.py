"""Detectors applied to video files: confidence, classes and events, whole or streamed.

An *event* is a run of snippets whose anomaly logit reaches the threshold: the one saved with the
detector by ``thresholds``, unless another is given. Where the leading anomaly class of the
alignment branch, averaged over ``SMOOTH`` snippets to each side, changes within a run, one event
ends and the next begins. An event is named after the class with the largest share, weighted by
confidence; neighbours of one name are one event. Detectors without classes give events without
names.

A whole video is scored when all of it is there, in the detector's chunks as in evaluation. While
streaming, a snippet is scored with what came before it in the detector's window and at least
``AHEAD`` snippets after it, so scores differ a little; what is held is those snippets' features
and every snippet's scores, whatever the length.

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
from avadclip_lite.encoders import Encoders
from avadclip_lite.evaluate import predict_videos
from avadclip_lite.model import Detector
from avadclip_lite.train import CONFIG, load_run
from avadclip_lite.video.extract import QUEUE, FeatureReader, Part, Reading, join
from avadclip_lite.video.reader import clock, printable
from avadclip_lite.video.thresholds import read_threshold

__all__ = [
    "DEFAULT_THRESHOLD",
    "DetectorSet",
    "Event",
    "Scores",
    "delay",
    "find_events",
    "score_video",
]

DEFAULT_THRESHOLD = 0.5  # of a detector with which none was saved
SMOOTH = 2  # snippets; a class that leads for a moment does not cut an event in two
AHEAD = 8  # snippets that a streamed snippet waits for
STREAM_BATCH = 8  # pictures encoded at a time while streaming; fewer wait, the delay is shorter


# ---- detectors -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class DetectorSet:
    """The detectors at hand, by role, all for the same features and classes."""

    detectors: dict[Role, Detector]
    thresholds: dict[Role, float | None]  # anomaly logits
    classes: ClassSet
    encoder: str

    @classmethod
    def load(cls, paths: Sequence[str | Path], device: str = "cpu") -> DetectorSet:
        """From folders that ``train`` wrote, or folders of such folders.

        Raises ``FileNotFoundError`` for a path without a detector, and ``ValueError`` for a file,
        two detectors of one role, or detectors that do not belong together.
        """
        runs: dict[Role, Path] = {}
        loaded = {}
        for run in (run for path in paths for run in _runs(Path(path))):
            found = load_run(run, device)
            role = found.detector.settings.model.role
            if role in runs:
                raise ValueError(f"{runs[role]} and {run} are both {role} detectors; name one")
            first = next(iter(loaded.values()), found)
            width, widths = (one.detector.settings.model.dim for one in (first, found))
            if (first.classes, first.encoder, width) != (found.classes, found.encoder, widths):
                raise ValueError(
                    f"{next(iter(runs.values()))} and {run} were trained on different features or "
                    "classes; score with one of them"
                )
            runs[role], loaded[role] = run, found
        return cls(
            detectors={role: found.detector for role, found in loaded.items()},
            thresholds={role: read_threshold(run) for role, run in runs.items()},
            classes=first.classes,
            encoder=first.encoder,
        )

    def choose(self, sounding: bool, state: str) -> tuple[Role, str]:
        """The role to use for a video with or without sound, and why, in words. ``state`` is how
        the sound is: present, absent, silent or unreadable.

        Raises ``ValueError`` when there is only an audio detector and nothing to hear.
        """
        order: tuple[Role, ...] = ("vision", "audio_visual")
        if sounding:
            order = ("audio_visual", "vision", "audio")
        role = next((role for role in order if role in self.detectors), None)
        if role is None:
            raise ValueError(f"sound is {state}, and the only detector at hand hears")
        why = f"sound is {state}: {_NAMES[role]}"
        if role != order[0]:
            why += f", because no {_NAMES[order[0]]} was given"
        return role, why

    def threshold(self, role: Role) -> float:
        """The anomaly logit saved with a detector, else that of ``DEFAULT_THRESHOLD``."""
        saved = self.thresholds[role]
        return float(logit(DEFAULT_THRESHOLD)) if saved is None else saved


_NAMES = {
    "audio_visual": "audio-visual detector",
    "vision": "vision-only detector",
    "audio": "audio-only detector",
}


def _runs(path: Path) -> list[Path]:
    """The folders of trained detectors at a path."""
    if path.is_file():
        raise ValueError(
            f"{path} is a file, not the folder of a trained detector; convert a checkpoint of the "
            f"authors first: python -m avadclip_lite import-checkpoint {path} --out RUN"
        )
    runs = [path] if (path / CONFIG).is_file() else []
    runs = runs or sorted(inside.parent for inside in path.glob(f"*/{CONFIG}"))
    if not runs:
        raise FileNotFoundError(f"there is no trained detector at {path}; see `train`")
    return runs


# ---- events --------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Event:
    """A run of snippets that reach the threshold. Detectors without classes leave ``code``,
    ``name`` and ``share`` None."""

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
        """What it is called where people read it."""
        return self.name or "anomaly"


def find_events(
    logits: np.ndarray,
    probabilities: np.ndarray | None,
    times: np.ndarray,
    threshold: float,
    classes: ClassSet,
) -> list[Event]:
    """The events in anomaly ``logits (T,)`` that reach ``threshold``, named by ``probabilities
    (T, C)`` if there are any; ``times (T + 1,)`` seconds."""
    above = np.concatenate([[False], logits >= threshold, [False]])
    edges = np.flatnonzero(np.diff(above)).reshape(-1, 2)
    found: list[Event] = []
    for first, end in edges.tolist():
        for piece in _pieces(probabilities, first, end):
            one = _event(logits, probabilities, times, classes, *piece)
            last = found[-1] if found else None
            # another class led for a while, but the neighbours' names are the same
            if last and (last.code, last.end_snippet) == (one.code, one.first_snippet):
                whole = found.pop().first_snippet, one.end_snippet
                one = _event(logits, probabilities, times, classes, *whole)
            found.append(one)
    return found


def _pieces(probabilities: np.ndarray | None, first: int, end: int) -> list[tuple[int, int]]:
    """A run of snippets, cut where the leading anomaly class changes."""
    if probabilities is None:
        return [(first, end)]
    total = np.cumsum(probabilities[first:end, 1:], axis=0, dtype=np.float64)
    total = np.concatenate([np.zeros_like(total[:1]), total])
    place = np.arange(end - first)
    low, high = np.maximum(place - SMOOTH, 0), np.minimum(place + SMOOTH + 1, end - first)
    leading = ((total[high] - total[low]) / (high - low)[:, None]).argmax(axis=1)
    cuts = [first, *(first + 1 + np.flatnonzero(np.diff(leading))).tolist(), end]
    return list(zip(cuts[:-1], cuts[1:], strict=True))


def _event(
    logits: np.ndarray,
    probabilities: np.ndarray | None,
    times: np.ndarray,
    classes: ClassSet,
    first: int,
    end: int,
) -> Event:
    code = name = share = None
    if probabilities is not None:
        weight = expit(logits[first:end].astype(np.float64)) @ probabilities[first:end, 1:]
        best = int(weight.argmax())
        code, name = classes.codes[1 + best], classes.words[1 + best]
        share = float(weight[best] / max(weight.sum(), 1e-12))
    top = first + int(logits[first:end].argmax())
    return Event(
        code=code,
        name=name,
        start=float(times[first]),
        end=float(times[end]),
        score=float(expit(float(logits[top]))),
        share=share,
        peak=float(times[top] + times[top + 1]) / 2,
        first_snippet=first,
        end_snippet=end,
    )


@dataclass(frozen=True, kw_only=True)
class Scores(Reading):
    """What a detector says about a video."""

    classes: ClassSet
    role: Role
    why: str  # that role
    threshold_logit: float
    times: np.ndarray  # (T + 1,) seconds from the first picture
    logits: np.ndarray  # (T,) float32, anomaly logits
    probabilities: np.ndarray | None  # (T, C); None for detectors without classes
    loudness: np.ndarray  # (T, LOUDNESS_BINS)
    streamed: bool

    @property
    def confidence(self) -> np.ndarray:
        """(T,) float64, the sigmoid of the anomaly logits."""
        return expit(self.logits.astype(np.float64))

    @property
    def threshold(self) -> float:
        """The confidence that an event's snippets reach."""
        return float(expit(self.threshold_logit))

    @cached_property
    def events(self) -> list[Event]:
        """The events, in the order of time."""
        return find_events(
            self.logits, self.probabilities, self.times, self.threshold_logit, self.classes
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON types, times in seconds from the first picture."""
        snippets = {
            "start": np.round(self.times[:-1], 4).tolist(),
            "confidence": _rounded(self.confidence),
            "anomaly_logit": _rounded(self.logits),
        }
        if self.probabilities is not None:
            columns = zip(self.classes.codes, self.probabilities.T, strict=True)
            snippets["classes"] = {code: _rounded(column) for code, column in columns}
        return {
            "video": printable(self.source.name),
            "detector": self.role,
            "why": self.why,
            "threshold": round(self.threshold, 6),
            "streamed": self.streamed,
            "seconds": round(float(self.times[-1]), 3),
            "frames": self.frames,
            "first_picture": round(self.origin, 6),  # container time
            "sound": self.sound,
            "notes": list(self.notes),
            "events": [
                {k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(event).items()}
                for event in self.events
            ],
            "snippets": snippets,
        }


def _rounded(values: np.ndarray) -> list[float]:
    return np.round(values.astype(np.float64), 4).tolist()


# ---- one video -----------------------------------------------------------------------------------


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
    snippets done. ``choices`` go to ``FeatureReader``; with several crops their confidences are
    averaged.

    ``on_event("starts", event)`` is called when a run of events begins, as far as it is known then,
    and ``on_event("ends", event)`` for each of its events when it is over, both at most
    ``delay(batch)`` snippets of video later. Memory then: the features of one window of the
    detector, and 8 + C + 2 numbers a snippet.
    """
    if on_event is not None:
        choices = {"batch": STREAM_BATCH} | choices
    reader = FeatureReader(path, encoders, **choices)
    state = StreamState(detectors, threshold, on_event)
    for part in reader:
        state.push(part, reader.sounding)
        progress(len(part.audio_coverage))
    state.finish(reader.reading.sound == "present", reader.reading.sound)
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


def delay(batch: int = STREAM_BATCH) -> int:
    """Snippets of video that can lie between an event and its being told while streaming: the
    batches that are gathered, wait or are encoded, and what a snippet waits for."""
    return (QUEUE + 2) * batch + AHEAD


class StreamState:
    """What is known of a video while its features come in: those that are still needed, all scores,
    and the event that is going on. Without ``on_event`` nothing is scored before the end."""

    def __init__(
        self,
        detectors: DetectorSet,
        threshold: float | None,
        on_event: Callable[[str, Event], None] | None,
    ) -> None:
        self._detectors, self._on_event = detectors, on_event
        self._given = None if threshold is None else float(logit(threshold))
        self._parts: list[Part] = []  # the detector's window, and what is not yet scored
        self._pending = 0  # snippets not yet scored
        self._scored = 0
        self._first: int | None = None  # of the event that is going on
        self.role: Role | None = None
        self.limit = 0.0  # the threshold's anomaly logit
        self.reasons: list[str] = []
        self.times: list[float] = [0.0]
        self.loudness: list[np.ndarray] = []
        self.logits: list[np.ndarray] = []
        self.probabilities: list[np.ndarray | None] = []

    def push(self, part: Part, sounding: bool) -> None:
        """Take the next snippets, and score those that have waited long enough."""
        self._parts.append(part)
        self._pending += len(part.loudness)
        self.times[-1] = float(part.times[0])
        self.times += part.times[1:].tolist()
        self.loudness.append(part.loudness)
        if self._on_event is not None and self._pending > AHEAD:
            state = "present" if sounding else "absent or silent"
            self._advance(self._pending - AHEAD, sounding, state)

    def finish(self, sounding: bool, state: str) -> None:
        """Score what is left."""
        if self._pending:
            self._advance(self._pending, sounding, state)
        if self._first is not None:
            self._tell_end()

    def known_classes(self) -> np.ndarray | None:
        """(T, C) so far; None if one of the detectors in use has no classes."""
        if any(part is None for part in self.probabilities):
            return None
        return np.concatenate(self.probabilities)

    def _advance(self, count: int, sounding: bool, state: str) -> None:
        """Score the oldest ``count`` snippets that are pending."""
        model = self._choose(sounding, state)
        logits, probabilities = _predict(model, join(self._parts), sounding)
        low = len(logits) - self._pending
        self.logits.append(logits[low : low + count])
        kept = None if probabilities is None else probabilities[low : low + count]
        self.probabilities.append(kept)
        self._pending -= count
        # with the next part they are to fill one window, and what is pending is needed
        held = len(logits)
        room = (model.max_snippets or MAX_SNIPPETS) - len(self._parts[-1].loudness)
        while held > room and held - len(self._parts[0].loudness) >= self._pending:
            held -= len(self._parts.pop(0).loudness)
        if self._on_event is not None:
            self._follow(self.logits[-1])

    def _choose(self, sounding: bool, state: str) -> Detector:
        role, why = self._detectors.choose(sounding, state)
        if role != self.role:
            since = f"from {clock(self.times[self._scored])} on " if self._on_event else ""
            self.reasons.append(since + why)
            self.role = role
            self.limit = self._detectors.threshold(role) if self._given is None else self._given
        return self._detectors.detectors[role]

    def _follow(self, logits: np.ndarray) -> None:
        """Tell where events begin and end in what was just scored."""
        for value in logits:
            if value >= self.limit and self._first is None:
                self._first = self._scored
                self._on_event("starts", self._events(self._scored + 1)[0])
            elif value < self.limit and self._first is not None:
                self._tell_end()
                self._first = None
            self._scored += 1

    def _tell_end(self) -> None:
        """A run is over: which events it held is known now."""
        for event in self._events(self._scored):
            self._on_event("ends", event)

    def _events(self, end: int) -> list[Event]:
        """The events of the run that is going on, up to snippet ``end``."""
        logits, probabilities = np.concatenate(self.logits), self.known_classes()
        logits[: self._first] = logits[end:] = -np.inf
        times, classes = np.array(self.times), self._detectors.classes
        return find_events(logits, probabilities, times, -np.finfo(np.float32).max, classes)


def _predict(model: Detector, part: Part, sounding: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """Anomaly logits (T,) and class probabilities (T, C) of features (K, T, D), the mean over
    crops of confidences and probabilities."""
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
