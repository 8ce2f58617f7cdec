"""Commands that are killed at random moments and run again: does anything get lost or changed?

    python tests/benchmarks/kills.py [--kills 9] [--seed 0] [--only import extract train study run]

Each command is run once in peace, in a process of its own. Then it is started anew, and killed
(SIGKILL) when its processes have used a random share of the processor time that it took in peace,
one kill in each n-th part of it so that they fall all over the run, and run again; every third time
what goes on is killed as well, at any moment. In the end the results must be those in peace: stores
byte for byte (``extraction.jsonl``, to which a run that goes on adds, by the last line of each
video, as it is read); trainings byte for byte but for the seconds in their history; result files of
studies but for the column ``seconds``; of executed lessons sources, outputs and numbers. Prints a
Markdown table; exits 1 if anything differs. Some minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import psutil
from safetensors import safe_open
from safetensors.numpy import load_file

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tools")]

import authoring  # noqa: E402
from clips import clip_wave, flat, write_clip  # noqa: E402
from example_notebook import SCRIPT, write_script  # noqa: E402

from avadclip_lite import baselines  # noqa: E402, F401  as every command imports it
from avadclip_lite.__main__ import main as command  # noqa: E402
from avadclip_lite.config import XD_CLASSES  # noqa: E402
from avadclip_lite.features.writer import StoreWriter  # noqa: E402
from tools import run as runner  # noqa: E402

POLL, CORES = 0.002, 4  # least seconds between two looks at a process; what it may use at a time
DIM = 64  # of Soundstage's text tower


class Work(NamedTuple):
    """A command: what makes its input, what runs it, and what its results are."""

    make: Callable[[Path], Any]
    run: Callable[[Path], Any]  # in the folder of the input
    results: Callable[[Path], Any]  # plain data that == compares


# --- the five commands ----------------------------------------------------------------------------


def released(folder: Path) -> None:
    """Forty videos of three crops in the release's layout."""
    rng = np.random.default_rng(0)
    lines = ["path,audio_path,label"]
    (folder / "features").mkdir()
    for i in range(40):
        name = f"v{i:02d}_label_{'AG'[i % 2]}"
        snippets = int(rng.integers(5, 400))
        for file in (*(f"{name}__{crop}" for crop in range(3)), name):
            np.save(folder / "features" / f"{file}.npy", rng.normal(size=(snippets, 64)))
        lines += [f"{name}__{crop}.npy,{name}.npy," for crop in range(3)]
    (folder / "train.csv").write_text("\n".join(lines) + "\n")


def videos(folder: Path) -> None:
    """Eight short clips, and one that is no video."""
    (folder / "videos").mkdir()
    for i in range(8):
        path = folder / "videos" / f"{i}_label_{'AG'[i % 2]}.mp4"
        wave = clip_wave(2 + i / 2, 16000, [1.0], noise=0.05)
        picture = lambda k, i=i: flat((20 * i + k) % 256, (64, 48))  # noqa: E731
        write_clip(path, seconds=2 + i / 2, picture=picture, wave=wave, sample_rate=16000)
    (folder / "videos" / "broken.mp4").write_text("no video")


def features(folder: Path) -> None:
    """A store of thirty short videos, as wide as Soundstage's."""
    rng = np.random.default_rng(0)
    kind = {"classes": XD_CLASSES, "dim": DIM, "stride": 16, "encoder": "soundstage"}
    with StoreWriter(folder / "store", **kind) as writer:
        for i in range(30):
            snippets, code = int(rng.integers(3, 40)), XD_CLASSES.codes[i % 2 * (1 + i % 6)]
            given = {"name": f"v{i}", "label": code, "split": "train" if i < 24 else "test"}
            given |= {"segments": [(code, 0, 20)] if i % 2 else []}
            video, audio = rng.normal(size=(2, snippets, DIM)).astype(np.float32)
            writer.add(video=video, audio=audio, **given)
        writer.finish()


def lessons(folder: Path) -> None:
    """Two short notebooks that take a while."""
    import nbformat

    slow = "import time\nend = time.process_time() + 0.2\nwhile time.process_time() < end: pass\n"
    text = SCRIPT.replace("total = sum", f"{slow}total = sum")
    for name in ("01_one", "02_two"):
        script = write_script(folder / "notebooks", name, text)
        nbformat.write(authoring.from_script(script), script.with_suffix(".ipynb"))


def words(text: str) -> Callable[[Path], Any]:
    return lambda _: command(text.split())


def of_store(folder: Path) -> dict[str, Any]:
    """Every file of a finished store; of the log of ``extract`` the last line on each video."""
    assert not (folder / "out.partial").exists(), "a partial store is left"
    found: dict[str, Any] = {path.name: path.read_bytes() for path in (folder / "out").iterdir()}
    if log := found.pop("extraction.jsonl", None):
        lines = map(json.loads, log.decode().splitlines())
        found["log"] = {line.get("name", "head"): line for line in lines}
    return found


def of_training(folder: Path) -> dict[str, Any]:
    """Every file of a run's folder, but for the seconds."""
    found: dict[str, Any] = {}
    for path in (folder / "out").rglob("*"):
        if path.suffix == ".safetensors":
            with safe_open(path, "numpy") as file:
                told = {k: json.loads(v) for k, v in (file.metadata() or {}).items()}
            tensors = {k: (v.dtype.str, v.tobytes()) for k, v in load_file(path).items()}
            found[path.name] = (_timeless(told), tensors)
        elif path.is_file():
            found[path.name] = path.read_bytes()
    return found


def of_study(folder: Path) -> dict[str, str]:
    """The result file without the seconds, and the kept teachers."""
    assert not list(folder.glob("out.csv.part")), "half a file is left"
    return pd.read_csv(folder / "out.csv", dtype=str).drop(columns="seconds").to_dict()


def of_lessons(folder: Path) -> dict[str, Any]:
    """The executed notebooks' cells and the numbers of ``metrics.json``."""
    out = folder / "out"
    found = {"numbers": _timeless(json.loads((out / "metrics.json").read_text()))}
    for path in sorted(out.glob("*.ipynb")):
        cells = json.loads(path.read_text())["cells"]
        found[path.name] = [(cell["source"], cell.get("outputs")) for cell in cells]
    return found | {"report": (out / "report.html").is_file()}


def _timeless(data: Any) -> Any:
    """Without what tells seconds or times of day."""
    if isinstance(data, dict):
        return {k: _timeless(v) for k, v in data.items() if k not in ("seconds", "time")}
    return [_timeless(entry) for entry in data] if isinstance(data, list) else data


SMALL = "-s batch_size 8 -s device cpu"
WORKS = {
    "import": Work(
        released,
        words("import xd --features features --train train.csv --out out --dim 64"),
        of_store,
    ),
    "extract": Work(videos, words("extract videos --out out"), of_store),
    "train": Work(
        features, words(f"train --data store --out out -s epochs 6 {SMALL}"), of_training
    ),
    "study": Work(
        features,
        words(f"study parts --data store --out out.csv --seeds 1 -s epochs 1 {SMALL}"),
        of_study,
    ),
    "run": Work(
        lessons,
        lambda folder: runner.run(out=folder / "out", folder=folder / "notebooks"),
        of_lessons,
    ),
}


# --- kills ----------------------------------------------------------------------------------------


def start(work: Work, folder: Path) -> int:
    """The command in a process of its own, forked so that its imports are done; returns its id."""
    child = os.fork()
    if child:
        return child
    os.setsid()
    os.environ["AVADCLIP_CACHE"] = str(folder / "cache")
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1), os.dup2(log, 2)
    os.chdir(folder)
    try:
        work.run(folder)
        status = 0
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    os._exit(status)


def used(process: psutil.Process, seen: dict[int, float]) -> float:
    """Processor seconds of a process and all that it started, those that have ended included."""
    with contextlib.suppress(psutil.Error):
        for one in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                seen[one.pid] = sum(one.cpu_times()[:2])
    return sum(seen.values())


def follow(child: int, limit: float = float("inf")) -> tuple[bool, float]:
    """Wait for a process, or kill it when it has used ``limit`` processor seconds; whether it was
    killed, and what it had used. Whatever it leaves running is ended as well."""
    process, seen, others = psutil.Process(child), {}, {}
    while (ended := os.wait4(child, os.WNOHANG))[0] == 0:
        if (spent := used(process, seen)) >= limit:
            with contextlib.suppress(psutil.Error):
                others = {one.pid: one for one in process.children(recursive=True)}
            os.kill(child, signal.SIGKILL)
            status = os.waitpid(child, 0)[1]
            for one in others.values():  # the kernel of a lesson: ends by itself in a while
                with contextlib.suppress(psutil.Error):
                    one.kill()
            return os.waitstatus_to_exitcode(status) == -signal.SIGKILL, spent
        # no look costs more than it must: the moment cannot come sooner than that
        time.sleep(min(max(POLL, (limit - spent) / CORES), 0.2))
    return False, max(sum(seen.values()), ended[2].ru_utime + ended[2].ru_stime)


def trial(
    work: Work, base: Path, room: Path, moments: list[float], whole: float, expected: Any
) -> list[Any]:
    """Killed at these shares of the run, then run to the end, in the folder where it ran in peace:
    the shares at which it really was killed, and what is wrong with the result, if anything is."""
    shutil.rmtree(room)
    shutil.copytree(base, room)
    struck = []
    for moment in moments:
        killed, spent = follow(start(work, room), moment * whole)
        struck += [spent / whole] * killed
    follow(start(work, room))
    try:
        got = work.results(room)
        wrong = sorted(k for k in got.keys() | expected.keys() if got.get(k) != expected.get(k))
    except (AssertionError, OSError, ValueError) as error:
        wrong = [f"{error!r}: " + (room / "log").read_text()[-300:]]
    return [struck, wrong]


def tally(name: str, kills: int, seed: int) -> tuple[str, bool]:
    """A line of the table, and whether all was equal."""
    work, rng = WORKS[name], np.random.default_rng([seed, *name.encode()])
    struck, wrong, trials = [], [], 0
    with tempfile.TemporaryDirectory() as place:
        base, room = Path(place, "base"), Path(place, "room")
        base.mkdir()
        work.make(base)
        shutil.copytree(base, room)
        whole, expected = follow(start(work, room))[1], work.results(room)
        while trials < kills or (len(struck) < kills and trials < 3 * kills):
            moments = [(trials % kills + rng.random()) / kills] + [rng.random()] * (trials % 3 == 2)
            hit, odd = trial(work, base, room, moments, whole, expected)
            struck, wrong, trials = struck + hit, wrong + odd, trials + 1
    shares = ", ".join(f"{100 * share:.0f}" for share in sorted(struck))
    equal = f"NO: {'; '.join(wrong)}" if wrong else "yes"
    enough = len(struck) >= kills
    line = f"| {name} | {whole:.1f} s | {len(struck)} in {trials} | {shares} | {equal} |"
    return line, enough and not wrong


def main() -> int:
    """Print the tally; 1 if a result differs, or there were too few kills."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=9, help="of each command (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", choices=WORKS, default=list(WORKS))
    args = parser.parse_args()
    print("| command | in peace | kills in trials | at % of its processor time | equal |")
    print("|---|---|---|---|---|", flush=True)
    good = True
    for name in args.only:
        line, fine = tally(name, args.kills, args.seed)
        good &= fine
        print(line, flush=True)
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
