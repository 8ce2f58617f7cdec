"""The feature store: one folder that holds every feature, label and annotation of a data set.

Whatever the data was, it becomes this folder, and nothing after it knows where it came from::

    meta.json        classes, D, stride, encoder, counts, a digest of the content
    manifest.csv     one row a (video, crop): name, label, split, lengths, where its features lie
    annotations.csv  events of annotated videos: name, code (may be empty), start, end in frames,
                     end exclusive
    video.npy        (P, D) snippet features of all rows, one row after the other; memory-mapped
    audio.npy        (Q, D) the same for sound, stored once a video and shared by its crops
    flags.npy        (P, F) optional per-snippet truth, such as "audible" in Soundstage

Shape letters: R rows, T snippets of a row, D feature width, C classes, N frames (stride x T).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from avadclip_lite.config import MAX_SNIPPETS, ClassSet, Config

Array, Indices = np.ndarray, Sequence[int] | np.ndarray
Segment = tuple[str | None, int, int]  # code (None in the binary form), first frame, end exclusive

LABEL_MARK, LABEL_PADDING = "_label_", "0"

FORMAT = 1
META, MANIFEST, ANNOTATIONS = "meta.json", "manifest.csv", "annotations.csv"
AUDIO_PRESENT = "audio_present"  # flag: the sound track reaches this snippet
POOL = 8  # length-aware batches are cut from this many shuffled batches sorted by length
PARTIAL = ".partial"  # added to the name of a store that is being written
TEXT_COLUMNS = ("name", "label", "split", "source")
NUMBER_COLUMNS = ("crop", "snippets", "frames", "stride")
# where a row's features lie in video.npy and audio.npy; audio_start is -1 without audio
NUMBER_COLUMNS += ("video_start", "video_rows", "audio_start", "audio_rows")


class StoreError(ValueError):
    """A feature store, or what was to go into one, is not as it must be."""


def check_place(folder: Path, *marks: str) -> None:
    """Refuse to write beside other things: a folder without one of ``marks``, files of what is
    to go there, must be empty, but for hidden files, logs, and what a kill left half-written."""
    found = [p.name for p in folder.glob("[!.]*") if p.suffix not in (".part", ".log", ".txt")]
    if found and not any((folder / mark).is_file() for mark in marks):
        raise ValueError(f"{folder} holds other things ({min(found)}); choose a new folder")


# ---------------------------------------------------------------------------- labels and events


def parse_codes(label: str | Iterable[str], classes: ClassSet) -> tuple[str, ...]:
    """The class codes of a label such as ``"B2-G-0"`` or ``("B2", "G")``, in class order, each
    once. Raises ``ValueError`` for an unknown code, none at all, and normal with an anomaly."""
    parts = map(str.strip, label.split("-") if isinstance(label, str) else label)
    indices = sorted({classes.index(part) for part in parts if part != LABEL_PADDING})
    if not indices:
        raise ValueError(f"label {label!r} names no class of {', '.join(classes.codes)}")
    if indices[0] == 0 and len(indices) > 1:
        raise ValueError(f"label {label!r} calls a video normal and anomalous at once")
    return tuple(classes.codes[i] for i in indices)


def parse_label(name: str, classes: ClassSet) -> tuple[str, ...]:
    """The class codes in a video's name: ``..._label_B2-G-0`` gives ``("B2", "G")``. Raises
    ``ValueError`` naming the video when it carries no label or an unknown code."""
    _, mark, label = name.removesuffix(".mp4").rpartition(LABEL_MARK)
    if not mark:
        raise ValueError(f"video name {name!r} carries no label; expected _label_CODE at its end")
    try:
        return parse_codes(label, classes)
    except ValueError as error:
        raise ValueError(f"video name {name!r}: {error}") from None


def events_of(events: list[Segment], *, coded: bool) -> list[Segment]:
    """Those of a video's events that name its classes, with a code (``coded``), or that make its
    frame truth, without one; where there are none of that form, all."""
    return [event for event in events if (event[0] is not None) == coded] or events


# ---------------------------------------------------------------------------- reading


class FeatureStore:
    """Read access to a finished store. Attributes: ``path``, ``classes``, ``dim`` (D), ``stride``,
    ``encoder``, ``snippets`` (R,), ``frames`` (R,), ``has_audio`` (R,), ``video_ids`` (R,) with
    equal numbers for crops of one video, ``film_ids`` (R,), ``flag_names``, and ``digest``, which
    changes with any feature, label or annotation. ``videos``: the manifest's rows, with ``name``,
    ``label`` (codes joined by "-"), ``split``, ``crop``, ``snippets`` (T), ``frames`` (N),
    ``stride``, ``has_audio``, ``source`` (the file) and ``track`` (equal for rows that share one
    audio track, -1 without)."""

    def __init__(self, path: Path, meta: Mapping[str, Any]) -> None:
        self.path, self.dim, self.stride = path, int(meta["dim"]), int(meta["stride"])
        self.encoder, self.digest = meta["encoder"], meta["digest"]
        kind = {k: v if k == "name" else tuple(v) for k, v in meta["classes"].items()}
        self.classes = ClassSet(**kind)
        self.flag_names: tuple[str, ...] = tuple(meta["flags"])
        types = dict.fromkeys(TEXT_COLUMNS, str) | dict.fromkeys(NUMBER_COLUMNS, np.int64)
        table = pd.read_csv(path / MANIFEST, dtype=types, usecols=list(types), na_filter=False)
        table["track"] = table["audio_start"]
        table["has_audio"] = table["track"] >= 0
        self._columns = columns = {name: table[name].to_numpy() for name in table}
        self.snippets, self.frames = columns["snippets"], columns["frames"]
        self.has_audio = columns["has_audio"]
        self.videos = list(table.itertuples(index=False, name="Row"))
        self.video_ids, names = pd.factorize(table["name"])
        # the film that a clip named as in XD-Violence, FILM__#FROM_TO_label_..., was cut from
        self.film_ids, _ = pd.factorize(table["name"].str.partition("__#")[0])
        video, audio, bits = meta["video_snippets"], meta["audio_snippets"], len(self.flag_names)
        self._video = _map_array(path / "video.npy", (video, self.dim))
        self._audio = _map_array(path / "audio.npy", (audio, self.dim)) if audio else None
        self._flags = _map_array(path / "flags.npy", (video, bits)) if bits else self._video[:, :0]
        fits = (self.snippets >= 1) & (self.frames == self.snippets * self.stride)
        for kind, most in (("video", video), ("audio", audio)):
            start, count = columns[f"{kind}_start"], columns[f"{kind}_rows"]
            inside = (self.snippets <= count) & (start >= 0) & (start + count <= most)
            fits &= inside | ((kind == "audio") & ~self.has_audio)
        if len(self) != meta["rows"] or not fits.all():
            raise ValueError(f"{MANIFEST} and {META} contradict each other")
        events: dict[str, list[Segment]] = {name: [] for name in names}
        listed = pd.read_csv(path / ANNOTATIONS, dtype={"name": str, "code": str}, na_filter=False)
        for name, code, start, end in listed.itertuples(index=False, name=None):
            events[name].append((code or None, start, end))
        own = events.values()
        self._truth, self._events = ([events_of(e, coded=c) for e in own] for c in (False, True))

    @classmethod
    def open(cls, path: str | Path) -> FeatureStore:
        """Open a finished store. Raises ``FileNotFoundError`` when there is none, and
        ``StoreError`` for one that is half-written, cut short, or not a store at all."""
        path = Path(path)
        half = path if path.name.endswith(PARTIAL) else Path(f"{path}{PARTIAL}")
        if not (path / META).is_file():
            if half.is_dir():
                how = "run what was writing it again, and it goes on where it stopped"
                raise StoreError(f"feature store {path} is half-written: {how}, or delete {half}")
            how = "make one with 'python -m avadclip_lite import', or check the path"
            kind = StoreError if path.exists() else FileNotFoundError
            raise kind(f"there is no feature store at {path}, for it has no {META}; {how}")
        try:
            meta = json.loads((path / META).read_text(encoding="utf-8"))
            if meta["format"] != FORMAT:
                raise ValueError(f"format {meta['format']!r}, this package reads {FORMAT}")
            return cls(path, meta)
        except (AttributeError, ValueError, KeyError, TypeError, FileNotFoundError) as error:
            what = f"{path} is damaged ({type(error).__name__}: {error})"
            raise StoreError(f"{what}; import the data again") from error

    def __len__(self) -> int:
        return len(self.videos)

    def indices(self, split: str) -> Array:
        """Row numbers of a split, in the manifest's order; ``StoreError`` if it has none."""
        rows = np.flatnonzero(self._columns["split"] == split)
        if not len(rows):
            known = ", ".join(sorted(set(self._columns["split"])))
            raise StoreError(f"{self.path} has no split {split!r}; it has {known}")
        return rows

    def video(self, i: int) -> Array:
        """(T, D) view of row i's video features, cut to the length shared with its audio."""
        return self.uncut(i)[0][: self.snippets[i]]

    def audio(self, i: int) -> Array | None:
        """(T, D) view of row i's audio features, or None when the video has no audio."""
        audio = self.uncut(i)[1]
        return None if audio is None else audio[: self.snippets[i]]

    def _own(self, kind: str, i: int) -> slice:
        start = int(self._columns[f"{kind}_start"][i])
        return slice(start, start + int(self._columns[f"{kind}_rows"][i]))

    def uncut(self, i: int) -> tuple[Array, Array | None]:
        """Row i's video (Tv, D) and audio (Ta, D) views, perhaps one snippet apart: what the
        release works on."""
        audio = self._audio[self._own("audio", i)] if self.has_audio[i] else None
        return self._video[self._own("video", i)], audio

    def audio_mask(self, i: int) -> Array:
        """(Tv,) bool, over the uncut video: which snippets have sound, by the track's length and
        the store's flag."""
        own = self._own("video", i)
        mask = np.arange(own.stop - own.start) < self._columns["audio_rows"][i]  # 0 without sound
        if AUDIO_PRESENT in self.flag_names:
            mask &= self._flags[own, self.flag_names.index(AUDIO_PRESENT)].astype(bool)
        return mask

    def flags(self, i: int) -> dict[str, Array]:
        """Per-snippet truth of row i, ``{name: (T,) bool}``; empty for stores without flags."""
        block = self._flags[self._own("video", i)][: self.snippets[i]].astype(bool)
        return dict(zip(self.flag_names, block.T, strict=True))

    def labels(self, indices: Indices) -> Array:
        """(n, C) float32 multi-hot weak labels; column 0 is 1 for normal videos only."""
        hot = np.zeros((len(indices), len(self.classes)), np.float32)
        for row, i in zip(hot, indices, strict=True):
            row[list(map(self.classes.index, parse_codes(self.videos[i].label, self.classes)))] = 1
        return hot

    def segments(self, i: int, frames: int | None = None) -> list[Segment]:
        """Events of row i by class, clipped to ``frames`` (the row's N)."""
        return clip_segments(self._events[self.video_ids[i]], frames or int(self.frames[i]))

    def frame_truth(self, indices: Indices, frames: Array | None = None) -> Array:
        """(sum N,) uint8: 1 where any event covers the frame, rows one after the other, of
        ``frames`` (n,) each or the rows' own N. Of both forms the binary one counts, as in the
        release."""
        frames = self.frames[np.asarray(indices, np.int64)] if frames is None else frames
        truth = [np.zeros(n, np.uint8) for n in frames]
        for row, i in zip(truth, indices, strict=True):
            for _, start, end in self._truth[self.video_ids[i]]:
                row[start:end] = 1
        return np.concatenate([np.zeros(0, np.uint8), *truth])


def clip_segments(segments: Iterable[Segment], frames: int) -> list[Segment]:
    """Events cut to a video of so many frames; what starts beyond it is left out."""
    return [(code, start, min(end, frames)) for code, start, end in segments if start < frames]


def _map_array(path: Path, shape: tuple[int, int]) -> Array:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, FileNotFoundError) as error:
        raise ValueError(f"{path.name} cannot be read: {error}") from None
    if array.shape != shape:
        raise ValueError(f"{path.name} holds {array.shape} where {META} beside it says {shape}")
    return array.view(np.ndarray)  # slices of a memmap object cost far more than of its array


# ---------------------------------------------------------------------------- bags for training


def resample(features: Array, max_snippets: int = MAX_SNIPPETS, keep: Array | None = None) -> Array:
    """(T, D) -> (S, D) float32 with S = min(T, max_snippets). A longer video becomes the means over
    bins of truncated ``linspace(0, T, max_snippets + 1)``, as in the release. ``keep`` (T,) bool:
    only these enter a mean, and a bin without any is zero."""
    features = np.asarray(features)
    if keep is not None and not keep.all():
        share = resample(keep[:, None], max_snippets)  # of each bin
        return resample(features * keep[:, None], max_snippets) / np.where(share > 0, share, 1)
    if len(features) <= max_snippets:
        return features.astype(np.float32)
    edges = np.linspace(0, len(features), max_snippets + 1).astype(np.int64)  # no bin is empty
    rows, sizes = torch.from_numpy(features.astype(np.float32)), torch.from_numpy(np.diff(edges))
    return torch.segment_reduce(rows, "mean", lengths=sizes).numpy()


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
        moved = {k: None if v is None else v.to(device) for k, v in vars(self).items()}
        return Batch(**moved)


@dataclass(frozen=True, kw_only=True)
class Output:
    """What a detector says about a batch. Rows outside ``mask`` mean nothing. A detector without
    classes leaves the alignment part out; the rest is AVadCLIP's own."""

    anomaly_logits: Tensor  # (B, T): classification branch
    mask: Tensor  # (B, T) bool: the snippets that exist
    alignment_logits: Tensor | None = None  # (B, T, C): the alignment map, temperature applied
    features: Tensor | None = None  # (B, T, D): x_av of the teacher, x_vs of a student
    class_embeddings: Tensor | None = None  # (C, D): x_c, before the audio-visual prompt
    prompted_embeddings: Tensor | None = None  # (B, C, D): x_cp, after it
    log_variance: Tensor | None = None  # (B, T, D): ln sigma^2 of a student that distils
    teacher_features: Tensor | None = None  # (B, T, D): x_av of the teacher, while a student trains

    @property
    def confidence(self) -> Tensor:
        """a = sigmoid of the anomaly logits, (B, T)."""
        return torch.sigmoid(self.anomaly_logits)


class TrainingSet:
    """Training bags in memory, resampled once; a batch is indexing and nothing else. Rows lie
    packed without padding, with one row of zeros at the end that padding points to; an audio track
    is held once for all crops. Attributes: ``lengths`` (R,), ``labels`` (R, C) and ``rows`` (R,) of
    the store. ``settings.data.resample``: "together" pools video and audio of a snippet into the
    same bin; "separate" each on its own length, as the release does, which misaligns long videos
    whose lengths differ. ``settings.data.crops``: "first" keeps one row a video."""

    def __init__(self, store: FeatureStore, rows: Indices, settings: Config) -> None:
        rows = np.asarray(rows, dtype=np.int64)
        if settings.data.crops == "first":
            order = np.argsort([store.videos[i].crop for i in rows], kind="stable")
            first = np.unique(store.video_ids[rows[order]], return_index=True)[1]
            rows = rows[np.sort(order[first])]
        if not len(rows):
            raise StoreError(f"no training rows were chosen from {store.path}")
        self.rows, self.device = rows, torch.device("cpu")
        self.max_snippets = settings.model.max_snippets
        self.length_aware = settings.data.length_aware
        self.labels = torch.from_numpy(store.labels(rows))  # (R, C)
        separate, most = settings.data.resample == "separate", self.max_snippets
        bags = [store.uncut(i) if separate else (store.video(i), store.audio(i)) for i in rows]
        bags = [(video, video[:0] if audio is None else audio) for video, audio in bags]
        lengths = np.minimum([len(video) for video, _ in bags], most)
        pairs = zip(rows, bags, strict=True)  # crops share a track, but may cut it
        tracks = pd.Series([(store.videos[i].track, len(audio)) for i, (_, audio) in pairs])
        track, different = pd.factorize(tracks)
        heard = np.minimum([length for _, length in different], most)
        starts, sound_starts = np.cumsum(lengths) - lengths, np.cumsum(heard) - heard
        spans = np.stack([starts, lengths, sound_starts[track], heard[track]])
        # bf16 products see less than a float16 store holds; what a store has wider stays wide
        half = settings.train.precision == "bf16" and bags[0][0].dtype == np.float16
        form = {"dtype": torch.float16 if half else torch.float32}
        self._video = torch.zeros(int(lengths.sum()) + 1, store.dim, **form)
        self._audio = torch.zeros(int(heard.sum()) + 1, store.dim, **form)
        self._sounds = torch.zeros(len(self._audio), dtype=torch.bool)  # this snippet has sound
        again = tracks.duplicated()  # another bag packs this one's track

        def pack(k: int) -> None:
            (video, audio), (start, length, sound_start, sound_length) = bags[k], spans[:, k]
            self._video[start : start + length] = torch.from_numpy(resample(video, most))
            if not again[k]:
                mask = store.audio_mask(rows[k])[: len(audio)]
                keep = np.pad(mask, (0, len(audio) - len(mask)), constant_values=True)
                own = slice(sound_start, sound_start + sound_length)
                self._audio[own] = torch.from_numpy(resample(audio, most, keep))
                self._sounds[own] = torch.from_numpy(resample(keep[:, None], most)[:, 0] > 0)

        with ThreadPoolExecutor() as pool:  # every bag has a place of its own
            list(pool.map(pack, range(len(bags))))
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
        """The bags at positions ``index (B,)`` int64 of ``rows``, on this set's device. T is the
        longest bag's length when ``settings.data.length_aware``, else ``max_snippets``. Keep
        ``index`` on the CPU: the length is then known without waiting for the device."""
        longest = self._host_lengths[index.cpu()].max() if self.length_aware else self.max_snippets
        index = index.to(self.device, non_blocking=True)
        video_start, lengths, audio_start, audio_lengths = self._spans[:, index]
        step = torch.arange(int(longest), device=self.device)

        def gathered(packed: Tensor, start: Tensor, length: Tensor) -> Tensor:
            return packed[torch.where(step < length[:, None], start[:, None] + step, -1)]

        sounds = gathered(self._sounds, audio_start, audio_lengths)
        return Batch(
            video=gathered(self._video, video_start, lengths).float(),
            audio=gathered(self._audio, audio_start, audio_lengths).float(),
            audio_mask=sounds & (step < lengths[:, None]),
            lengths=lengths,
            labels=self.labels[index],
            index=index,
        )


def shuffled_batches(bags: TrainingSet, size: int, generator: torch.Generator) -> list[Tensor]:
    """Shuffled positions of an epoch. Where batches are cut to their longest bag, each pool of
    ``POOL`` batches is sorted by length before it is cut, so that little padding is computed; then
    the batches are shuffled."""
    order = torch.randperm(len(bags), generator=generator)
    if not bags.length_aware:
        return list(order.split(size))
    lengths = bags.lengths.cpu()
    pools = [pool[lengths[pool].argsort(stable=True)] for pool in order.split(POOL * size)]
    batches = list(torch.cat(pools).split(size))
    return [batches[i] for i in torch.randperm(len(batches), generator=generator)]


def holdout_split(
    store: FeatureStore, rows: Indices, share: float, seed: int
) -> tuple[Array, Array]:
    """(kept, held out): a seeded share of the *films* set aside, so that no clip of a film that is
    trained on is judged. Stratified by weak label: films are sorted by the labels of their clips,
    shuffled within equal ones, and picked at equal steps. Films of normal clips alone and others
    are picked apart, each at least once where there are two or more. Row order is kept."""
    rows = np.asarray(rows, dtype=np.int64)
    rng = np.random.default_rng(seed)
    films, film = np.unique(store.film_ids[rows], return_inverse=True)
    labels = np.zeros((len(films), len(store.classes)), np.float32)
    np.maximum.at(labels, film, store.labels(rows))
    labels[:, 0] = labels[:, 1:].sum(axis=1) == 0  # normal: all of its clips are
    shuffle = rng.permutation(len(films))
    keys = (np.bincount(film)[shuffle], *labels[shuffle].T[::-1])
    order = shuffle[np.lexsort(keys)]  # lexsort is stable
    held: list[Array] = []
    for normal in (True, False):
        group = order[(labels[order, 0] > 0) == normal]
        count = max(round(share * len(group)), int(share > 0 and len(group) > 1))
        steps = (np.arange(count) + rng.random()) * (len(group) / max(count, 1))
        held.append(group[np.floor(steps).astype(np.int64)])
    out = np.isin(film, np.concatenate(held))
    return rows[~out], rows[out]
