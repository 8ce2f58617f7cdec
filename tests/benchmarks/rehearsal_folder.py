"""Build a folder in the layout of the released XD-Violence features, to rehearse an import on.

    python tests/benchmarks/rehearsal_folder.py LISTS OUT [--train-videos 400] [--crops 1]

LISTS holds ``test_videos.csv`` (name,label,n_frames), ``train_videos.csv`` (name,label) and
``annotations_multiclasses.txt``, ``annotations.txt``: the data set's own names, weak labels, test
lengths and annotations. OUT receives::

    features/XDTestClipFeatures/NAME__5.npy       (T, 512) float32, the one crop of the test list
    features/XDTrainClipFeatures/NAME__CROP.npy   crops 0, 1, ... of the training list
    features/XD*WavFeatures/NAME.npy              one a video
    xd_test.csv, xd_train.csv                     path,audio_path,label, absolute paths elsewhere
    annotations.txt, annotations_multiclasses.txt

All 800 test videos have their real length and truth. Training lengths are drawn from the test
lengths, training events are made up where the weak label asks for them. Features are snippets of
Soundstage, drawn in short runs by class and truth and lifted to 512 dimensions by a seeded
orthonormal map; without Soundstage's store (``--source random``) they are noise around a centre
for each class. They are synthetic: whatever is measured on them checks the plumbing and nothing
else. In a few videos audio and video are one snippet apart, as an importer must expect.

The layout is written from its description alone: nothing of the importer is used here.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import sys
from pathlib import Path

import numpy as np

STRIDE, WIDTH, TEST_CROP = 16, 512, 5
CODES = ("A", "B1", "B2", "B4", "B5", "B6", "G")
RUN = 8  # snippets taken from one place of the pool at a time
ELSEWHERE = "/home/someone/Desktop"  # the lists' paths are from another machine
CROP_NOISE = 0.1  # what makes a crop differ from another, relative to the features


class Pools:
    """Snippets to draw from, by class: ``(P, d)`` video and audio, row for row of one moment."""

    def __init__(self, video: dict[str, np.ndarray], audio: dict[str, np.ndarray]) -> None:
        self.video, self.audio = video, audio
        self.dim = video["A"].shape[1]

    def draw(self, rng: np.random.Generator, codes: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """(T, d) video and audio for the code of each snippet, in runs of neighbours."""
        picked = np.empty(len(codes), np.int64)
        at, left, last = 0, 0, ""
        for t, code in enumerate(codes):
            if left == 0 or code != last:
                at, left, last = int(rng.integers(len(self.video[code]))), RUN, code
            picked[t] = at % len(self.video[code])
            at, left = at + 1, left - 1
        pairs = zip(codes, picked, strict=True)
        both = [(self.video[code][k], self.audio[code][k]) for code, k in pairs]
        return np.stack([v for v, _ in both]), np.stack([a for _, a in both])


def random_pools(rng: np.random.Generator, dim: int = 64, count: int = 400) -> Pools:
    """Noise of RMS 1 around a centre for each class, another for each modality."""
    pools: tuple[dict, dict] = ({}, {})
    for pool in pools:
        for code in CODES:
            centre = rng.normal(size=dim)
            pool[code] = ((centre + rng.normal(size=(count, dim))) / np.sqrt(2)).astype("f")
    return Pools(*pools)


def soundstage_pools() -> Pools:
    """Soundstage's snippets by the event they lie in; raises if the store is not there."""
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from avadclip_lite.config import soundstage_path
    from avadclip_lite.dataset import FeatureStore

    store = FeatureStore.open(soundstage_path())
    video: dict[str, list[np.ndarray]] = {code: [] for code in CODES}
    audio: dict[str, list[np.ndarray]] = {code: [] for code in CODES}
    for row in range(len(store)):
        events, sound = store.segments(row), store.audio(row)
        weak = store.videos[row].label
        if sound is None or (weak != "A" and not events):
            continue  # an anomalous video without truth cannot be sorted
        codes = np.array(codes_of_snippets(events, len(sound), store.stride))
        for code in set(codes):
            video[code].append(store.video(row)[codes == code])
            audio[code].append(sound[codes == code])
    empty = [code for code in CODES if not video[code]]
    if empty:
        raise ValueError(f"{store.path} has no snippet of {', '.join(empty)}; try --source random")
    join = {code: np.concatenate(parts).astype("f") for code, parts in video.items()}
    return Pools(join, {code: np.concatenate(parts).astype("f") for code, parts in audio.items()})


def codes_of_snippets(events: list[tuple[str, int, int]], snippets: int, stride: int) -> list[str]:
    """The code of each snippet: that of an event covering at least half of it, else normal."""
    codes = ["A"] * snippets
    for code, start, end in events:
        for t in range(start // stride, min(-(-end // stride), snippets)):
            if min(end, (t + 1) * stride) - max(start, t * stride) >= stride / 2:
                codes[t] = code
    return codes


def made_up_events(
    rng: np.random.Generator, label: str, snippets: int
) -> list[tuple[str, int, int]]:
    """One event for each anomaly of a weak label, 10 to 40 percent of the video long."""
    events = []
    for code in label.split("-"):
        if code not in ("A", "0"):
            length = max(1, round(snippets * rng.uniform(0.1, 0.4)))
            start = int(rng.integers(snippets - length + 1))
            events.append((code, start * STRIDE, (start + length) * STRIDE))
    return events


def read_events(path: Path) -> dict[str, list[tuple[str, int, int]]]:
    """``NAME CODE start end CODE start end ...`` a line; some names end in .mp4."""
    events = {}
    for line in path.read_text().splitlines():
        name, *words = line.split()
        triples = zip(words[0::3], words[1::3], words[2::3], strict=True)
        events[name.removesuffix(".mp4")] = [(c, int(a), int(b)) for c, a, b in triples]
    return events


def read_list(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


class Folder:
    """Writes the feature files and remembers the lines of the lists."""

    def __init__(self, out: Path, pools: Pools, rng: np.random.Generator) -> None:
        self.out, self.pools, self.rng = out, pools, rng
        # columns of an orthonormal basis: lengths and angles survive the lift
        self.lift = np.linalg.qr(rng.normal(size=(WIDTH, pools.dim)))[0].T.astype("f")
        self.bytes = 0

    def video(
        self, split: str, name: str, codes: list[str], crops: list[int], audio_longer: int
    ) -> list[list[str]]:
        """Write one video's files; returns its lines ``path, audio_path, label``."""
        base, sound = self.pools.draw(self.rng, codes)
        if audio_longer > 0:
            sound = np.concatenate([sound, sound[-1:]])
        elif audio_longer < 0:
            sound = sound[:-1]
        audio_file = Path(f"XD{split}WavFeatures", f"{name}.npy")
        self.save(audio_file, sound)
        lines = []
        for crop in crops:
            noise = CROP_NOISE * self.rng.normal(size=base.shape) if len(crops) > 1 else 0.0
            video_file = Path(f"XD{split}ClipFeatures", f"{name}__{crop}.npy")
            self.save(video_file, base + noise)
            label = name.rsplit("_label_")[-1]
            lines.append([f"{ELSEWHERE}/{video_file}", f"{ELSEWHERE}/{audio_file}", label])
        return lines

    def save(self, file: Path, features: np.ndarray) -> None:
        path = self.out / "features" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        lifted = features.astype("f") @ self.lift
        np.save(path, lifted)
        self.bytes += lifted.nbytes

    def list(self, file: str, lines: list[list[str]]) -> None:
        with open(self.out / file, "w", newline="") as target:
            csv.writer(target).writerows([["path", "audio_path", "label"], *lines])


def build(
    lists: Path,
    out: Path,
    *,
    train_videos: int = 400,
    crops: int = 1,
    source: str = "soundstage",
    uneven: float = 0.02,
    seed: int = 0,
) -> Folder:
    """Write the folder. ``uneven``: share of videos whose audio is one snippet longer, or, in
    training only (test lengths must stay), shorter."""
    rng = np.random.default_rng(seed)
    pools = soundstage_pools() if source == "soundstage" else random_pools(rng)
    folder = Folder(out, pools, rng)

    tests = read_list(lists / "test_videos.csv")
    events = read_events(lists / "annotations_multiclasses.txt")
    lengths = np.array([int(row["n_frames"]) // STRIDE for row in tests])
    lines = []
    for row, snippets in zip(tests, lengths, strict=True):
        codes = codes_of_snippets(events.get(row["name"], []), int(snippets), STRIDE)
        longer = int(rng.random() < uneven)
        lines += folder.video("Test", row["name"], codes, [TEST_CROP], longer)
    folder.list("xd_test.csv", lines)

    trains = read_list(lists / "train_videos.csv")
    if not 0 < train_videos <= len(trains):
        raise ValueError(f"--train-videos must be 1 to {len(trains)}, got {train_videos}")
    lines = []
    for k in np.sort(rng.choice(len(trains), size=train_videos, replace=False)):
        snippets = int(rng.choice(lengths))
        made_up = made_up_events(rng, trains[k]["label"], snippets)
        codes = codes_of_snippets(made_up, snippets, STRIDE)
        longer = int(rng.choice([-1, 1]) * (rng.random() < uneven))
        lines += folder.video("Train", trains[k]["name"], codes, list(range(crops)), longer)
    folder.list("xd_train.csv", lines)
    for name in ("annotations.txt", "annotations_multiclasses.txt"):
        shutil.copyfile(lists / name, out / name)
    return folder


def main() -> int:
    parser = argparse.ArgumentParser(description="a rehearsal folder in the XD-Violence layout")
    parser.add_argument("lists", type=Path, help="folder with the real lists and annotations")
    parser.add_argument("out", type=Path, help="folder to make")
    parser.add_argument("--train-videos", type=int, default=400)
    parser.add_argument("--crops", type=int, default=1, choices=range(1, 11))
    parser.add_argument("--source", choices=("soundstage", "random"), default="soundstage")
    parser.add_argument("--uneven", type=float, default=0.02)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.out.exists() and any(args.out.iterdir()):
        parser.error(f"{args.out} is not empty")
    options = {k: v for k, v in vars(args).items() if k not in ("lists", "out")}
    folder = build(args.lists, args.out, **options)
    print(f"{folder.bytes / 1e6:,.0f} MB of synthetic features in {args.out} ({args.source})")
    print(
        f"python -m avadclip_lite import xd --features {args.out}/features "
        f"--train {args.out}/xd_train.csv --test {args.out}/xd_test.csv "
        f"--annotations {args.out}/annotations.txt {args.out}/annotations_multiclasses.txt "
        "--out STORE"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
