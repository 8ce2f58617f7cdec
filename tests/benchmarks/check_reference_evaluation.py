"""Check the evaluation against results of the authors' release, at full size.

    python tests/benchmarks/check_reference_evaluation.py FOLDER

FOLDER holds ``ref_map_realistic.npz``, ``release_segments.json`` and ``ref_frame_ap.npz``; where
it also holds ``ref_pipeline.npz`` and ``fill_state.py``, the whole loop (released teacher and
student, chunks, both branches, mAP) is run as well. Prints one line a check and exits with 1 if
one of them fails.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from avadclip_lite.config import CLIP_DIM, XD_CLASSES, XD_STRIDE
from avadclip_lite.evaluate import (
    Predictions,
    _proposals,
    average_precision,
    predict_videos,
    roc_auc,
    score,
    snippet_truth,
    temporal_map,
)

failures = 0


def check(name: str, deviation: float, tolerance: float, seconds: float | None = None) -> None:
    """Print one comparison and remember a failure."""
    global failures
    good = deviation <= tolerance
    failures += not good
    took = "" if seconds is None else f"  {seconds:6.3f} s"
    print(f"{'ok  ' if good else 'FAIL'} {name:44s} {deviation:9.2e} <= {tolerance:.0e}{took}")


def events(folder: Path) -> None:
    """The mAP of 800 videos, 2.3 million frames; bit equality, and the time."""
    segments = json.loads((folder / "release_segments.json").read_text())
    with np.load(folder / "ref_map_realistic.npz", allow_pickle=False) as reference:
        probs, lengths = reference["snippet_probs"], reference["snippets_per_video"]
        table, mean = reference["per_class_ap"], reference["dmap"]
    times = []
    for _ in range(3):
        began = time.perf_counter()
        result = temporal_map(probs, lengths, segments, XD_CLASSES, XD_STRIDE)
        times.append(time.perf_counter() - began)
    check("mAP per class, 2.3 M frames", np.abs(result.table - table).max(), 0, max(times))
    check("mAP, normal included", np.abs(100 * result.with_normal - mean).max(), 0)
    print(f"     mAP over the anomaly classes: {np.round(100 * result.anomaly, 2).tolist()}")


def frames(folder: Path) -> None:
    """Frame AP and AUC of 2.3 million frames."""
    with np.load(folder / "ref_map_realistic.npz", allow_pickle=False) as reference:
        lengths = reference["snippets_per_video"]
    with np.load(folder / "ref_frame_ap.npz", allow_pickle=False) as reference:
        scores, truth = reference["snippet_scores"], reference["frame_gt"]
        ap, auc = float(reference["ap"]), float(reference["auc"])
    began = time.perf_counter()
    positive, negative = snippet_truth(truth, lengths, XD_STRIDE)
    got = average_precision(scores, positive, negative), roc_auc(scores, positive, negative)
    seconds = time.perf_counter() - began
    check("frame AP, 2.3 M frames", abs(got[0] - ap), 1e-12, seconds)
    check("frame AUC, 2.3 M frames", abs(got[1] - auc), 1e-12)


def pipeline_videos(
    inputs: Callable[[str, tuple[int, int], float], np.ndarray], lengths: list[int]
) -> list[tuple[np.ndarray, np.ndarray, None]]:
    """The features of the release's recorded test loop, made from their formula."""
    videos = []
    for i, length in enumerate(lengths):
        center = inputs(f"pipe.center.{i}", (8, CLIP_DIM), 10 / CLIP_DIM**0.5)
        around = inputs(f"pipe.visual.{i}", (length, CLIP_DIM), 10 / CLIP_DIM**0.5)
        scene = np.minimum(np.arange(length) // 16, 7)
        audio = inputs(f"pipe.audio.{i}", (length, CLIP_DIM), 1 / CLIP_DIM**0.5)
        videos.append((center[scene] + np.float32(0.4) * around, audio, None))
    return videos


def filled_state(fill: ModuleType, listing: str) -> dict[str, torch.Tensor]:
    """A released state dict whose every tensor follows from its name (see ``fill_state.py``)."""
    state = {}
    for key, numbers in re.findall(r"^(\S+)\s+\(([\d, ]*)\)", listing, flags=re.M):
        shape = tuple(int(n) for n in numbers.replace(" ", "").split(",") if n)
        layers = range(12) if "{0..11}" in key else range(1)
        for name in (key.replace("{0..11}", str(n)) for n in layers):
            if not fill.skip(name):
                state[name] = torch.from_numpy(np.asarray(fill.value(name, shape)))
    return state


def pipeline(folder: Path) -> None:
    """The release's test loop with filled checkpoints, from features to the five mAP values."""
    from avadclip_lite.compare import release as released

    spec = importlib.util.spec_from_file_location("fill_state", folder / "fill_state.py")
    fill = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fill)
    with np.load(folder / "ref_pipeline.npz", allow_pickle=False) as reference:
        data = {name: reference[name] for name in reference.files}
    videos = pipeline_videos(fill.inputs, data["lengths"].tolist())
    spans, codes = json.loads(str(data["segments"])), json.loads(str(data["seg_labels"]))
    segments = [
        [(code, int(a), int(b)) for (a, b), code in zip(video, its, strict=True)]
        for video, its in zip(spans, codes, strict=True)
    ]
    names = (folder / "state_dict_keys.txt").read_text()
    _, teacher, student, clip = re.split(r"^# .*$", names, flags=re.M)
    for role, load, listing in (
        ("teacher", released.load_teacher, teacher),
        ("student", released.load_student, student),
    ):
        model = load(filled_state(fill, listing + clip))
        began = time.perf_counter()
        got = predict_videos(model, videos)
        seconds = time.perf_counter() - began
        report = score(got, data["frame_gt"].astype(np.uint8), segments, XD_CLASSES, XD_STRIDE)
        own = report.map_result.with_normal
        deviation = np.abs(got.alignment - data[f"{role}.probs2"]).max()
        check(f"{role}: class probabilities", float(deviation), 1e-5, seconds)
        # On equal scores these are equal to 1e-16 (a unit test); here scores differ by 3e-7, and
        # each pair of snippets closer than that may swap ranks.
        for theirs, ours in (
            ("AP1", "frame_ap_classification"),
            ("AUC1", "frame_auc_classification"),
            ("AP2", "frame_ap_alignment"),
            ("AUC2", "frame_auc_alignment"),
        ):
            deviation = abs(report.metrics[ours] - float(data[f"{role}.{theirs}"]))
            check(f"{role}: {theirs}", deviation, 1e-5)
        # Equal probabilities give equal mAP. Those of another arithmetic differ by 3e-7: of two
        # proposals whose scores are that close, either may come first in the ranking.
        theirs = replace(got, alignment=data[f"{role}.probs2"])
        report = score(theirs, data["frame_gt"].astype(np.uint8), segments, XD_CLASSES, XD_STRIDE)
        deviation = np.abs(100 * report.map_result.with_normal - data[f"{role}.dmap"]).max()
        check(f"{role}: mAP, of the recorded probabilities", float(deviation), 1e-9)
        mine, recorded = proposals(got), proposals(theirs)
        check(f"{role}: proposals that differ", float(len(mine.keys() ^ recorded.keys())), 0)
        ranked = sorted(recorded, key=lambda event: (event[1], recorded[event]))
        gaps = [
            recorded[b] - recorded[a]
            for a, b in pairwise(ranked)
            if a[1] == b[1] and mine[a] > mine[b]
        ]
        check(f"{role}: gap of {len(gaps)} pairs that swap ranks", max(gaps, default=0.0), 1e-5)
        deviation = np.abs(100 * own - data[f"{role}.dmap"]).max()
        check(f"{role}: mAP at five IoUs, points", float(deviation), 0.05 if gaps else 1e-9)


def proposals(predictions: Predictions) -> dict[tuple[int, ...], float]:
    """Scores by video, class, first and end frame of every proposal."""
    return {
        (v, c, first, end): float(score)
        for v in range(len(predictions.lengths))
        for c, first, end, score in _proposals(predictions.video(v)[1], XD_STRIDE)
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of the reference files")
    folder = parser.parse_args().folder
    events(folder)
    frames(folder)
    if (folder / "ref_pipeline.npz").is_file():
        pipeline(folder)
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
