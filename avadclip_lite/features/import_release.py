"""Feature files in the release's layout become a feature store.

The release keeps one array (T, D) per file: CLIP features ``NAME__CROP.npy`` (crops 0 to 9), audio
features ``NAME.npy``, and CSV lists ``path,audio_path,label`` with paths on the authors' machines,
of which only the file names count here: the files may lie anywhere under the given folder. The
training list has ten crops of each video, the test list one.

What headers, lists and annotations can tell is checked before anything is written, the content of
the arrays while it is copied. An import that was interrupted goes on when it is run again.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from avadclip_lite import dataset
from avadclip_lite.config import CCTV_STRIDE, CLASS_SETS, CLIP_DIM, CROPS, XD_STRIDE, ClassSet
from avadclip_lite.dataset import FeatureStore, Segment, StoreError, events_of
from avadclip_lite.features import annotations as lists
from avadclip_lite.features.writer import StoreWriter, check_events, check_features, check_lengths

STRIDES = {"xd": XD_STRIDE, "cctv": CCTV_STRIDE}
_VIDEO_FILE = re.compile(r"(?P<name>.+)__(?P<crop>\d+)\.npy")
Events = dict[str, list[Segment]]  # by video
Odd = dict[str, list[str]]  # what is odd but can be read: names by what is odd about them


def import_layout(
    kind: str,
    features: str | Path,
    train: str | Path | None,
    test: str | Path | None,
    annotations: str | Path | Sequence[str | Path] | None,
    out: str | Path,
    *,
    dim: int = CLIP_DIM,
    encoder: str = "clip",
    allow_missing_audio: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> SimpleNamespace:
    """Make the feature store ``out`` from a folder in the release's layout: ``kind`` "xd"
    (XD-Violence, stride 16, seven classes) or "cctv" (CCTV-Fights, stride 4, two). One of the lists
    may be None; a test list needs ``annotations``, a file, or one of each form. An empty
    ``audio_path`` says that a video has no sound; with ``allow_missing_audio`` so does a listed
    file that is not there. Returns what was found and done, by name (see the end). Raises
    ``FileNotFoundError`` for files that are missing and ``ValueError`` for one that is wrong, which
    it names; nothing readable exists then."""
    if train is None and test is None:
        raise StoreError("nothing to import: give a training list, a test list, or both")
    if test is not None and not annotations:
        raise StoreError("a test list needs the annotation file that holds its truth")
    classes, stride, odd = CLASS_SETS[kind], STRIDES[kind], defaultdict(list)
    remarks, quiet = list[str](), None if progress else True  # None: away from a terminal
    events = lists.read_annotations(annotations or (), classes, remarks)
    root = Path(features)
    given = {split: path for split, path in (("train", train), ("test", test)) if path is not None}
    rows = _read_lists(given, root, allow_missing_audio, odd, remarks)
    rows["label"] = [_label(row, classes, odd) for row in rows.itertuples()]
    _check_rows(rows, odd)
    dtype = _read_headers(rows, dim, quiet)
    segments = _match_events(rows, events, classes, odd)
    for row in rows.itertuples():  # before anything is written
        check_events(segments.get(row.name, ()), classes, row.snippets, stride, row.video)
        if row.audio:
            check_lengths(row.snippets, row.audio_snippets, f"{row.video}, {row.audio}")
    told = rows[["name", "crop", "split", "label", "snippets", "audio_snippets"]].to_csv()
    about = {"classes": classes, "dim": dim, "stride": stride, "encoder": encoder, "dtype": dtype}
    about["inputs"] = hashlib.sha256(f"{told}{segments}".encode()).hexdigest()
    track = lru_cache(maxsize=1)(np.load)  # crops of a video follow one another
    with StoreWriter(out, **about, overwrite=overwrite) as writer:
        for row in tqdm(rows.itertuples(), "importing", len(rows), disable=quiet):
            if (row.name, row.crop) not in writer:
                own = {"name": row.name, "label": row.label, "split": row.split, "crop": row.crop}
                own["source"] = Path(row.video).relative_to(root).as_posix()
                own["segments"] = segments.get(row.name, ())
                own["audio"] = track(row.audio) if row.audio else None
                try:
                    writer.add(video=np.load(row.video), **own)
                except StoreError as error:
                    raise StoreError(f"{row.video}, {row.audio or 'no sound'}: {error}") from None
        store = FeatureStore.open(writer.finish())

    truth = store.frame_truth(store.indices("test") if test is not None else [])
    ends = {name: max(e[2] for e in events_of(own, coded=False)) for name, own in segments.items()}
    clipped = {row.name for row in store.videos if ends.get(row.name, 0) > row.frames}
    by_split, silent = rows.groupby("split", sort=False), rows.audio == ""
    return SimpleNamespace(
        path=store.path,
        rows=by_split.size().to_dict(),
        videos=by_split.name.nunique().to_dict(),
        snippets=int(store.snippets.sum()),
        frames=len(truth),
        anomalous_frames=int(truth.sum()),
        cut_rows=int((~silent & (rows.snippets != rows.audio_snippets)).sum()),  # to the shorter
        missing_audio=rows[silent].name.nunique(),  # videos
        clipped_videos=len(clipped),  # an annotation ran past the end by less than a stride
        resumed_rows=writer.resumed,  # already there from an interrupted import
        warnings=remarks + [f"{what} {lists.some(sorted(n))}" for what, n in odd.items() if n],
    )


def _index(root: Path) -> dict[str, list[str]]:
    """Every ``.npy`` file under a folder by its name."""
    if not root.is_dir():
        raise FileNotFoundError(f"feature folder {root} does not exist; check the path")
    found: dict[str, list[str]] = defaultdict(list)
    seen: set[str] = set()  # a folder reached through two links is one folder
    for folder, folders, files in os.walk(root, followlinks=True):
        if (real := os.path.realpath(folder)) in seen:
            files = folders[:] = []
        seen.add(real)
        folders[:] = [name for name in folders if not lists.is_hidden(name)]
        for file in files:
            found[lists.video_name(file)].append(os.path.join(folder, file))
    return found


def _read_lists(
    given: Mapping[str, str | Path], root: Path, silent_too: bool, odd: Odd, remarks: list[str]
) -> pd.DataFrame:
    """A row for each line of the lists, with the files under ``root`` that it names, "" for no
    audio: columns where, split, name, crop, listed (its label), video, audio."""
    layout = "a list needs the columns path,audio_path,label"
    columns = {"path": layout}
    if not silent_too:
        columns["audio_path"] = f"{layout}, or --allow-missing-audio to do without sound"
    files, rows, missing = _index(root), [], {}
    for split, path in given.items():
        lines = lists.read_table(path, columns, remarks)
        if not lines:
            raise StoreError(f"{path} lists no videos; {layout}")
        for where, line in lines:
            paths = line["path"], line.get("audio_path", "")
            file, track = (lists.video_name(path).rpartition("/")[-1] for path in paths)
            if lists.is_hidden(file):
                odd["left out as another system's files:"].append(file)
                continue
            if (match := _VIDEO_FILE.fullmatch(file)) is None:
                raise StoreError(f"{where}: {file!r} is no feature file of the form NAME__CROP.npy")
            row = {"where": where, "split": split, "name": lists.video_name(match["name"])}
            row |= {"crop": int(match["crop"]), "listed": line.get("label", "")}
            for kind, name in (("video", file), ("audio", track)):
                found = sorted(files.get(name, [""]))
                if len(found) > 1:
                    both = " and ".join(found[:2])
                    raise StoreError(f"{where}: {name} is there twice, {both}; remove one")
                row[kind] = found[0]
                if not found[0] and (kind == "video" or (name and not silent_too)):
                    missing.setdefault(name, where)
            rows.append(row)
    if missing:
        what = f"{next(iter(missing.values()))}: {lists.some(list(missing), 'listed file')}"
        remedy = "add what is missing, or take the lines out (--allow-missing-audio: no sound)"
        raise FileNotFoundError("; ".join([f"{what} nowhere under {root}", remedy, *remarks]))
    return pd.DataFrame(rows)


def _label(row: Any, classes: ClassSet, odd: Odd) -> str:
    """The weak label of a row; where name and label column contradict, the name decides."""
    try:
        listed = dataset.parse_codes(row.listed, classes) if row.listed else None
        named = dataset.LABEL_MARK in row.name
        codes = dataset.parse_label(row.name, classes) if named else listed
        if codes is None:
            raise ValueError(f"video {row.name!r} has a label neither in its name nor in the list")
    except ValueError as error:
        raise StoreError(f"{row.where}: {error}") from None
    if listed not in (None, codes):
        odd["the label column contradicts the name, which was taken, of"].append(row.name)
    return "-".join(codes)


def _check_rows(rows: pd.DataFrame, odd: Odd) -> None:
    """Contradictions between the lines: rows twice, crops that disagree, a leaked test video."""
    by_name, test = rows.groupby("name", sort=False), rows.split == "test"
    owners = rows.groupby("audio").name.transform("nunique")
    for wrong, text in (
        (rows.duplicated(["split", "name", "crop"], keep=False), "is listed twice with one crop"),
        (by_name.split.transform("nunique") > 1, "is on both lists, and must not be trained on"),
        (test & rows.duplicated(["split", "name"], keep=False), "has two crops on the test list"),
        (by_name.audio.transform("nunique") > 1, "has crops with different audio files"),
        ((rows.audio != "") & (owners > 1), "shares its audio file with another video"),
    ):
        if wrong.any():
            lines, name = ", ".join(rows["where"][wrong][:2]), rows.name[wrong].iloc[0]
            raise StoreError(f"{lines}: video {name!r} {text}; correct the list")
    crops = by_name.size()[rows.name[~test].unique()]
    odd[f"fewer or more than {CROPS} training crops of"] += list(crops.index[crops != CROPS])


def _read_headers(rows: pd.DataFrame, dim: int, quiet: bool | None) -> str:
    """Check every array's header and size, note lengths; the store's dtype is the widest found."""
    lengths, dtypes = {"": 0}, set()
    files = sorted({*rows.video, *rows.audio} - {""})
    for path in tqdm(files, desc="checking", unit="file", disable=quiet):
        try:
            array = np.load(path, mmap_mode="r")  # checks the size as well
        except (ValueError, EOFError) as error:
            what = f"{path} is cut short or not a readable .npy array of numbers"
            raise StoreError(f"{what} ({error!r}); download or extract it again") from None
        check_features(array, dim, f"{path}: features", content=False)
        lengths[path] = len(array)
        dtypes.add(array.dtype)
    rows["snippets"], rows["audio_snippets"] = rows.video.map(lengths), rows.audio.map(lengths)
    return "float16" if dtypes == {np.dtype("float16")} else "float32"


def _match_events(rows: pd.DataFrame, events: Events, classes: ClassSet, odd: Odd) -> Events:
    """Events of the listed videos; a class that the binary form leaves open is filled in where
    the video has one anomaly only."""
    labels = dict(zip(rows.name, rows.label, strict=True))
    names, unlisted = lists.match_names(events, labels)
    tests = set(rows.name[rows.split == "test"])
    if unlisted and tests and not names:
        what = f"no annotated video is on a list (the first is {unlisted[0]!r})"
        raise StoreError(f"{what}; these annotations belong to other data")
    matched = {name: events[annotated] for name, annotated in names.items()}
    for name, own in matched.items():
        anomalies = set(labels[name].split("-")) - {classes.codes[0]}
        found = {code for code, _, _ in own} - {None}
        if not anomalies or found - anomalies:
            text = f"{name} ({'-'.join(sorted(found)) or 'an event'} annotated)"
            odd["annotations contradict the label of"].append(text)
        elif not found and len(anomalies) > 1:
            odd["events without a class in multi-label videos, left out of mAP:"].append(name)
        elif not found:
            matched[name] = [(*anomalies, start, end) for _, start, end in own]
    odd["annotated but not listed, left out:"] += unlisted
    calm = {name for name in tests - matched.keys() if labels[name] != classes.codes[0]}
    odd["anomalous test videos without annotation, taken as normal throughout:"] += calm
    return matched


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``python -m avadclip_lite import``."""
    add = parser.add_argument
    add("kind", choices=STRIDES, help="layout and classes: XD-Violence, CCTV")
    add("--features", required=True, help="folder with the feature files, searched in depth")
    add("--train", help="training list, CSV path,audio_path,label")
    add("--test", help="test list, CSV path,audio_path,label")
    text = "of the test videos: a file in either form, or one of each, for frame truth and classes"
    add("--annotations", nargs="+", help=text)
    add("--out", required=True, help="feature store to make")
    add("--dim", type=int, default=CLIP_DIM, help="feature width (%(default)s)")
    add("--encoder", default="clip", choices=("clip", "random"), help="text tower of trainings")
    add("--allow-missing-audio", action="store_true", help="a missing audio file means no sound")
    add("--overwrite", action="store_true", help="replace a store at --out")


def main(args: argparse.Namespace) -> int:
    """Import and print what was found and done; raises what ``import_layout`` raises."""
    report = vars(import_layout(**vars(args)))
    warnings = [f"warning: {text}" for text in report.pop("warnings")]
    facts = (f"{name.replace('_', ' ')}: {value}" for name, value in report.items())
    print(*facts, *warnings, sep="\n")
    return 0
