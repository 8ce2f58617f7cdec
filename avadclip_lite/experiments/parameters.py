"""The parameters of notebooks: declared in their cell tagged ``parameters``, given in words.

A line of that cell reads ``name: type = literal  # what it is``; ``papermill`` reads it.
"""

from __future__ import annotations

import ast
import logging
import math
import re
from collections.abc import MutableMapping, Sequence
from pathlib import Path
from typing import Any

from avadclip_lite.config import SECTION_OF, make_config
from avadclip_lite.dataset import FeatureStore
from avadclip_lite.experiments.files import read_notebook

_BOOL = {"true": True, "false": False, "1": True, "0": False}
_READ = {"int": int, "float": float, "str": str, "bool": lambda text: _BOOL[text.lower()]}


def convert(name: str, kind: str, text: str) -> Any:
    """The value that a command line's word stands for, of a parameter annotated as int, float, str,
    bool or a list of one of the first three, which is written with commas: ``0,1,2``. Raises
    ``ValueError`` if it is of another type."""
    one = kind.removeprefix("list[").removesuffix("]")
    words = [text]
    if kind != one:
        words = [word.strip(" '\"") for word in text.strip(" []()").split(",") if word]
    try:
        values = [_READ[one](word) for word in words]
        if one == "float" and not all(map(math.isfinite, values)):
            raise ValueError(text)
    except (ValueError, KeyError):
        raise ValueError(f"parameter {name} wants {kind}, got {text!r}") from None
    return values if kind != one else values[0]


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


def check_parameters(names: MutableMapping[str, Any]) -> None:
    """For a setup cell, ``check_parameters(globals())``: values get the type that was declared,
    where plain ``papermill -p seeds 0,1`` hands text over. ``ValueError`` for what cannot be."""
    for name, kind in names.get("__annotations__", {}).items():
        value, declared = names[name], str(kind) if hasattr(kind, "__args__") else kind.__name__
        text = ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
        names[name] = convert(name, declared, text)


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
