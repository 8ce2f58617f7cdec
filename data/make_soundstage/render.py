"""A scene drawn and played: ``frame`` and ``wave``.

A frame is drawn twice as large as asked (PIL, no anti-aliasing of its own), halved, lit and noised
in numpy:

    lit = albedo * (light + glow * (1 - light))
    picture = lit + (1 - exp(-glow)) * (1 - lit)

``albedo`` is the drawing by daylight, ``light`` the place's lamps and sky, ``glow`` whatever emits
(windows, headlights, muzzle flashes, fire): strong in the dark, pale by day. Everything that moves
is a function of the frame's index alone, so frames render in any order.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache

import numpy as np

from avadclip_lite.config import SAMPLE_RATE
from data.make_soundstage import sounds
from data.make_soundstage.captions import CaptionedSnippet
from data.make_soundstage.figures import TAU, Canvas, table
from data.make_soundstage.inserts import insert, look
from data.make_soundstage.painters import PAINTERS, Cue
from data.make_soundstage.places import (
    LAYOUTS,
    OVERSAMPLE,
    add_glows,
    background,
    camera_of,
    occlude,
    passers_by,
    precipitation,
)
from data.make_soundstage.world import FPS, SNIPPET_SAMPLES, SNIPPET_SECONDS, Scene


def frame(scene: Scene, t: float, size: int = 64) -> np.ndarray:
    """The video frame shown at ``t`` seconds, (size, size, 3) uint8.

    Raises ``ValueError`` outside [0, duration) and for a size below 8 pixels.
    """
    index = math.floor(t * FPS + 1e-6)
    if not 0 <= index < scene.frames:
        raise ValueError(f"t must lie in [0, {scene.duration:.3f}) s, got {t}")
    return _draw(scene, index, size)


def wave(scene: Scene, start_s: float = 0.0, end_s: float | None = None) -> np.ndarray | None:
    """Sound from ``start_s`` to ``end_s`` (s), (samples,) float32, 16 kHz mono; None if the audio
    track is missing.

    Any window equals that slice of the whole. The last waveforms are kept, so that cutting a video
    into snippets synthesises it once.
    """
    if not scene.has_audio:
        return None
    end_s = scene.duration if end_s is None else end_s
    if not 0 <= start_s <= end_s <= scene.duration + 1e-6:
        raise ValueError(
            f"need 0 <= start_s <= end_s <= {scene.duration:.3f} s, got {start_s} and {end_s}"
        )
    whole = _whole_wave(scene)
    return whole[round(start_s * SAMPLE_RATE) : round(end_s * SAMPLE_RATE)].copy()


@lru_cache(maxsize=3)  # a minute of sound is 4 MB
def _whole_wave(scene: Scene) -> np.ndarray:
    return sounds.mix(scene)


def middle_frame(snippet: CaptionedSnippet, size: int = 64) -> np.ndarray:
    """The frame in the middle of a captioned snippet, (size, size, 3) uint8."""
    return frame(snippet.scene, snippet.start + SNIPPET_SECONDS / 2, size)


def window(snippet: CaptionedSnippet) -> np.ndarray:
    """The sound of a captioned snippet, (10667,) float32 at 16 kHz."""
    start = round(snippet.start * SAMPLE_RATE)
    return _whole_wave(snippet.scene)[start : start + SNIPPET_SAMPLES].copy()


@lru_cache(maxsize=6)
def _grain(size: int) -> np.ndarray:
    """Unit noise, (2 S, 2 S, 3), from which every frame's grain is cut."""
    rng = np.random.default_rng(0x6A1)
    return rng.standard_normal((2 * size, 2 * size, 3), dtype=np.float32)


@lru_cache(maxsize=6)
def _other_view(scene: Scene) -> Scene:
    """What a cutaway shows: the place from elsewhere, where nothing happens."""
    seed = (scene.seed ^ 0x7C07A) + 1
    return replace(scene, seed=seed, events=(), faults=(), occluder=None, dark_corner=None)


@lru_cache(maxsize=6)
def _steady(scene: Scene) -> Scene:
    """The scene on a tripod, before its look."""
    return replace(scene, world=replace(scene.world, handheld=0.0, grading=0.0))


def _unsteadiness(scene: Scene) -> float:
    """How far the hand wanders, a share of the picture; a third of the cameras stand still."""
    return scene.world.handheld * max(0.0, 1.5 * table(scene.seed ^ 0x4A2D, 1, 1)[0][0] - 0.5)


def _wander(seed: int, t: float) -> tuple[float, float]:
    """Where a hand holds the camera at ``t`` seconds, across and down, in [-1, 1]."""
    slow, quick = ((0.23, 0.61), (1.1, 1.7))
    across, down = (
        0.6 * math.sin(TAU * (slow[k] * t + a)) + 0.4 * math.sin(TAU * (quick[k] * t + b))
        for k, (a, b) in enumerate(table(seed ^ 0x4A2E, 2, 2))
    )
    return across, down


def _draw(scene: Scene, index: int, size: int) -> np.ndarray:
    """Frame number ``index`` of ``scene``, (size, size, 3) uint8."""
    if size < 8:
        raise ValueError(f"size must be at least 8 pixels, got {size}")
    state = (scene.seed * 0x9E3779B1 + index * 0x85EBCA77) & 0xFFFFFFFF
    state = ((state ^ (state >> 15)) * 0x2C1B3C6D) & 0xFFFFFFFF
    corner = (state % size, (state >> 12) % size)
    grain = _grain(size)[corner[0] : corner[0] + size, corner[1] : corner[1] + size]
    faults = {f.kind for f in scene.faults if f.start <= index < f.end}
    if "black_frames" in faults:
        return np.clip(4 + 2 * grain, 0, 255).astype(np.uint8)
    if scene.world.handheld and (margin := round(_unsteadiness(scene) * size)):
        # the hand wanders over a picture that is drawn a little larger
        x, y = (round(margin * (1 + v)) for v in _wander(scene.seed, index / scene.fps))
        whole = _draw(_steady(scene), index, size + 2 * margin)
        whole = whole.astype(np.float32) * np.float32(1 / 255)
        return _finish(scene, whole[y : y + size, x : x + size])
    if "insert" in faults:
        start = max(f.start for f in scene.faults if f.kind == "insert" and f.start <= index)
        return _finish(scene, insert(scene.seed + start, (index - start) / FPS, size))
    source, scene = scene, _other_view(scene) if "cutaway" in faults else scene

    back = background(scene, size)
    place = LAYOUTS[scene.place]
    t = index / scene.fps
    c = Canvas(back.image.copy(), camera_of(scene))
    passers_by(c, scene, place, t)
    hidden, shown, shake = [], [], 0.0
    for event in scene.events:
        if not event.start <= index < event.end:
            continue
        if not event.visible and event.unseen == "off_camera":
            continue
        behind = event.unseen == "occluded"
        h = place.figure * scene.world.figure_scale * (1.0 if event.visible else 0.68)
        cue = Cue(
            event,
            (index - event.start) / scene.fps,
            (event.end - index) / scene.fps,
            place,
            h,
            scene.light == "night",
            not behind,
        )
        (hidden if behind else shown).append(cue)
        if event.visible and event.kind in ("explosion", "car accident"):
            k, since = cue.last()
            if k >= 0:
                shake += max(0.0, 1 - since / 0.5) * (0.03 if event.kind == "explosion" else 0.015)
    for cue in hidden:
        PAINTERS[cue.event.kind](c, cue)
    if scene.occluder is not None:
        occlude(c, scene, place)
    for cue in shown:
        PAINTERS[cue.event.kind](c, cue)
    if scene.weather in ("rain", "snow"):
        precipitation(c, scene, t)

    albedo = np.asarray(c.image.reduce(OVERSAMPLE), dtype=np.float32) * np.float32(1 / 255)
    light, glow = back.light, back.glow
    if c.glows:
        extra = np.zeros_like(glow)
        add_glows(extra, c.glows, size)
        light = light + extra * np.clip(1 - light, 0.1, 1)
        glow = glow + extra
    if c.lightning:
        light = light + np.array((0.8, 0.85, 1.0), dtype=np.float32) * np.float32(c.lightning)
    out = albedo * light
    if back.fog is not None:
        out += (back.fog_colour - out) * back.fog
    out += (1 - np.exp(-glow)) * np.clip(1.05 - out, 0, 1)
    noise = scene.world.sensor_noise / 255
    if "low_light" in faults:
        out *= np.float32(0.16)
        noise = max(noise, 0.045)
    out += grain * np.float32(noise)
    if "picture_static" in faults:  # little of the picture is left under the snow
        snow = grain.mean(axis=-1, keepdims=True)
        out = np.float32(0.12) * out + np.float32(0.42) + np.float32(0.3) * snow
    if shake:
        step = max(1, round(shake * size))
        rows = np.arange(size) + (step if index % 2 else -step)
        columns = np.arange(size) + (-step if index % 3 else step)
        out = out[rows.clip(0, size - 1)][:, columns.clip(0, size - 1)]
    if scene.seed % 2:  # half of the cameras look from the other side
        out = out[:, ::-1]
    return _finish(source, out)


def _finish(scene: Scene, picture: np.ndarray) -> np.ndarray:
    """The look of the whole video over a picture in [0, 1] -> uint8."""
    if scene.world.grading:
        picture = look(picture, scene.seed, scene.world.grading)
    return (np.clip(picture, 0, 1) * np.float32(255)).astype(np.uint8)
