"""The study's result file, and files that are never half written."""

from __future__ import annotations

import os
from pathlib import Path

from avadclip_lite.config import DATA

RESULTS = "AVADCLIP_STUDY"  # environment variable that names a result file of ``study``


def results_path() -> Path:
    """The results that ship, or the file that ``AVADCLIP_STUDY`` names (``run`` sets it)."""
    return Path(os.environ.get(RESULTS) or DATA / "studies" / "soundstage.csv")


def write_atomically(path: Path, text: str) -> None:
    """Replace a file in one step; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)
