"""Random scenes: what a ``World`` makes of a seed, and what a collection of scenes holds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from avadclip_lite.config import XD_CLASSES, XD_STRIDE
from data.make_soundstage import timelines
from data.make_soundstage.world import (
    ANOMALIES,
    AUDIO_DISTRACTORS,
    DISTRACTORS,
    FPS,
    PLACES,
    STAGES,
    Event,
    Fault,
    Scene,
    World,
)

SCENE_SPACE, SNIPPET_SPACE = 0x5CE4E, 0xCA971  # seeds of one never meet the other's


def choice(rng: np.random.Generator, options: Sequence) -> object:
    return options[int(rng.integers(len(options)))]


def draw_seed(rng: np.random.Generator) -> int:
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
    return int(choice(rng, options)) if len(options) else None


def _length(rng: np.random.Generator, snippets: tuple[float, float], frames: int) -> int:
    """Frames of an event; short ones are more frequent, none exceeds 45 % of the video."""
    low, high = (bound * XD_STRIDE for bound in snippets)
    length = low + (high - low) * float(rng.beta(1.1, 1.7))
    return max(XD_STRIDE, int(min(length, 0.45 * frames)))


def draw_spot(rng: np.random.Generator, occluder: float | None) -> float:
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
    if world.time_scale:
        return _footage(seed, snippets, world, labels)
    rng = np.random.default_rng((SCENE_SPACE, seed))
    low, high = world.snippets
    count = int(rng.integers(low, high + 1))
    kinds = _draw_classes(rng, world)
    if labels is not None:
        kinds = _kinds(labels)
    count = snippets if snippets is not None else count
    frames = count * XD_STRIDE

    stages = [p for p in PLACES if all(p in STAGES[kind] for kind in kinds)]
    if not stages:
        raise ValueError(f"no place of Soundstage can stage {', '.join(kinds)} in one video")
    place = choice(rng, stages)
    light = "day" if place == "corridor" else choice(rng, ("day", "day", "dusk", "night", "night"))
    weather = "clear"
    if place != "corridor" and rng.random() < world.bad_weather:
        weather = choice(rng, ("rain", "fog", "snow"))
    occluder = float(choice(rng, (0.16, 0.84))) if rng.random() < world.occluder else None
    dark_corner = None
    if light == "night" and place != "stadium" and rng.random() < 0.5:
        dark_corner = float(choice(rng, (0.16, 0.84)))
        if dark_corner == occluder:
            dark_corner = 1.0 - dark_corner
    missing_audio = rng.random() < world.missing_audio

    events: list[Event] = []
    faults: list[Fault] = []
    swells: list[tuple[int, int]] = []
    for kind, start, end in _spans(rng, world, kinds, frames):
        event = _senses(rng, world, kind, start, end - start, occluder, dark_corner, missing_audio)
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
        seed=draw_seed(rng),
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


def _kinds(labels: Sequence[str]) -> list[str]:
    """Class words of label codes, without normal."""
    wanted = [XD_CLASSES.index(code) for code in labels]
    return [XD_CLASSES.words[c] for c in wanted if c > 0]


def _footage(seed: int, snippets: int | None, world: World, labels: Sequence[str] | None) -> Scene:
    """A scene with XD-Violence's timeline. Setting, timeline, senses, distractors, sensors and edit
    draw from streams of their own, so that changing one parameter changes nothing else: worlds are
    compared on the same videos."""

    def stream(*number: int) -> np.random.Generator:
        return np.random.default_rng((SCENE_SPACE, seed, *number))

    rng = stream(1)
    kinds = _draw_classes(rng, world) if labels is None else _kinds(labels)
    count = snippets or timelines.draw_snippets(rng, kinds, world.time_scale)
    frames = count * XD_STRIDE
    stages = [p for p in PLACES if all(p in STAGES[kind] for kind in kinds)]
    if not stages:
        raise ValueError(f"no place of Soundstage can stage {', '.join(kinds)} in one video")
    rng = stream(2)
    place = choice(rng, stages)
    light = choice(rng, ("day", "day", "dusk", "night", "night"))
    chances, corner = rng.random(4), rng.integers(3, size=3)
    weather = ("rain", "fog", "snow")[corner[0]] if chances[0] < world.bad_weather else "clear"
    if place == "corridor":
        light, weather = "day", "clear"
    occluder = (0.16, 0.84)[corner[1] % 2] if chances[1] < world.occluder else None
    dark_corner = None
    if light == "night" and place != "stadium" and chances[2] < 0.5:
        dark_corner = (0.16, 0.84)[corner[2] % 2]
        dark_corner = 1.0 - dark_corner if dark_corner == occluder else dark_corner
    missing_audio = chances[3] < world.missing_audio

    events: list[Event] = []
    faults: list[Fault] = []
    swells: list[tuple[int, int]] = []
    spans = timelines.draw_events(stream(3), kinds, frames) if kinds else []
    for k, (kind, start, end) in enumerate(spans):
        rng = stream(4, k)
        event = _senses(rng, world, kind, start, end - start, occluder, dark_corner, missing_audio)
        events.append(event)
        around = (max(0, start - int(rng.integers(4, 20))), min(frames, event.end + 12))
        if event.unheard == "loud":
            swells.append(around)
        elif event.unheard == "muted":
            faults.append(Fault(kind="silent_microphone", start=around[0], end=around[1]))

    rate = world.distractors_abnormal if kinds else world.distractors_normal
    for k in range(int(stream(5).poisson(rate * count / 60))):
        rng, taken = stream(6, k), [(e.start, e.end) for e in events]
        length = _length(rng, world.distractor_snippets, frames)
        start = _free_spot(rng, taken, length, frames, XD_STRIDE // 2)
        if start is not None:
            events.append(_distractor(rng, world, place, light, start, length, occluder))

    rng = stream(7)
    for _ in range(int(rng.poisson(world.swells * count / 60))):
        length = _length(rng, world.event_snippets, frames)
        start = int(rng.integers(0, frames - length + 1))
        if not any(e.code and e.start < start + length and start < e.end for e in events):
            swells.append((start, start + length))
    for kind in ("black_frames", "low_light", "clipped_microphone", "silent_microphone"):
        chance, seconds, where = rng.random(3)
        length = min(int((1 + 7 * seconds) * FPS), frames // 2)
        start = int(where * (frames - length))
        if chance < getattr(world, kind):
            faults.append(Fault(kind=kind, start=start, end=start + length))
    if missing_audio:
        faults.append(Fault(kind="missing_audio", start=0, end=frames))
    edits = (
        ("cutaway", world.cutaways, world.cutaway_frames),
        ("music", world.music if kinds else world.music_normal, world.soundtrack_frames),
        ("talk", world.talk if kinds else world.talk_normal, world.soundtrack_frames),
        ("insert", world.inserts if kinds else world.inserts_normal, world.cutaway_frames),
    )
    for k, (kind, share, length) in enumerate(edits):
        bursts = _bursts(stream(8, k), kind, share, length, frames)
        if kind == "insert":  # whoever cuts the film does not cut away the action
            bursts = [f for f in bursts if all(f.end <= a or f.start >= b for _, a, b in spans)]
        faults.extend(bursts)
    return Scene(
        seed=draw_seed(stream(9)),
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


def _spans(
    rng: np.random.Generator, world: World, kinds: list[str], frames: int
) -> Iterator[tuple[str, int, int]]:
    """(class word, first frame, end frame) of a video's events."""
    spans: list[tuple[str, int, int]] = []
    share = float(rng.uniform(*world.positive_share))
    queue = [kinds[k] for k in rng.permutation(len(kinds))]
    filled = 0
    while queue or (kinds and filled < share * frames):
        kind = queue.pop() if queue else choice(rng, kinds)
        forced = kind not in {kind for kind, _, _ in spans}
        taken = [(a, b) for _, a, b in spans]
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
        spans.append((kind, start, start + length))
        yield spans[-1]


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
    if world.time_scale:
        names, odds = zip(*timelines.CLASS_SHARES.items(), strict=True)
        order = rng.choice(names, len(names), replace=False, p=odds).tolist()
    if normal:
        return []
    kinds: list[str] = []
    for kind in order:
        if any(all(p in STAGES[k] for k in (*kinds, kind)) for p in PLACES):
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
    x, unseen, unheard = draw_spot(rng, occluder), "", ""
    if not visible:
        ways = [("off_camera", x)]
        if kind in ("fighting", "abuse", "shooting"):
            if occluder is not None:
                ways.append(("occluded", occluder))
            if dark_corner is not None and kind != "shooting":
                ways.append(("dark", dark_corner))
        unseen, x = choice(rng, ways)
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
        seed=draw_seed(rng),
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
    kind = choice(rng, tuple(DISTRACTORS))
    drawable = _drawable(kind, place, light)
    if not drawable and kind not in AUDIO_DISTRACTORS:
        options = [k for k in DISTRACTORS if _drawable(k, place, light)]
        kind, drawable = choice(rng, options), True
    visible = audible = True
    if rng.random() >= world.distractor_both:
        own = rng.random() < world.distractor_alone
        audible = (kind in AUDIO_DISTRACTORS) == own
        visible = not audible
    if not drawable:
        visible, audible = False, True
    return Event(
        kind=kind,
        start=start,
        end=start + length,
        visible=visible,
        audible=audible,
        x=draw_spot(rng, occluder),
        level=-abs(float(rng.normal(0, world.event_level_spread))),
        seed=draw_seed(rng),
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
