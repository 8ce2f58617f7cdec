"""Score a detector: ``python -m avadclip_lite evaluate``, a trained one or anybody's.

    evaluate --run RUN --data STORE                         # what `train --out RUN` wrote
    evaluate --scores SCORES --annotations FILE [FILE]      # files of scores, whoever made them

SCORES is a folder of ``NAME.npy`` or one ``.npz`` with an array per video, one score a snippet:
``(T,)`` or ``(T, 1)`` anomaly scores, or ``(T, C)`` class probabilities, normal first. Annotations
are in either official form; with a file of each, the one without classes gives the frame truth and
the other the events by class. A scored video without a line is normal throughout.
"""

from __future__ import annotations

import argparse
import json
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.metrics import auc, precision_recall_curve

from avadclip_lite import config, dataset, evaluate
from avadclip_lite.config import XD_STRIDE, ClassSet
from avadclip_lite.experiments.metrics import described
from avadclip_lite.features import annotations as lists
from avadclip_lite.train import load

TRAPEZOID = "frame_pr_trapezoid"
SURE = 100  # odds to one at which a pattern is no coincidence


@dataclass(frozen=True, kw_only=True)
class ScoredFiles:
    """Flat metrics, the reason for each NaN or omission, and remarks on how scores and annotations
    fit together."""

    metrics: dict[str, float]
    notes: dict[str, str]
    remarks: list[str]


def read_scores(path: str | Path) -> dict[str, np.ndarray]:
    """Scores by video name, ``(T,)`` or ``(T, C)``, at least float32. A folder is read with its
    subfolders; hidden files are left alone.

    Raises ``FileNotFoundError`` if there is nothing, ``ValueError`` naming the array that is empty,
    damaged, of another shape, not finite, of another width than the others, or there twice.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; expected a folder of .npy or one .npz")
    try:
        if path.is_dir():
            places = {str(p.relative_to(path)): p for p in sorted(path.rglob("*.npy"))}
            files = {n: np.load(p, allow_pickle=False) for n, p in places.items() if _shown(n)}
        else:
            with np.load(path, allow_pickle=False) as packed:
                files = {name: packed[name] for name in sorted(packed.files) if _shown(name)}
    except (ValueError, OSError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} is no readable file of numbers ({error}); save it again"
        ) from None
    if not files:
        raise FileNotFoundError(f"{path} holds no array; expected one NAME.npy a video")
    found: dict[str, np.ndarray] = {}
    for place, array in files.items():
        name = lists.video_name(place.removesuffix(".npy"))
        array = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
        if name in found:
            raise ValueError(f"{path} holds scores of {name} twice; keep one")
        if not np.issubdtype(array.dtype, np.floating):
            raise ValueError(f"{path}: {name} holds {array.dtype}, expected floating point scores")
        if array.ndim not in (1, 2) or not len(array):
            raise ValueError(
                f"{path}: {name} has shape {array.shape}, expected (T,) or (T, C) with T >= 1"
            )
        if not np.isfinite(array).all():
            raise ValueError(f"{path}: {name} holds NaN or infinity")
        # the release's arithmetic is in float32; narrower numbers would round on the way
        found[name] = array.astype(np.promote_types(array.dtype, np.float32))
        first = next(iter(found))
        if (one := found[first].shape[1:]) != (other := array.shape[1:]):
            raise ValueError(
                f"{path}: {first} holds scores of shape {('T', *one)}, {name} {('T', *other)}; "
                "they must be alike"
            )
    return found


def _shown(place: str) -> bool:
    return not any(lists.is_hidden(part) or part == "__MACOSX" for part in Path(place).parts)


def read_lengths(path: str | Path) -> dict[str, int]:
    """Video lengths in frames, of a table with the columns ``name`` and ``n_frames``. Raises
    ``ValueError`` naming file and line for anything else."""
    found, remedy = {}, "expected a table with the columns name and n_frames"
    for where, cells in lists.read_table(path, {"name": remedy, "n_frames": remedy}):
        if not cells["n_frames"].isdecimal():
            raise ValueError(f"{where}: {cells['n_frames']!r} is no number of frames")
        found[lists.video_name(cells["name"])] = int(cells["n_frames"])
    return found


def score_files(
    scores: Mapping[str, np.ndarray],
    annotations: Sequence[str | Path],
    *,
    lengths: Mapping[str, int] | None = None,
    stride: int = XD_STRIDE,
    classes: ClassSet,
    trapezoid: bool = False,
) -> ScoredFiles:
    """Frame AP and AUC, and with class probabilities the temporal mAP, of scores by video.

    ``scores`` as from ``read_scores``; ``lengths`` in frames, checked against ``stride x T`` where
    given: less than a stride apart is accepted and counted, the truth being cut to the scores.
    ``trapezoid`` adds the area under the precision-recall curve by the trapezoid rule, which some
    publications report; it is not average precision.

    Raises ``ValueError`` for an annotated video without scores, a length that does not match, an
    annotation 16 frames or more beyond its video, scores that are one a frame, and arrays that are
    no probabilities of these classes.
    """
    if stride < 1:
        raise ValueError(f"the stride must be at least 1 frame, got {stride}")
    remarks: list[str] = []
    events = _matched(lists.read_annotations(annotations, classes, remarks), scores, "annotated")
    snippets = np.array([len(array) for array in scores.values()], dtype=np.int64)
    if lengths is None:
        remarks += _doubts_of_stride(scores, events, stride)
    else:
        remarks += _check_lengths(scores, _matched(lengths, scores, "listed"), stride)
    segments, truth, clipped, contradicting = [], [], [], []
    for name, frames in zip(scores, (snippets * stride).tolist(), strict=True):
        own = events.get(name, [])
        last = max((end for _, _, end in own), default=0)
        if last >= frames + max(stride, XD_STRIDE):  # the official ones run over by 15
            raise ValueError(
                f"{name} is annotated up to frame {last}, but its scores end at frame {frames} "
                f"({frames // stride} scores x stride {stride}); check --stride"
            )
        clipped += [name] * (last > frames)
        codes = dataset.parse_label(name, classes) if dataset.has_label(name) else ()
        anomalous = [code for code in codes if classes.index(code)]
        contradicting += [name] * (bool(codes) and bool(anomalous) != bool(own))
        truth.append(np.zeros(frames, dtype=np.uint8))
        for _, start, end in dataset.truth_events(own):
            truth[-1][start:end] = 1
        inside = dataset.clip_segments(dataset.class_events(own), frames)
        segments.append(evaluate.name_segments(inside, anomalous))
    for found, text in (
        (clipped, "annotations cut at the end of the scores"),
        (contradicting, "annotated though named normal, or named anomalous and not annotated"),
    ):
        remarks += [f"{text}, {lists.some(found)}"] * bool(found)
    pooled = np.concatenate(list(scores.values()))
    counts = evaluate.snippet_truth(np.concatenate(truth), snippets, stride)
    anomaly = pooled if pooled.ndim == 1 else _anomaly(pooled, classes)
    metrics = evaluate.pooled_metrics(anomaly, snippets, *counts)
    metrics |= {TRAPEZOID: _trapezoid(anomaly, *counts)} if trapezoid else {}
    notes = evaluate.frame_notes(metrics, counts[0])
    if pooled.ndim == 1:
        notes["map"] = "needs class probabilities: arrays (T, C), normal first"
    else:
        names = list(scores)
        more = evaluate.event_metrics(names, pooled, snippets, segments, classes, stride)
        metrics, notes = metrics | more[0], notes | more[1]
    frames = float(sum(map(len, truth)))
    metrics |= {"positive_share": float(counts[0].sum() / frames), "videos": float(len(scores))}
    metrics |= {"snippets": float(len(pooled)), "frames": frames}
    return ScoredFiles(metrics=metrics, notes=notes, remarks=remarks)


def _matched(listed: Mapping, scores: Mapping, what: str) -> dict:
    """What lists say of videos, by the names that the videos have among the scores."""
    found, missing = lists.match_names(listed, scores)
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(listed)} {what} videos have no scores, {lists.some(missing)}; "
            "score every video, under the name that it has there"
        )
    return {video: listed[name] for video, name in found.items()}


def _trapezoid(scores: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> float:
    """scikit-learn's ``auc(precision_recall_curve(...))`` of frames, scores (S,) and frame counts
    of each snippet as in ``evaluate.average_precision``; NaN without a positive frame. A score that
    is the same everywhere gets (1 + p) / 2, where the average precision is the share p."""
    weight = np.concatenate([positive, negative])
    truth, counted = np.repeat([1, 0], len(scores)), weight > 0
    if not positive.any():
        return math.nan
    curve = (x[counted] for x in (truth, np.concatenate([scores, scores])))
    precision, recall, _ = precision_recall_curve(*curve, sample_weight=weight[counted])
    return float(auc(recall, precision))


def _doubts_of_stride(
    scores: Mapping[str, np.ndarray], events: Mapping[str, Sequence], stride: int
) -> list[str]:
    """Scores saved one a *frame* would be held against the wrong truth. Two signs of them: values
    that change at multiples of a number of frames only, and annotations none of which reaches past
    the first 1/stride of its video. Refused where that is no coincidence, else a remark."""
    firsts = [a.reshape(len(a), -1)[:, 0] for a in scores.values()]
    changes = np.concatenate([np.flatnonzero(np.diff(a)) + 1 for a in firsts])
    run = int(np.gcd.reduce(changes)) if len(changes) else 1
    ends = {name: max(end for *_, end in own) for name, own in events.items()}
    signs = {f"their values change at every {run}th score only": float(run) ** len(changes)}
    room = {name: len(scores[name]) + XD_STRIDE for name in ends}  # some run past their video
    if all(ends[name] < room[name] for name in ends):
        reach = f"no annotation reaches past 1/{stride} of its video"
        signs[reach] = math.prod(len(scores[name]) * stride / room[name] for name in ends)
    why, odds = max(signs.items(), key=lambda sign: sign[1])
    if stride == 1 or odds <= 1:
        return []
    text = f"scores of frames, not of snippets of {stride} frames? {why}; if so, add --stride 1"
    if odds >= SURE:
        raise ValueError(f"{text}, and if not, show it with --lengths")
    return [text]


def _anomaly(probs: np.ndarray, classes: ClassSet) -> np.ndarray:
    """One minus the probability of normal, (S, C) -> (S,)."""
    if probs.shape[1] != len(classes):
        raise ValueError(
            f"scores have {probs.shape[1]} classes, {classes.name} has {len(classes)}: "
            f"{', '.join(classes.codes)}; choose the class set with --classes"
        )
    if probs.min() < 0 or probs.max() > 1:
        raise ValueError(
            f"class scores run from {probs.min():.3g} to {probs.max():.3g}; they must be "
            "probabilities between 0 and 1 (softmax the logits first)"
        )
    return 1 - probs[:, 0]


def _check_lengths(
    scores: Mapping[str, np.ndarray], lengths: Mapping[str, int], stride: int
) -> list[str]:
    """Hold scored lengths against the videos' own."""
    apart = 0
    for name, count in {name: len(array) for name, array in scores.items()}.items():
        if name not in lengths:
            raise ValueError(f"{name} has scores but is not in the lengths file")
        if abs(count * stride - lengths[name]) >= stride:
            of_frames = stride > 1 and abs(count - lengths[name]) < XD_STRIDE
            remedy = "one score a frame? add --stride 1" if of_frames else "check --stride"
            raise ValueError(
                f"{name} has {count} scores x stride {stride} = {count * stride} frames, but its "
                f"length is {lengths[name]} frames; score the whole video, or {remedy}"
            )
        apart += count * stride != lengths[name]
    return [f"{apart} videos less than a stride longer or shorter than their scores"] * bool(apart)


# --- command line ---------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``python -m avadclip_lite evaluate``."""
    parser.description = "Score a trained detector on a store, or anybody's from files of scores."
    add = parser.add_argument
    add("--run", help="a trained detector: the folder that `train --out` wrote")
    add("--data", help="with --run: the feature store")
    add("--split", default="test", help="with --run: train or test (%(default)s)")
    add("--precision", choices=["float32", "tf32", "bf16"], default="float32", help="with --run")
    config.add_device_argument(parser)
    add("--scores", help="folder of NAME.npy, or one .npz; each (T,) or (T, C)")
    add("path", nargs="?", help=argparse.SUPPRESS)  # the scores, as it was in version 0.1
    told = "with --scores: lines NAME start end ... or NAME CODE start end ...; or a file of each"
    add("--annotations", nargs="+", metavar="FILE", help=told)
    add("--lengths", metavar="FILE", help="with --scores: CSV with name,n_frames to check against")
    add("--stride", type=int, default=XD_STRIDE, help="with --scores: frames a score (%(default)s)")
    add("--classes", choices=sorted(config.CLASS_SETS), default="xd", help="with --scores")
    told = "also the trapezoid under the precision-recall curve, which is NOT average precision"
    add("--trapezoid", action="store_true", help=told)
    add("--json", action="store_true", help="everything, as one JSON object")


def main(args: argparse.Namespace) -> int:
    """Print the measures and what each is. Bad input raises ``ValueError`` or
    ``FileNotFoundError``."""
    scores = args.scores or args.path
    if bool(args.run) == bool(scores) or not (args.data if args.run else args.annotations):
        raise ValueError("give either --run RUN --data STORE or --scores PATH --annotations FILE")
    if args.run:
        found = _score_run(args)
    else:
        found = score_files(
            read_scores(scores),
            args.annotations,
            lengths=None if args.lengths is None else read_lengths(args.lengths),
            stride=args.stride,
            classes=config.CLASS_SETS[args.classes],
            trapezoid=args.trapezoid,
        )
    if args.json:
        known = {k: None if math.isnan(v) else v for k, v in found.metrics.items()}
        print(json.dumps({"metrics": known, "notes": found.notes, "remarks": found.remarks}))
    else:
        print(table(found))
    return 0


def _score_run(args: argparse.Namespace) -> ScoredFiles:
    """A trained detector on a split of a store."""
    store = dataset.FeatureStore.open(args.data)
    model = load(args.run, config.find_device(args.device))
    report = evaluate.evaluate(model, store, args.split, precision=args.precision)
    metrics, seen = report.metrics, report.predictions
    truth = store.frame_truth(store.indices(args.split), seen.lengths * store.stride)
    counts = evaluate.snippet_truth(truth, seen.lengths, store.stride)
    branches = {"classification": seen.anomaly, "alignment": seen.alignment_anomaly}
    for branch, scores in branches.items():
        if args.trapezoid and scores is not None:
            metrics[f"{TRAPEZOID}_{branch}"] = _trapezoid(scores, *counts)
    return ScoredFiles(metrics=metrics, notes=report.notes, remarks=[])


def table(found: ScoredFiles) -> str:
    """One line a measure: percent, for a mAP the average and each IoU, and what it is."""
    counted = "{videos:,.0f} videos, {snippets:,.0f} scores, {frames:,.0f} frames"
    heading = "percent; of events the average and each IoU, as in the AVadCLIP release"
    lines = [counted.format(**found.metrics), *found.remarks, "", heading]
    for name, value in found.metrics.items():
        if "@" in name or name in ("videos", "snippets", "frames"):
            continue
        at = [v for key, v in found.metrics.items() if key.startswith(f"{name}@")]
        numbers = "".join("      -" if math.isnan(v) else f"{100 * v:7.2f}" for v in (value, *at))
        lines.append(f"{name:36s}{numbers}  {described(name)}")
    first = {note: name for name, note in reversed(found.notes.items())}
    return "\n".join(lines + [f"{name.split('@')[0]}: {note}" for note, name in first.items()])
