"""A small folder in the layout of the released XD-Violence features, so that everything after the
download can be tried without the download.

    made = build_standin(folder)
    import_layout("xd", made.features, made.train_list, made.test_list, made.annotations, store,
              dim=made.width, encoder=made.encoder)

The release keeps one array (T, D) a file: CLIP features ``NAME__CROP.npy``, ten crops of a training
video and the flipped centre (crop 5) of a test video; Wav2CLIP features ``NAME.npy``; CSV lists
``path,audio_path,label`` with paths of the authors' machine; events in frames in two text files,
without and with classes. The stand-in has all of that, and the traps of the real files on purpose.
Its features are Soundstage's, one to three videos joined into one, its names are invented.
**Nothing measured on it says anything about XD-Violence.**
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avadclip_lite.config import CROPS, TEST_CROP, soundstage_path
from avadclip_lite.dataset import FeatureStore

ELSEWHERE = "/media/somebody/disk"  # the lists' paths are from another machine
CROP_NOISE = 0.1  # what makes a crop differ from another; features have RMS 1
FILMS = {"train": "Night.Tram", "test": "Paper.Lanterns"}
LISTS = {"train": "xd_CLIP_rgb.csv", "test": "xd_CLIP_rgbtest.csv"}  # as the release calls them
TRAPS = ("past the end", "ending in .mp4", "against the name", "longer sound")
MOST_CODES = 3  # in a name, as in XD-Violence


@dataclass(frozen=True, kw_only=True)
class Standin:
    """Where the parts of a stand-in lie, and which traps were laid in how many videos."""

    features: Path
    train_list: Path
    test_list: Path
    annotations: tuple[Path, Path]  # without and with class codes
    width: int  # D
    encoder: str  # text tower that belongs to the features, as the importer calls it
    names: dict[str, list[str]]  # by split
    traps: dict[str, int]


def build_standin(
    out: str | Path,
    *,
    train_videos: int = 24,
    test_videos: int = 24,
    crops: int = CROPS,
    width: int | None = None,
    seed: int = 0,
) -> Standin:
    """Write the folder ``out``: features, two lists, two annotation files. Same arguments, same
    bytes. More than Soundstage's own ``width`` D is reached by a seeded orthonormal map, which
    keeps lengths and angles, but then no text tower belongs to the features any more.

    Raises ``ValueError`` for a folder that is not empty, and for a narrower ``width``.
    """
    out, stage, rng = Path(out), FeatureStore.open(soundstage_path()), np.random.default_rng(seed)
    width = width or stage.dim
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty; choose another folder")
    if width < stage.dim:
        raise ValueError(f"width={width} is narrower than Soundstage's {stage.dim}")
    wide = np.random.default_rng(width).normal(size=(width, stage.dim))
    lift = np.linalg.qr(wide)[0].T if width > stage.dim else np.eye(width)

    def save(place: str, features: np.ndarray) -> str:
        path = out / "features" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, features.astype(np.float32) @ lift.astype(np.float32))
        return f"{ELSEWHERE}/{place}"

    names, annotations, traps = {}, [], dict.fromkeys(TRAPS, 0)
    for split, count in (("train", train_videos), ("test", test_videos)):
        rows = [int(i) for i in rng.permutation(stage.indices(split)) if stage.has_audio[i]]
        lines, names[split] = ["path,audio_path,label"], []
        for k in range(count):
            parts, shown = _choose(stage, rows, k)
            video, sound, events = _join(stage, parts)
            label = "-".join([*sorted(shown), *"000"][:MOST_CODES]) if shown else "A"
            name = f"{FILMS[split]}.{1960 + k}__#00-01-00_00-02-30_label_{label}"
            names[split].append(name)
            if split == "test" and events:
                codes = stage.classes.codes[1:]
                video, listed = _lay_traps(len(annotations), name, video, events, codes, traps)
                annotations.append((listed, events))
            sound = sound[: len(video)]
            if k % 10 == 0:
                traps["longer sound"] += 1
                sound = np.concatenate([sound, sound[-1:]])
            audio_path = save(f"XD{split}WavFeatures/{name}.npy", sound)
            for crop in range(crops) if split == "train" else [TEST_CROP]:
                noisy = video + CROP_NOISE * rng.normal(size=video.shape)
                path = save(f"XD{split}ClipFeatures/{name}__{crop}.npy", noisy)
                lines.append(f"{path},{audio_path},{label}")
        (out / LISTS[split]).write_text("\n".join(lines) + "\n", encoding="utf-8")
    files = (out / "annotations.txt", out / "annotations_multiclasses.txt")
    for path, first in zip(files, (1, 0), strict=True):
        told = [" ".join([n, *(str(x) for e in es for x in e[first:])]) for n, es in annotations]
        path.write_text("\n".join(told) + "\n", encoding="utf-8")
    return Standin(
        features=out / "features",
        train_list=out / LISTS["train"],
        test_list=out / LISTS["test"],
        annotations=files,
        width=width,
        encoder=stage.encoder if width == stage.dim else "random",
        names=names,
        traps=traps,
    )


def _choose(stage: FeatureStore, rows: list[int], k: int) -> tuple[list[int], set[str]]:
    """One to three of the rows, taken out of them, and the classes that they show: three videos of
    eight are normal, the others begin with an event and show up to three classes."""
    parts, shown = [], set()
    for number in range(1 + k % 3):
        found = {i: set(stage.videos[i].label.split("-")) - {"A"} for i in rows}
        fits = [i for i in rows if len(found[i] | shown) <= MOST_CODES * (k % 8 not in (0, 3, 6))]
        parts.append(next((i for i in fits if found[i] or number), fits[0]))
        rows.remove(parts[-1])
        shown |= found[parts[-1]]
    return parts, shown


def _join(stage: FeatureStore, rows: list[int]) -> tuple[np.ndarray, np.ndarray, list]:
    """Videos one after another: video and audio (T, D), events in frames."""
    starts = stage.stride * np.cumsum([0, *(len(stage.video(i)) for i in rows)])
    events = [
        (code, int(at + start), int(at + end))
        for i, at in zip(rows, starts, strict=False)
        for code, start, end in stage.segments(i)
    ]
    video, audio = (np.concatenate([get(i) for i in rows]) for get in (stage.video, stage.audio))
    return video, audio, events


def _lay_traps(
    nth: int, name: str, video: np.ndarray, events: list, codes: tuple[str, ...], traps: dict
) -> tuple[np.ndarray, str]:
    """What the real files do to their readers, done to a test video that has events (changed in
    place): the video, and the name that it is annotated by."""
    if nth % 7 == 0:  # cut inside its last event, which then sticks out by 1 to 15 frames
        traps["past the end"] += 1
        code, start, end = max(events, key=lambda event: event[2])
        video = video[: end // 16]
        past = 16 * len(video) + 1 + nth % 15
        events[:] = [e for e in events if e[2] <= min(past, end - 1)] + [(code, start, past)]
    own = {code for code, *_ in events}
    if len(own) == 1 and not traps["against the name"]:
        traps["against the name"] = 1
        wrong = next(code for code in codes if code not in own)
        events[:] = [(wrong, start, end) for _, start, end in events]
    if nth % 5 == 0:
        traps["ending in .mp4"] += 1
        name += ".mp4"
    return video, name
