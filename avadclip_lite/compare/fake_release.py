"""A small folder in the layout of the released features, so that everything after the download can
be tried without the download.

    made = build_standin(folder)  # or kind="cctv"
    import_xd(made.features, made.train_list, made.test_list, made.annotations, store,
              dim=made.width, encoder=made.encoder)

The release keeps one array (T, D) a file: CLIP features ``NAME__CROP.npy``, ten crops of a training
video and the flipped centre (crop 5) of a test video; Wav2CLIP features ``NAME.npy``; CSV lists
``path,audio_path,label`` with absolute paths of the authors' machine. Truth stands in two text
files, events in frames with and without classes. The stand-in has all of that, and the traps of
the real files on purpose: annotations that run a few frames past the end of their video, annotated
names that end in ``.mp4``, a class code that contradicts its video's name, sound a snippet longer
than its picture. Names are invented.

Its features are Soundstage's, several synthetic videos joined into one. **Nothing measured on it
says anything about XD-Violence or CCTV-Fights.** It uses nothing of the importer that reads it.

Shape letters: T snippets of a video, D feature width.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avadclip_lite.config import CCTV_CLASSES, CCTV_STRIDE, CROPS, TEST_CROP, XD_CLASSES, XD_STRIDE
from avadclip_lite.config import soundstage_path as _soundstage
from avadclip_lite.dataset import FeatureStore

__all__ = ["Standin", "build_standin"]

Event = tuple[str, int, int]  # class code, first frame, end frame (exclusive)

ELSEWHERE = "/media/somebody/disk"  # the lists' paths are from another machine
CROP_NOISE = 0.1  # what makes a crop differ from another; features have RMS 1
JOINED = (1, 1, 2, 2, 3, 5)  # Soundstage videos in one video of the stand-in, drawn from these
MOST_CODES = 3  # in a name, as in XD-Violence
OVERRUN_EVERY, MP4_EVERY, LONGER_EVERY = 7, 5, 10  # among videos that have events; all videos
LISTS = {"train": "{}_CLIP_rgb.csv", "test": "{}_CLIP_rgbtest.csv"}  # as the release calls them
TITLES = ("Paper.Lanterns", "The.Long.Quay", "Night.Tram", "A.Quiet.Harbour", "Grey.Signal")


@dataclass(frozen=True, kw_only=True)
class Standin:
    """Where the parts of a stand-in lie, and which traps were laid in how many videos."""

    kind: str  # "xd" or "cctv"
    root: Path
    features: Path
    train_list: Path
    test_list: Path
    annotations: tuple[Path, Path]  # without and with class codes
    width: int  # D
    encoder: str  # text tower that belongs to the features, as the importer calls it
    names: dict[str, list[str]]  # by split
    traps: dict[str, int]


@dataclass(kw_only=True)
class _Video:
    name: str
    codes: tuple[str, ...]  # of the name
    video: np.ndarray  # (T, d)
    audio: np.ndarray  # (T, d), one row more where the sound is longer
    events: list[Event]  # as annotated, which may be past the end


def build_standin(
    out: str | Path,
    kind: str = "xd",
    *,
    train_videos: int = 24,
    test_videos: int = 24,
    crops: int = CROPS,
    width: int | None = None,
    seed: int = 0,
) -> Standin:
    """Write the folder ``out``: features, two lists, two annotation files.

    ``kind`` "xd" (seven classes, a snippet is 16 frames) or "cctv" (normal and fighting, 4 frames,
    every test video a fight). ``width`` D of the features; more than Soundstage's own width is
    reached by a seeded orthonormal map, which keeps lengths and angles, but then no text tower
    belongs to them any more. Same arguments, same bytes.

    Raises ``ValueError`` for an unknown kind, a folder that is not empty, a narrower ``width``, or
    a number that is too small.
    """
    if kind not in ("xd", "cctv"):
        raise ValueError(f"kind must be xd or cctv, got {kind!r}")
    classes, stride = (XD_CLASSES, XD_STRIDE) if kind == "xd" else (CCTV_CLASSES, CCTV_STRIDE)
    out = Path(out)
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty; choose another folder")
    if train_videos < 2 or test_videos < 2 or not 1 <= crops <= CROPS:
        raise ValueError(
            f"a stand-in has at least 2 videos a split and 1 to {CROPS} crops, got "
            f"train_videos={train_videos}, test_videos={test_videos}, crops={crops}"
        )
    stage = FeatureStore.open(_soundstage())
    width = stage.dim if width is None else width
    if width < stage.dim:
        raise ValueError(f"width={width} is narrower than Soundstage's {stage.dim}")
    rng = np.random.default_rng([seed, len(classes)])
    lift = None
    if width > stage.dim:
        wide = np.random.default_rng(width).normal(size=(width, stage.dim))
        lift = np.linalg.qr(wide)[0].T.astype(np.float32)

    splits = {
        "train": _videos(stage, "train", range(train_videos), classes.codes, stride, rng),
        "test": _videos(
            stage,
            "test",
            range(train_videos, train_videos + test_videos),
            classes.codes,
            stride,
            rng,
        ),
    }
    traps = _lay_traps(splits, classes.codes, stride)
    folders = {"xd": ("XD", "Clip", "Wav"), "cctv": ("CCTV", "Clip", "Wav")}[kind]
    lists = {}
    for split, videos in splits.items():
        shown = range(crops) if split == "train" else [TEST_CROP]
        picture, sound = (f"{folders[0]}{split.title()}{what}Features" for what in folders[1:])
        lines = []
        for one in videos:
            audio_file = f"{sound}/{one.name}.npy"
            _save(out / "features" / audio_file, one.audio, lift)
            for crop in shown:
                noise = CROP_NOISE * rng.normal(size=one.video.shape)
                video_file = f"{picture}/{one.name}__{crop}.npy"
                _save(out / "features" / video_file, one.video + noise, lift)
                label = one.name.rpartition("_label_")[2]
                lines.append((f"{ELSEWHERE}/{video_file}", f"{ELSEWHERE}/{audio_file}", label))
        lists[split] = out / LISTS[split].format(kind)
        with open(lists[split], "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("path", "audio_path", "label"), *lines])
    annotations = out / "annotations.txt", out / "annotations_multiclasses.txt"
    _annotate(splits["test"], annotations)
    return Standin(
        kind=kind,
        root=out,
        features=out / "features",
        train_list=lists["train"],
        test_list=lists["test"],
        annotations=annotations,
        width=width,
        encoder=stage.encoder if lift is None else "random",
        names={split: [one.name for one in videos] for split, videos in splits.items()},
        traps=traps,
    )


def _save(path: Path, features: np.ndarray, lift: np.ndarray | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    features = features.astype(np.float32)
    np.save(path, features if lift is None else features @ lift)


# --- what happens in the videos -------------------------------------------------------------------


def _videos(
    stage: FeatureStore,
    split: str,
    numbers: range,
    codes: Sequence[str],
    stride: int,
    rng: np.random.Generator,
) -> list[_Video]:
    """Videos of a split, five of eight anomalous, each anomaly class as often as the next.

    Of CCTV-Fights every annotated video is a fight, as in the release.
    """
    rows = [int(i) for i in stage.indices(split) if stage.audio(i) is not None]
    label = {i: frozenset(stage.videos[i].label.split("-")) - {codes[0]} for i in rows}
    label = {i: found for i, found in label.items() if found <= set(codes)}
    normal = [i for i, found in label.items() if not found]
    videos, anomalous = [], 0
    for k in numbers:
        found: frozenset[str] = frozenset()
        chosen: list[int] = []
        if k % 8 in (1, 2, 4, 5, 7) or (split == "test" and len(codes) == 2):
            wanted = codes[1 + anomalous % (len(codes) - 1)]
            anomalous += 1
            chosen = [int(rng.choice([i for i, f in label.items() if wanted in f]))]
            found = label[chosen[0]]
        for _ in range(int(rng.choice(JOINED)) - len(chosen)):
            # what joins an anomalous video is calm, or an event more while the name has room
            more = [i for i, f in label.items() if f and len(f | found) <= MOST_CODES]
            pool = more if found and rng.random() < 0.75 else normal
            chosen.append(int(rng.choice(pool)))
            found |= label[chosen[-1]]
        chosen = [chosen[i] for i in rng.permutation(len(chosen))]
        videos.append(_join(stage, chosen, k, tuple(c for c in codes if c in found), stride, rng))
    return videos


def _join(
    stage: FeatureStore,
    rows: list[int],
    number: int,
    codes: tuple[str, ...],
    stride: int,
    rng: np.random.Generator,
) -> _Video:
    """Soundstage videos one after another, their events in frames of ``stride`` a snippet."""
    events, snippets = [], 0
    for row in rows:
        events += [
            (code, *(snippets * stride + frame * stride // stage.stride for frame in span))
            for code, *span in stage.segments(row)
        ]
        snippets += len(stage.video(row))
    return _Video(
        name=_name(number, codes, snippets * stride, stride, rng),
        codes=codes,
        video=np.concatenate([stage.video(row) for row in rows]).astype(np.float32),
        audio=np.concatenate([stage.audio(row) for row in rows]).astype(np.float32),
        events=events,
    )


def _name(
    number: int, codes: tuple[str, ...], frames: int, stride: int, rng: np.random.Generator
) -> str:
    """A name in the data sets' manner: a scene of a film with its times, or an online video."""
    label = "-".join([*codes, *["0"] * (MOST_CODES - len(codes))]) if codes else "A"
    if stride == CCTV_STRIDE:
        return f"fight_{number:04d}_label_{label}"
    if rng.random() < 0.5:
        letters = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789-_"
        word = "".join(rng.choice(list(letters), size=9))
        return f"v={word}{number:02d}__#1_label_{label}"
    start = int(rng.integers(5400))
    times = ["-".join(f"{n:02d}" for n in _clock(t)) for t in (start, start + frames // 24)]
    title = TITLES[int(rng.integers(len(TITLES)))]
    return f"{title}.{1960 + number % 60}__#{times[0]}_{times[1]}_label_{label}"


def _clock(seconds: int) -> tuple[int, int, int]:
    return seconds // 3600, seconds // 60 % 60, seconds % 60


# --- annotations and their traps ------------------------------------------------------------------


def _lay_traps(
    splits: dict[str, list[_Video]], codes: Sequence[str], stride: int
) -> dict[str, int]:
    """What the real files do to their readers, done here to a few videos of each kind."""
    everyone = [one for videos in splits.values() for one in videos]
    longest = max(splits["train"], key=lambda one: len(one.video))
    longer = [one for k, one in enumerate(everyone) if k % LONGER_EVERY == 0 or one is longest]
    for one in longer:
        one.audio = np.concatenate([one.audio, one.audio[-1:]])
    annotated = [one for one in splits["test"] if one.events]
    overrun = annotated[::OVERRUN_EVERY]
    for k, one in enumerate(overrun):
        # the video is cut where its last event ends, to whole snippets: some frames stick out
        end = max(event[2] for event in one.events)
        snippets = max(end // stride, 1)
        past = 1 + (3 * k + 4) % (stride - 1)  # 1 to stride - 1 frames
        last = max(range(len(one.events)), key=lambda i: one.events[i][2])
        code, start, _ = one.events[last]
        one.events = [e for e in one.events if e[1] < snippets * stride]
        one.events[last] = (code, start, snippets * stride + past)
        extra = len(one.audio) - len(one.video)
        one.video, one.audio = one.video[:snippets], one.audio[: snippets + extra]
    contradicted = []
    if len(codes) > 2:
        single = [one for one in annotated if len(one.codes) == 1]
        contradicted = single[-1:]
        for one in contradicted:
            wrong = codes[1 + codes.index(one.codes[0]) % (len(codes) - 1)]
            one.events = [(wrong, start, end) for _, start, end in one.events]
    return {
        "annotations past the end": len(overrun),
        "annotated names ending in .mp4": len(annotated[::MP4_EVERY]),
        "annotated codes against the name": len(contradicted),
        "sound a snippet longer": len(longer),
    }


def _annotate(videos: list[_Video], paths: tuple[Path, Path]) -> None:
    """Both annotation files: ``NAME start end ...`` and ``NAME CODE start end ...``."""
    plain, coded = [], []
    annotated = [one for one in videos if one.events]
    for k, one in enumerate(annotated):
        name = one.name + (".mp4" if k % MP4_EVERY == 0 else "")
        plain.append(" ".join([name, *(f"{start} {end}" for _, start, end in one.events)]))
        coded.append(" ".join([name, *(f"{c} {start} {end}" for c, start, end in one.events)]))
    for path, lines in zip(paths, (plain, coded), strict=True):
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
