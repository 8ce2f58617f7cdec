"""The feature store: one folder that holds every feature, label and annotation of a data set.

Whatever the data was (Soundstage, XD-Violence, CCTV-Fights, a user's own folder), it becomes this
folder, and nothing after the store knows where it came from::

    meta.json        classes, D, stride, encoder, counts, a digest of the content
    manifest.csv     one row a (video, crop): name, label, split, lengths, where its features lie
    annotations.csv  events of annotated videos: name, code (may be empty), start, end in frames,
                     end exclusive
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
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from avadclip_lite.config import MAX_SNIPPETS, ClassSet, Config

__all__ = [
    "Batch",
    "FeatureStore",
    "Row",
    "Segment",
    "StoreError",
    "TrainingSet",
    "AUDIO_PRESENT",
    "class_events",
    "clip_segments",
    "has_label",
    "holdout_split",
    "parse_codes",
    "parse_label",
    "film_of",
    "resample",
    "shuffled_batches",
    "truth_events",
]


Segment = tuple[str | None, int, int]  # code (None in the binary form), first frame, end exclusive

LABEL_MARK = "_label_"
_LABEL_PADDING = "0"

FORMAT = 1
META, MANIFEST, ANNOTATIONS = "meta.json", "manifest.csv", "annotations.csv"
AUDIO_PRESENT = "audio_present"  # flag: the sound track reaches this snippet
PARTIAL = ".partial"  # added to the name of a store that is being written
TEXT_COLUMNS = ("name", "label", "split", "source")
NUMBER_COLUMNS = (
    "crop",
    "snippets",  # T, what video and audio share
    "frames",  # N = stride x T
    "stride",  # frames a snippet
    "video_start",  # first row in video.npy
    "video_rows",
    "audio_start",  # first row in audio.npy, -1 without audio
    "audio_rows",
)


class StoreError(ValueError):
    """A feature store, or what was to go into one, is not as it must be."""


# ---------------------------------------------------------------------------- labels and events


def parse_codes(label: str | Iterable[str], classes: ClassSet) -> tuple[str, ...]:
    """The class codes of a label such as ``"B2-G-0"`` or ``("B2", "G")``, in class order, each
    once.

    Raises ``ValueError`` for an unknown code, for no code at all, and for the normal class
    together with an anomaly.
    """
    parts = label.split("-") if isinstance(label, str) else list(label)
    indices = sorted(
        {classes.index(part.strip()) for part in parts if part.strip() != _LABEL_PADDING}
    )
    if not indices:
        raise ValueError(f"label {label!r} names no class of {', '.join(classes.codes)}")
    if indices[0] == 0 and len(indices) > 1:
        raise ValueError(
            f"label {label!r} calls a video normal ({classes.codes[0]}) and anomalous at once"
        )
    return tuple(classes.codes[i] for i in indices)


def has_label(name: str) -> bool:
    """Whether a video's name carries a weak label."""
    return LABEL_MARK in name


def parse_label(name: str, classes: ClassSet) -> tuple[str, ...]:
    """The class codes in a video's name: ``..._label_B2-G-0`` gives ``("B2", "G")``.

    Raises ``ValueError`` naming the video when it carries no label or an unknown code.
    """
    stem = name.removesuffix(".mp4")
    before, mark, label = stem.rpartition(LABEL_MARK)
    if not mark:
        raise ValueError(
            f"video name {name!r} carries no label; expected {LABEL_MARK}CODE at its end"
        )
    try:
        return parse_codes(label, classes)
    except ValueError as error:
        raise ValueError(f"video name {name!r}: {error}") from None


def truth_events(events: list[Segment]) -> list[Segment]:
    """The events of one video that make its frame truth: those without a code if there are any,
    else all."""
    return [event for event in events if event[0] is None] or events


def class_events(events: list[Segment]) -> list[Segment]:
    """The events of one video by class: those with a code if there are any, else all."""
    return [event for event in events if event[0] is not None] or events


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


class FeatureStore:
    """Read access to a finished store; opening maps the arrays and reads the manifest only.

    Attributes: ``path``, ``classes``, ``dim`` (D), ``stride``, ``encoder``, ``videos`` (a list of
    ``Row``), ``snippets`` (R,), ``frames`` (R,), ``has_audio`` (R,), ``video_ids`` (R,) with equal
    numbers for crops of one video, ``flag_names``, and ``digest``, which changes with any feature,
    label or annotation.
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
        self._columns = columns = _read_manifest(path / MANIFEST)
        self.snippets, self.frames = columns["snippets"], columns["frames"]
        self.has_audio = columns["audio_start"] >= 0
        fields_of_row = [self.has_audio if f == "has_audio" else columns[f] for f in Row._fields]
        listed = (c.tolist() if isinstance(c, np.ndarray) else c for c in fields_of_row)
        self.videos = [Row(*row) for row in zip(*listed, strict=True)]
        self._video = _map_array(path / "video.npy", (meta["video_snippets"], self.dim))
        self._audio = self._flags = None
        if meta["audio_snippets"]:
            self._audio = _map_array(path / "audio.npy", (meta["audio_snippets"], self.dim))
        if self.flag_names:
            shape = (meta["video_snippets"], len(self.flag_names))
            self._flags = _map_array(path / "flags.npy", shape)
        names = columns["name"]
        self.video_ids, numbers = _numbered(names)
        self.film_ids, _ = _numbered([film_of(name) for name in names])
        self._check(meta)
        self._read_annotations(numbers)

    @classmethod
    def open(cls, path: str | Path) -> FeatureStore:
        """Open a finished store.

        Raises ``FileNotFoundError`` when there is none, and ``StoreError`` for a store that is
        half-written, cut short, or not a store at all.
        """
        path = Path(path)
        half = path if path.name.endswith(PARTIAL) else path.with_name(path.name + PARTIAL)
        if not (path / META).is_file():
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
            raise StoreError(f"{path} is not a feature store: it has no {META}")
        try:
            meta = json.loads((path / META).read_text(encoding="utf-8"))
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
            and (self.snippets >= 1).all()
            and (self.frames == self.snippets * self.stride).all()
            and (c["stride"] == self.stride).all()
            and (c["video_start"] >= 0).all()
            and (c["video_start"] + c["video_rows"] <= meta["video_snippets"]).all()
            and (c["audio_start"] + c["audio_rows"] <= meta["audio_snippets"]).all()
            and (self.snippets <= c["video_rows"]).all()
            and (self.snippets <= c["audio_rows"])[self.has_audio].all()
        )
        if not whole:
            raise StoreError(
                f"{self.path / MANIFEST} and {META} beside it contradict each other; "
                "import the data again"
            )

    def _read_annotations(self, numbers: Mapping[str, int]) -> None:
        """Events by class, a list for each video, and all frame truth in one array sorted by
        video: rows ``_first[v] : _first[v + 1]`` of ``_truth`` are video v's starts and ends."""
        events: list[list[Segment]] = [[] for _ in numbers]
        with open(self.path / ANNOTATIONS, newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                event = (row["code"] or None, int(row["start"]), int(row["end"]))
                events[numbers[row["name"]]].append(event)
        truth = [truth_events(own) for own in events]
        self._events = [class_events(own) for own in events]
        self._first = np.concatenate([[0], np.cumsum([len(own) for own in truth], dtype=np.int64)])
        spans = [event[1:] for own in truth for event in own]
        self._truth = np.array(spans, dtype=np.int64).reshape(-1, 2)

    def indices(self, split: str) -> np.ndarray:
        """Row numbers of a split, in the manifest's order; ``StoreError`` if it has none."""
        splits = self._columns["split"]
        found = np.array([k for k, s in enumerate(splits) if s == split], np.int64)
        if not len(found):
            known = ", ".join(sorted(set(splits)))
            raise StoreError(f"{self.path} has no split {split!r}; it has {known}")
        return found

    def video(self, i: int) -> np.ndarray:
        """(T, D) view of row i's video features, cut to the length shared with its audio."""
        return self.uncut(i)[0][: self.snippets[i]]

    def audio(self, i: int) -> np.ndarray | None:
        """(T, D) view of row i's audio features, or None when the video has no audio."""
        audio = self.uncut(i)[1]
        return None if audio is None else audio[: self.snippets[i]]

    def uncut(self, i: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Row i's video (Tv, D) and audio (Ta, D) views at the lengths they came with, which may
        be one snippet apart: what the release works on, each modality alone."""
        video, audio = (
            (int(self._columns[f"{kind}_start"][i]), int(self._columns[f"{kind}_rows"][i]))
            for kind in ("video", "audio")
        )
        seen = self._video[video[0] : sum(video)]
        return seen, self._audio[audio[0] : sum(audio)] if self.has_audio[i] else None

    def audio_mask(self, i: int) -> np.ndarray:
        """(Tv,) bool, over the uncut video: which snippets have sound. That is every snippet of a
        row with audio, less those that the store flags as beyond the reach of the track."""
        rows = int(self._columns["video_rows"][i])
        if not self.has_audio[i]:
            return np.zeros(rows, bool)
        mask = np.arange(rows) < self._columns["audio_rows"][i]
        if AUDIO_PRESENT in self.flag_names:
            start = int(self._columns["video_start"][i])
            column = self.flag_names.index(AUDIO_PRESENT)
            mask &= self._flags[start : start + rows, column].astype(bool)
        return mask

    def audio_key(self, i: int) -> int:
        """A number that rows sharing one audio track (crops of a video) have in common, -1
        without audio."""
        return int(self._columns["audio_start"][i])

    def flags(self, i: int) -> dict[str, np.ndarray]:
        """Per-snippet truth of row i, ``{name: (T,) bool}``; empty for stores without flags."""
        if self._flags is None:
            return {}
        start = int(self._columns["video_start"][i])
        block = self._flags[start : start + int(self.snippets[i])].astype(bool)
        return {name: block[:, k] for k, name in enumerate(self.flag_names)}

    def labels(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """(n, C) float32 multi-hot weak labels; column 0 is 1 for normal videos only."""
        hot: dict[str, np.ndarray] = {}
        for label in set(self._columns["label"]):
            hot[label] = np.zeros(len(self.classes), np.float32)
            for code in parse_codes(label, self.classes):
                hot[label][self.classes.index(code)] = 1.0
        rows = [hot[self._columns["label"][i]] for i in indices]
        return np.stack(rows) if rows else np.zeros((0, len(self.classes)), np.float32)

    def segments(self, i: int, frames: int | None = None) -> list[Segment]:
        """Events of row i by class as (code, first frame, end frame), end exclusive, clipped to
        ``frames`` (the row's N); the code is None where only the binary form is known."""
        return clip_segments(self._events[self.video_ids[i]], frames or int(self.frames[i]))

    def frame_truth(
        self, indices: Sequence[int] | np.ndarray, frames: np.ndarray | None = None
    ) -> np.ndarray:
        """(sum N,) uint8: 1 where any event covers the frame, rows one after the other; of
        ``frames`` (n,) frames each, or of the rows' own N.

        Overlapping events count once. Where a video's events are known in both forms, the binary
        one counts, as in the release.
        """
        indices = np.asarray(indices, dtype=np.int64)
        frames = self.frames[indices] if frames is None else np.asarray(frames)
        offset = np.concatenate([[0], np.cumsum(frames)])
        first = self._first[self.video_ids[indices]]
        count = self._first[self.video_ids[indices] + 1] - first
        row = np.repeat(np.arange(len(indices)), count)  # the row that each event belongs to
        event = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)  # its number there
        spans = self._truth[event + np.repeat(first, count)]
        bounds = np.minimum(spans, frames[row, None]) + offset[row, None]
        steps = np.zeros(offset[-1] + 1, dtype=np.int32)  # +1 where an event starts, -1 at its end
        np.add.at(steps, bounds[:, 0], 1)
        np.add.at(steps, bounds[:, 1], -1)
        return (np.cumsum(steps)[:-1] > 0).astype(np.uint8)


def clip_segments(segments: Iterable[Segment], frames: int) -> list[Segment]:
    """Events cut to a video of so many frames; what starts beyond it is left out."""
    return [(code, start, min(end, frames)) for code, start, end in segments if start < frames]


def film_of(name: str) -> str:
    """The film that a clip was cut from: XD-Violence names its clips ``FILM__#FROM_TO_label_...``;
    any other name is a film of its own."""
    return name.partition("__#")[0]


def _numbered(names: Sequence[str]) -> tuple[np.ndarray, dict[str, int]]:
    """Equal numbers for equal names, in the order of their first appearance."""
    numbers = {name: k for k, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names], dtype=np.int64), numbers


def _read_manifest(path: Path) -> dict[str, Any]:
    """``manifest.csv`` column by column: lists of text and int64 arrays, (R,) each."""
    with open(path, newline="", encoding="utf-8") as file:
        header, *lines = csv.reader(file)
    columns = dict(zip(header, zip(*lines, strict=True), strict=True))
    missing = [name for name in TEXT_COLUMNS + NUMBER_COLUMNS if name not in columns]
    if missing:
        raise StoreError(f"{path} lacks the columns {', '.join(missing)}; import the data again")
    numbers = {name: np.array(columns[name], dtype=np.int64) for name in NUMBER_COLUMNS}
    return {name: columns[name] for name in TEXT_COLUMNS} | numbers


def _map_array(path: Path, shape: tuple[int, int]) -> np.ndarray:
    if not path.is_file():
        raise StoreError(f"{path} is missing from its store; import the data again")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError) as error:
        raise StoreError(f"{path} is damaged ({error}); import the data again") from None
    if array.shape != shape:
        raise StoreError(
            f"{path} holds {array.shape} where {META} beside it says {shape}; import the data again"
        )
    return array.view(np.ndarray)  # slices of a memmap object cost far more than of its array


# ---------------------------------------------------------------------------- bags for training


def resample(
    features: np.ndarray, max_snippets: int = MAX_SNIPPETS, keep: np.ndarray | None = None
) -> np.ndarray:
    """(T, D) -> (S, D) float32 with S = min(T, max_snippets).

    A longer video becomes the means over bins of truncated ``linspace(0, T, max_snippets + 1)``,
    as in the release; a shorter one stays as it is. ``keep`` (T,) bool: only these snippets enter
    a mean, and a bin without any is zero.
    """
    features = np.asarray(features)
    weight = np.ones(len(features), np.float32) if keep is None else keep.astype(np.float32)
    if len(features) <= max_snippets:
        return features.astype(np.float32) if keep is None else features * weight[:, None]
    edges = np.linspace(0, len(features), max_snippets + 1).astype(np.int64)
    sizes = np.diff(edges)  # two neighbouring sizes, none empty because T > max_snippets
    means = np.empty((max_snippets, features.shape[1]), np.float32)
    for size in np.unique(sizes):
        bins = np.flatnonzero(sizes == size)
        place = edges[bins, None] + np.arange(size)
        rows = features[place].astype(np.float32)  # (bins, size, D)
        if keep is None:
            means[bins] = rows.mean(axis=1)
        else:
            share = weight[place] / np.maximum(weight[place].sum(axis=1, keepdims=True), 1)
            means[bins] = (rows * share[..., None]).sum(axis=1)
    return means


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Videos as a detector takes them; beyond a video's length features are zero."""

    video: Tensor | None  # (B, T, D); None for a detector that only hears
    audio: Tensor | None  # (B, T, D), zeros where there is none; None for one that only sees
    lengths: Tensor  # (B,) int64
    audio_mask: Tensor | None = None  # (B, T) bool: this snippet has sound; None: all have
    labels: Tensor | None = None  # (B, C) float32 multi-hot, of training bags
    index: Tensor | None = None  # (B,) int64, positions in the training set

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def snippets(self) -> int:
        """T, padding included."""
        return (self.audio if self.video is None else self.video).shape[1]

    def to(self, device: torch.device | str) -> Batch:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return Batch(**{k: None if v is None else v.to(device) for k, v in values.items()})


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
        self._sounds = torch.zeros(int(used[1]) + 1, dtype=torch.bool)  # this snippet has sound
        video_out, audio_out, sounds = (x.numpy() for x in (self._video, self._audio, self._sounds))
        filled = -1
        for (v, tv, a, ta), i in zip(spans.T, self.rows, strict=True):
            video, audio = pair(i)
            video_out[v : v + tv] = resample(video, self.max_snippets)
            if audio is not None and a > filled:  # starts grow with each new track
                keep = np.ones(len(audio), bool)
                mask = store.audio_mask(i)[: len(audio)]
                keep[: len(mask)] = mask
                partial = None if keep.all() else keep
                audio_out[a : a + ta] = resample(audio, self.max_snippets, partial)
                sounds[a : a + ta] = resample(keep[:, None], self.max_snippets)[:, 0] > 0
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
        for name in ("_video", "_audio", "_sounds", "_spans", "labels"):
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

        def gathered(packed: Tensor, start: Tensor, length: Tensor) -> Tensor:
            return packed[torch.where(step < length[:, None], start[:, None] + step, -1)]

        sounds = gathered(self._sounds, audio_start, audio_lengths)
        return Batch(
            video=gathered(self._video, video_start, lengths),
            audio=gathered(self._audio, audio_start, audio_lengths),
            audio_mask=sounds & (step < lengths[:, None]),
            lengths=lengths,
            labels=self.labels[index],
            index=index,
        )


POOL = 8  # length-aware batches are cut from this many shuffled batches sorted by length


def shuffled_batches(bags: TrainingSet, size: int, generator: torch.Generator) -> list[Tensor]:
    """Shuffled positions of an epoch, the last small batch kept.

    Where batches are cut to their longest bag, each pool of ``POOL`` shuffled batches is sorted by
    length before it is cut, so that little padding is computed; then the batches are shuffled.
    """
    order = torch.randperm(len(bags), generator=generator)
    if not bags.length_aware:
        return list(order.split(size))
    lengths = bags.lengths.cpu()
    pools = [pool[lengths[pool].argsort(stable=True)] for pool in order.split(POOL * size)]
    batches = list(torch.cat(pools).split(size))
    return [batches[i] for i in torch.randperm(len(batches), generator=generator)]


def holdout_split(
    store: FeatureStore, rows: Sequence[int] | np.ndarray, share: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """(kept, held out): a seeded share of the *films* set aside, so that no clip of a film that is
    trained on is judged, nor another crop of its video.

    Stratified by weak label: films are sorted by the labels of their clips, shuffled within equal
    ones, and picked at equal steps, so that every label is held out nearly in proportion, rare
    combinations together with their neighbours. Films of normal clips alone and others are picked
    apart, each at least once where there are two or more. Row order is kept.
    """
    rows = np.asarray(rows, dtype=np.int64)
    if not 0 <= share < 1:
        raise ValueError(f"share must be at least 0 and below 1, got {share!r}")
    rng = np.random.default_rng(seed)
    films, film = np.unique(store.film_ids[rows], return_inverse=True)
    labels = np.zeros((len(films), len(store.classes)), np.float32)
    np.maximum.at(labels, film, store.labels(rows))
    labels[:, 0] = labels[:, 1:].sum(axis=1) == 0  # normal: all of its clips are
    size = np.bincount(film)
    shuffle = rng.permutation(len(films))
    keys = (size[shuffle], *labels[shuffle].T[::-1])
    order = shuffle[np.lexsort(keys)]  # lexsort is stable
    held: list[np.ndarray] = []
    for normal in (True, False):
        group = order[(labels[order, 0] > 0) == normal]
        count = round(share * len(group))
        if share and len(group) > 1:
            count = max(count, 1)
        step = len(group) / max(count, 1)
        picks = np.floor((np.arange(count) + rng.random()) * step).astype(np.int64)
        held.append(group[picks])
    out = np.isin(film, np.concatenate(held))
    return rows[~out], rows[out]
