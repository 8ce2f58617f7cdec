"""Evaluation against scikit-learn, against loops over frames, and against the release's results."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from avadclip_lite.config import CCTV_CLASSES, XD_CLASSES, make_config
from avadclip_lite.evaluate import (
    Predictions,
    average_precision,
    evaluate,
    frame_metrics,
    name_segments,
    predict_store,
    roc_auc,
    score,
    snippet_truth,
    temporal_map,
    with_normal,
)
from avadclip_lite.model import Output

FIXTURES = Path(__file__).parent / "fixtures"
IOU = (0.1, 0.2, 0.3, 0.4, 0.5)


# --- frame level ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("levels", [3, 10_000])  # few levels: many ties
def test_frame_metrics_equal_scikit_learn_on_expanded_frames(seed: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 40, 12)
    stride = int(rng.choice([1, 4, 16]))
    truth = (rng.random(lengths.sum() * stride) < 0.3).astype(np.uint8)
    truth[: lengths[0] * stride] = 0  # a normal video
    scores = rng.integers(0, levels, lengths.sum()).astype(np.float32) / levels
    positive, negative = snippet_truth(truth, lengths, stride)
    frames = np.repeat(scores, stride)
    assert average_precision(scores, positive, negative) == pytest.approx(
        average_precision_score(truth, frames), abs=1e-12
    )
    assert roc_auc(scores, positive, negative) == pytest.approx(
        roc_auc_score(truth, frames), abs=1e-12
    )


def test_average_precision_by_hand() -> None:
    # ranks: 0.9 (1 of 2 frames positive), 0.5 (2 of 2), 0.1 (0 of 2)
    # AP = 1/3 * 1/2 + 2/3 * 3/4 = 2/3; AUC: of 3 x 3 pairs the positives of 0.9 win 2 and tie 1,
    # those of 0.5 win 2 and lose 1 each: (2.5 + 4) / 9
    scores = np.array([0.1, 0.9, 0.5])
    positive, negative = np.array([0, 1, 2]), np.array([2, 1, 0])
    assert average_precision(scores, positive, negative) == pytest.approx(2 / 3, abs=1e-15)
    assert roc_auc(scores, positive, negative) == pytest.approx(6.5 / 9, abs=1e-15)


def test_undefined_frame_metrics_are_nan() -> None:
    predictions = _predictions(np.random.default_rng(0), [3, 2])
    for truth, undefined in (
        (np.zeros(80, np.uint8), {"frame_ap", "frame_auc", "frame_ap_abnormal"}),
        (np.ones(80, np.uint8), {"frame_auc"}),
    ):
        positive, negative = snippet_truth(truth, np.array([3, 2]), 16)
        metrics = frame_metrics(predictions, positive, negative)
        expected = {f"{m}_{b}" for m in undefined for b in ("classification", "alignment")}
        assert {name for name, value in metrics.items() if math.isnan(value)} == expected


def test_abnormal_videos_alone_and_positive_share() -> None:
    predictions = _predictions(np.random.default_rng(1), [4, 5, 6])
    truth = np.zeros(15 * 16, np.uint8)
    truth[70:120] = 1  # in the second video only, whose frames are 64 to 144
    metrics = frame_metrics(predictions, *snippet_truth(truth, predictions.lengths, 16))
    for branch, scores in (
        ("classification", predictions.anomaly),
        ("alignment", 1 - predictions.alignment[:, 0]),
    ):
        assert metrics[f"frame_ap_abnormal_{branch}"] == pytest.approx(
            average_precision_score(truth[64:144], np.repeat(scores[4:9], 16)), abs=1e-12
        )
    report = score(predictions, truth, [[], [("G", 70, 120)], []], XD_CLASSES, 16)
    assert report.metrics["positive_share"] == 50 / 240
    assert report.metrics | metrics == report.metrics


def test_frame_truth_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(79,\).*5 snippets of 16 frames need \(80,\)"):
        snippet_truth(np.zeros(79), np.array([3, 2]), 16)


def test_scores_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="nan at snippet 1 is not a finite"):
        average_precision(np.array([0.5, np.nan]), np.array([1, 0]), np.array([0, 1]))


# --- events: the measure once more, one frame at a time -------------------------------------------


def literal_map(videos, segments, classes, thresholds=IOU):
    """The released measure, literally: frame-level scores, lists, loops.

    ``videos`` are (N, C) frame scores. Returns the table (I, C) and, by class, the number of
    proposals.
    """
    table = np.zeros((len(thresholds), len(classes)))
    counts = []
    for c, code in enumerate(classes.codes):
        proposals = []
        for v, frames in enumerate(videos):
            column = frames[:, c]
            n = len(column) // 16
            if n == 0:
                continue
            ranked = sorted(column, reverse=True)[:n]
            total = np.float32(0)
            for value in ranked:
                total = np.float32(total + value)
            top = np.float32(total / np.float32(n))
            threshold = float(max(column)) - (float(max(column)) - float(min(column))) * 0.6
            run = []
            for t in range(len(column) + 1):
                if t < len(column) and float(column[t]) > threshold:
                    run.append(t)
                    continue
                if len(run) >= 2:
                    peak = max(column[i] for i in run)
                    proposals.append((v, run[0], run[-1] + 1, peak + np.float32(0.7) * top))
                run = []
        counts.append(len(proposals))
        proposals.sort(key=lambda p: -p[3])  # Python's sort is stable
        truths = [
            (v, start, end)
            for v, found in enumerate(segments)
            for its_code, start, end in found
            if its_code == code
        ]
        for i, threshold in enumerate(thresholds):
            free = list(truths)
            hits, gained = 0, 0.0
            for rank, (v, start, end, _) in enumerate(proposals, start=1):
                best, best_iou = None, 0.0
                for truth in free:
                    if truth[0] != v:
                        continue
                    mine, its = set(range(start, end)), set(range(truth[1], truth[2]))
                    iou = len(mine & its) / len(mine | its)
                    if iou >= threshold and iou > best_iou:
                        best, best_iou = truth, iou
                if best is not None:
                    free.remove(best)
                    hits += 1
                    gained += hits / rank
            table[i, c] = gained / len(truths) if truths else np.nan
    return table, counts


def _random_truth(rng, frames, classes):
    found = []
    for _ in range(rng.integers(0, 4)):
        start = int(rng.integers(0, frames))
        end = min(frames, start + int(rng.integers(1, max(2, frames // 2))))
        found.append((classes.codes[rng.integers(1, len(classes))], start, end))
    return found


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("stride", [1, 4, 16])
def test_temporal_map_equals_the_literal_measure(seed: int, stride: int) -> None:
    rng = np.random.default_rng([seed, stride])
    classes = XD_CLASSES if seed % 2 else CCTV_CLASSES
    lengths = rng.integers(1, 25, 10) * (16 // stride if seed % 3 else 1)
    lengths[0] = 1  # a video of a single snippet
    probs = rng.random((lengths.sum(), len(classes))).astype(np.float32)
    if seed % 4 == 0:
        probs = np.round(probs, 1)  # ties in scores, and plateaus
    probs[: lengths[0] + lengths[1]] = 0.25  # constant: no frame above the threshold
    segments = [_random_truth(rng, int(n) * stride, classes) for n in lengths]
    segments = with_normal(segments, lengths, classes, stride)
    result = temporal_map(probs, lengths, segments, classes, stride)
    videos = [np.repeat(p, stride, axis=0) for p in np.split(probs, np.cumsum(lengths)[:-1])]
    table, counts = literal_map(videos, segments, classes)
    np.testing.assert_allclose(result.table, table, rtol=0, atol=1e-13)
    assert result.proposals.tolist() == counts


def test_map_by_hand() -> None:
    # One video of 6 snippets. Class B1: max 0.9, min 0.1, threshold 0.42, so snippets 1 and 2 are
    # one proposal [16, 48) and snippet 5 another [80, 96) of lower score. Truth [16, 32): IoU 1/2.
    b1 = [0.1, 0.9, 0.5, 0.2, 0.1, 0.6]
    probs = np.stack([1 - np.array(b1), b1], axis=1)
    truth = [[("B1", 16, 32)]]
    result = temporal_map(probs, np.array([6]), truth, CCTV_CLASSES, 16, (0.5, 0.6))
    assert result.table[:, 1].tolist() == [1.0, 0.0]
    assert result.proposals[1] == 2
    # a second truth that only the second proposal meets: (1/1 + 2/2) / 2
    truth[0].append(("B1", 80, 100))
    result = temporal_map(probs, np.array([6]), truth, CCTV_CLASSES, 16, (0.5, 0.6))
    assert result.table[:, 1].tolist() == [1.0, 0.25]  # at 0.6 only rank 2 hits: 1/2 / 2


def test_a_run_of_one_frame_is_no_proposal() -> None:
    probs = np.zeros((32, 2), np.float32)
    probs[5, 1] = probs[10, 1] = probs[11, 1] = 0.5
    result = temporal_map(probs, np.array([32]), [[("B1", 10, 12)]], CCTV_CLASSES, 1)
    assert result.proposals.tolist() == [0, 1]
    assert result.table[:, 1].tolist() == [1.0] * 5


def test_six_and_seven_class_means_without_proposal_or_truth() -> None:
    rng = np.random.default_rng(5)
    lengths = np.array([20, 20])
    probs = rng.random((40, 7)).astype(np.float32)
    segments = [[("B1", 0, 320), ("G", 10, 100)], [("A", 0, 320)]]
    result = temporal_map(probs, lengths, segments, XD_CLASSES, 16, (0.1,))
    assert np.isnan(result.table[0, 2:6]).all()  # B2 to B6 are not in the truth
    assert result.anomaly[0] == pytest.approx((result.table[0, 1] + result.table[0, 6]) / 2)
    assert result.with_normal[0] == pytest.approx(np.nansum(result.table[0]) / 7)
    assert result.with_normal[0] > 0
    probs[:, 3] = 0.1  # constant, so nothing is proposed for B4, which the truth does not hold
    silent = temporal_map(probs, lengths, segments, XD_CLASSES, 16, (0.1,))
    assert silent.with_normal[0] == 0
    assert silent.anomaly[0] == result.anomaly[0]
    none = temporal_map(probs, lengths, [[], [("A", 0, 320)]], XD_CLASSES, 16, (0.1,))
    assert math.isnan(none.anomaly[0])


def test_shapes_and_codes_that_do_not_fit_are_refused() -> None:
    probs = np.zeros((4, 2), np.float32)
    with pytest.raises(ValueError, match=r"\(4, 2\).*need \(5, 2\)"):
        temporal_map(probs, np.array([3, 2]), [[], []], CCTV_CLASSES, 16)
    with pytest.raises(ValueError, match="truth for 1 videos, but lengths of 2"):
        temporal_map(probs, np.array([2, 2]), [[]], CCTV_CLASSES, 16)
    with pytest.raises(ValueError, match="unknown label code 'Z9'"):
        temporal_map(probs, np.array([4]), [[("Z9", 0, 5)]], CCTV_CLASSES, 16)
    with pytest.raises(ValueError, match="video 1 has 0 snippets"):
        temporal_map(probs, np.array([4, 0]), [[], []], CCTV_CLASSES, 16)


# --- the release's own results --------------------------------------------------------------------


@pytest.mark.parametrize("stride", [1, 16])
def test_map_is_bit_equal_to_the_release_on_edge_cases(stride: int) -> None:
    with np.load(FIXTURES / "ref_map_edge.npz", allow_pickle=False) as reference:
        videos = [reference[name][::stride] for name in ("p0", "p1", "p2")]
        expected, mean = reference["base_per_class"], reference["base_dmap"]
    segments = [[("B1", 0, 100), ("G", 150, 300)], [("B2", 16, 200)], [("A", 0, 192)]]
    lengths = np.array([len(video) for video in videos])
    result = temporal_map(np.concatenate(videos), lengths, segments, XD_CLASSES, stride)
    assert np.array_equal(np.where(result.truths > 0, result.table, 0), expected)
    assert np.array_equal(100 * result.with_normal, mean)


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_alignment_branch_equals_the_release_on_its_own_outputs(role: str) -> None:
    with np.load(FIXTURES / "ref_frame_pipeline.npz", allow_pickle=False) as reference:
        data = {name: reference[name] for name in reference.files}
    lengths, probs = data["lengths"], data[f"{role}.probs2"]
    spans, codes = json.loads(str(data["segments"])), json.loads(str(data["codes"]))
    segments = [
        [(code, int(start), int(end)) for (start, end), code in zip(video, its, strict=True)]
        for video, its in zip(spans, codes, strict=True)
    ]
    predictions = Predictions(
        names=[f"v{i}" for i in range(len(lengths))],
        lengths=lengths,
        anomaly_logits=np.zeros(len(probs), np.float32),
        alignment=probs,
    )
    positive, negative = snippet_truth(data["frame_truth"], lengths, 16)
    metrics = frame_metrics(predictions, positive, negative)
    assert metrics["frame_ap_alignment"] == pytest.approx(float(data[f"{role}.AP2"]), abs=1e-12)
    assert metrics["frame_auc_alignment"] == pytest.approx(float(data[f"{role}.AUC2"]), abs=1e-12)
    result = temporal_map(probs, lengths, segments, XD_CLASSES, 16)
    assert np.array_equal(100 * result.with_normal, data[f"{role}.dmap"])


# --- a model on a store ---------------------------------------------------------------------------


class FakeStore:
    """The part of a feature store that evaluation uses; video i has lengths[i] snippets."""

    def __init__(self, lengths, *, silent=(), stride=16):
        rng = np.random.default_rng(11)
        self.path, self.classes, self.stride, self.dim = "fake", XD_CLASSES, stride, 8
        self.features = [rng.standard_normal((n, 8)).astype(np.float16) for n in lengths]
        self.sound = [rng.standard_normal((n, 8)).astype(np.float16) for n in lengths]
        self.silent = silent
        self.videos = [
            SimpleNamespace(name=f"v{i}", label="B1" if i % 2 else "A") for i in range(len(lengths))
        ]

    def indices(self, split):
        return np.arange(len(self.videos)) if split == "test" else np.array([], dtype=int)

    def video(self, i):
        return self.features[i]

    def audio(self, i):
        return None if i in self.silent else self.sound[i]

    def uncut(self, i):
        return self.video(i), self.audio(i)

    def audio_mask(self, i):
        return np.full(len(self.features[i]), i not in self.silent)

    def segments(self, i, frames=None):
        return [("B1", 8, 8 + 16 * (len(self.features[i]) // 2))] if i % 2 else []

    def frame_truth(self, rows, frames=None):
        truth = [np.zeros(len(self.features[i]) * self.stride, np.uint8) for i in rows]
        for i, frames in zip(rows, truth, strict=True):
            for _, start, end in self.segments(i):
                frames[start:end] = 1
        return np.concatenate(truth)


class FakeModel(torch.nn.Module):
    """A detector whose outputs can be told by hand: the logit of a snippet is the sum of its
    features plus its audio's first entry; it refuses to run in training mode."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))
        self.drop = torch.nn.Dropout(0.5)
        self.settings = make_config(dim=8)
        self.max_snippets = 256
        self.shapes = []

    def forward(self, batch):
        video, audio, audio_mask = batch.video, batch.audio, batch.audio_mask
        lengths = batch.lengths
        assert not self.training and not self.drop.training and not torch.is_grad_enabled()
        self.shapes.append(tuple(video.shape[:2]))
        valid = torch.arange(video.shape[1]) < lengths[:, None]
        assert not video[~valid].any() and not audio_mask[~valid].any()
        logit = self.scale * video.sum(-1) + torch.where(audio_mask, audio[..., 0], 100.0)
        # the position inside the chunk shows where chunks begin
        position = torch.arange(video.shape[1]).expand_as(logit)
        alignment = torch.stack([position / 256.0, *([logit] * 6)], dim=-1)
        return Output(anomaly_logits=logit, alignment_logits=alignment, mask=valid)


@pytest.mark.parametrize("batch", [1, 3, 32])
def test_predict_cuts_and_joins_chunks_in_store_order(batch: int) -> None:
    lengths = [1, 300, 256, 5, 257, 512, 40]
    store, model = FakeStore(lengths, silent=(3,)), FakeModel()
    model.train()
    model.drop.eval()
    rows = [6, 1, 2, 3, 4, 5, 0]
    got = predict_store(model, store, rows, batch_size=batch)
    assert model.training and not model.drop.training  # each module as it was
    assert got.names == [f"v{i}" for i in rows]
    assert got.lengths.tolist() == [lengths[i] for i in rows]
    assert got.anomaly.dtype == got.alignment.dtype == np.float32
    for v, i in enumerate(rows):
        anomaly, alignment = got.video(v)
        video = store.features[i].astype(np.float64).sum(1)
        logit = video + (100.0 if i == 3 else store.sound[i][:, 0].astype(np.float64))
        np.testing.assert_allclose(anomaly, 1 / (1 + np.exp(-logit)), atol=1e-5)
        position = (np.arange(lengths[i]) % 256) / 256
        normal = np.exp(position) / (np.exp(position) + 6 * np.exp(logit))
        np.testing.assert_allclose(alignment[:, 0], normal, atol=1e-5)
        np.testing.assert_allclose(alignment.sum(1), 1, atol=1e-6)
    # sorted by length, a batch is as long as its longest chunk
    assert sum(b for b, _ in model.shapes) == 10
    assert [t for _, t in model.shapes] == sorted((t for _, t in model.shapes), reverse=True)


def test_predict_restores_the_mode_after_an_error() -> None:
    model = FakeModel().train()
    model.forward = None
    with pytest.raises(TypeError):
        predict_store(model, FakeStore([3]), [0])
    assert model.training and model.drop.training


def test_predict_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match="'fp8'"):
        predict_store(FakeModel(), FakeStore([3]), [0], precision="fp8")
    with pytest.raises(ValueError, match="no rows to score"):
        evaluate(FakeModel(), FakeStore([3]), split="train")


def test_evaluate_reports_flat_documented_names() -> None:
    store = FakeStore([20, 30, 257, 40])
    report = evaluate(FakeModel(), store)
    truth = store.frame_truth(range(4))
    frames = np.repeat(report.predictions.anomaly, 16)
    assert report.metrics["frame_ap_classification"] == pytest.approx(
        average_precision_score(truth, frames), abs=1e-12
    )
    assert report.metrics["frame_auc_alignment"] == pytest.approx(
        roc_auc_score(truth, np.repeat(1 - report.predictions.alignment[:, 0], 16)), abs=1e-12
    )
    assert all(type(value) is float for value in report.metrics.values())
    assert report.metrics["frames"] == 347 * 16
    assert report.metrics["map_B1"] == report.metrics["map_anomaly"]  # the only class shown
    assert math.isnan(report.metrics["map_G@0.5"])
    for name in ("map_anomaly@0.1", "map_with_normal", "map_A", "frame_ap_abnormal_alignment"):
        assert name in report.metrics


def test_binary_annotations_take_the_class_of_a_video_that_has_one() -> None:
    segments = [(None, 0, 16), ("G", 20, 30)]
    assert name_segments(segments, ("B2",)) == [("B2", 0, 16), ("G", 20, 30)]
    assert name_segments(segments, ("B2", "G")) == segments


def test_videos_without_classes_in_the_truth_are_left_out_of_the_map() -> None:
    predictions = _predictions(np.random.default_rng(2), [20, 30, 25])
    truth = np.zeros(75 * 16, np.uint8)
    truth[:100] = truth[330:500] = 1
    segments = [[("G", 0, 100)], [(None, 10, 180)], []]
    report = score(predictions, truth, segments, XD_CLASSES, 16)
    assert "1 videos are left out" in report.notes[0] and "v1" in report.notes[0]
    rest = np.r_[0:20, 50:75]
    expected = temporal_map(
        predictions.alignment[rest],
        np.array([20, 25]),
        [[("G", 0, 100)], [("A", 0, 400)]],
        XD_CLASSES,
        16,
    )
    assert report.metrics["map_anomaly"] == expected.anomaly.mean()
    assert report.metrics["map_with_normal"] == expected.with_normal.mean()
    open_ended = score(predictions, truth, [[(None, 0, 100)]] * 3, XD_CLASSES, 16)
    assert open_ended.map_result is None and open_ended.metrics["frame_ap_alignment"] > 0
    assert not any(name.startswith("map_") for name in open_ended.metrics)


def test_score_says_when_a_silent_class_zeroes_the_seven_class_mean() -> None:
    predictions = _predictions(np.random.default_rng(2), [20, 20])
    predictions.alignment[:, 4] = 0.1
    truth = np.zeros(640, np.uint8)
    truth[:100] = 1
    report = score(predictions, truth, [[("B1", 0, 100)], []], XD_CLASSES, 16)
    assert report.metrics["map_with_normal"] == 0
    assert "B5" in report.notes[0]


def _predictions(rng, lengths) -> Predictions:
    alignment = rng.random((sum(lengths), 7)).astype(np.float32)
    return Predictions(
        names=[f"v{i}" for i in range(len(lengths))],
        lengths=np.array(lengths),
        anomaly_logits=rng.standard_normal(sum(lengths)).astype(np.float32),
        alignment=alignment / alignment.sum(1, keepdims=True),
    )
