"""Figures: words never collide or leave their axes, and what is drawn is what was given."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.patches import StepPatch

from avadclip_lite.config import XD_CLASSES
from avadclip_lite.viz import plots

NAMES = dict(zip(XD_CLASSES.codes, XD_CLASSES.words, strict=True))
EVENTS = [("B1", 100, 200), ("B2", 150, 260), ("B1", 240, 270), ("G", 320, 330), ("B6", 350, 400)]


@pytest.fixture(autouse=True)
def style() -> Iterator[None]:
    plots.use_style()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a figure that cannot be laid out only warns
        yield
    plt.close("all")


def test_a_timeline_holds_each_confidence_over_its_snippet() -> None:
    values = np.array([0.1, 0.9, 0.4])
    figure = plots.timeline(
        {"audio-visual": values, "vision only": 1 - values},
        EVENTS,
        fps=25,
        seconds=18.0,
        names=NAMES,
        probabilities=np.full((3, 7), 1 / 7),
        wave=np.ones(1000, np.float32),
    )
    figure.canvas.draw()
    confidence, classes, sound = figure.axes
    drawn = [p.get_data() for p in confidence.patches if isinstance(p, StepPatch)]
    np.testing.assert_array_equal([d.values for d in drawn], [values, 1 - values])
    np.testing.assert_array_equal(drawn[0].edges, [0, 6, 12, 18])
    assert [t.get_text() for t in classes.get_yticklabels()] == list(NAMES.values())
    assert len(plots.timeline({"a": values}, [], fps=1, seconds=3, names=NAMES, sound=False).axes)


def test_events_that_overlap_share_one_label_and_labels_do_not_collide() -> None:
    figure, ax = plt.subplots()
    ax.set_xlim(0, 18)
    plots.shade(ax, EVENTS, fps=25, names=NAMES)
    figure.canvas.draw()
    assert len(ax.patches) == len(EVENTS)
    assert [t.get_text() for t in ax.texts] == ["fighting + shooting", "explosion", "car accident"]
    boxes = [t.get_window_extent() for t in ax.texts]
    assert not any(one.overlaps(two) for i, one in enumerate(boxes) for two in boxes[i + 1 :])


def test_labels_at_the_ends_of_curves_do_not_collide() -> None:
    ends = {"one": 1.0, "two": 1.001, "three": 0.999, "four": 0.0}
    figure = plots.curves({k: ([0, 1], [0, v]) for k, v in ends.items()}, xlabel="x", ylabel="y")
    figure.canvas.draw()
    boxes = [t.get_window_extent() for t in figure.axes[0].texts]
    assert len(boxes) == 4
    assert not any(one.overlaps(two) for i, one in enumerate(boxes) for two in boxes[i + 1 :])


@pytest.mark.parametrize("sound", [True, False])
def test_pictures_stand_over_their_sound_or_over_its_absence(sound: bool) -> None:
    frames = list(np.zeros((4, 8, 8, 3), np.uint8))
    wave = np.sin(np.arange(16_000 * 18, dtype=np.float32)) if sound else None
    figure = plots.pictures_and_sound(
        frames, [1, 5, 9, 15], wave, EVENTS, fps=25, seconds=18.0, names=NAMES, title="v"
    )
    figure.canvas.draw()
    below = figure.axes[-1]
    for text in below.texts:
        assert below.bbox.y0 <= text.get_window_extent().y0 <= below.bbox.y1, text.get_text()
    colours = [ax.spines["left"].get_linewidth() for ax in figure.axes[:4]]
    assert colours == [1, 3, 3, 3]  # frames inside an event are framed


def test_a_contact_sheet_shows_every_frame_once() -> None:
    figure = plots.contact_sheet(
        list(np.zeros((5, 8, 8, 3), np.uint8)), list("abcde"), marked=[0, 1, 0, 0, 1], columns=3
    )
    shown = [ax for ax in figure.axes if ax.get_visible()]
    assert [ax.get_xlabel() for ax in shown] == list("abcde")
    assert [ax.spines["top"].get_linewidth() for ax in shown] == [1, 3, 1, 1, 3]
