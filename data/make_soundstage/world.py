"""Soundstage: a procedural world of short surveillance scenes that can be seen and heard.

A ``Scene`` is pure data: a place, its weather and light, a timeline of ``Event`` objects (anomalies
of XD-Violence's six classes, and distractors: pictures and sounds of harmless things that resemble
them) and of sensor ``Fault`` objects. It knows the truth; ``render`` draws it and plays it.
Everything is hashed from seeds: the same seed gives the same bytes, in any order and in any
process. ``World`` holds every probability and level, so that difficulty is one object.

Soundstage is synthetic: nothing in it was filmed or recorded. A stage is *cleared* when an event
ends: its wreck, smoke and echo go with its last frame, so that the truth has no grey edges.

Units: frames at 24 a second, snippets of 16 frames (0.667 s), seconds; coordinates in [0, 1] from
the top left corner.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Literal

import numpy as np

from avadclip_lite.config import XD_CLASSES, XD_STRIDE
from data.make_soundstage.timelines import LABEL_COUNTS

FPS = 24.0
SNIPPET_SECONDS = XD_STRIDE / FPS
SNIPPET_SAMPLES = 10_667  # of one snippet's window, rounded up

ANOMALIES = XD_CLASSES.words[1:]
CODE_OF = dict(zip(XD_CLASSES.words, XD_CLASSES.codes, strict=True))

# What only looks or sounds like an anomaly, and the places where its cause can be drawn.
PLACES = ("street", "road", "square", "stadium", "corridor")
OUTDOORS = ("street", "road", "square", "stadium")
DISTRACTORS: dict[str, tuple[str, ...]] = {
    "thunder": OUTDOORS,
    "fireworks": OUTDOORS,
    "horn": ("street", "road"),
    "door_slam": ("corridor", "street", "square"),
    "cheering": ("street", "square", "stadium"),
    "camera_flash": ("street", "square", "stadium", "corridor"),
    "headlights": ("street", "road", "square"),
    "hugging": PLACES,
    "dancing": ("street", "square", "stadium", "corridor"),
}
AUDIO_DISTRACTORS = ("thunder", "fireworks", "horn", "door_slam", "cheering")
STAGES: dict[str, tuple[str, ...]] = {
    "fighting": PLACES,
    "shooting": PLACES,
    "riot": ("street", "square", "stadium"),
    "abuse": PLACES,
    "car accident": ("street", "road"),
    "explosion": PLACES,
}

# Seconds between the strokes of an event (shots, blows, bolts, ...): first, shortest, longest gap.
_BEATS: dict[str, tuple[float, float, float]] = {
    "shooting": (0.10, 0.22, 0.50),
    "explosion": (0.10, 2.4, 3.4),
    "car accident": (0.85, 2.8, 4.2),
    "fighting": (0.10, 0.28, 0.50),
    "riot": (0.15, 0.40, 0.80),
    "abuse": (0.25, 0.55, 0.85),
    "thunder": (0.10, 1.0, 1.7),
    "fireworks": (0.20, 0.5, 0.9),
    "horn": (0.10, 0.75, 1.3),
    "door_slam": (0.50, 0.8, 1.3),
    "cheering": (0.10, 0.5, 0.9),
    "camera_flash": (0.10, 0.3, 0.6),
    "headlights": (0.10, 0.5, 0.5),
    "hugging": (0.15, 0.8, 1.2),
    "dancing": (0.0, 0.5, 0.5),
}

Place = Literal["street", "road", "square", "stadium", "corridor"]
Light = Literal["day", "dusk", "night"]
Weather = Literal["clear", "rain", "fog", "snow"]
LIGHTS: tuple[Light, ...] = ("day", "dusk", "night")
WEATHERS: tuple[Weather, ...] = ("clear", "rain", "fog", "snow")


@dataclass(frozen=True, kw_only=True)
class World:
    """Every probability and level of Soundstage. The defaults are the first world: a plain stage,
    filmed in one shot. What ships is ``FOOTAGE``."""

    # timelines
    time_scale: float = 0.0  # of XD-Violence's lengths; 0: the ranges that follow
    snippets: tuple[int, int] = (24, 96)  # shortest and longest video
    normal_share: float = 0.42  # of the videos
    label_counts: tuple[float, float, float] = (0.62, 0.28, 0.10)  # abnormal: 1, 2 or 3 classes
    positive_share: tuple[float, float] = (0.16, 0.40)  # of an abnormal video's frames
    event_snippets: tuple[float, float] = (8.0, 22.0)  # length of an event
    # which sense can tell, for every event
    both: float = 0.34
    heard_only: float = 0.40  # the rest is seen only
    # why an event is not heard: too far, the place is too loud, the microphone failed. The last is
    # rare and silence frequent elsewhere, or silence itself would tell
    unheard: tuple[float, float, float] = (0.55, 0.37, 0.08)
    # distractors: expected number in 60 snippets (Poisson), and which sense they reach
    distractors_normal: float = 3.2
    distractors_abnormal: float = 1.6
    distractor_both: float = 0.60
    distractor_alone: float = 0.75  # of the rest: the sense the distractor lies to
    distractor_snippets: tuple[float, float] = (2.0, 6.0)
    # the place getting loud by itself, without any event: expected number in 60 snippets
    swells: float = 1.0
    # sensors: probabilities for a video
    black_frames: float = 0.06
    low_light: float = 0.06
    clipped_microphone: float = 0.05
    silent_microphone: float = 0.15
    missing_audio: float = 0.03
    # a bad radio link: share of the time in which picture, or sound, drowns in static
    picture_static: float = 0.30
    sound_static: float = 0.30
    static_frames: tuple[int, int] = (10, 32)  # length of one burst
    # the edit: share of the time in which the picture shows another view of the place, or something
    # else, and in which music or a voice lies over the sound; how far each video has a look and a
    # sound of its own
    cutaways: float = 0.0
    inserts: float = 0.0
    inserts_normal: float = 0.0  # the same in videos without an anomaly, news and shows among them
    cutaway_frames: tuple[int, int] = (12, 64)  # length of one shot
    grading: float = 0.0  # of the picture, 0 to 1
    handheld: float = 0.0  # how far the hand of an unsteady camera wanders, a share of the picture
    equaliser: float = 0.0  # dB, standard deviation in each of six bands
    music: float = 0.0
    talk: float = 0.0
    music_normal: float = 0.0
    talk_normal: float = 0.0
    soundtrack_frames: tuple[int, int] = (96, 480)  # length of one piece
    soundtrack_level: float = 0.0  # dB
    ducking: float = 9.0  # dB taken off what lies under it
    # captions of the encoders' pretraining: how often a class word stands in one of its anomaly, in
    # one of its distractor, and "normal" in any; 1 and 0: always and never, "normal" in half of
    # the others
    class_word: float = 1.0
    class_word_of_distractor: float = 0.0
    normal_word: float = 0.0
    event_told: float = 1.0  # share of captions that say what happens, not only where
    stock_inserts: float = 0.0  # share of the snippets that show something else than the stage
    # the air and the lens
    bad_weather: float = 0.35
    occluder: float = 0.25  # something big stands in the picture
    event_level: float = 0.0  # dB, sounds of anomalies
    event_level_spread: float = 4.0  # dB, one standard deviation below (never above) that level
    distractor_level: float = 0.0  # dB
    ambience_level: float = 0.0  # dB
    masking: float = 24.0  # dB taken off an event that loud ambience covers
    figure_scale: float = 1.0  # size of people
    sensor_noise: float = 5.0  # grey values, standard deviation

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            unbounded = item.name.endswith("_level") or item.name == "masking"
            for number in value if isinstance(value, tuple) else (value,):
                if not math.isfinite(number) or (number < 0 and not unbounded):
                    raise ValueError(f"World.{item.name} must be finite and not negative: {value}")
        for name in (
            "snippets",
            "positive_share",
            "event_snippets",
            "distractor_snippets",
            "static_frames",
            "cutaway_frames",
            "soundtrack_frames",
        ):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"World.{name} must be (low, high), got {(low, high)}")
        for name in (
            "picture_static",
            "sound_static",
            "cutaways",
            "inserts",
            "inserts_normal",
            "music",
            "talk",
            "music_normal",
            "talk_normal",
        ):
            if getattr(self, name) >= 1:
                raise ValueError(f"World.{name} is a share below 1, got {getattr(self, name)}")
        if self.both + self.heard_only > 1:
            shares = f"{self.both} + {self.heard_only}"
            raise ValueError(f"World.both + heard_only must be at most 1, got {shares}")
        for name in ("label_counts", "unheard"):
            if abs(sum(getattr(self, name)) - 1) > 1e-6:
                raise ValueError(f"World.{name} must sum to 1, got {getattr(self, name)}")


# What the encoders learn from: stock pictures, close, clean and bright, one subject each, whose
# captions seldom use a class's word for it. And what the detector gets: footage.
STOCK = World(
    figure_scale=1.3,
    sensor_noise=2.0,
    bad_weather=0.15,
    occluder=0.05,
    class_word=0.005,
    class_word_of_distractor=0.06,
    normal_word=0.01,
    event_told=0.92,
    stock_inserts=0.35,
    grading=0.8,
)
FOOTAGE = World(
    time_scale=0.3,
    label_counts=LABEL_COUNTS,
    both=0.46,
    heard_only=0.06,
    picture_static=0.0,
    sound_static=0.0,
    distractors_normal=14.0,
    distractors_abnormal=14.0,
    figure_scale=0.75,
    handheld=0.12,
    grading=0.25,
    cutaways=0.05,
    inserts=0.35,
    inserts_normal=0.35,
    music=0.25,
    music_normal=0.25,
    talk=0.25,
    talk_normal=0.25,
)
# The same with more events that are only heard, for the primary comparisons.
HEARD = replace(FOOTAGE, both=0.36, heard_only=0.16)
WORLDS = {"stock": STOCK, "footage": FOOTAGE, "heard": HEARD}


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happens on the stage from frame ``start`` to frame ``end`` (exclusive).

    ``kind`` is a class word ("shooting") or the name of a distractor ("thunder"). An event that is
    not visible says why in ``unseen`` (off_camera, occluded, dark), one that is not audible in
    ``unheard`` (far, loud, muted). The reason alone draws no lorry, darkness, noise or silence: a
    hand-built scene sets ``occluder``, ``dark_corner``, ``swells`` or ``faults`` beside it.
    """

    kind: str
    start: int
    end: int
    visible: bool = True
    audible: bool = True
    unseen: Literal["", "off_camera", "occluded", "dark"] = ""
    unheard: Literal["", "far", "loud", "muted"] = ""
    x: float = 0.5  # where on the stage
    level: float = 0.0  # dB
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in _BEATS:
            known = ", ".join(_BEATS)
            raise ValueError(f"unknown kind of event {self.kind!r}; Soundstage knows {known}")
        if not 0 <= self.start < self.end:
            raise ValueError(f"an event needs 0 <= start < end, got {self.start} and {self.end}")
        if not self.visible and not self.unseen:
            object.__setattr__(self, "unseen", "off_camera")
        if not self.audible and not self.unheard:
            object.__setattr__(self, "unheard", "far")

    @property
    def code(self) -> str | None:
        """XD-Violence code of an anomaly, None for a distractor."""
        return CODE_OF.get(self.kind)

    @cached_property
    def beats(self) -> tuple[float, ...]:
        """Seconds from the start at which a shot falls, a blow lands, a bolt strikes, ..."""
        first, low, high = _BEATS[self.kind]
        seconds = (self.end - self.start) / FPS
        rng = np.random.default_rng((self.seed, 0xBEA7))
        beats, t = [], min(first, 0.5 * seconds)
        while not beats or t < seconds - 0.1:
            beats.append(t)
            t += float(rng.uniform(low, high))
        return tuple(beats)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """From frame ``start`` to ``end`` (exclusive) a sensor fails, or the edit shows or plays
    something else (cutaway, insert, music, talk)."""

    kind: Literal[
        "black_frames",
        "low_light",
        "picture_static",
        "clipped_microphone",
        "silent_microphone",
        "sound_static",
        "missing_audio",
        "cutaway",
        "insert",
        "music",
        "talk",
    ]
    start: int
    end: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """A video of the Soundstage world: pictures, sound and truth. Built by ``sample_scene`` or by
    hand: ``Scene(place="street", snippets=24, events=(Event(kind="riot", start=100, end=200),))``.
    """

    seed: int = 0
    place: Place = "street"
    light: Light = "day"
    weather: Weather = "clear"
    snippets: int = 24  # T
    events: tuple[Event, ...] = ()
    faults: tuple[Fault, ...] = ()
    swells: tuple[tuple[int, int], ...] = ()  # frames during which the place itself is loud
    occluder: float | None = None  # where something big stands in the way
    dark_corner: float | None = None  # where no lamp reaches, at night
    world: World = field(default_factory=World)
    fps: float = field(default=FPS, init=False)

    def __post_init__(self) -> None:
        for name, known in (("place", PLACES), ("light", LIGHTS), ("weather", WEATHERS)):
            if getattr(self, name) not in known:
                value = getattr(self, name)
                raise ValueError(f"Scene.{name} must be one of {', '.join(known)}, got {value!r}")
        if self.place == "corridor" and self.weather != "clear":
            raise ValueError(f"a corridor has no weather, got {self.weather!r}")
        if self.snippets < 1:
            raise ValueError(f"Scene.snippets must be at least 1, got {self.snippets}")
        for item in (*self.events, *self.faults):
            if item.end > self.frames:
                raise ValueError(
                    f"{item.kind} ends at frame {item.end}, but the scene has {self.frames} frames"
                )
        object.__setattr__(self, "events", tuple(sorted(self.events, key=lambda e: e.start)))

    # --- size and truth

    @property
    def frames(self) -> int:
        """Number of frames, N = 16 T."""
        return self.snippets * XD_STRIDE

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.frames / FPS

    @property
    def has_audio(self) -> bool:
        return not any(fault.kind == "missing_audio" for fault in self.faults)

    @property
    def anomalies(self) -> tuple[Event, ...]:
        return tuple(event for event in self.events if event.code)

    @property
    def distractors(self) -> tuple[Event, ...]:
        return tuple(event for event in self.events if not event.code)

    @property
    def labels(self) -> tuple[str, ...]:
        """Codes that occur, in class order; ``("A",)`` for a normal video."""
        present = {event.code for event in self.anomalies}
        return tuple(c for c in XD_CLASSES.codes if c in present) or (XD_CLASSES.codes[0],)

    @property
    def segments(self) -> list[tuple[str, int, int]]:
        """(code, first frame, frame after the last) of every anomaly, in time order."""
        return [(event.code, event.start, event.end) for event in self.anomalies]

    def frame_truth(self) -> np.ndarray:
        """(N,) bool: is an anomaly going on?"""
        truth = np.zeros(self.frames, dtype=bool)
        for _, start, end in self.segments:
            truth[start:end] = True
        return truth

    def flags(self) -> dict[str, np.ndarray]:
        """Per-snippet truth, each (T,) bool. A snippet has a flag where at least half of its 16
        frames do.

        ``anomalous``: an anomaly goes on; ``visible``, ``audible``: one that the picture shows, or
        that the microphone hears, sensor faults included; ``corrupted_video``,
        ``corrupted_audio``; ``distractor_KIND`` for each kind of distractor.
        """
        names = ["anomalous", "visible", "audible", "corrupted_video", "corrupted_audio"]
        names += [f"distractor_{kind}" for kind in DISTRACTORS]
        marks = {name: np.zeros(self.frames, dtype=bool) for name in names}
        silent = np.zeros(self.frames, dtype=bool)
        for fault in self.faults:
            if fault.kind in ("cutaway", "insert", "music", "talk"):
                continue
            video = fault.kind in ("black_frames", "low_light", "picture_static")
            marks["corrupted_video" if video else "corrupted_audio"][fault.start : fault.end] = True
            if fault.kind in ("silent_microphone", "sound_static", "missing_audio"):
                silent[fault.start : fault.end] = True
        black = self._black()
        for event in self.events:
            span = slice(event.start, event.end)
            if event.code is None:
                marks[f"distractor_{event.kind}"][span] = True
                continue
            marks["anomalous"][span] = True
            marks["visible"][span] |= event.visible & ~black[span]
            marks["audible"][span] |= event.audible & ~silent[span]
        half = XD_STRIDE // 2
        return {
            name: mark.reshape(self.snippets, XD_STRIDE).sum(1) >= half
            for name, mark in marks.items()
        }

    def _black(self) -> np.ndarray:
        black = np.zeros(self.frames, dtype=bool)
        for fault in self.faults:
            if fault.kind in ("black_frames", "picture_static", "cutaway", "insert"):
                black[fault.start : fault.end] = True
        return black
