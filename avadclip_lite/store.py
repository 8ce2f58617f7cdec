"""The feature store: one folder that holds every feature, label and annotation of a data set.

Whatever the data was (Soundstage, XD-Violence, CCTV-Fights, a user's own folder), it becomes this
folder, and nothing after the store knows where it came from::

    meta.json        classes, D, stride, encoder, counts, a digest of the content
    manifest.csv     one row a (video, crop): name, label, split, lengths, where its features lie
    annotations.csv  events of annotated videos: name, code, start, end (frames, end exclusive)
    video.npy        (P, D) snippet features of all rows, one row after the other; memory-mapped
    audio.npy        (Q, D) the same for sound, stored once a video and shared by its crops
    flags.npy        (P, F) optional per-snippet truth, such as "audible" in Soundstage

    store = FeatureStore.open("data/soundstage")
    rows = store.indices("train")
    batch = TrainingSet(store, rows, settings).batch(torch.arange(8))

Shape letters: R rows, T snippets of a row, D feature width, C classes, N frames (stride x T).
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .annotations import Segment, parse_codes, parse_label, read_annotations
from .config import MAX_SNIPPETS, ClassSet, Config

if TYPE_CHECKING:
    import pandas

__all__ = [
    "Batch",
    "FeatureStore",
    "Manifest",
    "Row",
    "StoreError",
    "StoreWriter",
    "TrainingSet",
    "chunks",
    "clip_segments",
    "holdout_split",
    "parse_codes",
    "parse_label",
    "read_annotations",
    "resample",
    "soundstage_path",
]

FORMAT = 1
_META, _MANIFEST, _ANNOTATIONS = "meta.json", "manifest.csv", "annotations.csv"
_ARRAYS = ("video", "audio", "flags")
_PARTIAL, _JOURNAL = ".partial", "journal.jsonl"
_HEADER_BYTES = 128  # room kept for the .npy header, which is only known at the end
_SYNC_BYTES = 256 << 20  # features written between two calls that force them onto the disk
_DTYPES = {"float16": np.dtype("<f2"), "float32": np.dtype("<f4")}


class StoreError(ValueError):
    """A feature store, or what was to go into one, is not as it must be."""


def soundstage_path() -> Path:
    """Where the data set that ships lies: ``data/soundstage`` of the repository, or
    ``soundstage`` in the folder that the environment variable ``AVADCLIP_DATA`` names."""
    folder = os.environ.get("AVADCLIP_DATA")
    return (Path(folder) if folder else Path(__file__).parents[1] / "data") / "soundstage"


# ---------------------------------------------------------------------------- reading


class Row(NamedTuple):
    """One (video, crop) of the manifest, as a reader wants to see it."""

    name: str
    label: str  # class codes joined by "-"
    split: str
    crop: int
    snippets: int  # T
    frames: int  # N = stride x T
    stride: int  # frames a snippet
    has_audio: bool
    source: str  # the file that the features came from


@dataclass(frozen=True)
class _Columns:
    """``manifest.csv``, column by column. Video and audio may differ by one snippet on disk;
    ``snippets`` is what they share."""

    name: list[str]
    label: list[str]
    split: list[str]
    source: list[str]
    crop: np.ndarray
    snippets: np.ndarray
    frames: np.ndarray
    stride: np.ndarray
    video_start: np.ndarray  # first row in video.npy
    video_rows: np.ndarray
    audio_start: np.ndarray  # first row in audio.npy, -1 without audio
    audio_rows: np.ndarray


_COLUMNS = tuple(item.name for item in fields(_Columns))
_TEXT = ("name", "label", "split", "source")


class Manifest(Sequence[Row]):
    """The rows of a store; a ``Row`` is made when asked for, ``frame()`` gives a DataFrame."""

    def __init__(self, columns: _Columns) -> None:
        self._columns = columns
        self.has_audio = columns.audio_start >= 0  # (R,)

    def __len__(self) -> int:
        return len(self._columns.name)

    def __getitem__(self, i: int) -> Row:  # type: ignore[override]
        c = self._columns
        return Row(
            name=c.name[i],
            label=c.label[i],
            split=c.split[i],
            crop=int(c.crop[i]),
            snippets=int(c.snippets[i]),
            frames=int(c.frames[i]),
            stride=int(c.stride[i]),
            has_audio=bool(self.has_audio[i]),
            source=c.source[i],
        )

    def frame(self) -> pandas.DataFrame:
        """The manifest as a pandas DataFrame (pandas is imported here, not by training)."""
        import pandas

        return pandas.DataFrame(list(self), columns=Row._fields)


class FeatureStore:
    """Read access to a finished store; opening maps the arrays and reads the manifest only.

    Attributes: ``path``, ``classes``, ``dim`` (D), ``stride``, ``encoder``, ``videos``
    (``Manifest``), ``snippets`` (R,), ``frames`` (R,), ``has_audio`` (R,), ``video_ids`` (R,)
    with equal numbers for crops of one video, ``flag_names``, and ``digest``, which changes with
    any feature, label or annotation.
    """

    def __init__(self, path: Path, meta: Mapping[str, Any]) -> None:
        self.path = path
        kind = meta["classes"]
        self.classes = ClassSet(
            name=kind["name"], codes=tuple(kind["codes"]), words=tuple(kind["words"])
        )
        self.dim: int = meta["dim"]
        self.stride: int = meta["stride"]
        self.encoder: str = meta["encoder"]
        self.digest: str = meta["digest"]
        self.flag_names: tuple[str, ...] = tuple(meta["flags"])
        self._columns = _read_manifest(path / _MANIFEST)
        self.videos = Manifest(self._columns)
        self.snippets = self._columns.snippets
        self.frames = self._columns.frames
        self.has_audio = self.videos.has_audio
        self._video = _map_array(path / "video.npy", (meta["video_snippets"], self.dim))
        self._audio = self._flags = None
        if meta["audio_snippets"]:
            self._audio = _map_array(path / "audio.npy", (meta["audio_snippets"], self.dim))
        if self.flag_names:
            shape = (meta["video_snippets"], len(self.flag_names))
            self._flags = _map_array(path / "flags.npy", shape)
        numbers = {name: k for k, name in enumerate(dict.fromkeys(self._columns.name))}
        self.video_ids = np.array([numbers[name] for name in self._columns.name], dtype=np.int64)
        self._check(meta)
        self._read_annotations(numbers)

    @classmethod
    def open(cls, path: str | Path) -> FeatureStore:
        """Open a finished store.

        Raises ``FileNotFoundError`` when there is none, and ``StoreError`` for a store that is
        half-written, cut short, or not a store at all.
        """
        path = Path(path)
        half = path if path.name.endswith(_PARTIAL) else path.with_name(path.name + _PARTIAL)
        if not (path / _META).is_file():
            if half.is_dir():
                raise StoreError(
                    f"feature store {path} is half-written: run what was writing it again, and it "
                    f"goes on where it stopped, or delete {half} to start over"
                )
            if not path.exists():
                raise FileNotFoundError(
                    f"there is no feature store at {path}; make one with "
                    f"'python -m avadclip_lite import', or check the path"
                )
            raise StoreError(f"{path} is not a feature store: it has no {_META}")
        try:
            meta = json.loads((path / _META).read_text(encoding="utf-8"))
            if meta["format"] != FORMAT:
                raise StoreError(
                    f"{path} has store format {meta['format']!r} and this package reads format "
                    f"{FORMAT}; import the data again"
                )
            return cls(path, meta)
        except StoreError:
            raise
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{path} is damaged ({error!r}); import the data again") from error

    def __len__(self) -> int:
        return len(self.videos)

    def __repr__(self) -> str:
        return (
            f"FeatureStore({str(self.path)!r}: {len(self)} rows of {self.classes.name}, "
            f"D={self.dim}, stride {self.stride}, {self.encoder})"
        )

    def _check(self, meta: Mapping[str, Any]) -> None:
        c = self._columns
        whole = (
            len(self) == meta["rows"]
            and (c.snippets >= 1).all()
            and (c.frames == c.snippets * c.stride).all()
            and (c.stride == self.stride).all()
            and (c.video_start >= 0).all()
            and (c.video_start + c.video_rows <= meta["video_snippets"]).all()
            and (c.audio_start + c.audio_rows <= meta["audio_snippets"]).all()
            and (c.snippets <= c.video_rows).all()
            and (c.snippets <= c.audio_rows)[self.has_audio].all()
        )
        if not whole:
            raise StoreError(
                f"{self.path / _MANIFEST} and {_META} beside it contradict each other; "
                "import the data again"
            )

    def _read_annotations(self, numbers: Mapping[str, int]) -> None:
        """Events of all videos, sorted by video: ``_first[v] : _first[v + 1]`` are video v's."""
        with open(self.path / _ANNOTATIONS, newline="", encoding="utf-8") as file:
            events = [
                (numbers[row["name"]], row["code"] or None, int(row["start"]), int(row["end"]))
                for row in csv.DictReader(file)
            ]
        events.sort(key=lambda event: event[0])  # stable: a video's events keep their order
        count = np.bincount([e[0] for e in events], minlength=len(numbers)).astype(np.int64)
        self._first = np.concatenate([[0], np.cumsum(count)])
        self._codes = [e[1] for e in events]
        self._bounds = np.array([e[2:] for e in events], dtype=np.int64).reshape(-1, 2)

    def indices(self, split: str) -> np.ndarray:
        """Row numbers of a split, in the manifest's order; ``StoreError`` if it has none."""
        found = np.array([k for k, s in enumerate(self._columns.split) if s == split], np.int64)
        if not len(found):
            known = ", ".join(sorted(set(self._columns.split)))
            raise StoreError(f"{self.path} has no split {split!r}; it has {known}")
        return found

    def video(self, i: int) -> np.ndarray:
        """(T, D) view of row i's video features, cut to the length shared with its audio."""
        start = int(self._columns.video_start[i])
        return self._video[start : start + int(self.snippets[i])]

    def audio(self, i: int) -> np.ndarray | None:
        """(T, D) view of row i's audio features, or None when the video has no audio."""
        if not self.has_audio[i]:
            return None
        start = int(self._columns.audio_start[i])
        return self._audio[start : start + int(self.snippets[i])]

    def uncut(self, i: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Row i's video (Tv, D) and audio (Ta, D) views at the lengths they came with, which may
        be one snippet apart: what the release resamples, each modality alone."""
        c = self._columns
        video = self._video[c.video_start[i] : c.video_start[i] + c.video_rows[i]]
        if not self.has_audio[i]:
            return video, None
        return video, self._audio[c.audio_start[i] : c.audio_start[i] + c.audio_rows[i]]

    def audio_key(self, i: int) -> int:
        """A number that rows sharing one audio track (crops of a video) have in common, -1
        without audio."""
        return int(self._columns.audio_start[i])

    def flags(self, i: int) -> dict[str, np.ndarray]:
        """Per-snippet truth of row i, ``{name: (T,) bool}``; empty for stores without flags."""
        if self._flags is None:
            return {}
        start = int(self._columns.video_start[i])
        block = self._flags[start : start + int(self.snippets[i])].astype(bool)
        return {name: block[:, k] for k, name in enumerate(self.flag_names)}

    def labels(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """(n, C) float32 multi-hot weak labels; column 0 is 1 for normal videos only."""
        hot: dict[str, np.ndarray] = {}
        for label in set(self._columns.label):
            hot[label] = np.zeros(len(self.classes), np.float32)
            for code in parse_codes(label, self.classes):
                hot[label][self.classes.index(code)] = 1.0
        rows = [hot[self._columns.label[i]] for i in indices]
        return np.stack(rows) if rows else np.zeros((0, len(self.classes)), np.float32)

    def segments(self, i: int) -> list[Segment]:
        """Events of row i as (code or None, first frame, end frame), end exclusive, clipped to
        the row's N frames."""
        v = int(self.video_ids[i])
        own = range(int(self._first[v]), int(self._first[v + 1]))
        events = [(self._codes[k], int(self._bounds[k, 0]), int(self._bounds[k, 1])) for k in own]
        return clip_segments(events, int(self.frames[i]))

    def frame_truth(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """(sum N,) uint8: 1 where any event covers the frame, rows one after the other.

        Overlapping events count once.
        """
        indices = np.asarray(indices, dtype=np.int64)
        frames = self.frames[indices]
        offset = np.concatenate([[0], np.cumsum(frames)])
        first, count = self._first[self.video_ids[indices]], np.diff(self._first)
        count = count[self.video_ids[indices]]
        row = np.repeat(np.arange(len(indices)), count)  # the row that each event belongs to
        event = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
        event += np.repeat(first, count)
        bounds = np.minimum(self._bounds[event], frames[row, None]) + offset[row, None]
        steps = np.zeros(offset[-1] + 1, dtype=np.int32)  # +1 where an event starts, -1 at its end
        np.add.at(steps, bounds[:, 0], 1)
        np.add.at(steps, bounds[:, 1], -1)
        return (np.cumsum(steps)[:-1] > 0).astype(np.uint8)


def clip_segments(segments: Iterable[Segment], frames: int) -> list[Segment]:
    """Events cut to a video of so many frames; what starts beyond it is left out."""
    return [(code, start, min(end, frames)) for code, start, end in segments if start < frames]


def _read_manifest(path: Path) -> _Columns:
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        header = next(reader, [])
        columns = dict(zip(header, map(list, zip(*reader, strict=True)), strict=False))
    missing = [name for name in _COLUMNS if name not in columns]
    if missing:
        raise StoreError(f"{path} lacks the columns {', '.join(missing)}; import the data again")
    return _Columns(
        **{
            name: columns[name] if name in _TEXT else np.array(columns[name], dtype=np.int64)
            for name in _COLUMNS
        }
    )


def _map_array(path: Path, shape: tuple[int, int]) -> np.ndarray:
    if not path.is_file():
        raise StoreError(f"{path} is missing from its store; import the data again")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError) as error:
        raise StoreError(f"{path} is damaged ({error}); import the data again") from None
    if array.shape != shape:
        raise StoreError(
            f"{path} holds {array.shape} where {_META} beside it says {shape}; "
            "import the data again"
        )
    return array.view(np.ndarray)  # slices of a memmap object cost far more than of its array


# ---------------------------------------------------------------------------- writing


class StoreWriter:
    """Writes a store, atomically and resumably.

    Everything goes to ``NAME.partial``, which no reader opens, and takes its name in ``finish()``.
    A journal gets one line for each complete row. A writer that finds a partial store of the same
    kind goes on after its last complete row: ``(name, crop) in writer`` tells which rows are
    there. A row that was being written when the machine stopped is cut off and must be added
    again.

        with StoreWriter(path, classes=XD_CLASSES, dim=512, stride=16, encoder="clip") as writer:
            writer.add(name=..., label="B2-G-0", split="train", video=x, audio=y)
            writer.finish()

    ``dtype``: "float16" or "float32"; None takes the first row's. ``inputs`` is any text that
    identifies what is being written; a partial store of other inputs is refused, not continued.
    ``overwrite`` lets ``finish()`` replace a store that is already there; other files in that
    folder stay.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        classes: ClassSet,
        dim: int,
        stride: int,
        encoder: str,
        dtype: Literal["float16", "float32"] | None = None,
        inputs: str = "",
        overwrite: bool = False,
    ) -> None:
        self.path = Path(path)
        self.partial = self.path.with_name(self.path.name + _PARTIAL)
        if (self.path / _META).exists() and not overwrite:
            raise StoreError(f"{self.path} is already a feature store; delete it or choose another")
        if self.path.is_file():
            raise StoreError(f"{self.path} is a file; a store is a folder")
        if any("-" in code or code == "0" for code in classes.codes):
            raise StoreError(f"class codes must not contain '-' or be '0', got {classes.codes}")
        if dtype is not None and dtype not in _DTYPES:
            raise StoreError(f"dtype must be float16 or float32, got {dtype!r}")
        self.classes, self.dim, self.stride = classes, dim, stride
        self._head: dict[str, Any] = {
            "format": FORMAT,
            "classes": asdict(classes),
            "dim": dim,
            "stride": stride,
            "encoder": encoder,
            "inputs": inputs,
        }
        self._dtype = dtype
        self._flag_names: tuple[str, ...] = ()  # decided by the first row
        self._rows: list[dict[str, Any]] = []
        self._keys: set[tuple[str, int]] = set()
        self._first_of: dict[str, dict[str, Any]] = {}  # the first row of each video
        self._used = dict.fromkeys(_ARRAYS, 0)  # snippets in each array
        self._headed = False  # the journal has its first line
        self._unsynced = 0  # bytes
        self.partial.mkdir(parents=True, exist_ok=True)
        self._journal: IO[bytes] = open(self.partial / _JOURNAL, "ab+")
        self._files: dict[str, IO[bytes]] = {}
        try:
            _lock(self._journal, self.partial)
            self._resume()
        except BaseException:
            self.close()
            raise
        self.resumed = len(self._rows)  # rows that an earlier run had completed

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __contains__(self, key: tuple[str, int]) -> bool:
        return key in self._keys

    def __len__(self) -> int:
        return len(self._rows)

    def close(self) -> None:
        """Let go of the files; the partial store stays and can be continued."""
        for file in (*self._files.values(), self._journal):
            file.close()

    def add(
        self,
        *,
        name: str,
        split: str,
        video: np.ndarray,
        audio: np.ndarray | Literal["shared"] | None = None,
        label: str | Iterable[str] | None = None,
        crop: int = 0,
        segments: Iterable[Segment] = (),
        flags: Mapping[str, np.ndarray] | None = None,
        source: str = "",
    ) -> None:
        """Append one (video, crop).

        ``video (Tv, D)``, ``audio (Ta, D)`` at most one snippet apart, or None for a video
        without sound; the track of the first crop serves the others, who may pass it again or say
        "shared". ``label`` codes ("B2-G-0"), by default those in the name. ``segments`` in frames,
        end exclusive; those of the first crop serve the others. ``flags`` ``{name: (Tv,) bool}``,
        in all rows or in none.

        Raises ``StoreError`` naming the video for a wrong width, NaN, zero snippets, lengths more
        than one apart, an event a stride or more beyond the video, or a contradiction between
        crops.
        """
        if (name, crop) in self._keys:
            raise StoreError(f"video {name!r}, crop {crop} is already in {self.partial}")
        where = f"video {name!r}, crop {crop}" + (f" ({source})" if source else "")
        first = self._first_of.get(name)
        if label is None:
            codes = parse_label(name, self.classes)
        else:
            codes = parse_codes(label, self.classes)
        segments = [tuple(event) for event in segments]
        if first is not None:
            segments = segments or first["segments"]
            for what, now, before in (
                ("label", "-".join(codes), first["label"]),
                ("split", split, first["split"]),
                ("segments", segments, first["segments"]),
            ):
                if now != before:
                    raise StoreError(f"{where}: {what} {now!r} but {before!r} in another crop")
        if isinstance(audio, str):
            if audio != "shared" or first is None or first["audio_start"] < 0:
                raise StoreError(f"{where}: there is no earlier crop whose audio could be shared")
        self._start(video, audio)
        video = self._features(video, "video", where)
        if isinstance(audio, np.ndarray):
            audio = self._features(audio, "audio", where)
        block = self._flag_block(flags, len(video), where)

        row: dict[str, Any] = {
            "name": name,
            "label": "-".join(codes),
            "split": split,
            "crop": int(crop),
            "source": source,
            "video_start": self._used["video"],
            "video_rows": len(video),
            "video_crc": _crc(video),
            "audio_start": -1,
            "audio_rows": 0,
            "audio_crc": 0,
            "flags_crc": 0 if block is None else _crc(block),
            "segments": segments,
        }
        new_audio = None
        if first is not None:
            had, has = first["audio_start"] >= 0, audio is not None
            same = not isinstance(audio, np.ndarray) or _crc(audio) == first["audio_crc"]
            if had != has or not same:
                raise StoreError(f"{where}: its audio differs from another crop's of this video")
            row |= {key: first[key] for key in ("audio_start", "audio_rows", "audio_crc")}
        elif isinstance(audio, np.ndarray):
            new_audio = audio
            row |= {
                "audio_start": self._used["audio"],
                "audio_rows": len(audio),
                "audio_crc": _crc(audio),
            }
        if row["audio_start"] >= 0 and abs(row["video_rows"] - row["audio_rows"]) > 1:
            raise StoreError(
                f"{where}: {row['video_rows']} video and {row['audio_rows']} audio snippets are "
                "more than one apart; extract both from the same file again"
            )
        self._check_segments(segments, len(video), where)
        if not self._rows:
            self._flag_names = tuple(flags or ())
        self._append({"video": video, "audio": new_audio, "flags": block}, row)

    def finish(self) -> Path:
        """Make the store readable under its name; returns that path."""
        if not self._rows:
            raise StoreError(f"nothing was added to {self.path}; a store needs at least one row")
        self._sync()
        shapes = {
            "video": (self._used["video"], self.dim),
            "audio": (self._used["audio"], self.dim),
            "flags": (self._used["flags"], len(self._flag_names)),
        }
        made = []
        for kind, file in self._files.items():
            if shapes[kind][0]:
                # append mode would write at the end whatever the position
                with open(file.name, "r+b") as target:
                    target.write(_npy_header(shapes[kind], self._file_dtype(kind)))
                    _force(target)
                made.append(f"{kind}.npy")
            file.close()
        self._write_tables()
        meta = {key: value for key, value in self._head.items() if key != "inputs"} | {
            "dtype": self._dtype,
            "rows": len(self._rows),
            "video_snippets": self._used["video"],
            "audio_snippets": self._used["audio"],
            "flags": list(self._flag_names),
            "digest": self._digest(),
        }
        with open(self.partial / _META, "w", encoding="utf-8") as file:
            file.write(json.dumps(meta, indent=1) + "\n")
            _force(file)
        self._journal.close()
        self._publish([*made, _MANIFEST, _ANNOTATIONS, _META])
        return self.path

    # -- the row's parts

    def _start(self, video: np.ndarray, audio: np.ndarray | str | None) -> None:
        """Fix what the first row decides (dtype, flags come with it) and write the journal head."""
        if self._files:
            return
        if self._dtype is None:
            given = [a for a in (video, audio) if isinstance(a, np.ndarray)]
            half = all(a.dtype == np.float16 for a in given)
            self._dtype = "float16" if half else "float32"
        for kind in _ARRAYS:
            self._files[kind] = open(self.partial / f"{kind}.npy", "ab")
            if self._files[kind].tell() < _HEADER_BYTES:
                self._files[kind].truncate(0)
                self._files[kind].write(bytes(_HEADER_BYTES))
        if not self._headed:
            self._note({"head": self._head, "dtype": self._dtype})
            self._headed = True

    def _file_dtype(self, kind: str) -> np.dtype:
        return np.dtype("u1") if kind == "flags" else _DTYPES[self._dtype]

    def _row_bytes(self, kind: str) -> int:
        width = len(self._flag_names) if kind == "flags" else self.dim
        return width * self._file_dtype(kind).itemsize

    def _features(self, array: np.ndarray, kind: str, where: str) -> np.ndarray:
        if array.ndim != 2 or array.dtype.kind != "f":
            raise StoreError(
                f"{where}: {kind} features must be floating point (T, {self.dim}), got "
                f"{array.dtype} {array.shape}"
            )
        if array.shape[1] != self.dim:
            raise StoreError(
                f"{where}: {kind} features are {array.shape[1]} wide, this store is {self.dim} wide"
            )
        if not len(array):
            raise StoreError(f"{where}: {kind} features have zero snippets; leave the video out")
        if self._dtype == "float16" and array.dtype != np.float16:
            raise StoreError(
                f"{where}: {kind} features are {array.dtype} and the store is float16; "
                "write the store with dtype float32"
            )
        array = np.ascontiguousarray(array, dtype=_DTYPES[self._dtype])
        if not np.isfinite(array).all():
            bad = int(np.flatnonzero(~np.isfinite(array).all(axis=1))[0])
            raise StoreError(
                f"{where}: {kind} features hold NaN or infinity, first in snippet {bad}; "
                "extract them again"
            )
        return array

    def _flag_block(
        self, flags: Mapping[str, np.ndarray] | None, snippets: int, where: str
    ) -> np.ndarray | None:
        names = tuple(flags or ())
        if self._rows:
            if set(names) != set(self._flag_names):
                raise StoreError(f"{where}: flags {names} but {self._flag_names} in other rows")
            names = self._flag_names
        if not flags:
            return None
        columns = [np.asarray(flags[key]) for key in names]
        if any(column.shape != (snippets,) for column in columns):
            raise StoreError(f"{where}: every flag must have the video's {snippets} snippets")
        return np.ascontiguousarray(np.stack(columns, axis=1).astype(np.uint8))

    def _check_segments(self, segments: list[Segment], snippets: int, where: str) -> None:
        """An overrun below one stride is clipped when read; the official files have many."""
        frames = snippets * self.stride
        for code, start, end in segments:
            if code is not None:
                self.classes.index(code)
            if not 0 <= start < end:
                raise StoreError(f"{where}: event {start} to {end} is not a span of frames")
            if end >= frames + self.stride:
                raise StoreError(
                    f"{where}: an event ends at frame {end}, a stride of {self.stride} or more "
                    f"beyond the video's {frames} frames; annotation and features do not match"
                )

    # -- the partial store on disk

    def _append(self, arrays: Mapping[str, np.ndarray | None], row: dict[str, Any]) -> None:
        for kind, array in arrays.items():
            if array is not None:
                self._files[kind].write(memoryview(array).cast("B"))
                self._files[kind].flush()
                self._unsynced += array.nbytes
        self._note(row | {"flag_names": self._flag_names})
        self._remember(row)
        if self._unsynced >= _SYNC_BYTES:
            self._sync()

    def _remember(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        self._keys.add((row["name"], row["crop"]))
        if row["name"] not in self._first_of:
            self._first_of[row["name"]] = row
            self._used["audio"] += row["audio_rows"]
        self._used["video"] += row["video_rows"]
        self._used["flags"] += row["video_rows"] if self._flag_names else 0

    def _note(self, entry: Mapping[str, Any]) -> None:
        self._journal.write(json.dumps(entry).encode() + b"\n")
        self._journal.flush()

    def _sync(self) -> None:
        """Force features onto the disk, then say so in the journal: lines before that mark need
        no second look after a power cut."""
        for file in self._files.values():
            _force(file)
        self._note({"synced": len(self._rows)})
        _force(self._journal)
        self._unsynced = 0

    def _resume(self) -> None:
        """Take up the complete rows of a partial store and cut off what follows them."""
        self._journal.seek(0)
        lines, good = self._journal.read().split(b"\n"), 0
        entries, ends = [], []
        for line in lines[:-1]:  # what follows the last line end was being written
            good += len(line) + 1
            try:
                entries.append(json.loads(line))
            except ValueError:  # a hole left by a power cut
                break
            ends.append(good)
        if not entries:
            self._truncate(0)
            return
        head = entries[0]
        if head.get("head") != json.loads(json.dumps(self._head)):
            raise StoreError(
                f"{self.partial} was begun with other inputs or settings; delete it to start over"
            )
        if self._dtype not in (None, head["dtype"]):
            raise StoreError(
                f"{self.partial} was begun as {head['dtype']}, not {self._dtype}; delete it to "
                "start over"
            )
        self._dtype, self._headed = head["dtype"], True
        synced = max((e["synced"] for e in entries if "synced" in e), default=0)
        keep = ends[0]
        for entry, end in zip(entries[1:], ends[1:], strict=True):
            if "synced" not in entry:
                self._flag_names = tuple(entry.pop("flag_names"))
                entry["segments"] = [tuple(event) for event in entry["segments"]]
                if not self._on_disk(entry, check_content=len(self._rows) >= synced):
                    break
                self._remember(entry)
            keep = end
        self._truncate(keep)

    def _on_disk(self, row: Mapping[str, Any], *, check_content: bool) -> bool:
        """Whether the features that a journal line promises are there (and unharmed)."""
        spans = [("video", row["video_start"], row["video_rows"], row["video_crc"])]
        if row["name"] not in self._first_of and row["audio_rows"]:
            spans.append(("audio", row["audio_start"], row["audio_rows"], row["audio_crc"]))
        if self._flag_names:
            spans.append(("flags", row["video_start"], row["video_rows"], row["flags_crc"]))
        for kind, start, count, crc in spans:
            path, size = self.partial / f"{kind}.npy", self._row_bytes(kind)
            begin, length = _HEADER_BYTES + start * size, count * size
            if not path.is_file() or path.stat().st_size < begin + length:
                return False
            if check_content:
                with open(path, "rb") as file:
                    file.seek(begin)
                    if zlib.crc32(file.read(length)) != crc:
                        return False
        return True

    def _truncate(self, journal_bytes: int) -> None:
        self._journal.truncate(journal_bytes)
        for kind in _ARRAYS:
            path = self.partial / f"{kind}.npy"
            if path.is_file():
                size = _HEADER_BYTES
                if self._rows:
                    size += self._used[kind] * self._row_bytes(kind)
                os.truncate(path, min(size, path.stat().st_size))

    # -- the end

    def _write_tables(self) -> None:
        with open(self.partial / _MANIFEST, "w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, _COLUMNS, extrasaction="ignore")
            table.writeheader()
            for row in self._rows:
                both = row["audio_rows"] or row["video_rows"]
                snippets = min(row["video_rows"], both)
                table.writerow(
                    row
                    | {
                        "snippets": snippets,
                        "frames": snippets * self.stride,
                        "stride": self.stride,
                    }
                )
            _force(file)
        with open(self.partial / _ANNOTATIONS, "w", newline="", encoding="utf-8") as file:
            events = csv.writer(file)
            events.writerow(["name", "code", "start", "end"])
            for name, row in self._first_of.items():
                events.writerows([name, code or "", *span] for code, *span in row["segments"])
            _force(file)

    def _digest(self) -> str:
        """Twelve hexadecimal digits over every row, the checksums of its features included."""
        kept = {key: value for key, value in self._head.items() if key != "inputs"}
        content = [kept, self._dtype, self._flag_names]
        for row in self._rows:
            content.append({key: value for key, value in row.items() if key != "source"})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]

    def _publish(self, made: list[str]) -> None:
        """Give the partial store its name; what makes it readable, meta.json, comes last."""
        for kind in _ARRAYS:
            if f"{kind}.npy" not in made:
                (self.partial / f"{kind}.npy").unlink(missing_ok=True)
        if not self.path.exists():
            os.replace(self.partial, self.path)
            (self.path / _JOURNAL).unlink()
        else:
            (self.path / _META).unlink(missing_ok=True)
            for kind in _ARRAYS:
                (self.path / f"{kind}.npy").unlink(missing_ok=True)
            for file in made:
                os.replace(self.partial / file, self.path / file)
            shutil.rmtree(self.partial)
        if os.name == "posix":  # make the new names last through a power cut as well
            for folder in (self.path, self.path.parent):
                handle = os.open(folder, os.O_RDONLY)
                os.fsync(handle)
                os.close(handle)


def _crc(array: np.ndarray) -> int:
    return zlib.crc32(memoryview(array).cast("B"))


def _force(file: IO[Any]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _lock(file: IO[bytes], folder: Path) -> None:
    """Keep a second writer out of the same partial store; the lock ends with the process."""
    try:
        import fcntl
    except ImportError:  # Windows: no such lock, and no harm with one writer
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise StoreError(f"{folder} is being written by another process") from None


def _npy_header(shape: tuple[int, int], dtype: np.dtype) -> bytes:
    """A version 1.0 ``.npy`` header padded to the room that was kept for it."""
    text = repr({"descr": dtype.str, "fortran_order": False, "shape": shape}).encode()
    room = _HEADER_BYTES - 10
    return b"\x93NUMPY\x01\x00" + room.to_bytes(2, "little") + text.ljust(room - 1) + b"\n"


# ---------------------------------------------------------------------------- bags for training


def resample(features: np.ndarray, max_snippets: int = MAX_SNIPPETS) -> np.ndarray:
    """(T, D) -> (S, D) float32 with S = min(T, max_snippets).

    A longer video becomes the means over bins of truncated ``linspace(0, T, max_snippets + 1)``,
    as in the release; a shorter one stays as it is.
    """
    features = np.asarray(features)
    if len(features) <= max_snippets:
        return features.astype(np.float32)
    edges = np.linspace(0, len(features), max_snippets + 1).astype(np.int64)
    sizes = np.diff(edges)  # two neighbouring sizes, none empty because T > max_snippets
    means = np.empty((max_snippets, features.shape[1]), np.float32)
    for size in np.unique(sizes):
        bins = np.flatnonzero(sizes == size)
        rows = features[edges[bins, None] + np.arange(size)]  # (bins, size, D)
        means[bins] = rows.astype(np.float32).mean(axis=1)
    return means


def chunks(features: np.ndarray, size: int = MAX_SNIPPETS) -> tuple[np.ndarray, np.ndarray]:
    """(T, D) -> (n, size, D) float32 with zeros at the end of the last, and lengths (n,) int64:
    how a test video is seen in full."""
    features = np.asarray(features)
    count = -(-len(features) // size)
    padded = np.zeros((count * size, features.shape[1]), np.float32)
    padded[: len(features)] = features
    lengths = np.minimum(len(features) - size * np.arange(count), size)
    return padded.reshape(count, size, -1), lengths.astype(np.int64)


@dataclass(frozen=True)
class Batch:
    """Bags as the model takes them; beyond a bag's length features are zero."""

    video: Tensor  # (B, T, D)
    audio: Tensor  # (B, T, D), zeros where there is none
    audio_mask: Tensor  # (B, T) bool: this snippet has sound
    lengths: Tensor  # (B,) int64
    labels: Tensor  # (B, C) float32 multi-hot

    def __len__(self) -> int:
        return len(self.lengths)

    def to(self, device: torch.device | str) -> Batch:
        moved = {f.name: getattr(self, f.name).to(device) for f in fields(self)}
        return Batch(**moved)


class TrainingSet:
    """Training bags in memory, resampled once; a batch is indexing and nothing else.

    Rows lie packed, one after the other and without padding, with one row of zeros at the end
    that padding points to; an audio track is held once for all crops of its video. ``lengths``
    (R,), ``labels`` (R, C) and ``rows`` (R,), the store's row numbers, are open to look at.

    ``settings.data.resample``: "together" pools video and audio of a snippet into the same bin;
    "separate" resamples each on its own length, as the release does, which misaligns long videos
    whose two lengths differ. ``settings.data.crops``: "first" keeps one row a video.
    """

    def __init__(
        self, store: FeatureStore, rows: Sequence[int] | np.ndarray, settings: Config
    ) -> None:
        rows = np.asarray(rows, dtype=np.int64)
        if settings.data.crops == "first":
            # sorted by crop (stable), the first of each video is its lowest crop
            crop = np.array([store.videos[i].crop for i in rows])
            order = np.argsort(crop, kind="stable")
            _, first = np.unique(store.video_ids[rows[order]], return_index=True)
            rows = rows[np.sort(order[first])]
        if not len(rows):
            raise StoreError(f"no training rows were chosen from {store.path}")
        self.rows = rows
        self.max_snippets = settings.model.max_snippets
        self.length_aware = settings.data.length_aware
        self._separate = settings.data.resample == "separate"
        self.labels = torch.from_numpy(store.labels(rows))  # (R, C)
        self._pack(store)
        self.device = torch.device("cpu")

    def _pack(self, store: FeatureStore) -> None:
        def pair(i: int) -> tuple[np.ndarray, np.ndarray | None]:
            return store.uncut(i) if self._separate else (store.video(i), store.audio(i))

        spans = np.zeros((4, len(self.rows)), np.int64)  # video start, length, audio start, length
        used = np.zeros(2, np.int64)
        tracks: dict[tuple[int, int], int] = {}  # a track at a length (crops may cut it) -> start
        for k, i in enumerate(self.rows):
            video, audio = pair(i)
            spans[:2, k] = used[0], min(len(video), self.max_snippets)
            used[0] += spans[1, k]
            if audio is not None:
                length = min(len(audio), self.max_snippets)
                key = store.audio_key(i), len(audio)
                if key not in tracks:
                    tracks[key] = int(used[1])
                    used[1] += length
                spans[2:, k] = tracks[key], length
        self._video = torch.zeros(int(used[0]) + 1, store.dim)
        self._audio = torch.zeros(int(used[1]) + 1, store.dim)
        video_out, audio_out = self._video.numpy(), self._audio.numpy()
        filled = -1
        for (v, tv, a, ta), i in zip(spans.T, self.rows, strict=True):
            video, audio = pair(i)
            video_out[v : v + tv] = resample(video, self.max_snippets)
            if audio is not None and a > filled:  # starts grow with each new track
                audio_out[a : a + ta] = resample(audio, self.max_snippets)
                filled = a
        self._spans = torch.from_numpy(spans)
        self.lengths = self._host_lengths = self._spans[1]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def nbytes(self) -> int:
        """Bytes of features held."""
        return self._video.nbytes + self._audio.nbytes

    def to(self, device: torch.device | str) -> TrainingSet:
        """Move the features; returns self."""
        self.device = torch.device(device)
        for name in ("_video", "_audio", "_spans", "labels"):
            setattr(self, name, getattr(self, name).to(self.device))
        self.lengths = self._spans[1]
        return self

    def batch(self, index: Tensor) -> Batch:
        """The bags at positions ``index (B,)`` int64 of ``rows``, on this set's device.

        T is the longest bag's length when ``settings.data.length_aware``, else always
        ``max_snippets``. Keep ``index`` on the CPU: the length is then known without waiting for
        the device.
        """
        steps = self.max_snippets
        if self.length_aware:
            steps = int(self._host_lengths[index.cpu()].max())
        index = index.to(self.device, non_blocking=True)
        video_start, lengths, audio_start, audio_lengths = self._spans[:, index]
        step = torch.arange(steps, device=self.device)
        video = self._gather(self._video, video_start, lengths, step)
        audio = self._gather(self._audio, audio_start, audio_lengths, step)
        shared = torch.minimum(lengths, audio_lengths)
        return Batch(
            video=video,
            audio=audio,
            audio_mask=step < shared[:, None],
            lengths=lengths,
            labels=self.labels[index],
        )

    @staticmethod
    def _gather(packed: Tensor, start: Tensor, length: Tensor, step: Tensor) -> Tensor:
        at = torch.where(step < length[:, None], start[:, None] + step, len(packed) - 1)
        return packed[at]


def holdout_split(
    store: FeatureStore, rows: Sequence[int] | np.ndarray, share: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """(kept, held out): a seeded share of the *videos* set aside, crops of a video together.

    Stratified by weak label: videos are sorted by label, shuffled within it, and picked at equal
    steps, so that every label is held out in proportion to within one video, rare combinations
    together with their neighbours. Normal and anomalous videos are picked apart, each at least
    once where there are two or more. Row order is kept.
    """
    rows = np.asarray(rows, dtype=np.int64)
    if not 0 <= share < 1:
        raise ValueError(f"share must be at least 0 and below 1, got {share!r}")
    rng = np.random.default_rng(seed)
    videos, first = np.unique(store.video_ids[rows], return_index=True)
    labels = store.labels(rows[first])  # (V, C)
    shuffle = rng.permutation(len(videos))
    order = shuffle[np.lexsort(labels[shuffle].T[::-1])]  # lexsort is stable
    held: list[np.ndarray] = []
    for normal in (True, False):
        group = order[(labels[order, 0] > 0) == normal]
        count = round(share * len(group))
        if share and len(group) > 1:
            count = max(count, 1)
        step = len(group) / max(count, 1)
        picks = np.floor((np.arange(count) + rng.random()) * step).astype(np.int64)
        held.append(videos[group[picks]])
    out = np.isin(store.video_ids[rows], np.concatenate(held))
    return rows[~out], rows[out]
