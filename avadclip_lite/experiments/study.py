"""Trainings repeated over seeds, side by side: what the ablations of the notebooks rest on.

    python -m avadclip_lite study --out data/studies/soundstage.csv --seeds 10 --jobs 2
    python -m avadclip_lite study fusion ukd --data STORE --scale xd --seeds 3 --out runs/xd.csv

A *variant* is a configuration with a name, a *study* a list of variants to be read together; both
stand in ``studies.toml``. For one seed, every variant of form ``paper`` is trained on the same
videos in the same order, so that two of them can be compared seed by seed (``paired``). Form
``released`` holds no training video out and batches them otherwise: trainings of the two forms see
other videos in another order, and ``paired`` says so.

Trainings are independent: they spread over the cores (``--jobs``) or over a cluster (``--backend
dask|ray --address ...``) whose workers see the same files. Whoever finishes one adds it to the
result file at once, so that an interrupted study goes on where it stopped, and a variant that two
studies share is trained once. A file holds one setup (scale, fields given for all variants) on one
store.

One line of the result file is one evaluation of one training on the test split. ``protocol`` says
of which epoch:

- ``chosen``: the one that the variant's own rule keeps, by held-out training videos in form
  ``paper``, by the test set in form ``released``;
- ``last``: the last one;
- ``best on test``: the one with the highest test AP of the alignment branch (of the other branch
  in a detector that has none). Optimistic.

    frame = results("fusion")                              # of the file that ships
    table(frame, ["frame_ap_classification", "map_anomaly"])  # mean and standard deviation, percent
    paired(frame, "adaptive", "addition", "frame_ap_alignment")  # the difference, seed by seed
"""

from __future__ import annotations

import argparse
import sys
import time
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from filelock import FileLock
from scipy.stats import ttest_rel
from tqdm import tqdm

from avadclip_lite.config import (
    Config,
    Form,
    Role,
    Scale,
    make_config,
    results_path,
    soundstage_path,
)
from avadclip_lite.dataset import FeatureStore
from avadclip_lite.evaluate import evaluate
from avadclip_lite.experiments.cache import source_digest, train_or_load
from avadclip_lite.experiments.run import write_atomically
from avadclip_lite.experiments.train_command import add_field_argument, chosen_fields
from avadclip_lite.features.parallel import add_worker_arguments, each
from avadclip_lite.train import SHOWN, fit

__all__ = [
    "STUDIES",
    "VARIANTS",
    "Paired",
    "ResultLog",
    "Task",
    "Variant",
    "add_arguments",
    "main",
    "paired",
    "repeat",
    "results",
    "run_study",
    "table",
]

PROTOCOLS = ("chosen", "last", "best on test")
PERCENT = 100.0
_WATCHED = "test_of_epoch_"  # numbers of every epoch in a training's history


# --- what is trained ------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A named configuration: ``form``, ``role`` and the fields that differ from their defaults.

    A student (``role`` "vision" or "audio") with a distillation loss learns from ``teacher``, the
    name of another variant, trained from the same seed. ``every_epoch`` asks for the protocols
    "last" and "best on test" as well, which takes an evaluation after each epoch.
    """

    form: Form = "paper"
    role: Role = "audio_visual"
    teacher: str | None = None
    every_epoch: bool = False
    fields: Mapping[str, Any] = field(default_factory=dict)

    def settings(self, *, scale: Scale, seed: int, **overrides: Any) -> Config:
        """The configuration of this variant at a scale, for a seed."""
        chosen = {**overrides, **self.fields, "seed": seed}
        return make_config(form=self.form, scale=scale, role=self.role, **chosen)


_FILE = tomllib.loads(Path(__file__).with_name("studies.toml").read_text(encoding="utf-8"))
VARIANTS: Mapping[str, Variant] = {name: Variant(**v) for name, v in _FILE["variants"].items()}
STUDIES: Mapping[str, Mapping[str, str]] = _FILE["studies"]  # label of a row: its variant
_TEACHERS = {variant.teacher for variant in VARIANTS.values()} - {None}


# --- how it is trained ----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Task:
    """One training; plain, because it travels to other processes."""

    variant: str
    seed: int
    data: str
    scale: Scale
    overrides: Mapping[str, Any] = field(default_factory=dict)
    cache: str | None = None  # of trained models; None: the one of ``train_or_load``
    keep: bool = True  # the model goes to the cache; a teacher's always does, for its students

    def settings(self) -> Config:
        """The configuration that is trained."""
        fields = {k: tuple(v) if isinstance(v, list) else v for k, v in self.overrides.items()}
        return VARIANTS[self.variant].settings(scale=self.scale, seed=self.seed, **fields)

    def of(self, variant: str, seed: int | None = None) -> Task:
        """The same training of another variant, or from another seed."""
        return replace(self, variant=variant, seed=self.seed if seed is None else seed)

    @property
    def setup(self) -> str:
        """What all trainings of a result file share: the digest of the variant "paper", seed 0."""
        return self.of("paper", 0).settings().digest()


def repeat(task: Task) -> list[dict[str, Any]]:
    """Train a task and test it: one entry a protocol, ready for the result file.

    The same task gives the same numbers on the same machine; on another one the rounding of matrix
    products differs, which training amplifies.
    """
    variant, settings = VARIANTS[task.variant], task.settings()
    store = FeatureStore.open(task.data)
    precision = settings.train.precision
    began = time.perf_counter()

    def watch(model: Any) -> dict[str, float]:
        metrics = evaluate(model, store, precision=precision).metrics
        return {_WATCHED + name: value for name, value in metrics.items()}

    def options(of: Variant) -> dict[str, Any]:
        return {"progress": False, "watch": watch if of.every_epoch else None}

    teacher = None
    if variant.teacher is not None:
        # watched, too: whoever trains a teacher first may be its student
        theirs, how = task.of(variant.teacher).settings(), options(VARIANTS[variant.teacher])
        teacher = train_or_load(theirs, store, cache=task.cache, **how).model
    how = options(variant) | {"teacher": teacher}
    if task.keep or task.variant in _TEACHERS:
        result = train_or_load(settings, store, cache=task.cache, **how)
    else:
        result = fit(settings, store, **how)
    if variant.every_epoch and not all(_seen(entry) for entry in result.history):
        result = fit(settings, store, **how)  # somebody trained some of it without looking
    chosen = evaluate(result.model, store, precision=precision).metrics
    found = {"chosen": (result.chosen_epoch, chosen)}
    if variant.every_epoch:
        epochs = [_seen(entry) for entry in result.history]
        branch = "alignment" if "frame_ap_alignment" in chosen else "classification"
        best = int(np.argmax([metrics[f"frame_ap_{branch}"] for metrics in epochs]))
        found["last"] = (len(epochs), epochs[-1])
        found["best on test"] = (best + 1, epochs[best])
    about = {
        "variant": task.variant,
        "seed": task.seed,
        "config": settings.digest(),
        "setup": task.setup,
        "store": store.digest,
        "sources": source_digest(),
        "torch": torch.__version__.split("+")[0],
        "seconds": round(time.perf_counter() - began, 1),
    }
    return [
        {**about, "protocol": protocol, "epoch": epoch} | _kept(metrics)
        for protocol, (epoch, metrics) in found.items()
    ]


def _seen(entry: Mapping[str, float]) -> dict[str, float]:
    """What an epoch's test gave; nothing if nobody looked."""
    return {k.removeprefix(_WATCHED): v for k, v in entry.items() if k.startswith(_WATCHED)}


def _kept(metrics: Mapping[str, float]) -> dict[str, float]:
    """The measures that go to the file: no counts, and of single classes the averages only."""
    return {
        name: round(value, 6)
        for name, value in metrics.items()
        if name not in ("videos", "snippets", "frames")
        and ("@" not in name or name.startswith(("map_anomaly", "map_with_normal")))
    }


# --- the result file ------------------------------------------------------------------------------


class ResultLog:
    """The result file of a study: text, one line an evaluation. Any number of processes may add to
    it; each replaces the whole file in one step, so that it is never half of anything."""

    ABOUT = tuple("variant seed protocol epoch config setup store sources torch seconds".split())

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).resolve()

    def read(self) -> pd.DataFrame:
        """All lines, as text; none where there is no file. Raises ``ValueError`` for a file that is
        no study's, and for one in which results of different setups or data are mixed."""
        if not self.path.is_file():
            return pd.DataFrame(columns=[*self.ABOUT])
        try:
            lines = pd.read_csv(self.path, dtype=str, keep_default_na=False)
        except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
            raise ValueError(f"{self.path} is no result file of a study: {error}") from None
        if missing := [name for name in self.ABOUT if name not in lines]:
            raise ValueError(
                f"{self.path} is no result file of a study, or of an earlier version's: it lacks "
                f"the column {missing[0]!r}; choose another file"
            )
        for column, what in (("store", "data"), ("setup", "configuration")):
            if len(found := sorted(set(lines[column]))) > 1:
                raise ValueError(
                    f"{self.path} mixes results of more than one {what} ({column} "
                    f"{', '.join(found)}); keep a file for each"
                )
        return lines

    def add(self, new: Sequence[Mapping[str, Any]]) -> None:
        """Add the lines of one training; those that it had of the same are replaced."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.path.with_name(f".{self.path.name}.lock")):
            lines = pd.concat([self.read(), pd.DataFrame(new).astype(str)]).fillna("")
            lines = lines.drop_duplicates(["variant", "seed", "protocol"], keep="last")
            ranks = {name: k for k, name in enumerate([*VARIANTS, *PROTOCOLS])}
            lines = lines.sort_values(
                ["variant", "seed", "protocol"],
                key=lambda c: (
                    c.astype(int) if c.name == "seed" else c.map(ranks).fillna(len(ranks))
                ),
            )
            rest = [name for name in lines if name not in self.ABOUT]
            write_atomically(self.path, lines[[*self.ABOUT, *rest]].to_csv(index=False))


def _logged(work: Callable[[Task], list[dict[str, Any]]], log: ResultLog, task: Task) -> None:
    log.add(work(task))


def run_study(
    out: str | Path,
    *,
    studies: Sequence[str] = (),
    data: str | Path = "",
    scale: Scale = "soundstage",
    seeds: Iterable[int] = range(10),
    overrides: Mapping[str, Any] | None = None,
    cache: str | Path | None = None,
    jobs: int = 1,
    backend: str = "loky",
    address: str | None = None,
    progress: bool = True,
) -> Path:
    """Train every variant of the named studies (default: all) for every seed that ``out`` lacks.

    Seeds come first: after the first of them all rows of all studies are there. ``overrides`` are
    fields of the configuration for all variants (``epochs``, ``max_steps``, ``precision``, ...);
    a variant's own fields win. Of the models only teachers are kept, in ``cache`` (that of
    ``train_or_load``). What earlier sources of the package made is kept, with a word about it.

    Raises ``ValueError`` for an unknown study, and for a file of other data or configurations.
    """
    out, data = Path(out), str(data or soundstage_path())
    if unknown := [name for name in studies if name not in STUDIES]:
        raise ValueError(f"unknown study {unknown[0]!r}; there are {', '.join(STUDIES)}")
    store = FeatureStore.open(data)
    wanted = dict.fromkeys(v for name in studies or STUDIES for v in STUDIES[name].values())
    # teachers first and students last, so that nobody waits for a teacher
    order = sorted(wanted, key=lambda v: (VARIANTS[v].teacher is not None, v not in _TEACHERS))
    one = Task(
        variant="paper",
        seed=0,
        data=str(Path(data).resolve()),
        scale=scale,
        overrides=dict(overrides or {}),
        cache=None if cache is None else str(Path(cache).resolve()),
        keep=False,
    )
    log = ResultLog(out)
    lines = log.read()
    for line in lines.itertuples():
        if line.store != store.digest:
            raise ValueError(
                f"{out} holds results on other data (store {line.store}) than {data}; choose "
                "another file, or delete it"
            )
        known = line.variant in VARIANTS
        if known and line.config != one.of(line.variant, int(line.seed)).settings().digest():
            raise ValueError(
                f"{out} holds results of another configuration ({line.variant!r}, seed {line.seed}"
                f": {line.config}) than asked for; choose another file, or delete it"
            )
    done = set(zip(lines["variant"], lines["seed"].astype(int), strict=True))
    todo = [one.of(v, seed) for seed in seeds for v in order if (v, seed) not in done]
    if progress and (old := set(lines["sources"]) - {source_digest()}):
        print(
            f"{out}: {len(lines)} lines are kept that earlier sources of the package made "
            f"({', '.join(sorted(old))}); delete the file to train all of them again",
            file=sys.stderr,
        )
    call = partial(_logged, repeat, log)  # whoever finishes a training files it
    found = each(call, todo, jobs=jobs, backend=backend, address=address)
    for _ in tqdm(found, total=len(todo), unit="training", disable=None if progress else True):
        pass
    return out


# --- how it is read -------------------------------------------------------------------------------


def results(study: str = "", *, path: str | Path = "", protocol: str = "chosen") -> pd.DataFrame:
    """The lines of a result file: of one study with its row labels in the column ``row``, in the
    study's order, or (``""``) of all variants. ``protocol`` "" keeps all three protocols.

    Measures are fractions, 0 to 1. Raises ``FileNotFoundError`` without a file, ``ValueError`` for
    an unknown study, and for a file whose lines do not belong together.
    """
    log = ResultLog(path or results_path())
    if not log.path.is_file():
        raise FileNotFoundError(
            f"no result file {log.path}; make it with: python -m avadclip_lite study"
        )
    frame = log.read()
    numbers = [name for name in frame if name not in {*log.ABOUT} - {"seed", "epoch"}]
    frame[numbers] = frame[numbers].apply(pd.to_numeric)
    if protocol:
        frame = frame[frame["protocol"] == protocol]
    if not study:
        return frame.assign(row=frame["variant"]).reset_index(drop=True)
    if study not in STUDIES:
        raise ValueError(f"unknown study {study!r}; there are {', '.join(STUDIES)}")
    parts = [frame[frame["variant"] == v].assign(row=row) for row, v in STUDIES[study].items()]
    return pd.concat(parts, ignore_index=True)


def table(frame: pd.DataFrame, measures: Sequence[str], *, digits: int = 1) -> pd.DataFrame:
    """Mean and standard deviation over seeds of each measure, percent, as text; one line a row of
    the study in its order, with the number of seeds. Of protocols only one may be in ``frame``."""
    if frame["protocol"].nunique() > 1:
        raise ValueError("a table shows one protocol; choose one with results(..., protocol=...)")

    def shown(values: pd.Series) -> str:
        spread = f" ± {PERCENT * values.std(ddof=1):.{digits}f}" if len(values) > 1 else ""
        return f"{PERCENT * values.mean():.{digits}f}{spread}"

    groups = frame.groupby("row", sort=False)
    columns = {measure: groups[measure].agg(shown) for measure in measures}
    return pd.DataFrame({**columns, "seeds": groups["seed"].nunique()})


@dataclass(frozen=True, kw_only=True)
class Paired:
    """The difference of two rows of a study, seed by seed, in points (percent)."""

    row: str
    against: str
    measure: str
    differences: np.ndarray  # (seeds,), row minus against
    mean: float
    low: float  # 95 % interval of the mean, Student's t
    high: float
    same_videos: bool  # a seed's two trainings saw the same videos in the same order

    @property
    def wins(self) -> int:
        """Seeds on which ``row`` is higher."""
        return int((self.differences > 0).sum())

    @property
    def verdict(self) -> str:
        """ "higher", "lower", or "not distinguishable" where the interval holds zero."""
        if self.low > 0:
            return "higher"
        return "lower" if self.high < 0 else "not distinguishable"

    def __str__(self) -> str:
        return (
            f"{self.row} - {self.against}: {self.mean:+.1f} points [{self.low:+.1f}, "
            f"{self.high:+.1f}], higher on {self.wins} of {len(self.differences)} seeds: "
            f"{self.verdict}"
            + " (trained on other videos, in another order)"
            * (not self.same_videos)
        )


def paired(frame: pd.DataFrame, row: str, against: str, measure: str) -> Paired:
    """Compare two rows on the seeds that both have.

    The interval is scipy's of the paired t-test, mean ± t(0.975, n - 1) s / sqrt(n) with the
    standard deviation s of the per-seed differences: what the two variants of a seed have in common
    (which videos were held out, the order of the batches) cancels. Raises ``ValueError`` for fewer
    than two common seeds.
    """
    both = frame[frame["row"].isin([row, against])]
    wide = PERCENT * both.pivot(index="seed", columns="row", values=measure)
    wide = wide.reindex(columns=[row, against]).dropna()
    if len(wide) < 2:
        raise ValueError(f"{row!r} and {against!r} have fewer than two seeds in common")
    interval = ttest_rel(wide[row], wide[against]).confidence_interval(0.95)
    differences = (wide[row] - wide[against]).to_numpy()
    known = [VARIANTS[v] for v in both.get("variant", pd.Series()).unique() if v in VARIANTS]
    return Paired(
        row=row,
        against=against,
        measure=measure,
        differences=differences,
        mean=float(differences.mean()),
        low=float(interval.low),
        high=float(interval.high),
        same_videos=len({_curriculum(v.settings(scale="soundstage", seed=0)) for v in known}) <= 1,
    )


def _curriculum(settings: Config) -> tuple[Any, ...]:
    """What decides which videos a seed trains on, and in which order."""
    train, data = settings.train, settings.data
    held_out = train.holdout_share if train.selection == "holdout" else 0.0
    return held_out, train.batch_size, data.crops, data.length_aware


# --- command line ---------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``python -m avadclip_lite study``."""
    parser.description = (
        "Train the variants of the ablation studies over several seeds. Run again to go on after "
        "an interruption, or to add seeds."
    )
    parser.add_argument("studies", nargs="*", help=f"which ones: {', '.join(STUDIES)} (all)")
    parser.add_argument("--data", default="", help="the feature store (the Soundstage that ships)")
    parser.add_argument("--scale", default="soundstage", help="soundstage or xd (soundstage)")
    parser.add_argument("--seeds", type=int, default=10, help="seeds 0 to N-1 (%(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="the result file, CSV")
    add_worker_arguments(parser, "trainings")
    add_field_argument(parser)


def main(args: argparse.Namespace) -> int:
    """Run the studies, then print their tables. Bad input raises ``ValueError``."""
    if args.seeds < 1:
        raise ValueError(f"--seeds must be at least 1, got {args.seeds}")
    given = {name: getattr(args, name) for name in ("studies", "data", "scale", "jobs", "backend")}
    how = {"address": args.address, "overrides": chosen_fields(args)}
    run_study(args.out, seeds=range(args.seeds), **given, **how)
    for name in args.studies or STUDIES:
        for protocol in PROTOCOLS if name == "protocols" else PROTOCOLS[:1]:
            frame = results(name, path=args.out, protocol=protocol)
            print(f"\n{name}, epoch: {protocol}; percent, mean ± standard deviation")
            print(table(frame, SHOWN).to_string())
    return 0
