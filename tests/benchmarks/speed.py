"""The package against the literal reading of the release: same inputs, same weights, one run.

    python tests/benchmarks/speed.py [--threads 2] [--quick] [--batch 96] [--only PART ...]

Parts: teacher, text, inference, paper, student, map, store. A part that has a literal side first
compares outputs, losses and gradients of the two, dropout off, and prints the largest deviation
(gradients relative to each tensor's largest entry); then it times them in turns (literal, ours,
literal, ours, ...) after one warm-up of each, and prints the median of each and the ratio of the
medians. Beside it stands the floor: the operations that ours counts, over the rate of matrix
products measured in the same run; torch has two libraries for those on a CPU (MKL multiplies,
oneDNN convolves), and both rates are printed.

``--quick`` takes 16 videos a step in place of 96. Weights follow from their names
(``tests/reference_fill.py``); features are noise.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "benchmarks")]

import literal  # noqa: E402
from reference_fill import filled, release_shapes  # noqa: E402

from avadclip_lite.compare.release import load_student, load_teacher, release_key  # noqa: E402
from avadclip_lite.config import CROPS, XD_CLASSES, XD_STRIDE, make_config  # noqa: E402
from avadclip_lite.dataset import Batch, FeatureStore, shuffled_batches  # noqa: E402
from avadclip_lite.evaluate import temporal_map  # noqa: E402
from avadclip_lite.features.writer import StoreWriter  # noqa: E402
from avadclip_lite.model import AVadCLIP, build  # noqa: E402
from avadclip_lite.train import TrainingRun  # noqa: E402
from tools import bench  # noqa: E402

CPU = torch.device("cpu")
DROPOUT = 0.1
PARTS = ("teacher", "text", "inference", "paper", "student", "map", "store")
GOALS = {
    "teacher": ">= 1.4",
    "text forward": ">= 2.5",
    "text forward+backward": ">= 2.5",
    "inference": ">= 5",
    "paper bf16": ">= 4",
}


# --- the two sides --------------------------------------------------------------------------------


class Sides:
    """Both implementations with equal weights and one batch: ``role`` "teacher" or "student".

    lengths and labels are drawn from ``seed``; features (B, 256, 512) too, zero beyond a video.
    """

    def __init__(self, role: str, videos: int, seed: int = 0) -> None:
        self.role = role
        self.state = filled(release_shapes(role))
        self.detector: AVadCLIP = (load_teacher if role == "teacher" else load_student)(self.state)
        self.trained = {k: v for k, v in self.state.items() if not k.startswith("clipmodel.")}
        for tensor in self.trained.values():
            tensor.requires_grad_()
        draw = torch.Generator().manual_seed(seed)
        spread = math.sqrt(2 * math.log(bench.MEAN_LENGTH / bench.MEDIAN_LENGTH))
        lengths = torch.randn(videos, generator=draw).mul(spread).exp() * bench.MEDIAN_LENGTH
        self.lengths = lengths.long().clamp(1, literal.LENGTH)
        keep = torch.arange(literal.LENGTH) < self.lengths[:, None]
        shape = (videos, literal.LENGTH, literal.WIDTH)
        self.video, self.audio, self.target = (
            torch.randn(shape, generator=draw) * keep[..., None] for _ in range(3)
        )
        self.labels = torch.eye(len(XD_CLASSES))[
            torch.randint(0, len(XD_CLASSES), (videos,), generator=draw)
        ]
        self.rows = self.lengths.tolist()
        ours = [p for p in self.detector.parameters() if p.requires_grad]
        self.our_optimizer = torch.optim.AdamW(ours, lr=1e-5, fused=True)
        self.their_optimizer = torch.optim.AdamW(list(self.trained.values()), lr=1e-5)

    # each gives outputs by one set of names, and the losses

    def literal(self, dropout: float = 0.0) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        if self.role == "teacher":
            out = literal.teacher(self.state, self.video, self.audio, self.rows, dropout=dropout)
            return out, literal.losses(out, self.labels, self.rows, self.state["alpha"])
        out = literal.student(self.state, self.video, self.rows)
        parts = literal.losses(out, self.labels, self.rows, self.state["alpha"], self.target)
        return out, parts

    def ours(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        teacher = self.role == "teacher"
        batch = Batch(
            video=self.video,
            audio=self.audio if teacher else None,
            lengths=self.lengths,
            labels=self.labels,
        )
        out = self.detector(batch)
        if not teacher:
            out = replace(out, teacher_features=self.target)
        parts = self.detector.loss(out, batch)
        named = {
            "features": out.features,
            "text": out.class_embeddings,
            "anomaly": out.anomaly_logits,
            "alignment": out.alignment_logits,
        }
        renamed = {"classification": "clas2", "alignment": "clasm", "ukd": "uc"}
        kept = ("classification", "alignment", "contrast", "ukd", "total")
        parts = {renamed.get(k, k): parts[k] for k in kept if k in parts}
        return named if out.log_variance is None else named | {"theta": out.log_variance}, parts

    def literal_step(self) -> None:
        _, parts = self.literal(DROPOUT if self.role == "teacher" else 0.0)
        self.their_optimizer.zero_grad()
        parts["total"].backward()
        self.their_optimizer.step()

    def our_step(self) -> None:
        self.detector.train()
        _, parts = self.ours()
        self.our_optimizer.zero_grad(set_to_none=True)
        parts["total"].backward()
        self.our_optimizer.step()

    def deviations(self) -> dict[str, float]:
        """Largest differences between the two sides, without dropout: outputs (absolute), losses
        (relative), gradients (relative to the largest entry of the tensor), of the worst tensor
        and of the median one.

        One activation among millions that rounds to the other side of a ReLU's kink, or one tie in
        a Top-K, moves a tensor's gradient by a thousandth; then the worst is far from the median.
        """
        self.detector.eval()
        theirs, their_losses = self.literal()
        their_losses["total"].backward()
        ours, our_losses = self.ours()
        our_losses["total"].backward()
        if theirs.keys() != ours.keys() or their_losses.keys() != our_losses.keys():
            raise ValueError("the two sides give different things")
        names = {release_key(k): p for k, p in self.detector.named_parameters() if p.requires_grad}
        touched = {k for k, v in self.trained.items() if v.grad is not None}
        if names.keys() != touched:
            raise ValueError(f"the two sides train different tensors: {names.keys() ^ touched}")
        gradients = [
            _gap(p.grad, self.trained[k].grad) / float(self.trained[k].grad.abs().max())
            for k, p in names.items()
        ]
        gaps = {
            "outputs": max(_gap(ours[k], theirs[k]) for k in theirs),
            "losses": max(
                _gap(our_losses[k], v) / abs(float(v.detach())) for k, v in their_losses.items()
            ),
            "gradients": max(gradients),
            "median tensor's": statistics.median(gradients),
        }
        for tensor in (*names.values(), *self.trained.values()):
            tensor.grad = None
        return gaps


def _gap(ours: Tensor, theirs: Tensor) -> float:
    return float((ours.detach() - theirs.detach().reshape(ours.shape)).abs().max())


# --- measuring ------------------------------------------------------------------------------------


def in_turns(sides: list[Callable[[], Any]], times: int, warm_up: int = 1) -> list[float]:
    """Median seconds of each side, timed one after the other, round by round."""
    took: list[list[float]] = [[] for _ in sides]
    for turn in range(warm_up + times):
        for side, call in enumerate(sides):
            began = time.perf_counter()
            call()
            if turn >= warm_up:
                took[side].append(time.perf_counter() - began)
    return [statistics.median(values) for values in took]


def counted(call: Callable[[], Any]) -> float:
    """TFLOP of a call, as torch counts them (matrix products, convolutions, attention)."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() / 1e12


def counted_steps(run: TrainingRun, shapes: list[tuple[int, int]]) -> list[float]:
    """TFLOP of the teacher's training step on batches of (videos, snippets).

    A step costs a constant (the text), a share a video, one a snippet and one a pair of snippets
    of one video; four small steps tell the four, and nothing large has to be computed.
    """

    def terms(videos: int, snippets: int) -> list[int]:
        return [1, videos, videos * snippets, videos * snippets**2]

    probes = [(1, 32), (1, 64), (1, 128), (2, 32)]
    found = []
    for videos, snippets in probes:
        features = torch.randn(videos, snippets, run.settings.model.dim)
        batch = Batch(
            video=features,
            audio=features,
            audio_mask=torch.ones(videos, snippets, dtype=torch.bool),
            lengths=torch.full((videos,), snippets),
            labels=torch.eye(len(XD_CLASSES))[:videos],
        )
        found.append(counted(lambda b=batch: run.one_step(b)))
    costs = np.linalg.solve(np.array([terms(*p) for p in probes], float), np.array(found))
    return [float(costs @ terms(*shape)) for shape in shapes]


def onednn_rate(rows: int = 8192, width: int = 512, out: int = 2048) -> float:
    """TFLOP/s of a linear layer written as a 1 x 1 convolution, the best of several."""
    x = torch.randn(rows, width).view(1, 1, rows, width).permute(0, 3, 1, 2)
    weight, best = torch.randn(out, width, 1, 1), math.inf
    with torch.no_grad():
        for _ in range(6):
            began = time.perf_counter()
            F.conv2d(x, weight)
            best = min(best, time.perf_counter() - began)
    return 2 * rows * width * out / best / 1e12


class Table:
    """Prints a row as soon as it is known."""

    def __init__(self, rates: dict[str, float]) -> None:
        self.rates = rates
        print(
            f"{'':24s}{'literal':>10s}{'ours':>10s}{'ratio':>7s}  {'goal':8s}{'TFLOP':>8s}"
            f"{'floor MKL':>11s}{'oneDNN':>9s}  deviation"
        )

    def row(
        self,
        name: str,
        ours: float,
        *,
        theirs: float | None = None,
        tflop: float = math.nan,
        precision: str = "float32",
        note: str = "",
    ) -> None:
        """``ours``, ``theirs`` in seconds; the floors are multiples that ours takes of them."""
        if precision == "bf16":
            floors = f"{ours * self.rates['bf16'] / tflop:9.2f} x{'':9s}"
        elif math.isnan(tflop):
            floors = " " * 20
        else:
            floors = "".join(
                f"{ours * self.rates[which] / tflop:{width}.2f} x"
                for which, width in (("mkl", 9), ("onednn", 7))
            )
        left = "" if theirs is None else _seconds(theirs)
        ratio = "" if theirs is None else f"{theirs / ours:.2f}"
        flops = "" if math.isnan(tflop) else f"{tflop:.4f}"
        goal = GOALS.get(name, "")
        print(
            f"{name:24s}{left:>10s}{_seconds(ours):>10s}{ratio:>7s}  {goal:8s}{flops:>8s}{floors}"
            f"  {note}",
            flush=True,
        )


def _seconds(value: float) -> str:
    return f"{value:.3f} s" if value >= 1 else f"{1e3 * value:.2f} ms"


def _said(gaps: dict[str, float]) -> str:
    return ", ".join(f"{name} {gap:.0e}" for name, gap in gaps.items())


# --- the parts ------------------------------------------------------------------------------------


def training(table: Table, role: str, batch: int, times: int) -> None:
    """A training step of form "released", float32."""
    sides = Sides(role, batch)
    gaps = sides.deviations()
    theirs, ours = in_turns([sides.literal_step, sides.our_step], times)
    table.row(role, ours, theirs=theirs, tflop=counted(sides.our_step), note=_said(gaps))


def text(table: Table, times: int) -> None:
    """The class embeddings: 77 positions against those that prompts use."""
    sides = Sides("teacher", 1)
    prompt = sides.detector.textual_prompt

    def whole(encode: Callable[[], Tensor]) -> None:
        encode().sum().backward()

    with torch.no_grad():
        gap = _gap(prompt(), literal.encode_text(sides.state))
        theirs, ours = in_turns([lambda: literal.encode_text(sides.state), prompt], times)
        tflop = counted(prompt)
    table.row("text forward", ours, theirs=theirs, tflop=tflop, note=f"outputs {gap:.0e}")
    calls = [lambda: whole(lambda: literal.encode_text(sides.state)), lambda: whole(prompt)]
    for call in calls:
        call()
    gap = _gap(prompt.context.grad, sides.state["text_prompt_embeddings.weight"].grad)
    gap /= float(prompt.context.grad.abs().max())
    theirs, ours = in_turns(calls, times)
    tflop = counted(calls[1])
    table.row(
        "text forward+backward", ours, theirs=theirs, tflop=tflop, note=f"gradients {gap:.0e}"
    )


def inference(table: Table, times: int) -> None:
    """One video of 256 snippets; ours keeps the class embeddings, the literal computes them."""
    sides = Sides("teacher", 1)
    sides.detector.eval()
    video, audio = (torch.randn(1, literal.LENGTH, literal.WIDTH) for _ in range(2))
    lengths = torch.tensor([literal.LENGTH])
    batch = Batch(video=video, audio=audio, lengths=lengths)
    with torch.no_grad():

        def theirs() -> dict[str, Tensor]:
            return literal.teacher(sides.state, video, audio, lengths.tolist())

        def ours() -> Any:
            return sides.detector(batch)

        one, two = theirs(), ours()
        gap = max(_gap(two.features, one["features"]), _gap(two.alignment_logits, one["alignment"]))
        slow, fast = in_turns([theirs, ours], times)
        tflop = counted(ours)
    table.row("inference", fast, theirs=slow, tflop=tflop, note=f"outputs {gap:.0e}")


def paper(table: Table, batch: int, times: int) -> None:
    """Form "paper" on XD-Violence's lengths, a video; the literal float32 step computes 256
    snippets of each. The forms differ on purpose, so outputs are not compared."""
    sides = Sides("teacher", batch)
    runs = {}
    for precision in ("bf16", "float32"):
        settings = make_config(form="paper", scale="xd", precision=precision, batch_size=batch)
        detector = build(
            settings,
            sides.detector.textual_prompt.tower,
            sides.detector.textual_prompt.prompts,
        )
        runs[precision] = TrainingRun(settings, detector.train(), CPU)
    bags = bench.synthetic_bags(settings, videos=8 * batch, crops=1)
    # One pool of eight batches, sorted by length before it is cut, as training does it.
    queue = shuffled_batches(bags, batch, torch.Generator().manual_seed(0))
    videos, spent = sum(map(len, queue)), dict.fromkeys(runs, 0.0)
    for run in runs.values():
        run.one_step(bags.batch(queue[0]))
    sides.literal_step()
    slow = []
    # The literal step costs the same whatever the lengths; it is timed between ours.
    every = max(1, len(queue) // times)
    for place, index in enumerate(queue):
        if place % every == 0:
            began = time.perf_counter()
            sides.literal_step()
            slow.append(time.perf_counter() - began)
        for precision, run in runs.items():
            began = time.perf_counter()
            run.one_step(bags.batch(index))
            spent[precision] += time.perf_counter() - began
    theirs = statistics.median(slow) / batch
    for precision, run in runs.items():
        tflop = sum(counted_steps(run, [(len(i), int(bags.lengths[i].max())) for i in queue]))
        table.row(
            f"paper {precision}",
            spent[precision] / videos,
            theirs=theirs,
            tflop=tflop / videos,
            precision=precision,
            note=f"per video; other form, {bags.lengths.float().mean():.0f} snippets on average",
        )


def event_map(table: Table, times: int) -> None:
    """Temporal mAP of 800 videos, about 2.3 million frames, on synthetic scores and events."""
    draw = np.random.default_rng(0)
    spread = math.sqrt(2 * math.log(bench.MEAN_LENGTH / bench.MEDIAN_LENGTH))
    lengths = draw.lognormal(math.log(bench.MEDIAN_LENGTH), spread, 800).astype(np.int64) + 1
    probs = draw.dirichlet(np.full(len(XD_CLASSES), 0.5), int(lengths.sum())).astype(np.float32)
    segments = []
    for length in lengths * XD_STRIDE:
        cuts = np.sort(draw.integers(0, length + 1, 4))
        code = XD_CLASSES.codes[int(draw.integers(1, len(XD_CLASSES)))]
        pairs = [(int(a), int(b)) for a, b in cuts.reshape(2, 2) if b > a]
        segments.append([(code, a, b) for a, b in pairs] if draw.random() < 0.6 else [])
    (took,) = in_turns(
        [lambda: temporal_map(probs, lengths, segments, XD_CLASSES, XD_STRIDE)], times
    )
    frames = int(lengths.sum()) * XD_STRIDE
    table.row("mAP", took, note=f"{frames / 1e6:.1f} M frames; goal 0.6 s on the reference's")


def store(table: Table, batch: int, times: int) -> None:
    """Opening a store of as many rows as XD-Violence's training list, and cutting a batch."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store"
        draw = np.random.default_rng(0)
        with StoreWriter(path, classes=XD_CLASSES, dim=8, stride=16, encoder="random") as writer:
            audio = draw.random((2, 8), np.float32)
            for video in range(bench.XD_TRAIN_VIDEOS):
                label = f"{XD_CLASSES.codes[1 + video % 6]}-0-0" if video % 2 else "A"
                for crop in range(CROPS):
                    writer.add(
                        name=f"v{video:05d}__#1_label_{label}",
                        crop=crop,
                        label=label,
                        split="train",
                        video=audio,
                        audio=audio,
                    )
            writer.finish()
        (took,) = in_turns([lambda: FeatureStore.open(path)], times)
        table.row("store, open", took, note=f"{len(FeatureStore.open(path)):,} rows; goal 1 s")
    settings = make_config(form="released", scale="xd")
    bags = bench.synthetic_bags(settings, videos=8 * batch, crops=1)
    index = torch.randperm(len(bags))[:batch]
    (took,) = in_turns([lambda: bags.batch(index)], times)
    table.row("batch", took, note=f"{batch} bags of 256 x 512, video and audio")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="16 videos a step, fewer rounds")
    parser.add_argument("--batch", type=int, help="videos a step (default: 96)")
    parser.add_argument("--only", nargs="*", choices=PARTS, default=PARTS, metavar="PART")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore")
    batch = args.batch or (16 if args.quick else 96)
    steps, rounds = (2, 5) if args.quick else (3, 15)
    rates = {
        "mkl": bench.matmul_rate(CPU, "float32"),
        "onednn": onednn_rate(),
        "bf16": bench.matmul_rate(CPU, "bf16"),
    }
    load = os.getloadavg()[0]
    print(f"torch {torch.__version__}, {args.threads} threads, {batch} videos a step")
    print(
        f"TFLOP/s: float32 product {rates['mkl']:.3f}, as a convolution {rates['onednn']:.3f}, "
        f"bf16 product {rates['bf16']:.3f}; load at the start {load:.1f}"
    )
    table = Table(rates)
    parts: dict[str, Callable[[], None]] = {
        "teacher": lambda: training(table, "teacher", batch, steps),
        "text": lambda: text(table, rounds),
        "inference": lambda: inference(table, rounds),
        "paper": lambda: paper(table, batch, steps),
        "student": lambda: training(table, "student", batch, steps),
        "map": lambda: event_map(table, steps),
        "store": lambda: store(table, batch, steps),
    }
    for name in PARTS:
        if name in args.only:
            parts[name]()
    print(
        f"floor columns: ours as a multiple of counted operations over the measured rate; load "
        f"at the end {os.getloadavg()[0]:.1f}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
