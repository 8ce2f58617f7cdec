"""The paper's numbers, in percent, and nothing of ours (``paper.toml``).

Beside numbers of other data than XD-Violence they are a reminder of a claim, not a comparison.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import NamedTuple

_TABLES = tomllib.loads(Path(__file__).with_name("paper.toml").read_text(encoding="utf-8"))


class Pair(NamedTuple):
    """Frame AP, and mAP averaged over IoU 0.1 to 0.5."""

    ap: float
    map: float


XD_AP, CCTV_AP = _TABLES["XD_AP"], _TABLES["CCTV_AP"]  # by method
XD_MAP = {name: tuple(row) for name, row in _TABLES["XD_MAP"].items()}  # five IoU, their average
ABLATION, FUSION, DISTILLATION = (
    {name: Pair(*row) for name, row in _TABLES[table].items()}
    for table in ("ABLATION", "FUSION", "DISTILLATION")
)
