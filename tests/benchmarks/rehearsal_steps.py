"""Teacher training at XD-Violence's size on an imported store: what a step costs, part by part.

    python tests/benchmarks/rehearsal_steps.py STORE [--threads 2] [--steps 12] [--batch 96]
        [--only paper-bf16 paper-float32 released-float32]

STORE is a feature store of width 512, for example the one imported from what
``rehearsal_folder.py`` writes. For each form: twelve steps on full batches of its training bags
(several passes where there are few), the median of the last eight, and the epoch that follows for
XD-Violence's 39,540 training bags, *extrapolated*. Core-seconds, all threads together, say more
than the clock on a machine that others use too. Peak memory is the process's resident set.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import sys
import time
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from avadclip_lite import losses  # noqa: E402
from avadclip_lite.config import CROPS, Config, make_config  # noqa: E402
from avadclip_lite.dataset import FeatureStore, TrainingSet, shuffled_batches  # noqa: E402
from avadclip_lite.train import TrainingRun  # noqa: E402
from tools import bench  # noqa: E402

XD_BAGS = bench.XD_TRAIN_VIDEOS * CROPS
LAST = 8  # steps that the median is taken over
FORMS = {
    "paper-bf16": {"form": "paper", "precision": "bf16"},
    "paper-float32": {"form": "paper", "precision": "float32"},
    "released-float32": {"form": "released", "precision": "float32"},
}
MODULES = {  # parts of the forward pass, by the detector's attribute
    "encoder": "video encoder",
    "audio_encoder": "audio branch",
    "fusion": "fusion",
    "anomaly": "heads, prompts",
    "av_prompt": "heads, prompts",
    "textual_prompt": "text tower",
}


class Clock:
    """Seconds by part of the steps of a run, through hooks; on a CPU, where calls do not return
    before their work is done."""

    def __init__(self, run: TrainingRun) -> None:
        self.steps: list[dict[str, float]] = []
        self._now: dict[str, float] = defaultdict(float)
        self._began: dict[str, float] = {}
        for attribute, part in MODULES.items():
            module = getattr(run.model, attribute)
            module.register_forward_pre_hook(lambda *_, a=attribute: self._start(a))
            module.register_forward_hook(lambda *_, a=attribute, p=part: self._stop(a, p))
        run.model.register_forward_pre_hook(lambda *_: self._start("forward"))
        run.model.register_forward_hook(lambda *_: self._stop("forward", "forward"))
        # The loss ends where the backward pass begins, and that where the optimiser does.
        (optimizer,) = run.optimizers
        optimizer.register_step_pre_hook(lambda *_: self._stop("backward", "backward"))
        optimizer.register_step_pre_hook(lambda *_: self._start("optimiser"))
        optimizer.register_step_post_hook(lambda *_: self._stop("optimiser", "optimiser"))
        self._compute = losses.compute

    def _start(self, name: str) -> None:
        self._began[name] = time.perf_counter()

    def _stop(self, name: str, part: str) -> None:
        self._now[part] += time.perf_counter() - self._began.pop(name)

    def _timed_losses(self, *args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        self._start("loss")
        parts = self._compute(*args, **kwargs)
        self._stop("loss", "loss")
        self._start("backward")
        return parts

    def step(self, run: TrainingRun, bags: TrainingSet, index: torch.Tensor) -> None:
        """One step, its seconds kept."""
        self._now.clear()
        began, worked = time.perf_counter(), time.process_time()
        batch = bags.batch(index)
        self._now["batch"] = time.perf_counter() - began
        losses.compute = self._timed_losses
        try:
            run.one_step(batch)
        finally:
            losses.compute = self._compute
        took = dict(self._now)
        took["step"] = time.perf_counter() - began
        took["core"] = time.process_time() - worked
        took["snippets"] = batch.video.shape[1]
        inside = sum(took[part] for part in set(MODULES.values()))
        took["rest of forward"] = took.pop("forward") - inside
        self.steps.append(took)


def forget_peak() -> None:
    """Start the peak of the resident set anew, where the system allows it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass


def peak_gib() -> float:
    """The largest resident set of this process since ``forget_peak``, GiB."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 2**20
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def rehearse(settings: Config, store: FeatureStore, steps: int) -> tuple[Clock, float]:
    """Twelve steps of a teacher on the store's training rows; the clock and the peak in GiB."""
    forget_peak()
    bags = TrainingSet(store, store.indices("train"), settings)
    run = bench.training_run(settings, torch.device("cpu"))
    size = settings.train.batch_size
    if len(bags) < size:
        raise SystemExit(f"{store.path} has {len(bags)} training bags; --batch {size} needs more")
    queue: list[torch.Tensor] = []
    while len(queue) < steps:
        full = shuffled_batches(bags, size, run.shuffling)
        queue += [index for index in full if len(index) == size]
    clock = Clock(run)
    for index in queue[:steps]:
        clock.step(run, bags, index)
    return clock, peak_gib()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--batch", type=int, default=96)
    parser.add_argument("--only", nargs="*", choices=tuple(FORMS), default=tuple(FORMS))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore")
    store = FeatureStore.open(args.store)
    rows = len(store.indices("train"))
    print(
        f"{rows} training rows, {args.batch} a step, {args.threads} threads, "
        f"torch {torch.__version__}, load {os.getloadavg()[0]:.1f}"
    )
    for name in args.only:
        settings = make_config(
            scale="xd", dim=store.dim, batch_size=args.batch, device="cpu", **FORMS[name]
        )
        clock, peak = rehearse(settings, store, args.steps)
        last = clock.steps[-LAST:]
        step = statistics.median(took["step"] for took in last)
        epoch = step * -(-XD_BAGS // args.batch) / 60
        core = statistics.median(took["core"] for took in last)
        snippets = statistics.mean(took["snippets"] for took in last)
        print(
            f"{name}: median step {step:.2f} s ({core:.1f} core-seconds) of the last {len(last)} "
            f"(batches of {snippets:.0f} snippets on average), epoch {epoch:.0f} min extrapolated, "
            f"peak {peak:.1f} GiB, load {os.getloadavg()[0]:.1f}"
        )
        whole = sum(took["step"] for took in last)
        parts = [part for part in last[0] if part not in ("step", "core", "snippets")]
        shares = {part: sum(took[part] for took in last) / whole for part in parts}
        for part, share in sorted(shares.items(), key=lambda item: -item[1]):
            print(f"    {part:18s}{100 * share:6.1f} %", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
