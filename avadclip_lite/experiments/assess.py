"""``python -m avadclip_lite assess``: score a trained detector on a feature store.

``train`` scores what it has trained; this does it again, elsewhere, or on another split. It stands
below ``train`` and ``evaluate`` because it needs both.
"""

from __future__ import annotations

import argparse
import json
import math

__all__ = ["add_arguments", "main"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Score a trained detector on a feature store."
    parser.add_argument("--run", required=True, help="the folder that `train --out` wrote")
    parser.add_argument("--data", required=True, help="the feature store")
    parser.add_argument("--split", default="test", help="train or test (default: test)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, ... (default: auto)")
    parser.add_argument("--precision", choices=["float32", "bf16"], default="float32")
    parser.add_argument("--json", action="store_true", help="everything, as one JSON object")


def main(args: argparse.Namespace) -> int:
    """Print the measures of ``evaluate.Report``. Bad input raises ``ValueError`` or
    ``FileNotFoundError``."""
    from avadclip_lite.dataset import FeatureStore
    from avadclip_lite.evaluate import evaluate
    from avadclip_lite.train import find_device, load

    store = FeatureStore.open(args.data)
    device = find_device(args.device)
    model = load(args.run, device=device)
    if model.settings.model.dim != store.dim:
        raise ValueError(
            f"the detector in {args.run} takes features {model.settings.model.dim} wide, those in "
            f"{args.data} are {store.dim} wide"
        )
    report = evaluate(model, store, args.split, device=device, precision=args.precision)
    if args.json:
        known = {k: None if math.isnan(v) else v for k, v in report.metrics.items()}
        print(json.dumps({"metrics": known, "notes": report.notes}, indent=1))
        return 0
    for name, value in report.metrics.items():
        if "@" in name:
            continue
        count = name in ("videos", "snippets", "frames")
        shown = f"{value:9,.0f}" if count else f"{100 * value:9.2f} %"
        print(f"{name:24s}{shown}")
    for name, note in report.notes.items():
        print(f"{name}: {note}")
    return 0
