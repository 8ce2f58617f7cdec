"""``python -m avadclip_lite bench``: how long training takes here, at the size of XD-Violence.

Features and labels are synthetic; the lengths of videos, their crops and their clips of one film
are as in XD-Violence's training list: 3,954 videos in ten crops, lengths with a mean near 182 and a
median near 128 snippets, cut at 256. Two things are measured:

- *steps*: those of ``train``, on its own batches. The achieved rate is counted operations over
  measured seconds, beside the rate of a large matrix product on the same device in the same run:
  nothing made of matrix products can be faster than that.
- *fit*: what a user waits for, from an open store to the best weights on the disk: packing the
  store into bags, steps, judging the epochs on the held-out videos, checkpoints. On a CPU a small
  share of the videos for one epoch, and beside it what follows for all of them.

``--release CHECKOUT`` times the authors' own step beside ours of form ``released``.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import math
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from avadclip_lite import train
from avadclip_lite.config import (
    CROPS,
    XD_CLASSES,
    XD_STRIDE,
    Config,
    add_device_argument,
    find_device,
    make_config,
)
from avadclip_lite.dataset import FeatureStore, TrainingSet, shuffled_batches
from avadclip_lite.encoders import SOUNDSTAGE_DIM, TextTower, WordPrompts, load_text
from avadclip_lite.experiments import graphs
from avadclip_lite.features.writer import StoreWriter
from avadclip_lite.model import Detector, build
from avadclip_lite.train import TrainingRun, fit
from tools.bench_release import measure_release

__all__ = [
    "FitTiming",
    "StepTiming",
    "add_arguments",
    "main",
    "matmul_rate",
    "measure_fit",
    "measure_steps",
    "synthetic_bags",
    "synthetic_store",
    "synthetic_text",
    "training_run",
]

XD_TRAIN_VIDEOS = 3_954
XD_EPOCHS = 10
MEAN_LENGTH, MEDIAN_LENGTH = 182, 128  # snippets, of XD-Violence's test videos
CLIPS_A_FILM = 2  # of the training videos: 65 % share a film with another
WARM_UP, COUNTED = 3, 4  # steps before the timed ones, steps whose operations are counted
KINDS = (("paper", "bf16"), ("paper", "float32"), ("released", "float32"))
ROLES = {"audio_visual": "teacher", "vision": "student"}


# --- synthetic features ---------------------------------------------------------------------------


def synthetic_store(folder: Path, *, videos: int, crops: int, dim: int) -> FeatureStore:
    """A store of ``videos`` training videos, each in ``crops`` crops; features are windows of one
    long noise (snippets, ``dim``), because drawing all of them would take longer than a training.
    """
    rng = np.random.default_rng(0)
    spread = math.sqrt(2 * math.log(MEAN_LENGTH / MEDIAN_LENGTH))
    lengths = rng.lognormal(math.log(MEDIAN_LENGTH), spread, videos).astype(np.int64) + 1
    noise = rng.standard_normal((2 * int(lengths.max()) + 1024, dim), np.float32).astype(np.float16)

    def window(length: int) -> np.ndarray:
        start = int(rng.integers(0, len(noise) - length))
        return noise[start : start + length]

    with StoreWriter(
        folder, classes=XD_CLASSES, dim=dim, stride=XD_STRIDE, encoder="random", dtype="float16"
    ) as writer:
        for number, length in enumerate(lengths.tolist()):
            code = XD_CLASSES.codes[int(rng.integers(0, len(XD_CLASSES)))]
            name = f"Film{number // CLIPS_A_FILM}__#{number}_label_{code}"
            audio = window(length)
            for crop in range(crops):
                writer.add(
                    name=name,
                    label=code,
                    split="train",
                    crop=crop,
                    video=window(length),
                    audio=audio,
                )
        writer.finish()
    return FeatureStore.open(folder)


def synthetic_bags(
    settings: Config, *, videos: int, crops: int, device: str = "cpu"
) -> TrainingSet:
    """The bags of a synthetic store, packed for ``settings`` and moved to ``device``."""
    with tempfile.TemporaryDirectory() as folder:
        store = synthetic_store(
            Path(folder) / "store", videos=videos, crops=crops, dim=settings.model.dim
        )
        return TrainingSet(store, store.indices("train"), settings).to(device)


def synthetic_text(dim: int) -> tuple[TextTower, WordPrompts]:
    """The text tower for synthetic features: the tiny one where it has their width, else CLIP's
    architecture with random weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it says that its words mean nothing
        which = "soundstage" if dim == SOUNDSTAGE_DIM else "random"
        return load_text(which, XD_CLASSES.words, dim=dim)


def _teacher(settings: Config, text: tuple[TextTower, WordPrompts]) -> Detector | None:
    """An untrained teacher, which costs what a trained one does; None where there is none."""
    if settings.model.role == "audio_visual" or settings.loss.ukd == "none":
        return None
    fields = {"dim": settings.model.dim, "fusion_heads": settings.model.fusion_heads}
    return build(make_config(form=settings.form, scale=settings.scale, **fields), *text)


def training_run(settings: Config, device: torch.device) -> TrainingRun:
    """A run that is about to take its first step on ``device``."""
    torch.manual_seed(settings.train.seed)
    text = synthetic_text(settings.model.dim)
    model = build(settings, *text).to(device)
    teacher = _teacher(settings, text)
    if teacher is not None:
        model.distil_from(teacher)
    model.train()
    return TrainingRun(settings, model, device, graphs.steps)


# --- measuring ------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class StepTiming:
    """What one kind of training step costs."""

    name: str
    step_ms: float  # median over the timed steps
    operations: float  # that torch dispatches a step, views aside: what a GPU's host has to launch
    tflop: float  # a step, counted, mean of a few
    tflop_per_second: float
    ceiling_tflop_per_second: float  # of a large matrix product in the same precision
    waiting_share: float  # of the time, for the next batch
    peak_gib: float  # device memory, features included; NaN on a CPU

    def line(self) -> str:
        return (
            f"{self.name:26s}{self.step_ms:9.1f}{self.operations:8.0f}{self.tflop:8.3f}{self.tflop_per_second:9.2f}"
            f"{self.ceiling_tflop_per_second:9.2f}{100 * self.waiting_share:8.1f}%"
            f"{self.peak_gib:7.2f}"
        )


@dataclass(frozen=True, kw_only=True)
class FitTiming:
    """Seconds of one ``fit``, from the open store to the best weights in the run's folder."""

    name: str
    videos: int
    epochs: int
    seconds: float
    parts: dict[str, float]  # seconds of each of ``PARTS``
    extrapolated_seconds: float  # to all of XD-Violence and ten epochs

    def line(self) -> str:
        parts = "".join(f"{self.parts[name]:12.1f}" for name in PARTS)
        rest = self.seconds - sum(self.parts.values())
        return (
            f"{self.name:26s}{self.seconds:9.1f}{parts}{rest:8.1f}"
            f"{self.videos:8d}{self.epochs:8d}{self.extrapolated_seconds:10.0f}"
        )


PARTS = {  # what fit's seconds go into: (owner, attribute)
    "packing": (train, "TrainingSet"),
    "moving": (train, "_resident"),
    "training": (TrainingRun, "one_epoch"),
    "holdout": (train, "video_level"),
    "checkpoints": (TrainingRun, "save"),
}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matmul_rate(device: torch.device, precision: str, size: int = 0) -> float:
    """TFLOP/s of a square matrix product on random data, the best of several."""
    size = size or (8192 if device.type == "cuda" else 2048)
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(size, size, device=device, dtype=kind) for _ in range(2))
    best = math.inf
    for _ in range(6):
        _wait(device)
        began = time.perf_counter()
        a @ b
        _wait(device)
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best / 1e12


class Dispatched(TorchDispatchMode):
    """Counts the operations that torch dispatches while this is open, views aside."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not func.is_view
        return func(*args, **kwargs or {})


def measure_steps(name: str, settings: Config, bags: TrainingSet, *, steps: int) -> StepTiming:
    """Time training steps of ``settings`` on ``bags``, wherever those are."""
    device = bags.device
    run = training_run(settings, device)
    queue = run.model.batches(bags, run.shuffling)
    while len(queue) < WARM_UP + COUNTED + steps:
        queue += run.model.batches(bags, run.shuffling)
    if device.type == "cuda":
        gc.collect()  # a run and its step hold each other
        torch.cuda.reset_peak_memory_stats(device)
    for index in queue[:WARM_UP]:
        run.one_step(bags.batch(index))
    dispatched, flop = Dispatched(), 0
    for batch in map(bags.batch, queue[WARM_UP : WARM_UP + COUNTED]):
        for _ in range(graphs.CHECKS if run.captured else 0):
            run.one_step(batch)
        with FlopCounterMode(display=False) as counter, dispatched:
            run.one_step(batch)
        if run.captured:  # a graph's work does not show, that of the eager step does
            with FlopCounterMode(display=False) as counter:
                run.backward(batch)
        flop += counter.get_total_flops()
    tflop = flop / COUNTED / 1e12
    timed, took, waited = queue[WARM_UP + COUNTED :][:steps], [], []
    for index in timed * (graphs.CHECKS if run.captured else 0):  # before they are timed
        run.one_step(bags.batch(index))
    for index in timed:
        _wait(device)
        began = time.perf_counter()
        batch = bags.batch(index)
        _wait(device)
        waited.append(time.perf_counter() - began)
        run.one_step(batch)
        _wait(device)
        took.append(time.perf_counter() - began)
    step = float(np.median(took))
    return StepTiming(
        name=name,
        step_ms=1e3 * step,
        operations=dispatched.count / COUNTED,
        tflop=tflop,
        tflop_per_second=tflop / step,
        ceiling_tflop_per_second=matmul_rate(device, settings.train.precision),
        waiting_share=sum(waited) / sum(took),
        peak_gib=torch.cuda.max_memory_allocated(device) / 2**30
        if device.type == "cuda"
        else math.nan,
    )


@contextlib.contextmanager
def _clocked(device: torch.device) -> Iterator[dict[str, float]]:
    """Seconds spent in each of ``PARTS`` while this is open."""
    spent = dict.fromkeys(PARTS, 0.0)

    def clocked(name: str, call: Any) -> Any:
        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return call(*args, **kwargs)
            finally:
                _wait(device)
                spent[name] += time.perf_counter() - began

        return timed

    with contextlib.ExitStack() as stack:
        for name, (owner, attribute) in PARTS.items():
            call = getattr(owner, attribute)
            stack.enter_context(mock.patch.object(owner, attribute, clocked(name, call)))
        yield spent


def measure_fit(name: str, settings: Config, store: FeatureStore) -> FitTiming:
    """Time one ``fit`` of ``settings`` on a synthetic store, checkpoints included."""
    device = find_device(settings.train.device)
    tower, prompts = synthetic_text(settings.model.dim)
    teacher = _teacher(settings, (tower, prompts))
    with tempfile.TemporaryDirectory() as folder, _clocked(device) as parts:
        began = time.perf_counter()
        result = fit(
            settings,
            store,
            text=tower,
            prompts=prompts,
            teacher=teacher,
            out=Path(folder) / "run",
            steps=graphs.steps,
        )
        seconds = time.perf_counter() - began
    videos, epochs = len(set(store.video_ids)), len(result.history)
    scale = XD_TRAIN_VIDEOS * CROPS / len(store)
    least = min(entry["seconds"] for entry in result.history)  # others capture steps as well
    each_epoch = least * scale + parts["checkpoints"] / epochs
    first = parts["training"] + parts["holdout"] - epochs * least
    once = (parts["packing"] + parts["moving"]) * scale + seconds - sum(parts.values()) + first
    return FitTiming(
        name=name,
        videos=videos,
        epochs=epochs,
        seconds=seconds,
        parts=parts,
        extrapolated_seconds=once + each_epoch * XD_EPOCHS,
    )


# --- command line ---------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Time training at the size of XD-Violence on synthetic features."
    add_device_argument(parser)
    parser.add_argument("--steps", type=int, default=20, help="timed steps of each kind; 0: none")
    parser.add_argument(
        "--videos", type=int, help=f"training videos of a fit (a GPU {XD_TRAIN_VIDEOS}, a CPU 40)"
    )
    parser.add_argument("--crops", type=int, default=CROPS, help="crops a video (%(default)s)")
    parser.add_argument(
        "--epochs", type=int, help=f"of a fit; 0: no fit (a GPU {XD_EPOCHS}, a CPU 1)"
    )
    parser.add_argument(
        "--only", nargs="*", default=[], help="kinds to time, by part of their name"
    )
    told = "the authors' checkout: their step beside ours, form released"
    parser.add_argument("--release", type=Path, help=told)
    parser.add_argument("--json", type=Path, help="write the numbers to this file as well")


def main(args: argparse.Namespace) -> int:
    """Print the tables; raises ``ValueError`` for a device that is not there."""
    device = find_device(args.device)
    cuda = device.type == "cuda"
    videos = args.videos or (XD_TRAIN_VIDEOS if cuda else 40)
    epochs = (XD_EPOCHS if cuda else 1) if args.epochs is None else args.epochs
    kinds = {
        f"{form} {precision} {label}": {"form": form, "precision": precision, "role": role}
        for form, precision in KINDS
        for role, label in ROLES.items()
    }
    chosen = {n: k for n, k in kinds.items() if not args.only or any(w in n for w in args.only)}
    settings = {
        name: make_config(scale="xd", device=str(device), epochs=max(1, epochs), **fields)
        for name, fields in chosen.items()
    }
    where = torch.cuda.get_device_name(device) if cuda else "CPU"
    print(f"{where}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    steps, fits, theirs = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        store = None
        if settings:
            dim = next(iter(settings.values())).model.dim
            store = synthetic_store(
                Path(folder) / "store", videos=videos, crops=args.crops, dim=dim
            )
        if args.steps and store is not None:
            print(
                f"\n{'a step':26s}{'ms':>9s}{'ops':>8s}{'TFLOP':>8s}{'TFLOP/s':>9s}{'ceiling':>9s}"
                f"{'waiting':>9s}{'GiB':>7s}"
            )
            rows = store.indices("train")[: 4000 if cuda else 400]
            for name, config in settings.items():
                bags = TrainingSet(store, rows, config).to(device)
                steps.append(measure_steps(name, config, bags, steps=args.steps))
                print(steps[-1].line(), flush=True)
                if args.release and config.form == "released":
                    order = shuffled_batches(
                        bags, config.train.batch_size, torch.Generator().manual_seed(0)
                    )
                    queue = order[: args.steps + 1]
                    theirs.append(
                        measure_release(args.release, config.model.role, store, bags, queue)
                    )
                    step, loading = theirs[-1].step_ms, theirs[-1].loading_ms
                    ratio = step / steps[-1].step_ms
                    print(
                        f"{'  the authors, ' + ROLES[config.model.role]:26s}{step:9.1f}  "
                        f"{ratio:.1f} times ours, and {loading:.1f} ms to load a batch",
                        flush=True,
                    )
        if epochs and store is not None:
            heads = "".join(f"{part:>12s}" for part in PARTS)
            print(
                f"\n{'a fit, seconds':26s}{'all':>9s}{heads}{'rest':>8s}{'videos':>8s}"
                f"{'epochs':>8s}{'XD':>10s}"
            )
            for name, config in settings.items():
                config = config.override(selection="holdout", reload_best=False)
                fits.append(measure_fit(name, config, store))
                print(fits[-1].line(), flush=True)
            print(
                f"XD: extrapolated to {XD_TRAIN_VIDEOS} videos, {CROPS} crops, {XD_EPOCHS} epochs"
            )
    if args.json:
        numbers = {
            "device": where,
            "torch": torch.__version__,
            "steps": [asdict(row) for row in steps],
            "release": [asdict(row) for row in theirs],
            "fits": [asdict(row) for row in fits],
        }
        args.json.write_text(json.dumps(numbers, indent=1), encoding="utf-8")
    return 0
