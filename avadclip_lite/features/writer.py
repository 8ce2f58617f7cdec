"""Writing a feature store, whose layout ``dataset.py`` describes: resumable after any interruption.

Rows become part files in ``NAME.partial/parts``, and ``finish()`` joins them into the store's
arrays. A part file is an ``.npz`` of one row: ``video``, ``audio``, ``flags``, and in ``told`` as
JSON what is known of the row and the store. It gets its name, the row's number, when it is
complete: the parts that follow one another from 0 on are the first rows of the store.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout

from avadclip_lite import dataset
from avadclip_lite.config import ClassSet
from avadclip_lite.dataset import Segment, StoreError, parse_codes, parse_label

_ARRAYS = ("video", "audio", "flags")


class StoreWriter(AbstractContextManager):
    """Writes a store, atomically and resumably.

        with StoreWriter(path, classes=XD_CLASSES, dim=512, stride=16, encoder="clip") as writer:
            writer.add(name=..., label="B2-G-0", split="train", video=x, audio=y)
            writer.finish()

    ``inputs``: text that identifies what is written. A writer that finds a partial store of the
    same kind and inputs goes on after it, and ``(name, crop) in writer`` tells which rows are
    there. ``overwrite``: ``finish()`` may replace a store; other files in that folder stay. Raises
    ``StoreError`` for a store that is there already, a second writer at the same time, and a
    partial store of other inputs."""

    def __init__(
        self,
        path: str | Path,
        *,
        classes: ClassSet,
        dim: int,
        stride: int,
        encoder: str,
        dtype: Literal["float16", "float32"] = "float32",
        inputs: str = "",
        overwrite: bool = False,
    ) -> None:
        self.path = Path(path)
        self.partial = Path(f"{self.path}{dataset.PARTIAL}")
        if (self.path / dataset.META).exists() and not overwrite:
            raise StoreError(f"{self.path} is already a feature store; delete it or choose another")
        if self.path.is_file():
            raise StoreError(f"{self.path} is a file; a store is a folder: choose another")
        if not overwrite and not self.partial.exists():  # an earlier run was stopped half-way
            dataset.check_place(self.path, dataset.META)
        if dtype not in ("float16", "float32"):
            raise StoreError(f"dtype must be float16 or float32, got {dtype!r}")
        if (self.partial / "journal.jsonl").exists():
            raise StoreError(f"{self.partial} is an earlier version's; delete it to start over")
        self.classes, self.dim, self.stride = classes, dim, stride
        self._kind = {"format": dataset.FORMAT, "classes": asdict(classes), "dim": dim}
        self._kind |= {"stride": stride, "encoder": encoder}
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._head = json.dumps({"kind": self._kind, "inputs": inputs, "dtype": dtype})
        self._flag_names: list[str] = []  # decided by the first row
        self._rows: dict[tuple[str, int], dict[str, Any]] = {}
        self._first_of: dict[str, dict[str, Any]] = {}  # of each video
        self._parts = self.partial / "parts"
        self._parts.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self._parts / "lock")
        try:
            self._lock.acquire(timeout=0)
            self._resume()
        except Timeout:
            raise StoreError(f"{self.partial} is being written by another process") from None
        except BaseException:
            self._lock.release()
            raise
        self.resumed = len(self._rows)  # rows that an earlier run had completed

    def __exit__(self, *_: object) -> None:
        """Let go; a partial store that holds rows can be continued."""
        if not self._rows:
            shutil.rmtree(self.partial, ignore_errors=True)
        self._lock.release()

    def __contains__(self, key: tuple[str, int]) -> bool:
        return key in self._rows

    def __len__(self) -> int:
        return len(self._rows)

    def add(
        self,
        *,
        name: str,
        split: str,
        video: np.ndarray,
        audio: np.ndarray | None = None,
        label: str | Iterable[str] | None = None,
        crop: int = 0,
        segments: Iterable[Segment] = (),
        flags: Mapping[str, np.ndarray] | None = None,
        source: str = "",
    ) -> None:
        """Append one (video, crop), which is on disk then. ``video (Tv, D)``, ``audio (Ta, D)`` or
        None; all crops of a video have the same. ``label`` codes ("B2-G-0"), by default those in
        the name. ``segments`` in frames, end exclusive; those of the first crop serve the others.
        ``flags`` ``{name: (Tv,) bool}``, in all rows or in none. Raises ``StoreError`` naming the
        video for what does not fit; the row is left out then, and the writer can go on."""
        where = f"video {name!r}, crop {crop}"
        if (name, crop) in self._rows:
            raise StoreError(f"{where} is already in {self.partial}")
        first = self._first_of.get(name)
        codes = parse_label(name, self.classes) if label is None else None
        segments = [list(event) for event in segments] or (first["segments"] if first else [])
        label = "-".join(codes or parse_codes(label, self.classes))
        row: dict[str, Any] = {"name": name, "label": label, "split": split, "crop": int(crop)}
        row |= {"source": source, "segments": segments}
        row |= {"video_rows": len(video), "audio_rows": 0 if audio is None else len(audio)}
        check_events(segments, self.classes, len(video), self.stride, where)
        given = {"video": video} if audio is None else {"video": video, "audio": audio}
        arrays = {k: self._features(array, f"{where}: {k} features") for k, array in given.items()}
        if audio is not None:
            check_lengths(len(video), len(audio), where)
        names = self._flag_names if self._rows else list(flags or ())
        if set(flags or ()) != set(names):
            raise StoreError(f"{where}: flags {list(flags or ())} but {names} in other rows")
        if names:
            columns = [np.asarray(flags[key], np.uint8) for key in names]
            if any(column.shape != (len(video),) for column in columns):
                raise StoreError(f"{where}: every flag must have the video's {len(video)} snippets")
            arrays["flags"] = np.stack(columns, axis=1)
        row |= {f"{k}_crc": zlib.crc32(arrays[k]) if k in arrays else 0 for k in _ARRAYS}
        if first:
            arrays.pop("audio", None)
            for key in ("label", "split", "segments", "audio_rows", "audio_crc"):
                if row[key] != first[key]:
                    what = f"{key.partition('_')[0]} differs from another crop's of this video"
                    raise StoreError(f"{where}: its {what}, {row[key]!r} and {first[key]!r}")
        told = json.dumps({"head": self._head, "flags": names, "row": row}).encode()
        with open(self._parts / "new", "wb") as file:
            np.savez(file, told=np.frombuffer(told, np.uint8), **arrays)
        os.replace(self._parts / "new", self._parts / f"{len(self):06d}.npz")
        self._flag_names = names
        self._enter(row)

    def finish(self) -> Path:
        """Make the store readable under its name; returns that path."""
        if not self._rows:
            raise StoreError(f"nothing was added to {self.path}; a store needs at least one row")
        self._join()
        self._write_tables()
        self._publish()
        return self.path

    def _features(self, array: np.ndarray, what: str) -> np.ndarray:
        """A copy in the store's dtype, checked."""
        check_features(array, self.dim, what, content=False)
        if array.dtype.itemsize > 2 == self._dtype.itemsize:
            raise StoreError(f"{what} are {array.dtype} and the store is float16; use float32")
        with np.errstate(over="ignore"):  # float64 beyond float32 becomes inf, and is refused
            check_features(array := np.array(array, self._dtype, order="C"), self.dim, what)
        return array

    def _enter(self, row: dict[str, Any]) -> None:
        self._first_of.setdefault(row["name"], row)
        self._rows[row["name"], row["crop"]] = row

    def _read_parts(self) -> Iterator[tuple[dict[str, Any], dict[str, np.ndarray]]]:
        """What the parts tell, and their arrays, up to one that is missing, or harmed (by a power
        cut, a bad disk), as its checksums tell."""
        for number in itertools.count():
            try:
                with np.load(self._parts / f"{number:06d}.npz") as part:
                    arrays = dict(part)
            except (FileNotFoundError, ValueError, EOFError, zipfile.BadZipFile):
                return
            yield json.loads(arrays.pop("told").tobytes()), arrays

    def _resume(self) -> None:
        """Take up the rows of the part files, and remove what follows them."""
        for told, _ in self._read_parts():
            if told["head"] != self._head:
                how = "with other inputs or settings; delete it to start over"
                raise StoreError(f"{self.partial} was begun {how}")
            self._flag_names = told["flags"]
            self._enter(told["row"])
        for file in self._parts.glob("*.npz"):
            if int(file.stem) >= len(self):
                file.unlink()

    def _join(self) -> None:
        """Copy the parts, one after another, into the store's arrays."""
        snippets = sum(row["video_rows"] for row in self._rows.values())
        tracks = sum(row["audio_rows"] for row in self._first_of.values())
        joined, at = {}, dict.fromkeys(_ARRAYS, 0)
        for kind, dtype, shape in (
            ("video", self._dtype, (snippets, self.dim)),
            ("audio", self._dtype, (tracks, self.dim)),
            ("flags", np.uint8, (snippets, len(self._flag_names))),
        ):
            if all(shape):
                path = self.partial / f"{kind}.npy"
                joined[kind] = np.lib.format.open_memmap(path, "w+", dtype=dtype, shape=shape)
        for _, arrays in self._read_parts():
            for kind, block in arrays.items():
                joined[kind][at[kind] : at[kind] + len(block)] = block
                at[kind] += len(block)
        if at["video"] < snippets:
            raise StoreError(f"a file in {self._parts} was harmed on disk; run the same again")
        for array in joined.values():
            array.flush()

    def _write_tables(self) -> None:
        table = pd.DataFrame(self._rows.values())
        table["video_start"] = table.video_rows.cumsum() - table.video_rows
        own = table.audio_rows.where(~table.name.duplicated(), 0)  # crops share the first one's
        start = (own.cumsum() - own).groupby(table.name).transform("first")
        table["audio_start"] = start.where(table.audio_rows > 0, -1)
        # the digest: over every row but its source, the checksums of its features included
        content = [self._kind, self._dtype.name, self._flag_names]
        content += table.drop(columns="source").to_dict("records")
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        meta = self._kind | {"dtype": self._dtype.name, "rows": len(table)}
        meta |= {"video_snippets": int(table.video_rows.sum()), "audio_snippets": int(own.sum())}
        text = json.dumps(meta | {"flags": self._flag_names, "digest": digest[:12]}, indent=1)
        (self.partial / dataset.META).write_text(f"{text}\n", encoding="utf-8")
        shared = table.video_rows.clip(upper=table.audio_rows.replace(0, np.inf)).astype(int)
        table = table.assign(snippets=shared, frames=shared * self.stride, stride=self.stride)
        options = {"index": False, "lineterminator": "\r\n"}
        columns = [*dataset.TEXT_COLUMNS, *dataset.NUMBER_COLUMNS]
        table.to_csv(self.partial / dataset.MANIFEST, columns=columns, **options)
        events = [(name, *e) for name, row in self._first_of.items() for e in row["segments"]]
        table = pd.DataFrame(events, columns=["name", "code", "start", "end"])
        table.to_csv(self.partial / dataset.ANNOTATIONS, **options)

    def _publish(self) -> None:
        """Give the partial store its name; what makes it readable, meta.json, comes last. What else
        lies in ``NAME.partial`` (its maker's log) comes along."""
        self.path.mkdir(exist_ok=True)
        for name in (dataset.META, *(f"{kind}.npy" for kind in _ARRAYS)):
            (self.path / name).unlink(missing_ok=True)
        for file in sorted(self.partial.iterdir(), key=lambda file: file.name == dataset.META):
            if file.is_file():
                with open(file, "rb") as written:
                    os.fsync(written.fileno())
                os.replace(file, self.path / file.name)
        (self._parts / f"{0:06d}.npz").unlink()  # what is left is no partial store any more
        shutil.rmtree(self.partial, ignore_errors=True)


def check_features(array: np.ndarray, dim: int, what: str, *, content: bool = True) -> None:
    """Refuse what are no features (T, ``dim``) or, by their ``content``, not finite, in a
    ``StoreError`` that begins with ``what``."""
    if array.ndim != 2 or array.dtype.kind != "f" or array.shape[1] != dim:
        got = f"{array.dtype} {array.shape}; set dim, or extract them again"
        raise StoreError(f"{what} must be floating point (T, {dim}), got {got}")
    if not len(array):
        raise StoreError(f"{what} have zero snippets; leave the video out")
    if content and not (finite := np.isfinite(array).all(axis=1)).all():
        bad = int(np.argmin(finite))
        raise StoreError(f"{what} hold NaN or infinity, first in snippet {bad}; extract them again")


def check_lengths(video: int, audio: int, where: str) -> None:
    """Refuse features of the two senses that are more than one snippet apart."""
    if abs(video - audio) > 1:
        both = f"{where}: {video} video and {audio} audio snippets"
        raise StoreError(f"{both} are more than one apart; extract both from the same file again")


def check_events(
    segments: Iterable[Segment], classes: ClassSet, snippets: int, stride: int, where: str
) -> None:
    """Refuse events of unknown codes, that are no spans, or that end a stride or more beyond a
    video of that length; a smaller overrun is clipped when read, the official files have many."""
    frames = snippets * stride
    for code, start, end in segments:
        if code is not None:
            classes.index(code)
        if not 0 <= start < end:
            raise StoreError(f"{where}: event {start} to {end} is not a span of frames")
        if end >= frames + stride:
            much = f"{where} has {frames} frames and is annotated up to frame {end}, a stride of"
            raise StoreError(f"{much} {stride} or more beyond them: these are not its annotations")
