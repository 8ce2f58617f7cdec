"""The whole sequence of notebooks in one command, and the numbers they leave behind.

    python -m avadclip_lite run                                   # Soundstage, into runs/soundstage
    python -m avadclip_lite run --studies                         # and the lab notes after them
    python -m avadclip_lite run --data STORE --scale xd --out runs/xd -p epochs 5
    python -m avadclip_lite run --data STORE --scale xd --out runs/xd --seeds 5 --jobs 4

Notebooks run in order through papermill, each in a fresh kernel; one that has finished is not run
again while its source, its parameters, the package and the data stay what they were. A run's folder
holds ``NN_name.ipynb`` (executed; its metadata remember what it was made of and which numbers it
handed over), ``checkpoints/``, ``metrics.json``, ``report.html`` and ``report/``, each replaced in
one step, so that a run that is killed leaves the truth behind.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import nbformat
from filelock import FileLock, Timeout

from avadclip_lite.config import SECTION_OF, soundstage_path
from avadclip_lite.dataset import check_place
from avadclip_lite.experiments.files import RESULTS, results_path, write_atomically
from avadclip_lite.experiments.metrics import CACHE_FOLDER, RECORDS
from tools.notebook_files import cell_tags, read_notebook, read_parameters, settle_parameters

ROOT = Path(__file__).resolve().parents[1]  # of the clone
PACKAGE = ROOT / "avadclip_lite"
CHECKPOINTS, UNFINISHED = "checkpoints", ".unfinished"  # in the run's folder
MEMORY = "avadclip_lite"  # in the metadata of an executed notebook
QUIET_KERNEL = ["--IPKernelApp.log_level=50"]  # its greetings and its last words are no news
SOURCES = "*[!c]"  # of the package: all but .pyc
HASHED_WHOLE = 32 * 2**20  # bytes; larger data files count by size and time stamp
environment = partial(mock.patch.dict, os.environ)  # for a while; a kernel started then inherits it


def notebooks(folder: Path | None = None, *, notes: bool = False) -> list[Path]:
    """The numbered notebooks in order, with ``notes`` the lab notes behind them, by name;
    ``FileNotFoundError`` if there are none."""
    folder = folder or ROOT / "notebooks"
    found = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if not found:
        told = "run from a clone of the repository (they are not part of an installed package)"
        raise FileNotFoundError(f"no notebooks in {folder}; {told}")
    return found + (sorted(folder.glob("studies/*.ipynb")) if notes else [])


# --- what has been done --------------------------------------------------------------------------


def folder_digest(folder: Path, pattern: str = "*") -> str:
    """Changes whenever a file of that name under ``folder`` does."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob(pattern) if p.is_file()):
        stat = path.stat()
        digest.update(f"{path.relative_to(folder)}\0{stat.st_size}\0".encode())
        large = stat.st_size > HASHED_WHOLE
        digest.update(str(stat.st_mtime_ns).encode() if large else path.read_bytes())
    return digest.hexdigest()


def notebook_key(path: Path, parameters: Mapping[str, Any], *surroundings: str) -> str:
    """Changes with what a notebook says (not with its outputs), what it is given, and with
    ``surroundings``: the digests of package and data."""
    cells = [[c.cell_type, c.source, cell_tags(c)] for c in read_notebook(path).cells]
    text = json.dumps([cells, dict(sorted(parameters.items())), surroundings])
    return hashlib.sha256(text.encode()).hexdigest()


def _made_of(executed: Path) -> dict[str, Any]:
    """What an executed notebook remembers: ``key``, ``parameters``, ``seconds`` and ``numbers``;
    nothing where there is none, or one of an earlier version."""
    return read_notebook(executed).metadata.get(MEMORY, {}) if executed.is_file() else {}


def gather_metrics(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The last word on every number: of records that differ in nothing but the value, the last."""
    keys = [json.dumps({**line, "value": 0}, sort_keys=True) for line in lines]
    return [dict(line) for n, line in enumerate(lines) if keys[n] not in keys[n + 1 :]]


def _sole_run(out: Path) -> contextlib.AbstractContextManager[Any]:
    """Refuse a folder of other things, and a second run into one while another is at work there."""
    check_place(out, ".lock", "metrics.json")
    try:
        out.mkdir(parents=True, exist_ok=True)
        return FileLock(out / ".lock", timeout=0).acquire()
    except Timeout:
        told = f"another run is writing to {out}; wait for it or choose --out"
    except OSError as error:
        told = f"{out} cannot be written ({error.strerror}); choose another folder with --out"
    raise ValueError(told)


# --- running -------------------------------------------------------------------------------------


class NotebookFailed(Exception):
    """A cell of a notebook raised; the message is what a person needs to see of it."""


def kernel_environment(
    *,
    notebook: str = "",
    records: Path | None = None,
    cache: Path | None = None,
    scale: str = "soundstage",
) -> dict[str, str]:
    """The variables under which a kernel runs as for everybody: that of this very Python, with the
    package beside the notebooks and figures inline. One thread computes (with two on two busy cores
    a training of Soundstage's small tensors was eight times slower), at scale ``xd`` all do."""
    threads = (os.cpu_count() or 1) if scale == "xd" else 1
    variables = {
        "JUPYTER_PREFER_ENV_PATH": "1",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # or every kernel warns about frozen modules
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(threads),
    }
    first = {"PYTHONPATH": ROOT, "JUPYTER_PATH": Path(sys.prefix) / "share" / "jupyter"}
    for name, folder in first.items():
        variables[name] = os.pathsep.join(filter(None, [str(folder), os.environ.get(name)]))
    given = {"AVADCLIP_NOTEBOOK": notebook, RECORDS: records, CACHE_FOLDER: cache}
    return variables | {name: str(value) for name, value in given.items() if value}


def execute(source: Path, target: Path, parameters: Mapping[str, Any]) -> None:
    """Run one notebook through papermill, from its own folder as Jupyter does. Raises
    ``NotebookFailed`` with the cell's error in short."""
    import papermill
    from nbclient.exceptions import DeadKernelError

    try:
        papermill.execute_notebook(
            str(source),
            str(target),
            parameters=dict(parameters),
            kernel_name="python3",
            cwd=str(source.parent),
            progress_bar=False,
            extra_arguments=QUIET_KERNEL,
        )
    except papermill.PapermillExecutionError as error:
        if error.ename == "KeyboardInterrupt":
            raise KeyboardInterrupt from None
        raise NotebookFailed(_short(error)) from None
    except DeadKernelError as error:
        raise NotebookFailed(f"the kernel died, most often for want of memory ({error})") from None


def _short(error: Any) -> str:
    """A failed cell as a person wants to read it: which cell, which line, what it said."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error.traceback))
    arrows = [line.strip() for line in plain.splitlines() if re.match(r"-+> *\d+", line)]
    said = [line for line in str(error.evalue).strip().splitlines() if line.strip()][:8]
    heading = f"cell [{error.exec_count}] raised {error.ename}: " + "\n    ".join(said or [""])
    return "\n    ".join([heading, *dict.fromkeys(arrows[:1] + arrows[-1:])])


def run(
    *,
    out: Path,
    folder: Path | None = None,
    words: Sequence[tuple[str, str]] = (),
    only: Sequence[str] = (),
    force: bool = False,
    seeds: int = 0,
    studies: Sequence[str] = (),
    jobs: int = 1,
    notes: bool = False,
) -> Path | None:
    """Run the notebooks in ``folder`` (default: the repository's) into ``out``, or ``only`` those
    whose names begin so, with the parameters in ``words``; returns the report, or ``None`` if it
    could not be written. With ``seeds`` the ablation studies are trained first, on seeds 0 to
    ``seeds`` - 1 of this data, into ``out/study.csv``, ``jobs`` at a time; the notebooks then show
    those in place of the results that ship, and their own trainings take as many seeds. ``notes``:
    the lab notes as well, after the lessons. Raises ``ValueError`` or ``FileNotFoundError`` for bad
    input, before anything has started, and ``NotebookFailed`` for a notebook that fails; what had
    been done until then stays done."""
    present = notebooks(folder, notes=notes)
    chosen = [p for p in present if not only or p.stem.startswith(tuple(only))]
    if idle := [word for word in only if not any(p.stem.startswith(word) for p in chosen)]:
        known = ", ".join(path.stem for path in present)
        raise ValueError(f"no notebook starts with {idle[0]!r}; there are {known}")
    if seeds == 1 or seeds < 0 or jobs < 1 or (studies and not seeds):  # 0: none were asked for
        raise ValueError(f"--seeds must be at least 2, --jobs at least 1, got {seeds} and {jobs}")
    if seeds and any("seeds" in read_parameters(path) for path in chosen):
        words = [*words, ("seeds", ",".join(map(str, range(seeds))))]
    given, out = settle_parameters(chosen, words), out.resolve()
    settled = {name: value for values in given.values() for name, value in values.items()}
    data = Path(settled.get("data") or soundstage_path())
    with _sole_run(out):
        results = results_path()
        if seeds:
            from avadclip_lite.experiments.study import run_study

            fields = {k: v for k, v in settled.items() if k in SECTION_OF and k != "seed"}
            # into the run's cache, where the notebooks find the teachers
            how = {"cache": out / CHECKPOINTS, "seeds": range(seeds), "jobs": jobs}
            how |= {"studies": studies, "data": data, "scale": settled.get("scale", "soundstage")}
            results = run_study(out / "study.csv", overrides=fields, **how)
        numbers = hashlib.sha256(results.read_bytes()).hexdigest() if results.is_file() else ""
        surroundings = (folder_digest(PACKAGE, SOURCES), folder_digest(data), numbers)
        keys = {p: notebook_key(p, given[p.stem], *surroundings) for p in chosen}
        todo = [p for p in chosen if force or _made_of(out / p.name).get("key") != keys[p]]
        shutil.rmtree(out / UNFINISHED, ignore_errors=True)
        try:
            for path in todo:
                place = f"[{chosen.index(path) + 1:2d}/{len(chosen)}]"
                print(f"{place} {path.stem:24s}", end="", flush=True)
                with environment({RESULTS: str(results)}):
                    _run_one(path, given[path.stem], keys[path], out)
        finally:
            report = _finish(notebooks(folder, notes=True), out, surroundings)
        if not todo:
            print(f"nothing to do: {len(chosen)} notebooks are up to date in {out}")
        return report


def _run_one(path: Path, parameters: Mapping[str, Any], key: str, out: Path) -> None:
    """Execute in a folder apart, and move into place when all of it is there."""
    started = time.perf_counter()
    draft, final = out / UNFINISHED / path.name, out / path.name
    final.unlink(missing_ok=True)
    draft.parent.mkdir(parents=True, exist_ok=True)
    # a name of its own: the kernel of a run that was killed may live a moment longer and write
    records = draft.with_suffix(f".{os.getpid()}.jsonl")
    about = {"notebook": path.stem, "records": records, "cache": out / CHECKPOINTS}
    try:
        with environment(kernel_environment(scale=parameters.get("scale", "soundstage"), **about)):
            execute(path, draft, parameters)
    except NotebookFailed as error:
        print(f"{time.perf_counter() - started:7.1f} s  FAILED", flush=True)
        raise NotebookFailed(f"{path.stem}: {error}\n    all of it: {draft}") from None
    seconds = round(time.perf_counter() - started, 1)
    lines = records.read_text(encoding="utf-8").splitlines() if records.is_file() else []
    memory = {"key": key, "parameters": dict(parameters), "seconds": seconds}
    notebook = read_notebook(draft)
    notebook.metadata[MEMORY] = memory | {"numbers": [json.loads(line) for line in lines]}
    write_atomically(final, nbformat.writes(notebook))
    print(f"{seconds:7.1f} s  done", flush=True)


def _finish(present: list[Path], out: Path, surroundings: tuple[str, ...]) -> Path | None:
    """Write ``metrics.json`` and the report. Whatever goes wrong is told, and must not hide why a
    notebook failed."""
    report, done, numbers = out / "report.html", [], []
    try:
        for path in present:
            if entry := dict(_made_of(out / path.name)):
                # one that an earlier package, other data or an edited notebook left says so
                current = entry["key"] == notebook_key(path, entry["parameters"], *surroundings)
                numbers += entry.pop("numbers")
                done.append({"notebook": path.stem, "current": current} | entry)
        metrics = {"notebooks": done, "metrics": gather_metrics(numbers)}
        report.unlink(missing_ok=True)
        write_atomically(out / "metrics.json", json.dumps(metrics, indent=1))
        from tools.report import write_report

        write_report(out, metrics)
    except Exception as error:
        told = " ".join(str(error).split())
        print(f"no report: {type(error).__name__}: {told}", file=sys.stderr, flush=True)
        return None
    print(f"report: {report}")
    return report


# --- command line --------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``python -m avadclip_lite run``."""
    told = "executed copies, checkpoints, metrics.json and report.html"
    parser.description = f"Run the notebooks in order into one folder: {told}. Run again to go on."
    add = parser.add_argument
    add("--data", type=Path, help="a feature store (default: Soundstage, shipped)")
    add("--form", choices=["paper", "released"], help="what is computed")
    add("--scale", choices=["soundstage", "xd"], help="how large")
    add("--out", type=Path, help="folder to write (default: runs/NAME of the data)")
    add("--only", action="append", default=[], metavar="NN", help="only this one (repeatable)")
    told = "set a notebook parameter (repeatable); an unknown name lists the known ones"
    pair = {"nargs": 2, "metavar": ("NAME", "VALUE"), "help": told}
    add("-p", dest="extra", action="append", default=[], **pair)
    add("--force", action="store_true", help="run also what is up to date")
    add("--seeds", type=int, default=0, help="first train the ablation studies, so many seeds")
    told = "without names: also the lab notes; with names (and --seeds): train only these studies"
    add("--studies", nargs="*", metavar="NAME", help=told)
    add("--jobs", type=int, default=1, help="trainings of the studies at a time (%(default)s)")


def main(args: argparse.Namespace) -> int:
    """Run; 1 if a notebook failed or the report could not be written."""
    default = ROOT / "runs" / (args.data.resolve().name if args.data else "soundstage")
    options = {name: getattr(args, name) for name in ("data", "form", "scale")}
    words = [*args.extra, *((name, str(word)) for name, word in options.items() if word)]
    how = {name: getattr(args, name) for name in ("only", "force", "seeds", "jobs")}
    how |= {"studies": args.studies or (), "notes": args.studies == []}
    try:
        report = run(out=args.out or default, words=words, **how)
    except NotebookFailed as error:
        print(f"\n{error}\nMend it and run again: what is done stays done.", file=sys.stderr)
        return 1
    return 0 if report else 1
