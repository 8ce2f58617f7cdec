"""A folder of videos becomes a feature store.

    summary = extract_folder("videos", "features/mine", encoder="soundstage", jobs=2)
    print(summary)

Each video is independent, so joblib spreads them over the cores of this machine (``loky``) or over
a cluster that is already running (``dask``, ``ray``; its machines must see the folder under the
same path). Results are gathered here, one after another in the order of the names, so that neither
the number of workers nor the death of one changes the store.

What is done stays done: an interrupted run goes on, a finished store is extended by the videos that
are new, and a file that cannot be read is set aside with its reason while the rest goes on. Beside
the store's own files lies ``extraction.jsonl``: one line with the choices, then one line a video
(file, size, seconds, sound, what was out of the ordinary) or a file set aside.

Weak labels come from a CSV (columns ``name,label`` and perhaps ``split``) or from names such as
``..._label_B2-G-0``; a video with neither goes to the split "unlabelled" and is never trained on.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import torch
from tqdm import tqdm

from avadclip_lite.config import CLASS_SETS, XD_STRIDE, ClassSet
from avadclip_lite.dataset import META, FeatureStore, Segment, has_label, parse_codes, parse_label
from avadclip_lite.encoders import Encoders, load_encoders
from avadclip_lite.features.annotations import read_annotations
from avadclip_lite.features.parallel import BACKENDS, add_worker_arguments, each
from avadclip_lite.features.writer import StoreWriter
from avadclip_lite.video.extract import BATCH, Crops, Extraction, checked_crops, extract
from avadclip_lite.video.reader import BrokenVideo

__all__ = [
    "EXTRACTION",
    "VIDEO_SUFFIXES",
    "Summary",
    "add_arguments",
    "extract_folder",
    "find_videos",
    "main",
    "video_names",
]

EXTRACTION = "extraction.jsonl"
UNLABELLED = "unlabelled"
VIDEO_SUFFIXES = frozenset(
    ".mp4 .m4v .mov .mkv .webm .avi .mpg .mpeg .ts .mts .m2ts .wmv .asf .flv .3gp .ogv .gif".split()
)


def find_videos(folder: str | Path) -> list[Path]:
    """All files below a folder whose suffix is a video's, sorted; a file stands for itself.

    Raises ``FileNotFoundError`` when there is no such folder or no video in it.
    """
    folder = Path(folder)
    if folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    files = (path for path in folder.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES)
    found = sorted(path for path in files if path.is_file())
    if not found:
        raise FileNotFoundError(
            f"{folder} holds no video; looked for {', '.join(sorted(VIDEO_SUFFIXES))}"
        )
    return found


def video_names(paths: Sequence[Path], folder: Path) -> list[str]:
    """What the videos are called in the store: the path below the folder without its suffix, or
    with it where two would be called the same."""
    root = folder if folder.is_dir() else folder.parent
    inside = [path.relative_to(root) for path in paths]
    short = [path.with_suffix("").as_posix() for path in inside]
    count = Counter(short)
    return [
        name if count[name] == 1 else path.as_posix()
        for name, path in zip(short, inside, strict=True)
    ]


# ---- labels --------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Label:
    codes: tuple[str, ...]
    split: str
    problem: str = ""  # why the label in a name could not be read


def _read_labels(path: Path, classes: ClassSet, split: str) -> dict[str, _Label]:
    """A CSV with the columns ``name,label`` and perhaps ``split``. A name may end in a suffix."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no label file {path}")
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if not {"name", "label"} <= set(reader.fieldnames or ()):
            raise ValueError(f"{path} needs the columns name,label in its first line")
        found: dict[str, _Label] = {}
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            name = _plain(row["name"] or "")
            if name in found:
                raise ValueError(f"{where}: video {name!r} is listed twice")
            try:
                codes = parse_codes(row["label"] or "", classes)
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from None
            found[name] = _Label(codes=codes, split=(row.get("split") or split).strip())
    return found


def _plain(name: str) -> str:
    name = name.strip()
    suffix = Path(name).suffix
    return name.removesuffix(suffix) if suffix.lower() in VIDEO_SUFFIXES else name


def _label_of(name: str, listed: Mapping[str, _Label], classes: ClassSet, split: str) -> _Label:
    """From the list (by the whole name or its last part), else from the name, else unlabelled."""
    for key in (_plain(name), Path(_plain(name)).name):
        if key in listed:
            return listed[key]
    problem = ""
    if has_label(name):
        try:
            return _Label(codes=parse_label(_plain(name), classes), split=split)
        except ValueError as error:
            problem = str(error)
    return _Label(codes=classes.codes[:1], split=UNLABELLED, problem=problem)


# ---- one video, wherever the worker is -----------------------------------------------------------


@lru_cache(maxsize=1)
def _encoders(which: str, weights: str, device: str) -> Encoders:
    """Loaded once a process."""
    return load_encoders(which, weights=weights, device=device)


@dataclass(frozen=True, kw_only=True)
class _Task:
    """What a worker needs to know; plain, because it travels."""

    path: str
    encoder: str
    weights: str
    device: str
    choices: dict[str, Any]  # of ``extract``

    def __call__(self) -> Extraction | str:
        """The features, or the reason why there are none."""
        encoders = _encoders(self.encoder, self.weights, self.device)
        try:
            return extract(self.path, encoders, **self.choices)
        except (BrokenVideo, OSError) as error:
            return str(error)


def _call(task: _Task) -> Extraction | str:
    return task()


# ---- a folder ------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a run over a folder did."""

    store: Path
    done: tuple[str, ...]  # names extracted now
    kept: tuple[str, ...]  # names that were there already
    set_aside: dict[str, str]  # file: why
    notes: dict[str, tuple[str, ...]]  # name: what was out of the ordinary
    sounds: dict[str, int]  # present, absent, ...: how many of the videos extracted now
    unlabelled: int  # of all videos in the store
    snippets: int  # extracted now
    video_seconds: float  # extracted now
    seconds: float  # that it took

    def __str__(self) -> str:
        lines = [
            f"{len(self.done)} videos extracted ({self.video_seconds / 3600:.2f} h of video, "
            f"{self.snippets} snippets, {self.seconds:.1f} s), {len(self.kept)} were there already,"
            f" {len(self.set_aside)} set aside"
        ]
        if self.sounds:
            counts = ", ".join(f"{kind} {count}" for kind, count in sorted(self.sounds.items()))
            lines.append(f"sound: {counts}")
        if self.unlabelled:
            lines.append(
                f"{self.unlabelled} videos carry no label: split {UNLABELLED!r}, not trained on"
            )
        lines += [f"note: {name}: {'; '.join(notes)}" for name, notes in self.notes.items()]
        lines += [f"set aside: {reason}" for reason in self.set_aside.values()]
        if self.done or self.kept:
            lines.append(f"store: {self.store}")
        return "\n".join(lines)


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
    backend: Literal["loky", "dask", "ray"] = "loky",
    address: str | None = None,
    progress: bool = True,
) -> Summary:
    """Extract every video below ``folder`` into the feature store ``out``.

    ``crops``, ``picture``, ``stride``, ``batch``: see ``extract``. ``labels``: a CSV with the
    columns ``name,label`` and perhaps ``split``. ``annotations``: an annotation file, either form,
    for frame truth. ``split``: where labelled videos go that the CSV gives no split. ``jobs``:
    videos at a time, on this machine.

    Raises ``FileNotFoundError`` or ``ValueError`` for a missing folder, bad choices or labels, a
    store that was made with other choices, or a cluster that does not answer. A video that cannot
    be read raises nothing: it is set aside.
    """
    started = time.monotonic()
    folder, out = Path(folder), Path(out)
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs}")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    crops = checked_crops(crops, encoder)
    settings = {
        "encoder": encoder,
        "weights": "random" if weights == "random" else "trained",
        "crops": crops if isinstance(crops, str) else list(crops),
        "picture": picture,
        "stride": stride,
        "classes": list(classes.codes),
    }
    paths = find_videos(folder)
    names = video_names(paths, folder)
    listed = {} if labels is None else _read_labels(Path(labels), classes, split)
    events = {} if annotations is None else read_annotations(annotations, classes)
    truth = {name: _label_of(name, listed, classes, split) for name in names}
    told = hashlib.sha256(repr((sorted(truth.items()), sorted(events.items()))).encode())
    head = {"settings": settings, "labels": told.hexdigest()[:12]}

    sizes = {name: path.stat().st_size for name, path in zip(names, paths, strict=True)}
    modes = {name: path.stat().st_mode for name, path in zip(names, paths, strict=True)}
    old = _Finished.open(out, settings) if (out / META).is_file() else None
    known = {} if old is None else old.set_aside(sizes, modes)
    if old is not None and old.head == head and old.current(sizes) | known.keys() >= set(names):
        kept = [name for name in names if name not in known]
        return _summary(out, truth, kept, known, started=started)

    encoders = _encoders(encoder, weights, device)
    writer = StoreWriter(
        out,
        classes=classes,
        dim=encoders.dim,
        stride=stride,
        encoder=encoder,
        inputs=json.dumps(head),
        overwrite=old is not None,
    )
    try:
        with writer, (writer.partial / EXTRACTION).open("a", encoding="utf-8") as log:
            book = _Book(writer, log, truth, events, crops)
            book.line(head)
            if old is not None:
                old.copy(book, sizes, known)
            kept = [name for name in names if book.has(name)]
            todo = [
                (name, path)
                for name, path in zip(names, paths, strict=True)
                if not book.has(name) and name not in known
            ]
            cores = os.cpu_count() or 1
            choices = {
                "crops": crops,
                "picture": picture,
                "stride": stride,
                "batch": batch,
                "threads": max(1, cores // jobs) if backend == "loky" else 1,
            }
            tasks = [
                _Task(
                    path=str(path.resolve()),
                    encoder=encoder,
                    weights=weights,
                    device=device,
                    choices=choices,
                )
                for _, path in todo
            ]
            results = each(_call, tasks, jobs=jobs, backend=backend, address=address)
            with _bar(sum(sizes[name] for name, _ in todo), len(todo), progress) as advance:
                for (name, path), result in zip(todo, results, strict=True):
                    file = path.relative_to(folder if folder.is_dir() else folder.parent)
                    book.add(name, file.as_posix(), (sizes[name], modes[name]), result)
                    advance(sizes[name])
            if len(writer):
                if out.exists():  # else the log moves with the folder
                    shutil.copyfile(writer.partial / EXTRACTION, out / EXTRACTION)
                writer.finish()
    finally:
        if not len(writer):  # a bad address, or nothing that can be read
            shutil.rmtree(writer.partial, ignore_errors=True)
    return _summary(out, truth, kept, known, book.entries, started=started)


@contextmanager
def _bar(total: int, videos: int, progress: bool) -> Iterator[Callable[[int], None]]:
    """A progress bar over bytes (videos differ in length), with rate and time left."""
    with tqdm(total=total, unit="B", unit_scale=True, disable=not progress) as bar:
        done = 0

        def advance(size: int) -> None:
            nonlocal done
            done += 1
            bar.set_postfix_str(f"{done} of {videos} videos", refresh=False)
            bar.update(size)

        yield advance


class _Book:
    """Enters results into the store and into the log beside it."""

    def __init__(
        self,
        writer: StoreWriter,
        log: IO[str],
        truth: Mapping[str, _Label],
        events: Mapping[str, Sequence[Segment]],
        crops: Crops,
    ) -> None:
        self.writer, self._log, self._truth, self._events = writer, log, truth, events
        self.crops = (0,) if isinstance(crops, str) else crops
        self.entries: list[dict[str, Any]] = []  # of this run

    def has(self, name: str) -> bool:
        return all((name, crop) in self.writer for crop in self.crops)

    def line(self, entry: Mapping[str, Any]) -> None:
        self._log.write(json.dumps(entry, ensure_ascii=False) + "\n")
        self._log.flush()

    def add(self, name: str, file: str, stat: tuple[int, int], result: Extraction | str) -> None:
        """A video's features, or the reason why there are none. The line comes first: a row
        without a line would be worse than a line without its row."""
        entry: dict[str, Any] = {"name": name, "file": file, "bytes": stat[0], "mode": stat[1]}
        if isinstance(result, str):
            entry["set_aside"] = result
        else:
            entry |= {
                "frames": result.frames,
                "snippets": result.snippets,
                "seconds": round(result.seconds, 6),
                "sound": result.sound,
                "notes": list(result.notes),
            }
        self.line(entry)
        self.entries.append(entry)
        if not isinstance(result, str):
            for crop, features in zip(self.crops, result.video, strict=True):
                self.row(name, crop, file, features, result.audio)

    def row(
        self,
        name: str,
        crop: int,
        file: str,
        video: np.ndarray,
        audio: np.ndarray | None,
        before: tuple[_Label, Sequence[Segment]] | None = None,
    ) -> None:
        """One (video, crop). ``before``: label and events if the folder does not tell any more."""
        if (name, crop) in self.writer:
            return
        label, events = before or (self._truth[name], self._events.get(_plain(name), ()))
        self.writer.add(
            name=name,
            label=label.codes,
            split=label.split,
            crop=crop,
            video=video,
            audio=audio,
            segments=events,
            source=file,
        )


class _Finished:
    """A store that an earlier run finished, and the log beside it."""

    def __init__(self, store: FeatureStore, head: dict[str, Any], lines: list[dict]) -> None:
        self.store, self.head = store, head
        self._lines = {line["name"]: line for line in lines if "name" in line}  # the last counts
        self._names = {row.name for row in store.videos}

    @classmethod
    def open(cls, path: Path, settings: Mapping[str, Any]) -> _Finished:
        """Raises ``ValueError`` for a store of other origin or with other choices."""
        store = FeatureStore.open(path)
        log = path / EXTRACTION
        if not log.is_file():
            raise ValueError(f"{path} is a store that extract did not make; choose another --out")
        lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
        head = [line for line in lines if "settings" in line][-1]
        for name, value in settings.items():
            if head["settings"].get(name) != value:
                raise ValueError(
                    f"{path} was made with {name}={head['settings'].get(name)!r}, not {value!r}; "
                    "choose another --out, or delete it"
                )
        return cls(store, head, lines)

    def current(self, sizes: Mapping[str, int]) -> set[str]:
        """Names in the store whose file is as it was, or gone."""
        return {
            name
            for name in self._names
            if name not in sizes or self._lines.get(name, {}).get("bytes") in (None, sizes[name])
        }

    def set_aside(self, sizes: Mapping[str, int], modes: Mapping[str, int]) -> dict[str, str]:
        """What was set aside before and has not changed since: ``{name: reason}``."""
        return {
            name: line["set_aside"]
            for name, line in self._lines.items()
            if "set_aside" in line
            and (line["bytes"], line["mode"]) == (sizes.get(name), modes.get(name))
        }

    def copy(self, book: _Book, sizes: Mapping[str, int], known: Mapping[str, str]) -> None:
        """Take what is current over into the new store, with the labels of now."""
        keep = self.current(sizes)
        for name in self._lines:
            if name in keep or name in known:
                book.line(self._lines[name])
        for i, row in enumerate(self.store.videos):
            if row.name in keep:
                before = None
                if row.name not in sizes:
                    codes = tuple(row.label.split("-"))
                    before = _Label(codes=codes, split=row.split), self.store.segments(i)
                video, audio = self.store.uncut(i)
                book.row(row.name, row.crop, row.source, video, audio, before)


def _summary(
    out: Path,
    truth: Mapping[str, _Label],
    kept: Sequence[str],
    known: Mapping[str, str],
    entries: Sequence[Mapping[str, Any]] = (),
    *,
    started: float,
) -> Summary:
    done = [entry for entry in entries if "set_aside" not in entry]
    failed = {entry["name"]: entry["set_aside"] for entry in entries if "set_aside" in entry}
    names = [*kept, *(entry["name"] for entry in done)]
    notes = {entry["name"]: list(entry["notes"]) for entry in done}
    for name, label in truth.items():
        if label.problem:
            notes.setdefault(name, []).append(f"left without a label: {label.problem}")
    return Summary(
        store=out,
        done=tuple(entry["name"] for entry in done),
        kept=tuple(kept),
        set_aside={**known, **failed},
        notes={name: tuple(lines) for name, lines in notes.items() if lines},
        sounds=dict(Counter(entry["sound"] for entry in done)),
        unlabelled=sum(truth[name].split == UNLABELLED for name in names),
        snippets=sum(entry["snippets"] for entry in done),
        video_seconds=sum(entry["seconds"] for entry in done),
        seconds=time.monotonic() - started,
    )


# ---- command line --------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``python -m avadclip_lite extract``."""
    parser.description = (
        "Make a feature store from a folder of videos. Run again to go on after an interruption, "
        "or to add videos that are new."
    )
    parser.add_argument("folder", type=Path, help="the folder, searched in depth, or one video")
    parser.add_argument("--out", type=Path, required=True, help="the feature store to make")
    add_encoder_arguments(parser)
    parser.add_argument("--labels", type=Path, help="CSV with columns name,label[,split]")
    parser.add_argument("--annotations", type=Path, help="annotation file, for frame truth")
    parser.add_argument("--classes", choices=CLASS_SETS, default="xd", help="(%(default)s)")
    parser.add_argument("--split", default="train", help="of labelled videos (%(default)s)")
    add_worker_arguments(parser, "videos")


def add_encoder_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that decide what features are, shared by ``extract`` and ``score``."""
    parser.add_argument(
        "--encoder", choices=["soundstage", "clip"], default="soundstage", help="(%(default)s)"
    )
    parser.add_argument(
        "--weights", default="auto", help="auto, random, or the folder that holds them (auto)"
    )
    parser.add_argument(
        "--crops",
        help="crop numbers 0-9 such as 5 or 0,5, all, clip (CLIP's own preprocessing) or whole "
        "(squeezed); default: whole with soundstage, 5 with clip",
    )
    parser.add_argument(
        "--picture",
        choices=["middle", "first", "mean"],
        default="middle",
        help="which frames of a snippet are encoded (%(default)s)",
    )
    parser.add_argument("--stride", type=int, default=XD_STRIDE, help="frames a snippet (16)")
    parser.add_argument("--batch", type=int, help=f"pictures encoded at a time ({BATCH})")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, ... (%(default)s)")


def main(args: argparse.Namespace) -> int:
    """Extract and print the summary. Status 1 if a file was set aside; bad input raises."""
    summary = extract_folder(
        args.folder,
        args.out,
        encoder=args.encoder,
        weights=args.weights,
        device=args.device,
        crops=args.crops,
        picture=args.picture,
        stride=args.stride,
        batch=args.batch or BATCH,
        labels=args.labels,
        annotations=args.annotations,
        classes=CLASS_SETS[args.classes],
        split=args.split,
        jobs=args.jobs,
        backend=args.backend,
        address=args.address,
        progress=sys.stderr.isatty(),
    )
    print(summary)
    return 1 if summary.set_aside else 0
