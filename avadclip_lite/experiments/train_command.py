"""``python -m avadclip_lite train``, and fields of the configuration on the command line."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
from typing import Any

from avadclip_lite.baselines import SYSTEMS, configure
from avadclip_lite.config import add_device_argument, make_config
from avadclip_lite.dataset import FeatureStore
from avadclip_lite.evaluate import evaluate
from avadclip_lite.experiments import graphs
from avadclip_lite.train import SHOWN, fit, load


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``python -m avadclip_lite train``."""
    told = "-s detector rtfm: an earlier system, by its own recipe"
    parser.description = f"Train a detector on a store and score it on the test split; {told}."
    parser.add_argument("--data", required=True, help="the feature store")
    parser.add_argument("--out", required=True, help="the run's folder; an interrupted run goes on")
    parser.add_argument("--form", help="paper (the default) or released")
    parser.add_argument("--scale", help="soundstage (the default) or xd")
    parser.add_argument("--role", help="audio_visual (the default), vision or audio")
    parser.add_argument("--teacher", help="folder of the trained teacher, for a student")
    parser.add_argument("--text", help="text tower: soundstage, clip or random")
    add_device_argument(parser)
    parser.set_defaults(device=None)  # the configuration's own
    add_field_argument(parser)


def add_field_argument(parser: argparse.ArgumentParser) -> None:
    """The option ``-s FIELD VALUE``; ``chosen_fields`` reads it."""
    shown = {"metavar": ("FIELD", "VALUE"), "help": "a field of the configuration, as JSON or text"}
    parser.add_argument("-s", "--set", nargs=2, action="append", default=[], **shown)


def chosen_fields(args: argparse.Namespace) -> dict[str, Any]:
    """Fields of the configuration by name, as ``-s`` gave them: JSON, or else the text."""
    fields: dict[str, Any] = {}
    for name, word in args.set:
        if name in fields:
            raise ValueError(f"field {name!r} was given twice; keep one")
        with contextlib.suppress(ValueError):
            word = json.loads(word)
        fields[name] = tuple(word) if isinstance(word, list) else word
    return fields


def main(args: argparse.Namespace) -> int:
    """Train, then print the test metrics. Bad input raises ``ValueError``."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = {name: getattr(args, name) for name in ("form", "role", "scale", "device")}
    args.set = [*args.set, *([name, word] for name, word in options.items() if word)]
    given = {"scale": "soundstage"} | chosen_fields(args)
    if given.get("detector") in SYSTEMS:  # by its own recipe, as in the study "field"
        if strange := sorted({"form", "role"} & given.keys()):
            told = f"{given['detector']} has no {strange[0]!r} of the configuration"
            raise ValueError(f"{told}; what it has is chosen with -s options JSON")
        settings = configure(given.pop("detector"), **given)
    else:
        settings = make_config(**given)
    store = FeatureStore.open(args.data)
    teacher = None if args.teacher is None else load(args.teacher)
    result = fit(settings, store, text=args.text, teacher=teacher, out=args.out, steps=graphs.steps)
    print(f"epoch {result.chosen_epoch} kept, {result.seconds:.0f} s, in {result.out}")
    if settings.train.selection == "test":
        print("chosen on the test set: these numbers are optimistic")
    if not any(row.split == "test" for row in store.videos):
        print(f"{store.path} has no test split: nothing to score")
        return 0
    metrics = evaluate(result.model, store, precision=settings.train.precision).metrics
    for name in (name for name in SHOWN if name in metrics):
        print(f"{name:24s}{100 * metrics[name]:7.2f} %")
    return 0
