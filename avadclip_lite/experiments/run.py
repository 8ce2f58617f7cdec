"""The whole sequence of notebooks in one command, and the numbers they leave behind.

    python -m avadclip_lite run                                   # Soundstage, into runs/soundstage
    python -m avadclip_lite run --data STORE --scale xd --out runs/xd -p epochs 5
    python -m avadclip_lite run --data STORE --scale xd --out runs/xd --seeds 5 --jobs 4

Parameters are checked before anything starts. Notebooks run in order through papermill, each in
a fresh kernel; one that has finished is not run again while its source, its parameters, the
package and the data stay what they were, so an interrupted run goes on where it stopped.

A notebook hands over a number with one line, and need not know who runs it:

    record("AP", 81.3, dataset="Soundstage", seed=0, config=settings, device=device)

The runner gathers these lines in ``metrics.json``. In JupyterLab they go to ``runs/interactive``.

What a run leaves in its folder: ``NN_name.ipynb`` (executed), ``checkpoints/``, ``records/``,
``metrics.json``, ``report.html`` and ``report/``, and ``state.json``, which remembers what is done.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import hashlib
import io
import json
import math
import os
import re
import sys
import time
import tokenize
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avadclip_lite.config import RESULTS, Config, make_config, results_path, soundstage_path
from avadclip_lite.features.parallel import add_worker_arguments

__all__ = [
    "NotebookFailed",
    "Parameter",
    "add_arguments",
    "gather_metrics",
    "kernel_environment",
    "main",
    "notebooks",
    "package_digest",
    "read_parameters",
    "record",
    "run",
    "settle_parameters",
    "write_atomically",
]

PACKAGE = Path(__file__).resolve().parents[1]
ROOT = PACKAGE.parent  # of the clone
CHECKPOINTS = "checkpoints"  # in the run's folder
QUIET_KERNEL = ["--IPKernelApp.log_level=50"]  # its greetings and its last words are no news
HASHED_WHOLE = 32 * 2**20  # bytes; larger data files count by size and time stamp


# --- numbers -------------------------------------------------------------------------------------


def record(
    name: str,
    value: float,
    *,
    dataset: str,
    seed: int | None,
    config: Config | str | None = None,
    device: Any = "cpu",
    protocol: str = "",
) -> None:
    """Hand one number over to ``metrics.json``.

    ``name`` says what was measured, with its unit where it has one ("AP, %"); ``dataset`` on which
    data ("Soundstage"); ``seed`` is ``None`` for what no seed touches; ``config`` the Config that
    determined it (stored as its digest), ``protocol`` how it was measured where that is not obvious
    ("test split, alignment branch"). Saying the same number again replaces it.

    Raises ``ValueError`` for a number that is not finite or a name that is empty.
    """
    number = int(value) if isinstance(value, int) else float(value)
    if not math.isfinite(number):
        raise ValueError(f"record({name!r}) wants a finite number, got {value!r}")
    if not name.strip() or not dataset.strip():
        raise ValueError(f"record wants a name and a dataset, got {name!r} and {dataset!r}")
    line = {
        "notebook": _this_notebook(),
        "name": name,
        "value": number,
        "dataset": dataset,
        "seed": seed,
        "config": config.digest() if isinstance(config, Config) else config,
        "device": str(device),
        "protocol": protocol,
    }
    path = Path(os.environ.get("AVADCLIP_RECORDS") or ROOT / "runs/interactive/metrics.jsonl")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _this_notebook() -> str:
    if name := os.environ.get("AVADCLIP_NOTEBOOK"):
        return name
    session = os.environ.get("JPY_SESSION_NAME", "")  # set by JupyterLab: the notebook's path
    return Path(session).stem if session else "interactive"


def gather_metrics(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The last word on every number: of records that differ in nothing but the value, the last."""
    last: dict[tuple[Any, ...], dict[str, Any]] = {}
    for line in lines:
        key = tuple(line[k] for k in line if k != "value")
        last.pop(key, None)
        last[key] = dict(line)
    return list(last.values())


def _read_records(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# --- parameters ----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One line of a notebook's parameters cell."""

    name: str
    type: str  # as annotated: int, float, str, bool, list[int], list[float], list[str]
    default: Any
    help: str = ""

    def convert(self, text: str) -> Any:
        """The value that a command line's word stands for; ``ValueError`` if it is of another
        type. Lists are written with commas: ``0,1,2``."""
        kind = re.fullmatch(r"list\[(\w+)\]", self.type)
        if kind is None:
            return self._one(text, self.type)
        words = text.strip().strip("[]()")
        return [self._one(w.strip(), kind[1]) for w in words.split(",") if w.strip()]

    def _one(self, text: str, kind: str) -> Any:
        try:
            if kind == "bool":
                return {"true": True, "false": False, "1": True, "0": False}[text.lower()]
            if kind == "float":
                number = float(text)
                if not math.isfinite(number):
                    raise ValueError(text)
                return number
            return {"int": int, "str": str}[kind](text)
        except (ValueError, KeyError):
            raise ValueError(f"parameter {self.name} wants {self.type}, got {text!r}") from None


def notebooks(folder: Path | None = None) -> list[Path]:
    """The numbered notebooks in order; ``FileNotFoundError`` if there are none."""
    folder = folder or ROOT / "notebooks"
    found = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if not found:
        raise FileNotFoundError(
            f"no notebooks in {folder}; run from a clone of the repository (they are not part of "
            "an installed package)"
        )
    return found


def cell_source(cell: Mapping[str, Any]) -> str:
    """A notebook file stores source as a string or as a list of lines."""
    source = cell["source"]
    return source if isinstance(source, str) else "".join(source)


def cell_tags(cell: Mapping[str, Any]) -> list[str]:
    return list(cell.get("metadata", {}).get("tags", []))


def read_notebook(path: Path) -> dict[str, Any]:
    """The JSON of a notebook; ``ValueError`` naming the file if it is none."""
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        notebook["cells"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a notebook ({error}); restore it from git") from None
    return notebook


def read_parameters(path: Path) -> dict[str, Parameter]:
    """The parameters that a notebook declares in its cell tagged ``parameters``."""
    for cell in read_notebook(path)["cells"]:
        if "parameters" in cell_tags(cell):
            return parse_parameters(cell_source(cell), where=path.name)
    return {}


def parse_parameters(source: str, *, where: str) -> dict[str, Parameter]:
    """Read a parameters cell: only lines of the form ``name: type = literal  # what it is``.

    Raises ``ValueError`` for anything else.
    """
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    found: dict[str, Parameter] = {}
    for node in ast.parse(source).body:
        if not isinstance(node, ast.AnnAssign) or node.value is None:
            raise ValueError(
                f"{where}: the parameters cell may only hold lines `name: type = value  # comment`,"
                f" found: {ast.unparse(node)}"
            )
        name, kind = ast.unparse(node.target), ast.unparse(node.annotation)
        if not re.fullmatch(r"(list\[)?(int|float|str)\]?|bool", kind):
            raise ValueError(
                f"{where}: parameter {name} has type {kind}; use int, float, str, bool or a list"
            )
        try:
            default = ast.literal_eval(node.value)
        except ValueError:
            raise ValueError(f"{where}: the default of {name} is no plain literal") from None
        found[name] = Parameter(
            name=name, type=kind, default=default, help=comments.get(node.lineno, "")
        )
    return found


def settle_parameters(
    paths: Sequence[Path],
    *,
    form: str | None = None,
    scale: str | None = None,
    data: Path | None = None,
    extra: Sequence[tuple[str, str]] = (),
) -> dict[str, dict[str, Any]]:
    """What each notebook will be given, by its stem: only what it declares.

    ``extra`` are pairs of words from the command line. A parameter that has the name of a
    configuration field is that field, so its value is checked as the configuration would.

    Raises ``ValueError`` for a name that no notebook declares, a value of the wrong type, or one
    that the configuration refuses.
    """
    declared = {path.stem: read_parameters(path) for path in paths}
    known: dict[str, Parameter] = {}
    for parameters in declared.values():
        known |= {k: v for k, v in parameters.items() if k not in known}
    given: dict[str, Any] = {}
    for name, text in extra:
        if name not in known:
            raise ValueError(
                f"no notebook knows a parameter {name!r}; known: {', '.join(sorted(known))}"
            )
        if name in given:
            raise ValueError(f"parameter {name} was given twice")
        given[name] = known[name].convert(text)
    for name, value in (("form", form), ("scale", scale), ("data", data and str(data))):
        if value is None:
            continue
        if name in given:
            raise ValueError(f"give {name} as --{name} or as -p {name}, not both")
        if name not in known:
            raise ValueError(f"no chosen notebook has a parameter {name!r}, so --{name} is idle")
        given[name] = value
    fields = {k: v for k, v in given.items() if k not in ("form", "scale") and _is_field(k)}
    settings = make_config(
        form=given.get("form", "paper"), scale=given.get("scale", "soundstage"), **fields
    )
    if given.get("data"):
        _check_data(Path(given["data"]), settings)
    return {
        stem: {k: v for k, v in given.items() if k in parameters}
        for stem, parameters in declared.items()
    }


def _is_field(name: str) -> bool:
    settings = make_config().to_dict()
    return any(name in section for section in settings.values() if isinstance(section, dict))


def _check_data(path: Path, settings: Config) -> None:
    """The store opens and has the width that the scale expects."""
    if not path.is_dir():
        raise FileNotFoundError(
            f"no feature store at {path}; make one with: python -m avadclip_lite import --help"
        )
    from avadclip_lite.dataset import FeatureStore

    store = FeatureStore.open(path)
    if store.dim != settings.model.dim:
        raise ValueError(
            f"the features in {path} are {store.dim} wide, but --scale {settings.scale} expects "
            f"{settings.model.dim}; choose the other scale"
        )


# --- what has been done --------------------------------------------------------------------------


def package_digest() -> str:
    """Changes whenever a source file of the package does."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def folder_digest(folder: Path) -> str:
    """Changes whenever a file under ``folder`` does; empty for a folder that is not there."""
    if not folder.is_dir():
        return ""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        stat = path.stat()
        digest.update(f"{path.relative_to(folder)}\0{stat.st_size}\0".encode())
        if stat.st_size <= HASHED_WHOLE:
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        else:
            digest.update(str(stat.st_mtime_ns).encode())
    return digest.hexdigest()


def notebook_key(path: Path, parameters: Mapping[str, Any], *surroundings: str) -> str:
    """Changes with what a notebook says (not with its outputs), what it is given, and with
    ``surroundings``: the digests of package and data."""
    cells = [
        [cell["cell_type"], cell_source(cell), cell_tags(cell)]
        for cell in read_notebook(path)["cells"]
    ]
    text = json.dumps([cells, dict(sorted(parameters.items())), surroundings])
    return hashlib.sha256(text.encode()).hexdigest()


def write_atomically(path: Path, text: str) -> None:
    """Replace a file in one step; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


class _State:
    """``state.json``: which notebooks are done, under which key. Written after every notebook, in
    one step, so a run that is killed at any moment leaves the truth behind."""

    def __init__(self, out: Path) -> None:
        self.path = out / "state.json"
        try:
            self.data = json.loads(self.path.read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            self.data = {}
        self.data.setdefault("notebooks", {})

    def done(self, stem: str, key: str) -> bool:
        entry = self.data["notebooks"].get(stem)
        executed = self.path.with_name(f"{stem}.ipynb")
        return entry is not None and entry["key"] == key and executed.is_file()

    def save(self) -> None:
        write_atomically(self.path, json.dumps(self.data, indent=1))


@contextlib.contextmanager
def _sole_run(out: Path) -> Iterator[None]:
    """Refuse a second run into the same folder while one is at work there."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("w") as file:
        try:
            import fcntl
        except ImportError:  # Windows: no lock
            yield
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(
                f"another run is writing to {out}; wait for it or choose --out"
            ) from None
        yield


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
    """The variables under which a kernel runs the way it does for everybody.

    The kernel is the one of this very Python, whatever else is installed for the user; the package
    is the one beside the notebooks; figures are drawn inline. Soundstage's tensors are too small to
    share among threads (on two busy cores a second thread made a training eight times slower), so
    that one computes; at scale ``xd`` all do. ``OMP_NUM_THREADS`` is respected if set.
    """
    threads = (os.cpu_count() or 1) if scale == "xd" else 1
    import_path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    kernels = [str(Path(sys.prefix) / "share" / "jupyter")]
    variables = {
        "PYTHONPATH": os.pathsep.join(import_path),
        "JUPYTER_PATH": os.pathsep.join(
            kernels + [p for p in [os.environ.get("JUPYTER_PATH")] if p]
        ),
        "JUPYTER_PREFER_ENV_PATH": "1",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # or every kernel warns about frozen modules
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(threads),
    }
    if notebook:
        variables["AVADCLIP_NOTEBOOK"] = notebook
    if records:
        variables["AVADCLIP_RECORDS"] = str(records)
    if cache:
        variables["AVADCLIP_CACHE"] = str(cache)
    return variables


@contextlib.contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for a while; a kernel started meanwhile inherits them."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def execute(source: Path, target: Path, parameters: Mapping[str, Any]) -> None:
    """Run one notebook through papermill, from its own folder as Jupyter does.

    Raises ``NotebookFailed`` with the cell's error in short.
    """
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
    arrows = [line for line in plain.splitlines() if re.match(r"-+> *\d+", line)]
    said = [line for line in str(error.evalue).strip().splitlines() if line.strip()][:8]
    lines = [f"cell [{error.exec_count}] raised {error.ename}: " + "\n    ".join(said or [""])]
    lines += [
        f"    {arrow.strip()}"
        for arrow in (arrows[:1] + arrows[-1:] if len(arrows) > 1 else arrows)
    ]
    return "\n".join(lines)


def run(
    *,
    out: Path,
    folder: Path | None = None,
    form: str | None = None,
    scale: str | None = None,
    data: Path | None = None,
    only: Sequence[str] = (),
    extra: Sequence[tuple[str, str]] = (),
    force: bool = False,
    seeds: int = 0,
    studies: Sequence[str] = (),
    workers: Mapping[str, Any] | None = None,
) -> Path:
    """Run the notebooks in ``folder`` (default: the repository's) into ``out``; returns the report.

    With ``seeds`` the ablation studies are trained first, on seeds 0 to ``seeds`` - 1 of this very
    data, into ``out/study.csv`` (``workers``: jobs, backend and address, as in ``study``); the
    notebooks then show those instead of the results that ship, and their own trainings take as many
    seeds.

    Raises ``ValueError`` or ``FileNotFoundError`` for bad input, before anything has started, and
    ``NotebookFailed`` for a notebook that fails; what had been done until then stays done.
    """
    present = notebooks(folder)
    chosen = _choose(present, only)
    data = data.resolve() if data else None
    if seeds == 1 or seeds < 0:  # 0: none were asked for
        raise ValueError(f"--seeds must be at least 2, got {seeds}: an interval needs two")
    if seeds and any("seeds" in read_parameters(path) for path in chosen):
        extra = [*extra, ("seeds", ",".join(map(str, range(seeds))))]
    given = settle_parameters(chosen, form=form, scale=scale, data=data, extra=extra)
    out = out.resolve()
    with _sole_run(out):
        results = results_path()
        if seeds:
            from avadclip_lite.experiments.study import run_study

            fields = {k: v for values in given.values() for k, v in values.items() if _is_field(k)}
            fields.pop("seed", None)
            results = run_study(
                out / "study.csv",
                studies=studies,
                data=data or "",
                scale=scale or "soundstage",
                seeds=range(seeds),
                overrides=fields,
                cache=out / CHECKPOINTS,  # the notebooks find the teachers there
                **(workers or {}),
            )
        with environment({RESULTS: str(results)}):
            return _run(
                present, chosen, given, out=out, data=data or soundstage_path(), force=force
            )


def _choose(present: list[Path], only: Sequence[str]) -> list[Path]:
    for word in only:
        if not any(path.stem.startswith(word) for path in present):
            known = ", ".join(path.stem for path in present)
            raise ValueError(f"no notebook starts with {word!r}; there are {known}")
    return [p for p in present if not only or any(p.stem.startswith(word) for word in only)]


def _run(
    present: list[Path],
    chosen: list[Path],
    given: dict[str, dict[str, Any]],
    *,
    out: Path,
    data: Path,
    force: bool,
) -> Path:
    state = _State(out)
    results = results_path()
    numbers = hashlib.sha256(results.read_bytes()).hexdigest() if results.is_file() else ""
    surroundings = (package_digest(), folder_digest(data), numbers)
    keys = {p.stem: notebook_key(p, given[p.stem], *surroundings) for p in chosen}
    todo = [p for p in chosen if force or not state.done(p.stem, keys[p.stem])]
    try:
        for path in todo:
            place = f"[{chosen.index(path) + 1:2d}/{len(chosen)}]"
            print(f"{place} {path.stem:24s}", end="", flush=True)
            seconds = _run_one(path, given[path.stem], keys[path.stem], out, state)
            print(f"{seconds:7.1f} s  done", flush=True)
    finally:
        report = _finish(present, out, state, surroundings)
    if not todo:
        print(f"nothing to do: {len(chosen)} notebooks are up to date in {_near(out)}")
    print(f"report: {_near(report)}")
    return report


def _run_one(
    path: Path, parameters: Mapping[str, Any], key: str, out: Path, state: _State
) -> float:
    """Execute into ``.unfinished`` and move into place when all of it is there."""
    started = time.perf_counter()
    state.data["notebooks"].pop(path.stem, None)
    state.save()
    draft = out / ".unfinished" / path.name
    records = draft.with_suffix(".jsonl")
    draft.parent.mkdir(parents=True, exist_ok=True)
    records.unlink(missing_ok=True)
    variables = kernel_environment(
        notebook=path.stem,
        records=records,
        cache=out / CHECKPOINTS,
        scale=parameters.get("scale", "soundstage"),
    )
    try:
        with environment(variables):
            execute(path, draft, parameters)
    except NotebookFailed as error:
        print(f"{time.perf_counter() - started:7.1f} s  FAILED", flush=True)
        raise NotebookFailed(f"{path.stem}: {error}\n    all of it: {_near(draft)}") from None
    except KeyboardInterrupt:
        print("  interrupted", flush=True)
        raise
    seconds = time.perf_counter() - started
    final_records = out / "records" / records.name
    final_records.parent.mkdir(exist_ok=True)
    if records.is_file():
        os.replace(records, final_records)
    else:
        final_records.unlink(missing_ok=True)
    os.replace(draft, out / path.name)
    state.data["notebooks"][path.stem] = {
        "key": key,
        "parameters": dict(parameters),
        "seconds": round(seconds, 1),
    }
    state.save()
    return seconds


def _finish(present: list[Path], out: Path, state: _State, surroundings: tuple[str, ...]) -> Path:
    """Write ``metrics.json`` and the report, if anything changed since they were written."""
    entries = state.data["notebooks"]
    report = out / "report.html"
    stamp = hashlib.sha256(json.dumps([entries, surroundings], sort_keys=True).encode()).hexdigest()
    if state.data.get("report") == stamp and report.is_file():
        return report
    done, numbers = [], []
    for path in present:
        entry = entries.get(path.stem)
        if entry is None:
            continue
        # one that an earlier package, other data or an edited notebook left behind says so
        current = entry["key"] == notebook_key(path, entry["parameters"], *surroundings)
        done.append({"notebook": path.stem, "current": current} | entry)
        numbers += _read_records(out / "records" / f"{path.stem}.jsonl")
    metrics = {"notebooks": done, "metrics": gather_metrics(numbers)}
    write_atomically(out / "metrics.json", json.dumps(metrics, indent=1))
    from avadclip_lite.experiments.report import write_report

    write_report(out, metrics)
    state.data["report"] = stamp
    state.save()
    return report


def _near(path: Path) -> str:
    """A path as short as it can be said from here."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


# --- command line --------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Run the notebooks in order into one folder: executed copies, checkpoints, metrics.json "
        "and report.html. Run again to go on after an interruption."
    )
    parser.add_argument("--data", type=Path, help="a feature store (default: Soundstage, shipped)")
    parser.add_argument("--form", choices=["paper", "released"], help="what is computed")
    parser.add_argument("--scale", choices=["soundstage", "xd"], help="how large")
    parser.add_argument("--out", type=Path, help="folder to write (default: runs/NAME of the data)")
    parser.add_argument(
        "--only", action="append", default=[], metavar="NN", help="only this notebook (repeatable)"
    )
    parser.add_argument(
        "-p",
        dest="extra",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="set a notebook parameter (repeatable); an unknown name lists the known ones",
    )
    parser.add_argument("--force", action="store_true", help="run also what is up to date")
    parser.add_argument(
        "--seeds",
        type=int,
        default=0,
        help="train the ablation studies on this data first, over so many seeds",
    )
    parser.add_argument("--studies", nargs="*", default=[], help="only these studies")
    add_worker_arguments(parser, "trainings of the studies")


def main(args: argparse.Namespace) -> int:
    name = args.data.resolve().name if args.data else "soundstage"
    try:
        run(
            out=args.out or ROOT / "runs" / name,
            form=args.form,
            scale=args.scale,
            data=args.data,
            only=args.only,
            extra=[tuple(pair) for pair in args.extra],
            force=args.force,
            seeds=args.seeds,
            studies=args.studies,
            workers={"jobs": args.jobs, "backend": args.backend, "address": args.address},
        )
    except NotebookFailed as error:
        print(f"\n{error}\nMend it and run again: what is done stays done.", file=sys.stderr)
        return 1
    return 0
