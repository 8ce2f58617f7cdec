"""Scores of anybody's detector: against scikit-learn, and each refusal with its message."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_auc_score
from tiny import tiny_settings, tiny_store, tiny_text

from avadclip_lite import __main__ as command_line
from avadclip_lite import train
from avadclip_lite.config import CCTV_CLASSES, XD_CLASSES, soundstage_path
from avadclip_lite.evaluate import evaluate, temporal_map
from avadclip_lite.experiments.score_files import read_scores, score_files

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
    assert command_line.main(["evaluate", *map(str, words)]) == 0
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
    said = json.loads(
        call(capsys, "--scores", path, "--annotations", files / "binary.txt", "--json")
    )
    truth = frame_truth()
    frames = np.repeat(np.concatenate(list(scores.values())), 16)
    metrics = said["metrics"]
    assert metrics["frame_ap"] == pytest.approx(average_precision_score(truth, frames), abs=1e-12)
    assert metrics["frame_auc"] == pytest.approx(roc_auc_score(truth, frames), abs=1e-12)
    assert metrics["frame_ap_abnormal"] == pytest.approx(
        average_precision_score(truth[:176], frames[:176]), abs=1e-12
    )
    assert metrics["frames"] == 240 and metrics["positive_share"] == truth.mean()
    cut, no_map = said["remarks"]
    assert cut == f"annotations cut at the end of the scores, 1 video: {NAMES[1]}"
    assert "class probabilities" in no_map


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
        assert found.metrics[name] == value or math.isnan(value)
    frames = np.repeat(np.concatenate([1 - p[:, 0] for p in probs.values()]), 16)
    truth = frame_truth()
    assert found.metrics["frame_ap"] == pytest.approx(
        average_precision_score(truth, frames), abs=1e-12
    )


def test_binary_annotations_leave_videos_of_two_classes_out_of_the_map(files) -> None:
    found = score_files(probabilities(), [files / "binary.txt"], classes=XD_CLASSES)
    assert any(NAMES[1] in said and "1 videos are left out" in said for said in found.remarks)
    assert found.metrics["map_B1"] >= 0 and math.isnan(found.metrics["map_G"])


def test_the_table_says_which_convention_is_which(files, capsys) -> None:
    np.savez(files / "s.npz", **probabilities())
    said = call(capsys, "--scores", files / "s.npz", "--annotations", files / "coded.txt")
    for words in (
        "3 videos, 15 scores, 240 frames",
        "average precision of frames",
        "ROC curve",
        "videos with an anomaly",
        "over the anomaly classes, mean of IoU 0.1 to 0.5",
        "normal included, as the release averages",
        "-: the truth holds nothing of the kind",
    ):
        assert words in said
    assert "trapezoid" not in said


def test_the_trapezoid_is_scikit_learns_and_says_that_it_is_not_average_precision(
    files, capsys
) -> None:
    scores = {name: 1 - p[:, 0].round(1) for name, p in probabilities().items()}  # with ties
    found = score_files(scores, [files / "binary.txt"], classes=XD_CLASSES, trapezoid=True)
    frames = np.repeat(np.concatenate(list(scores.values())), 16)
    precision, recall, _ = precision_recall_curve(frame_truth(), frames)
    assert found.metrics["frame_pr_trapezoid"] == pytest.approx(auc(recall, precision), abs=1e-12)
    assert found.metrics["frame_pr_trapezoid"] != pytest.approx(found.metrics["frame_ap"])
    flat = {name: np.full(len(p), 0.5) for name, p in probabilities().items()}
    np.savez(files / "s.npz", **flat)
    words = "--scores", files / "s.npz", "--annotations", files / "binary.txt", "--trapezoid"
    share = frame_truth().mean()
    metrics = json.loads(call(capsys, *words, "--json"))["metrics"]
    assert metrics["frame_pr_trapezoid"] == pytest.approx((1 + share) / 2)
    assert metrics["frame_ap"] == pytest.approx(share)
    assert "not average precision" in call(capsys, *words)


# --- how people save scores -----------------------------------------------------------------------


def test_columns_subfolders_and_hidden_files(files) -> None:
    """(T, 1) is (T,); a folder's folders are read; what a system left beside is not."""
    scores = {name: 1 - p[:, 0] for name, p in probabilities().items()}
    folder = files / "scores"
    for number, (name, array) in enumerate(scores.items()):
        place = folder / f"part{number % 2}" / f"{name}.mp4.npy"
        place.parent.mkdir(parents=True, exist_ok=True)
        np.save(place, array[:, None])
        place.with_name(f"._{place.name}").write_bytes(b"Mac OS X")
    (folder / ".ipynb_checkpoints").mkdir()
    np.save(folder / ".ipynb_checkpoints" / f"{NAMES[0]}.npy", np.zeros(3))
    found = read_scores(folder)
    assert sorted(name.rpartition("/")[2] for name in found) == NAMES
    for name, array in found.items():
        np.testing.assert_array_equal(array, scores[name.rpartition("/")[2]])
    flat = score_files(scores, [files / "coded.txt"], classes=XD_CLASSES)
    assert score_files(found, [files / "coded.txt"], classes=XD_CLASSES).metrics == flat.metrics
    np.save(folder / f"{NAMES[0]}.npy", np.zeros(8))
    np.save(folder / f"part1/{NAMES[0]}.npy", np.zeros(8))
    (folder / f"{NAMES[0]}.npy").unlink()
    with pytest.raises(ValueError, match="could be 'part0/a_label_B1-0-0' or 'part1/a_label_B1"):
        score_files(read_scores(folder), [files / "coded.txt"], classes=XD_CLASSES)
    np.save(folder / f"part1/{NAMES[0]}.mp4.npy", np.zeros(8))
    with pytest.raises(ValueError, match="part1/a_label_B1-0-0 is there twice"):
        read_scores(folder)


def of_frames(scores: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.repeat(array, 16, axis=0) for name, array in scores.items()}


def drifting(scores: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Scores of frames that are no repetition: interpolated."""
    return {
        name: np.interp(np.arange(16 * len(a)), 8 + 16 * np.arange(len(a)), a)
        for name, a in scores.items()
    }


@pytest.mark.parametrize("saved", [of_frames, drifting])
def test_scores_of_frames_are_recognised_and_told_the_option(files, saved, capsys) -> None:
    """A detector saved one score a frame, scored with the stride of snippets, gave another AP."""
    scores = saved({name: 1 - p[:, 0] for name, p in probabilities().items()})
    annotations = [files / "binary.txt"]
    with pytest.raises(ValueError, match="scores of frames, not of snippets of 16.*--stride 1"):
        score_files(scores, annotations, classes=XD_CLASSES)
    found = score_files(scores, annotations, classes=XD_CLASSES, stride=1)
    frames = np.concatenate(list(scores.values()))
    assert found.metrics["frame_ap"] == pytest.approx(
        average_precision_score(frame_truth(), frames), abs=1e-12
    )
    assert score_files(scores, annotations, classes=XD_CLASSES, stride=16)  # whoever insists


def test_class_probabilities_of_frames_are_recognised(files) -> None:
    with pytest.raises(ValueError, match="No annotation reaches past 1/16 .* add --stride 1"):
        score_files(of_frames(probabilities()), [files / "coded.txt"], classes=XD_CLASSES)


def test_scores_of_snippets_are_not_taken_for_scores_of_frames(files) -> None:
    """Steps, two levels, one constant, one video alone: no reason to refuse."""
    (files / "one.txt").write_text("v 0 16\n")
    levels = (np.repeat([0.1, 0.9, 0.3], [3, 8, 5]), np.full(40, 0.5), np.arange(20) % 3 / 3)
    for scores in levels:
        found = score_files({"v": scores}, [files / "one.txt"], classes=XD_CLASSES)
        assert found.metrics["frames"] == 16 * len(scores)
    assert len(found.remarks) == 1  # one video whose event is early happens: one in sixteen


# --- a trained detector ---------------------------------------------------------------------------


@pytest.fixture
def trained(tmp_path, monkeypatch):
    text, prompts = tiny_text()
    text.name = "tiny"
    monkeypatch.setattr(train, "load_text", lambda *args, **kwargs: (text, prompts))
    store = tiny_store(tmp_path / "store")
    model = train.fit(tiny_settings(epochs=1), store, out=tmp_path / "run", progress=False).model
    return tmp_path, store, model


def test_a_trained_detector_is_scored_on_any_split(trained, capsys) -> None:
    folder, store, model = trained
    words = "--run", folder / "run", "--data", folder / "store", "--device", "cpu"
    said = json.loads(call(capsys, *words, "--json"))
    expected = evaluate(model, store).metrics
    assert {k: v for k, v in said["metrics"].items() if v is not None} == pytest.approx(
        {k: v for k, v in expected.items() if not math.isnan(v)}
    )
    other = json.loads(call(capsys, *words, "--split", "train", "--json"))["metrics"]
    assert other["videos"] == 24 != said["metrics"]["videos"] == 6
    table = call(capsys, *words, "--trapezoid")
    assert "6 videos" in table and table.count("not average precision (alignment)") == 1


def test_what_does_not_go_together_is_refused(trained, capsys) -> None:
    folder, _, _ = trained
    for words, said in (
        ([], "give either --run RUN --data STORE or --scores PATH --annotations FILE"),
        (["--run", "r", "--scores", "s"], "give either --run"),
        (["--run", "r"], "give either --run"),
        (["--scores", "s"], "give either --run"),
        (["--run", "r", "--data", "d", "--annotations", "a"], "give either --run"),
        (["--run", "r", "--data", "d", "--stride", "4"], "give either --run"),
        (["--scores", "s", "--annotations", "a", "--data", "d"], "give either --run"),
        (["--run", str(folder), "--data", str(folder / "store")], "is no training run"),
    ):
        assert command_line.main(["evaluate", *words]) == 2
        assert said in capsys.readouterr().err
    words = ["evaluate", "--run", str(folder / "run"), "--data", str(soundstage_path())]
    assert command_line.main(words) == 2
    assert "takes features 8 wide" in capsys.readouterr().err


# --- refusals -------------------------------------------------------------------------------------


def test_scores_that_do_not_fit_are_refused(files) -> None:
    annotations, probs = [files / "coded.txt"], probabilities()
    with pytest.raises(
        ValueError, match="1 of 2 annotated videos have no scores, 1 video: a_label_B1"
    ):
        score_files({n: probs[n] for n in NAMES[1:]}, annotations, classes=XD_CLASSES)
    with pytest.raises(ValueError, match="annotated up to frame 100, but its scores end at 80"):
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
        (np.zeros((3, 7)), r"v holds scores of shape \('T', 7\), u \('T',\); they must be alike"),
    ],
)
def test_arrays_that_are_no_scores_are_refused_by_name(tmp_path, array, message) -> None:
    np.savez(tmp_path / "s.npz", u=np.zeros(3), v=array)
    with pytest.raises(ValueError, match=message):
        read_scores(tmp_path / "s.npz")


def test_missing_damaged_or_pickled_files_are_refused(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing does not exist; expected a folder"):
        read_scores(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="holds no array"):
        read_scores(tmp_path)
    np.savez(tmp_path / "s.npz", v=np.zeros(30))
    whole = (tmp_path / "s.npz").read_bytes()
    np.save(tmp_path / "s.npy", np.array([{}], dtype=object))
    pickled = (tmp_path / "s.npy").read_bytes()
    for content in (whole[:100], b"", b"text", pickled):
        (tmp_path / "s.npz").write_bytes(content)
        with pytest.raises(ValueError, match="s.npz is damaged, or holds no array of n.*again"):
            read_scores(tmp_path / "s.npz")
    for content in (pickled, b"0.5 0.2 0.1"):  # numpy's own advice on both is of no use here
        (tmp_path / "s.npy").write_bytes(content)
        with pytest.raises(ValueError, match="s.npy is damaged, or holds no array") as caught:
            read_scores(tmp_path)
        assert "allow_pickle" not in str(caught.value)


def test_half_precision_is_widened_and_mp4_stripped(tmp_path) -> None:
    np.savez(tmp_path / "s.npz", **{"v.mp4": np.zeros(3, np.float16)})
    found = read_scores(tmp_path / "s.npz")
    assert found["v"].dtype == np.float32
