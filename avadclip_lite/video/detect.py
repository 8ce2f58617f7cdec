"""Detectors applied to video files: confidence, classes and events, whole or streamed.

An *event* is a run of snippets whose confidence reaches the threshold: the one saved with the
detector by ``alarms``, unless another is given. Where the leading anomaly class of the alignment
branch, averaged over ``SMOOTH`` snippets to each side, changes within a run, one event ends and the
next begins. An event is named after the class with the largest share, weighted by confidence;
neighbours of one name are one event.

While streaming, a snippet is scored with what came before it in the detector's window and at least
``AHEAD`` snippets after it, in place of the fixed chunks of the whole video, so scores differ a
little; what is held is those snippets' features and every snippet's scores, whatever the length.

Shape letters: T snippets, K crops, D feature width, C classes (0 is normal).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from avadclip_lite import train
from avadclip_lite.compare import release as released
from avadclip_lite.config import XD_CLASSES, ClassSet, Role
from avadclip_lite.dataset import chunks
from avadclip_lite.encoders import Encoders
from avadclip_lite.model import Detector
from avadclip_lite.video.extract import QUEUE, FeatureReader, Part, gather
from avadclip_lite.video.thresholds import read_threshold, runs_above

__all__ = [
    "DEFAULT_THRESHOLD",
    "Event",
    "Panel",
    "Scores",
    "clock",
    "delay",
    "detect",
    "find_events",
    "score_video",
    "stream_video",
]

DEFAULT_THRESHOLD = 0.5  # of a detector with which none was saved
SMOOTH = 2  # snippets; a class that leads for a moment does not cut an event in two
CHUNKS = 16  # chunks of a long video in one forward pass
AHEAD = 8  # snippets that a streamed snippet waits for
STREAM_BATCH = 8  # pictures encoded at a time while streaming; fewer wait, the delay is shorter


# ---- detectors -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Panel:
    """The detectors at hand, by role, all for the same features and classes."""

    detectors: dict[Role, Detector]
    thresholds: dict[Role, float | None]
    classes: ClassSet
    encoder: str

    @classmethod
    def load(cls, paths: Sequence[str | Path], device: str = "cpu") -> Panel:
        """From folders that ``train`` wrote, folders of such folders, or the release's checkpoint
        files.

        Raises ``FileNotFoundError`` for a path without a detector, and ``ValueError`` for two of
        one role or for detectors that do not belong together.
        """
        found: dict[Role, tuple[Path, Detector, float | None, ClassSet, str]] = {}
        for path in map(Path, paths):
            if path.is_dir() and not (path / train.CONFIG).is_file():
                runs = sorted(inside.parent for inside in path.glob(f"*/{train.CONFIG}"))
            else:
                runs = [path]
            if not runs or not runs[0].exists():
                raise FileNotFoundError(f"there is no trained detector at {path}; see `train`")
            for run in runs:
                detector, classes, encoder = _load_run(run, device)
                role = detector.settings.model.role
                if role in found:
                    raise ValueError(f"{found[role][0]} and {run} are both {role} detectors")
                threshold = read_threshold(run) if run.is_dir() else None
                found[role] = (run, detector, threshold, classes, encoder)
        if not found:
            raise FileNotFoundError("no detector was given; name at least one --model")
        (first, detector, _, classes, encoder), *others = found.values()
        for run, other, _, their_classes, their_encoder in others:
            same = (their_classes, their_encoder, other.settings.model.dim)
            if same != (classes, encoder, detector.settings.model.dim):
                raise ValueError(
                    f"{first} and {run} were trained on different features or classes; "
                    "score with one of them"
                )
        return cls(
            detectors={role: entry[1] for role, entry in found.items()},
            thresholds={role: entry[2] for role, entry in found.items()},
            classes=classes,
            encoder=encoder,
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
        """The threshold saved with a detector, else ``DEFAULT_THRESHOLD``."""
        saved = self.thresholds[role]
        return DEFAULT_THRESHOLD if saved is None else saved


_NAMES = {
    "audio_visual": "audio-visual detector",
    "vision": "vision-only detector",
    "audio": "audio-only detector",
}


def _load_run(run: Path, device: str) -> tuple[Detector, ClassSet, str]:
    """A detector, its classes and the encoders that its features come from."""
    if run.is_file():
        try:
            detector = released.load_teacher(run)
        except ValueError:
            detector = released.load_student(run)
        return detector.to(device), XD_CLASSES, "clip"
    detector = train.load(run, device=device)
    about = json.loads((run / train.CONFIG).read_text(encoding="utf-8"))
    kind = about["classes"]
    classes = ClassSet(name=kind["name"], codes=tuple(kind["codes"]), words=tuple(kind["words"]))
    return detector, classes, about["text"]["name"]


@torch.no_grad()
def detect(
    model: Detector, video: np.ndarray, audio: np.ndarray | None, heard: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Confidence (T,) and class probabilities (T, C) of a video in full length.

    ``video (T, D)``, ``audio (T, D)`` or None, ``heard (T,)`` above 0 where there is sound. As in
    evaluation, a long video is cut into chunks of ``max_snippets``, each an own forward pass.
    """
    size = model.settings.model.max_snippets
    device = next(model.parameters()).device
    if audio is None:
        audio, heard = np.zeros_like(video), np.zeros(len(video))
    seen, lengths = chunks(video, size)
    sound, _ = chunks(audio, size)
    mask, _ = chunks(heard[:, None], size)
    longest = int(lengths.max())
    parts = []
    for at in range(0, len(lengths), CHUNKS):
        rows = slice(at, at + CHUNKS)
        output = model(
            torch.from_numpy(seen[rows, :longest]).to(device),
            torch.from_numpy(sound[rows, :longest]).to(device),
            torch.from_numpy(lengths[rows]).to(device),
            torch.from_numpy(mask[rows, :longest, 0] > 0).to(device),
        )
        valid = torch.arange(longest) < torch.from_numpy(lengths[rows])[:, None]
        confidence = output.confidence.float().cpu()[valid]
        classes = output.class_probabilities.float().cpu()[valid]
        parts.append((confidence.numpy(), classes.numpy()))
    confidence, classes = zip(*parts, strict=True)
    return np.concatenate(confidence), np.concatenate(classes)


# ---- events --------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Event:
    """A run of snippets that reach the threshold."""

    code: str
    name: str  # the class in words
    start: float  # seconds from the first picture
    end: float
    score: float  # highest confidence
    share: float  # of the named class among the anomaly classes
    peak: float  # seconds, middle of the highest snippet
    first_snippet: int
    end_snippet: int  # exclusive


def find_events(
    confidence: np.ndarray,
    probabilities: np.ndarray,
    times: np.ndarray,
    threshold: float,
    classes: ClassSet,
) -> list[Event]:
    """The events in ``confidence (T,)`` and ``probabilities (T, C)``; ``times (T + 1,)``."""
    event = partial(_event, confidence, probabilities, times, classes)
    return [
        one
        for first, end in zip(*runs_above(confidence, threshold), strict=True)
        for one in _joined(event, _split(probabilities, int(first), int(end)))
    ]


def _joined(event: Callable[[int, int], Event], pieces: list[tuple[int, int]]) -> list[Event]:
    """The events of a run's pieces. Neighbours that get the same name, although another class led
    for a while, are one event."""
    found: list[Event] = []
    for start, stop in pieces:
        one = event(start, stop)
        if found and found[-1].code == one.code:
            one = event(found.pop().first_snippet, stop)  # the sum of both leads there, too
        found.append(one)
    return found


def _split(probabilities: np.ndarray, first: int, end: int) -> list[tuple[int, int]]:
    """A run of snippets, cut where the leading anomaly class changes."""
    total = np.cumsum(probabilities[first:end, 1:], axis=0, dtype=np.float64)
    total = np.concatenate([np.zeros_like(total[:1]), total])
    place = np.arange(end - first)
    low, high = np.maximum(place - SMOOTH, 0), np.minimum(place + SMOOTH + 1, end - first)
    leading = ((total[high] - total[low]) / (high - low)[:, None]).argmax(axis=1)
    cuts = [first, *(first + 1 + np.flatnonzero(np.diff(leading))).tolist(), end]
    return list(zip(cuts[:-1], cuts[1:], strict=True))


def _event(
    confidence: np.ndarray,
    probabilities: np.ndarray,
    times: np.ndarray,
    classes: ClassSet,
    first: int,
    end: int,
) -> Event:
    weight = confidence[first:end] @ probabilities[first:end, 1:]
    best = int(weight.argmax())
    top = first + int(confidence[first:end].argmax())
    return Event(
        code=classes.codes[1 + best],
        name=classes.words[1 + best],
        start=float(times[first]),
        end=float(times[end]),
        score=float(confidence[top]),
        share=float(weight[best] / max(weight.sum(), 1e-12)),
        peak=float(times[top] + times[top + 1]) / 2,
        first_snippet=first,
        end_snippet=end,
    )


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What a detector says about a video."""

    source: Path
    classes: ClassSet
    role: str
    why: str  # that role
    threshold: float
    times: np.ndarray  # (T + 1,) seconds from the first picture
    confidence: np.ndarray  # (T,)
    probabilities: np.ndarray  # (T, C)
    loudness: np.ndarray  # (T, LOUDNESS_BINS)
    sound: Literal["present", "absent", "silent", "unreadable"]
    origin: float  # container time of the first picture, seconds
    frames: int
    notes: tuple[str, ...] = field(default=())
    streamed: bool = False

    @property
    def events(self) -> list[Event]:
        return find_events(
            self.confidence, self.probabilities, self.times, self.threshold, self.classes
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON types, times in seconds from the first picture."""
        return {
            "video": self.source.name,
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
            "snippets": {
                "start": np.round(self.times[:-1], 4).tolist(),
                "confidence": _rounded(self.confidence),
                "classes": {
                    code: _rounded(column)
                    for code, column in zip(self.classes.codes, self.probabilities.T, strict=True)
                },
            },
        }


def _rounded(values: np.ndarray) -> list[float]:
    return np.round(values.astype(np.float64), 4).tolist()


# ---- one video -----------------------------------------------------------------------------------


def score_video(
    path: str | Path,
    panel: Panel,
    encoders: Encoders,
    *,
    threshold: float | None = None,
    progress: Callable[[int], None] = lambda snippets: None,
    **choices: Any,
) -> Scores:
    """Extract a video and score it as a whole. ``choices`` go to ``FeatureReader``; with several
    crops their scores are averaged. ``progress`` is told of snippets done."""
    reader = FeatureReader(path, encoders, **choices)
    parts = []
    for part in reader:
        parts.append(part)
        progress(len(part.heard))
    found = gather(reader, parts)
    role, why = panel.choose(found.sound == "present", found.sound)
    confidence, probabilities = _mean_over_crops(
        panel.detectors[role], found.video, found.audio, found.heard
    )
    return _scores(
        reader,
        panel,
        role=role,
        why=why,
        threshold=threshold,
        times=found.times,
        loudness=found.loudness,
        confidence=confidence,
        probabilities=probabilities,
    )


def _mean_over_crops(
    model: Detector, video: np.ndarray, audio: np.ndarray | None, heard: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """``detect`` for each crop of ``video (K, T, D)``, averaged."""
    results = [detect(model, crop, audio, heard) for crop in video]
    confidence, probabilities = (np.mean(kind, axis=0) for kind in zip(*results, strict=True))
    return confidence, probabilities


def _scores(
    reader: FeatureReader,
    panel: Panel,
    *,
    role: Role,
    threshold: float | None,
    **results: Any,
) -> Scores:
    return Scores(
        source=reader.path,
        classes=panel.classes,
        role=role,
        threshold=panel.threshold(role) if threshold is None else threshold,
        sound=reader.sound,
        origin=reader.origin,
        frames=reader.frames,
        notes=reader.notes,
        **results,
    )


def stream_video(
    path: str | Path,
    panel: Panel,
    encoders: Encoders,
    *,
    threshold: float | None = None,
    on_event: Callable[[str, Event], None],
    progress: Callable[[int], None] = lambda snippets: None,
    **choices: Any,
) -> Scores:
    """Score a video while it is being decoded.

    ``on_event("starts", event)`` is called when a run of events begins, as far as it is known then,
    and ``on_event("ends", event)`` for each of its events when it is over, both at most
    ``delay(batch)`` snippets of video later. Memory: the features of one
    window of the detector, and 8 + C + 1 numbers a snippet.
    """
    reader = FeatureReader(path, encoders, **({"batch": STREAM_BATCH} | choices))
    live = _Live(panel, threshold, on_event)
    for part in reader:
        live.push(part, reader.sounding)
        progress(len(part.heard))
    live.finish(reader.sounding)
    return _scores(
        reader,
        panel,
        role=live.role,
        why="; ".join(live.reasons),
        threshold=threshold,
        times=np.array(live.times),
        loudness=np.concatenate(live.loudness),
        confidence=np.concatenate(live.confidence),
        probabilities=np.concatenate(live.probabilities),
        streamed=True,
    )


def delay(batch: int = STREAM_BATCH) -> int:
    """Snippets of video that can lie between an event and its being told while streaming: the
    batches that are gathered, wait or are encoded, and what a snippet waits for."""
    return (QUEUE + 2) * batch + AHEAD


class _Live:
    """The state of a stream: the last features, all scores, and the event that is going on."""

    def __init__(
        self, panel: Panel, threshold: float | None, on_event: Callable[[str, Event], None]
    ) -> None:
        self._panel, self._threshold, self._on_event = panel, threshold, on_event
        self._parts: list[Part] = []  # the detector's window, and what is not yet scored
        self._pending = 0  # snippets not yet scored
        self._first: int | None = None  # of the event that is going on
        self.role: Role | None = None
        self.reasons: list[str] = []
        self.times: list[float] = [0.0]
        self.loudness: list[np.ndarray] = []
        self.confidence: list[np.ndarray] = []
        self.probabilities: list[np.ndarray] = []
        self._scored = 0
        self._limit = DEFAULT_THRESHOLD

    def push(self, part: Part, sounding: bool) -> None:
        self._parts.append(part)
        self._pending += len(part.heard)
        self.times[-1] = float(part.times[0])
        self.times += part.times[1:].tolist()
        self.loudness.append(part.loudness)
        if self._pending > AHEAD:
            self._advance(self._pending - AHEAD, sounding)

    def finish(self, sounding: bool) -> None:
        if self._pending:
            self._advance(self._pending, sounding)
        if self._first is not None:
            self._tell_end()

    def _advance(self, count: int, sounding: bool) -> None:
        """Score the oldest ``count`` snippets that are pending."""
        model = self._choose(sounding)
        video = np.concatenate([part.video for part in self._parts], axis=1)
        heard = np.concatenate([part.heard for part in self._parts])
        audio = None
        if sounding:
            audio = np.concatenate([part.audio for part in self._parts])
        confidence, probabilities = _mean_over_crops(model, video, audio, heard)
        low = len(heard) - self._pending
        self.confidence.append(confidence[low : low + count])
        self.probabilities.append(probabilities[low : low + count])
        self._pending -= count
        # with the next part they are to fill one window, and what is pending is needed
        held, room = len(heard), model.settings.model.max_snippets - len(self._parts[-1].heard)
        while held > room and held - len(self._parts[0].heard) >= self._pending:
            held -= len(self._parts.pop(0).heard)
        self._follow(self.confidence[-1], self._limit)

    def _choose(self, sounding: bool) -> Detector:
        role, why = self._panel.choose(sounding, "present" if sounding else "absent or silent")
        if role != self.role:
            self.reasons.append(f"from {clock(self.times[self._scored])} on {why}")
            self.role = role
            threshold = self._threshold
            self._limit = self._panel.threshold(role) if threshold is None else threshold
        return self._panel.detectors[role]

    def _follow(self, confidence: np.ndarray, threshold: float) -> None:
        """Tell where events begin and end in what was just scored."""
        for value in confidence:
            if value >= threshold and self._first is None:
                self._first = self._scored
                self._on_event("starts", self._events(self._scored + 1)[0])
            elif value < threshold and self._first is not None:
                self._tell_end()
                self._first = None
            self._scored += 1

    def _tell_end(self) -> None:
        """A run is over: which events it held is known now."""
        for event in self._events(self._scored):
            self._on_event("ends", event)

    def _events(self, end: int) -> list[Event]:
        """The events of the run that is going on, up to snippet ``end``."""
        confidence, probabilities = map(np.concatenate, (self.confidence, self.probabilities))
        event = partial(
            _event, confidence, probabilities, np.array(self.times), self._panel.classes
        )
        return _joined(event, _split(probabilities, self._first, end))


def clock(seconds: float) -> str:
    """12.3 -> "00:00:12.3"."""
    tenths = round(seconds * 10)
    minutes, tenths = divmod(tenths, 600)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{tenths // 10:02d}.{tenths % 10}"
