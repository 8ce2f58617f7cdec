"""Numbers with names: what a notebook hands over to ``metrics.json``.

    record("frame_ap", 0.813, dataset="Soundstage", detector="paper", branch="alignment",
           split="test", seed=0, config=settings)

The words, and the range of each, stand in ``metrics.schema.json``, which a run's ``metrics.json``
fits. Shares are fractions; the report prints percent. In a notebook opened by hand a number is
checked in the same way, and goes nowhere.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from avadclip_lite.config import Config

# environment variables of a run: the file of a notebook's records, and the cache of trainings
RECORDS, CACHE_FOLDER = "AVADCLIP_RECORDS", "AVADCLIP_CACHE"
SCHEMA = json.loads(Path(__file__).with_name("metrics.schema.json").read_text(encoding="utf-8"))
_DEFINED = SCHEMA["$defs"]
_FIELDS = _DEFINED["record"]["properties"]
_WORDS = {one["properties"]["measure"]["const"]: one for one in _DEFINED["record"]["oneOf"]}
MEASURES = {  # by word, the kind of its numbers: fraction, signed, amount, count or number
    word: one["properties"]["value"]["$ref"].rpartition("/")[2] for word, one in _WORDS.items()
}
_KNOWN = {"measure": list(MEASURES)} | {k: _FIELDS[k]["enum"] for k in ("branch", "split")}


def record(
    measure: str,
    value: float,
    *,
    dataset: str,
    detector: str | None = None,
    branch: str | None = None,
    split: str | None = None,
    seed: int | None = None,
    config: Config | str | None = None,
    device: Any = "cpu",
    protocol: str = "",
) -> None:
    """Hand one number over; saying it again replaces it. ``measure``: a word of ``MEASURES``, or a
    flat name of ``evaluate.Report.metrics``, whose branch is taken out of it. ``detector``: by the
    name of a study's variant or a baseline's (``None``: a property of the data). ``config`` is
    stored as its digest; ``protocol`` is what no other field says. Raises ``ValueError`` for a
    measure, branch or split that is not known, and a number outside of its measure's range."""
    word, named = split_name(measure)
    if named and branch not in (None, named):
        raise ValueError(f"record({measure!r}) was given another branch, {branch!r}")
    line = {"measure": word, "branch": named or branch, "split": split}
    for name, given in line.items():
        if given not in _KNOWN[name]:
            words = ", ".join(map(str, _KNOWN[name]))
            raise ValueError(f"record knows no {name} {given!r}; known: {words}")
    number, kind = int(value) if isinstance(value, int) else float(value), _DEFINED[MEASURES[word]]
    low, high = kind.get("minimum", -math.inf), kind.get("maximum", math.inf)
    if not math.isfinite(number) or not low <= number <= high:
        raise ValueError(f"{word} is a number from {low} to {high}, got {value!r}")
    if kind.get("type") == "integer" and number != int(number):
        raise ValueError(f"{word} is a count, got {value!r}")
    if not dataset.strip() or detector == "":
        raise ValueError(f"record wants names, got {dataset=} and {detector=}")
    if path := os.environ.get(RECORDS):
        line |= {"notebook": os.environ.get("AVADCLIP_NOTEBOOK", ""), "value": number, "seed": seed}
        line |= {"dataset": dataset, "detector": detector, "protocol": protocol}
        line |= {"config": config.digest() if isinstance(config, Config) else config}
        line |= {"device": str(device)}
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def split_name(name: str) -> tuple[str, str | None]:
    """Measure and branch of a flat name of ``evaluate.Report.metrics``."""
    stem, _, last = name.rpartition("_")
    return (stem, last) if last in _KNOWN["branch"] else (name, None)


def described(name: str) -> str:
    """What a flat name says, in words."""
    word, branch = split_name(name)
    text = _WORDS.get(word, _WORDS["map_class"])["description"]
    return f"{text} ({branch})" if branch else text
