"""No training, hearing, seeing: how far apart in Soundstage, and what can 300 test videos tell?

    python tests/benchmarks/order_of_senses.py --more 1200 --keep FOLDER [--seeds 3]

The rules without training of ``data.make_soundstage.calibrate`` (but motion and loudness), and the
study's audio and vision detectors, trained on the shipped training split, on two test sets: that
which ships, and so many videos of the same world that nothing else uses (rendered into FOLDER, some
ten core-minutes for 1,200). The rule is the one that is best on the set, so its AP flatters it.
Printed in percent: frame AP, and what each is ahead by, with 95 % intervals over test videos drawn
again and, for both detectors, over seeds.
"""

from __future__ import annotations

import argparse
import logging
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.stats import rankdata

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from avadclip_lite.config import soundstage_path  # noqa: E402
from avadclip_lite.dataset import FeatureStore  # noqa: E402
from avadclip_lite.encoders import load_encoders  # noqa: E402
from avadclip_lite.evaluate import (  # noqa: E402
    Predictions,
    average_precision,
    predict_store,
    snippet_truth,
)
from avadclip_lite.experiments.comparisons import intervals, resampled_ap  # noqa: E402
from avadclip_lite.experiments.study import Task, chosen_rates, trained  # noqa: E402
from data.make_soundstage import build, calibrate  # noqa: E402
from data.make_soundstage.world import FOOTAGE  # noqa: E402

SEEDS_FROM = 300_000  # of videos that neither the store nor the calibration holds
STUDY = ROOT / "data" / "studies" / "soundstage.csv"  # whose grid chose the learning rates
SENSES = {"hearing": "audio", "seeing": "vision"}  # the study's variants


def ranked(videos: list[np.ndarray], store: FeatureStore) -> Predictions:
    """A rule's scores as predictions: their ranks, which leave AP as it is."""
    lengths = np.array([len(x) for x in videos])
    ranks = rankdata(np.concatenate(videos)) / lengths.sum() - 0.5
    names = [store.videos[i].name for i in store.indices("test")]
    given = {"lengths": lengths, "anomaly_logits": ranks.astype(np.float32), "alignment": None}
    return Predictions(names=names, **given)


def ap(predicted: Predictions, store: FeatureStore) -> float:
    """In percent, on the test split."""
    lengths = predicted.lengths
    truth = store.frame_truth(store.indices("test"), lengths * store.stride)
    frames = snippet_truth(truth, lengths, store.stride)
    return 100 * average_precision(predicted.anomaly, *frames)


def measured(predicted: Predictions, store: FeatureStore) -> np.ndarray:
    """AP in percent: on the test split, then on each of the test sets drawn again."""
    return np.array([ap(predicted, store), *(100 * resampled_ap(predicted, store))])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--more", type=int, default=1200, help="further videos")
    parser.add_argument("--keep", type=Path, required=True, help="folder for their features")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each sense")
    parser.add_argument("--workers", type=int, default=1, help="processes that render")
    args = parser.parse_args()
    if args.seeds < 2:
        parser.error("intervals over seeds take at least two")
    logging.disable(logging.INFO)
    torch.set_num_threads(1)
    shipped, encoders = FeatureStore.open(soundstage_path()), load_encoders("soundstage")
    if not (args.keep / "meta.json").is_file():
        splits = {"test": range(SEEDS_FROM, SEEDS_FROM + args.more)}
        build.build_store(args.keep, encoders, splits, FOOTAGE, args.workers)
    further = FeatureStore.open(args.keep)
    if len(further.videos) != args.more:
        parser.error(f"{args.keep} holds {len(further.videos)} videos; name another folder")
    task = Task(variant="audio", seed=0, data=shipped.path, scale="soundstage")
    task = replace(task, rates=chosen_rates(STUDY))
    models = {
        name: [
            trained(replace(task, variant=variant, seed=s), shipped).model
            for s in range(args.seeds)
        ]
        for name, variant in SENSES.items()
    }
    normal = calibrate.Split(shipped, "train", {})
    for where, store in {"shipped": shipped, "further": further}.items():
        rows = store.indices("test")
        scores = calibrate.rule_scores(normal, calibrate.Split(store, "test", {}), encoders)
        rules = {name: ranked(videos, store) for name, videos in scores.items()}
        best = max(rules, key=lambda name: ap(rules[name], store))
        found = {"no training": measured(rules[best], store)[None]}
        for name, own in models.items():
            each = [measured(predict_store(model, store, rows), store) for model in own]
            found[name] = np.stack(each)
        print(f"{where}: {len(rows)} test videos; the best rule is {best}")
        for name, values in found.items():
            low, high = np.percentile(values[:, 1:].mean(axis=0), [2.5, 97.5])
            print(f"  {name:12s} {values[:, 0].mean():5.1f}  videos [{low:.1f}, {high:.1f}]")
        for less, more in (("no training", "hearing"), ("hearing", "seeing")):
            gap = found[more] - found[less]
            told = intervals(gap[:, 0], gap[:, 1:])
            ends = (
                f"{k} [{told[f'{k} low']:.1f}, {told[f'{k} high']:.1f}]" for k in ("videos", "both")
            )
            print(f"  {more} - {less}: {told['mean']:+.1f}  {', '.join(ends)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
