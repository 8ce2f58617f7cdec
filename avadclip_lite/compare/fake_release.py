"""A small folder in the layout of the released XD-Violence features, so that everything after the
download can be tried without the download.

    made = build_standin(folder)
    import_xd(made.features, made.train_list, made.test_list, made.annotations, store,
              dim=made.width, encoder=made.encoder)

The release keeps one array (T, D) a file: CLIP features ``NAME__CROP.npy``, ten crops of a training
video and the flipped centre (crop 5) of a test video; Wav2CLIP features ``NAME.npy``; CSV lists
``path,audio_path,label`` with absolute paths of the authors' machine; events in frames in two text
files, without and with classes. The stand-in has all of that, and the traps of the real files on
purpose. Its features are Soundstage's, several videos joined into one, its names are invented.
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
MOST_CODES = 3  # in a name, as in XD-Violence
LISTS = {"train": "xd_CLIP_rgb.csv", "test": "xd_CLIP_rgbtest.csv"}  # as the release calls them
FILMS = {"train": "Night.Tram", "test": "Paper.Lanterns"}
OVERRUN_EVERY, MP4_EVERY, LONGER_EVERY = 7, 5, 10  # among videos that have events; all videos


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
    lift = np.eye(stage.dim, dtype=np.float32)
    if width > stage.dim:
        lift = np.linalg.qr(np.random.default_rng(width).normal(size=(width, stage.dim)))[0].T
        lift = lift.astype(np.float32)

    def save(place: str, features: np.ndarray) -> str:
        path = out / "features" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, features.astype(np.float32) @ lift)
        return f"{ELSEWHERE}/{place}"

    codes, names, annotations = stage.classes.codes, {}, []
    traps = dict.fromkeys(("past the end", "ending in .mp4", "against the name", "longer sound"), 0)
    for split, count in (("train", train_videos), ("test", test_videos)):
        rows = [int(i) for i in rng.permutation(stage.indices(split)) if stage.has_audio[i]]
        label = {i: set(stage.videos[i].label.split("-")) - {codes[0]} for i in rows}
        lines, names[split] = ["path,audio_path,label"], []
        for k in range(count):
            # three of eight are normal; the others begin with an event and show up to 3 classes
            anomalous, parts, shown = k % 8 not in (0, 3, 6), [], set()
            for number in range(1 + k % 3):
                fits = [i for i in rows if len(label[i] | shown) <= MOST_CODES * anomalous]
                parts.append(next((i for i in fits if label[i] or number), fits[0]))
                rows.remove(parts[-1])
                shown |= label[parts[-1]]
            video = np.concatenate([stage.video(i) for i in parts])
            sound = np.concatenate([stage.audio(i) for i in parts])
            starts = stage.stride * np.cumsum([0, *(len(stage.video(i)) for i in parts)])
            events = [
                (code, int(start + at), int(end + at))
                for i, at in zip(parts, starts, strict=False)
                for code, start, end in stage.segments(i)
            ]
            words = [*sorted(shown), *["0"] * MOST_CODES][:MOST_CODES] if shown else ["A"]
            name = f"{FILMS[split]}.{1960 + k}__#00-01-00_00-02-30_label_{'-'.join(words)}"
            names[split].append(name)
            if split == "test" and events:
                nth, listed = len(annotations), name
                if nth % OVERRUN_EVERY == 0:  # cut inside its last event, which then sticks out
                    traps["past the end"] += 1
                    code, start, end = events[-1] = max(events, key=lambda event: event[2])
                    video = video[: end // stage.stride]
                    past = len(video) * stage.stride + 1 + nth % (stage.stride - 1)
                    events = [e for e in events[:-1] if e != events[-1] and e[2] <= past]
                    events.append((code, start, past))
                    sound = sound[: len(video)]
                if nth % MP4_EVERY == 0:
                    traps["ending in .mp4"] += 1
                    listed += ".mp4"
                if len(shown) == 1 and not traps["against the name"]:
                    traps["against the name"] = 1
                    (own,) = shown
                    wrong = next(code for code in codes[1:] if code != own)
                    events = [(wrong, start, end) for _, start, end in events]
                annotations.append((listed, events))
            if k % LONGER_EVERY == 0:
                traps["longer sound"] += 1
                sound = np.concatenate([sound, sound[-1:]])
            audio_path = save(f"XD{split}WavFeatures/{name}.npy", sound)
            for crop in range(crops) if split == "train" else [TEST_CROP]:
                noisy = video + CROP_NOISE * rng.normal(size=video.shape)
                path = save(f"XD{split}ClipFeatures/{name}__{crop}.npy", noisy)
                lines.append(f"{path},{audio_path},{'-'.join(words)}")
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
