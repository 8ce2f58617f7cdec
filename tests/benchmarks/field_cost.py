"""What each system of the field costs at XD-Violence's size: time a step, peak memory, an epoch.

    python tests/benchmarks/field_cost.py [--steps 3] [--threads 2] [--only rtfm deepmil]

Every row of ``study field`` in a process of its own, on noise of width 512 with XD-Violence's
lengths, in batches of its own recipe. The median of the steps after a first one that is not
counted; of systems that scikit-learn fits before the first epoch, the fit. An epoch (one look at
the held-out videos) and the whole schedule are *extrapolated* from the clock; core-seconds, all
threads together, say more on a machine that others use too. Memory is the process's resident
set, with its bags (some 200 MB) and libraries (some 500 MB).
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from avadclip_lite.config import CROPS  # noqa: E402
from avadclip_lite.experiments.study import STUDIES, VARIANTS  # noqa: E402
from tools import bench  # noqa: E402

VIDEOS = 400  # enough for the largest batch
XD_BAGS = bench.XD_TRAIN_VIDEOS * CROPS


def measure(row: str, steps: int, threads: int) -> dict[str, float]:
    """One row, in this process."""
    torch.set_num_threads(threads)
    warnings.simplefilter("ignore")  # the text tower's weights are random
    settings = VARIANTS[STUDIES["field"][row]].settings(scale="xd", seed=0)
    run = bench.training_run(settings, torch.device("cpu"))
    bags = bench.synthetic_bags(settings, videos=VIDEOS, crops=1)
    began = time.perf_counter()
    run.model.start_epoch(0, bags)
    fit = time.perf_counter() - began
    run.model.train()
    batches = run.model.batches(bags, run.shuffling)
    times = []
    for index in (batches * (steps + 1))[: steps + 1]:
        began = time.perf_counter(), time.process_time()
        run.one_step(bags.batch(index))
        times.append((time.perf_counter() - began[0], time.process_time() - began[1]))
    epochs, batch = settings.train.epochs, settings.train.batch_size
    share = 1 - settings.train.holdout_share
    whole = settings.options.get("steps") or epochs * -(-int(share * XD_BAGS) // batch)
    step, cores = (statistics.median(kind) for kind in zip(*times[1:], strict=True))
    return {
        "batch": batch,
        "step": step,
        "cores": cores,
        "epoch": (fit if whole == 1 else 0) + step * whole / epochs,
        "whole": (fit if whole == 1 else 0) + step * whole,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "parameters": sum(p.numel() for p in run.model.parameters() if p.requires_grad),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=[], help="rows that begin so")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one, args.steps, args.threads)))
        return 0
    print(f"{'row':26s}  batch  s/step  core-s  epoch, min  all, h  peak, GB  learned, M")
    same = [sys.executable, __file__, "--steps", str(args.steps), "--threads", str(args.threads)]
    for row in STUDIES["field"]:
        if args.only and not row.startswith(tuple(args.only)):
            continue
        done = subprocess.run([*same, "--one", row], capture_output=True, text=True)
        if done.returncode:
            print(f"{row:27s} failed: {done.stderr.strip().splitlines()[-1]}", flush=True)
            continue
        m = json.loads(done.stdout)
        cost = f"{m['batch']:6d} {m['step']:7.3f} {m['cores']:7.3f} {m['epoch'] / 60:11.1f}"
        cost += f" {m['whole'] / 3600:7.2f} {m['memory']:9.2f} {m['parameters'] / 1e6:11.2f}"
        print(f"{row:27s}{cost}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
