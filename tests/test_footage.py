"""Soundstage's footage: XD-Violence's timelines, the edit, ambiguous captions, calibration.

The oracles are figures counted from XD-Violence's own annotations, scenes that differ in one
parameter, and measures worked out by hand.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from avadclip_lite.config import SAMPLE_RATE, XD_CLASSES, make_config
from avadclip_lite.dataset import Batch
from avadclip_lite.encoders import load_text
from avadclip_lite.model import build
from data.make_soundstage import calibrate
from data.make_soundstage.captions import caption_snippets
from data.make_soundstage.render import frame, middle_frame, wave
from data.make_soundstage.sample import sample_scene
from data.make_soundstage.world import (
    ANOMALIES,
    FOOTAGE,
    FPS,
    STOCK,
    Event,
    Fault,
    Scene,
    World,
)


@pytest.fixture(scope="module")
def footage() -> list[Scene]:
    return [sample_scene(seed, world=FOOTAGE) for seed in range(500)]


# --- timelines --------------------------------------------------------------------------------


def test_lengths_shares_and_numbers_are_xd_violences(footage):
    """Against the quartiles of its test annotations (snippets, lengths before scaling)."""
    scale = FOOTAGE.time_scale
    violent = [s for s in footage if s.anomalies]
    normal = [s for s in footage if not s.anomalies]
    quartiles = [25, 50, 75]
    lengths = np.percentile([s.snippets / scale for s in violent], quartiles)
    assert lengths == pytest.approx([60, 98, 165], rel=0.2)
    lengths = np.percentile([s.snippets / scale for s in normal], quartiles)
    assert lengths == pytest.approx([112, 211, 301], rel=0.2)
    events = [(e.end - e.start) / 16 / scale for s in violent for e in s.anomalies]
    assert np.percentile(events, quartiles) == pytest.approx([3.9, 8.3, 20.9], rel=0.4)
    assert np.mean(events) > 2 * np.median(events)  # a heavy tail
    shares = [s.frame_truth().mean() for s in violent]
    assert np.percentile(shares, quartiles) == pytest.approx([0.21, 0.36, 0.66], abs=0.09)
    assert np.mean([len(s.anomalies) for s in violent]) == pytest.approx(2.5, abs=0.4)
    counts = Counter(len(s.labels) for s in violent)
    assert counts[1] / len(violent) == pytest.approx(0.87, abs=0.06) and max(counts) == 3
    by_class = {
        kind: np.median([e.end - e.start for s in violent for e in s.anomalies if e.kind == kind])
        for kind in ANOMALIES
    }
    assert by_class["riot"] > 3 * by_class["car accident"]


def test_events_of_a_video_do_not_overlap_and_all_classes_occur(footage):
    for scene in footage:
        edges = [(e.start, e.end) for e in scene.anomalies]
        assert all(a[1] <= b[0] for a, b in zip(edges, edges[1:], strict=False))
        assert all(end - start >= 8 for start, end in edges)
    scene = sample_scene(3, world=FOOTAGE, labels=("B2", "G"), snippets=6)
    assert scene.labels == ("B2", "G") and scene.snippets == 6


def test_one_parameter_changes_nothing_else():
    """Worlds are compared on the same videos: the music must not move the pictures."""
    for seed in range(40):
        one = sample_scene(seed, world=FOOTAGE)
        other = sample_scene(seed, world=replace(FOOTAGE, music=0.6, talk=0.3, cutaways=0.5))
        assert (one.seed, one.place, one.light, one.snippets) == (
            other.seed,
            other.place,
            other.light,
            other.snippets,
        )
        assert one.events == other.events and one.swells == other.swells
        louder = sample_scene(seed, world=replace(FOOTAGE, heard_only=0.3))
        assert [(e.kind, e.start, e.end) for e in one.anomalies] == [
            (e.kind, e.start, e.end) for e in louder.anomalies
        ]


# --- the edit ---------------------------------------------------------------------------------


def _edited(*faults: Fault, event: bool = True) -> Scene:
    events = (Event(kind="riot", start=20, end=130, seed=5),) if event else ()
    return Scene(seed=8, snippets=9, events=events, faults=faults)


def test_a_cutaway_shows_the_place_without_the_event():
    cut = Fault(kind="cutaway", start=48, end=96)
    shown, quiet = _edited(cut), _edited(cut, event=False)
    assert np.array_equal(frame(shown, 70 / FPS), frame(quiet, 70 / FPS))
    assert not np.array_equal(frame(shown, 70 / FPS), frame(_edited(event=False), 70 / FPS))
    assert np.array_equal(frame(shown, 100 / FPS), frame(_edited(), 100 / FPS))
    assert np.array_equal(wave(shown), wave(_edited())), "the sound goes on"
    flags = shown.flags()
    assert flags["anomalous"][4] and not flags["visible"][4] and flags["audible"][4]
    assert not flags["corrupted_video"].any()


@pytest.mark.parametrize("kind", ["music", "talk"])
def test_a_soundtrack_lies_over_the_sound(kind):
    fault = Fault(kind=kind, start=24, end=144)
    a, b = 2 * SAMPLE_RATE, 5 * SAMPLE_RATE
    over, under = wave(_edited(fault)), wave(_edited())
    alone = wave(_edited(fault, event=False))
    assert np.array_equal(over[: SAMPLE_RATE // 2], under[: SAMPLE_RATE // 2])
    added = np.std(over[a:b] - alone[a:b])  # what is left of the event
    assert 0 < added < 0.6 * np.std(under[a:b])
    assert np.std(alone[a:b]) > 0.02
    assert np.array_equal(frame(_edited(fault), 2.0), frame(_edited(), 2.0))


# --- captions ---------------------------------------------------------------------------------


def test_class_words_are_rare_and_ambiguous_in_stock_captions():
    snippets = caption_snippets(0, 7200, world=STOCK)
    own, other = Counter(), Counter()
    for s in snippets:
        for word in ANOMALIES:
            if word in s.event_caption:
                (own if s.kind == word else other)[word] += 1
    assert sum(own.values()) < 0.02 * sum(s.kind in ANOMALIES for s in snippets)
    assert 2 * sum(own.values()) < sum(other.values()) < 0.02 * len(snippets)
    assert len(other) >= 5  # nearly every class word also names something harmless
    normal = [s for s in snippets if "normal" in s.event_caption]
    assert 0.004 < len(normal) / len(snippets) < 0.02
    assert {s.code for s in normal} > {"A", "B1"}  # at random: anomalies too


def test_stock_captions_say_what_the_picture_is_like():
    """The look's words against the pixels, over many snippets."""
    mean = {}
    for s in caption_snippets(0, 240, world=STOCK):
        picture = middle_frame(s, 32).astype(float)
        spread = picture.max(2) - picture.min(2)
        for word in ("dark", "pale", "grey", "green", "purple", "picture"):
            if word in s.caption.split():
                green = picture[..., 1] - picture[..., [0, 2]].mean(2)
                mean.setdefault(word, []).append((picture.mean(), spread.mean(), green.mean()))
    mean = {word: np.mean(values, axis=0) for word, values in mean.items()}
    assert mean["dark"][0] + 20 < mean["picture"][0] < mean["pale"][0] - 5
    assert mean["grey"][1] < 0.8 * mean["picture"][1]
    assert mean["green"][2] > mean["purple"][2] + 10


# --- calibration ------------------------------------------------------------------------------


def test_calibration_cannot_build_an_audio_visual_detector():
    assert set(calibrate.SENSES) == {"vision", "audio"}
    seen = {*calibrate.CALIBRATION_TRAIN, *calibrate.CALIBRATION_TEST}
    assert len(seen) == len(calibrate.CALIBRATION_TRAIN) + len(calibrate.CALIBRATION_TEST)
    assert not seen & ({*range(100_000, 110_000)} | {*range(200_000, 210_000)})
    with pytest.raises(SystemExit):
        calibrate.main(["folder", "--weights", ".", "--roles", "audio_visual"])


def test_neighbours_of_a_probe_are_means_around_a_snippet():
    x = np.random.default_rng(0).random((9, 2)).astype(np.float32)
    wide = calibrate.with_neighbours(x)
    assert wide.shape == (9, 10) and np.array_equal(wide[:, :2], x)
    for t in range(9):
        around = [
            np.mean([x[np.clip(t + k, 0, 8)] for k in steps], axis=0)
            for steps in ((-2, -1), (1, 2), range(-6, 0), range(1, 7))
        ]
        np.testing.assert_allclose(wide[t, 2:], np.concatenate(around), rtol=1e-5)


def test_distractors_are_counted_at_the_threshold_of_the_recall():
    class Test:
        flags = [{"anomalous": None, "distractor_horn": None}]

        def flag(self, name):
            return {
                "anomalous": np.array([1, 1, 1, 1, 1, 0, 0, 0, 0], bool),
                "distractor_horn": np.array([0, 0, 0, 0, 0, 1, 1, 0, 0], bool),
            }[name]

    scores = np.array([0.1, 0.5, 0.6, 0.7, 0.8, 0.9, 0.2, 0.3, 0.55])
    assert calibrate.fooled(scores, Test()) == {"horn": 0.5, "nothing": 0.5}


def test_a_world_has_no_share_of_one():
    with pytest.raises(ValueError, match="World.music"):
        World(music=1.0)


@pytest.mark.parametrize("role", ["vision", "audio"])
def test_a_snippetwise_detector_knows_no_neighbours(role):
    text, prompts = load_text("soundstage", XD_CLASSES.words, dim=64)
    settings = make_config(role=role, detector="snippetwise", ukd="none")
    model = build(settings, text, prompts).eval()
    x = torch.randn(1, 9, 64)
    other = x.clone()
    other[:, 4] += 1
    lengths = torch.tensor([9])
    with torch.no_grad():
        one, two = (
            model(Batch(video=v, audio=v, lengths=lengths)).anomaly_logits for v in (x, other)
        )
    changed = (one != two)[0].tolist()
    assert changed == [k == 4 for k in range(9)]
