"""Bad inputs as people have them, and the sentence that each gets: a Markdown table.

    python tests/benchmarks/bad_inputs.py [--only WORD]

Each input is made beside a small store, a trained detector, two videos and a folder in the
release's layout, and given to the command in a process of its own. Right is: one sentence, on
stderr (or, where the fault is one file's of a batch, in its line on stdout), that names the file or
the value and what to do; an exit status that is not 0; no traceback; and not a file or folder that
was not there before. Exits 1 if one is not so. Half a minute.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import re
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from clips import write_clip  # noqa: E402

from avadclip_lite.__main__ import main as command  # noqa: E402
from avadclip_lite.baselines import SYSTEMS  # noqa: E402, F401  as every command imports them
from avadclip_lite.video.folder import extract_folder  # noqa: E402


@dataclass(frozen=True)
class Case:
    """A bad input: what it is, the command's words, what the sentence must hold, and what makes
    it in the folder that the command runs in."""

    what: str
    words: str
    holds: tuple[str, ...]
    make: Callable[[], Any] = lambda: None
    in_line: bool = False  # one file of a batch, told on stdout


def _cut(path: str, keep: int) -> Callable[[], Any]:
    return lambda: os.truncate(path, keep)


def _write(path: str, content: str | bytes) -> Callable[[], Any]:
    def write() -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        data = content.encode() if isinstance(content, str) else content
        Path(path).write_bytes(data)

    return write


def _save(path: str, array: np.ndarray) -> Callable[[], Any]:
    return lambda: np.save(path, array)


def _edit(path: str, old: str, new: str) -> Callable[[], Any]:
    def edit() -> None:
        text = Path(path).read_text(encoding="utf-8")
        assert old in text, (path, old)
        Path(path).write_text(text.replace(old, new), encoding="utf-8")

    return edit


def _all(*makers: Callable[[], Any]) -> Callable[[], Any]:
    return lambda: [make() for make in makers]


def _move(old: str, new: str) -> Callable[[], Any]:
    return lambda: shutil.move(old, new)


NAN = np.array([0.1, np.nan, 0.2], np.float32)
XLSX = b"PK\x03\x04\x14\x00\x06\x00\x08\x00\x00\x00!\x00\x81\x8d\x9d" + bytes(range(256))
EXTRACT, TRAIN = "extract videos --out new", "train --data store --out new"
IMPORT = "import xd --features release --train train.csv --out new"
TEST = f"{IMPORT} --test test.csv --annotations events.txt"
SCORE, EVALUATE = "score videos --out new --model run", "evaluate --scores scores --annotations"

CASES = [
    # videos to a store
    Case("a folder that is not there", "extract vidoes --out new", ("vidoes", "no folder")),
    Case(
        "a folder without videos",
        "extract empty --out new",
        ("empty", ".mp4"),
        lambda: Path("empty").mkdir(),
    ),
    Case(
        "labels without header",
        f"{EXTRACT} --labels labels.csv",
        ("labels.csv", "name,label"),
        _write("labels.csv", "a,G\nb,A\n"),
    ),
    Case(
        "an unknown class among the labels",
        f"{EXTRACT} --labels labels.csv",
        ("labels.csv, line 2", "B3", "B1"),
        _write("labels.csv", "name,label\na,B3\n"),
    ),
    Case("a folder for labels", f"{EXTRACT} --labels videos", ("videos", "folder")),
    Case(
        "labels as a spreadsheet's own file",
        f"{EXTRACT} --labels labels.xlsx",
        ("labels.xlsx", "save it"),
        _write("labels.xlsx", XLSX),
    ),
    Case(
        "annotations that end before they start",
        f"{EXTRACT} --annotations events.txt",
        ("events.txt, line 1", "40 20"),
        _write("events.txt", "a_label_G 40 20\n"),
    ),
    Case(
        "a store in the way, of other choices",
        "extract videos --out store --stride 8",
        ("store", "stride", "choose another --out"),
    ),
    Case(
        "a file where a store shall be", "extract videos --out events.txt", ("events.txt", "file")
    ),
    Case(
        "a store below a file",
        "extract videos --out events.txt/new",
        ("events.txt/new", "choose another"),
    ),
    Case("a place that may not be written", f"extract videos --out {'/proc'}/new", ("/proc/new",)),
    Case("a name that is too long", f"extract videos --out {'n' * 300}", ("nnn", "choose another")),
    Case(
        "damaged weights of encoders",
        f"{EXTRACT} --weights weights",
        ("weights",),
        _write("weights/encoders.safetensors", "no weights"),
    ),
    Case(
        "the videos' own folder for the store",
        "extract videos --out videos",
        ("videos holds other things", "a_label_G.mp4", "new folder"),
    ),
    Case(
        "labels with a column twice",
        f"{EXTRACT} --labels labels.csv",
        ("labels.csv", "two columns 'name'", "name,label"),
        _write("labels.csv", "name,name,label\na,b,G\n"),
    ),
    Case("a device that is not here", f"{EXTRACT} --device mps", ("mps", "cpu")),
    Case("a number that is none", f"{EXTRACT} --stride many", ("--stride", "many")),
    # videos to scores
    Case(
        "a folder without a detector", "score videos --out new --model videos", ("videos", "train")
    ),
    Case(
        "a checkpoint of the authors",
        "score videos --out new --model m.pth",
        ("m.pth", "import-checkpoint"),
        _write("m.pth", "PK"),
    ),
    Case(
        "weights cut short",
        SCORE,
        ("run/state.safetensors", "train"),  # which alone counts where it is
        _cut("run/state.safetensors", 5000),
    ),
    Case("a damaged config", SCORE, ("run/config.json", "train"), _cut("run/config.json", 300)),
    Case("a threshold that is no confidence", f"{SCORE} --threshold 5", ("threshold", "5.0", "0")),
    Case(
        "a damaged file of thresholds",
        SCORE,
        ("run/thresholds.json", "delete"),
        _write("run/thresholds.json", "{}"),
    ),
    Case("a misspelt option", f"{SCORE} --treshold 0.5", ("--treshold", "--help")),
    Case("no video to score", "score store --out new --model run", ("store", "no video")),
    Case(
        "a pipe for a video",
        "score pipe.mp4 --out new --model run",
        ("pipe.mp4", "save"),
        _all(lambda: os.mkfifo("pipe.mp4"), lambda: Path("new").mkdir()),
        in_line=True,
    ),
    Case(
        "a text that is called a video",
        "score notes.mp4 --out new --model run",
        ("notes.mp4",),
        _all(_write("notes.mp4", "no video"), lambda: Path("new").mkdir()),
        in_line=True,
    ),
    Case(
        "a video that is not there",
        "score gone.mp4 --out new --model run",
        ("gone.mp4", "check the path"),
        lambda: Path("new").mkdir(),
        in_line=True,
    ),
    # released features to a store
    Case(
        "no folder of features",
        IMPORT.replace("release", "relaese"),
        ("relaese", "exist"),
    ),
    Case(
        "a listed file that is not there",
        IMPORT,
        ("train.csv, line 2", "one_label_G__0.npy", "add"),
        lambda: os.remove("release/one_label_G__0.npy"),
    ),
    Case(
        "features cut short",
        IMPORT,
        ("one_label_G__0.npy", "again"),
        _cut("release/one_label_G__0.npy", 3000),
    ),
    Case(
        "features of another width",
        IMPORT,
        ("one_label_G__0.npy", "512", "768"),
        _save("release/one_label_G__0.npy", np.ones((3, 768), np.float32)),
    ),
    Case(
        "features that are not finite",
        IMPORT,
        ("one_label_G__0.npy", "NaN", "again"),
        _save("release/one_label_G__0.npy", np.full((3, 512), np.nan, np.float32)),
    ),
    Case(
        "another tool's list",
        IMPORT,
        ("train.csv", "audio_path", "--allow-missing-audio"),
        _write("train.csv", "path,label\none_label_G__0.npy,G\n"),
    ),
    Case(
        "a test list without its truth",
        f"{IMPORT} --test test.csv",
        ("test list", "annotation file"),
    ),
    Case(
        "annotations of other data",
        TEST,
        ("nobody_label_G", "other data"),
        _write("events.txt", "nobody_label_G 0 20\n"),
    ),
    Case(
        "an event beyond its video",
        TEST,
        ("two_label_G", "900"),
        _write("events.txt", "two_label_G 0 900\n"),
    ),
    Case("another width asked for", f"{IMPORT} --dim 64", ("one_label_G", "64", "set dim")),
    Case("a store in the way", IMPORT.replace("new", "store"), ("store", "choose another")),
    Case(
        "a store among the feature files",
        IMPORT.replace("new", "release"),
        ("release holds other things", "one_label_G", "new folder"),
    ),
    Case(
        "an empty list",
        IMPORT,
        ("train.csv", "no column 'path'", "path,audio_path,label"),
        _write("train.csv", ""),
    ),
    Case(
        "one list for both splits",
        f"{TEST} --test train.csv",
        ("train.csv, line 2", "both lists", "correct"),
    ),
    # training
    Case("no store", "train --data stroe --out new", ("stroe", "import")),
    Case(
        "a store that is half-written",
        TRAIN,
        ("store", "half-written", "again"),
        _move("store", "store.partial"),
    ),
    Case(
        "a store cut short",
        TRAIN,
        ("store is damaged", "video.npy", "again"),
        _cut("store/video.npy", 400),
    ),
    Case(
        "a store whose table lacks a column",
        TRAIN,
        ("store", "damaged"),
        _edit("store/manifest.csv", "split", "spilt"),
    ),
    Case("an unknown field", f"{TRAIN} -s epoch 3", ("'epoch'", "epochs")),
    Case("options of another system", f'{TRAIN} -s options {{"top":3}}', ("avadclip", "'top'")),
    Case("options that are none", f"{TRAIN} -s options 5", ("options", "5", "dict")),
    Case("a field given twice", f"{TRAIN} -s epochs 1 -s epochs 2", ("'epochs'", "keep one")),
    Case("a store for a run", "train --data store --out store", ("store holds", "new folder")),
    Case("this folder for a store", "train --data . --out new", ("at .", "meta.json", "import")),
    Case("a field of another type", f"{TRAIN} -s epochs few", ("epochs", "'few'", "whole number")),
    Case(
        "a field as an option, too", f"{TRAIN} --role vision -s role audio", ("'role'", "keep one")
    ),
    Case("a role for an earlier system", f"{TRAIN} -s detector rtfm --role vision", ("'role'",)),
    Case("a number for a list", f"{TRAIN} -s milestones 3", ("milestones", "list", "got 3")),
    Case("a form that there is not", f"{TRAIN} -s form old", ("form", "'old'", "released")),
    Case("a student without teacher", f"{TRAIN} --role vision", ("--teacher",)),
    Case("a teacher that is not there", f"{TRAIN} --role vision --teacher none", ("none",)),
    Case(
        "another training in the way",
        "train --data store --out run -s epochs 7",
        ("run", "epochs", "choose another"),
    ),
    Case("the other scale's width", f"{TRAIN} --scale xd", ("store", "64", "512")),
    Case("a folder below a file", TRAIN.replace("new", "events.txt/new"), ("events.txt/new",)),
    # measures
    Case(
        "scores that are not finite",
        f"{EVALUATE} events.txt",
        ("two_label_G", "NaN"),
        _save("scores/two_label_G.npy", NAN),
    ),
    Case(
        "an annotated video without scores",
        f"{EVALUATE} events.txt",
        ("two_label_G", "score all"),
        _move("scores/two_label_G.npy", "scores/second_label_G.npy"),
    ),
    Case(
        "scores as text",
        f"{EVALUATE} events.txt",
        ("scores/two_label_G.npy", "save it again"),
        _write("scores/two_label_G.npy", "0.5 0.2 0.1\n"),
    ),
    Case(
        "probabilities of other classes",
        f"{EVALUATE} events.txt",
        ("3 classes", "--classes"),
        _save("scores/two_label_G.npy", np.full((3, 3), 0.3, np.float32)),
    ),
    Case(
        "a split that the store lacks",
        "evaluate --run run --data store --split val",
        ("store", "'val'", "train"),
    ),
    Case("a rate below zero", "thresholds --run run --data store --rate -1", ("--rate", "-1")),
    Case("endless frames", "thresholds --run run --data store --fps inf", ("--fps", "inf")),
    Case(
        "annotations beside a run",
        "evaluate --run run --data store --annotations events.txt",
        ("either --run RUN --data STORE", "--annotations"),
    ),
    Case("a store for scores", "evaluate --scores store --annotations events.txt", ("store: ",)),
    # studies, lessons, the authors' models
    Case("an unknown study", "study prats --out new.csv", ("prats", "parts")),
    Case(
        "a table that is no study's",
        "study parts --out labels.csv --seeds 1",
        ("labels.csv", "choose another file"),
        _write("labels.csv", "name,label\na,G\n"),
    ),
    Case(
        "a folder for a study's table",
        "study parts --out store --seeds 1",
        ("store", "directory", "another path"),
    ),
    Case("no job at a time", "study parts --out new.csv --jobs 0", ("--jobs", "0")),
    Case("studies without seeds", "run --only 02 --out new --studies parts", ("--seeds", "2")),
    Case("a store for a run of lessons", "run --only 02 --out store", ("store", "new folder")),
    Case("a lesson that is not there", "run --only 42 --out new", ("'42'", "00_orientation")),
    Case("a parameter of another type", "run --only 02 --out new -p epochs few", ("epochs", "few")),
    Case("lessons on no store", "run --only 02 --out new --data stroe", ("stroe",)),
    Case("no checkpoint", "import-checkpoint m.pth --out new", ("m.pth", "release")),
    Case("a folder for a checkpoint", "import-checkpoint videos --out new", ("videos", "a file")),
    Case(
        "a checkpoint cut short",
        "import-checkpoint m.pth --out new",
        ("m.pth",),
        _write("m.pth", XLSX),
    ),
    Case("an unknown command", "trian --data store", ("trian", "train")),
]


def surroundings(folder: Path) -> None:
    """A store, a detector, videos, scores, and features in the release's layout."""
    (folder / "videos").mkdir()
    for name, grey in (("a_label_G", 60), ("b_label_A", 120), ("c_label_A", 180)):
        picture = np.full((48, 64, 3), grey, np.uint8)
        write_clip(folder / "videos" / f"{name}.mp4", seconds=2, picture=lambda k, p=picture: p)
    extract_folder(folder / "videos", folder / "store", progress=False)
    words = ["train", "--data", folder / "store", "--out", folder / "run", "-s", "epochs", 1]
    assert command([*map(str, words), "-s", "selection", "last"]) == 0
    (folder / "release").mkdir()
    lists = {"train": "path,audio_path,label\n", "test": "path,audio_path,label\n"}
    for name, split in (("one_label_G", "train"), ("two_label_G", "test")):
        crop = 0 if split == "train" else 5
        for file in (f"{name}__{crop}", name):
            np.save(folder / "release" / f"{file}.npy", np.ones((3, 512), np.float32))
        lists[split] += f"{name}__{crop}.npy,{name}.npy,\n"
    for split, text in lists.items():
        (folder / f"{split}.csv").write_text(text)
    (folder / "events.txt").write_text("two_label_G 0 20\n")
    (folder / "scores").mkdir()
    np.save(folder / "scores" / "two_label_G.npy", np.array([0.9, 0.1, 0.2], np.float32))


def state(folder: Path) -> dict[str, str]:
    """Every file and folder below, with what it holds."""
    return {
        path.relative_to(folder).as_posix(): (
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        )
        for path in sorted(folder.rglob("*"))
    }


def run_apart(words: list[str], folder: Path, told: Path) -> tuple[int, str, str]:
    """A command in a process of its own, in a folder: exit status, stdout, stderr."""
    sys.stdout.flush()
    child = os.fork()
    if not child:
        status = 70
        with contextlib.suppress(BaseException):
            for number, name in ((1, "out"), (2, "err")):
                os.dup2(os.open(told / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            os.chdir(folder)
            try:
                status = command(words)
            except SystemExit as error:  # argparse
                status = int(error.code or 0)
            except BaseException:
                traceback.print_exc()
                status = 1
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)
    _, ended = os.waitpid(child, 0)
    out, err = ((told / name).read_text(encoding="utf-8") for name in ("out", "err"))
    return os.waitstatus_to_exitcode(ended), out, err


def judge(case: Case, base: Path, room: Path) -> tuple[int, str, list[str]]:
    """Exit status, sentence, and what is wrong with them."""
    folder = shutil.copytree(base, room / "case")
    with contextlib.chdir(folder):
        case.make()
    before = state(folder)
    status, out, err = run_apart(case.words.split(), folder, room)
    said = [line for line in err.splitlines() if line.strip()]
    if case.in_line:
        said += [line.strip() for line in out.splitlines() if "not scored: " in line]
    sentence = " ".join(said)
    after = state(folder)
    changed = [name for name in after.keys() | before.keys() if after.get(name) != before.get(name)]
    wrong = {
        f"{len(said)} lines": len(said) != 1,
        "traceback": "Traceback" in out + err,
        f"exit status {status}": status == 0,
        f"left or changed {', '.join(sorted(changed))}": bool(changed),
    }
    wrong |= {f"does not hold {word!r}": word not in sentence for word in case.holds}
    shutil.rmtree(folder)
    return status, sentence, [text for text, is_so in wrong.items() if is_so]


def table(only: str = "") -> tuple[list[str], int]:
    """The lines of the table, and how many of its rows are not as they should be."""
    lines = ["| bad input | command | exit | what is said |", "|---|---|---|---|"]
    bad = 0
    with tempfile.TemporaryDirectory() as place:
        base, room = Path(place, "base"), Path(place, "room")
        base.mkdir(), room.mkdir()
        with open(os.devnull, "w") as null, contextlib.redirect_stdout(null):
            surroundings(base)
        for case in CASES:
            if only in f"{case.what} {case.words}":
                status, sentence, wrong = judge(case, base, room)
                bad += bool(wrong)
                sentence = re.sub(r"n{40,}", "nnn...", sentence).replace(f"{room}/case/", "")
                words = re.sub(r"n{40,}", "nnn...", case.words)
                cells = [case.what, f"`{words}`", str(status), sentence]
                if wrong:
                    cells[-1] += f" **WRONG: {'; '.join(wrong)}**"
                lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return lines, bad


def main() -> int:
    """Print the table; 1 if a row is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="cases that hold this word")
    lines, bad = table(parser.parse_args().only)
    print("\n".join(lines))
    print(f"\n{len(lines) - 2} bad inputs, {bad} not told as they should be")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
