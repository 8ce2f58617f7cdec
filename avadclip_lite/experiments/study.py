"""Trainings repeated over seeds, side by side: what the ablations of the notebooks rest on.

    python -m avadclip_lite study --out data/studies/soundstage.csv --seeds 10 --jobs 2
    python -m avadclip_lite study fusion ukd --data STORE --scale xd --seeds 3 --out runs/xd.csv

A *variant* is a configuration with a name, a *study* a list of variants to be read together. Every
variant of a seed is trained on the same videos, in the same order, from the same seed, so that two
of them can be compared seed by seed (``paired``). Trainings are independent of each other: they
spread over the cores (``--jobs``) or over a cluster (``--backend dask|ray --address ...``). Each
finished training is written at once, so that an interrupted study goes on where it stopped, and
a variant that two studies share is trained once.

One line of the result file is one evaluation of one training on the test split. ``protocol`` says
of which epoch:

- ``chosen``: the one that the variant's own rule keeps, by held-out training videos in form
  ``paper``, by the test set in form ``released``;
- ``last``: the last one;
- ``best on test``: the one with the highest test AP of the alignment branch. Optimistic.

    frame = results("fusion")                              # of the file that ships
    table(frame, ["ap_classification", "map_six_avg"])     # mean and standard deviation, percent
    paired(frame, "adaptive", "addition", "ap_alignment")  # the difference, seed by seed
"""

from __future__ import annotations

import argparse
import csv
import io
import math
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
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
from avadclip_lite.features.parallel import add_worker_arguments, each
from avadclip_lite.train import add_field_argument, chosen_fields, fit, source_digest, trained

if TYPE_CHECKING:
    import pandas

__all__ = [
    "STUDIES",
    "VARIANTS",
    "Paired",
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


def _teacher(**fields: Any) -> Variant:
    return Variant(fields=fields)


def _student(role: Role, **fields: Any) -> Variant:
    teacher = None if fields.get("ukd") == "none" else "paper"
    return Variant(role=role, teacher=teacher, fields=fields)


# a student's trunk made the teacher's, and nothing of the paper's own parts
_PLAIN_SIGHT = {"ukd": "none", "blocks": 2, "window": 4, "enhancement_blocks": 0}
_NO_PARTS = {"av_prompt": "none", "alignment": "cross_entropy"}
_RELEASED_UKD = {"ukd": "released", "variance_head": "bounded", "ukd_mask": False}

VARIANTS: Mapping[str, Variant] = MappingProxyType(
    {
        "paper": Variant(every_epoch=True),
        # parts
        "sight alone, no parts": Variant(role="vision", fields=_PLAIN_SIGHT | _NO_PARTS),
        "concatenation, no parts": _teacher(fusion="concat", **_NO_PARTS),
        "fusion": _teacher(**_NO_PARTS),
        "fusion, prompt": _teacher(alignment="cross_entropy"),
        # kinds of fusion
        "cross attention": _teacher(fusion="cross_attention"),
        "addition": _teacher(fusion="add"),
        "concatenation": _teacher(fusion="concat"),
        "ear both ways": _teacher(audio_context="both"),
        "addition, ear both ways": _teacher(fusion="add", audio_context="both"),
        # students
        "vision": _student("vision", ukd="none"),
        "vision, mse": _student("vision", ukd="mse"),
        **{
            f"vision, UKD x {weight:g}": _student("vision", ukd_weight=weight)
            for weight in (1e-8, 1e-6, 1e-4, 1e-2, 1e-1)
        },
        "vision, UKD x 1": Variant(role="vision", teacher="paper", every_epoch=True),
        "vision, released UKD x 1e-08": _student("vision", ukd_weight=1e-8, **_RELEASED_UKD),
        "vision, released UKD x 1": _student("vision", ukd_weight=1.0, **_RELEASED_UKD),
        "audio": _student("audio", ukd="none"),
        "audio, mse": _student("audio", ukd="mse"),
        "audio, UKD x 1": _student("audio"),
        # prompts
        "no prompt": _teacher(av_prompt="none"),
        "uniform": _teacher(av_prompt="uniform"),
        "logits": _teacher(global_weight="logit"),
        "skip from sum": _teacher(prompt_skip="sum"),
        "released prompt": _teacher(av_prompt="uniform", global_weight="logit", prompt_skip="sum"),
        "sharp": _teacher(prompt_temperature=0.1),
        "bare words": _teacher(context_before=0, context_after=0),
        # alignment
        "K = 1": _teacher(topk_divisor=1_000),
        "K = T/4 + 1": _teacher(topk_divisor=4),
        "K = T": _teacher(topk_divisor=1),
        "no alignment loss": _teacher(alignment="none"),
        # the release
        "released": Variant(form="released", every_epoch=True),
        "released, vision": Variant(
            form="released", role="vision", teacher="released", every_epoch=True
        ),
    }
)

_TEACHERS = {variant.teacher for variant in VARIANTS.values()} - {None}

# Studies: the label of a row, and the variant that it shows.
STUDIES: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "parts": {
            "sight alone": "sight alone, no parts",
            "concatenation": "concatenation, no parts",
            "+ adaptive fusion": "fusion",
            "+ audio-visual prompt": "fusion, prompt",
            "+ focal loss": "paper",
        },
        "fusion": {
            "cross attention": "cross attention",
            "addition": "addition",
            "concatenation": "concatenation",
            "adaptive": "paper",
            "adaptive, ear both ways": "ear both ways",
            "addition, ear both ways": "addition, ear both ways",
            "vision only": "vision",
            "audio only": "audio",
        },
        "prompts": {
            "paper": "paper",
            "no audio-visual prompt": "no prompt",
            "uniform weights": "uniform",
            "raw logits": "logits",
            "skip from the sum": "skip from sum",
            "all three, as released": "released prompt",
            "sharper softmax (0.1)": "sharp",
            "bare words, nothing learned": "bare words",
        },
        "align": {
            "paper": "paper",
            "no focal loss": "fusion, prompt",
            "no alignment loss": "no alignment loss",
            "K = 1 (the maximum)": "K = 1",
            "K = T/4 + 1": "K = T/4 + 1",
            "K = T (the mean)": "K = T",
        },
        "ukd": {
            "vision only": "vision",
            "vision only, MSE": "vision, mse",
            "vision only, UKD x 1e-08": "vision, UKD x 1e-08",
            "vision only, UKD x 1e-06": "vision, UKD x 1e-06",
            "vision only, UKD x 0.0001": "vision, UKD x 0.0001",
            "vision only, UKD x 0.01": "vision, UKD x 0.01",
            "vision only, UKD x 0.1": "vision, UKD x 0.1",
            "vision only, UKD x 1": "vision, UKD x 1",
            "vision only, released UKD x 1e-08": "vision, released UKD x 1e-08",
            "vision only, released UKD x 1": "vision, released UKD x 1",
            "audio only": "audio",
            "audio only, MSE": "audio, mse",
            "audio only, UKD x 1": "audio, UKD x 1",
            "audio-visual": "paper",
        },
        "protocols": {
            "teacher, form paper": "paper",
            "vision-only student, form paper": "vision, UKD x 1",
            "teacher, form released": "released",
            "vision-only student, form released": "released, vision",
        },
    }
)


# --- how it is trained ----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Task:
    """One training; plain, because it travels to other processes."""

    variant: str
    seed: int
    data: str
    scale: Scale
    overrides: Mapping[str, Any] = field(default_factory=dict)
    cache: str | None = None  # of trained models; None: the one of ``train.trained``
    keep: bool = True  # the model goes to the cache; a teacher's always does, for its students

    def settings(self) -> Config:
        return VARIANTS[self.variant].settings(
            scale=self.scale, seed=self.seed, **_overrides(self.overrides)
        )

    @property
    def key(self) -> tuple[str, int, str]:
        return self.variant, self.seed, self.settings().digest()


def _overrides(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}


def repeat(task: Task) -> list[dict[str, Any]]:
    """Train a task and test it: one entry a protocol, ready for the result file.

    The same task gives the same numbers on the same machine; on another one the rounding of matrix
    products differs, which training amplifies.
    """
    variant, settings = VARIANTS[task.variant], task.settings()
    store = FeatureStore.open(task.data)
    teacher = None
    if variant.teacher is not None:
        theirs = Task(**{**vars(task), "variant": variant.teacher}).settings()
        teacher = trained(theirs, store, cache=task.cache, progress=False).model
    precision = settings.train.precision
    began = time.perf_counter()

    def watch(model: Any) -> dict[str, float]:
        metrics = evaluate(model, store, precision=precision).metrics
        return {_WATCHED + name: value for name, value in metrics.items()}

    how = {"teacher": teacher, "progress": False, "watch": watch if variant.every_epoch else None}
    if task.keep or task.variant in _TEACHERS:
        result = trained(settings, store, cache=task.cache, **how)
    else:
        result = fit(settings, store, **how)
    if variant.every_epoch and _WATCHED + "ap_alignment" not in result.history[0]:
        result = fit(settings, store, **how)  # somebody trained it without looking
    chosen = evaluate(result.model, store, precision=precision).metrics
    found = {"chosen": (result.chosen_epoch, chosen)}
    if variant.every_epoch:
        epochs = [
            {k.removeprefix(_WATCHED): v for k, v in entry.items() if k.startswith(_WATCHED)}
            for entry in result.history
        ]
        best = int(np.argmax([metrics["ap_alignment"] for metrics in epochs]))
        found["last"] = (len(epochs), epochs[-1])
        found["best on test"] = (best + 1, epochs[best])
    about = {
        "variant": task.variant,
        "seed": task.seed,
        "config": settings.digest(),
        "store": store.digest,
        "sources": source_digest(),
        "torch": torch.__version__.split("+")[0],
        "seconds": round(time.perf_counter() - began, 1),
    }
    return [
        {**about, "protocol": protocol, "epoch": epoch} | _kept(metrics)
        for protocol, (epoch, metrics) in found.items()
    ]


_ABOUT = ("variant", "seed", "protocol", "epoch", "config", "store", "sources", "torch", "seconds")


def _kept(metrics: Mapping[str, float]) -> dict[str, float]:
    """The measures that go to the file: no counts, and of single classes the averages only."""
    return {
        name: round(value, 6)
        for name, value in metrics.items()
        if name not in ("videos", "snippets", "frames")
        and ("@" not in name or name.startswith(("map_six", "map_seven")))
    }


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
    ``train.trained``). Raises ``ValueError`` for an unknown study, and for a file made on other
    data.
    """
    out, data = Path(out), str(data or soundstage_path())
    unknown = [name for name in studies if name not in STUDIES]
    if unknown:
        raise ValueError(f"unknown study {unknown[0]!r}; there are {', '.join(STUDIES)}")
    digest = FeatureStore.open(data).digest
    wanted = [v for name in studies or STUDIES for v in STUDIES[name].values()]
    # teachers first and students last, so that nobody waits for a teacher
    order = sorted(
        dict.fromkeys(wanted), key=lambda v: (VARIANTS[v].teacher is not None, v not in _TEACHERS)
    )
    tasks = [
        Task(
            variant=variant,
            seed=seed,
            data=data,
            scale=scale,
            overrides=dict(overrides or {}),
            cache=None if cache is None else str(cache),
            keep=False,
        )
        for seed in seeds
        for variant in order
    ]
    lines = _read(out) if out.is_file() else []
    for line in lines:
        if line["store"] != digest:
            raise ValueError(
                f"{out} holds results on other data (store {line['store']}) than {data}; "
                "choose another file, or delete it"
            )
    done = {(line["variant"], int(line["seed"]), line["config"]) for line in lines}
    todo = [task for task in tasks if task.key not in done]
    old = {line["sources"] for line in lines} - {source_digest()}
    if old and progress:
        print(
            f"{out}: {len(lines)} lines are kept that earlier sources of the package made "
            f"({', '.join(sorted(old))}); delete the file to train all of them again",
            file=sys.stderr,
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    found = each(repeat, todo, jobs=jobs, backend=backend, address=address)
    for new in tqdm(found, total=len(todo), unit="training", disable=None if progress else True):
        lines += new
        _write(out, lines)
    return out


def _read(path: Path) -> list[dict[str, Any]]:
    with path.open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    if lines and not set(_ABOUT) <= set(lines[0]):
        missing = sorted(set(_ABOUT) - set(lines[0]))
        raise ValueError(f"{path} is no result file of a study: it lacks the column {missing[0]!r}")
    return lines


def _write(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """The whole file, sorted, replaced in one step."""
    names = [*_ABOUT, *dict.fromkeys(k for line in lines for k in line if k not in _ABOUT)]
    rank = {name: k for k, name in enumerate(VARIANTS)}
    ordered = sorted(
        lines,
        key=lambda line: (
            rank.get(line["variant"], len(rank)),
            int(line["seed"]),
            PROTOCOLS.index(line["protocol"]),
        ),
    )
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(ordered)
    part = path.with_name(path.name + ".part")
    part.write_text(text.getvalue(), encoding="utf-8")
    os.replace(part, path)


# --- how it is read -------------------------------------------------------------------------------


def results(
    study: str = "", *, path: str | Path = "", protocol: str = "chosen"
) -> pandas.DataFrame:
    """The lines of a result file: of one study with its row labels in the column ``row``, in the
    study's order, or (``""``) of all variants. ``protocol`` "" keeps all three protocols.

    Measures are fractions, 0 to 1. Raises ``FileNotFoundError`` without a file, ``ValueError`` for
    an unknown study.
    """
    import pandas as pd

    path = Path(path or results_path())
    if not path.is_file():
        raise FileNotFoundError(
            f"no result file {path}; make it with: python -m avadclip_lite study"
        )
    frame = pd.read_csv(path, dtype={"config": str, "store": str, "sources": str, "torch": str})
    if protocol:
        frame = frame[frame["protocol"] == protocol]
    if not study:
        return frame.assign(row=frame["variant"]).reset_index(drop=True)
    if study not in STUDIES:
        raise ValueError(f"unknown study {study!r}; there are {', '.join(STUDIES)}")
    parts = [frame[frame["variant"] == v].assign(row=row) for row, v in STUDIES[study].items()]
    return pd.concat(parts, ignore_index=True)


def table(frame: pandas.DataFrame, measures: Sequence[str], *, digits: int = 1) -> pandas.DataFrame:
    """Mean and standard deviation over seeds of each measure, percent, as text; one line a row of
    the study in its order, with the number of seeds. Of protocols only one may be in ``frame``."""
    import pandas as pd

    if frame["protocol"].nunique() > 1:
        raise ValueError("a table shows one protocol; choose one with results(..., protocol=...)")

    def shown(values: pandas.Series) -> str:
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
        )


def paired(frame: pandas.DataFrame, row: str, against: str, measure: str) -> Paired:
    """Compare two rows on the seeds that both have.

    The interval is mean ± t(0.975, n - 1) s / sqrt(n) with the standard deviation s of the
    per-seed differences: what all variants of a seed have in common (which videos were held out,
    the order of the batches) cancels. Raises ``ValueError`` for fewer than two common seeds.
    """
    from scipy.stats import t

    def column(name: str) -> pandas.Series:
        return frame.loc[frame["row"] == name].set_index("seed")[measure]

    both = (PERCENT * (column(row) - column(against))).dropna().sort_index()
    if len(both) < 2:
        raise ValueError(f"{row!r} and {against!r} have fewer than two seeds in common")
    n, mean = len(both), float(both.mean())
    half = float(t.ppf(0.975, n - 1)) * float(both.std(ddof=1)) / math.sqrt(n)
    return Paired(
        row=row,
        against=against,
        measure=measure,
        differences=both.to_numpy(),
        mean=mean,
        low=mean - half,
        high=mean + half,
    )


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
    run_study(
        args.out,
        studies=args.studies,
        data=args.data,
        scale=args.scale,
        seeds=range(args.seeds),
        overrides=chosen_fields(args),
        jobs=args.jobs,
        backend=args.backend,
        address=args.address,
    )
    for name in args.studies or STUDIES:
        for protocol in PROTOCOLS if name == "protocols" else PROTOCOLS[:1]:
            frame = results(name, path=args.out, protocol=protocol)
            print(f"\n{name}, epoch: {protocol}; percent, mean ± standard deviation")
            measures = ["ap_classification", "ap_alignment", "map_six_avg", "map_seven_avg"]
            print(table(frame, measures).to_string())
    return 0
