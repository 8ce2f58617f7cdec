"""Evaluation: predict videos, then score frames (AP, AUC) and events (temporal mAP).

Every measure is a pure function of arrays, so it scores anybody's detector; ``evaluate`` puts them
together for a model and a feature store. All results are fractions in [0, 1]; the paper prints
them times 100.

Shape letters: V videos, S snippets of all V videos one after another, N frames (N = stride x T),
C classes (class 0 is normal), I IoU thresholds.

Scores are constant within a snippet, the truth is not (an event may begin in the middle of one),
so a snippet enters the frame measures as a number of positive and a number of negative frames.
That gives exactly the values of scores expanded to frames, without expanding them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from avadclip_lite.config import IOU_THRESHOLDS, ClassSet
from avadclip_lite.dataset import Batch, FeatureStore, Segment, parse_codes
from avadclip_lite.model import Detector, Output

__all__ = [
    "MapResult",
    "Predictions",
    "Report",
    "average_precision",
    "evaluate",
    "event_metrics",
    "frame_metrics",
    "frame_notes",
    "name_segments",
    "pooled_metrics",
    "predict",
    "predict_store",
    "predict_videos",
    "roc_auc",
    "score",
    "snippet_truth",
    "temporal_map",
    "with_normal",
]

# The released mAP's constants.
THRESHOLD_SHARE = 0.6  # threshold = max - share x (max - min), per video and class
TOP_WEIGHT = 0.7  # a proposal's score = its maximum + weight x the video's top mean
TOP_DIVISOR = 16  # that mean is over the floor(N / 16) highest frames, whatever the stride
MIN_FRAMES = 2  # a shorter run above the threshold is no proposal


# --- results --------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Scores of V videos at snippet level, in the order in which they were asked for."""

    names: list[str]
    lengths: np.ndarray  # (V,) int64, snippets
    anomaly_logits: np.ndarray  # (S,) float32, classification branch
    alignment: np.ndarray | None  # (S, C) float32, alignment branch: softmax over classes

    @property
    def anomaly(self) -> np.ndarray:
        """(S,) float32: the confidence, sigmoid of the anomaly logits."""
        return torch.from_numpy(self.anomaly_logits).sigmoid().numpy()

    @property
    def alignment_anomaly(self) -> np.ndarray | None:
        """(S,) float32: one minus the alignment branch's probability of normal."""
        return None if self.alignment is None else 1 - self.alignment[:, 0]

    @property
    def offsets(self) -> np.ndarray:
        """(V + 1,) int64: video v owns the snippets offsets[v] to offsets[v + 1]."""
        return _offsets(self.lengths)

    def video(self, v: int) -> tuple[np.ndarray, np.ndarray | None]:
        """``anomaly (T,)`` and ``alignment (T, C)`` of one video."""
        own = slice(*self.offsets[v : v + 2])
        return self.anomaly[own], None if self.alignment is None else self.alignment[own]


@dataclass(frozen=True, kw_only=True)
class MapResult:
    """Temporal mAP. ``table[i, c]`` is the AP of class c at IoU threshold i: NaN when no video
    shows the class, 0 when it is shown but nothing was proposed or matched."""

    classes: tuple[str, ...]  # codes, normal first
    thresholds: tuple[float, ...]
    table: np.ndarray  # (I, C) float64
    truths: np.ndarray  # (C,) int64, annotated segments a class
    proposals: np.ndarray  # (C,) int64, proposed segments a class

    @property
    def anomaly(self) -> np.ndarray:
        """(I,) mean over the anomaly classes that occur in the truth (six on XD-Violence): what
        the field means by mAP. NaN when none occurs."""
        shown = self.truths[1:] > 0
        if not shown.any():
            return np.full(len(self.thresholds), np.nan)
        return self.table[:, 1:][:, shown].mean(axis=1)

    @property
    def with_normal(self) -> np.ndarray:
        """(I,) the release's measure: mean over all classes, normal included. A class without
        truth counts 0, and one class without a proposal makes the whole measure 0."""
        if (self.proposals == 0).any():
            return np.zeros(len(self.thresholds))
        table = np.where(self.truths > 0, self.table, 0.0)
        return np.array([np.mean(row) for row in table])

    @property
    def anomaly_average(self) -> float:
        """Mean of ``anomaly`` over the IoU thresholds."""
        return float(np.mean(self.anomaly))

    @property
    def with_normal_average(self) -> float:
        """Mean of ``with_normal`` over the IoU thresholds."""
        return float(np.mean(self.with_normal))

    def metrics(self) -> dict[str, float]:
        """Flat names: ``map_anomaly``, ``map_with_normal@0.1``, ``map_B1``, ``map_B1@0.1``, ..."""
        columns = {"anomaly": self.anomaly, "with_normal": self.with_normal}
        columns |= {code: self.table[:, c] for c, code in enumerate(self.classes)}
        out = {}
        for name, values in columns.items():
            out[f"map_{name}"] = float(np.mean(values))
            for threshold, value in zip(self.thresholds, values, strict=True):
                out[f"map_{name}@{threshold:g}"] = float(value)
        return out


@dataclass(frozen=True, kw_only=True)
class Report:
    """What ``evaluate`` found. ``metrics`` is flat; its names:

    - ``frame_ap_classification``, ``frame_auc_classification``, and with ``_alignment`` the same of
      the other branch: frame level, pooled over all videos;
    - ``frame_ap_abnormal_classification``, ``..._alignment``: AP over the frames of the videos that
      hold at least one anomalous frame;
    - ``positive_share``: share of anomalous frames, the AP of a detector that guesses;
    - ``map_anomaly``, ``map_anomaly@0.1`` ...: temporal mAP over the anomaly classes, mean over the
      IoU thresholds and at each;
    - ``map_with_normal`` ...: as the release averages, normal included;
    - ``map_B1`` ...: one class (every code of the class set);
    - ``videos``, ``snippets``, ``frames``: what was scored.

    A measure that the truth does not define is NaN, and ``notes`` says why under the same name.
    Where annotations name no class, ``notes["map"]`` says how many videos are left out of the
    mAP; without any that is left, or with a detector that names no classes, ``map_result`` is None.
    """

    metrics: dict[str, float]
    predictions: Predictions
    map_result: MapResult | None = None
    notes: dict[str, str] = field(default_factory=dict)


# --- frame level ----------------------------------------------------------------------------------


def snippet_truth(
    truth: np.ndarray, lengths: np.ndarray, stride: int
) -> tuple[np.ndarray, np.ndarray]:
    """Positive and negative frames of every snippet, both (S,) int64.

    ``truth`` is 0 or 1 per frame, the videos one after another, ``stride x lengths[v]`` frames
    each. Raises ``ValueError`` when the number of frames is another.
    """
    truth = np.asarray(truth)
    frames = int(np.sum(lengths)) * stride
    if truth.shape != (frames,):
        raise ValueError(
            f"frame truth has shape {truth.shape}, but {int(np.sum(lengths))} snippets of "
            f"{stride} frames need ({frames},); cut or extend it to the scored snippets"
        )
    positive = truth.reshape(-1, stride).sum(axis=1, dtype=np.int64)
    return positive, stride - positive


def _weighted(
    scores: np.ndarray, positive: np.ndarray, negative: np.ndarray
) -> dict[str, np.ndarray]:
    """Each snippet twice, as its positive and as its negative frames: scikit-learn's arguments.
    Raises ``ValueError`` for unequal shapes or a score that is not finite."""
    scores, positive, negative = map(np.asarray, (scores, positive, negative))
    if not scores.shape == positive.shape == negative.shape:
        raise ValueError(
            f"scores {scores.shape}, positive {positive.shape} and negative {negative.shape} "
            "frames must have one and the same shape (S,)"
        )
    if not np.isfinite(scores).all():
        bad = int(np.flatnonzero(~np.isfinite(scores))[0])
        raise ValueError(f"score {scores[bad]} at snippet {bad} is not a finite number")
    return {
        "y_true": np.repeat([1, 0], len(scores)),
        "y_score": np.tile(scores, 2),
        "sample_weight": np.concatenate([positive, negative]).astype(np.float64),
    }


def average_precision(scores: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> float:
    """Average precision of frames.

    ``scores (S,)``, ``positive (S,)`` and ``negative (S,)`` frames of each snippet. NaN when there
    is no positive frame. Raises ``ValueError`` for unequal shapes or a score that is not finite.
    """
    frames = _weighted(scores, positive, negative)
    return float(average_precision_score(**frames)) if np.any(positive) else math.nan


def roc_auc(scores: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> float:
    """Area under the ROC curve of frames, arguments as in ``average_precision``. NaN when every
    frame is positive or every frame is negative."""
    frames = _weighted(scores, positive, negative)
    both = np.any(positive) and np.any(negative)
    return float(roc_auc_score(**frames)) if both else math.nan


def pooled_metrics(
    scores: np.ndarray, lengths: np.ndarray, positive: np.ndarray, negative: np.ndarray
) -> dict[str, float]:
    """``frame_ap``, ``frame_auc``, and ``frame_ap_abnormal``: AP over the videos that hold an
    anomalous frame.

    ``scores (S,)`` of videos of ``lengths (V,)`` snippets; ``positive (S,)`` and ``negative (S,)``
    frames from ``snippet_truth``. NaN where the truth does not define a measure.
    """
    video = np.repeat(np.arange(len(lengths)), lengths)
    abnormal = np.isin(video, video[np.asarray(positive) > 0])
    theirs = (x[abnormal] for x in (scores, positive, negative))
    return {
        "frame_ap": average_precision(scores, positive, negative),
        "frame_auc": roc_auc(scores, positive, negative),
        "frame_ap_abnormal": average_precision(*theirs),
    }


def frame_metrics(
    predictions: Predictions, positive: np.ndarray, negative: np.ndarray
) -> dict[str, float]:
    """``pooled_metrics`` of the branches that there are, the branch's name at the end of each."""
    branches = {
        "classification": predictions.anomaly,
        "alignment": predictions.alignment_anomaly,
    }
    return {
        f"{name}_{branch}": value
        for branch, scores in branches.items()
        if scores is not None
        for name, value in pooled_metrics(scores, predictions.lengths, positive, negative).items()
    }


def frame_notes(metrics: Mapping[str, float], positive: np.ndarray) -> dict[str, str]:
    """The reason for each NaN among frame metrics: the truth lacks one of its two values."""
    missing = "normal" if np.any(positive) else "anomalous"
    return {
        name: f"undefined: no frame of the truth is {missing}"
        for name, value in metrics.items()
        if math.isnan(value)
    }


# --- events ---------------------------------------------------------------------------------------


def with_normal(
    segments: Sequence[Sequence[Segment]], lengths: np.ndarray, classes: ClassSet, stride: int
) -> list[list[Segment]]:
    """The truth as the release scores it: a video without an anomalous segment becomes one whole
    segment of the normal class, ``stride x lengths[v]`` frames long."""
    normal = classes.codes[0]
    return [
        list(found) or [(normal, 0, int(length) * stride)]
        for found, length in zip(segments, lengths, strict=True)
    ]


def temporal_map(
    probs: np.ndarray,
    lengths: np.ndarray,
    segments: Sequence[Sequence[Segment]],
    classes: ClassSet,
    stride: int,
    thresholds: tuple[float, ...] = IOU_THRESHOLDS,
) -> MapResult:
    """Mean average precision of temporal detections, as the release computes it.

    Per video and class the threshold is max - 0.6 (max - min); each run of at least two frames
    above it is a proposal, scored with its maximum + 0.7 x the mean of the video's floor(N / 16)
    highest frames of that class (a video of fewer frames proposes nothing). From the best score
    down, a proposal takes the free truth of its video and class with the highest IoU, if that
    reaches the IoU threshold; AP is the sum of the precisions at the true positives over the
    number of truths.

    Args:
        probs: (S, C) class probabilities, the videos one after another; float32 for exact
            equality with the release, whose arithmetic is in that type.
        lengths: (V,) snippets of each video, at least one.
        segments: for each video its truth (code, first frame, end frame exclusive), whole-video
            normal segments included (``with_normal``).
        classes: the class set, C codes.
        stride: frames a snippet; 1 for scores that are given per frame.
        thresholds: IoU thresholds, I of them.

    Raises ``ValueError`` for shapes that do not fit or an unknown code.
    """
    probs, lengths = np.asarray(probs), np.asarray(lengths, dtype=np.int64)
    if probs.shape != (lengths.sum(), len(classes)):
        raise ValueError(
            f"probabilities have shape {probs.shape}, but the lengths and the classes of "
            f"{classes.name} need ({lengths.sum()}, {len(classes)})"
        )
    if len(segments) != len(lengths):
        raise ValueError(f"truth for {len(segments)} videos, but lengths of {len(lengths)}")
    if len(lengths) and lengths.min() < 1:
        raise ValueError(f"video {int(lengths.argmin())} has {lengths.min()} snippets")
    code_index = {code: c for c, code in enumerate(classes.codes)}
    truth = np.array(
        [
            (code_index[code] if code in code_index else classes.index(code), v, start, end)
            for v, found in enumerate(segments)
            for code, start, end in found
        ],
        dtype=np.int64,
    ).reshape(-1, 4)
    truth = truth[np.argsort(truth[:, 0], kind="stable")]  # by class, then video, as listed
    found, scores = _proposals(probs, lengths, stride)
    table = np.full((len(thresholds), len(classes)), np.nan)
    class_ids = np.arange(len(classes) + 1)
    truth_bounds = np.searchsorted(truth[:, 0], class_ids)
    found_bounds = np.searchsorted(found[:, 0], class_ids)
    for c in range(len(classes)):
        of_class = slice(truth_bounds[c], truth_bounds[c + 1])
        if truth_bounds[c] < truth_bounds[c + 1]:
            mine = slice(found_bounds[c], found_bounds[c + 1])
            table[:, c] = _class_ap(found[mine, 1:], scores[mine], truth[of_class, 1:], thresholds)
    return MapResult(
        classes=classes.codes,
        thresholds=tuple(thresholds),
        table=table,
        truths=np.diff(truth_bounds),
        proposals=np.diff(found_bounds),
    )


def _proposals(
    probs: np.ndarray, lengths: np.ndarray, stride: int
) -> tuple[np.ndarray, np.ndarray]:
    """Proposals (P, 4) as class, video, first frame, end frame, by class, then video, then time;
    and their scores (P,)."""
    offsets = _offsets(lengths)
    top = _top_means(probs, offsets, stride)  # (V, C)
    high = np.maximum.reduceat(probs, offsets[:-1], axis=0).astype(np.float64)
    low = np.minimum.reduceat(probs, offsets[:-1], axis=0).astype(np.float64)
    threshold = high - (high - low) * THRESHOLD_SHARE
    # The release zeroes a video's class whose top mean is not above 0 (NaN when N < 16): no
    # frame is then above the threshold.
    threshold[~(top > 0)] = np.inf
    above = (probs > np.repeat(threshold, lengths, axis=0)).T  # (C, S)
    before, after = above.copy(), above.copy()
    before[:, 1:] &= ~above[:, :-1]
    before[:, offsets[:-1]] = above[:, offsets[:-1]]  # a run never crosses into the next video
    after[:, :-1] &= ~above[:, 1:]
    after[:, offsets[1:] - 1] = above[:, offsets[1:] - 1]
    c, start = np.nonzero(before)
    end = np.nonzero(after)[1] + 1
    video = np.repeat(np.arange(len(lengths)), lengths)[start]
    by_class = np.ascontiguousarray(probs.T).ravel()
    edges = np.stack([start, end], axis=1) + c[:, None] * len(probs)
    # reduceat wants indices inside the array: one sentinel for a run that ends with it
    peaks = np.maximum.reduceat(np.append(by_class, probs.dtype.type(0)), edges.ravel())[::2]
    scores = peaks + probs.dtype.type(TOP_WEIGHT) * top[video, c]
    first = offsets[video]
    found = np.stack([c, video, (start - first) * stride, (end - first) * stride], axis=1)
    long = (end - start) * stride >= MIN_FRAMES
    return found[long], scores[long]


def _top_means(probs: np.ndarray, offsets: np.ndarray, stride: int) -> np.ndarray:
    """(V, C): mean of the floor(N / 16) highest frames of each video and class, NaN for N < 16.

    Added up frame after frame in the scores' own type, the highest first, so that the rounding is
    the release's; only the frames that enter the mean are ever expanded.
    """
    out = np.full((len(offsets) - 1, probs.shape[1]), np.nan, dtype=probs.dtype)
    for v, (start, end) in enumerate(zip(offsets[:-1], offsets[1:], strict=True)):
        frames = (end - start) * stride // TOP_DIVISOR
        if frames:
            highest = -np.sort(-probs[start:end], axis=0)[: -(-frames // stride)]
            out[v] = np.mean(np.repeat(highest, stride, axis=0)[:frames], axis=0)
    return out


def _class_ap(
    found: np.ndarray, scores: np.ndarray, truth: np.ndarray, thresholds: tuple[float, ...]
) -> np.ndarray:
    """AP (I,) of one class; ``found (P, 3)`` and ``truth (G, 3)`` as video, first, end frame, both
    by video."""
    out = np.zeros(len(thresholds))
    found = found[np.argsort(-scores, kind="stable")]
    # every pair of a proposal and a truth of the same video
    first = np.searchsorted(truth[:, 0], found[:, 0], side="left")
    count = np.searchsorted(truth[:, 0], found[:, 0], side="right") - first
    rank = np.repeat(np.arange(len(found)), count)
    nth = np.arange(len(rank)) - np.repeat(np.cumsum(count) - count, count)
    which = np.repeat(first, count) + nth
    (p_start, p_end), (t_start, t_end) = found[rank, 1:].T, truth[which, 1:].T
    shared = np.clip(np.minimum(p_end, t_end) - np.maximum(p_start, t_start), 0, None)
    iou = shared / ((p_end - p_start) + (t_end - t_start) - shared)
    # A proposal's truths from the highest IoU down: the first free one is its match. Only pairs
    # that reach the lowest threshold are left, so this loop is short.
    order = np.lexsort((which, -iou, rank))
    order = order[iou[order] >= min(thresholds)]
    pairs = list(zip(rank[order].tolist(), which[order].tolist(), iou[order].tolist(), strict=True))
    for i, threshold in enumerate(thresholds):
        matched: dict[int, int] = {}
        taken: set[int] = set()
        for p, t, overlap in pairs:
            if overlap >= threshold and p not in matched and t not in taken:
                matched[p] = t
                taken.add(t)
        if matched:
            true = np.zeros(len(found))
            true[list(matched)] = 1
            precision = np.cumsum(true) / np.arange(1, len(found) + 1)
            out[i] = np.sum(precision * true) / len(truth)
    return out


def _offsets(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


# --- a detector on videos -------------------------------------------------------------------------

# video (T, D), audio (T or less, D) or None, audio_mask (T,) bool or None: where there is sound
Video = tuple[np.ndarray, np.ndarray | None, np.ndarray | None]


@torch.no_grad()
def predict(model: Detector, batch: Batch, precision: str = "float32") -> Output:
    """What a detector says about a batch in eval mode, logits in float32: the one way from features
    to scores, of training's choice of an epoch, evaluation, thresholds and files alike.

    ``precision`` "bf16" computes under autocast. The model's mode is the former one afterwards.
    """
    if precision not in ("float32", "bf16"):
        raise ValueError(f"precision must be 'float32' or 'bf16', got {precision!r}")
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.autocast(batch.lengths.device.type, torch.bfloat16, precision == "bf16"):
            output = model(batch)
    finally:
        for module, mode in modes:
            module.training = mode
    classes = output.alignment_logits
    return replace(
        output,
        anomaly_logits=output.anomaly_logits.float(),
        alignment_logits=None if classes is None else classes.float(),
    )


def predict_videos(
    model: Detector,
    videos: Sequence[Video],
    names: Sequence[str] | None = None,
    *,
    precision: str = "float32",
    batch_size: int = 32,
) -> Predictions:
    """Score videos in full length, where the model is.

    As in the release a video is cut into chunks of at most ``model.max_snippets`` (256), each an
    own forward pass, and the outputs are joined. Chunks of several videos share a batch, sorted by
    length, so that little padding is computed; a model of ``fixed_length`` gets every chunk padded
    to ``max_snippets``, because there padding changes the result.
    """
    device = next(model.parameters()).device
    lengths = np.array([len(video) for video, *_ in videos], dtype=np.int64)
    offsets = _offsets(lengths)
    most = model.max_snippets or int(lengths.max())
    pieces = -(-lengths // most)
    of_video = np.repeat(np.arange(len(videos)), pieces)
    starts = most * (np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces))
    sizes = np.minimum(lengths[of_video] - starts, most)
    anomaly, alignment = np.empty(offsets[-1], np.float32), None
    order = np.argsort(-sizes, kind="stable")
    for ids in np.split(order, range(batch_size, len(order), batch_size)):
        longest = most if model.fixed_length else int(sizes[ids].max())
        cut = [
            _cut(videos[v], start, size)
            for v, start, size in zip(of_video[ids], starts[ids], sizes[ids], strict=True)
        ]
        output = predict(model, _padded(cut, longest).to(device), precision)
        valid = np.arange(longest) < sizes[ids][:, None]  # (B, T)
        place = ((offsets[of_video[ids]] + starts[ids])[:, None] + np.arange(longest))[valid]
        anomaly[place] = output.anomaly_logits.cpu().numpy()[valid]
        if output.class_probabilities is not None:
            classes = output.class_probabilities.cpu().numpy()
            if alignment is None:
                alignment = np.empty((offsets[-1], classes.shape[-1]), np.float32)
            alignment[place] = classes[valid]
    return Predictions(
        names=list(names or map(str, range(len(videos)))),
        lengths=lengths,
        anomaly_logits=anomaly,
        alignment=alignment,
    )


def _cut(video: Video, start: int, size: int) -> Video:
    """A chunk of a video, with an audio mask in any case."""
    seen, sound, mask = (None if x is None else x[start : start + size] for x in video)
    if mask is None:
        mask = np.arange(size) < (0 if sound is None else len(sound))
    return seen, sound, mask


def _padded(chunks: Sequence[Video], longest: int) -> Batch:
    """Chunks as one batch of ``longest`` snippets, zeros where there is nothing."""
    dim = chunks[0][0].shape[1]
    video = np.zeros((len(chunks), longest, dim), np.float32)
    audio, audio_mask = np.zeros_like(video), np.zeros(video.shape[:2], bool)
    for b, (seen, sound, mask) in enumerate(chunks):
        video[b, : len(seen)] = seen
        if sound is not None:
            audio[b, : len(sound)] = sound
            audio_mask[b, : len(mask)] = mask
    return Batch(
        video=torch.from_numpy(video),
        audio=torch.from_numpy(audio * audio_mask[..., None]),
        audio_mask=torch.from_numpy(audio_mask),
        lengths=torch.tensor([len(seen) for seen, *_ in chunks]),
    )


def predict_store(
    model: Detector,
    store: FeatureStore,
    rows: Sequence[int] | np.ndarray,
    *,
    precision: str = "float32",
    batch_size: int = 32,
) -> Predictions:
    """``predict_videos`` of rows of a store, V of them; the predictions come in this order. A model
    that resamples each modality alone, as the release, sees the video's own length, else the length
    shared with its audio. Raises ``ValueError`` for no rows or another feature width."""
    if not len(rows):
        raise ValueError(f"{store.path}: no rows to score; choose a split that has videos")
    if model.settings.model.dim != store.dim:
        raise ValueError(
            f"the detector takes features {model.settings.model.dim} wide, those in {store.path} "
            f"are {store.dim} wide"
        )
    separate = model.settings.data.resample == "separate"
    videos = []
    for i in rows:
        video, audio = store.uncut(i) if separate else (store.video(i), store.audio(i))
        audio = None if audio is None else audio[: len(video)]
        videos.append((video, audio, store.audio_mask(i)[: len(video)]))
    names = [store.videos[i].name for i in rows]
    return predict_videos(model, videos, names, precision=precision, batch_size=batch_size)


def evaluate(
    model: Detector,
    store: FeatureStore,
    split: str = "test",
    *,
    precision: str = "float32",
    batch_size: int = 32,
) -> Report:
    """Predict a split of the store and score it; arguments as in ``predict_store``."""
    rows = store.indices(split)
    predictions = predict_store(model, store, rows, precision=precision, batch_size=batch_size)
    frames = predictions.lengths * store.stride
    segments = [
        name_segments(store.segments(i, n), parse_codes(store.videos[i].label, store.classes))
        for i, n in zip(rows, frames.tolist(), strict=True)
    ]
    truth = store.frame_truth(rows, frames)
    return score(predictions, truth, segments, store.classes, store.stride)


def name_segments(segments: Sequence[Segment], codes: Sequence[str]) -> list[Segment]:
    """Segments without a class (binary annotations) take the video's, where it has only one."""
    only = codes[0] if len(codes) == 1 else None
    return [(code or only, start, end) for code, start, end in segments]


def score(
    predictions: Predictions,
    truth: np.ndarray,
    segments: Sequence[Sequence[Segment]],
    classes: ClassSet,
    stride: int,
) -> Report:
    """All measures of ``Report`` from predictions and the truth.

    ``truth`` is 0 or 1 per frame, the videos one after another; ``segments`` holds each video's
    anomalous segments (normal videos none: they become whole normal segments here). A video with
    a segment of unknown class (None) is left out of the mAP.
    """
    positive, negative = snippet_truth(truth, predictions.lengths, stride)
    metrics = frame_metrics(predictions, positive, negative)
    notes = frame_notes(metrics, positive)
    events, event_notes, result = {}, {}, None
    if predictions.alignment is not None:
        events, event_notes, result = event_metrics(
            predictions.names, predictions.alignment, predictions.lengths, segments, classes, stride
        )
    metrics |= events | {
        "positive_share": float(positive.sum() / len(truth)),
        "videos": float(len(predictions.lengths)),
        "snippets": float(len(predictions.anomaly_logits)),
        "frames": float(len(truth)),
    }
    return Report(
        metrics=metrics, predictions=predictions, map_result=result, notes=notes | event_notes
    )


def event_metrics(
    names: Sequence[str],
    probs: np.ndarray,
    lengths: np.ndarray,
    segments: Sequence[Sequence[Segment]],
    classes: ClassSet,
    stride: int,
) -> tuple[dict[str, float], dict[str, str], MapResult | None]:
    """``temporal_map`` under flat names, with a note on every number that needs one; arguments as
    there, normal videos without segments. Videos with a segment of unknown class are left out."""
    named = np.array([all(code is not None for code, *_ in found) for found in segments])
    notes: dict[str, str] = {}
    if not named.all():
        left_out = [names[v] for v in np.flatnonzero(~named)]
        notes["map"] = (
            f"{len(left_out)} videos are left out of the mAP, because their annotations name no "
            f"class, {left_out[0]} among them; give them in the form NAME CODE start end"
        )
        if not named.any():
            return {}, notes, None
    kept = lengths[named]
    result = temporal_map(
        probs[np.repeat(named, lengths)],
        kept,
        with_normal([segments[v] for v in np.flatnonzero(named)], kept, classes, stride),
        classes,
        stride,
    )
    metrics = result.metrics()
    silent = [code for code, n in zip(result.classes, result.proposals, strict=True) if n == 0]
    for name, value in metrics.items():
        if math.isnan(value):
            code = name.removeprefix("map_").split("@")[0]
            what = "anomaly class" if code == "anomaly" else f"segment of class {code}"
            notes[name] = f"undefined: the truth holds no {what}"
        elif silent and name.startswith("map_with_normal"):
            notes[name] = f"0 as in the release, because nothing was proposed for {silent}"
    return metrics, notes, result
