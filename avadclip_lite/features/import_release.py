"""Importers: feature files in the release's layout become a feature store.

The release keeps one array (T, D) per file: CLIP features ``NAME__CROP.npy`` (crops 0 to 9),
audio features ``NAME.npy``, and CSV lists ``path,audio_path,label`` whose absolute paths are from
the authors' machines. Only the file names of those paths count here; they are looked up anywhere
under the given folder. The training list has ten crops of each video, the test list one.

Everything that headers, lists and annotations can tell is checked before anything is written;
the content of the arrays is checked while it is copied. An import that was interrupted goes on
where it stopped when it is run again.

    python -m avadclip_lite import xd --features ROOT --train CSV --test CSV \\
        --annotations annotations.txt annotations_multiclasses.txt --out STORE
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from avadclip_lite.config import (
    CCTV_CLASSES,
    CCTV_STRIDE,
    CLIP_DIM,
    CROPS,
    XD_CLASSES,
    XD_STRIDE,
    ClassSet,
)
from avadclip_lite.dataset import (
    FeatureStore,
    Segment,
    StoreError,
    class_events,
    clip_segments,
    has_label,
    parse_codes,
    parse_label,
    truth_events,
)
from avadclip_lite.features.annotations import read_annotations
from avadclip_lite.features.writer import StoreWriter

__all__ = [
    "ImportReport",
    "LAYOUTS",
    "add_arguments",
    "import_cctv",
    "import_layout",
    "import_xd",
    "main",
]

LAYOUTS: dict[str, tuple[ClassSet, int]] = {
    "xd": (XD_CLASSES, XD_STRIDE),
    "cctv": (CCTV_CLASSES, CCTV_STRIDE),
}

Annotations = str | Path | Sequence[str | Path] | None

_VIDEO_FILE = re.compile(r"(?P<name>.+)__(?P<crop>\d+)\.npy")
_SEPARATORS = re.compile(r"[/\\]")  # lists may come from either kind of machine


@dataclass(kw_only=True)
class ImportReport:
    """What an import found and did; ``str()`` is the summary that the command prints."""

    path: Path
    data_set: str
    rows: dict[str, int]  # per split
    videos: dict[str, int]  # per split
    snippets: int  # of all rows
    frames: int  # of the test videos
    anomalous_frames: int  # of the test videos
    cut_rows: int  # video and audio one snippet apart, cut to the shorter
    missing_audio: int  # videos
    clipped_videos: int  # an annotation ran past the end by less than a stride
    resumed_rows: int  # already there from an interrupted import
    bytes: int
    seconds: float
    warnings: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        splits = ", ".join(
            f"{self.videos[split]:,} {split} videos ({self.rows[split]:,} rows)"
            for split in self.rows
        )
        lines = [
            f"{self.data_set}: {splits}, {self.snippets:,} snippets, "
            f"{self.bytes / 1e6:,.1f} MB in {self.path}, {self.seconds:.1f} s",
            f"test truth: {self.anomalous_frames:,} anomalous of {self.frames:,} frames; "
            f"annotations clipped in {self.clipped_videos} videos",
            f"rows cut to the shorter of video and audio: {self.cut_rows}; "
            f"videos without audio: {self.missing_audio}; rows kept from an interrupted import: "
            f"{self.resumed_rows}",
        ]
        return "\n".join([*lines, *(f"warning: {text}" for text in self.warnings)])


@dataclass(kw_only=True)
class _Item:
    """One line of a list, resolved."""

    name: str
    crop: int
    split: str
    codes: tuple[str, ...]
    video: Path
    audio: Path | None
    where: str  # list and line, for messages
    snippets: int = 0  # of the video features
    audio_snippets: int = 0


def import_xd(
    features_root: str | Path,
    train_list: str | Path | None,
    test_list: str | Path | None,
    annotations: Annotations,
    out: str | Path,
    **options: object,
) -> ImportReport:
    """Import XD-Violence features (stride 16, seven classes); see ``import_layout``."""
    return import_layout("xd", features_root, train_list, test_list, annotations, out, **options)


def import_cctv(
    features_root: str | Path,
    train_list: str | Path | None,
    test_list: str | Path | None,
    annotations: Annotations,
    out: str | Path,
    **options: object,
) -> ImportReport:
    """Import CCTV-Fights features (stride 4, two classes); see ``import_layout``."""
    return import_layout("cctv", features_root, train_list, test_list, annotations, out, **options)


def import_layout(
    kind: str,
    features_root: str | Path,
    train_list: str | Path | None,
    test_list: str | Path | None,
    annotations: Annotations,
    out: str | Path,
    *,
    audio_root: str | Path | None = None,
    dim: int = CLIP_DIM,
    encoder: str = "clip",
    allow_missing_audio: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> ImportReport:
    """Make the feature store ``out`` from a folder in the release's layout.

    ``kind`` "xd" or "cctv"; ``features_root`` holds the feature files, in any subfolders;
    ``audio_root`` the audio files, if they are elsewhere. Either list may be None. A test list
    needs annotations: one file, or one of each form, of which the binary one then gives the frame
    truth and the other the events by class, as in the release. An empty ``audio_path`` says that
    a video has no sound; with ``allow_missing_audio`` so does a listed audio file that is not
    there.

    Raises ``FileNotFoundError`` for a file that is missing and ``ValueError`` for one that is
    wrong, in one sentence that names it and the remedy. Until then nothing readable exists.
    """
    started = time.perf_counter()
    if kind not in LAYOUTS:
        raise StoreError(f"unknown layout {kind!r}; choose from {', '.join(LAYOUTS)}")
    classes, stride = LAYOUTS[kind]
    lists = {"train": train_list, "test": test_list}
    if all(path is None for path in lists.values()):
        raise StoreError("nothing to import: give a training list, a test list, or both")
    if annotations is None:
        annotations = ()
    elif isinstance(annotations, (str, Path)):
        annotations = (annotations,)
    if test_list is not None and not annotations:
        raise StoreError("a test list needs the annotation file that holds its truth")

    warnings: list[str] = []
    events = _read_events(annotations, classes, warnings)
    video_files = _FileIndex(Path(features_root))
    audio_files = _FileIndex(Path(audio_root)) if audio_root is not None else video_files
    items: list[_Item] = []
    for split, path in lists.items():
        if path is not None:
            items += _read_list(
                Path(path), split, classes, video_files, audio_files, allow_missing_audio, warnings
            )
    _check_items(items, warnings)
    dtype = _read_headers(items, dim, progress)
    segments = _match_events(items, events, classes, warnings)
    clipped = _check_events(items, segments, stride)

    with StoreWriter(
        out,
        classes=classes,
        dim=dim,
        stride=stride,
        encoder=encoder,
        dtype=dtype,
        inputs=_fingerprint(items, segments),
        overwrite=overwrite,
    ) as writer:
        _copy(items, segments, writer, Path(features_root), progress)
        resumed = writer.resumed
        path = writer.finish()

    store = FeatureStore.open(path)
    test = store.indices("test") if test_list is not None else np.zeros(0, np.int64)
    truth = store.frame_truth(test)
    splits = [split for split, given in lists.items() if given is not None]
    return ImportReport(
        path=path,
        data_set=classes.name,
        rows={split: sum(i.split == split for i in items) for split in splits},
        videos={split: len({i.name for i in items if i.split == split}) for split in splits},
        snippets=int(store.snippets.sum()),
        frames=len(truth),
        anomalous_frames=int(truth.sum()),
        cut_rows=sum(i.audio is not None and i.snippets != i.audio_snippets for i in items),
        missing_audio=len({i.name for i in items if i.audio is None}),
        clipped_videos=clipped,
        resumed_rows=resumed,
        bytes=sum(file.stat().st_size for file in path.iterdir() if file.is_file()),
        seconds=time.perf_counter() - started,
        warnings=warnings,
    )


# ---------------------------------------------------------------------------- lists and files


class _FileIndex:
    """Every ``.npy`` file under a folder by its name, found once."""

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise FileNotFoundError(f"feature folder {root} does not exist")
        self.root = root
        self._found: dict[str, str] = {}
        self._second: dict[str, str] = {}
        seen: set[str] = set()  # a folder reached through two links is one folder
        for folder, folders, files in os.walk(root, followlinks=True):
            real = os.path.realpath(folder)
            if real in seen:
                folders.clear()
                continue
            seen.add(real)
            for file in files:
                if file.endswith(".npy"):
                    known = self._found.setdefault(file, folder)
                    if known != folder:
                        self._second[file] = folder

    def find(self, file: str, where: str) -> Path | None:
        """The file of that name, None if there is none; ``StoreError`` if there are two."""
        if file in self._second:
            both = sorted(str(Path(f, file)) for f in (self._found[file], self._second[file]))
            raise StoreError(
                f"{where}: {file} is there twice, {both[0]} and {both[1]}; remove one, or give a "
                "narrower folder"
            )
        folder = self._found.get(file)
        return None if folder is None else Path(folder, file)


def _read_list(
    path: Path,
    split: str,
    classes: ClassSet,
    video_files: _FileIndex,
    audio_files: _FileIndex,
    allow_missing_audio: bool,
    warnings: list[str],
) -> list[_Item]:
    if not path.is_file():
        raise FileNotFoundError(f"{split} list {path} does not exist")
    items, contradicting = [], []
    with open(path, newline="", encoding="utf-8-sig") as file:
        table = csv.DictReader(file, restkey="")
        if "path" not in (table.fieldnames or ()):
            raise StoreError(
                f"{path} has no column 'path'; a list needs the columns path,audio_path,label"
            )
        if "audio_path" not in table.fieldnames and not allow_missing_audio:
            raise StoreError(
                f"{path} has no column 'audio_path'; add it, or allow missing audio to import "
                "video alone"
            )
        for line in table:
            where = f"{path}, line {table.line_num}"
            if "" in line or line["path"] is None:
                raise StoreError(f"{where}: wrong number of cells; quote names that hold a comma")
            file_name = _SEPARATORS.split(line["path"].strip())[-1]
            match = _VIDEO_FILE.fullmatch(file_name)
            if match is None:
                raise StoreError(
                    f"{where}: {file_name!r} is not a feature file name of the form NAME__CROP.npy"
                )
            video = video_files.find(file_name, where)
            if video is None:
                raise FileNotFoundError(
                    f"{where}: {file_name} is nowhere under {video_files.root}; "
                    "add the file or take the line out"
                )
            audio = _find_audio(line.get("audio_path"), audio_files, allow_missing_audio, where)
            codes, agrees = _codes(match["name"], line.get("label"), classes, where)
            if not agrees:
                contradicting.append(match["name"])
            items.append(
                _Item(
                    name=match["name"],
                    crop=int(match["crop"]),
                    split=split,
                    codes=codes,
                    video=video,
                    audio=audio,
                    where=where,
                )
            )
    if not items:
        raise StoreError(f"{path} lists no videos")
    if contradicting:
        warnings.append(
            f"{path}: the label column contradicts the name of {_some(contradicting)}; "
            "the name was taken"
        )
    return items


def _find_audio(
    listed: str | None, audio_files: _FileIndex, allow_missing: bool, where: str
) -> Path | None:
    if not (listed or "").strip():
        return None
    file_name = _SEPARATORS.split(listed.strip())[-1]
    audio = audio_files.find(file_name, where)
    if audio is None and not allow_missing:
        raise FileNotFoundError(
            f"{where}: audio file {file_name} is nowhere under {audio_files.root}; add it, or "
            "allow missing audio"
        )
    return audio


def _codes(
    name: str, label: str | None, classes: ClassSet, where: str
) -> tuple[tuple[str, ...], bool]:
    """The weak label of a line, and whether name and label column agree. The name decides."""
    try:
        named = parse_label(name, classes) if has_label(name) else None
        listed = parse_codes(label.strip(), classes) if label and label.strip() else None
        if named is not None:
            return named, listed in (None, named)
        if listed is None:
            raise StoreError(f"video {name!r} has a label neither in its name nor in the list")
        return listed, True
    except ValueError as error:
        raise StoreError(f"{where}: {error}") from None


def _check_items(items: Iterable[_Item], warnings: list[str]) -> None:
    """Contradictions between the lines: rows twice, crops that disagree, a leaked test video."""
    seen: dict[tuple[str, int], _Item] = {}
    first: dict[str, _Item] = {}
    for item in items:
        other = seen.setdefault((item.name, item.crop), item)
        if other is not item and other.split == item.split:
            raise StoreError(f"{item.where}: {item.video.name} was listed before ({other.where})")
        other = first.setdefault(item.name, item)
        if other.split != item.split:
            raise StoreError(
                f"{item.where}: video {item.name!r} is on the training list too ({other.where}); "
                "a test video must not be trained on"
            )
        if other is not item and item.split == "test":
            raise StoreError(
                f"{item.where}: video {item.name!r} has two crops on the test list "
                f"({other.where}); keep one"
            )
        if other.audio != item.audio:
            raise StoreError(
                f"{item.where}: video {item.name!r} has another audio file than in {other.where}; "
                "all crops share one"
            )
    crops = Counter(item.name for item in items if item.split == "train")
    incomplete = [name for name, count in crops.items() if count != CROPS]
    if incomplete:
        warnings.append(f"fewer or more than {CROPS} training crops of {_some(incomplete)}")
    owner: dict[Path, str] = {}
    for item in first.values():
        if item.audio is not None and owner.setdefault(item.audio, item.name) != item.name:
            raise StoreError(
                f"{item.where}: audio file {item.audio.name} already belongs to video "
                f"{owner[item.audio]!r}; correct the list"
            )


def _read_headers(items: list[_Item], dim: int, progress: bool) -> str:
    """Check every array's header and size, note lengths; the store's dtype is the widest found."""
    audio_rows: dict[Path, int] = {}
    kinds: set[np.dtype] = set()
    for item in tqdm(items, desc="checking", unit="file", disable=not progress, file=sys.stderr):
        item.snippets, dtype = _header(item.video, dim)
        kinds.add(dtype)
        if item.audio is None:
            continue
        if item.audio not in audio_rows:
            audio_rows[item.audio], dtype = _header(item.audio, dim)
            kinds.add(dtype)
        item.audio_snippets = audio_rows[item.audio]
        if abs(item.snippets - item.audio_snippets) > 1:
            raise StoreError(
                f"{item.video} has {item.snippets} snippets and its audio {item.audio} "
                f"{item.audio_snippets}, more than one apart; extract both from the same file "
                "again"
            )
    return "float16" if kinds == {np.dtype("float16")} else "float32"


def _header(path: Path, dim: int) -> tuple[int, np.dtype]:
    """Snippets and dtype of a feature file, from its header and its size alone."""
    again = "download or extract it again"
    try:
        with open(path, "rb") as file:
            version = np.lib.format.read_magic(file)
            if version == (1, 0):
                shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            elif version == (2, 0):
                shape, _, dtype = np.lib.format.read_array_header_2_0(file)
            else:
                raise ValueError(f"format version {version}")
            promised = file.tell() + int(np.prod(shape, dtype=object)) * dtype.itemsize
            actual = os.fstat(file.fileno()).st_size
    except (ValueError, EOFError) as error:
        text = " ".join(str(error).split())
        raise StoreError(f"{path} is not a readable .npy array ({text}); {again}") from None
    if dtype.hasobject:
        raise StoreError(
            f"{path} holds Python objects (pickle), which are never loaded; save it again as a "
            "plain float array"
        )
    if dtype.kind != "f":
        raise StoreError(f"{path} holds {dtype}, not floating-point features; {again}")
    if len(shape) != 2:
        raise StoreError(f"{path} has shape {shape}, expected (snippets, {dim}); {again}")
    if shape[0] == 0:
        raise StoreError(f"{path} has zero snippets; take the video out of the list")
    if shape[1] != dim:
        raise StoreError(f"{path} is {shape[1]} wide, expected {dim}; extract it again, or set dim")
    if actual < promised:
        raise StoreError(f"{path} is cut short, {actual} of {promised} bytes; {again}")
    return shape[0], dtype


# ---------------------------------------------------------------------------- annotations


def _read_events(
    paths: Iterable[str | Path], classes: ClassSet, warnings: list[str]
) -> dict[str, list[Segment]]:
    """All events by video, from one annotation file or one of each form."""
    events: dict[str, list[Segment]] = {}
    for path in paths:
        for name, own in read_annotations(path, classes).items():
            before = events.setdefault(name, [])
            if before and (before[0][0] is None) == (own[0][0] is None):
                raise StoreError(
                    f"{path}: video {name!r} is annotated in the same form in another file; give "
                    "one file of each form"
                )
            before += own
    differ = [
        name
        for name, own in events.items()
        if _covered(truth_events(own)) != _covered(class_events(own))
    ]
    if differ:
        warnings.append(
            f"the two forms of annotation cover other frames in {_some(differ)}; the binary one "
            "gives the frame truth"
        )
    return events


def _covered(events: Iterable[Segment]) -> set[int]:
    return {frame for _, start, end in events for frame in range(start, end)}


def _match_events(
    items: Iterable[_Item],
    events: Mapping[str, list[Segment]],
    classes: ClassSet,
    warnings: list[str],
) -> dict[str, list[Segment]]:
    """Events of the listed videos; a class that the binary form leaves open is filled in where
    the video has one anomaly only. What looks wrong but can be read is warned of."""
    codes = {item.name: item.codes for item in items}
    tests = {item.name for item in items if item.split == "test"}
    matched: dict[str, list[Segment]] = {}
    contradicting, open_class = [], []
    for name in codes.keys() & events.keys():
        anomalies = [code for code in codes[name] if classes.index(code) > 0]
        matched[name] = events[name]
        if len(anomalies) == 1 and all(code is None for code, _, _ in events[name]):
            matched[name] = [(anomalies[0], start, end) for _, start, end in events[name]]
        found = {code for code, _, _ in events[name] if code is not None}
        if not anomalies or found - set(anomalies):
            odd = "-".join(sorted(found)) or "an event"
            contradicting.append(f"{name} ({odd} annotated, {'-'.join(codes[name])} by its name)")
        elif all(code is None for code, _, _ in matched[name]):
            open_class.append(name)
    unlisted = [name for name in events if name not in codes]
    bare = [n for n in tests if codes[n] != (classes.codes[0],) and n not in events]
    if events and tests and not matched:
        raise StoreError(
            f"no annotated video is on a list (the first is {unlisted[0]!r}); these annotations "
            "belong to other data"
        )
    for found, text in (
        (contradicting, "annotations contradict the label of {}"),
        (open_class, "events without a class in multi-label videos, left out of mAP: {}"),
        (unlisted, "annotated but not listed, left out: {}"),
        (bare, "anomalous test videos without annotation, taken as normal throughout: {}"),
    ):
        if found:
            warnings.append(text.format(_some(sorted(found))))
    return matched


def _check_events(
    items: Iterable[_Item],
    segments: Mapping[str, list[Segment]],
    stride: int,
) -> int:
    """Refuse events a stride or more beyond their video; the number of videos whose truth is to
    be clipped."""
    clipped = set()
    for item in items:
        own = segments.get(item.name, [])
        frames = item.snippets * stride
        last = max((end for _, _, end in own), default=0)
        if last >= frames + stride:
            raise StoreError(
                f"{item.video} has {frames} frames and is annotated up to frame {last}, a stride "
                f"of {stride} or more beyond them; annotations and features do not belong together"
            )
        shared = min(item.snippets, item.audio_snippets) if item.audio else item.snippets
        truth = truth_events(own)
        if clip_segments(truth, shared * stride) != truth:
            clipped.add(item.name)
    return len(clipped)


# ---------------------------------------------------------------------------- copying


def _copy(
    items: list[_Item],
    segments: Mapping[str, list[Segment]],
    writer: StoreWriter,
    root: Path,
    progress: bool,
) -> None:
    stored = {item.name for item in items if (item.name, item.crop) in writer}
    bar = tqdm(items, desc="importing", unit="row", disable=not progress, file=sys.stderr)
    for item in bar:
        if (item.name, item.crop) in writer:
            continue
        audio = None
        if item.audio is not None:
            audio = "shared" if item.name in stored else _load(item.audio)
        writer.add(
            name=item.name,
            label=item.codes,
            split=item.split,
            crop=item.crop,
            video=_load(item.video),
            audio=audio,
            segments=segments.get(item.name, ()),
            source=item.video.relative_to(root).as_posix(),
        )
        stored.add(item.name)


def _load(path: Path) -> np.ndarray:
    array = np.load(path, allow_pickle=False)
    finite = np.isfinite(array).all(axis=1)
    if not finite.all():
        raise StoreError(
            f"{path} holds NaN or infinity, first in snippet {int(np.argmin(finite))}; extract it "
            "again, and the import goes on from there"
        )
    return array


def _fingerprint(items: Iterable[_Item], segments: Mapping[str, list[Segment]]) -> str:
    """Identifies the lists, lengths and annotations of an import, so that an interrupted one is
    not continued with others."""
    digest = hashlib.sha256()
    for item in items:
        key = (item.name, item.crop, item.split, item.codes, item.snippets, item.audio_snippets)
        digest.update(repr((key, segments.get(item.name))).encode())
    return digest.hexdigest()


def _some(names: list[str], shown: int = 3) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return f"{len(names)} video{'s' * (len(names) != 1)}: {', '.join(names[:shown])}{more}"


# ---------------------------------------------------------------------------- command line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``python -m avadclip_lite import``."""
    parser.add_argument("kind", choices=LAYOUTS, help="layout and classes: XD-Violence, CCTV")
    parser.add_argument("--features", required=True, help="folder with the feature files")
    parser.add_argument("--audio", help="folder with the audio features, if another")
    parser.add_argument("--train", help="training list, CSV path,audio_path,label")
    parser.add_argument("--test", help="test list, CSV path,audio_path,label")
    parser.add_argument(
        "--annotations",
        nargs="+",
        help="annotations of the test videos in either form, or a file of each: then the binary "
        "form gives the frame truth, the other the events by class",
    )
    parser.add_argument("--out", required=True, help="feature store to make")
    parser.add_argument("--dim", type=int, default=CLIP_DIM, help="feature width (%(default)s)")
    parser.add_argument(
        "--encoder",
        default="clip",
        choices=("clip", "random"),
        help="text tower that belongs to the features; random needs no download, but then class "
        "words mean nothing (%(default)s)",
    )
    parser.add_argument(
        "--allow-missing-audio", action="store_true", help="a missing audio file means no sound"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a store at --out")


def main(args: argparse.Namespace) -> int:
    """Run an import and print its report; raises what ``import_layout`` raises."""
    report = import_layout(
        args.kind,
        args.features,
        args.train,
        args.test,
        args.annotations,
        args.out,
        audio_root=args.audio,
        dim=args.dim,
        encoder=args.encoder,
        allow_missing_audio=args.allow_missing_audio,
        overwrite=args.overwrite,
    )
    print(report)
    return 0
