"""Soundstage: a procedural world of short surveillance scenes that can be seen and heard.

A ``Scene`` is a place, its weather and light, a timeline of ``Event`` objects (anomalies of
XD-Violence's six classes, and distractors: sounds and pictures that lie) and of sensor ``Fault``
objects. It renders any frame at any size and any stretch of sound on request, and it knows the
truth. Everything is hashed from seeds: the same seed gives the same bytes, in any order and in any
process. ``World`` holds every probability and level, so that difficulty is one object.

Soundstage is synthetic: nothing in it was filmed or recorded. A stage is *cleared* when an event
ends: its wreck, smoke and echo go with its last frame, so that the truth has no grey edges.

Units: frames at 24 a second, snippets of 16 frames (0.667 s), seconds; coordinates in [0, 1] from
the top left corner.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property, lru_cache
from typing import Literal

import numpy as np

from avadclip_lite.config import SAMPLE_RATE, XD_CLASSES, XD_STRIDE
from data.make_soundstage import pictures, puppets, sounds

__all__ = [
    "ANOMALIES",
    "DISTRACTORS",
    "FPS",
    "PLACES",
    "Event",
    "Fault",
    "Scene",
    "Snippet",
    "World",
    "caption_snippets",
    "sample_scene",
    "world_statistics",
]

FPS = 24.0
SNIPPET_SECONDS = XD_STRIDE / FPS
SNIPPET_SAMPLES = 10_667  # of one snippet's window, rounded up

ANOMALIES = XD_CLASSES.words[1:]
_CODE_OF = dict(zip(XD_CLASSES.words, XD_CLASSES.codes, strict=True))
_WORD_OF = {code: word for word, code in _CODE_OF.items()}

# What only looks or sounds like an anomaly, and the places where its cause can be drawn.
PLACES = ("street", "road", "square", "stadium", "corridor")
_OUTDOORS = ("street", "road", "square", "stadium")
DISTRACTORS: dict[str, tuple[str, ...]] = {
    "thunder": _OUTDOORS,
    "fireworks": _OUTDOORS,
    "horn": ("street", "road"),
    "door_slam": ("corridor", "street", "square"),
    "cheering": ("street", "square", "stadium"),
    "camera_flash": ("street", "square", "stadium", "corridor"),
    "headlights": ("street", "road", "square"),
    "hugging": PLACES,
    "dancing": ("street", "square", "stadium", "corridor"),
}
_SOUNDS_THAT_LIE = ("thunder", "fireworks", "horn", "door_slam", "cheering")
_STAGES: dict[str, tuple[str, ...]] = {
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
_LIGHTS: tuple[Light, ...] = ("day", "dusk", "night")
_WEATHERS: tuple[Weather, ...] = ("clear", "rain", "fog", "snow")


@dataclass(frozen=True, kw_only=True)
class World:
    """Every probability and level of Soundstage. The defaults are the world that ships."""

    # timelines
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
        ):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"World.{name} must be (low, high), got {(low, high)}")
        if max(self.picture_static, self.sound_static) >= 1:
            raise ValueError("World.picture_static and sound_static are shares below 1")
        if self.both + self.heard_only > 1:
            shares = f"{self.both} + {self.heard_only}"
            raise ValueError(f"World.both + heard_only must be at most 1, got {shares}")
        for name in ("label_counts", "unheard"):
            if abs(sum(getattr(self, name)) - 1) > 1e-6:
                raise ValueError(f"World.{name} must sum to 1, got {getattr(self, name)}")


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
        return _CODE_OF.get(self.kind)

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
    """A sensor that fails from frame ``start`` to ``end`` (exclusive)."""

    kind: Literal[
        "black_frames",
        "low_light",
        "picture_static",
        "clipped_microphone",
        "silent_microphone",
        "sound_static",
        "missing_audio",
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
        for name, known in (("place", PLACES), ("light", _LIGHTS), ("weather", _WEATHERS)):
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
            if fault.kind in ("black_frames", "picture_static"):
                black[fault.start : fault.end] = True
        return black

    # --- pictures and sound

    def frame(self, t: float, size: int = 64) -> np.ndarray:
        """The video frame shown at ``t`` seconds, (size, size, 3) uint8.

        Raises ``ValueError`` outside [0, duration).
        """
        index = math.floor(t * FPS + 1e-6)
        if not 0 <= index < self.frames:
            raise ValueError(f"t must lie in [0, {self.duration:.3f}) s, got {t}")
        return pictures.render(self, index, size)

    def wave(self, start_s: float = 0.0, end_s: float | None = None) -> np.ndarray | None:
        """Sound from ``start_s`` to ``end_s`` (s), (samples,) float32, 16 kHz mono; None if the
        audio track is missing.

        Any window equals that slice of the whole. The last waveforms are kept, so that cutting a
        video into snippets synthesises it once.
        """
        if not self.has_audio:
            return None
        end_s = self.duration if end_s is None else end_s
        if not 0 <= start_s <= end_s <= self.duration + 1e-6:
            raise ValueError(
                f"need 0 <= start_s <= end_s <= {self.duration:.3f} s, got {start_s} and {end_s}"
            )
        full = _full_wave(self)
        return full[round(start_s * SAMPLE_RATE) : round(end_s * SAMPLE_RATE)].copy()

    @cached_property
    def cars(self) -> tuple[tuple[int, float, float, int], ...]:
        """Traffic: (lane, crossings a second, phase in crossings, seed), two cars a lane at most;
        see ``puppets.car_position``."""
        if self.place not in ("street", "road"):
            return ()
        rng = np.random.default_rng((self.seed, 0xCA5))
        count = 2 + (self.place == "road") + int(rng.integers(0, 2))
        speeds, phases = rng.uniform(0.22, 0.40, 2), rng.random(2)
        return tuple(  # cars of one lane keep their distance
            (
                k % 2,
                float(speeds[k % 2]),
                float((phases[k % 2] + 0.4 * (k // 2)) % 1.0),
                int(rng.integers(1 << 30)),
            )
            for k in range(count)
        )

    def car_passes(self) -> list[tuple[float, float]]:
        """(second at which a car is in the middle of the picture, its speed in widths a second)."""
        passes = []
        for _, speed, phase, _ in self.cars:
            period = puppets.CAR_LOOP / speed
            first = (puppets.CAR_MIDDLE / puppets.CAR_LOOP - phase) % 1.0 * period
            count = max(0, math.ceil((self.duration - first) / period))
            passes += [(first + k * period, speed) for k in range(count)]
        return passes

    def describe(self) -> str:
        """The scene in words, one line an event."""
        lines = [
            f"{self.setting()}, {self.snippets} snippets ({self.duration:.1f} s), labels "
            f"{'-'.join(self.labels)}"
        ]
        for event in self.events:
            senses = [
                ("seen", event.visible, event.unseen),
                ("heard", event.audible, event.unheard),
            ]
            told = ", ".join(
                name if there else f"not {name} ({why.replace('_', ' ')})"
                for name, there, why in senses
            )
            what = event.kind.replace("_", " ") + (f" ({event.code})" if event.code else "")
            lines.append(f"  frames {event.start:4d} to {event.end:4d}: {what}: {told}")
        static = [fault for fault in self.faults if fault.kind.endswith("_static")]
        if static:
            lines.append(f"  {len(static)} bursts of static over picture or sound")
        for fault in (f for f in self.faults if f not in static):
            what = fault.kind.replace("_", " ")
            lines.append(f"  frames {fault.start:4d} to {fault.end:4d}: sensor fault: {what}")
        return "\n".join(lines)

    def setting(self) -> str:
        """Place, light and weather in words: "street by night, in the rain"."""
        return f"{self.place}{_light_words(self)}{_weather_words(self)}"


@lru_cache(maxsize=3)  # a minute of sound is 4 MB
def _full_wave(scene: Scene) -> np.ndarray:
    return sounds.mix(scene)


# --- sampling -------------------------------------------------------------------------------

_SCENE_SPACE, _SNIPPET_SPACE = 0x5CE4E, 0xCA971  # seeds of one never meet the other's


def _choice(rng: np.random.Generator, options: Sequence) -> object:
    return options[int(rng.integers(len(options)))]


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(1 << 31))


def _drawable(kind: str, place: str, light: str) -> bool:
    """Can the place show this distractor? Fireworks do not show by day."""
    return place in DISTRACTORS[kind] and not (kind == "fireworks" and light == "day")


def _free_spot(
    rng: np.random.Generator, taken: list[tuple[int, int]], length: int, frames: int, gap: int
) -> int | None:
    """A start for ``length`` frames at least ``gap`` frames away from what is taken."""
    starts = np.ones(max(0, frames - length + 1), dtype=bool)
    for a, b in taken:
        starts[max(0, a - length - gap + 1) : max(0, b + gap)] = False
    options = np.flatnonzero(starts)
    return int(_choice(rng, options)) if len(options) else None


def _length(rng: np.random.Generator, snippets: tuple[float, float], frames: int) -> int:
    """Frames of an event; short ones are more frequent, none exceeds 45 % of the video."""
    low, high = (bound * XD_STRIDE for bound in snippets)
    length = low + (high - low) * float(rng.beta(1.1, 1.7))
    return max(XD_STRIDE, int(min(length, 0.45 * frames)))


def _spot(rng: np.random.Generator, occluder: float | None) -> float:
    """Where on the stage, clear of what stands in the way."""
    for _ in range(20):
        x = float(rng.uniform(0.30, 0.70))
        if occluder is None or abs(x - occluder) > 0.30:
            break
    return x


def sample_scene(
    seed: int,
    *,
    snippets: int | None = None,
    world: World | None = None,
    labels: Sequence[str] | None = None,
) -> Scene:
    """A random scene. ``snippets`` fixes its length (T), ``labels`` the codes that occur
    (``("A",)`` or ``()``: a normal video); otherwise ``world`` decides.

    Raises ``ValueError`` for an unknown code, classes that no single place can stage, or too few
    snippets for them.
    """
    world = world or World()
    rng = np.random.default_rng((_SCENE_SPACE, seed))
    low, high = world.snippets
    count = int(rng.integers(low, high + 1))
    count = snippets if snippets is not None else count
    frames = count * XD_STRIDE
    kinds = _draw_classes(rng, world)
    if labels is not None:
        wanted = [XD_CLASSES.index(code) for code in labels]
        kinds = [XD_CLASSES.words[c] for c in wanted if c > 0]

    stages = [p for p in PLACES if all(p in _STAGES[kind] for kind in kinds)]
    if not stages:
        raise ValueError(f"no place of Soundstage can stage {', '.join(kinds)} in one video")
    place = _choice(rng, stages)
    light = "day" if place == "corridor" else _choice(rng, ("day", "day", "dusk", "night", "night"))
    weather = "clear"
    if place != "corridor" and rng.random() < world.bad_weather:
        weather = _choice(rng, ("rain", "fog", "snow"))
    occluder = float(_choice(rng, (0.16, 0.84))) if rng.random() < world.occluder else None
    dark_corner = None
    if light == "night" and place != "stadium" and rng.random() < 0.5:
        dark_corner = float(_choice(rng, (0.16, 0.84)))
        if dark_corner == occluder:
            dark_corner = 1.0 - dark_corner
    missing_audio = rng.random() < world.missing_audio

    events: list[Event] = []
    faults: list[Fault] = []
    swells: list[tuple[int, int]] = []
    share = float(rng.uniform(*world.positive_share))
    queue = [kinds[k] for k in rng.permutation(len(kinds))]
    filled = 0
    while queue or (kinds and filled < share * frames):
        kind = queue.pop() if queue else _choice(rng, kinds)
        forced = kind not in {event.kind for event in events}
        taken = [(e.start, e.end) for e in events]
        length = _length(rng, world.event_snippets, frames)
        if forced:  # every class must fit, even in a short video
            length = min(length, frames // (2 * len(kinds)))
        if filled + length > (share + 0.08) * frames and not forced:
            break
        start = _free_spot(rng, taken, length, frames, XD_STRIDE // 2)
        while start is None and forced and length > 2:
            length = max(2, length * 2 // 3)
            start = _free_spot(rng, taken, length, frames, 1)
        if start is None:
            break
        filled += length
        event = _senses(rng, world, kind, start, length, occluder, dark_corner, missing_audio)
        events.append(event)
        around = (max(0, start - int(rng.integers(4, 20))), min(frames, event.end + 12))
        if event.unheard == "loud":
            swells.append(around)
        elif event.unheard == "muted":
            faults.append(Fault(kind="silent_microphone", start=around[0], end=around[1]))

    if {event.kind for event in events} != set(kinds):
        raise ValueError(f"{count} snippets are too few for {', '.join(kinds)} in one video")

    rate = world.distractors_abnormal if kinds else world.distractors_normal
    for _ in range(int(rng.poisson(rate * count / 60))):
        taken = [(e.start, e.end) for e in events]
        length = _length(rng, world.distractor_snippets, frames)
        start = _free_spot(rng, taken, length, frames, XD_STRIDE // 2)
        if start is not None:
            events.append(_distractor(rng, world, place, light, start, length, occluder))

    for _ in range(int(rng.poisson(world.swells * count / 60))):
        length = _length(rng, world.event_snippets, frames)
        start = int(rng.integers(0, frames - length + 1))
        if not any(
            e.code and e.audible and e.start < start + length and start < e.end for e in events
        ):
            swells.append((start, start + length))
    for kind in ("black_frames", "low_light", "clipped_microphone", "silent_microphone"):
        fails, seconds = rng.random() < getattr(world, kind), rng.uniform(1.0, 8.0)
        length = min(int(seconds * FPS), frames // 2)
        start = int(rng.integers(0, frames - length + 1))
        if fails:
            faults.append(Fault(kind=kind, start=start, end=start + length))
    if missing_audio:
        faults.append(Fault(kind="missing_audio", start=0, end=frames))
    for kind in ("picture_static", "sound_static"):
        faults.extend(_bursts(rng, kind, getattr(world, kind), world.static_frames, frames))
    return Scene(
        seed=_seed(rng),
        place=place,
        light=light,
        weather=weather,
        snippets=count,
        events=tuple(events),
        faults=tuple(faults),
        swells=tuple(swells),
        occluder=occluder,
        dark_corner=dark_corner,
        world=world,
    )


def _bursts(
    rng: np.random.Generator, kind: str, share: float, length: tuple[int, int], frames: int
) -> list[Fault]:
    """Bursts of a fault that take ``share`` of the frames in the mean, anywhere in a video."""
    bursts, at = [], 0
    gap = sum(length) / 2 * (1 - share) / share if share else math.inf  # mean, frames
    while (at := at + int(min(rng.exponential(gap), frames))) < frames:
        end = min(frames, at + int(rng.integers(length[0], length[1] + 1)))
        bursts.append(Fault(kind=kind, start=at, end=end))
        at = end
    return bursts


def _draw_classes(rng: np.random.Generator, world: World) -> list[str]:
    """Class words of one video: none for a normal one, else classes that share a place."""
    normal = rng.random() < world.normal_share
    count = 1 + int(rng.choice(3, p=world.label_counts))
    order = [ANOMALIES[k] for k in rng.permutation(len(ANOMALIES))]
    if normal:
        return []
    kinds: list[str] = []
    for kind in order:
        if any(all(p in _STAGES[k] for k in (*kinds, kind)) for p in PLACES):
            kinds.append(kind)
        if len(kinds) == count:
            break
    return kinds


def _senses(
    rng: np.random.Generator,
    world: World,
    kind: str,
    start: int,
    length: int,
    occluder: float | None,
    dark_corner: float | None,
    missing_audio: bool,
) -> Event:
    """An anomaly, and which of the two senses can tell it."""
    draw = rng.random()
    visible = draw < world.both or draw >= world.both + world.heard_only
    audible = draw < world.both + world.heard_only
    if missing_audio:  # one sense must be left
        visible, audible = True, False
    x, unseen, unheard = _spot(rng, occluder), "", ""
    if not visible:
        ways = [("off_camera", x)]
        if kind in ("fighting", "abuse", "shooting"):
            if occluder is not None:
                ways.append(("occluded", occluder))
            if dark_corner is not None and kind != "shooting":
                ways.append(("dark", dark_corner))
        unseen, x = _choice(rng, ways)
    if not audible:
        ways = ("far",) if missing_audio else ("far", "loud", "muted")
        unheard = ways[int(rng.choice(len(ways), p=None if missing_audio else world.unheard))]
    return Event(
        kind=kind,
        start=start,
        end=start + length,
        visible=visible,
        audible=audible,
        unseen=unseen,
        unheard=unheard,
        x=x,
        level=-abs(float(rng.normal(0, world.event_level_spread))),
        seed=_seed(rng),
    )


def _distractor(
    rng: np.random.Generator,
    world: World,
    place: str,
    light: str,
    start: int,
    length: int,
    occluder: float | None,
) -> Event:
    """Something harmless. Where a place cannot draw its cause, it is only heard."""
    kind = _choice(rng, tuple(DISTRACTORS))
    drawable = _drawable(kind, place, light)
    if not drawable and kind not in _SOUNDS_THAT_LIE:
        options = [k for k in DISTRACTORS if _drawable(k, place, light)]
        kind, drawable = _choice(rng, options), True
    visible = audible = True
    if rng.random() >= world.distractor_both:
        own = rng.random() < world.distractor_alone
        audible = (kind in _SOUNDS_THAT_LIE) == own
        visible = not audible
    if not drawable:
        visible, audible = False, True
    return Event(
        kind=kind,
        start=start,
        end=start + length,
        visible=visible,
        audible=audible,
        x=_spot(rng, occluder),
        level=-abs(float(rng.normal(0, world.event_level_spread))),
        seed=_seed(rng),
    )


def world_statistics(scenes: Iterable[Scene]) -> dict[str, float | dict[str, float]]:
    """What a collection of scenes holds: shares of videos, frames and events, and counts a video.

    ``positive_frames`` is the share of anomalous frames; ``both``, ``heard_only``, ``seen_only``
    are shares of the anomalies; ``classes`` the share of videos with each code.
    """
    scenes = list(scenes)
    events = [event for scene in scenes for event in scene.anomalies]
    senses = Counter((event.visible, event.audible) for event in events)
    frames = sum(scene.frames for scene in scenes)
    codes = Counter(code for scene in scenes for code in scene.labels)
    kinds = Counter(event.kind for scene in scenes for event in scene.distractors)
    faults = Counter(kind for s in scenes for kind in {fault.kind for fault in s.faults})
    total = max(1, len(events))
    return {
        "videos": len(scenes),
        "snippets": sum(scene.snippets for scene in scenes),
        "normal_videos": codes[XD_CLASSES.codes[0]] / len(scenes),
        "positive_frames": sum(int(scene.frame_truth().sum()) for scene in scenes) / frames,
        "positive_snippets": float(
            np.mean(np.concatenate([s.flags()["anomalous"] for s in scenes]))
        ),
        "events": len(events),
        "both": senses[True, True] / total,
        "heard_only": senses[False, True] / total,
        "seen_only": senses[True, False] / total,
        "event_seconds": float(np.mean([(e.end - e.start) / FPS for e in events] or [0.0])),
        "distractors_per_video": sum(kinds.values()) / len(scenes),
        "distractors": {kind: kinds[kind] / len(scenes) for kind in DISTRACTORS},
        "classes": {code: codes[code] / len(scenes) for code in XD_CLASSES.codes},
        "faulty_videos": {kind: count / len(scenes) for kind, count in sorted(faults.items())},
    }


# --- captioned snippets, for pretraining encoders -----------------------------------------------


def _light_words(scene: Scene) -> str:
    if scene.place == "corridor":
        return ""
    return {"day": " by day", "dusk": " at dusk", "night": " at night"}[scene.light]


def _weather_words(scene: Scene) -> str:
    return {"clear": "", "rain": " in the rain", "fog": " in fog", "snow": " in snow"}[
        scene.weather
    ]


_PREPOSITION = {"corridor": "in a", "stadium": "in a"}

# {at}: "on a street at night in the rain"
_CAPTIONS: dict[str, tuple[str, ...]] = {
    "fighting": (
        "a photo of fighting {at}",
        "two people fighting {at}",
        "fighting {at}",
        "people fighting with fists {at}",
    ),
    "shooting": (
        "a photo of a shooting {at}",
        "a shooting {at}",
        "a man shooting with a gun {at}",
        "shooting {at}",
    ),
    "riot": (
        "a photo of a riot {at}",
        "a riot {at}",
        "an angry crowd in a riot {at}",
        "riot {at}",
    ),
    "abuse": (
        "a photo of abuse {at}",
        "abuse {at}",
        "abuse, a man beating a person on the ground {at}",
        "a person hurt by abuse {at}",
    ),
    "car accident": (
        "a photo of a car accident {at}",
        "a car accident {at}",
        "two cars in a car accident {at}",
        "car accident {at}",
    ),
    "explosion": (
        "a photo of an explosion {at}",
        "an explosion {at}",
        "an explosion with fire and smoke {at}",
        "explosion {at}",
    ),
    "thunder": ("thunder and lightning over a {place}", "a normal storm with lightning {at}"),
    "fireworks": ("fireworks over a {place}", "a normal evening with fireworks {at}"),
    "horn": ("a car honking its horn {at}", "a normal car honking {at}"),
    "door_slam": ("a slamming door {at}", "a normal door closing {at}"),
    "cheering": ("a cheering crowd {at}", "normal happy people cheering {at}"),
    "camera_flash": ("people taking a photo with a flash {at}", "a normal camera flash {at}"),
    "headlights": ("the headlights of a car {at}", "a normal car with bright headlights {at}"),
    "hugging": ("two people hugging {at}", "normal friends hugging {at}"),
    "dancing": ("people dancing {at}", "a normal dance with music {at}"),
}
_EMPTY = {
    "street": ("people walking {at}", "cars driving {at}"),
    "road": ("cars driving {at}", "normal traffic {at}"),
    "square": ("people walking {at}", "normal people {at}"),
    "stadium": ("people playing football {at}", "a normal match {at}"),
    "corridor": ("people walking {at}", "a normal empty corridor"),
}
_NORMAL = ("a normal {there}", "a photo of a normal {there}", "normal", "nothing happens {at}")


def _caption(scene: Scene, kind: str | None, rng: np.random.Generator) -> str:
    """Caption of ``kind`` (None: nothing special) in the setting of ``scene``; now and then without
    the light and the weather, or without the place."""
    there = scene.place
    if rng.random() < 0.7:
        there += _light_words(scene) + _weather_words(scene)
    at = f"{_PREPOSITION.get(scene.place, 'on a')} {there}"
    if rng.random() < 0.12:
        at = ""
    templates = _NORMAL + _EMPTY[scene.place] if kind is None else _CAPTIONS[kind]
    return _choice(rng, templates).format(at=at, there=there, place=scene.place).strip()


@dataclass(frozen=True, kw_only=True, eq=False)
class Snippet:
    """0.667 s of the world with a caption.

    ``caption`` says what the *picture* shows; ``event_caption`` what happens, seen or not (the two
    differ when the event is out of sight). ``cause_visible``: the picture shows what makes the
    sound, so the pair may teach one modality the other; ``audible``: what happens can be heard.
    """

    scene: Scene
    start: float  # s, in the scene
    kind: str | None  # class word, name of a distractor, or None
    caption: str
    event_caption: str

    @property
    def code(self) -> str:
        """XD-Violence code of what happens; "A" for distractors and for nothing special."""
        return _CODE_OF.get(self.kind, XD_CLASSES.codes[0])

    @property
    def cause_visible(self) -> bool:
        return all(event.visible for event in self.scene.events)

    @property
    def audible(self) -> bool:
        return all(event.audible for event in self.scene.events)

    def frame(self, size: int = 64) -> np.ndarray:
        """The frame in the middle, (size, size, 3) uint8."""
        return self.scene.frame(self.start + SNIPPET_SECONDS / 2, size)

    def wave(self) -> np.ndarray:
        """The sound of the window, (10667,) float32 at 16 kHz."""
        full = _full_wave(self.scene)
        start = round(self.start * SAMPLE_RATE)
        return full[start : start + SNIPPET_SAMPLES].copy()


# one turn of the wheel: half anomalies, a good third distractors, the rest nothing special
_WHEEL: tuple[str | None, ...] = (*ANOMALIES, *ANOMALIES, *DISTRACTORS, None, None, None)


def caption_snippets(seed: int, n: int, *, world: World | None = None) -> list[Snippet]:
    """``n`` captioned snippets, balanced over classes, distractors and places, in random order.

    Their seeds live apart from those of ``sample_scene``: no scene is ever drawn from here.
    Four fifths are seen and heard, a tenth each only seen and only heard.
    """
    world = world or World()
    order = np.random.default_rng((_SNIPPET_SPACE, seed)).permutation(n)
    return [_snippet(seed, int(k), world) for k in order]


def _snippet(seed: int, k: int, world: World) -> Snippet:
    rng = np.random.default_rng((_SNIPPET_SPACE, seed, k))
    turn, slot = divmod(k, len(_WHEEL))
    kind = _WHEEL[slot]
    places = PLACES if kind is None else _STAGES.get(kind) or DISTRACTORS[kind]
    place = places[(turn + slot) % len(places)]
    light, weather = "day", "clear"
    if place != "corridor":
        light = _choice(rng, _LIGHTS[1:] if kind == "fireworks" else _LIGHTS)
        if rng.random() < world.bad_weather:
            weather = _choice(rng, ("rain", "fog", "snow"))
    occluder = float(_choice(rng, (0.16, 0.84))) if rng.random() < world.occluder else None
    snippets = int(rng.integers(3, 8))
    frames = snippets * XD_STRIDE
    draw = rng.random()
    events = ()
    if kind is not None:
        event = Event(
            kind=kind,
            start=0,
            end=frames,
            visible=draw >= 0.1,
            audible=draw < 0.9,
            x=_spot(rng, occluder),
            level=-abs(float(rng.normal(0, world.event_level_spread))),
            seed=_seed(rng),
        )
        events = (event,)
    scene = Scene(
        seed=_seed(rng),
        place=place,
        light=light,
        weather=weather,
        snippets=snippets,
        events=events,
        occluder=occluder,
        world=world,
    )
    shown = kind if all(event.visible for event in events) else None
    start = int(rng.integers(0, frames - XD_STRIDE)) / FPS
    wording = _seed(rng)
    return Snippet(
        scene=scene,
        start=start,
        kind=kind,
        caption=_caption(scene, shown, np.random.default_rng(wording)),
        event_caption=_caption(scene, kind, np.random.default_rng(wording)),
    )
