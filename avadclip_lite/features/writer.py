"""Writing a feature store: atomically, and resumable after any interruption.

The folder's layout is described in ``store.py``, which reads it.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from avadclip_lite.config import ClassSet
from avadclip_lite.dataset import (
    ANNOTATIONS,
    FORMAT,
    MANIFEST,
    META,
    NUMBER_COLUMNS,
    PARTIAL,
    TEXT_COLUMNS,
    Segment,
    StoreError,
    parse_codes,
    parse_label,
)

__all__ = ["StoreWriter"]

_ARRAYS = ("video", "audio", "flags")
_JOURNAL = "journal.jsonl"
_HEADER_BYTES = 128  # room kept for the .npy header, which is only known at the end
_SYNC_BYTES = 256 << 20  # features written between two calls that force them onto the disk
_DTYPES = {"float16": np.dtype("<f2"), "float32": np.dtype("<f4")}


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
        self.partial = self.path.with_name(self.path.name + PARTIAL)
        if (self.path / META).exists() and not overwrite:
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
            if self._headed:
                self._open()
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
        with open(self.partial / META, "w", encoding="utf-8") as file:
            file.write(json.dumps(meta, indent=1) + "\n")
            _force(file)
        self._journal.close()
        self._publish([*made, MANIFEST, ANNOTATIONS, META])
        return self.path

    # -- the row's parts

    def _start(self, video: np.ndarray, audio: np.ndarray | str | None) -> None:
        """Before the first row: settle the dtype and write the journal's head."""
        if self._headed:
            return
        if self._dtype is None:
            given = [a for a in (video, audio) if isinstance(a, np.ndarray)]
            half = all(a.dtype == np.float16 for a in given)
            self._dtype = "float16" if half else "float32"
        self._open()
        self._note({"head": self._head, "dtype": self._dtype})
        self._headed = True

    def _open(self) -> None:
        for kind in _ARRAYS:
            file = self._files[kind] = open(self.partial / f"{kind}.npy", "ab")
            if file.tell() < _HEADER_BYTES:
                file.truncate(0)
                file.write(bytes(_HEADER_BYTES))

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
        with np.errstate(over="ignore"):  # float64 beyond float32 becomes inf, and is refused
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
        try:
            for kind, array in arrays.items():
                if array is not None:
                    self._files[kind].write(memoryview(array).cast("B"))
                    self._files[kind].flush()
                    self._unsynced += array.nbytes
            self._note(row | {"flag_names": self._flag_names})
        except BaseException:  # a full disk, an interrupt: the next writer cuts this row off
            self.close()
            raise
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
        with open(self.partial / MANIFEST, "w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, TEXT_COLUMNS + NUMBER_COLUMNS, extrasaction="ignore")
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
        with open(self.partial / ANNOTATIONS, "w", newline="", encoding="utf-8") as file:
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
            (self.path / META).unlink(missing_ok=True)
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
