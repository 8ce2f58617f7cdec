"""Trainings repeated over seeds, side by side: what the ablations of the notebooks rest on.

    python -m avadclip_lite study main --out FILE --grid         # choose each row's learning rate
    python -m avadclip_lite study main --out FILE --arrival      # is it trained to the end?
    python -m avadclip_lite study main --out FILE --seeds 10 --jobs 2
    python -m avadclip_lite study main --out FILE --compare      # the comparisons of main
    python -m avadclip_lite study field --out OTHER --data STORE --scale xd

A *variant* is a configuration with a name, a *study* a list of variants to be read together; both
stand in ``studies.toml``. The study "field" holds every earlier system by its own recipe
(``baselines.configure``), with each of the senses that it takes. For one seed, every variant of
form ``paper`` is trained on the same videos in the same order, so that two of them can be compared
seed by seed (``paired``). Form ``released`` and the earlier systems hold out or batch otherwise.

Trainings spread over the cores (``--jobs``). Each is filed as soon as it is finished, so that an
interrupted study goes on where it stopped. A file holds one setup (scale, fields given for all
variants) on one store; a line is a test of one training, at its own rate, or the one that a grid
chose (the file beside it, ..._tuning.csv). Its ``protocol`` says of which epoch: ``chosen``, the
one kept by held-out training videos in form ``paper``, by the test set in form ``released``;
``last``; ``best on test``, the one with the highest test AP of the alignment branch (of the other
in a detector that has none), which is optimistic. Another file beside it, ..._videos.csv, holds the
AP of the chosen epochs on test videos drawn again, for intervals (module ``comparisons``).

    frame = results("fusion")                              # of the file that ships
    table(frame, ["frame_ap_classification", "map_anomaly"])  # mean and standard deviation, percent
    paired(frame, "adaptive", "addition", "frame_ap_alignment")  # the difference, seed by seed
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from filelock import FileLock
from joblib import Parallel, delayed
from scipy.stats import ttest_rel
from tqdm import tqdm

from avadclip_lite.baselines import SYSTEMS, configure
from avadclip_lite.config import Config, make_config, resolved, soundstage_path
from avadclip_lite.dataset import FeatureStore
from avadclip_lite.evaluate import Report, evaluate
from avadclip_lite.experiments import graphs
from avadclip_lite.experiments.cache import source_digest, train_or_load
from avadclip_lite.experiments.comparisons import MEASURE, RESAMPLED, compare, judge, resampled_ap
from avadclip_lite.experiments.files import results_path, write_atomically
from avadclip_lite.experiments.train_command import add_field_argument, chosen_fields
from avadclip_lite.model import Detector
from avadclip_lite.train import SHOWN, FitResult, Watch, fit

PROTOCOLS = ("chosen", "last", "best on test")
# The protocols of tuning: factors of a variant's own learning rate, each also for LONGER. Judged on
# training videos that are held out, by their weak labels alone (``train.video_level``, of the epoch
# that is best by it), on seeds that no study uses; nobody looks at the test split. Students learn
# from teachers at the middle rate.
RATES = {"rate / 3": 1 / 3, "rate": 1.0, "rate x 3": 3.0}
LONGER = ", twice the epochs"
TUNING_SEEDS = (1001, 1002, 1003)
HELD_OUT = {"holdout_share": 0.25, "selection": "holdout"}
COSTS = ("parameters", "seconds")  # of a training; "seconds" of its epochs, all told
# measures that go to the file: no counts, and of single classes the averages over IoU alone
_KEPT = re.compile("frame_|positive_share|map_anomaly|map_with_normal|map_[^@]*$")


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A named configuration: ``form``, ``role`` and the fields that differ from their defaults; or
    an earlier ``system``, with fields that differ from its recipe.
    A student (``role`` "vision" or "audio") with a distillation loss learns from ``teacher``, the
    name of another variant, trained from the same seed. ``every_epoch`` asks for the protocols
    "last" and "best on test" as well, which takes an evaluation after each epoch."""

    form: str = "paper"
    role: str = "audio_visual"
    system: str = ""
    teacher: str | None = None
    every_epoch: bool = False
    fields: Mapping[str, Any] = field(default_factory=dict)

    def settings(self, *, scale: str, seed: int, **overrides: Any) -> Config:
        """The configuration of this variant at a scale, for a seed."""
        chosen = overrides | {**self.fields, "seed": seed}
        if self.system:
            return configure(self.system, scale=scale, **chosen)
        return make_config(form=self.form, scale=scale, role=self.role, **chosen)


def _field() -> Iterator[tuple[str, Variant]]:
    for name, system in SYSTEMS.items():
        for takes in system.takes.split(", "):
            modality = "vision" if takes == "vision" else "audio_visual"
            options = {} if name == "vadclip" else {"options": {"modality": modality}}
            yield f"{name}, {takes}", Variant(system=name, fields=options)


_FILE = tomllib.loads(Path(__file__).with_name("studies.toml").read_text(encoding="utf-8"))
VARIANTS: Mapping[str, Variant] = {k: Variant(**v) for k, v in _FILE["variants"].items()}
VARIANTS |= dict(_field())
STUDIES: Mapping[str, Mapping[str, str]] = _FILE["studies"]  # label of a row: its variant
COMPARISONS: Mapping[str, Sequence[str]] = _FILE["comparisons"]  # claim: row and row of "main"
STUDIES["field"] = {name: name for name, _ in _field()} | STUDIES["field"]
USUAL = tuple(name for name in STUDIES if name != "field")  # where none is named
_TEACHERS = {variant.teacher for variant in VARIANTS.values()} - {None}


# --- how it is trained ----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Task:
    """One training; plain, because it travels to other processes."""

    variant: str
    seed: int
    data: str | Path
    scale: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    cache: str | Path | None = None  # of trained models; None: the one of ``train_or_load``
    keep: bool = True  # the model goes to the cache; a teacher's always does, for its students
    rates: Mapping[str, float] = field(default_factory=dict)  # by variant: factor of its rate
    protocol: str = PROTOCOLS[0]  # as which it is filed; one of tuning decides rate and length

    def settings(self, **other: Any) -> Config:
        """The configuration that is trained, or would be with another ``variant`` or ``seed``."""
        task = replace(self, **other)
        fields = {k: tuple(v) if isinstance(v, list) else v for k, v in task.overrides.items()}
        settings = VARIANTS[task.variant].settings(scale=task.scale, seed=task.seed, **fields)
        train, options = settings.train, dict(settings.options)
        longer = 2 if task.protocol.endswith(LONGER) else 1
        factor = task.rates.get(task.variant, 1.0)
        factor = RATES.get(task.protocol.removesuffix(LONGER), factor)
        if "steps" in options:
            options["steps"] *= longer
        changed = {
            "epochs": train.epochs * longer,
            "milestones": tuple(epoch * longer for epoch in train.milestones),
            "max_steps": train.max_steps * longer,
            "learning_rate": train.learning_rate * factor,
        }
        return resolved(replace(settings, options=options).override(**changed))

    @property
    def setup(self) -> str:
        """What all trainings of a result file share: the digest of the variant "paper", seed 0."""
        return self.settings(variant="paper", seed=0, rates={}, protocol=PROTOCOLS[0]).digest()


def trained(task: Task, store: FeatureStore, watch: Watch | None = None) -> FitResult:
    """Train a task, after its teacher. What ``watch`` sees of every epoch is in the history."""
    settings, how = task.settings(), {"progress": False}
    if teacher := VARIANTS[task.variant].teacher:
        theirs = task.settings(variant=teacher, protocol=PROTOCOLS[0])
        how["teacher"] = train_or_load(theirs, store, cache=task.cache, **how).model
    if task.keep or task.variant in _TEACHERS:
        result = train_or_load(settings, store, cache=task.cache, watch=watch, **how)
        if watch is None or all(MEASURE in entry for entry in result.history):
            return result  # else a student or a notebook trained some of it without looking
    return fit(settings, store, watch=watch, steps=graphs.steps, **how)


def tested(model: Detector, store: FeatureStore) -> Report:
    """A detector on the test split, in the precision that it was trained in."""
    return evaluate(model, store, precision=model.settings.train.precision)


def about(task: Task, store: FeatureStore, result: FitResult) -> dict[str, Any]:
    """What a line of a result file says of a training, but for what it measured."""
    settings, state = task.settings(), result.model.trainable_state()
    line = {"variant": task.variant, "seed": task.seed, "config": settings.digest()}
    line |= {"setup": task.setup, "store": store.digest, "sources": source_digest()}
    line |= {"torch": torch.__version__.split("+")[0], "rate": settings.train.learning_rate}
    line |= {"parameters": sum(tensor.numel() for tensor in state.values())}
    return line | {"seconds": round(result.seconds, 1)}


def repeat(task: Task) -> list[dict[str, Any]]:
    """Train a task and test it: one entry a protocol, for the file, that of "chosen" with its AP on
    test videos drawn again. A task gives the same numbers again on the same machine; elsewhere
    rounding differs, which training amplifies."""
    store = FeatureStore.open(task.data)
    every_epoch = VARIANTS[task.variant].every_epoch
    watch = (lambda model: tested(model, store).metrics) if every_epoch else None
    result = trained(task, store, watch)
    report = tested(result.model, store)
    found = {"chosen": report.metrics | {"epoch": result.chosen_epoch}}
    if every_epoch:
        branch = "alignment" if "frame_ap_alignment" in report.metrics else "classification"
        best = max(result.history, key=lambda epoch: epoch[f"frame_ap_{branch}"])
        found |= {"last": result.history[-1], "best on test": best}
    line = about(task, store, result)
    lines = [
        {**line, "protocol": protocol, "epoch": int(metrics["epoch"])}
        | {name: round(value, 6) for name, value in metrics.items() if _KEPT.match(name)}
        for protocol, metrics in found.items()
    ]
    again = resampled_ap(report.predictions, store).round(4).tolist()
    lines[0] |= dict(zip(RESAMPLED, again, strict=True))
    return lines


# --- the result file ------------------------------------------------------------------------------


REMEDY = "choose another file, or delete it"
ABOUT = tuple("variant seed protocol epoch config setup store sources torch seconds".split())


def read_lines(path: str | Path) -> pd.DataFrame:
    """All lines of a result file, one a test, as text; none where there is no file. Raises
    ``ValueError`` for a file that is no study's, or mixes results of several setups or data."""
    if not Path(path).exists():
        return pd.DataFrame(columns=[*ABOUT])
    lines = pd.read_csv(path, dtype=str, keep_default_na=False)
    if missing := [name for name in ABOUT if name not in lines]:
        what = f"is no result file of a study, or of an earlier version's: no {missing[0]!r}"
        raise ValueError(f"{path} {what}; choose another file")
    for column, what in (("store", "data"), ("setup", "configuration")):
        if lines[column].nunique() > 1:
            what = f"mixes results of more than one {what}, by its column {column!r}"
            raise ValueError(f"{path} {what}; keep a file for each")
    return lines


def add_lines(path: str | Path, new: Sequence[Mapping[str, Any]]) -> None:
    """Add the lines of one training; those that the file had of the same are replaced. Any number
    of processes may do so; each replaces the whole file in one step: it is never half of one."""
    path, key = Path(path).resolve(), ["variant", "seed", "protocol"]
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        lines = pd.concat([read_lines(path), pd.DataFrame(new).astype(str)]).fillna("")
        lines = lines.drop_duplicates(key, keep="last").sort_values(key, key=_order)
        write_atomically(path, lines.to_csv(index=False))


def _order(column: pd.Series) -> pd.Series:
    """What a column is sorted by: seeds as numbers, protocols as listed before those of tuning."""
    listed = {name: str(k) for k, name in enumerate(PROTOCOLS)}
    return column.astype(int) if column.name == "seed" else column.replace(listed)


def beside(out: str | Path, what: str) -> Path:
    """The file of a study beside its own: "tuning" or "videos"."""
    return Path(out).with_name(f"{Path(out).stem}_{what}.csv")


def _file(work: Callable[[Task], list[dict[str, Any]]], path: Path, task: Task) -> None:
    """File a training, what is known of other test videos first: no line of ``path`` lacks it."""
    lines = work(task)
    for line in (line for line in lines if RESAMPLED[0] in line):
        add_lines(beside(path, "videos"), [{k: line[k] for k in (*ABOUT, *RESAMPLED)}])
    add_lines(path, [{k: x for k, x in line.items() if k not in RESAMPLED} for line in lines])


def _own_lines(file: Path, one: Task, store: FeatureStore) -> pd.DataFrame:
    """All lines of a file, which must be of these data, and of the setup of a task."""
    lines = read_lines(file)
    own = {"store": (store.digest, "other data"), "setup": (one.setup, "another configuration")}
    for column, (value, what) in own.items():
        if set(lines[column]) - {value}:
            raise ValueError(f"{file} holds results of {what} than asked for; {REMEDY}")
    return lines


def _rates(
    out: Path, one: Task, store: FeatureStore, variants: list[str], other: Path | None
) -> dict[str, float]:
    """The rates that the grid beside ``out`` chose, which must be whole, and of this setup; or that
    beside ``other``, the study of other data."""
    file, chosen = beside(other or out, "tuning"), chosen_rates(other or out)
    needed = other is not None
    if not needed:
        tuned = _own_lines(file, replace(one, overrides={**one.overrides, **HELD_OUT}), store)
        needed = "rate x 3" in set(tuned["protocol"])
    if needed and (lacking := [name for name in variants if name not in chosen]):
        raise ValueError(f"{file} lacks rates of {lacking[0]!r}; run --grid again first")
    return chosen


def run_study(
    out: str | Path,
    *,
    studies: Sequence[str] = (),
    data: str | Path = "",
    scale: str = "soundstage",
    seeds: Iterable[int] = range(10),
    overrides: Mapping[str, Any] | None = None,
    cache: str | Path | None = None,
    jobs: int = 1,
    grid_of: Path | None = None,
    tuning: Callable[[str], Iterable[str]] | None = None,
) -> Path:
    """Train every variant of the named studies (default: all but "field") for every seed that
    ``out`` lacks: all rows of the first seed come first. ``overrides`` are fields of the
    configuration for all variants (``epochs``, ``max_steps``, ...); a variant's own fields win. Of
    the models only teachers are kept, in ``cache`` (that of ``train_or_load``). What earlier
    sources of the package made is kept, with a word about it. ``jobs``: trainings at a time. Each
    is at the rate of the grid beside ``out``, or beside ``grid_of``, a study of other data; or
    ``tuning`` gives a variant's protocols. ``ValueError``: unknown study, file of other data."""
    if unknown := [name for name in studies if name not in STUDIES]:
        raise ValueError(f"unknown study {unknown[0]!r}; there are {', '.join(STUDIES)}")
    out, store = Path(out).resolve(), FeatureStore.open(data or soundstage_path())
    wanted = dict.fromkeys(v for name in studies or USUAL for v in STUDIES[name].values())
    # teachers first and students last, so that nobody waits for a teacher
    order = sorted(wanted, key=lambda v: (VARIANTS[v].teacher is not None, v not in _TEACHERS))
    same = {"data": store.path.resolve(), "scale": scale, "overrides": dict(overrides or {})}
    one = Task(variant="paper", seed=0, keep=False, cache=cache and Path(cache).resolve(), **same)
    if not tuning:
        one = replace(one, rates=_rates(out, one, store, order, grid_of))
    tasks = [
        replace(one, variant=variant, seed=seed, protocol=protocol)
        for seed in seeds
        for variant in order
        for protocol in (tuning(variant) if tuning else PROTOCOLS[:1])
    ]
    lines, _ = (_own_lines(file, one, store) for file in (out, beside(out, "videos")))
    filed = {(x.variant, int(x.seed), x.protocol): x.config for x in lines.itertuples()}
    todo = []
    for task in tasks:
        config = filed.get((task.variant, task.seed, task.protocol))
        if config is None:
            todo.append(task)
        elif config != task.settings().digest():
            told = f"another configuration than asked for ({task.variant!r}, seed {task.seed})"
            raise ValueError(f"{out} holds results of {told}; {REMEDY}")
    if old := set(lines["sources"]) - {source_digest()}:
        told = f"that earlier sources of the package made ({', '.join(sorted(old))})"
        print(f"{out}: {len(lines)} lines are kept {told}", file=sys.stderr)
    each = delayed(partial(_file, tune if tuning else repeat, out))
    found = Parallel(jobs, batch_size=1, return_as="generator")(map(each, todo))
    for _ in tqdm(found, total=len(todo), unit="training", disable=None):  # in no terminal
        pass
    return out


# --- learning rates, and whether trainings have arrived -------------------------------------------


def tune(task: Task) -> list[dict[str, Any]]:
    """Train a task and judge it by the videos that it held out, for the file."""
    store = FeatureStore.open(task.data)
    result = trained(task, store)
    held_out = result.history[result.chosen_epoch - 1]["holdout_criterion"]
    line = about(task, store, result) | {"protocol": task.protocol, "epoch": result.chosen_epoch}
    return [line | {"holdout": round(held_out, 6)}]


def grid(out: str | Path, **given: Any) -> pd.DataFrame:
    """Train rows at their rate, a third and three times of it; the best factor, by variant."""
    _tune(out, lambda variant: RATES, given)
    return pd.DataFrame({"factor of the learning rate": chosen_rates(out)})


def arrival(out: str | Path, **given: Any) -> pd.DataFrame:
    """Train every row at its chosen rate, and twice as long. By variant, in points: the mean change
    of the held-out measure, its standard error, and whether it stays within one point plus two
    standard errors. The level is not told. The best epoch of twice as many is never worse but by
    another shuffling, so that the change errs on the side of training more."""
    names = {factor: protocol for protocol, factor in RATES.items()}
    chosen = {variant: names[factor] for variant, factor in chosen_rates(out).items()}

    def both(variant: str) -> list[str]:
        once = chosen.get(variant, "rate")
        return [once, once + LONGER]

    _tune(out, both, given)
    rows = {}
    for variant, measured in _held_out(out):
        once, twice = 100 * measured.reindex(columns=both(variant)).dropna().to_numpy().T
        if len(once):
            change = pd.Series(twice - once)
            mean, error = change.mean(), change.sem()
            rows[variant] = {"change": mean, "error": error, "arrived": mean <= 1 + 2 * error}
    return pd.DataFrame.from_dict(rows, orient="index").round(2)


def chosen_rates(out: str | Path) -> dict[str, float]:
    """The factor of each variant's learning rate by the grid beside a study's file: that of the
    middle rate where its mean is within one standard error of the best, else of the best."""
    found = {}
    for variant, measured in _held_out(out):
        measured = measured.reindex(index=TUNING_SEEDS, columns=list(RATES))
        if measured.notna().all(axis=None):
            mean, best = measured.mean(), measured.mean().idxmax()
            near = mean["rate"] >= mean[best] - measured[best].sem()
            found[variant] = 1.0 if near else RATES[best]
    return found


def _tune(out: str | Path, protocols: Callable[[str], Iterable[str]], given: dict) -> None:
    overrides = {**(given.get("overrides") or {}), **HELD_OUT}
    given = given | {"seeds": TUNING_SEEDS, "overrides": overrides}
    run_study(beside(out, "tuning"), tuning=protocols, **given)


def _held_out(out: str | Path) -> Iterator[tuple[str, pd.DataFrame]]:
    """Of each variant the held-out measure of every training so far, (seeds, protocols)."""
    lines = read_lines(beside(out, "tuning"))
    lines = lines.assign(**{k: pd.to_numeric(lines.get(k)) for k in ("seed", "holdout")})
    for name, group in lines.groupby("variant", sort=False):
        yield name, group.pivot(index="seed", columns="protocol", values="holdout")


# --- how it is read -------------------------------------------------------------------------------


def results(
    study: str = "", *, path: str | Path = "", protocol: str = "chosen", videos: bool = False
) -> pd.DataFrame:
    """The lines of a result file: of one study with its row labels in the column ``row``, in the
    study's order, or (``""``) of all variants. ``protocol`` "" keeps all three protocols.
    ``videos`` adds the columns RESAMPLED of ..._videos.csv, NaN where that lacks this training.
    Measures are fractions, 0 to 1. Raises ``FileNotFoundError`` without a file, ``ValueError`` for
    an unknown study, and for a file whose lines do not belong together."""
    path = Path(path or results_path())
    if not path.is_file():
        told = "make it with: python -m avadclip_lite study"
        raise FileNotFoundError(f"no result file {path}; {told}")
    if study and study not in STUDIES:
        raise ValueError(f"unknown study {study!r}; there are {', '.join(STUDIES)}")
    frame = read_lines(path)
    if videos:
        again = read_lines(beside(path, "videos")).reindex(columns=[*ABOUT, *RESAMPLED])
        frame = frame.merge(again, "left", [*ABOUT])
    told = {*ABOUT} - {"seed", "epoch", "seconds"}
    frame = pd.DataFrame({k: v if k in told else pd.to_numeric(v) for k, v in frame.items()})
    frame = frame[frame["protocol"] == protocol] if protocol else frame
    rows = STUDIES[study] if study else {name: name for name in dict.fromkeys(frame["variant"])}
    parts = [frame[frame["variant"] == v].assign(row=row) for row, v in rows.items()]
    return pd.concat(parts, ignore_index=True)


def comparisons(*paths: str | Path) -> pd.DataFrame:
    """The comparisons of data/README.md in the study "main", in points, by file and claim: mean
    paired difference, its intervals and p values (``comparisons.intervals``), Holm's, and the
    verdict (``comparisons.judge``). ``paths``: result files (default: the one that ships), one a
    world. Raises ``FileNotFoundError`` without a file, ``ValueError`` where a row or its test on
    videos drawn again is missing, and for two files on the same data."""
    worlds, stores = {}, set()
    for path in map(Path, paths or [results_path()]):
        frame = results("main", path=path, videos=True)
        frame = frame[frame["row"].isin({row for pair in COMPARISONS.values() for row in pair})]
        for lost in frame[frame[RESAMPLED].isna().all(axis=1)].itertuples():
            told = f"lacks the test of {lost.row!r}, seed {lost.seed}; train it into another file"
            raise ValueError(f"{beside(path, 'videos')} {told}")
        worlds[str(path)] = compare(frame, COMPARISONS)
        if not stores.isdisjoint(frame["store"]):
            raise ValueError(f"{path} is on the same data as a file before it, no second world")
        stores.update(frame["store"])
    return judge(worlds)


def table(frame: pd.DataFrame, measures: Sequence[str], *, digits: int = 1) -> pd.DataFrame:
    """Mean and standard deviation over seeds of each measure, percent (but for costs), as text,
    blank where a row does not have it, and the number of seeds; of one protocol only."""
    if frame["protocol"].nunique() > 1:
        raise ValueError("a table shows one protocol; choose one with results(..., protocol=...)")

    def shown(values: pd.Series) -> str:
        if values.name in COSTS or values.isna().all():
            return "" if values.isna().all() else f"{values.mean():,.0f}"
        spread = f" ± {100 * values.std(ddof=1):.{digits}f}" if len(values) > 1 else ""
        return f"{100 * values.mean():.{digits}f}{spread}"

    groups = frame.groupby("row", sort=False)
    columns = {measure: groups[measure].agg(shown) for measure in measures}
    return pd.DataFrame({**columns, "seeds": groups["seed"].nunique()})


class Paired(NamedTuple):
    """The difference of two rows of a study, ``differences (seeds,)`` in points (percent): its mean
    with the interval from ``low`` to ``high`` (95 %, Student's t), and the ``verdict``: "higher",
    "lower", or "not distinguishable" where the interval holds zero. It prints as ``told``."""

    differences: np.ndarray
    mean: float
    low: float
    high: float
    verdict: str
    told: str

    def __str__(self) -> str:
        return self.told


def paired(frame: pd.DataFrame, row: str, against: str, measure: str) -> Paired:
    """Compare two rows on the seeds that both have. The interval is that of the paired t-test,
    mean ± t(0.975, n - 1) s / sqrt(n) with the standard deviation s of the per-seed differences:
    what both trainings of a seed have in common (held-out videos, order of the batches) cancels.
    Raises ``ValueError`` for fewer than two common seeds."""
    both = frame[frame["row"].isin([row, against])]
    wide = 100 * both.pivot(index="seed", columns="row", values=measure)
    wide = wide.reindex(columns=[row, against]).dropna()
    if len(wide) < 2:
        raise ValueError(f"{row!r} and {against!r} have fewer than two seeds in common")
    apart = (wide[row] - wide[against]).to_numpy()
    mean, (low, high) = apart.mean(), ttest_rel(wide[row], wide[against]).confidence_interval(0.95)
    verdict = "higher" if low > 0 else "lower" if high < 0 else "not distinguishable"
    told = f"{row} - {against}: {mean:+.1f} points [{low:+.1f}, {high:+.1f}], "
    told += f"higher on {(apart > 0).sum()} of {len(apart)} seeds; uncorrected: {verdict}"
    known = [VARIANTS[v] for v in both.get("variant", pd.Series()).unique() if v in VARIANTS]
    if len({_curriculum(variant.settings(scale="soundstage", seed=0)) for variant in known}) > 1:
        told += " (trained on other batches)"
    return Paired(apart, float(mean), float(low), float(high), verdict, told)


def _curriculum(settings: Config) -> tuple[Any, ...]:
    """What decides which videos a seed trains on, and in which order."""
    train, data = settings.train, settings.data
    held_out = train.holdout_share if train.selection == "holdout" else 0.0
    steps = settings.options.get("steps")  # of an earlier system, which cuts batches of its own
    return steps, held_out, train.batch_size, data.crops, data.length_aware


# --- command line ---------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``python -m avadclip_lite study``."""
    parser.description = "Train variants over seeds; run again to go on, or to add seeds."
    add = parser.add_argument
    add("studies", nargs="*", help=f"of {', '.join(STUDIES)} (all but field)")
    add("--data", default="", help="the feature store (the Soundstage that ships)")
    add("--scale", default="soundstage", help="soundstage or xd (soundstage)")
    add("--seeds", type=int, default=10, help="seeds 0 to N-1 (%(default)s)")
    add("--out", type=Path, required=True, help="the result file, CSV")
    told = "on tuning seeds: choose each row's learning rate out of three, for the study in --out"
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--grid", action="store_true", help=told)
    told = "on tuning seeds: by how much twice the epochs change held-out training videos"
    either.add_argument("--arrival", action="store_true", help=told)
    told = "take the rates that the grid of this other study chose, of other data"
    add("--grid-of", type=Path, metavar="FILE", help=told)
    told = "train nothing: the comparisons of main, printed and filed beside --out"
    either.add_argument("--compare", action="store_true", help=told)
    told = "compare in this result file of another world as well, where signs must be the same"
    add("--and", type=Path, action="append", default=[], dest="others", metavar="FILE", help=told)
    add("--jobs", type=int, default=1, help="trainings at a time (%(default)s)")
    add_field_argument(parser)


def main(args: argparse.Namespace) -> int:
    """Run the studies, then print their tables. Bad input raises ``ValueError``."""
    if args.seeds < 1 or args.jobs < 1:
        raise ValueError(f"--seeds and --jobs must be at least 1, got {args.seeds}, {args.jobs}")
    if args.compare or args.others:
        found = comparisons(args.out, *args.others)
        write_atomically(beside(args.out, "comparisons"), found.to_csv())
        print(found.round(3).to_string())
        return 0
    given = {name: getattr(args, name) for name in ("studies", "data", "scale", "jobs")}
    given |= {"overrides": chosen_fields(args)}
    if own := sorted({"seed", "scale"} & given["overrides"].keys()):
        raise ValueError(f"{own[0]!r} is the study's to set: --seeds and --scale say which")
    if args.grid or args.arrival:
        print((grid if args.grid else arrival)(args.out, **given).to_string())
        return 0
    run_study(args.out, seeds=range(args.seeds), grid_of=args.grid_of, **given)
    for name in args.studies or USUAL:
        for protocol in PROTOCOLS if name == "protocols" else PROTOCOLS[:1]:
            frame = results(name, path=args.out, protocol=protocol)
            print(f"\n{name}, epoch: {protocol}; percent, mean ± standard deviation")
            print(table(frame, [m for m in (*SHOWN, *COSTS) if m in frame]).to_string())
    return 0
