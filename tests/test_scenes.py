"""Soundstage: the same bytes everywhere, truth that agrees with itself, a world within its design.

The oracles are frame-by-frame loops over the events, slices of the whole waveform, other
processes, and the same scene without its event.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from avadclip_lite.config import SAMPLE_RATE, XD_CLASSES, XD_STRIDE
from data.make_soundstage.captions import caption_snippets, describe
from data.make_soundstage.render import frame, middle_frame, wave, window
from data.make_soundstage.sample import sample_scene, world_statistics
from data.make_soundstage.world import (
    ANOMALIES,
    DISTRACTORS,
    FPS,
    SNIPPET_SAMPLES,
    Event,
    Fault,
    Scene,
    World,
)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [sample_scene(seed) for seed in range(200)]


def _stage(kind: str, **changes) -> Scene:
    """A street by day with one event from frame 20 to 110, in 9 snippets."""
    setting = {"seed": 7, "place": "street", "snippets": 9, **changes}
    return Scene(events=(Event(kind=kind, start=20, end=110, seed=5),), **setting)


# --- the same bytes ---------------------------------------------------------------------------

_DIGEST = """
import hashlib
from data.make_soundstage.captions import caption_snippets, describe
from data.make_soundstage.render import frame, middle_frame, wave, window
from data.make_soundstage.sample import sample_scene
digest = hashlib.sha256()
for seed in (3, 4):
    scene = sample_scene(seed, snippets=24)
    digest.update(describe(scene).encode())
    for index in {order}:
        digest.update(frame(scene, index / 24, 32).tobytes())
    if scene.has_audio:
        digest.update(wave(scene, 2.0, 9.0).tobytes())
for snippet in caption_snippets(1, 3):
    digest.update(snippet.caption.encode() + middle_frame(snippet, 32).tobytes())
    digest.update(window(snippet).tobytes())
print(digest.hexdigest())
"""


def test_two_processes_agree_on_every_byte():
    runs = [
        subprocess.run(
            [sys.executable, "-c", _DIGEST.format(order="(0, 100, 250)")],
            env={"PYTHONHASHSEED": hash_seed, "PATH": "", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert runs[0] == runs[1]
    assert len(runs[0].strip()) == 64


def test_frames_do_not_depend_on_the_order_of_asking():
    forward, backward = sample_scene(11), sample_scene(11)
    times = [0.0, 3.3, 7.1, 12.0]
    a = [frame(forward, t) for t in times]
    b = [frame(backward, t) for t in reversed(times)][::-1]
    assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    assert not np.array_equal(frame(sample_scene(12), 0.0), a[0])


def test_frame_is_constant_within_a_video_frame_and_any_size():
    scene = sample_scene(5)
    index = 31
    inside = frame(scene, (index + 0.7) / FPS)
    assert np.array_equal(inside, frame(scene, index / FPS))
    for size in (16, 64, 150):
        picture = frame(scene, 1.0, size)
        assert picture.shape == (size, size, 3) and picture.dtype == np.uint8
    with pytest.raises(ValueError, match="t must lie in"):
        frame(scene, scene.duration)


def test_windows_of_sound_are_slices_of_the_whole():
    scene = next(s for s in map(sample_scene, range(20)) if s.has_audio)
    whole = wave(scene)
    assert whole.shape == (round(scene.duration * SAMPLE_RATE),) and whole.dtype == np.float32
    fresh = sample_scene(scene_seed(scene))
    for start, end in ((0.0, 2 / 3), (1.2345, 6.7), (scene.duration - 1, scene.duration)):
        window = wave(fresh, start, end)
        assert np.array_equal(window, whole[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)])
    with pytest.raises(ValueError, match="start_s"):
        wave(scene, 5.0, 4.0)


def scene_seed(scene: Scene) -> int:
    """The argument of ``sample_scene`` that drew ``scene``."""
    return next(k for k in range(20) if sample_scene(k).seed == scene.seed)


def test_sound_stays_below_one_unless_the_microphone_clips():
    loud = _stage("explosion")
    assert 0.3 < np.abs(wave(loud)).max() < 1.0
    fault = Fault(kind="clipped_microphone", start=0, end=loud.frames)
    assert np.abs(wave(_stage("explosion", faults=(fault,)))).max() == 1.0


def test_missing_track_is_none_and_a_dead_microphone_is_silent():
    whole = Fault(kind="missing_audio", start=0, end=144)
    scene = _stage("shooting", faults=(whole,))
    assert wave(scene) is None and not scene.has_audio
    half = Fault(kind="silent_microphone", start=72, end=144)
    sound = wave(_stage("shooting", faults=(half,)))
    assert np.abs(sound[: 3 * SAMPLE_RATE]).max() > 0.1
    assert not sound[3 * SAMPLE_RATE :].any()


# --- truth ------------------------------------------------------------------------------------


def test_truth_agrees_with_itself(scenes):
    low, high = World().snippets
    for scene in scenes:
        assert low <= scene.snippets <= high and scene.frames == XD_STRIDE * scene.snippets
        assert scene.duration == pytest.approx(scene.frames / 24)
        truth = np.zeros(scene.frames, dtype=bool)
        for code, start, end in scene.segments:
            assert 0 <= start < end <= scene.frames
            assert code in XD_CLASSES.codes[1:]
            truth[start:end] = True  # ends are exclusive
        assert np.array_equal(truth, scene.frame_truth())
        codes = {code for code, _, _ in scene.segments} or {"A"}
        assert scene.labels == tuple(c for c in XD_CLASSES.codes if c in codes)
        assert len(scene.labels) <= 3
        assert all(event.visible or event.audible for event in scene.anomalies)


def test_flags_against_a_loop_over_frames(scenes):
    for scene in scenes[:60]:
        flags = scene.flags()
        rows = {name: np.zeros(scene.snippets, dtype=int) for name in flags}
        for n in range(scene.frames):
            faults = {f.kind for f in scene.faults if f.start <= n < f.end}
            on = {e for e in scene.events if e.start <= n < e.end}
            blind = faults & {"black_frames", "picture_static"}
            deaf = faults & {"silent_microphone", "sound_static", "missing_audio"}
            now = {
                "anomalous": any(e.code for e in on),
                "visible": any(e.code and e.visible for e in on) and not blind,
                "audible": any(e.code and e.audible for e in on) and not deaf,
                "corrupted_video": bool(blind) or "low_light" in faults,
                "corrupted_audio": bool(deaf) or "clipped_microphone" in faults,
                **{f"distractor_{k}": any(e.kind == k for e in on) for k in DISTRACTORS},
            }
            assert now.keys() == flags.keys()
            for name, value in now.items():
                rows[name][n // 16] += value
        for name, counts in rows.items():
            assert flags[name].shape == (scene.snippets,) and flags[name].dtype == bool
            assert np.array_equal(flags[name], counts >= 8), name


def test_edges_of_events_are_not_tied_to_snippets(scenes):
    edges = [edge for s in scenes for _, start, end in s.segments for edge in (start, end)]
    on_grid = np.mean([edge % XD_STRIDE == 0 for edge in edges])
    assert on_grid < 3 / XD_STRIDE


def test_labels_can_be_forced():
    scene = sample_scene(1, labels=("B6", "G"), snippets=24)
    assert scene.labels == ("B6", "G") and scene.snippets == 24
    assert sample_scene(1, labels=("A",)).labels == ("A",)
    assert sample_scene(1, labels=()).segments == []
    with pytest.raises(ValueError, match="unknown label code 'B3'"):
        sample_scene(1, labels=("B3",))
    with pytest.raises(ValueError, match="too few"):
        sample_scene(1, labels=("B2", "B1", "G", "B5", "B4"), snippets=1)


def test_bad_worlds_events_and_scenes_are_refused():
    with pytest.raises(ValueError, match="World.both"):
        World(both=0.8, heard_only=0.3)
    with pytest.raises(ValueError, match="World.label_counts"):
        World(label_counts=(0.5, 0.1, 0.1))
    with pytest.raises(ValueError, match="World.normal_share"):
        World(normal_share=-0.1)
    with pytest.raises(ValueError, match="'picnic'"):
        Event(kind="picnic", start=0, end=5)
    with pytest.raises(ValueError, match="start < end"):
        Event(kind="riot", start=5, end=5)
    with pytest.raises(ValueError, match="ends at frame 110"):
        _stage("riot", snippets=3)
    with pytest.raises(ValueError, match="Scene.place"):
        Scene(place="beach")
    with pytest.raises(ValueError, match="no weather"):
        Scene(place="corridor", weather="rain")


# --- the world as designed --------------------------------------------------------------------


def test_shares_are_within_their_design(scenes):
    facts = world_statistics(scenes)
    positive = sum(s.frame_truth().sum() for s in scenes) / sum(s.frames for s in scenes)
    assert facts["positive_frames"] == pytest.approx(positive)
    assert 0.15 < facts["positive_frames"] < 0.21
    assert 0.34 < facts["normal_videos"] < 0.50
    assert facts["heard_only"] + facts["seen_only"] >= 0.30
    assert facts["both"] + facts["heard_only"] + facts["seen_only"] == pytest.approx(1)
    assert min(facts["heard_only"], facts["seen_only"]) > 0.15
    assert all(0.06 < facts["classes"][code] < 0.25 for code in XD_CLASSES.codes[1:])
    assert all(facts["distractors"][kind] > 0.04 for kind in DISTRACTORS)
    quiet = [s for s in scenes if s.labels == ("A",) and not s.distractors]
    assert len(quiet) < 0.5 * facts["normal_videos"] * len(scenes)
    counts = Counter(len(s.labels) for s in scenes if s.labels != ("A",))
    assert set(counts) == {1, 2, 3}
    lengths = [(e.end - e.start) / XD_STRIDE for s in scenes for e in s.anomalies]
    assert np.quantile(lengths, 0.05) > 1 and 6 < np.median(lengths) < 16 and max(lengths) <= 22.1
    for blind in (True, False):
        kind = "picture_static" if blind else "sound_static"
        burst = sum(f.end - f.start for s in scenes for f in s.faults if f.kind == kind)
        assert burst / sum(s.frames for s in scenes) == pytest.approx(0.30, abs=0.03)


def test_a_world_moves_the_shares():
    world = World(normal_share=0.0, both=0.0, heard_only=1.0, missing_audio=0.0)
    facts = world_statistics([sample_scene(seed, world=world) for seed in range(30)])
    assert facts["normal_videos"] == 0 and facts["heard_only"] == 1


# --- pictures and sounds ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*ANOMALIES, *DISTRACTORS])
def test_every_kind_is_drawn_and_sounded(kind):
    place = "corridor" if kind == "door_slam" else "street"
    light = "night" if kind == "fireworks" else "day"
    scene = _stage(kind, place=place, light=light)
    empty = Scene(seed=7, place=place, light=light, snippets=9)
    middle, before = 65 / FPS, 10 / FPS
    change = np.abs(frame(scene, middle).astype(int) - frame(empty, middle))
    assert (change.max(2) > 40).mean() > 0.01, "the event must cover a part of the picture"
    assert np.array_equal(frame(scene, before), frame(empty, before))
    assert np.array_equal(frame(scene, 110 / FPS), frame(empty, 110 / FPS)), "the stage is cleared"
    a, b = (round(k / FPS * SAMPLE_RATE) for k in (20, 110))
    difference = np.abs(wave(scene) - wave(empty))
    assert difference[a:b].max() > 0.05
    assert difference[:a].max() == 0 and difference[b:].max() == 0


@pytest.mark.parametrize("kind", ["fighting", "shooting", "riot", "explosion"])
def test_hidden_events_leave_no_trace_in_the_picture(kind):
    event = Event(kind=kind, start=20, end=110, visible=False, seed=5)
    scene = Scene(seed=7, snippets=9, events=(event,))
    empty = Scene(seed=7, snippets=9)
    assert np.array_equal(frame(scene, 2.0), frame(empty, 2.0))
    assert np.abs(wave(scene) - wave(empty)).max() > 0.05


@pytest.mark.parametrize("unseen", ["occluded", "dark"])
def test_what_is_occluded_or_dark_hardly_shows(unseen):
    setting = {"seed": 8, "snippets": 9, "light": "night", "place": "square"}
    setting["occluder" if unseen == "occluded" else "dark_corner"] = 0.16
    event = Event(kind="fighting", start=20, end=110, visible=False, unseen=unseen, x=0.16)
    hidden, empty = Scene(events=(event,), **setting), Scene(**setting)
    shown = Scene(events=(Event(kind="fighting", start=20, end=110, x=0.5),), **setting)
    for index in (30, 60, 90):
        base = frame(empty, index / FPS).astype(int)
        trace = np.abs(frame(hidden, index / FPS) - base).mean()
        assert trace < 0.15 * np.abs(frame(shown, index / FPS) - base).mean()


def test_unheard_events_are_silent_or_masked():
    empty = wave(Scene(seed=7, snippets=9))
    far = Event(kind="shooting", start=20, end=110, audible=False, seed=5)
    assert np.array_equal(wave(Scene(seed=7, snippets=9, events=(far,))), empty)
    heard = Event(kind="shooting", start=20, end=110, seed=5)
    loud = Event(kind="shooting", start=20, end=110, audible=False, unheard="loud", seed=5)
    size = [
        np.std(wave(Scene(seed=7, snippets=9, events=(event,))) - empty) for event in (heard, loud)
    ]
    assert 0 < size[1] < 0.1 * size[0]


def test_black_frames_are_black_and_low_light_is_dark():
    faults = (
        Fault(kind="black_frames", start=0, end=24),
        Fault(kind="low_light", start=48, end=72),
    )
    scene = Scene(seed=7, snippets=9, faults=faults)
    assert frame(scene, 0.5).max() < 25
    assert frame(scene, 2.5).mean() < 0.4 * frame(scene, 1.5).mean()


def test_describe_names_what_happens():
    scene = sample_scene(3, labels=("B2",), snippets=24)
    text = describe(scene)
    assert "shooting (B2)" in text and scene.place in text and "24 snippets" in text


# --- captioned snippets -----------------------------------------------------------------------


def test_snippets_are_balanced_and_captioned():
    snippets = caption_snippets(0, 480)
    codes = Counter(s.code for s in snippets)
    assert all(codes[code] == 40 for code in XD_CLASSES.codes[1:])
    kinds = Counter(s.kind for s in snippets)
    assert all(kinds[kind] == 20 for kind in DISTRACTORS)
    for kind in ("fighting", "explosion"):
        places = Counter(s.scene.place for s in snippets if s.kind == kind)
        assert len(places) == 5 and max(places.values()) - min(places.values()) <= 2
    for snippet in snippets:
        word = XD_CLASSES.words[XD_CLASSES.index(snippet.code)]
        if snippet.code != "A":
            assert word in snippet.event_caption
            assert (word in snippet.caption) == snippet.cause_visible
        else:
            assert not any(w in snippet.caption for w in ANOMALIES)
    assert 0.05 < np.mean([not s.cause_visible for s in snippets]) < 0.15
    assert 0.04 < np.mean([not s.audible for s in snippets]) < 0.15
    assert any(s.caption == "normal" for s in snippets)
    vocabulary = {word for s in snippets for word in s.caption.replace(",", "").split()}
    assert len(vocabulary) < 110


def test_snippets_have_a_frame_and_a_window_of_sound():
    for snippet in caption_snippets(2, 12):
        assert middle_frame(snippet).shape == (64, 64, 3)
        sound = window(snippet)
        assert sound.shape == (SNIPPET_SAMPLES,) and sound.dtype == np.float32
        assert 0 < np.abs(sound).max() < 1


def test_snippets_share_no_seed_with_scenes():
    of_scenes = {sample_scene(seed).seed for seed in range(300)}
    assert not of_scenes & {s.scene.seed for s in caption_snippets(0, 300)}
    one, other = caption_snippets(0, 5), caption_snippets(1, 5)
    digests = [hashlib.sha256(middle_frame(s).tobytes()).hexdigest() for s in (*one, *other)]
    assert len(set(digests)) == 10
