"""Twenty training steps on the CPU and on CUDA, in float32 and bf16: do they give the same losses?

    python tests/benchmarks/cpu_vs_cuda.py [--steps 20] [--dim 512] [--videos 64] [--json FILE]

Needs torch, numpy, safetensors, scikit-learn and tqdm only. Trains a teacher and a vision-only
student on synthetic features through ``fit``, a step an epoch, so that its history holds every
step; dropout is off, because the two devices draw different random numbers. Prints the total loss
of every step and the largest relative difference from the CPU's float32; without a GPU only the
CPU's columns.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from avadclip_lite.config import XD_CLASSES, XD_STRIDE, Config, make_config
from avadclip_lite.dataset import FeatureStore
from avadclip_lite.experiments import graphs
from avadclip_lite.features.writer import StoreWriter
from avadclip_lite.train import fit
from tools.bench import synthetic_text

PRECISIONS = ("float32", "bf16")


def synthetic(folder: Path, dim: int, videos: int) -> FeatureStore:
    """Training videos of 20 to 100 snippets; in every second one a class direction stands out for
    a while, in both modalities."""
    rng = np.random.default_rng(0)
    directions = rng.standard_normal((len(XD_CLASSES), dim))
    with StoreWriter(
        folder, classes=XD_CLASSES, dim=dim, stride=XD_STRIDE, encoder="random", dtype="float32"
    ) as writer:
        for i in range(videos):
            snippets = int(rng.integers(20, 101))
            video, audio = rng.standard_normal((2, snippets, dim)).astype(np.float32)
            c = 0 if i % 2 == 0 else 1 + (i // 2) % 6
            if c:
                first = int(rng.integers(0, snippets // 2))
                video[first : first + snippets // 4] += directions[c]
                audio[first : first + snippets // 4] += directions[c]
            code = XD_CLASSES.codes[c]
            writer.add(
                name=f"v{i}_label_{code}",
                label=code,
                split="train",
                crop=0,
                video=video,
                audio=audio,
            )
        writer.finish()
    return FeatureStore.open(folder)


def settings_for(store: FeatureStore, *, steps: int, **fields: Any) -> Config:
    """A configuration whose epochs are one step each, on all training videos."""
    choices = {"selection": "last", "tcn_dropout": 0.0, "batch_size": len(store.indices("train"))}
    return make_config(dim=store.dim, epochs=steps, **choices | fields)


def compare(
    store: FeatureStore, steps: int, device: str
) -> Iterator[tuple[str, dict[str, list[float]]]]:
    """(role, total losses by column) of teacher and student; a column is a device and a
    precision. The student learns from the CPU's float32 teacher."""
    tower, prompts = synthetic_text(store.dim)
    teacher = None
    for role in ("audio_visual", "vision"):
        columns = {}
        for where in dict.fromkeys(("cpu", device)):
            for precision in PRECISIONS:
                settings = settings_for(
                    store, steps=steps, role=role, device=where, precision=precision
                )
                result = fit(
                    settings,
                    store,
                    text=tower,
                    prompts=prompts,
                    teacher=teacher if role == "vision" else None,
                    progress=False,
                    steps=graphs.steps,
                )
                columns[f"{where} {precision}"] = [entry["total"] for entry in result.history]
                if role == "audio_visual" and teacher is None:
                    teacher = result.model
        yield role, columns


def largest_difference(losses: list[float], reference: list[float]) -> float:
    """Relative to the reference, over all steps."""
    return float(np.max(np.abs(np.array(losses) / np.array(reference) - 1)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--dim", type=int, default=512, help="D of the features")
    parser.add_argument("--videos", type=int, default=64)
    parser.add_argument("--json", type=Path, help="write the numbers here as well")
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    gpu = torch.cuda.get_device_name() if device == "cuda" else None
    numbers: dict[str, object] = {"torch": torch.__version__, "gpu": gpu, "D": args.dim}
    print(f"torch {torch.__version__}, GPU: {gpu or 'none, so the CUDA columns are left out'}")
    with tempfile.TemporaryDirectory() as folder:
        store = synthetic(Path(folder) / "store", args.dim, args.videos)
        for role, columns in compare(store, args.steps, device):
            print(f"\n{role}: total loss of each step")
            print("step" + "".join(f"{name:>16s}" for name in columns))
            for step, row in enumerate(zip(*columns.values(), strict=True)):
                print(f"{step + 1:4d}" + "".join(f"{value:16.7f}" for value in row))
            worst = {n: largest_difference(v, columns["cpu float32"]) for n, v in columns.items()}
            print("diff" + "".join(f"{value:16.2e}" for value in worst.values()))
            numbers[role] = {"losses": columns, "largest_relative_difference": worst}
    print("\n" + json.dumps(numbers))
    if args.json:
        args.json.write_text(json.dumps(numbers, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
