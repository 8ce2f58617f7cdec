"""How hard is a world? One sense at a time, and nothing else.

    python -m data.make_soundstage.calibrate FOLDER --weights ENCODERS [--world NAME=VALUE ...]
    python -m data.make_soundstage.calibrate FOLDER --weights ENCODERS --seeds 0 1 2

Renders videos of the calibration seeds, which no shipped video uses, into FOLDER (kept: the next
call measures only), and measures what SOUNDSTAGE's targets speak of: rules without training, linear
probes that are told the truth, and weakly trained detectors of *one* sense. No detector that uses
both is built here, so that a world cannot be chosen by how any fusion does in it. Every line of
FOLDER/report.json is one figure.

Shape letters: S snippets of a split, T snippets of a video, D feature width.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import maximum_filter1d, median_filter, uniform_filter1d
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.svm import OneClassSVM

from avadclip_lite.config import XD_CLASSES, make_config
from avadclip_lite.dataset import Batch, FeatureStore
from avadclip_lite.encoders import Encoders, load_encoders, load_text
from avadclip_lite.evaluate import evaluate
from avadclip_lite.model import AVadCLIP, register
from avadclip_lite.temporal import length_mask, zero_padding
from avadclip_lite.train import fit
from data.make_soundstage.build import (
    CALIBRATION_TEST,
    CALIBRATION_TRAIN,
    build_store,
    digest_of,
    parse_world,
)
from data.make_soundstage.sample import world_statistics

SENSES = {"vision": "video", "audio": "audio"}  # a detector's role -> what it is given
# Form and recipe, fixed before any world was measured.
RECIPE = dict(learning_rate=1e-3, max_steps=500, epochs=500, batch_size=32, weight_decay=1.0,
              max_snippets=80, ukd="none", device="cpu")  # fmt: skip
RECALL = 0.8  # distractors are counted at the threshold that finds this share of the snippets
SENTENCES = ("a normal street", "people hurt on a street")  # one normal, one anomalous
SMOOTHINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "raw": lambda x: x,
    "mean of 5": lambda x: uniform_filter1d(x, 5),
    "maximum of 5": lambda x: maximum_filter1d(x, 5),
    "median of 5": lambda x: median_filter(x, 5),
    "median of 15": lambda x: median_filter(x, 15),
}


@register("snippetwise")
class Snippetwise(AVadCLIP):
    """The same heads, prompts and losses on the bare features: no snippet knows its neighbours."""

    def encode(self, batch: Batch) -> tuple[torch.Tensor, None, torch.Tensor]:
        """The features themselves, (B, T, D), and the mask (B, T)."""
        x = batch.video if self.settings.model.role == "vision" else batch.audio
        mask = length_mask(batch.lengths, x.shape[1])
        return zero_padding(x, mask), None, mask


class Split:
    """A split of a store by video: ``video`` and ``audio`` lists of (T, D) with zeros for missing
    sound, ``truth`` and every other flag as lists of (T,)."""

    def __init__(self, store: FeatureStore, name: str, signals: dict[str, np.ndarray]) -> None:
        rows = store.indices(name)
        self.labels = store.labels(rows)
        self.video = [np.asarray(store.video(i), np.float32) for i in rows]
        silence = [np.zeros_like(x) for x in self.video]
        tracks = [store.audio(i) for i in rows]
        self.audio = [
            z if a is None else np.asarray(a, np.float32)
            for a, z in zip(tracks, silence, strict=True)
        ]
        self.flags = [store.flags(i) for i in rows]
        self.codes = [_codes(store, i) for i in rows]
        self.signals = {
            kind: [values[i][: len(x)] for i, x in zip(rows, self.video, strict=True)]
            for kind, values in signals.items()
        }

    @property
    def code(self) -> np.ndarray:
        """Class code of what happens in each snippet (S,), "" where nothing does."""
        return np.concatenate(self.codes)

    def flag(self, name: str) -> np.ndarray:
        """(S,) bool."""
        return np.concatenate([flags[name] for flags in self.flags])


def _codes(store: FeatureStore, i: int) -> np.ndarray:
    codes = np.full(store.snippets[i], "", dtype="<U4")
    for code, start, end in store.segments(i):
        first, last = round(start / store.stride), round(end / store.stride)
        codes[first : max(last, first + 1)] = code
    return codes


# --- rules without training -----------------------------------------------------------------------


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-6)


def rule_scores(train: Split, test: Split, encoders: Encoders) -> dict[str, list[np.ndarray]]:
    """Scores (T,) of each test video by every rule that no anomaly label was used for; by name."""
    words = encoders.encode_text(XD_CLASSES.words).numpy()
    sentences = encoders.encode_text(SENTENCES).numpy()
    scores: dict[str, dict[str, list[np.ndarray]]] = {}

    def against(x: np.ndarray, texts: np.ndarray) -> np.ndarray:
        """1 - probability of the first text at CLIP's temperature, as the alignment map has it."""
        logits = _unit(x) @ _unit(texts).T / 0.07
        return 1 - np.exp(logits[:, 0]) / np.exp(logits).sum(1)

    for sense in ("video", "audio"):
        videos = getattr(test, sense)
        quiet = [x for x, y in zip(getattr(train, sense), train.labels, strict=True) if y[0]]
        known = np.concatenate(quiet)
        known = known[np.random.default_rng(0).permutation(len(known))[:4000]]
        machine = OneClassSVM(nu=0.1).fit(known)
        scores[sense] = {
            "class words": [against(x, words) for x in videos],
            "two sentences": [against(x, sentences) for x in videos],
            "distance from own mean": [np.linalg.norm(x - x.mean(0), axis=1) for x in videos],
            "one-class SVM": [-machine.decision_function(x) for x in videos],
        }
    for sense, name in (("video", "motion"), ("audio", "loudness")):
        scores[sense] |= {name: test.signals[name]} if name in test.signals else {}
    larger = {}
    for name in scores["video"].keys() & scores["audio"].keys():
        pairs = zip(scores["video"][name], scores["audio"][name], strict=True)
        larger[name] = [np.maximum(a, b) for a, b in pairs]
    scores["larger"] = larger
    return {
        f"{sense}: {name}, {how}": [smooth(x) for x in videos]
        for sense, named in scores.items()
        for name, videos in named.items()
        for how, smooth in SMOOTHINGS.items()
    }


def rules(train: Split, test: Split, encoders: Encoders) -> dict[str, float]:
    """AP in percent of every rule of ``rule_scores`` on all snippets of ``test``."""
    truth, scores = test.flag("anomalous"), rule_scores(train, test, encoders)
    pooled = {name: np.concatenate(videos) for name, videos in scores.items()}
    return {name: 100 * average_precision_score(truth, x) for name, x in pooled.items()}


# --- probes that are told the truth ---------------------------------------------------------------


def with_neighbours(x: np.ndarray) -> np.ndarray:
    """(T, D) -> (T, 5 D): a snippet beside the means of what lies up to 2 and up to 6 snippets
    before and behind it."""
    padded = np.pad(x, ((6, 6), (0, 0)), mode="edge")
    total = np.concatenate([np.zeros((1, x.shape[1])), padded.cumsum(0)])
    at = np.arange(len(x)) + 6

    def mean(a: int, b: int) -> np.ndarray:
        return (total[at + b] - total[at + a]) / (b - a)

    return np.concatenate([x, mean(-2, 0), mean(1, 3), mean(-6, 0), mean(1, 7)], axis=1)


def probes(train: Split, test: Split) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """AP of a logistic regression that knows the truth of every training snippet; and of the one
    with neighbours, the share of each class's snippets above the threshold that finds ``RECALL`` of
    all."""
    out, recall = {}, {}
    for sense in ("video", "audio"):
        for name, view in (("snippet", np.asarray), ("window", with_neighbours)):
            x, z = (
                np.concatenate([view(v) for v in getattr(part, sense)]) for part in (train, test)
            )
            model = LogisticRegression(C=0.1, solver="newton-cholesky").fit(
                x, train.flag("anomalous")
            )
            scores, truth = model.decision_function(z), test.flag("anomalous")
            out[f"{sense}, {name}"] = 100 * float(average_precision_score(truth, scores))
        found = scores > np.quantile(scores[truth], 1 - RECALL)  # of the last view, the window
        words = dict(zip(XD_CLASSES.codes, XD_CLASSES.words, strict=True))
        recall[sense] = {
            words[code]: float(found[test.code == code].mean())
            for code in XD_CLASSES.codes
            if (test.code == code).any()
        }
    return out, recall


# --- weakly trained detectors of one sense --------------------------------------------------------


def fooled(scores: np.ndarray, test: Split) -> dict[str, float]:
    """Share of the normal snippets of each kind of distractor above the threshold that finds
    ``RECALL`` of the anomalous ones."""
    here = test.flag("anomalous")
    threshold = np.quantile(scores[here], 1 - RECALL)
    names = [name for name in test.flags[0] if name.startswith("distractor_")]
    out = {}
    for name in names:
        if (mine := test.flag(name) & ~here).any():
            out[name.removeprefix("distractor_")] = float((scores[mine] > threshold).mean())
    quiet = ~here & ~np.any([test.flag(name) for name in names], axis=0)
    return out | {"nothing": float((scores[quiet] > threshold).mean())}


def detectors(
    store: FeatureStore, test: Split, weights: Path, seeds: Sequence[int], names: Sequence[str]
) -> dict[str, dict]:
    """AP, mean mAP over the six classes (both in percent) and what fools it, by sense and
    detector; ``weights``: of the encoders that made the store; ``names``: "avadclip", and
    "snippetwise" for the one without context."""
    text, prompts = load_text("soundstage", XD_CLASSES.words, dim=store.dim, weights=weights)
    out: dict[str, dict] = {}
    for name in names:
        for role in SENSES:
            runs = []
            for seed in seeds:
                settings = make_config(role=role, detector=name, seed=seed, **RECIPE)
                result = fit(settings, store, text=text, prompts=prompts, progress=False)
                report = evaluate(result.model, store)
                runs.append(
                    {
                        "ap": 100 * report.metrics["frame_ap_classification"],
                        "map": 100 * report.metrics["map_anomaly"],
                        "ap_alignment": 100 * report.metrics["frame_ap_alignment"],
                        "epoch": result.chosen_epoch,
                        "seconds": result.seconds,
                        "fooled_by": fooled(report.predictions.anomaly, test),
                    }
                )
                shown = {k: round(v, 1) for k, v in runs[-1].items() if k != "fooled_by"}
                print(f"{role} {name}, seed {seed}: {shown}", flush=True)
            out[f"{role} {name}"] = {"runs": runs, **_spread(runs)}
    return out


def _spread(runs: Sequence[dict]) -> dict[str, list[float]]:
    """Mean and standard deviation over the runs."""
    ddof = 1 if len(runs) > 1 else 0
    return {
        key: [
            float(np.mean([r[key] for r in runs])),
            float(np.std([r[key] for r in runs], ddof=ddof)),
        ]
        for key in ("ap", "map")
    }


def measure(folder: Path, weights: Path, seeds: Sequence[int], names: Sequence[str]) -> None:
    """All one-sense figures of the store in ``folder``, which the encoders in ``weights`` made,
    printed and written to its report.json."""
    store = FeatureStore.open(folder)
    cuts = np.cumsum(store.snippets)[:-1]
    with np.load(folder / "signals.npz") as file:
        signals = {name: np.split(file[name], cuts) for name in file.files}
    train, test = Split(store, "train", signals), Split(store, "test", signals)
    report: dict = {"positive": float(store.frame_truth(store.indices("test")).mean())}
    report["rules"] = rules(train, test, load_encoders("soundstage", weights=weights))
    ranked = sorted(report["rules"].items(), key=lambda item: -item[1])
    print(f"positive {100 * report['positive']:.1f} %; best rules:")
    for name, value in ranked[:6]:
        print(f"  {value:5.1f}  {name}")
    report["probes"], report["probe_recall"] = probes(train, test)
    print({name: round(value, 1) for name, value in report["probes"].items()}, flush=True)
    report["detectors"] = detectors(store, test, weights, seeds, names)
    text = json.dumps(report, indent=1)
    (folder / "report.json").write_text(text + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m data.make_soundstage.calibrate", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("folder", type=Path, help="rendered videos and the report")
    parser.add_argument("--weights", type=Path, required=True, help="folder of the encoders")
    parser.add_argument("--world", nargs="*", default=[], metavar="NAME=VALUE")
    parser.add_argument("--train", type=int, default=300, help="training videos")
    parser.add_argument("--test", type=int, default=120, help="test videos")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0], help="of the trainings")
    parser.add_argument("--detectors", nargs="*", default=["avadclip"], help="also: snippetwise")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if not (options.folder / "signals.npz").is_file():
        world = parse_world(options.world)
        train, test = CALIBRATION_TRAIN[: options.train], CALIBRATION_TEST[: options.test]
        start, signals, scenes = time.time(), {"loudness": [], "motion": []}, []

        def listen(scene, frames, waves) -> None:
            loud = np.zeros(len(frames)) if waves is None else np.sqrt((waves**2).mean(1))
            change = np.abs(np.diff(frames.astype(np.float32), axis=0)).mean((1, 2, 3))
            signals["loudness"].append(loud)
            signals["motion"].append(np.concatenate([change[:1], change]))
            scenes.append(scene)

        splits = {"train": train, "test": test}
        encoders = load_encoders("soundstage", weights=options.weights)
        made_with = digest_of(options.weights)
        build_store(options.folder, encoders, splits, world, 1, f"{made_with} {start}", listen)
        about = {"world": asdict(world), "statistics": world_statistics(scenes)}
        text = json.dumps(about | {"seconds": time.time() - start}, indent=1)
        (options.folder / "world.json").write_text(text + "\n", encoding="utf-8")
        flat = {k: np.concatenate(v) for k, v in signals.items()}
        np.savez(options.folder / "signals.npz", **flat)
        print(f"rendered in {time.time() - start:.0f} s", flush=True)
    measure(options.folder, options.weights, options.seeds, options.detectors)


if __name__ == "__main__":
    main()
