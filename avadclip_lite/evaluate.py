"""Evaluation: predict videos, then score frames (AP, AUC) and events (temporal mAP).

Every measure is a pure function of arrays, so it scores anybody's detector; ``evaluate`` puts them
together for a model and a store. All results are fractions in [0, 1]. Shape letters: V videos, S
snippets of all V videos one after another, N frames (N = stride x T), C classes (class 0 is
normal), I IoU thresholds.

Scores are constant within a snippet, the truth is not, so a snippet enters the frame measures as a
number of positive and a number of negative frames: the values are those of expanded scores.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress
from typing import Any

import numpy as np
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from avadclip_lite.config import IOU_THRESHOLDS, ClassSet, arithmetic
from avadclip_lite.dataset import Array, Batch, FeatureStore, Output, Segment, parse_codes
from avadclip_lite.model import Detector

Segments = Sequence[Sequence[Segment]]  # of each video
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
    lengths: Array  # (V,) int64, snippets
    anomaly_logits: Array  # (S,) float32, classification branch
    alignment: Array | None  # (S, C) float32, alignment branch: softmax over classes

    @property
    def anomaly(self) -> Array:
        """(S,) float32: the confidence, sigmoid of the anomaly logits."""
        return torch.from_numpy(self.anomaly_logits).sigmoid().numpy()

    @property
    def alignment_anomaly(self) -> Array | None:
        """(S,) float32: one minus the alignment branch's probability of normal."""
        return None if self.alignment is None else 1 - self.alignment[:, 0]

    @property
    def offsets(self) -> Array:
        """(V + 1,) int64: video v owns the snippets offsets[v] to offsets[v + 1]."""
        return np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.int64)

    def video(self, v: int) -> tuple[Array, Array | None]:
        """``anomaly (T,)`` and ``alignment (T, C)`` of one video."""
        own = slice(*self.offsets[v : v + 2])
        return self.anomaly[own], None if self.alignment is None else self.alignment[own]


@dataclass(frozen=True)
class MapResult:
    """Temporal mAP. ``table[i, c]`` is the AP of class c at IoU threshold i: NaN when no video
    shows the class, 0 when it is shown but nothing was proposed or matched."""

    classes: tuple[str, ...]  # codes, normal first
    thresholds: tuple[float, ...]
    table: Array  # (I, C) float64
    truths: Array  # (C,) int64, annotated segments a class
    proposals: Array  # (C,) int64, proposed segments a class

    @property
    def anomaly(self) -> Array:
        """(I,) mean over the anomaly classes that occur in the truth (six on XD-Violence): what
        many readers mean by mAP. NaN when none occurs."""
        shown = self.table[:, 1:][:, self.truths[1:] > 0]
        return shown.mean(axis=1) if shown.size else np.full(len(self.thresholds), np.nan)

    @property
    def with_normal(self) -> Array:
        """(I,) the release's measure: mean over all classes, normal included. A class without
        truth counts 0, and one class without a proposal makes the whole measure 0."""
        silent = (self.proposals == 0).any()
        return np.array([0.0 if silent else np.mean(row) for row in np.nan_to_num(self.table)])

    def metrics(self) -> dict[str, float]:
        """Flat names: ``map_anomaly``, ``map_with_normal@0.1``, ``map_B1``, ``map_B1@0.1``, ..."""
        columns = {"anomaly": self.anomaly, "with_normal": self.with_normal}
        columns |= dict(zip(self.classes, self.table.T, strict=True))
        named = [f"@{threshold:g}" for threshold in self.thresholds]
        return {
            f"map_{name}{at}": float(value)
            for name, values in columns.items()
            for at, value in zip(["", *named], [np.mean(values), *values], strict=True)
        }


@dataclass(frozen=True, kw_only=True)
class Report:
    """What ``evaluate`` found. Names of ``metrics``: ``frame_ap``, ``frame_auc`` and
    ``frame_ap_abnormal`` (over videos that hold an anomalous frame), each with ``_classification``
    or ``_alignment``; ``positive_share``, the AP of a detector that guesses; ``map_anomaly``,
    ``map_with_normal`` (as the release averages) and ``map_B1`` ..., means over IoU thresholds, and
    at each, ``map_anomaly@0.1``; ``videos``, ``snippets``, ``frames``: what was scored. A measure
    that the truth does not define is NaN. ``notes``: what is left out of the mAP, and why. Without
    a video that is left, or a detector that names classes, ``map_result`` is None."""

    metrics: dict[str, float]
    predictions: Predictions
    map_result: MapResult | None = None
    notes: list[str] = field(default_factory=list)


# --- frame level ----------------------------------------------------------------------------------


def snippet_truth(truth: Array, lengths: Array, stride: int) -> tuple[Array, Array]:
    """Positive and negative frames of every snippet, both (S,) int64; ``truth`` is 0 or 1 per
    frame, the videos one after another. ``ValueError`` for another number of frames."""
    truth, snippets = np.asarray(truth), int(np.sum(lengths))
    if truth.shape != (snippets * stride,):
        need = f"{snippets} snippets of {stride} frames need ({snippets * stride},)"
        raise ValueError(f"frame truth has shape {truth.shape}, but {need}")
    positive = truth.reshape(-1, stride).sum(axis=1, dtype=np.int64)
    return positive, stride - positive


def _weighted(scores: Array, positive: Array, negative: Array) -> dict[str, Array]:
    """Each snippet twice, as its positive and as its negative frames: scikit-learn's arguments."""
    if not (shapes := {np.shape(x) for x in (scores, positive, negative)}) == {np.shape(scores)}:
        raise ValueError(f"scores and frame counts must have one and the same shape, got {shapes}")
    if not np.isfinite(scores).all():
        bad = int(np.argmin(np.isfinite(scores)))
        raise ValueError(f"score {scores[bad]} at snippet {bad} is not a finite number")
    weight = np.concatenate([positive, negative]).astype(np.float64)
    y_true = np.repeat([1, 0], len(scores))
    return {"y_true": y_true, "y_score": np.tile(scores, 2), "sample_weight": weight}


def average_precision(scores: Array, positive: Array, negative: Array) -> float:
    """Average precision of frames; ``scores``, ``positive`` and ``negative`` frames of each
    snippet, all (S,). NaN without a positive frame; ``ValueError`` for unequal shapes or a score
    that is not finite."""
    frames = _weighted(scores, positive, negative)
    return float(average_precision_score(**frames)) if np.any(positive) else math.nan


def roc_auc(scores: Array, positive: Array, negative: Array) -> float:
    """Area under the ROC curve of frames, arguments as in ``average_precision``. NaN when every
    frame is positive or every frame is negative."""
    frames = _weighted(scores, positive, negative)
    both = np.any(positive) and np.any(negative)
    return float(roc_auc_score(**frames)) if both else math.nan


def pooled_metrics(
    scores: Array, lengths: Array, positive: Array, negative: Array
) -> dict[str, float]:
    """``frame_ap``, ``frame_auc``, and ``frame_ap_abnormal``, AP over the videos that hold an
    anomalous frame; of ``scores (S,)`` of videos of ``lengths (V,)`` snippets."""
    video = np.repeat(np.arange(len(lengths)), lengths)
    abnormal = np.isin(video, video[np.asarray(positive) > 0])
    theirs = (x[abnormal] for x in (scores, positive, negative))
    return {
        "frame_ap": average_precision(scores, positive, negative),
        "frame_auc": roc_auc(scores, positive, negative),
        "frame_ap_abnormal": average_precision(*theirs),
    }


def frame_metrics(predicted: Predictions, positive: Array, negative: Array) -> dict[str, float]:
    """``pooled_metrics`` of the branches that there are, the branch's name at the end of each."""
    scores = {"classification": predicted.anomaly, "alignment": predicted.alignment_anomaly}
    return {
        f"{name}_{branch}": value
        for branch, own in scores.items()
        if own is not None
        for name, value in pooled_metrics(own, predicted.lengths, positive, negative).items()
    }


# --- events ---------------------------------------------------------------------------------------


def with_normal(
    segments: Segments, lengths: Array, classes: ClassSet, stride: int
) -> list[list[Segment]]:
    """The truth as the release scores it: a video without an anomalous segment becomes one whole
    segment of the normal class, ``stride x lengths[v]`` frames long."""
    pairs = zip(segments, lengths, strict=True)
    return [list(found) or [(classes.codes[0], 0, int(n) * stride)] for found, n in pairs]


def temporal_map(
    probs: Array,
    lengths: Array,
    segments: Segments,
    classes: ClassSet,
    stride: int,
    thresholds: tuple[float, ...] = IOU_THRESHOLDS,
) -> MapResult:
    """Mean average precision of temporal detections, as the release computes it: from the best of a
    class's ``_proposals`` down, each takes the free truth of its video with the highest IoU, if
    that reaches the threshold; AP is the sum of the precisions at the true positives over the
    number of truths. ``probs (S, C)``: class probabilities of videos of ``lengths (V,)`` snippets;
    float32 for exact equality with the release. ``segments``: each video's truth (code, first
    frame, end frame exclusive), whole-video normal segments included (``with_normal``). ``stride``:
    frames a snippet. Raises ``ValueError`` for shapes that do not fit or an unknown code."""
    probs, lengths = np.asarray(probs), np.asarray(lengths, dtype=np.int64)
    if probs.shape != (lengths.sum(), len(classes)):
        have, need = f"probabilities have shape {probs.shape}", (int(lengths.sum()), len(classes))
        raise ValueError(f"{have}, but the lengths and the classes of {classes.name} need {need}")
    if len(segments) != len(lengths):
        raise ValueError(f"truth for {len(segments)} videos, but lengths of {len(lengths)}")
    if len(lengths) and lengths.min() < 1:
        raise ValueError(f"video {int(lengths.argmin())} has {lengths.min()} snippets")
    truths: list[dict[int, list]] = [defaultdict(list) for _ in classes.codes]  # by class and video
    proposals: list[list] = [[] for _ in classes.codes]
    for v, own in enumerate(np.split(probs, np.cumsum(lengths)[:-1])):
        for code, first, last in segments[v]:
            truths[classes.index(code)][v].append((first, last))
        for c, *proposal in _proposals(own, stride):
            proposals[c].append((v, *proposal))
    table = [_class_ap(*own, thresholds) for own in zip(proposals, truths, strict=True)]
    shown = np.array([sum(map(len, videos.values())) for videos in truths])
    proposed = np.array([len(found) for found in proposals])
    return MapResult(classes.codes, tuple(thresholds), np.stack(table, axis=1), shown, proposed)


def _proposals(probs: Array, stride: int) -> list[tuple[int, int, int, float]]:
    """Class, first frame, end frame and score of what is proposed in a video of probs (T, C). By
    class the threshold is max - 0.6 (max - min); each run of at least two frames above it is a
    proposal, scored with its maximum + 0.7 x the mean of the class's floor(N / 16) highest frames.
    A video of fewer than 16 frames, or with a mean that is not positive, proposes nothing."""
    frames = len(probs) * stride // TOP_DIVISOR
    if not frames:
        return []
    # Added up frame after frame in the scores' own type, the highest first, so that the rounding
    # is the release's; only the frames that enter the mean are ever expanded.
    highest = -np.sort(-probs, axis=0)[: -(-frames // stride)]
    top = np.mean(np.repeat(highest, stride, axis=0)[:frames], axis=0)  # (C,)
    high, low = probs.max(axis=0).astype(np.float64), probs.min(axis=0).astype(np.float64)
    above = (probs > high - (high - low) * THRESHOLD_SHARE) & (top > 0)
    edges = np.argwhere(np.diff(above.T, prepend=False, append=False))  # starts, ends in turn
    bonus = probs.dtype.type(TOP_WEIGHT) * top
    return [
        (c, start * stride, end * stride, float(probs[start:end, c].max() + bonus[c]))
        for c, start, _, end in edges.reshape(-1, 4).tolist()
        if (end - start) * stride >= MIN_FRAMES
    ]


def _class_ap(
    found: list[tuple[int, int, int, float]],
    truths: Mapping[int, Sequence[tuple[int, int]]],
    thresholds: tuple[float, ...],
) -> Array:
    """AP (I,) of one class, NaN without truth; ``found`` as video, first frame, end frame, score;
    ``truths`` by video."""
    pairs = []  # of a proposal and a truth of its video: rank, IoU, truth
    for rank, (v, p_start, p_end, _) in enumerate(sorted(found, key=lambda f: -f[3])):
        for number, (t_start, t_end) in enumerate(truths.get(v, ())):
            shared = max(0, min(p_end, t_end) - max(p_start, t_start))
            iou = shared / ((p_end - p_start) + (t_end - t_start) - shared)
            pairs.append((rank, -iou, (v, number)))
    pairs.sort()  # a proposal's truths from the highest IoU down: the first free one is its match
    out = np.zeros(len(thresholds))
    for i, threshold in enumerate(thresholds):
        true, taken = np.zeros(len(found)), set()
        for rank, negative_iou, truth in pairs:
            if -negative_iou >= threshold and not true[rank] and truth not in taken:
                true[rank] = 1
                taken.add(truth)
        precision = np.cumsum(true) / np.arange(1, len(found) + 1)
        out[i] = np.sum(precision * true)
    return out / (sum(map(len, truths.values())) or math.nan)


# --- a detector on videos -------------------------------------------------------------------------

# video (T, D), audio (T or less, D) or None, audio_mask (T,) bool or None: where there is sound
Video = tuple[Array, Array | None, Array | None]


@torch.no_grad()
def predict(model: Detector, batch: Batch, precision: str = "float32") -> Output:
    """What a detector says about a batch in eval mode, logits in float32: the one way from features
    to scores, computed as ``config.arithmetic`` says. The mode is the former one afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with arithmetic(precision, batch.lengths.device.type) as autocast, autocast:
            output = model(batch)
    finally:
        for module, mode in modes:
            module.training = mode
    logits = {"anomaly_logits": output.anomaly_logits, "alignment_logits": output.alignment_logits}
    return replace(output, **{k: x.float() for k, x in logits.items() if x is not None})


def predict_videos(
    model: Detector,
    videos: Sequence[Video],
    names: Sequence[str] | None = None,
    *,
    precision: str = "float32",
    batch_size: int = 32,
) -> Predictions:
    """Score videos in full length, where the model is. As in the release a video is cut into chunks
    of at most ``model.max_snippets``, each an own forward pass. Chunks are batched by length."""
    device = next(model.parameters()).device
    lengths = np.array([len(video) for video, *_ in videos], dtype=np.int64)
    most = model.max_snippets or int(lengths.max())
    starts = [(v, start) for v, n in enumerate(lengths) for start in range(0, n, most)]
    chunks = [(min(most, int(lengths[v]) - start), v, start) for v, start in starts]
    chunks.sort(key=lambda chunk: -chunk[0])
    scored = {}  # of a chunk: (T, 1 + C), its anomaly logits and class probabilities
    for first in range(0, len(chunks), batch_size):
        part = chunks[first : first + batch_size]
        output = predict(model, _padded(videos, part, part[0][0]).to(device), precision)
        scores, classes = output.anomaly_logits[..., None], output.alignment_logits
        scores = scores if classes is None else torch.cat([scores, classes.softmax(-1)], dim=-1)
        for (size, *chunk), its in zip(part, scores.cpu().numpy(), strict=True):
            scored[tuple(chunk)] = its[:size]
    joined = np.concatenate([scored[chunk] for chunk in starts])
    return Predictions(
        names=list(names or map(str, range(len(videos)))),
        lengths=lengths,
        anomaly_logits=joined[:, 0].copy(),
        alignment=joined[:, 1:].copy() if joined.shape[1] > 1 else None,
    )


def _padded(videos: Sequence[Video], chunks: Sequence[tuple[int, int, int]], longest: int) -> Batch:
    """Chunks (size, video, start) as one batch, with zeros where there is nothing."""
    video = np.zeros((len(chunks), longest, videos[0][0].shape[1]), np.float32)
    audio, audio_mask = np.zeros_like(video), np.zeros(video.shape[:2], bool)
    for b, (size, v, start) in enumerate(chunks):
        seen, sound, mask = (None if x is None else x[start : start + size] for x in videos[v])
        video[b, :size] = seen
        if sound is not None:
            audio[b, : len(sound)] = sound
            audio_mask[b, : len(sound if mask is None else mask)] = True if mask is None else mask
    return Batch(
        video=torch.from_numpy(video),
        audio=torch.from_numpy(audio * audio_mask[..., None]),
        audio_mask=torch.from_numpy(audio_mask),
        lengths=torch.tensor([size for size, *_ in chunks]),
    )


def predict_store(
    model: Detector, store: FeatureStore, rows: Sequence[int] | Array, **options: Any
) -> Predictions:
    """``predict_videos`` of V rows of a store, in this order. A model that resamples each modality
    alone, as the release, sees the video's own length, else the length shared with its audio.
    Raises ``ValueError`` for no rows or another feature width."""
    dim = model.settings.model.dim
    if not len(rows):
        raise ValueError(f"{store.path}: no rows to score; choose a split that has videos")
    if dim != store.dim:
        raise ValueError(f"{store.path}: {store.dim} wide; the detector takes features {dim} wide")
    separate = model.settings.data.resample == "separate"
    videos = []
    for i in rows:
        video, audio = store.uncut(i) if separate else (store.video(i), store.audio(i))
        audio = None if audio is None else audio[: len(video)]
        videos.append((video, audio, store.audio_mask(i)[: len(video)]))
    return predict_videos(model, videos, [store.videos[i].name for i in rows], **options)


def evaluate(model: Detector, store: FeatureStore, split: str = "test", **options: Any) -> Report:
    """Predict a split of the store and score it; options as in ``predict_videos``."""
    rows = store.indices(split)
    predictions = predict_store(model, store, rows, **options)
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
    predictions: Predictions, truth: Array, segments: Segments, classes: ClassSet, stride: int
) -> Report:
    """All measures of ``Report``: ``truth`` is 0 or 1 per frame, the videos one after another,
    ``segments`` each video's anomalous segments."""
    lengths, probs, result = predictions.lengths, predictions.alignment, None
    positive, negative = snippet_truth(truth, lengths, stride)
    metrics, notes = frame_metrics(predictions, positive, negative), []
    if probs is not None:
        given = predictions.names, probs, lengths, segments, classes, stride
        events, notes, result = event_metrics(*given)
        metrics |= events
    counts = {"videos": len(lengths), "snippets": lengths.sum(), "frames": len(truth)}
    metrics |= {"positive_share": float(np.mean(truth))} | {k: float(v) for k, v in counts.items()}
    return Report(metrics=metrics, predictions=predictions, map_result=result, notes=notes)


def event_metrics(
    names: list[str], probs: Array, lengths: Array, truth: Segments, classes: ClassSet, stride: int
) -> tuple[dict[str, float], list[str], MapResult | None]:
    """``temporal_map`` under flat names, and notes on it; normal videos come without segments, and
    videos with a segment of unknown class are left out."""
    named = np.array([all(code is not None for code, *_ in found) for found in truth])
    notes: list[str] = []
    if not named.all():
        left = f"{(~named).sum()} videos are left out of the mAP, because their annotations name no"
        notes = [f"{left} class, {names[named.argmin()]} among them; write NAME CODE start end"]
    if not named.any():
        return {}, notes, None
    probs, lengths = probs[np.repeat(named, lengths)], lengths[named]
    truth = with_normal(list(compress(truth, named)), lengths, classes, stride)
    result = temporal_map(probs, lengths, truth, classes, stride)
    if silent := list(compress(result.classes, result.proposals == 0)):
        notes.append(f"map_with_normal is 0, as in the release: nothing was proposed for {silent}")
    return result.metrics(), notes, result
