"""Twenty training steps on the CPU and on CUDA, in float32 and bf16: do they give the same losses?

    python tests/benchmarks/cpu_vs_cuda.py [--steps 20] [--dim 64] [--json FILE]

Needs torch, numpy, safetensors, scikit-learn and tqdm only. Trains a teacher and a vision-only
student, on ``data/soundstage`` where that is present, otherwise on synthetic features; dropout is
off, because the two devices draw different random numbers. Prints the total loss of every step and
the largest relative difference from the CPU's float32; without a GPU only the CPU's columns.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from avadclip_lite.config import XD_CLASSES, XD_STRIDE, Config, make_config, soundstage_path
from avadclip_lite.dataset import FeatureStore
from avadclip_lite.encoders import TextTower, WordPrompts, load_text
from avadclip_lite.features.writer import StoreWriter
from avadclip_lite.model import Detector
from avadclip_lite.train import TrainingRun, fit


def synthetic(folder: Path, dim: int, videos: int = 200) -> FeatureStore:
    """Videos of 20 to 100 snippets; in every second one a class direction stands out for a while,
    in both modalities."""
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


def losses_of(
    settings: Config,
    store: FeatureStore,
    text: tuple[TextTower, WordPrompts],
    teacher: Detector | None = None,
) -> tuple[list[float], float, Detector]:
    """Total loss of every step, seconds, and the trained detector."""
    kept: list[torch.Tensor] = []
    one_step = TrainingRun.one_step

    def remember(self, batch, frozen):
        parts = one_step(self, batch, frozen)
        kept.append(parts["total"].detach())
        return parts

    TrainingRun.one_step = remember
    began = time.perf_counter()
    try:
        result = fit(
            settings, store, text=text[0], prompts=text[1], teacher=teacher, progress=False
        )
    finally:
        TrainingRun.one_step = one_step
    losses = torch.stack(kept).tolist()
    return losses, time.perf_counter() - began, result.model.cpu()


def compare(role: str, steps: int, store: FeatureStore, text, teacher: Detector | None):
    """Losses by column, each column a device and a precision; and the CPU's float32 detector."""
    columns, seconds, reference = {}, {}, None
    devices = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
    for device in devices:
        for precision in ("float32", "bf16"):
            settings = make_config(
                role=role,
                dim=store.dim,
                epochs=1000,
                max_steps=steps,
                selection="last",
                tcn_dropout=0.0,
                device=device,
                precision=precision,
            )
            name = f"{device} {precision}"
            columns[name], seconds[name], model = losses_of(settings, store, text, teacher)
            reference = reference or model
    return columns, seconds, reference


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--dim", type=int, default=64, help="D of the synthetic features")
    parser.add_argument("--synthetic", action="store_true", help="even where Soundstage is present")
    parser.add_argument("--json", type=Path, help="write the numbers here as well")
    args = parser.parse_args()
    # an Ampere or later GPU would otherwise be free to round float32 products to TF32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    numbers: dict[str, object] = {"torch": torch.__version__, "steps": args.steps}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the random text tower says that it is one
        if (soundstage_path() / "meta.json").is_file() and not args.synthetic:
            store = FeatureStore.open(soundstage_path())
        else:
            store = synthetic(Path(folder) / "store", args.dim)
        text = load_text(store.encoder, store.classes.words, dim=store.dim)
        gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
        numbers |= {"data": store.encoder, "D": store.dim, "gpu": gpu}
        print(f"torch {torch.__version__}, GPU: {gpu or 'none, so the CUDA columns are left out'}")
        print(f"data: {store!r}")
        teacher = None
        for role in ("audio_visual", "vision"):
            columns, seconds, model = compare(role, args.steps, store, text, teacher)
            teacher = model if role == "audio_visual" else teacher
            numbers[role] = {"losses": columns, "seconds": seconds}
            reference = np.array(columns["cpu float32"])
            print(f"\n{role}: total loss of each step")
            print("step" + "".join(f"{name:>16s}" for name in columns))
            for step in range(args.steps):
                row = "".join(f"{columns[name][step]:16.7f}" for name in columns)
                print(f"{step + 1:4d}{row}")
            worst = {
                n: float(np.max(np.abs(v - reference) / reference)) for n, v in columns.items()
            }
            numbers[role]["largest_relative_difference"] = worst
            print("diff" + "".join(f"{worst[name]:16.2e}" for name in columns))
            print("   s" + "".join(f"{seconds[name]:16.2f}" for name in columns))
    print("\n" + json.dumps(numbers))
    if args.json:
        args.json.write_text(json.dumps(numbers, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
