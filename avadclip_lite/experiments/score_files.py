"""Score anybody's detector: ``python -m avadclip_lite evaluate SCORES --annotations FILE``.

SCORES is a folder of ``NAME.npy`` or one ``.npz`` with an array per video, one score a snippet:
``(T,)`` anomaly scores, or ``(T, C)`` class probabilities, normal first. Annotations are in either
official form, ``NAME start end ...`` or ``NAME CODE start end ...``; with a file of each, the first
form gives the frame truth and the other the events by class. A scored video without a line is
normal throughout.
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
from pathlib import Path

import numpy as np

from avadclip_lite.config import CLASS_SETS, IOU_THRESHOLDS, XD_STRIDE, ClassSet
from avadclip_lite.dataset import class_events, has_label, parse_label, truth_events
from avadclip_lite.evaluate import (
    event_metrics,
    frame_notes,
    name_segments,
    pooled_metrics,
    snippet_truth,
)
from avadclip_lite.features.annotations import read_annotations

__all__ = ["ScoredFiles", "add_arguments", "main", "read_lengths", "read_scores", "score_files"]


@dataclass(frozen=True, kw_only=True)
class ScoredFiles:
    """What ``score_files`` found: flat metrics, the reason for each NaN or omission, and remarks
    on how scores and annotations fit together."""

    metrics: dict[str, float]
    notes: dict[str, str]
    remarks: list[str]


def read_scores(path: str | Path) -> dict[str, np.ndarray]:
    """Scores by video name, sorted by name; ``.mp4`` is stripped from names.

    Raises ``FileNotFoundError`` if there is nothing, ``ValueError`` naming the array that is
    empty, damaged, not ``(T,)`` or ``(T, C)``, not finite, or of another width than the others.
    """
    path = Path(path)
    if path.is_dir():
        arrays = {file.stem: _load(file) for file in sorted(path.glob("*.npy"))}
        if not arrays:
            raise FileNotFoundError(f"{path} holds no .npy file; expected one NAME.npy a video")
    elif path.is_file():
        try:
            with np.load(path, allow_pickle=False) as packed:
                arrays = {name: packed[name] for name in sorted(packed.files)}
        except (ValueError, OSError, EOFError, AttributeError, TypeError, zipfile.BadZipFile):
            raise ValueError(f"{path} is no readable .npz of numbers; save it again") from None
        if not arrays:
            raise ValueError(f"{path} holds no array; expected one a video")
    else:
        raise FileNotFoundError(f"{path} does not exist; expected a folder of .npy or one .npz")
    found: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        if not np.issubdtype(array.dtype, np.floating):
            raise ValueError(f"{path}: {name} holds {array.dtype}, expected floating point scores")
        if array.ndim not in (1, 2) or not len(array):
            raise ValueError(
                f"{path}: {name} has shape {array.shape}, expected (T,) or (T, C) with T >= 1"
            )
        if not np.isfinite(array).all():
            raise ValueError(f"{path}: {name} holds NaN or infinity")
        # the release's arithmetic is in float32; narrower numbers would round on the way
        found[name.removesuffix(".mp4")] = array.astype(np.promote_types(array.dtype, np.float32))
    widths = {array.shape[1:]: name for name, array in found.items()}
    if len(widths) > 1:
        one, other = (
            f"{name} {'holds ' * (not n)}scores (T,{f' {w[0]}' if w else ''})"
            for n, (w, name) in enumerate(list(widths.items())[:2])
        )
        raise ValueError(f"{path}: {one}, {other}; they must be alike")
    return found


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
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = [line for line in file.read().splitlines() if line.strip()]
    header = next(csv.reader(lines[:1]), [])
    if {"name", "n_frames"} <= set(header):
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
        found[pair[0].strip().removesuffix(".mp4")] = int(pair[1])
    return found


def score_files(
    scores: Mapping[str, np.ndarray],
    annotations: Sequence[str | Path],
    *,
    lengths: Mapping[str, int] | None = None,
    stride: int = XD_STRIDE,
    classes: ClassSet,
) -> ScoredFiles:
    """Frame AP and AUC, and with class probabilities the temporal mAP, of scores by video.

    ``scores`` as from ``read_scores``; ``lengths`` in frames, checked against ``stride x T`` where
    given: less than a stride apart is accepted and counted, the truth being cut to the scores.

    Raises ``ValueError`` for an annotated video without scores, a length that does not match (with
    the video and both lengths), an annotation a stride or more beyond its video, and arrays that
    are no probabilities of these classes.
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
    remarks = _check_lengths(names, snippets * stride, lengths, stride)
    segments, truth, clipped, contradicting = [], [], [], []
    for name, frames in zip(names, (snippets * stride).tolist(), strict=True):
        own = events.get(name, [])
        last = max((end for _, _, end in own), default=0)
        if last >= frames + stride:
            raise ValueError(
                f"{name} is annotated up to frame {last}, but its scores end at frame {frames} "
                f"({frames // stride} scores x stride {stride}); check --stride"
            )
        if last > frames:
            clipped.append(name)
        codes = parse_label(name, classes) if has_label(name) else ()
        anomalous = [code for code in codes if classes.index(code)]
        if codes and bool(anomalous) != bool(own):
            contradicting.append(name)
        mask = np.zeros(frames, dtype=np.uint8)
        for _, start, end in truth_events(own):
            mask[start:end] = 1
        truth.append(mask)
        inside = [(c, a, min(b, frames)) for c, a, b in class_events(own) if a < frames]
        segments.append(name_segments(inside, anomalous))
    for found, text in (
        (clipped, "annotations cut at the end of the scores (less than a stride)"),
        (contradicting, "annotated though named normal, or named anomalous and not annotated"),
    ):
        if found:
            remarks.append(f"{len(found)} videos {text}, {found[0]} first")
    pooled = np.concatenate([scores[name] for name in names])
    frame_truth = np.concatenate(truth)
    positive, negative = snippet_truth(frame_truth, snippets, stride)
    anomaly = pooled if pooled.ndim == 1 else _anomaly(pooled, classes)
    metrics = pooled_metrics(anomaly, snippets, positive, negative)
    notes = frame_notes(metrics, positive)
    if pooled.ndim == 1:
        notes["map"] = "needs class probabilities: arrays (T, C), normal first"
    else:
        of_events = event_metrics(names, pooled, snippets, segments, classes, stride)
        metrics |= of_events[0]
        notes |= of_events[1]
    metrics |= {
        "positive_share": float(positive.sum() / len(frame_truth)),
        "videos": float(len(names)),
        "snippets": float(len(pooled)),
        "frames": float(len(frame_truth)),
    }
    return ScoredFiles(metrics=metrics, notes=notes, remarks=remarks)


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
    names: Sequence[str], frames: np.ndarray, lengths: Mapping[str, int] | None, stride: int
) -> list[str]:
    """Hold scored lengths against the videos' own."""
    if lengths is None:
        return []
    apart = []
    for name, scored in zip(names, frames.tolist(), strict=True):
        if name not in lengths:
            raise ValueError(f"{name} has scores but is not in the lengths file")
        if abs(scored - lengths[name]) >= stride:
            raise ValueError(
                f"{name} has {scored // stride} scores x stride {stride} = {scored} frames, but "
                f"its length is {lengths[name]} frames; score the whole video, or check --stride"
            )
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
    """Options of ``python -m avadclip_lite evaluate SCORES``."""
    parser.description = "Score any detector's frame scores against XD-Violence style annotations."
    parser.add_argument("scores", help="folder of NAME.npy, or one .npz; each (T,) or (T, C)")
    parser.add_argument(
        "--annotations",
        required=True,
        nargs="+",
        metavar="FILE",
        help="NAME start end ... or NAME CODE start end ...; or a file of each",
    )
    parser.add_argument("--lengths", metavar="FILE", help="CSV with name,n_frames to check against")
    parser.add_argument(
        "--stride", type=int, default=XD_STRIDE, help="frames a score (default: %(default)s)"
    )
    parser.add_argument("--classes", choices=sorted(CLASS_SETS), default="xd")
    parser.add_argument("--json", action="store_true", help="everything, as one JSON object")


def main(args: argparse.Namespace) -> int:
    """Print the measures and which convention each follows. Bad input raises ``ValueError`` or
    ``FileNotFoundError``."""
    classes = CLASS_SETS[args.classes]
    found = score_files(
        read_scores(args.scores),
        args.annotations,
        lengths=None if args.lengths is None else read_lengths(args.lengths),
        stride=args.stride,
        classes=classes,
    )
    if args.json:
        known = {k: None if math.isnan(v) else v for k, v in found.metrics.items()}
        print(json.dumps({"metrics": known, "notes": found.notes, "remarks": found.remarks}))
    else:
        print(table(found, classes))
    return 0


def table(found: ScoredFiles, classes: ClassSet) -> str:
    """The measures in percent, each with its convention."""
    m = found.metrics
    lines = [
        f"{m['videos']:,.0f} videos, {m['snippets']:,.0f} scores, {m['frames']:,.0f} frames, "
        f"{100 * m['positive_share']:.2f} % of them anomalous",
        *found.remarks,
        "",
        "Frames, all videos pooled (scikit-learn's definitions), percent",
        f"  {_percent(m['ap'])}  AP",
        f"  {_percent(m['auc'])}  AUC of the ROC curve",
        f"  {_percent(m['ap_abnormal'])}  AP of the videos with an anomaly alone",
    ]
    if "map_six_avg" in m:
        ious = [f"@{iou:g}" for iou in IOU_THRESHOLDS]
        rows = {
            "map_six": f"mean of the {len(classes) - 1} anomaly classes: what mAP usually means",
            "map_seven": f"mean of {len(classes)} classes, whole normal videos included: the "
            "AVadCLIP release's",
        }
        rows |= {
            f"map_{code}": f"{code} {word}"
            for code, word in zip(classes.codes, classes.words, strict=True)
        }
        lines += [
            "",
            "Events, mAP at IoU, percent (proposals and matching as in the AVadCLIP release)",
            "  " + "  ".join(f"{head:>6s}" for head in ["avg", *(i[1:] for i in ious)]),
        ]
        for name, text in rows.items():
            values = [_percent(m[name + end]) for end in ("_avg", *ious)]
            lines.append("  " + "  ".join(values) + f"  {text}")
    seen: set[str] = set()
    for name, note in found.notes.items():
        if note not in seen:
            lines += [""] * (not seen) + [f"{name.split('@')[0]}: {note}"]
            seen.add(note)
    return "\n".join(lines)


def _percent(value: float) -> str:
    return "     -" if math.isnan(value) else f"{100 * value:6.2f}"
