"""False alarms and recall, by hand and by a loop."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.special import logit

from avadclip_lite.__main__ import main as command
from avadclip_lite.evaluate import Predictions
from avadclip_lite.video.thresholds import (
    alarm_curve,
    detector_curve,
    read_threshold,
    save_threshold,
)

# two videos of 6 and 4 snippets; one event each, and one alarm at the end of the first video that
# would run on into the second if the border were forgotten
SCORES = np.array([0.1, 0.8, 0.9, 0.2, 0.3, 0.7, 0.6, 0.1, 0.4, 0.4])
OFFSETS = np.array([0, 6, 10])
EVENTS = np.array([[2, 4], [8, 10]])


def test_a_curve_worked_by_hand():
    """With one snippet of tolerance, 0, 5 and 6 are the only snippets without an event."""
    curve = alarm_curve(SCORES, OFFSETS, EVENTS, hours=0.5)
    columns = (curve.thresholds, curve.per_hour, curve.false_share, curve.recall)
    got = {round(float(t), 1): (n, f, r) for t, n, f, r in zip(*columns, strict=True)}
    third = pytest.approx(1 / 3)
    assert got[0.9] == (0, 0, 0.5)  # snippet 2 only: found
    assert got[0.8] == (0, 0, 0.5)  # snippet 1 is next to the event
    assert got[0.7] == (2, third, 0.5)  # snippet 5 is false: one in half an hour
    assert got[0.6] == (4, 2 * third.expected, 0.5)  # and snippet 6, in the other video
    assert got[0.4] == (4, 2 * third.expected, 1.0)  # the second event is found
    assert got[0.3] == (4, 2 * third.expected, 1.0)  # snippets 4 and 5 touch an event: 5 counts
    assert got[0.1] == (6, 1.0, 1.0)
    assert list(curve.thresholds) == sorted(curve.thresholds, reverse=True)


def test_picking_comes_from_above():
    curve = alarm_curve(SCORES, OFFSETS, EVENTS, hours=0.5)
    assert curve.pick(0).threshold == 0.8
    assert curve.pick(2).threshold == 0.7
    assert curve.pick(5).threshold == 0.2
    point = curve.pick(100)
    assert (point.threshold, point.recall, point.false_share) == (0.1, 1.0, 1.0)
    # seven quiet snippets, of which every second is alarmed, then all: three alarms, then one
    merging = np.array([0.9, 0.0, 0.5, 0.2, 0.5, 0.2, 0.5])
    curve = alarm_curve(merging, np.array([0, 7]), np.array([[0, 1]]), hours=1.0)
    at = dict(zip(curve.thresholds, curve.per_hour, strict=True))
    assert (at[0.5], at[0.2]) == (3, 1)
    assert curve.pick(1).threshold == 0.9
    worst = alarm_curve(np.array([0.2, 0.1, 0.9]), np.array([0, 3]), np.array([[0, 1]]), hours=1.0)
    with pytest.raises(ValueError, match="no threshold keeps false alarms at 0.5 an hour"):
        worst.pick(0.5)


def brute_force(scores, offsets, events, threshold):
    """False alarms and found events, snippet by snippet."""
    false = 0
    for v in range(len(offsets) - 1):
        ringing = False
        for k in range(offsets[v], offsets[v + 1]):
            near = any(a - 1 <= k < b + 1 and offsets[v] <= a < offsets[v + 1] for a, b in events)
            now = scores[k] >= threshold and not near
            false += now and not ringing
            ringing = now
    return false, np.mean([max(scores[a:b]) >= threshold for a, b in events])


def test_curves_against_a_loop():
    rng = np.random.default_rng(0)
    for _ in range(20):
        offsets = np.concatenate([[0], np.cumsum(rng.integers(1, 12, size=6))])
        scores = rng.choice([0.1, 0.3, 0.5, 0.7, 0.9], size=offsets[-1])
        events = []
        for v in rng.choice(6, size=3, replace=False):
            start = rng.integers(offsets[v], offsets[v + 1])
            events.append((start, rng.integers(start, offsets[v + 1]) + 1))
        curve = alarm_curve(scores, offsets, np.array(events), hours=2.0)
        for threshold, rate, recall in zip(
            curve.thresholds, curve.per_hour, curve.recall, strict=True
        ):
            false, found = brute_force(scores, offsets, events, threshold)
            assert (rate, recall) == (false / 2.0, found)


def test_the_strict_end_of_a_long_recording_is_exact():
    """26 hours: 140,400 snippets, 25 false alarms above the bulk of what happens, and 100 events of
    which 85 peak above all but those. What is wanted lies among the highest 110 scores."""
    rng = np.random.default_rng(0)
    scores = rng.normal(-5, 1, 140_400)
    scores[rng.choice(700, 25, replace=False) * 200 + 100] = rng.uniform(4, 5, 25)
    events = np.arange(100)[:, None] * 1404 + [37, 45]
    for k, (first, end) in enumerate(events):
        scores[first:end] = -6
        scores[first + 3] = rng.uniform(3, 3.5) if k < 85 else -6
    point = alarm_curve(scores, np.array([0, 140_400]), events, hours=26.0).pick(1)
    assert point.recall >= 0.85 and point.false_alarms_per_hour == pytest.approx(1.0, abs=0.1)
    counted = brute_force(scores, np.array([0, 140_400]), events.tolist(), point.threshold)
    assert counted == (round(26 * point.false_alarms_per_hour), point.recall)


def test_saturated_confidences_are_told_apart(tmp_path):
    """Every confidence of the second half is 1.0 in float32, the false alarms' too."""
    logits = np.concatenate([np.full(50, -3), np.arange(20, 45, 0.5)]).astype(np.float32)
    found = Predictions(names=["a"], lengths=np.array([100]), anomaly_logits=logits, alignment=None)
    assert (found.anomaly[50:] == 1).all()
    curve = detector_curve(found, [[("B1", 16 * 90, 16 * 100)]], stride=16)
    save_threshold(tmp_path, curve, 0)
    assert read_threshold(tmp_path) == logits[89]  # the lowest next to the event
    assert curve.pick(0).recall == 1


def predictions() -> Predictions:
    return Predictions(
        names=["a", "b"],
        lengths=np.array([6, 4]),
        anomaly_logits=logit(SCORES),
        alignment=None,
    )


def test_events_in_frames_and_hours_of_video():
    segments = [[("B1", 40, 50)], [(None, 32, 64)]]  # snippets 2 and 3, and 8 and 9
    curve = detector_curve(predictions(), segments, 16, frame_rate=2.0)
    assert curve.hours == pytest.approx(160 / 2 / 3600) and curve.events == 2
    by_hand = alarm_curve(SCORES, OFFSETS, EVENTS, hours=160 / 2 / 3600)
    np.testing.assert_allclose(curve.per_hour, by_hand.per_hour)
    np.testing.assert_allclose(curve.recall, by_hand.recall)


def test_the_threshold_is_saved_with_the_detector(tmp_path):
    assert read_threshold(tmp_path) is None
    segments = [[("B1", 40, 50)], [("B2", 32, 64)]]
    curve = detector_curve(predictions(), segments, 16)
    saved = save_threshold(tmp_path, curve, 1 / curve.hours, split="test")
    point = saved["points"]["any"]
    assert point["threshold"] == pytest.approx(0.7) and saved["split"] == "test"
    assert read_threshold(tmp_path) == point["logit"] == logit(0.7)
    assert json.loads((tmp_path / "thresholds.json").read_text()) == saved
    old = {"points": {"any": {"threshold": 0.7}}}  # as written by e281ea6
    (tmp_path / "thresholds.json").write_text(json.dumps(old))
    assert read_threshold(tmp_path) == logit(0.7)
    (tmp_path / "thresholds.json").write_text("{}")
    with pytest.raises(ValueError, match="thresholds.json is damaged"):
        read_threshold(tmp_path)


@pytest.mark.parametrize("words", [("--fps", "inf"), ("--rate", "nan"), ("--rate", "inf")])
def test_rates_without_end_are_refused(words, capsys):
    """Infinitely many frames a second gave a threshold of videos that last no time."""
    assert command(["thresholds", "--run", "r", "--data", "d", *words]) == 2
    said = capsys.readouterr().err
    assert "--fps must be above 0 and --rate not below" in said and words[1] in said
