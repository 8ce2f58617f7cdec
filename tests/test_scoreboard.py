"""The scoreboard: numbers counted by hand, what a file lacks left out, own bars marked."""

from __future__ import annotations

import json

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from tiny import tiny_store

from avadclip_lite.config import soundstage_path
from avadclip_lite.evaluate import evaluate
from avadclip_lite.experiments import study
from avadclip_lite.viz import plots
from avadclip_lite.viz.lesson import BOARD, open_stage, scoreboard, shipped, standings


@pytest.fixture
def rows() -> pd.DataFrame:
    """Three seeds of two detectors; of the second one branch only is known."""
    lines = [("vision", s, ap, 0.1) for s, ap in enumerate((0.5, 0.6, 0.7))]
    lines += [("DeepMIL", s, None, ap) for s, ap in enumerate((0.41, 0.4, 0.39))]
    lines += [("vision, UKD x 1", 0, 0.65, 0.2)]
    columns = ["variant", "seed", "frame_ap_classification", "frame_ap_alignment"]
    return pd.DataFrame(lines, columns=columns).assign(positive_share=0.25)


def test_means_and_intervals_are_those_of_the_t_test(rows: pd.DataFrame) -> None:
    bars = {bar.label: bar for bar in standings(rows, "11")}
    assert list(bars) == ["chance", "vision only", "DeepMIL", "vision student"]
    # s = 10 points, n = 3: t(0.975, 2) = 4.3027 times 10 / sqrt(3)
    vision = bars["vision only"]
    assert (vision.mean, vision.seeds) == (pytest.approx(60), 3)
    assert vision.high - 60 == pytest.approx(24.84, abs=0.01) == 60 - vision.low
    assert bars["DeepMIL"].mean == pytest.approx(40), "of the branch that is known"
    assert bars["DeepMIL"].high == pytest.approx(40 + 4.3027 / 3**0.5, abs=1e-3)
    assert bars["chance"][1:5] == (25, 25, 25, 1)
    one = bars["vision student"]
    assert one.low == one.mean == one.high == pytest.approx(65), "one seed has no interval"


def test_it_grows_and_marks_the_lesson_s_own(rows: pd.DataFrame) -> None:
    known = {"loudness": 0.3, "class words, untrained": 0.35}
    labels = {n: [b.label for b in standings(rows, n, known)] for n in ("00", "01", "02", "07")}
    assert labels["00"] == ["chance", "loudness"]
    assert labels["01"] == [*labels["00"], "class words, untrained"]
    assert labels["02"] == [*labels["01"], "vision only", "DeepMIL"]
    assert labels["07"] == [*labels["02"], "vision student"]
    assert [b.label for b in standings(rows, "02", known) if b.own] == ["vision only", "DeepMIL"]
    assert not any(b.own for b in standings(rows, "05", known))


def test_the_figure_shows_the_standings(rows: pd.DataFrame, capsys) -> None:
    figure = scoreboard(rows, "07", data="Soundstage")
    figure.canvas.draw()
    (ax,) = figure.axes
    assert [bar.get_width() for bar in ax.patches] == pytest.approx([25, 60, 40, 65])
    own = [to_hex(bar.get_facecolor()) == plots.MODEL.lower() for bar in ax.patches]
    assert own == [False, False, False, True]
    ends = [line.get_xdata() for line in ax.lines]
    assert ends[1] == pytest.approx([60 - 24.84, 60 + 24.84], abs=0.01)
    assert (
        ax.get_xlabel() == "frame AP, classification branch, %, Soundstage"
        and ax.get_xlim() == (0, 100)
    )
    printed = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in printed] == [t.get_text() for t in ax.get_yticklabels()]
    plt.close("all")


def test_a_lesson_that_sets_no_bar_gets_a_line_and_no_figure(rows: pd.DataFrame, capsys) -> None:
    assert scoreboard(rows, "08") is None and plt.get_fignums() == []
    assert capsys.readouterr().out == "no new bar; the highest of 4 is vision student, 65.0\n"
    scoreboard(rows, "11", known={"CLIP-TSA": 0.5})
    assert len(plt.get_fignums()) == 1, "what a lesson hands over itself counts as its own"
    plt.close("all")


def test_the_results_that_ship_fill_it() -> None:
    """Without the package's arithmetic: means of the raw file."""
    frame = study.results()
    raw = pd.read_csv(study.results_path())
    raw = raw[raw["protocol"] == "chosen"].groupby("variant")["frame_ap_classification"]
    names = {label: names for _, label, names in BOARD}
    bars = standings(frame, "11")
    assert bars[0].label == "chance" and len(bars) > 1
    for bar in bars[1:]:
        variant = next(name for name in names[bar.label] if name in raw.groups)
        assert bar.mean == pytest.approx(100 * raw.mean()[variant])
        alike = raw.std()[variant] == 0  # what learns nothing is the same at every seed
        assert bar.low < bar.mean < bar.high or bar.seeds == 1 or alike


def test_a_file_of_nothing_known_shows_chance_alone(rows: pd.DataFrame) -> None:
    strange = rows.assign(variant="somebody's")
    assert [bar.label for bar in standings(strange, "11")] == ["chance"]
    assert np.isclose(standings(strange, "11")[0].mean, 25)


# --- the detectors that ship ----------------------------------------------------------------------


def test_the_detectors_that_ship_are_those_of_the_index() -> None:
    """Each scores what its index says; the teacher's seed is the lower median of the study's."""
    store = open_stage()
    index = json.loads((soundstage_path() / "models/index.json").read_text(encoding="utf-8"))
    frame = study.results().set_index(["variant", "seed"])
    for role, told in index.items():
        # and no threshold, which a command run in passing would leave there
        inside = {path.name for path in (soundstage_path() / "models" / role).iterdir()}
        assert inside == {"config.json", "weights.safetensors"}, role
        found = evaluate(shipped(store, role), store).metrics["frame_ap_classification"]
        assert found == pytest.approx(told["frame_ap_classification"], abs=2e-3), role
        row = frame.loc[told["variant"], told["seed"]]
        assert row["frame_ap_classification"] == told["frame_ap_classification"], role
    teachers = frame.loc["paper", "frame_ap_classification"].sort_values()
    assert teachers.index[(len(teachers) - 1) // 2] == index["teacher"]["seed"]
    assert index["student"]["seed"] == index["teacher"]["seed"]


def test_other_data_have_no_detectors_that_ship(tmp_path) -> None:
    assert shipped(tiny_store(tmp_path), "teacher") is None
