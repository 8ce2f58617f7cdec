"""Trainings repeated over seeds, side by side: what the ablations of the notebooks rest on.

    python -m avadclip_lite study --out data/studies/soundstage.csv --seeds 10 --jobs 2

A *variant* is a configuration with a name, a *study* a list of variants to be read together; both
stand in ``studies.toml``. For one seed, every variant of form ``paper`` is trained on the same
videos in the same order, so that two of them can be compared seed by seed (``paired``). Form
``released`` holds no training video out and batches them otherwise: trainings of the two forms see
other videos in another order, and ``paired`` says so.

Trainings spread over the cores (``--jobs``) or over a cluster (``--backend dask --address``)
whose workers see the same files. Whoever finishes one adds it to the result file at once, so that
an interrupted study goes on where it stopped. A file holds one setup (scale, fields given for all
variants) on one store, and a line is a test of one training. Its ``protocol`` says of which epoch:

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

from avadclip_lite.config import Config, make_config, results_path, soundstage_path
from avadclip_lite.dataset import FeatureStore
from avadclip_lite.evaluate import evaluate
from avadclip_lite.experiments.cache import source_digest, train_or_load
from avadclip_lite.experiments.files import write_atomically
from avadclip_lite.experiments.train_command import add_field_argument, chosen_fields
from avadclip_lite.features.parallel import add_worker_arguments, parallel_map
from avadclip_lite.train import SHOWN, fit

PROTOCOLS = ("chosen", "last", "best on test")
PERCENT = 100.0
_WATCHED = "test_of_epoch_"  # numbers of every epoch in a training's history


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A named configuration: ``form``, ``role`` and the fields that differ from their defaults.

    A student (``role`` "vision" or "audio") with a distillation loss learns from ``teacher``, the
    name of another variant, trained from the same seed. ``every_epoch`` asks for the protocols
    "last" and "best on test" as well, which takes an evaluation after each epoch.
    """

    form: str = "paper"
    role: str = "audio_visual"
    teacher: str | None = None
    every_epoch: bool = False
    fields: Mapping[str, Any] = field(default_factory=dict)

    def settings(self, *, scale: str, seed: int, **overrides: Any) -> Config:
        """The configuration of this variant at a scale, for a seed."""
        chosen = overrides | {**self.fields, "seed": seed}
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
    scale: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    cache: str | None = None  # of trained models; None: the one of ``train_or_load``
    keep: bool = True  # the model goes to the cache; a teacher's always does, for its students

    def settings(self, **other: Any) -> Config:
        """The configuration that is trained, or would be with another ``variant`` or ``seed``."""
        task = replace(self, **other)
        fields = {k: tuple(v) if isinstance(v, list) else v for k, v in task.overrides.items()}
        return VARIANTS[task.variant].settings(scale=task.scale, seed=task.seed, **fields)

    @property
    def setup(self) -> str:
        """What all trainings of a result file share: the digest of the variant "paper", seed 0."""
        return self.settings(variant="paper", seed=0).digest()


def repeat(task: Task) -> list[dict[str, Any]]:
    """Train a task and test it: one entry a protocol, ready for the result file. The same task
    gives the same numbers on the same machine; elsewhere the rounding of matrix products differs,
    which training amplifies."""
    variant, settings, store = VARIANTS[task.variant], task.settings(), FeatureStore.open(task.data)
    precision = settings.train.precision
    began = time.perf_counter()

    def watch(model: Any) -> dict[str, float]:
        metrics = evaluate(model, store, precision=precision).metrics
        return {_WATCHED + name: value for name, value in metrics.items()}

    def options(of: Variant) -> dict[str, Any]:
        return {"progress": False, "watch": watch if of.every_epoch else None}

    how = options(variant)
    if variant.teacher is not None:  # watched, too: its student may be the first to train it
        theirs, watched = task.settings(variant=variant.teacher), options(VARIANTS[variant.teacher])
        how["teacher"] = train_or_load(theirs, store, cache=task.cache, **watched).model
    if task.keep or task.variant in _TEACHERS:
        result = train_or_load(settings, store, cache=task.cache, **how)
    else:
        result = fit(settings, store, **how)
    if variant.every_epoch and not all(map(_seen, result.history)):
        result = fit(settings, store, **how)  # somebody trained some of it without looking
    chosen = evaluate(result.model, store, precision=precision).metrics
    found = {"chosen": (result.chosen_epoch, chosen)}
    if variant.every_epoch:
        epochs = [_seen(entry) for entry in result.history]
        branch = "alignment" if "frame_ap_alignment" in chosen else "classification"
        best = int(np.argmax([metrics[f"frame_ap_{branch}"] for metrics in epochs]))
        found |= {"last": (len(epochs), epochs[-1]), "best on test": (best + 1, epochs[best])}
    about = {"variant": task.variant, "seed": task.seed, "config": settings.digest()}
    about |= {"setup": task.setup, "store": store.digest, "sources": source_digest()}
    about |= {"torch": torch.__version__.split("+")[0]}
    about |= {"seconds": round(time.perf_counter() - began, 1)}
    return [
        {**about, "protocol": protocol, "epoch": epoch}
        | {name: round(value, 6) for name, value in metrics.items() if _is_kept(name)}
        for protocol, (epoch, metrics) in found.items()
    ]


def _seen(entry: Mapping[str, float]) -> dict[str, float]:
    """What an epoch's test gave; nothing if nobody looked."""
    return {k.removeprefix(_WATCHED): v for k, v in entry.items() if k.startswith(_WATCHED)}


def _is_kept(name: str) -> bool:
    """The measures that go to the file: no counts, and of single classes the averages only."""
    if name in ("videos", "snippets", "frames"):
        return False
    return "@" not in name or name.startswith(("map_anomaly", "map_with_normal"))


# --- the result file ------------------------------------------------------------------------------


class ResultLog:
    """The result file of a study: text, one line a test. Any number of processes may add to it;
    each replaces the whole file in one step, so that it is never half of anything."""

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
            lines[[*self.ABOUT]]
        except (ValueError, KeyError) as error:  # pandas' own are of these kinds
            raise ValueError(
                f"{self.path} is no result file of a study, or of an earlier version's ({error}); "
                "choose another file"
            ) from None
        for column, what in (("store", "data"), ("setup", "configuration")):
            if len(found := sorted(set(lines[column]))) > 1:
                raise ValueError(
                    f"{self.path} mixes results of more than one {what} ({column} "
                    f"{', '.join(found)}); keep a file for each"
                )
        return lines

    def add(self, new: Sequence[Mapping[str, Any]]) -> None:
        """Add the lines of one training; those that it had of the same are replaced."""
        key, ranks = ["variant", "seed", "protocol"], [*VARIANTS, *PROTOCOLS]

        def order(column: pd.Series) -> pd.Series:
            if column.name == "seed":
                return column.astype(int)
            return column.map({name: k for k, name in enumerate(ranks)}).fillna(len(ranks))

        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.path.with_name(f".{self.path.name}.lock")):
            lines = pd.concat([self.read(), pd.DataFrame(new).astype(str)]).fillna("")
            lines = lines.drop_duplicates(key, keep="last").sort_values(key, key=order)
            rest = [name for name in lines if name not in self.ABOUT]
            write_atomically(self.path, lines[[*self.ABOUT, *rest]].to_csv(index=False))


def _logged(work: Callable[[Task], list[dict[str, Any]]], log: ResultLog, task: Task) -> None:
    log.add(work(task))


def run_study(
    out: str | Path,
    *,
    studies: Sequence[str] = (),
    data: str | Path = "",
    scale: str = "soundstage",
    seeds: Iterable[int] = range(10),
    overrides: Mapping[str, Any] | None = None,
    cache: str | Path | None = None,
    progress: bool = True,
    **workers: Any,
) -> Path:
    """Train every variant of the named studies (default: all) for every seed that ``out`` lacks.

    Seeds come first: after the first of them all rows of all studies are there. ``overrides`` are
    fields of the configuration for all variants (``epochs``, ``max_steps``, ``precision``, ...);
    a variant's own fields win. Of the models only teachers are kept, in ``cache`` (that of
    ``train_or_load``). What earlier sources of the package made is kept, with a word about it.
    ``workers``: jobs, backend and address, as in ``parallel_map``.

    Raises ``ValueError`` for an unknown study, and for a file of other data or configurations.
    """
    out, data, log = Path(out), str(data or soundstage_path()), ResultLog(out)
    if unknown := [name for name in studies if name not in STUDIES]:
        raise ValueError(f"unknown study {unknown[0]!r}; there are {', '.join(STUDIES)}")
    store = FeatureStore.open(data)
    wanted = dict.fromkeys(v for name in studies or STUDIES for v in STUDIES[name].values())
    # teachers first and students last, so that nobody waits for a teacher
    order = sorted(wanted, key=lambda v: (VARIANTS[v].teacher is not None, v not in _TEACHERS))
    about = {"data": str(Path(data).resolve()), "scale": scale, "overrides": dict(overrides or {})}
    about["cache"] = None if cache is None else str(Path(cache).resolve())
    one, lines = Task(variant="paper", seed=0, keep=False, **about), log.read()
    for line in lines.itertuples():
        if line.store != store.digest:
            raise ValueError(
                f"{out} holds results on other data (store {line.store}) than {data}; choose "
                "another file, or delete it"
            )
        known, seed = line.variant in VARIANTS, int(line.seed)
        if known and line.config != one.settings(variant=line.variant, seed=seed).digest():
            raise ValueError(
                f"{out} holds results of another configuration ({line.variant!r}, seed {seed}: "
                f"{line.config}) than asked for; choose another file, or delete it"
            )
    done = set(zip(lines["variant"], lines["seed"].astype(int), strict=True))
    todo = [(v, seed) for seed in seeds for v in order if (v, seed) not in done]
    if progress and (old := set(lines["sources"]) - {source_digest()}):
        print(
            f"{out}: {len(lines)} lines are kept that earlier sources of the package made "
            f"({', '.join(sorted(old))}); delete the file to train all of them again",
            file=sys.stderr,
        )
    tasks = [replace(one, variant=variant, seed=seed) for variant, seed in todo]
    found = parallel_map(partial(_logged, repeat, log), tasks, **workers)
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
        how = "python -m avadclip_lite study"
        raise FileNotFoundError(f"no result file {log.path}; make it with: {how}")
    if study and study not in STUDIES:
        raise ValueError(f"unknown study {study!r}; there are {', '.join(STUDIES)}")
    frame = log.read()
    numbers = [name for name in frame if name not in {*log.ABOUT} - {"seed", "epoch"}]
    frame[numbers] = frame[numbers].apply(pd.to_numeric)
    if protocol:
        frame = frame[frame["protocol"] == protocol]
    rows = STUDIES[study] if study else {name: name for name in dict.fromkeys(frame["variant"])}
    parts = [frame[frame["variant"] == v].assign(row=row) for row, v in rows.items()]
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
    """The difference of two rows of a study, ``differences (seeds,)`` in points (percent): its mean
    with the interval from ``low`` to ``high`` (95 %, Student's t)."""

    row: str
    against: str
    differences: np.ndarray
    mean: float
    low: float
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
        other = "" if self.same_videos else " (trained on other videos, in another order)"
        return (
            f"{self.row} - {self.against}: {self.mean:+.1f} points [{self.low:+.1f}, "
            f"{self.high:+.1f}], higher on {self.wins} of {len(self.differences)} seeds: "
            f"{self.verdict}{other}"
        )


def paired(frame: pd.DataFrame, row: str, against: str, measure: str) -> Paired:
    """Compare two rows on the seeds that both have.

    The interval is that of the paired t-test, mean ± t(0.975, n - 1) s / sqrt(n) with the standard
    deviation s of the per-seed differences: what the two variants of a seed have in common (which
    videos were held out, the order of the batches) cancels. Raises ``ValueError`` for fewer than
    two common seeds.
    """
    both = frame[frame["row"].isin([row, against])]
    wide = PERCENT * both.pivot(index="seed", columns="row", values=measure)
    wide = wide.reindex(columns=[row, against]).dropna()
    if len(wide) < 2:
        raise ValueError(f"{row!r} and {against!r} have fewer than two seeds in common")
    interval = ttest_rel(wide[row], wide[against]).confidence_interval(0.95)
    known = [VARIANTS[v] for v in both.get("variant", pd.Series()).unique() if v in VARIANTS]
    seen = {_curriculum(variant.settings(scale="soundstage", seed=0)) for variant in known}
    apart = (wide[row] - wide[against]).to_numpy()
    found = {"mean": float(apart.mean()), "low": float(interval.low), "high": float(interval.high)}
    return Paired(row=row, against=against, differences=apart, same_videos=len(seen) < 2, **found)


def _curriculum(settings: Config) -> tuple[Any, ...]:
    """What decides which videos a seed trains on, and in which order."""
    train, data = settings.train, settings.data
    held_out = train.holdout_share if train.selection == "holdout" else 0.0
    return held_out, train.batch_size, data.crops, data.length_aware


# --- command line ---------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``python -m avadclip_lite study``."""
    parser.description = (
        "Train the variants of studies over seeds; run again to go on, or add seeds."
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
    names = ("studies", "data", "scale", "jobs", "backend", "address")
    given = {name: getattr(args, name) for name in names}
    run_study(args.out, seeds=range(args.seeds), overrides=chosen_fields(args), **given)
    for name in args.studies or STUDIES:
        for protocol in PROTOCOLS if name == "protocols" else PROTOCOLS[:1]:
            frame = results(name, path=args.out, protocol=protocol)
            print(f"\n{name}, epoch: {protocol}; percent, mean ± standard deviation")
            print(table(frame, [m for m in SHOWN if m in frame]).to_string())
    return 0
