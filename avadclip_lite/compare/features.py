"""``check-features STORE``: are these the features that the published numbers were made of?"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from avadclip_lite.compare.paper import XD_AP
from avadclip_lite.compare.release import load_student, load_teacher
from avadclip_lite.config import CLIP_DIM, CROPS, TEST_CROP, XD_CLASSES, XD_STRIDE
from avadclip_lite.dataset import FeatureStore
from avadclip_lite.evaluate import evaluate

VIDEOS = {"train": (3954, list(range(CROPS))), "test": (800, [TEST_CROP])}  # and each one's crops
FRAMES, ANOMALOUS, PAST = 2_330_384, 537_805, 71  # of the test; videos annotated past their end
MODELS = {  # file: how to load it, its row in the paper; it may miss that by CLOSE points of AP
    "model_xd_t.pth": (load_teacher, "AVadCLIP"),
    "model_xd_s.pth": (load_student, "AVadCLIP*"),
}
CLOSE, LOOKED_AT = 0.5, 200  # rows of a split whose features are read


def check_features(store: FeatureStore, checkpoints: str | Path = "") -> pd.DataFrame:
    """What of a store can be held against the published XD-Violence features, a line each: columns
    what, found, expected, verdict ("ok" or "DIFFERS"). ``checkpoints``: a folder of the authors'
    models, which are scored; ``FileNotFoundError`` if it holds none."""
    lines = []

    def add(what: str, found: object, expected: object, good: bool | None = None) -> None:
        good = found == expected if good is None else good
        lines.append([what, str(found), str(expected), "ok" if good else "DIFFERS"])

    add("classes", "-".join(store.classes.codes), "-".join(XD_CLASSES.codes))
    add("frames a snippet", store.stride, XD_STRIDE)
    add("width of both senses", store.dim, CLIP_DIM)
    table = pd.DataFrame(store.videos)
    rows = {split: table.index[table.split == split] for split in VIDEOS}
    for split, (count, crops) in VIDEOS.items():
        held = [sorted(own) for _, own in table.loc[rows[split]].groupby("name").crop]
        add(f"{split} videos", len(held), count)
        span = "-".join(map(str, dict.fromkeys((crops[0], crops[-1]))))
        add(f"{split} videos whose crops are not {span}", sum(its != crops for its in held), 0)
    looked = [i for its in rows.values() for i in its[:: max(len(its) // LOOKED_AT, 1)]]
    for sense, get in (("CLIP", store.video), ("Wav2CLIP", store.audio)):
        found = [np.linalg.norm(x, axis=1) for x in map(get, looked) if x is not None]
        n = np.concatenate([*found, [0.0] * (not found)])
        told = f"{n.min():.2f} to {n.max():.2f}"
        normalised = np.abs(n[n > 0] - 1).max(initial=0) < 0.01
        add(f"length of {sense} features", told, "above 0, not all 1", n.all() and not normalised)
    twins = [i for i in rows["train"] if store.video_ids[i] == store.video_ids[rows["train"][0]]]
    copies = len(twins) - len({np.asarray(store.video(i)).tobytes() for i in twins})
    add("crops of the first video that are copies", copies, 0)
    add("videos without sound", len(set(store.video_ids[~store.has_audio])), 0)
    apart = [len(v) - len(a) for v, a in map(store.uncut, np.flatnonzero(store.has_audio))]
    add("rows with sight and sound over one snippet apart", int((np.abs(apart) > 1).sum()), 0)
    add("test frames", int(store.frames[rows["test"]].sum()), FRAMES)
    add("anomalous test frames", int(store.frame_truth(rows["test"]).sum()), ANOMALOUS)
    longer = (store.frame_truth([i], store.frames[[i]] + XD_STRIDE) for i in rows["test"])
    past = sum(int(truth[-XD_STRIDE:].any()) for truth in longer)
    add("videos annotated past their end", past, PAST)
    if checkpoints:
        paths = [path for path in map(Path(checkpoints).joinpath, MODELS) if path.is_file()]
        if not paths:
            raise FileNotFoundError(f"{checkpoints} holds neither of {', '.join(MODELS)}")
        for path in paths:
            load, name = MODELS[path.name]
            metrics = evaluate(load(path), store).metrics
            aps = {b: 100 * metrics[f"frame_ap_{b}"] for b in ("classification", "alignment")}
            # the paper does not say which branch it prints: one is enough
            close = min(abs(ap - XD_AP[name]) for ap in aps.values()) <= CLOSE
            for branch, ap in aps.items():
                add(f"AP of {path.name}, {branch}", f"{ap:.2f}", f"{XD_AP[name]:.2f}", close)
    return pd.DataFrame(lines, columns=["what", "found", "expected", "verdict"])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``python -m avadclip_lite check-features``."""
    parser.description = "Hold a store against the features of the published numbers."
    parser.add_argument("store", help="what `import xd` made")
    parser.add_argument("--checkpoints", default="", help="folder of the authors' models, to score")


def main(args: argparse.Namespace) -> int:
    """Print the table; 1 if anything differs. Bad input raises ``ValueError``."""
    found = check_features(FeatureStore.open(args.store), args.checkpoints)
    print(found.to_string(index=False))
    return int((found["verdict"] != "ok").any())
