"""Notebooks as files: reading one, the tags of its cells, and the parameters that it declares.

A line of the cell tagged ``parameters`` reads ``name: type = literal  # what it is``; ``papermill``
reads it.
"""

from __future__ import annotations

import ast
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat

from avadclip_lite.config import SECTION_OF, make_config
from avadclip_lite.dataset import FeatureStore
from avadclip_lite.experiments.parameters import convert


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


def read_parameters(path: Path) -> dict[str, str]:
    """The parameters that a notebook declares, in order, and their types. Raises ``ValueError`` for
    a file that is no notebook, a type that no command line can give, and a default that is no plain
    literal."""
    import papermill

    logging.getLogger("papermill").setLevel(logging.ERROR)  # it warns of what we say ourselves
    read_notebook(path)  # or says that it is none
    parameters = {}
    for name, one in papermill.inspect_notebook(str(path)).items():
        kind = parameters[name] = one["inferred_type_name"]
        if not re.fullmatch(r"(list\[)?(int|float|str)\]?|bool", kind):
            told = f"parameter {name} has type {kind}; use int, float, str, bool or list"
            raise ValueError(f"{path.name}: {told}")
        try:
            ast.literal_eval(one["default"])
        except ValueError:
            raise ValueError(f"{path.name}: the default of {name} is no plain literal") from None
    return parameters


def settle_parameters(
    paths: Sequence[Path], words: Sequence[tuple[str, str]]
) -> dict[str, dict[str, Any]]:
    """What each notebook will be given, by its stem: of ``words``, names and values from the
    command line, only what it declares. Raises ``ValueError`` for a name that no notebook declares,
    a value of the wrong type or that the configuration refuses, and a store that does not fit;
    ``FileNotFoundError`` without one."""
    declared = {path.stem: read_parameters(path) for path in paths}
    known = {name: kind for found in declared.values() for name, kind in found.items()}
    given: dict[str, Any] = {}
    for name, text in words:
        if name not in known:
            told = f"no chosen notebook has a parameter {name!r}"
            raise ValueError(f"{told}; known: {', '.join(sorted(known))}")
        if name in given:
            raise ValueError(f"parameter {name} was given twice, with -p or as --{name}")
        given[name] = convert(name, known[name], text)
    fields = {k: v for k, v in given.items() if k in ("form", "scale") or k in SECTION_OF}
    settings = make_config(**fields)
    if place := given.get("data"):
        given["data"] = str(Path(place).resolve())  # a notebook runs in a folder of its own
        width, scale, wanted = FeatureStore.open(place).dim, settings.scale, settings.model.dim
        if width != wanted:
            told = f"{width} wide, but --scale {scale} expects {wanted}; choose the other scale"
            raise ValueError(f"the features in {place} are {told}")
    return {stem: {k: v for k, v in given.items() if k in p} for stem, p in declared.items()}
