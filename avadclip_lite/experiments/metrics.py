"""Numbers with names: what a notebook hands over to ``metrics.json``.

    record("frame_ap", 0.813, dataset="Soundstage", detector="paper", branch="alignment",
           split="test", seed=0, config=settings, device=device)

The words, and the range of each, stand in ``metrics.schema.json``, which a run's ``metrics.json``
fits. Shares are fractions; the report prints percent.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from avadclip_lite.config import Config

RECORDS = "AVADCLIP_RECORDS"  # environment variable that names the file of a notebook's records
SCHEMA = json.loads(Path(__file__).with_name("metrics.schema.json").read_text(encoding="utf-8"))
_DEFINED = SCHEMA["$defs"]
_WORDS = {one["properties"]["measure"]["const"]: one for one in _DEFINED["record"]["oneOf"]}
# measure: the kind of its numbers (fraction, signed, amount, count or number)
MEASURES: Mapping[str, str] = {
    word: one["properties"]["value"]["$ref"].rpartition("/")[2] for word, one in _WORDS.items()
}
INTERACTIVE = Path(__file__).resolve().parents[2] / "runs" / "interactive" / "metrics.jsonl"


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
    """Hand one number over to ``metrics.json``.

    ``measure`` is a word of ``MEASURES``, or a flat name of ``evaluate.Report.metrics``, whose
    branch is taken out of it. ``detector`` says who was measured, by the name of a study's variant
    or a baseline's (``None``: a property of the data); ``seed`` is ``None`` for what no seed
    touches; ``config`` is stored as its digest; ``protocol`` is what no other field says. Saying
    the same number again replaces it.

    Raises ``ValueError`` for a measure, branch or split that is not known, and for a number that
    is not finite or outside of its measure's range.
    """
    fields = _DEFINED["record"]["properties"]
    word, named = split_name(measure)
    if named and branch not in (None, named):
        raise ValueError(f"record({measure!r}) was given another branch, {branch!r}")
    measure, branch = word, named or branch
    known = {name: fields[name]["enum"] for name in ("branch", "split")} | {"measure": [*MEASURES]}
    for name, given in {"measure": measure, "branch": branch, "split": split}.items():
        if given not in known[name]:
            words = ", ".join(map(str, known[name]))
            raise ValueError(f"record knows no {name} {given!r}; known: {words}")
    number = int(value) if isinstance(value, int) else float(value)
    kind = _DEFINED[MEASURES[measure]]
    low, high = kind.get("minimum", -math.inf), kind.get("maximum", math.inf)
    if not math.isfinite(number) or not low <= number <= high:
        raise ValueError(f"{measure} is a number from {low} to {high}, got {value!r}")
    if kind.get("type") == "integer" and not float(number).is_integer():
        raise ValueError(f"{measure} is a count, got {value!r}")
    if not dataset.strip() or detector == "":
        raise ValueError(f"record wants names, got {dataset=} and {detector=}")
    line = {
        "notebook": _this_notebook(),
        "measure": measure,
        "value": number,
        "branch": branch,
        "split": split,
        "detector": detector,
        "seed": seed,
        "dataset": dataset,
        "config": config.digest() if isinstance(config, Config) else config,
        "device": str(device),
        "protocol": protocol,
    }
    path = Path(os.environ.get(RECORDS) or INTERACTIVE)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    except OSError as error:
        raise ValueError(
            f"record cannot write {path} ({error.strerror}); name a file that can be written in "
            f"the environment variable {RECORDS}"
        ) from None


def split_name(name: str) -> tuple[str, str | None]:
    """Measure and branch of a flat name of ``evaluate.Report.metrics``."""
    stem, _, last = name.rpartition("_")
    branches = _DEFINED["record"]["properties"]["branch"]["enum"]
    return (stem, last) if last in branches else (name, None)


def described(name: str) -> str:
    """What a flat name says, in words."""
    word, branch = split_name(name)
    text = _WORDS.get(word, _WORDS["map_class"])["description"]
    return f"{text} ({branch})" if branch else text


def _this_notebook() -> str:
    if name := os.environ.get("AVADCLIP_NOTEBOOK"):
        return name
    session = os.environ.get("JPY_SESSION_NAME", "")  # set by JupyterLab: the notebook's path
    return Path(session).stem if session else "interactive"


def gather_metrics(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The last word on every number: of records that differ in nothing but the value, the last."""
    last: dict[tuple[Any, ...], dict[str, Any]] = {}
    for line in lines:
        key = tuple(line[k] for k in line if k != "value")
        last.pop(key, None)
        last[key] = dict(line)
    return list(last.values())
