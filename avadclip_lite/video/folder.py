"""A folder of videos becomes a feature store.

    print(extract_folder("videos", "features/mine", encoder="soundstage", jobs=2))

Videos are spread over the cores of this machine, and gathered here in the order of their names, so
that neither the number of workers nor the death of one changes the store.

What is done stays done: an interrupted run goes on, a finished store is extended by the videos that
are new, and a file that cannot be read is set aside with its reason while the rest goes on. Beside
the store's own files lies ``extraction.jsonl``: one line with the choices, then one line a video
(file, size, seconds, sound, what was out of the ordinary) or a file set aside.

Weak labels come from a table (columns ``name,label`` and perhaps ``split``) or from names such as
``..._label_B2-G-0``; a video with neither goes to the split "unlabelled" and is never trained on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

from joblib import Parallel, delayed
from tqdm import tqdm

from avadclip_lite.config import CLASS_SETS, XD_STRIDE, ClassSet, add_device_argument, find_device
from avadclip_lite.dataset import (
    AUDIO_PRESENT,
    LABEL_MARK,
    META,
    Array,
    FeatureStore,
    Segment,
    parse_codes,
    parse_label,
)
from avadclip_lite.encoders import Encoders, load_encoders
from avadclip_lite.features import annotations as lists
from avadclip_lite.features.writer import StoreWriter
from avadclip_lite.video.extract import (
    BATCH,
    Crops,
    Extraction,
    checked_crops,
    checked_picks,
    extract,
)
from avadclip_lite.video.reader import printable

EXTRACTION = "extraction.jsonl"
UNLABELLED = "unlabelled"
OVERLAY = "_overlay.mp4"  # how the names of the copies end that ``score`` makes


def find_videos(folder: str | Path, *, among_others: bool = False) -> list[Path]:
    """All files below a folder whose suffix is a video's, sorted, but hidden ones and the copies
    that ``score`` made; links without target too, a file itself. ``FileNotFoundError``: none, but
    ``among_others`` such a folder stands for itself, to be told like a file that is broken."""
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        return [folder]
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {printable(folder)}; check the path")
    files, seen = [], set()
    for place, inner, names in os.walk(folder, followlinks=True):  # a folder once
        if (real := os.path.realpath(place)) in seen:
            names = inner[:] = []
        seen.add(real)
        inner[:] = sorted(name for name in inner if not lists.is_hidden(name))
        files += [Path(place, name) for name in names]
    found = sorted(p for p in files if p.suffix.lower() in lists.VIDEO_SUFFIXES)
    found = [p for p in found if (p.is_file() or not p.exists()) and not _foreign(p, folder)]
    if not found and not among_others:
        suffixes = ", ".join(sorted(lists.VIDEO_SUFFIXES))
        raise FileNotFoundError(f"{printable(folder)} holds no video; looked for {suffixes}")
    return found or [folder]


def _foreign(path: Path, folder: Path) -> bool:
    parts = path.relative_to(folder).parts
    scored = path.with_name(path.name.removesuffix(OVERLAY) + ".json")
    made = path.name.endswith(OVERLAY) and scored.is_file()
    return made or any(map(lists.is_hidden, parts))


def video_names(paths: Sequence[Path], folder: Path) -> dict[str, Path]:
    """Files by their names in the store: the path without its suffix where that is unique."""
    root = folder if folder.is_dir() else folder.parent
    named = {printable(path.relative_to(root).as_posix()): path for path in paths}
    short = {name: name.removesuffix(path.suffix) for name, path in named.items()}
    count = Counter(short.values())
    return {short[n] if count[short[n]] == 1 else n: path for n, path in named.items()}


def reason(error: Exception, path: str | Path) -> str:
    """What went wrong with a file, in one line that names it."""
    name, text = printable(path), " ".join(str(error).split()) or type(error).__name__
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if name in text else f"{name}: {text}"


class Truth(NamedTuple):  # what is known of a video beforehand
    codes: tuple[str, ...]
    split: str
    segments: tuple[Segment, ...] = ()


def _truth(
    names: Sequence[str],
    labels: str | Path | None,
    annotations: str | Path | None,
    classes: ClassSet,
    split: str,
) -> tuple[dict[str, Truth], list[str]]:
    """Each video's label (listed, else in its name, else none) and events, and remarks."""
    remarks, listed = [], {}
    if labels is not None:
        remedy = "the first line must name the columns name,label"
        table = lists.read_table(labels, {"name": remedy, "label": remedy}, remarks)
        for where, cells in table:
            name = lists.video_name(cells["name"])
            if name in listed:
                raise ValueError(f"{where}: video {name!r} is listed twice")
            try:
                codes = parse_codes(cells["label"], classes)
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from None
            listed[name] = Truth(codes, cells.get("split") or split)
    events = {} if annotations is None else lists.read_annotations(annotations, classes, remarks)
    matches = []
    for path, known in ((labels, listed), (annotations, events)):
        found, unmatched = lists.match_names(known, names)
        matches.append(found)
        if unmatched:
            remarks.append(f"{path} names {lists.some(unmatched)}, not found in the folder")
    truth = {}
    for name in names:
        label = Truth(classes.codes[:1], UNLABELLED)
        if name in matches[0]:
            label = listed[matches[0][name]]
        elif LABEL_MARK in name:
            try:
                label = Truth(parse_label(lists.video_name(name), classes), split)
            except ValueError as error:
                remarks.append(f"left without a label: {error}")
        truth[name] = label._replace(segments=tuple(events.get(matches[1].get(name), ())))
    return truth, remarks


@lru_cache(maxsize=1)
def _encoders(which: str, weights: str, device: str) -> Encoders:
    return load_encoders(which, weights=weights, device=device)


def _extract(path: str, encoder: tuple[str, str, str], **choices: Any) -> Extraction | str:
    """The features, or the reason why there are none."""
    encoders = _encoders(*encoder)
    try:
        return extract(path, encoders, **choices)
    except Exception as error:  # whatever one file does, the rest goes on
        return reason(error, path)


def extract_folder(
    folder: str | Path,
    out: str | Path,
    *,
    encoder: Literal["soundstage", "clip"] = "soundstage",
    weights: str = "auto",
    device: str = "auto",
    crops: Crops | str | int | Sequence[int] | None = None,
    picture: Literal["middle", "first", "mean"] = "middle",
    stride: int = XD_STRIDE,
    batch: int = BATCH,
    labels: str | Path | None = None,
    annotations: str | Path | None = None,
    classes: ClassSet = CLASS_SETS["xd"],
    split: str = "train",
    jobs: int = 1,
    progress: bool = True,
) -> ResultLog:
    """Extract every video below ``folder`` into the feature store ``out``; returns what was done.

    ``crops``, ``picture``, ``stride``, ``batch``: see ``FeatureReader``. ``labels``: a table,
    ``annotations``: an annotation file, either form. ``split``: of labelled videos that the table
    gives none. ``jobs``: videos at a time. Raises ``FileNotFoundError`` or ``ValueError`` for a
    missing folder, bad choices or labels, or a store that was made with other choices; a video that
    cannot be read is set aside.
    """
    folder, out = Path(folder), Path(out)
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs}")
    checked_picks(stride, picture, batch)
    crops = checked_crops(crops, encoder)
    choices = {"crops": crops, "picture": picture, "stride": stride}
    settings = {"encoder": encoder, "weights": "random" if weights == "random" else "trained"}
    settings |= choices | {"classes": classes.codes, "flags": (AUDIO_PRESENT,)}
    settings = json.loads(json.dumps(settings))
    load = (encoder, weights, str(find_device(device)))
    files = video_names(find_videos(folder), folder)
    truth, remarks = _truth(list(files), labels, annotations, classes, split)
    digest = hashlib.sha256(repr(sorted(truth.items())).encode()).hexdigest()[:12]
    head = {"settings": settings, "labels": digest}
    log = ResultLog(out, files, truth, (0,) if isinstance(crops, str) else crops, remarks)
    finished = (out / META).is_file()
    unchanged = finished and log.read(settings) == head
    if unchanged and not files.keys() - log.kept - log.set_aside.keys():
        return log
    store = {"classes": classes, "dim": _encoders(*load).dim, "stride": stride, "encoder": encoder}
    with StoreWriter(out, **store, inputs=json.dumps(head), overwrite=finished) as writer:
        todo = log.start(writer, head)
        choices |= {"batch": batch, "threads": max(1, (os.cpu_count() or 1) // jobs)}
        call = delayed(partial(_extract, encoder=load, **choices))
        tasks = (call(str(files[name].absolute())) for name in todo)
        results = Parallel(jobs, batch_size=1, return_as="generator")(tasks)
        shown = tqdm(todo, unit=" videos", disable=not progress)
        for name, result in zip(shown, results, strict=True):
            log.add(name, result)
        if finished:  # else the log moves with the folder
            half = shutil.copyfile(writer.partial / EXTRACTION, out / f"{EXTRACTION}.part")
            os.replace(half, out / EXTRACTION)
        if len(writer):
            writer.finish()
    return log


def _stamp(path: Path) -> dict[str, Any]:
    there = path.is_file()  # it may have gone meanwhile
    return {"bytes": path.stat().st_size if there else 0, "readable": os.access(path, os.R_OK)}


class ResultLog:
    """Enters results into the store and into the log beside it, and tells what a run did: names
    that are ``done`` now, that were ``kept``, that are ``set_aside`` (and why); ``notes`` on what
    was out of the ordinary, ``remarks`` on labels; how many ``sounds`` are present, absent, ..."""

    def __init__(
        self,
        out: Path,
        files: Mapping[str, Path],
        truth: Mapping[str, Truth],
        crops: Sequence[int],
        remarks: Sequence[str],
    ) -> None:
        self.store, self._files, self._truth, self._crops = out, files, truth, crops
        self._lines: dict[str, dict[str, Any]] = {}  # of a finished store, by name
        self._old: FeatureStore | None = None
        self.done: list[str] = []
        self.kept: set[str] = set()
        self.set_aside: dict[str, str] = {}
        self.notes: dict[str, tuple[str, ...]] = {}
        self.remarks, self.sounds = tuple(remarks), Counter()

    @property
    def unlabelled(self) -> int:
        """Videos without a label, of all in the store."""
        return sum(self._truth[name].split == UNLABELLED for name in [*self.kept, *self.done])

    def __str__(self) -> str:
        counts = ", ".join(f"{kind} {count}" for kind, count in sorted(self.sounds.items()))
        without = f"{self.unlabelled} videos carry no label: split {UNLABELLED!r}, not trained on"
        lines = [
            f"{len(self.done)} videos extracted, {len(self.kept)} were there already, "
            f"{len(self.set_aside)} set aside",
            *[f"sound: {counts}"] * bool(counts),
            *[without] * bool(self.unlabelled),
            *(f"note: {remark}" for remark in self.remarks),
            *(f"note: {name}: {'; '.join(notes)}" for name, notes in self.notes.items()),
            *(f"set aside: {reason}" for reason in self.set_aside.values()),
            *[f"store: {self.store}"] * bool(self.done or self.kept),
        ]
        return "\n".join(lines)

    def read(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Take up what an earlier run finished; returns what it began with."""
        out, log = self.store, self.store / EXTRACTION
        self._old = FeatureStore.open(out)
        if not log.is_file():
            raise ValueError(f"{out} is a store that extract did not make; choose another --out")
        lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
        head = next((line for line in lines[::-1] if "settings" in line), {"settings": {}})
        for name, value in settings.items():
            if (was := head["settings"].get(name)) != value:
                other = "choose another --out, or delete it"
                raise ValueError(f"{out} was made with {name}={was!r}, not {value!r}; {other}")
        self._lines = {line["name"]: line for line in lines if "name" in line}  # the last counts
        known, files = self._lines, self._files
        same = [n for n in known if n not in files or _stamp(files[n]).items() <= known[n].items()]
        self.kept = {row.name for row in self._old.videos} & set(same)
        aside = [n for n in same if n in files and "set_aside" in known[n]]
        self.set_aside = {n: known[n]["set_aside"] for n in aside}
        return head

    def start(self, writer: StoreWriter, head: Mapping[str, Any]) -> list[str]:
        """Copy what an earlier run finished into a new store, with the labels of now; returns the
        names that are to be extracted."""
        self._writer = writer
        self._line(head)
        for name in self.kept | self.set_aside.keys():
            self._line(self._lines[name])
        for i, row in enumerate(self._old.videos if self._old else ()):
            if row.name in self.kept:
                codes, segments = tuple(row.label.split("-")), tuple(self._old.segments(i))
                truth = self._truth.get(row.name, Truth(codes, row.split, segments))
                own = {"name": row.name, "crop": row.crop, "source": row.source}
                self._row(truth, *self._old.uncut(i), self._old.audio_mask(i), **own)
        self.kept = {n for n in self._files if all((n, crop) in writer for crop in self._crops)}
        return [name for name in self._files if name not in self.kept | self.set_aside.keys()]

    def _line(self, entry: Mapping[str, Any]) -> None:
        with (self._writer.partial / EXTRACTION).open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")

    def add(self, name: str, result: Extraction | str) -> None:
        """A video's features, or why there are none. The line comes first: a row without a line
        would be worse than a line without its row."""
        path = self._files[name]
        file = name if name.endswith(path.suffix) else name + path.suffix
        entry = {"name": name, "file": file, **_stamp(path)}
        if isinstance(result, str):
            self.set_aside[name] = result
            self._line(entry | {"set_aside": result})
            return
        entry |= {"frames": result.frames, "snippets": result.snippets, "sound": result.sound}
        self._line(entry | {"seconds": round(result.seconds, 6), "notes": result.notes})
        self.done.append(name)
        self.sounds[result.sound] += 1
        if result.notes:
            self.notes[name] = result.notes
        mask = (result.audio_coverage > 0) & (result.audio is not None)
        for crop, video in zip(self._crops, result.video, strict=True):
            own = {"name": name, "crop": crop, "source": file}
            self._row(self._truth[name], video, result.audio, mask, **own)

    def _row(self, truth: Truth, video: Array, audio: Array | None, mask: Array, **own) -> None:
        if (own["name"], own["crop"]) not in self._writer:
            own |= {"label": truth.codes, "split": truth.split, "segments": truth.segments}
            self._writer.add(video=video, audio=audio, flags={AUDIO_PRESENT: mask}, **own)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``python -m avadclip_lite extract``."""
    parser.description = "Make a feature store of a folder's videos; run again to go on, or add."
    add = parser.add_argument
    add("folder", type=Path, help="the folder, searched in depth, or one video")
    add("--out", type=Path, required=True, help="the feature store to make")
    add_encoder_arguments(parser, default="soundstage")
    add("--labels", type=Path, help="CSV with columns name,label[,split]")
    add("--annotations", type=Path, help="annotation file, for frame truth")
    add("--classes", choices=CLASS_SETS, default="xd", help="(%(default)s)")
    add("--split", default="train", help="of labelled videos (%(default)s)")
    add("--jobs", type=int, default=1, help="videos at a time (%(default)s)")


def add_encoder_arguments(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """Options that decide what features are, shared by ``extract`` and ``score``."""
    add = parser.add_argument
    of = default or "that of the detector"
    add("--encoder", choices=["soundstage", "clip"], default=default, help=f"({of})")
    add("--weights", help="random, or the folder that holds them (those that ship or are cached)")
    whole = "crop numbers 0-9 such as 5 or 0,5, all, clip (CLIP's own preprocessing) or whole "
    add("--crops", help=f"{whole} (squeezed); default: whole with soundstage, 5 with clip")
    which = "which frames of a snippet are encoded (middle)"
    add("--picture", choices=["middle", "first", "mean"], help=which)
    add("--stride", type=int, help=f"frames a snippet ({XD_STRIDE})")
    add("--batch", type=int, help=f"pictures encoded at a time ({BATCH})")
    add_device_argument(parser)


def given(args: argparse.Namespace) -> dict[str, Any]:
    """The options that were given or have a default, by name."""
    return {name: value for name, value in vars(args).items() if value is not None}


def main(args: argparse.Namespace) -> int:
    """Extract and print the summary. Status 1 if a file was set aside; bad input raises."""
    args.classes = CLASS_SETS[args.classes]
    log = extract_folder(progress=sys.stderr.isatty(), **given(args))
    print(log)
    return 1 if log.set_aside else 0
