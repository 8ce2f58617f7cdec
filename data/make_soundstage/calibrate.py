"""How hard is a Soundstage store? The report that its difficulty was set by.

    python -m data.make_soundstage.build store --calibration --world NAME=VALUE --out FOLDER
    python -m data.make_soundstage.calibrate FOLDER [--seeds 0 1 2] [--json FILE]

Prints the share of positive frames, the share of events that one sense alone can tell, the AP of a
linear probe on single snippets, the AP and mean mAP of the vision-only and the audio-visual
detector over the seeds, and how often each kind of distractor is taken for an anomaly. Worlds are
compared on the calibration seeds, which no notebook uses.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score

from avadclip_lite.config import make_config
from avadclip_lite.dataset import FeatureStore
from avadclip_lite.evaluate import evaluate
from avadclip_lite.train import fit

RECALL = 0.8  # distractors are counted at the threshold that finds this share of the snippets


def snippets_of(store: FeatureStore, split: str) -> dict[str, np.ndarray]:
    """All snippets of a split: video and audio (S, D), silence as zeros, and every flag (S,)."""
    rows = store.indices(split)
    video = np.concatenate([np.asarray(store.video(i), np.float32) for i in rows])
    audio = []
    for i in rows:
        track = store.audio(i)
        empty = np.zeros((int(store.snippets[i]), store.dim), np.float32)
        audio.append(empty if track is None else np.asarray(track, np.float32))
    flags = [store.flags(i) for i in rows]
    joined = {name: np.concatenate([f[name] for f in flags]) for name in flags[0]}
    return {"video": video, "audio": np.concatenate(audio)} | joined


def probe(train: dict[str, np.ndarray], test: dict[str, np.ndarray]) -> dict[str, float]:
    """AP of a logistic regression that is *told* the truth of every training snippet."""
    out = {}
    for name, parts in (("video", ["video"]), ("audio", ["audio"]), ("both", ["video", "audio"])):
        x, z = (np.concatenate([d[p] for p in parts], axis=1) for d in (train, test))
        model = LogisticRegression(max_iter=300, class_weight="balanced").fit(x, train["anomalous"])
        out[name] = float(average_precision_score(test["anomalous"], model.decision_function(z)))
    return out


def fooled(scores: np.ndarray, test: dict[str, np.ndarray]) -> dict[str, float]:
    """Share of the normal snippets of each kind of distractor above the threshold that finds
    ``RECALL`` of the anomalous ones."""
    threshold = np.quantile(scores[test["anomalous"]], 1 - RECALL)
    out = {}
    for name in test:
        if name.startswith("distractor_") and (here := test[name] & ~test["anomalous"]).any():
            out[name.removeprefix("distractor_")] = float((scores[here] > threshold).mean())
    quiet = ~test["anomalous"] & ~np.any([test[n] for n in test if n[:4] == "dist"], axis=0)
    return out | {"nothing": float((scores[quiet] > threshold).mean())}


def senses(store: FeatureStore) -> dict[str, float]:
    """Share of the anomalous snippets that are seen and heard, one of both, or neither."""
    test = snippets_of(store, "test")
    here, seen, heard = test["anomalous"], test["visible"], test["audible"]
    kinds = {"both": seen & heard, "seen only": seen & ~heard, "heard only": ~seen & heard}
    kinds["neither"] = ~seen & ~heard
    return {name: float(kind[here].mean()) for name, kind in kinds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--roles", nargs="*", default=["vision", "audio_visual"])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    store = FeatureStore.open(options.store)
    train, test = snippets_of(store, "train"), snippets_of(store, "test")
    truth = store.frame_truth(store.indices("test"))
    report: dict = {
        "positive_frames": float(truth.mean()),
        "senses": senses(store),
        "linear_probe_ap": probe(train, test),
    }
    for role in options.roles:
        rows: dict[str, list] = {"ap": [], "ap_alignment": [], "map": []}
        fools = []
        for seed in options.seeds:
            settings = make_config(role=role, seed=seed, ukd="none")
            model = fit(settings, store, progress=False).model
            result = evaluate(model, store)
            rows["ap"].append(result.metrics["ap_classification"])
            rows["ap_alignment"].append(result.metrics["ap_alignment"])
            rows["map"].append(result.metrics["map_six_avg"])
            fools.append(fooled(result.predictions.anomaly, test))
            print(role, seed, {k: round(100 * v[-1], 1) for k, v in rows.items()}, flush=True)
        report[role] = {k: [float(np.mean(v)), float(np.std(v, ddof=1))] for k, v in rows.items()}
        report[role]["fooled_by"] = {k: float(np.mean([f[k] for f in fools])) for k in fools[0]}
    text = json.dumps(report, indent=1)
    print(text)
    if options.json:
        with tempfile.NamedTemporaryFile("w", dir=options.json.parent, delete=False) as file:
            file.write(text + "\n")
        os.replace(file.name, options.json)


if __name__ == "__main__":
    main()
