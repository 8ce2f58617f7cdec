"""The scorer of anybody's detector: against scikit-learn, and each refusal with its message."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from avadclip_lite.config import CCTV_CLASSES, XD_CLASSES
from avadclip_lite.evaluate import temporal_map
from avadclip_lite.experiments import score_files as scorer
from avadclip_lite.experiments.score_files import read_lengths, read_scores, score_files

NAMES = ["a_label_B1-0-0", "b_label_G-B2-0", "c_label_A"]
BINARY = "a_label_B1-0-0 16 40 50 70\nb_label_G-B2-0.mp4 0 100\n"
CODED = "a_label_B1-0-0 B1 16 40 B1 50 70\nb_label_G-B2-0 G 0 80 B2 60 100\n"


@pytest.fixture
def files(tmp_path) -> Path:
    (tmp_path / "binary.txt").write_text(BINARY)
    (tmp_path / "coded.txt").write_text(CODED)
    return tmp_path


def probabilities() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    snippets = dict(zip(NAMES, (5, 6, 4), strict=True))
    return {n: rng.dirichlet(np.ones(7), t).astype(np.float32) for n, t in snippets.items()}


def frame_truth() -> np.ndarray:
    a, b, c = np.zeros(80, int), np.zeros(96, int), np.zeros(64, int)
    a[16:40] = a[50:70] = 1
    b[0:100] = 1
    return np.concatenate([a, b, c])


def call(capsys, *words) -> str:
    parser = argparse.ArgumentParser()
    scorer.add_arguments(parser)
    assert scorer.main(parser.parse_args([str(word) for word in words])) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("packed", [True, False])
def test_frame_measures_equal_scikit_learn(files, capsys, packed) -> None:
    scores = {name: 1 - p[:, 0] for name, p in probabilities().items()}
    path = files / ("scores.npz" if packed else "scores")
    if packed:
        np.savez(path, **scores)
    else:
        path.mkdir()
        for name, array in scores.items():
            np.save(path / f"{name}.npy", array)
    said = json.loads(call(capsys, path, "--annotations", files / "binary.txt", "--json"))
    truth = frame_truth()
    frames = np.repeat(np.concatenate(list(scores.values())), 16)
    metrics = said["metrics"]
    assert metrics["ap"] == pytest.approx(average_precision_score(truth, frames), abs=1e-12)
    assert metrics["auc"] == pytest.approx(roc_auc_score(truth, frames), abs=1e-12)
    assert metrics["ap_abnormal"] == pytest.approx(
        average_precision_score(truth[:176], frames[:176]), abs=1e-12
    )
    assert metrics["frames"] == 240 and metrics["positive_share"] == truth.mean()
    assert "class probabilities" in said["notes"]["map"]
    assert said["remarks"] == [
        f"1 videos annotations cut at the end of the scores (less than a stride), {NAMES[1]} first"
    ]


@pytest.mark.parametrize("both", [True, False])
def test_class_probabilities_give_the_map(files, both) -> None:
    probs = probabilities()
    annotations = [files / "binary.txt", files / "coded.txt"] if both else [files / "coded.txt"]
    found = score_files(probs, annotations, classes=XD_CLASSES)
    segments = [
        [("B1", 16, 40), ("B1", 50, 70)],
        [("G", 0, 80), ("B2", 60, 96)],
        [("A", 0, 64)],
    ]
    expected = temporal_map(
        np.concatenate(list(probs.values())), np.array([5, 6, 4]), segments, XD_CLASSES, 16
    )
    for name, value in expected.metrics().items():
        assert found.metrics[name] == value or math.isnan(value) and name in found.notes
    frames = np.repeat(np.concatenate([1 - p[:, 0] for p in probs.values()]), 16)
    truth = frame_truth()
    assert found.metrics["ap"] == pytest.approx(average_precision_score(truth, frames), abs=1e-12)


def test_binary_annotations_leave_videos_of_two_classes_out_of_the_map(files) -> None:
    found = score_files(probabilities(), [files / "binary.txt"], classes=XD_CLASSES)
    assert NAMES[1] in found.notes["map"] and "1 videos are left out" in found.notes["map"]
    assert found.metrics["map_B1_avg"] >= 0 and math.isnan(found.metrics["map_G_avg"])


def test_the_table_says_which_convention_is_which(files, capsys) -> None:
    np.savez(files / "s.npz", **probabilities())
    said = call(capsys, files / "s.npz", "--annotations", files / "coded.txt")
    for words in ("3 videos, 15 scores, 240 frames", "  AP\n", "AUC", "with an anomaly alone",
                  "6 anomaly classes: what mAP usually means", "7 classes, whole normal videos",
                  "B6 car accident", "no segment of class B6"):  # fmt: skip
        assert words in said


def test_lengths_are_read_in_both_forms_and_checked(files) -> None:
    (files / "a.csv").write_text("name,label,n_frames\na_label_B1-0-0.mp4,B1-0-0,80\n")
    (files / "b.txt").write_text("a b_label_A 90\nc,64\n")
    assert read_lengths(files / "a.csv") == {"a_label_B1-0-0": 80}
    assert read_lengths(files / "b.txt") == {"a b_label_A": 90, "c": 64}
    (files / "c.txt").write_text("c long\n")
    with pytest.raises(ValueError, match="c.txt, entry 1: 'c long' is no name and number"):
        read_lengths(files / "c.txt")
    with pytest.raises(FileNotFoundError, match="lengths file .* does not exist"):
        read_lengths(files / "none")
    lengths = dict(zip(NAMES, (80, 96, 64), strict=True))
    annotations = [files / "coded.txt"]

    def score(**changed):
        return score_files(
            probabilities(), annotations, lengths={**lengths, **changed}, classes=XD_CLASSES
        )

    assert len(score().remarks) == 1  # the annotation that was cut
    assert "1 videos less than a stride" in score(**{NAMES[2]: 70}).remarks[0]
    with pytest.raises(
        ValueError, match="c_label_A has 4 scores x stride 16 = 64 frames, but its length is 80"
    ):
        score(**{NAMES[2]: 80})
    with pytest.raises(ValueError, match="1 of 4 videos in the lengths file .*'d_label_A' first"):
        score(d_label_A=64)
    del lengths[NAMES[0]]
    with pytest.raises(ValueError, match="a_label_B1-0-0 has scores but is not in the lengths"):
        score()


def test_scores_that_do_not_fit_are_refused(files) -> None:
    annotations, probs = [files / "coded.txt"], probabilities()
    with pytest.raises(ValueError, match="1 of 2 annotated videos have no scores, 'a_label_B1"):
        score_files({n: probs[n] for n in NAMES[1:]}, annotations, classes=XD_CLASSES)
    with pytest.raises(ValueError, match="annotated up to frame 100, but its scores end at frame"):
        score_files(probs | {NAMES[1]: probs[NAMES[1]][:5]}, annotations, classes=XD_CLASSES)
    with pytest.raises(ValueError, match="7 classes, CCTV-Fights has 2: A, B1; .*--classes"):
        (files / "cctv.txt").write_text("a_label_B1-0-0 16 40\n")
        cctv = {NAMES[0]: probs[NAMES[0]]}
        score_files(cctv, [files / "cctv.txt"], classes=CCTV_CLASSES)
    with pytest.raises(ValueError, match=r"run from -\d.* to .*softmax"):
        logits = {name: np.log(p) for name, p in probs.items()}
        score_files(logits, annotations, classes=XD_CLASSES)
    with pytest.raises(ValueError, match="stride must be at least 1 frame, got 0"):
        score_files(probs, annotations, classes=XD_CLASSES, stride=0)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(0), r"v has shape \(0,\), expected"),
        (np.zeros((2, 2, 2)), r"v has shape \(2, 2, 2\)"),
        (np.array([0.5, np.nan]), "v holds NaN or infinity"),
        (np.array([1, 2]), "v holds int64, expected floating"),
        (np.zeros((3, 7)), r"u holds scores \(T,\), v scores \(T, 7\); they must be alike"),
    ],
)
def test_arrays_that_are_no_scores_are_refused_by_name(tmp_path, array, message) -> None:
    np.savez(tmp_path / "s.npz", u=np.zeros(3), v=array)
    with pytest.raises(ValueError, match=message):
        read_scores(tmp_path / "s.npz")


def test_missing_damaged_or_pickled_files_are_refused(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing does not exist; expected a folder"):
        read_scores(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="holds no .npy file"):
        read_scores(tmp_path)
    np.savez(tmp_path / "s.npz", v=np.zeros(30))
    whole = (tmp_path / "s.npz").read_bytes()
    np.save(tmp_path / "s.npy", np.array([{}], dtype=object))
    pickled = (tmp_path / "s.npy").read_bytes()
    for content in (whole[:100], b"", b"text", pickled):
        (tmp_path / "s.npz").write_bytes(content)
        with pytest.raises(ValueError, match="s.npz is no readable .npz"):
            read_scores(tmp_path / "s.npz")
    with pytest.raises(ValueError, match="s.npy is no readable array"):
        read_scores(tmp_path)


def test_half_precision_is_widened_and_mp4_stripped(tmp_path) -> None:
    np.savez(tmp_path / "s.npz", **{"v.mp4": np.zeros(3, np.float16)})
    found = read_scores(tmp_path / "s.npz")
    assert found["v"].dtype == np.float32
