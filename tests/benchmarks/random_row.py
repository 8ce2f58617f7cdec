"""What the official annotations alone decide: the share of anomalous frames, and the Random row.

    python tests/benchmarks/random_row.py LISTS data/studies/xd_random.json

LISTS holds ``test_videos.csv`` (name,label,n_frames), ``annotations.txt`` and
``annotations_multiclasses.txt``, the data set's own. Scores between 0 and 1 are drawn for every
snippet and class, twenty times, and scored; only what comes out is written, notebook 09 reads it.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from avadclip_lite.config import XD_CLASSES, XD_STRIDE  # noqa: E402
from avadclip_lite.dataset import clip_segments  # noqa: E402
from avadclip_lite.evaluate import (  # noqa: E402
    average_precision,
    snippet_truth,
    temporal_map,
    with_normal,
)
from avadclip_lite.features.annotations import read_annotations  # noqa: E402

DRAWS = 20


def measured(lists: Path) -> dict[str, object]:
    """Counts of the official test set, and what random scores get on it, as fractions."""
    with open(lists / "test_videos.csv", newline="", encoding="utf-8") as file:
        frames = {row["name"]: int(row["n_frames"]) for row in csv.DictReader(file)}
    binary, coded = (
        read_annotations(lists / f"annotations{form}.txt", XD_CLASSES)
        for form in ("", "_multiclasses")
    )
    lengths = np.array(list(frames.values())) // XD_STRIDE
    truth, past = [], 0
    for name, n in frames.items():
        own = np.zeros(n, np.uint8)
        for _, start, end in binary.get(name, []):
            own[start:end] = 1
        past += any(end > n for *_, end in binary.get(name, []))
        truth.append(own)
    segments = [clip_segments(coded.get(name, []), n) for name, n in frames.items()]
    anomalous = np.array([bool(events) for events in segments])
    whole = with_normal(segments, lengths, XD_CLASSES, XD_STRIDE)
    flat = np.concatenate(truth)
    positive, negative = snippet_truth(flat, lengths, XD_STRIDE)
    ranked = {"all test videos": np.ones_like(anomalous), "anomalous videos only": anomalous}
    rows: dict[str, list[list[float]]] = {name: [] for name in ranked}
    guesses = []
    for seed in range(DRAWS):
        scores = np.random.default_rng(seed).random((lengths.sum(), len(XD_CLASSES)), np.float32)
        guesses.append(round(average_precision(scores[:, 0], positive, negative), 6))
        for name, kept in ranked.items():
            theirs = [whole[v] for v in np.flatnonzero(kept)]
            own = scores[np.repeat(kept, lengths)], lengths[kept], theirs
            found = temporal_map(*own, XD_CLASSES, XD_STRIDE)
            rows[name].append([round(float(x), 6) for x in found.anomaly])
    return {
        "videos": len(frames),
        "anomalous videos": int(anomalous.sum()),
        "frames": len(flat),
        "anomalous frames": int(flat.sum()),
        "videos annotated past their end": past,
        "frame AP": guesses,
        "mAP": rows,
    }


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    text = json.dumps(measured(Path(sys.argv[1])), indent=1)
    Path(sys.argv[2]).write_text(text.replace("\n    ", " ").replace("\n   ]", "]") + "\n")
