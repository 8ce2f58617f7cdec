"""Score a detector: ``python -m avadclip_lite evaluate``, a trained one or anybody's.

    evaluate --run RUN --data STORE                         # what `train --out RUN` wrote
    evaluate --scores SCORES --annotations FILE [FILE]      # files of scores, whoever made them

SCORES is a folder of ``NAME.npy`` or one ``.npz`` with an array per video, one score a snippet:
``(T,)`` or ``(T, 1)`` anomaly scores, or ``(T, C)`` class probabilities, normal first. Annotations
are in either official form, ``NAME start end ...`` or ``NAME CODE start end ...``; with a file of
each, the first form gives the frame truth and the other the events by class. A scored video without
a line is normal throughout.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from sklearn.metrics import auc, precision_recall_curve

from avadclip_lite.config import (
    CLASS_SETS,
    XD_STRIDE,
    ClassSet,
    add_device_argument,
    find_device,
)
from avadclip_lite.dataset import (
    FeatureStore,
    class_events,
    has_label,
    parse_label,
    truth_events,
)
from avadclip_lite.evaluate import (
    evaluate,
    event_metrics,
    frame_notes,
    name_segments,
    pooled_metrics,
    snippet_truth,
)
from avadclip_lite.experiments.metrics import SCHEMA
from avadclip_lite.features.annotations import read_annotations
from avadclip_lite.train import load

__all__ = ["ScoredFiles", "add_arguments", "main", "read_lengths", "read_scores", "score_files"]

TRAPEZOID = "frame_pr_trapezoid"
SURE = 100  # odds to one at which a pattern is no coincidence


@dataclass(frozen=True, kw_only=True)
class ScoredFiles:
    """What ``score_files`` found: flat metrics, the reason for each NaN or omission, and remarks
    on how scores and annotations fit together."""

    metrics: dict[str, float]
    notes: dict[str, str]
    remarks: list[str]


def read_scores(path: str | Path) -> dict[str, np.ndarray]:
    """Scores by video name, sorted by name, ``(T,)`` or ``(T, C)``, at least float32. A folder is
    read with its subfolders; hidden files are left alone.

    Raises ``FileNotFoundError`` if there is nothing, ``ValueError`` naming the array that is
    empty, damaged, not ``(T,)`` or ``(T, C)``, not finite, of another width than the others, or
    whose name another one has.
    """
    path = Path(path)
    if path.is_dir():
        files = {str(file.relative_to(path)): file for file in sorted(path.rglob("*.npy"))}
        arrays = {name: _load(file) for name, file in files.items() if not _hidden(name)}
    elif path.is_file():
        try:
            with np.load(path, allow_pickle=False) as packed:
                arrays = {n: packed[n] for n in sorted(packed.files) if not _hidden(n)}
        except (ValueError, OSError, EOFError, AttributeError, TypeError, zipfile.BadZipFile):
            raise ValueError(f"{path} is no readable .npz of numbers; save it again") from None
    else:
        raise FileNotFoundError(f"{path} does not exist; expected a folder of .npy or one .npz")
    if not arrays:
        raise FileNotFoundError(f"{path} holds no .npy file; expected one NAME.npy a video")
    found: dict[str, np.ndarray] = {}
    for place, array in arrays.items():
        name = video_name(place)
        if name in found:
            raise ValueError(f"{path} holds scores of {name} twice; keep one")
        if array.ndim == 2 and array.shape[1] == 1:
            array = array[:, 0]
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
    widths = {array.shape[1:]: name for name, array in found.items()}
    if len(widths) > 1:
        (one, first), (other, second) = list(widths.items())[:2]
        raise ValueError(
            f"{path}: {first} holds scores of shape {('T', *one)}, {second} {('T', *other)}; they "
            "must be alike"
        )
    return found


def _hidden(name: str) -> bool:
    """What systems leave beside files: ``._NAME.npy`` of macOS, folders whose name has a dot."""
    return any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(name).parts)


def video_name(place: str) -> str:
    """The name of a video from that of a file about it."""
    name = PurePosixPath(place.replace("\\", "/")).name
    return name.removesuffix(".npy").removesuffix(".mp4")


def _load(path: Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path} is no readable array of numbers ({error})") from None


def read_lengths(path: str | Path) -> dict[str, int]:
    """Video lengths in frames: a CSV with the columns ``name`` and ``n_frames`` (others are
    ignored), or lines ``NAME FRAMES``. Raises ``ValueError`` naming file and line otherwise."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"lengths file {path} does not exist")
    lines = [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    if {"name", "n_frames"} <= set(next(csv.reader(lines[:1]), [])):
        pairs = [(row["name"], row["n_frames"]) for row in csv.DictReader(lines)]
    else:
        pairs = [tuple(re.split(r"[\s,]+(?=\S+$)", line.strip(), maxsplit=1)) for line in lines]
    found: dict[str, int] = {}
    for number, pair in enumerate(pairs, 1):
        if len(pair) != 2 or not str(pair[1]).strip().isdecimal():
            raise ValueError(
                f"{path}, entry {number}: {' '.join(map(str, pair))!r} is no name and number of "
                "frames; expected a CSV with name,n_frames or lines 'NAME FRAMES'"
            )
        found[video_name(pair[0].strip())] = int(pair[1])
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

    Raises ``ValueError`` for an annotated video without scores, a length that does not match (with
    the video and both lengths), an annotation 16 frames or more beyond its video, scores that are
    one a frame, and arrays that are no probabilities of these classes.
    """
    if stride < 1:
        raise ValueError(f"the stride must be at least 1 frame, got {stride}")
    names = list(scores)
    events: dict[str, list] = {}
    for path in annotations:
        for name, found in read_annotations(path, classes).items():
            events.setdefault(name, []).extend(found)
    if missing := [name for name in events if name not in scores]:
        raise ValueError(
            f"{len(missing)} of {len(events)} annotated videos have no scores, {missing[0]!r} "
            "first; score every video, under the name it has in the annotations"
        )
    snippets = np.array([len(scores[name]) for name in names], dtype=np.int64)
    frames = snippets * stride
    if lengths is None:
        remarks = _doubts_of_stride(scores, events, stride)
    else:
        remarks = _check_lengths(names, frames, lengths, stride)
    segments, truth, clipped, contradicting = [], [], [], []
    for name, end_of_scores in zip(names, frames.tolist(), strict=True):
        own = events.get(name, [])
        last = max((end for _, _, end in own), default=0)
        if last >= end_of_scores + max(stride, XD_STRIDE):  # the official ones run over by 15
            raise ValueError(
                f"{name} is annotated up to frame {last}, but its scores end at frame "
                f"{end_of_scores} ({end_of_scores // stride} scores x stride {stride}); check "
                "--stride"
            )
        if last > end_of_scores:
            clipped.append(name)
        codes = parse_label(name, classes) if has_label(name) else ()
        anomalous = [code for code in codes if classes.index(code)]
        if codes and bool(anomalous) != bool(own):
            contradicting.append(name)
        mask = np.zeros(end_of_scores, dtype=np.uint8)
        for _, start, end in truth_events(own):
            mask[start:end] = 1
        truth.append(mask)
        inside = [
            (c, a, min(b, end_of_scores)) for c, a, b in class_events(own) if a < end_of_scores
        ]
        segments.append(name_segments(inside, anomalous))
    for found, text in (
        (clipped, "annotations cut at the end of the scores"),
        (contradicting, "annotated though named normal, or named anomalous and not annotated"),
    ):
        if found:
            remarks.append(f"{len(found)} videos {text}, {found[0]} first")
    pooled = np.concatenate([scores[name] for name in names])
    positive, negative = snippet_truth(np.concatenate(truth), snippets, stride)
    anomaly = pooled if pooled.ndim == 1 else _anomaly(pooled, classes)
    metrics = pooled_metrics(anomaly, snippets, positive, negative)
    if trapezoid:
        metrics[TRAPEZOID] = _trapezoid(anomaly, positive, negative)
    notes = frame_notes(metrics, positive)
    if pooled.ndim == 1:
        notes["map"] = "needs class probabilities: arrays (T, C), normal first"
    else:
        of_events = event_metrics(names, pooled, snippets, segments, classes, stride)
        metrics |= of_events[0]
        notes |= of_events[1]
    metrics |= {
        "positive_share": float(positive.sum() / frames.sum()),
        "videos": float(len(names)),
        "snippets": float(len(pooled)),
        "frames": float(frames.sum()),
    }
    return ScoredFiles(metrics=metrics, notes=notes, remarks=remarks)


def _trapezoid(scores: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> float:
    """scikit-learn's ``auc(precision_recall_curve(...))`` of frames, scores (S,) and frame counts
    of each snippet as in ``evaluate.average_precision``; NaN without a positive frame. A score that
    is the same everywhere gets (1 + p) / 2, where the average precision is the share p."""
    weight = np.concatenate([positive, negative])
    counted = weight > 0
    truth = np.repeat([1, 0], len(scores))[counted]
    if not truth.any():
        return math.nan
    both = np.concatenate([scores, scores])[counted]
    precision, recall, _ = precision_recall_curve(truth, both, sample_weight=weight[counted])
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
    ends = {name: max(end for *_, end in own) for name, own in events.items() if own}
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
    names: Sequence[str], frames: np.ndarray, lengths: Mapping[str, int], stride: int
) -> list[str]:
    """Hold scored lengths against the videos' own."""
    apart = []
    for name, scored in zip(names, frames.tolist(), strict=True):
        if name not in lengths:
            raise ValueError(f"{name} has scores but is not in the lengths file")
        if abs(scored - lengths[name]) >= stride:
            per_frame = abs(scored // stride - lengths[name]) < max(stride, 2)
            raise ValueError(
                f"{name} has {scored // stride} scores x stride {stride} = {scored} frames, but "
                f"its length is {lengths[name]} frames; "
                + ("one score a frame? add --stride 1" if per_frame else "score the whole video, "
                   "or check --stride")
            )  # fmt: skip
        if scored != lengths[name]:
            apart.append(name)
    if unscored := [name for name in lengths if name not in set(names)]:
        raise ValueError(
            f"{len(unscored)} of {len(lengths)} videos in the lengths file have no scores, "
            f"{unscored[0]!r} first"
        )
    if not apart:
        return []
    return [f"{len(apart)} videos less than a stride longer or shorter than their scores"]


# --- command line ---------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``python -m avadclip_lite evaluate``."""
    parser.description = "Score a trained detector on a store, or anybody's from files of scores."
    add = parser.add_argument
    add("--run", help="a trained detector: the folder that `train --out` wrote")
    add("--data", help="with --run: the feature store")
    add("--split", default="test", help="with --run: train or test (%(default)s)")
    add_device_argument(parser)
    add("--precision", choices=["float32", "bf16"], default="float32")
    add("--scores", help="folder of NAME.npy, or one .npz; each (T,) or (T, C)")
    add("path", nargs="?", help=argparse.SUPPRESS)  # the scores, as it was in version 0.1
    add(
        "--annotations",
        nargs="+",
        metavar="FILE",
        help="with --scores: NAME start end ... or NAME CODE start end ...; or a file of each",
    )
    add("--lengths", metavar="FILE", help="with --scores: CSV with name,n_frames to check against")
    add("--stride", type=int, default=XD_STRIDE, help="with --scores: frames a score (%(default)s)")
    add("--classes", choices=sorted(CLASS_SETS), default="xd", help="with --scores (%(default)s)")
    add(
        "--trapezoid",
        action="store_true",
        help="also the trapezoid under the precision-recall curve, which is NOT average precision",
    )
    add("--json", action="store_true", help="everything, as one JSON object")


def main(args: argparse.Namespace) -> int:
    """Print the measures and what each is. Bad input raises ``ValueError`` or
    ``FileNotFoundError``."""
    scores = args.scores or args.path
    if bool(args.run) == bool(scores):
        raise ValueError("give either --run RUN --data STORE or --scores PATH --annotations FILE")
    needed = "data" if args.run else "annotations"
    if not getattr(args, needed):
        raise ValueError(f"--{'run' if args.run else 'scores'} needs --{needed}, too")
    if args.run:
        found = _score_run(args)
    else:
        found = score_files(
            read_scores(scores),
            args.annotations,
            lengths=None if args.lengths is None else read_lengths(args.lengths),
            stride=args.stride,
            classes=CLASS_SETS[args.classes],
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
    store = FeatureStore.open(args.data)
    model = load(args.run, find_device(args.device))
    report = evaluate(model, store, args.split, precision=args.precision)
    metrics, seen = report.metrics, report.predictions
    if args.trapezoid:
        truth = store.frame_truth(store.indices(args.split), seen.lengths * store.stride)
        counts = snippet_truth(truth, seen.lengths, store.stride)
        branches = {"classification": seen.anomaly, "alignment": seen.alignment_anomaly}
        metrics |= {
            f"{TRAPEZOID}_{branch}": _trapezoid(scores, *counts)
            for branch, scores in branches.items()
            if scores is not None
        }
    return ScoredFiles(metrics=metrics, notes=report.notes, remarks=[])


def table(found: ScoredFiles) -> str:
    """One line a measure: percent, for a mAP the average and each IoU, and what it is."""
    said = {
        kind["properties"]["measure"]["const"]: kind["description"]
        for kind in SCHEMA["$defs"]["record"]["oneOf"]
    }
    lines = [
        "{videos:,.0f} videos, {snippets:,.0f} scores, {frames:,.0f} frames".format(
            **found.metrics
        ),
        *found.remarks,
        "",
        "percent; of events the average and each IoU threshold, proposals and matching as in the",
        "AVadCLIP release",
    ]
    for name, value in found.metrics.items():
        if "@" in name or name in ("videos", "snippets", "frames"):
            continue
        word = next((w for w in sorted(said, key=len, reverse=True) if name.startswith(w)), "")
        branch = name.removeprefix(word).strip("_") if word else ""
        text = f"{said[word] if word else said['map_class']}{branch and f' ({branch})'}"
        at = [v for key, v in found.metrics.items() if key.startswith(f"{name}@")]
        numbers = "".join("     -" if math.isnan(v) else f"{100 * v:7.2f}" for v in (value, *at))
        lines.append(f"{name:36s}{numbers}  {text}")
    told = dict.fromkeys(found.notes.values())
    first = {note: next(k for k, v in found.notes.items() if v == note) for note in told}
    return "\n".join(lines + [f"{name.split('@')[0]}: {note}" for note, name in first.items()])
