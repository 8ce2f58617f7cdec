"""``python -m avadclip_lite bench``: how fast training runs here, at the size of XD-Violence.

Features, lengths and labels are synthetic (nothing is read from disk), but their number and their
lengths are those of XD-Violence's training list: 3,954 videos in ten crops, 39,540 bags, lengths
with a mean near 182 and a median near 128 snippets, cut at 256. The steps are those of ``train``:
the same batches, losses and optimiser.

The achieved rate is counted operations over measured seconds, and stands beside the rate of a large
matrix product measured on the same device in the same run: nothing made of matrix products can be
faster than that.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
import warnings
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from avadclip_lite.config import CROPS, XD_CLASSES, Config, make_config
from avadclip_lite.dataset import TrainingSet
from avadclip_lite.encoders import load_text
from avadclip_lite.model import build
from avadclip_lite.train import FrozenTeacher, TrainingRun, shuffled_batches

__all__ = ["Timing", "add_arguments", "main", "matmul_rate", "measure", "prepare", "synthetic_bags"]

XD_TRAIN_VIDEOS = 3_954
MEAN_LENGTH, MEDIAN_LENGTH = 182, 128  # snippets, of XD-Violence's test videos
COUNTED_STEPS = 4


class _Bags(TrainingSet):
    """Training bags that never were in a store."""

    def __init__(self, settings: Config, videos: int, crops: int, device: torch.device) -> None:
        rng = np.random.default_rng(0)
        dim, most = settings.model.dim, settings.model.max_snippets
        spread = math.sqrt(2 * math.log(MEAN_LENGTH / MEDIAN_LENGTH))
        lengths = rng.lognormal(math.log(MEDIAN_LENGTH), spread, videos).astype(np.int64)
        lengths = lengths.clip(1, most)
        audio_start = np.cumsum(lengths) - lengths
        spans = np.empty((4, videos * crops), np.int64)
        spans[1] = spans[3] = lengths.repeat(crops)
        spans[0] = np.cumsum(spans[1]) - spans[1]
        spans[2] = audio_start.repeat(crops)
        self.rows = np.arange(videos * crops)
        self.max_snippets, self.length_aware = most, settings.data.length_aware
        labels = np.eye(len(XD_CLASSES), dtype=np.float32)[rng.integers(0, len(XD_CLASSES), videos)]
        self.labels = torch.from_numpy(labels.repeat(crops, axis=0)).to(device)
        generator = torch.Generator(device).manual_seed(0)

        def packed(count: int) -> torch.Tensor:
            out = torch.randn(count + 1, dim, generator=generator, device=device)
            out[-1] = 0.0
            return out

        self._video, self._audio = packed(int(spans[1].sum())), packed(int(lengths.sum()))
        self._spans = torch.from_numpy(spans).to(device)
        self._host_lengths = torch.from_numpy(spans[1])
        self.lengths = self._spans[1]
        self.device = device


def synthetic_bags(
    settings: Config, *, videos: int = XD_TRAIN_VIDEOS, crops: int = CROPS, device: str = "cpu"
) -> TrainingSet:
    """Random features as a ``TrainingSet`` on ``device``; crops of a video share its audio."""
    return _Bags(settings, videos, crops, torch.device(device))


@dataclass(frozen=True, kw_only=True)
class Timing:
    """What one kind of training step costs."""

    name: str
    step_ms: float  # median over the timed steps
    steps_per_second: float
    tflop_per_step: float  # counted, mean of a few steps
    tflop_per_second: float
    ceiling_tflop_per_second: float  # of a large matrix product in the same precision
    waiting_share: float  # of the time, for the next batch
    peak_gib: float  # device memory, features included; NaN on a CPU
    epochs_seconds: float  # of the configured epochs
    epochs_measured: bool  # else: extrapolated from the median step


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


def prepare(
    settings: Config, device: torch.device, *, text: str = "random"
) -> tuple[TrainingRun, FrozenTeacher | None]:
    """A run that is about to take its first step, and the teacher that its student learns from.

    That teacher is untrained, which costs what a trained one does.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # random text weights: nothing here means anything
        tower, prompts = load_text(text, XD_CLASSES.words, dim=settings.model.dim)
    torch.manual_seed(settings.train.seed)
    teacher = None
    if settings.model.role != "audio_visual" and settings.loss.ukd != "none":
        audio_visual = make_config(form=settings.form, scale=settings.scale)
        teacher = FrozenTeacher(build(audio_visual, tower, prompts)).to(device)
    run = TrainingRun(settings, build(settings, tower, prompts).to(device), device)
    run.model.train()
    return run, teacher


def measure(
    name: str,
    settings: Config,
    bags: TrainingSet,
    *,
    steps: int,
    warm_up: int = 3,
    full: bool = False,
) -> Timing:
    """Time training steps of ``settings`` on ``bags``, wherever those are.

    ``full`` runs all of the configured epochs after the timed steps and reports their wall time.
    """
    device = bags.device
    run, teacher = prepare(settings, device)
    queue = shuffled_batches(bags, settings.train.batch_size, run.shuffling)
    while len(queue) < warm_up + steps + COUNTED_STEPS:
        queue += shuffled_batches(bags, settings.train.batch_size, run.shuffling)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    for index in queue[:warm_up]:
        run.one_step(bags.batch(index), teacher)
    counted = queue[warm_up : warm_up + COUNTED_STEPS]
    with FlopCounterMode(display=False) as counter:
        for index in counted:
            run.one_step(bags.batch(index), teacher)
    tflop = counter.get_total_flops() / len(counted) / 1e12

    timed = queue[warm_up + COUNTED_STEPS : warm_up + COUNTED_STEPS + steps]
    took, waited = [], []
    for index in timed:
        _wait(device)
        began = time.perf_counter()
        batch = bags.batch(index)
        _wait(device)
        waited.append(time.perf_counter() - began)
        run.one_step(batch, teacher)
        _wait(device)
        took.append(time.perf_counter() - began)
    per_epoch = -(-len(bags) // settings.train.batch_size)
    seconds = float(np.median(took)) * per_epoch * settings.train.epochs
    if full:
        _wait(device)
        began = time.perf_counter()
        for _ in range(settings.train.epochs):
            run.one_epoch(bags, teacher, tqdm(disable=True))
        _wait(device)
        seconds = time.perf_counter() - began
    peak = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else math.nan
    step = seconds / per_epoch / settings.train.epochs if full else float(np.median(took))
    return Timing(
        name=name,
        step_ms=1e3 * step,
        steps_per_second=1 / step,
        tflop_per_step=tflop,
        tflop_per_second=tflop / step,
        ceiling_tflop_per_second=matmul_rate(device, settings.train.precision),
        waiting_share=sum(waited) / sum(took),
        peak_gib=peak,
        epochs_seconds=seconds,
        epochs_measured=full,
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Time training steps at the size of XD-Violence on synthetic features."
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda (default: auto)")
    parser.add_argument("--steps", type=int, default=20, help="timed steps of each kind")
    parser.add_argument("--videos", type=int, default=XD_TRAIN_VIDEOS, help="training videos")
    parser.add_argument("--crops", type=int, default=CROPS, help="crops a video")
    parser.add_argument(
        "--full", action="store_true", help="run all ten epochs, do not extrapolate"
    )
    parser.add_argument(
        "--only", nargs="*", default=[], help="kinds to time, by part of their name"
    )
    parser.add_argument("--json", help="write the numbers to this file as well")


def main(args: argparse.Namespace) -> int:
    """Print the table; raises ``ValueError`` for a device that is not there."""
    name = args.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"--device {name}: torch finds no GPU here; try --device cpu")
    device = torch.device(name)
    rows = []
    for form, precision in (("paper", "bf16"), ("paper", "float32"), ("released", "float32")):
        bags = None
        for role, label in (("audio_visual", "teacher"), ("vision", "student")):
            title = f"{form} {precision} {label}"
            if args.only and not any(part in title for part in args.only):
                continue
            settings = make_config(form=form, scale="xd", role=role, precision=precision)
            if bags is None:
                bags = synthetic_bags(
                    settings, videos=args.videos, crops=args.crops, device=str(device)
                )
            rows.append(measure(title, settings, bags, steps=args.steps, full=args.full))
            print(_line(rows[-1]), file=sys.stderr)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{where}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(
        f"{'':26s}{'ms/step':>9s}{'steps/s':>9s}{'TFLOP':>8s}{'TFLOP/s':>9s}{'ceiling':>9s}"
        f"{'waiting':>9s}{'GiB':>7s}{'epochs':>10s}"
    )
    for row in rows:
        print(_line(row))
    print("* extrapolated from the median step" if not args.full else "epochs: measured")
    if args.json:
        with open(args.json, "w") as file:
            json.dump([asdict(row) for row in rows], file, indent=1)
    return 0


def _line(row: Timing) -> str:
    mark = " " if row.epochs_measured else "*"
    return (
        f"{row.name:26s}{row.step_ms:9.1f}{row.steps_per_second:9.2f}{row.tflop_per_step:8.3f}"
        f"{row.tflop_per_second:9.2f}{row.ceiling_tflop_per_second:9.2f}"
        f"{100 * row.waiting_share:8.1f}%{row.peak_gib:7.2f}{row.epochs_seconds:9.0f}s{mark}"
    )
