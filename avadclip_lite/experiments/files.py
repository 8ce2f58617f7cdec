"""Notebooks as files, and files that are never half written."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat


def read_notebook(path: Path) -> nbformat.NotebookNode:
    """A notebook in format 4; ``ValueError`` naming the file if it is none."""
    try:
        return nbformat.read(path, as_version=4)
    except Exception as error:  # nbformat's own, jsonschema's, or of what JSON lets through
        what = f"{path} is not a notebook ({type(error).__name__})"
        raise ValueError(f"{what}; restore it from git") from None


def cell_tags(cell: Mapping[str, Any]) -> list[str]:
    """The tags of a notebook's cell."""
    return list(cell.get("metadata", {}).get("tags", []))


def write_atomically(path: Path, text: str) -> None:
    """Replace a file in one step; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)
