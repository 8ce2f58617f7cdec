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
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.metrics import auc, precision_recall_curve

from avadclip_lite import config, dataset, evaluate
from avadclip_lite.config import XD_STRIDE, ClassSet
from avadclip_lite.experiments.metrics import described
from avadclip_lite.features import annotations as lists
from avadclip_lite.train import load

TRAPEZOID = "frame_pr_trapezoid"
SURE = 100  # odds to one at which a pattern is no coincidence


class ScoredFiles(NamedTuple):
    """Flat metrics, and remarks on how scores and annotations fit together."""

    metrics: dict[str, float]
    remarks: list[str]


def read_scores(path: str | Path) -> dict[str, np.ndarray]:
    """Scores by video name, ``(T,)`` or ``(T, C)``, at least float32. A folder is read with its
    subfolders; hidden files are left alone. Raises ``FileNotFoundError`` if there is nothing,
    ``ValueError`` naming the array that is damaged, not finite, misshapen, or there twice."""
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; expected a folder of .npy or one .npz")
    files: dict[str, np.ndarray] = {}
    place = path
    try:
        if path.is_dir():
            for place in sorted(path.rglob("*.npy")):
                if _shown(name := str(place.relative_to(path))):
                    files[name] = np.load(place, allow_pickle=False)
        else:
            with np.load(path, allow_pickle=False) as packed:
                files = {name: packed[name] for name in sorted(packed.files) if _shown(name)}
    except (ValueError, OSError, EOFError, AttributeError, TypeError, zipfile.BadZipFile):
        told = "is damaged, or holds no array of numbers; save it again with numpy.save or savez"
        raise ValueError(f"{place} {told}") from None
    if not files:
        raise FileNotFoundError(f"{path} holds no array; expected one NAME.npy a video")
    found: dict[str, np.ndarray] = {}
    for place, array in files.items():
        name = lists.video_name(place.removesuffix(".npy"))
        array = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
        first, one = next(iter(found.items()), (name, array))
        wrong = ""
        if name in found:
            wrong = "is there twice; keep one"
        elif array.dtype.kind != "f":
            wrong = f"holds {array.dtype}, expected floating point scores"
        elif array.ndim not in (1, 2) or not len(array):
            wrong = f"has shape {array.shape}, expected (T,) or (T, C)"
        elif not np.isfinite(array).all():
            wrong = "holds NaN or infinity; score again"
        elif one.shape[1:] != array.shape[1:]:
            theirs = f"{('T', *array.shape[1:])}, {first} {('T', *one.shape[1:])}"
            wrong = f"holds scores of shape {theirs}; they must be alike"
        if wrong:
            raise ValueError(f"{path}: {name} {wrong}")
        # the release's arithmetic is in float32; narrower numbers would round on the way
        found[name] = array.astype(np.promote_types(array.dtype, np.float32))
    return found


def _shown(place: str) -> bool:
    return not any(lists.is_hidden(part) or part == "__MACOSX" for part in Path(place).parts)


def score_files(
    scores: Mapping[str, np.ndarray],
    annotations: Sequence[str | Path],
    *,
    stride: int | None = None,
    classes: ClassSet,
    trapezoid: bool = False,
) -> ScoredFiles:
    """Frame AP and AUC, and with class probabilities the temporal mAP, of scores by video as from
    ``read_scores``; ``stride``: frames a score, 16 if it is None. ``trapezoid`` adds the area under
    the precision-recall curve, which some publications report. Raises ``ValueError`` for an
    annotated video without scores, an annotation 16 frames or more beyond its video, arrays that
    are no probabilities of these classes, and, where no stride is given, scores of frames."""
    asked, stride = stride, XD_STRIDE if stride is None else stride
    if stride < 1:
        raise ValueError(f"the stride must be at least 1 frame, got {stride}")
    remarks: list[str] = []
    listed = lists.read_annotations(annotations, classes, remarks)
    found, missing = lists.match_names(listed, scores)
    if missing:
        count = f"{len(missing)} of {len(listed)} annotated videos have no scores"
        raise ValueError(f"{count}, {lists.some(missing)}; score all, under the name there")
    events = {video: listed[name] for video, name in found.items()}
    snippets = np.array([len(array) for array in scores.values()], dtype=np.int64)
    if asked is None:
        _refuse_frames(scores, events, stride)
    segments, truth, clipped, odd = [], [], [], []
    for name, frames in zip(scores, (snippets * stride).tolist(), strict=True):
        own = events.get(name, [])
        last = max((end for _, _, end in own), default=0)
        if last >= frames + max(stride, XD_STRIDE):  # the official ones run over by 15
            ends = f"its scores end at {frames} ({frames // stride} x {stride}); check --stride"
            raise ValueError(f"{name} is annotated up to frame {last}, but {ends}")
        clipped += [name] * (last > frames)
        codes = dataset.parse_label(name, classes) if dataset.LABEL_MARK in name else ()
        anomalous = [code for code in codes if classes.index(code)]
        odd += [name] * (bool(codes) and bool(anomalous) != bool(own))
        truth.append(np.zeros(frames, dtype=np.uint8))
        for _, start, end in dataset.events_of(own, coded=False):
            truth[-1][start:end] = 1
        inside = dataset.clip_segments(dataset.events_of(own, coded=True), frames)
        segments.append(evaluate.name_segments(inside, anomalous))
    told = {"annotations cut at the end of the scores": clipped}
    told["annotated though named normal, or named anomalous and not annotated"] = odd
    remarks += [f"{text}, {lists.some(found)}" for text, found in told.items() if found]
    pooled = np.concatenate(list(scores.values()))
    counts = evaluate.snippet_truth(np.concatenate(truth), snippets, stride)
    anomaly = pooled if pooled.ndim == 1 else _anomaly(pooled, classes)
    metrics = evaluate.pooled_metrics(anomaly, snippets, *counts)
    metrics |= {TRAPEZOID: trapezoid_area(anomaly, *counts)} if trapezoid else {}
    if pooled.ndim == 1:
        remarks.append("the mAP needs class probabilities: arrays (T, C), normal first")
    else:
        given = list(scores), pooled, snippets, segments, classes, stride
        events, notes, _ = evaluate.event_metrics(*given)
        metrics, remarks = metrics | events, remarks + notes
    frames = float(sum(map(len, truth)))
    metrics |= {"positive_share": float(counts[0].sum() / frames), "videos": float(len(scores))}
    metrics |= {"snippets": float(len(pooled)), "frames": frames}
    return ScoredFiles(metrics, remarks)


def trapezoid_area(scores: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> float:
    """scikit-learn's ``auc(precision_recall_curve(...))`` of frames, arguments as in
    ``evaluate.average_precision``; NaN without a positive frame. A score that is the same
    everywhere gets (1 + p) / 2, where the average precision is the share p."""
    if not positive.any():
        return math.nan
    frames = np.concatenate([np.repeat(scores, positive), np.repeat(scores, negative)])
    truth = np.repeat([1, 0], [positive.sum(), negative.sum()])
    precision, recall, _ = precision_recall_curve(truth, frames)
    return float(auc(recall, precision))


def _refuse_frames(scores: Mapping, events: Mapping[str, Sequence], stride: int) -> None:
    """Refuses scores saved one a *frame*: no annotation reaches past 1/stride of its video."""
    ends = {name: max(end for *_, end in own) for name, own in events.items()}
    room = {name: len(scores[name]) + XD_STRIDE for name in ends}  # some run past their video
    odds = math.prod(len(scores[name]) * stride / room[name] for name in ends)
    if odds >= SURE and all(ends[name] < room[name] for name in ends):
        told = f"scores of frames, not of snippets of {stride} frames?"
        why = f"No annotation reaches past 1/{stride} of its video"
        raise ValueError(f"{told} {why}; add --stride 1, or --stride {stride} if not")


def _anomaly(probs: np.ndarray, classes: ClassSet) -> np.ndarray:
    """One minus the probability of normal, (S, C) -> (S,)."""
    if probs.shape[1] != len(classes):
        known = f"{classes.name} has {len(classes)}: {', '.join(classes.codes)}"
        remedy = "choose the class set with --classes"
        raise ValueError(f"scores have {probs.shape[1]} classes, {known}; {remedy}")
    if probs.min() < 0 or probs.max() > 1:
        range_, remedy = f"{probs.min():.3g} to {probs.max():.3g}", "softmax the logits first"
        raise ValueError(f"class scores run from {range_}; they must be probabilities ({remedy})")
    return 1 - probs[:, 0]


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
    told = "with --scores: lines NAME start end ... or NAME CODE start end ...; or a file of each"
    add("--annotations", nargs="+", metavar="FILE", help=told)
    add("--stride", type=int, help=f"with --scores: frames a score ({XD_STRIDE})")
    add("--classes", choices=sorted(config.CLASS_SETS), default="xd", help="with --scores")
    told = "also the trapezoid under the precision-recall curve, which is NOT average precision"
    add("--trapezoid", action="store_true", help=told)
    add("--json", action="store_true", help="everything, as one JSON object")


def main(args: argparse.Namespace) -> int:
    """Print the measures and what each is. Bad input: ``ValueError``, ``FileNotFoundError``."""
    paired = bool(args.run) == bool(args.data) and bool(args.scores) == bool(args.annotations)
    if bool(args.run) == bool(args.scores) or not paired or (args.run and args.stride):
        raise ValueError("give either --run RUN --data STORE or --scores PATH --annotations FILE")
    if args.run:
        store = dataset.FeatureStore.open(args.data)
        model = load(args.run, config.find_device(args.device))
        report = evaluate.evaluate(model, store, args.split, precision=args.precision)
        found, seen = ScoredFiles(report.metrics, report.notes), report.predictions
        if args.trapezoid:
            truth = store.frame_truth(store.indices(args.split), seen.lengths * store.stride)
            counts = evaluate.snippet_truth(truth, seen.lengths, store.stride)
            branches = {"classification": seen.anomaly, "alignment": seen.alignment_anomaly}
            for branch, own in branches.items():
                if own is not None:
                    found.metrics[f"{TRAPEZOID}_{branch}"] = trapezoid_area(own, *counts)
    else:
        how = {"stride": args.stride, "classes": config.CLASS_SETS[args.classes]}
        how |= {"trapezoid": args.trapezoid}
        found = score_files(read_scores(args.scores), args.annotations, **how)
    if args.json:
        known = {k: None if math.isnan(v) else v for k, v in found.metrics.items()}
        print(json.dumps(found._asdict() | {"metrics": known}))
    else:
        print(table(found))
    return 0


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
    return "\n".join([*lines, "-: the truth holds nothing of the kind"])
