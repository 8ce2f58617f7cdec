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
from typing import Any, NamedTuple

from avadclip_lite.config import make_config
from avadclip_lite.dataset import FeatureStore
from avadclip_lite.experiments.files import read_notebook


class Parameter(NamedTuple):
    """One line of a notebook's parameters cell."""

    name: str
    type: str  # as annotated: int, float, str, bool, list[int], list[float], list[str]
    default: Any = None
    help: str = ""

    def convert(self, text: str) -> Any:
        """The value that a command line's word stands for; ``ValueError`` if it is of another
        type. Lists are written with commas: ``0,1,2``."""
        kind = self.type.removeprefix("list[").removesuffix("]")
        words, values = [text], []
        if kind != self.type:
            words = [w.strip(" '\"") for w in text.strip().strip("[]()").split(",") if w]
        for word in words:
            try:
                values.append(_READ[kind](word))
                if kind == "float" and not math.isfinite(values[-1]):
                    raise ValueError(word)
            except (ValueError, KeyError):
                raise ValueError(f"parameter {self.name} wants {self.type}, got {word!r}") from None
        return values if kind != self.type else values[0]


_BOOL = {"true": True, "false": False, "1": True, "0": False}
_READ = {"int": int, "float": float, "str": str, "bool": lambda text: _BOOL[text.lower()]}


def read_parameters(path: Path) -> dict[str, Parameter]:
    """The parameters that a notebook declares, in order. Raises ``ValueError`` for a file that is
    no notebook, a type that no command line can give, and a default that is no plain literal."""
    import papermill

    logging.getLogger("papermill").setLevel(logging.ERROR)  # it warns of what we say ourselves
    read_notebook(path)  # or says that it is none
    parameters = {}
    for name, one in papermill.inspect_notebook(str(path)).items():
        kind = one["inferred_type_name"]
        if not re.fullmatch(r"(list\[)?(int|float|str)\]?|bool", kind):
            told = f"parameter {name} has type {kind}; use int, float, str, bool or list"
            raise ValueError(f"{path.name}: {told}")
        try:
            default = ast.literal_eval(one["default"])
        except ValueError:
            raise ValueError(f"{path.name}: the default of {name} is no plain literal") from None
        parameters[name] = Parameter(name, kind, default, one["help"])
    return parameters


def check_parameters(names: MutableMapping[str, Any]) -> None:
    """For a setup cell, ``check_parameters(globals())``: values get the type that was declared,
    where plain ``papermill -p seeds 0,1`` hands text over. ``ValueError`` for what cannot be."""
    for name, kind in names.get("__annotations__", {}).items():
        value, declared = names[name], str(kind) if hasattr(kind, "__args__") else kind.__name__
        text = ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
        names[name] = Parameter(name, declared).convert(text)


def settle_parameters(
    paths: Sequence[Path], words: Sequence[tuple[str, str]]
) -> dict[str, dict[str, Any]]:
    """What each notebook will be given, by its stem: of ``words``, names and values from the
    command line, only what it declares. Raises ``ValueError`` for a name that no notebook declares,
    a value of the wrong type or that the configuration refuses, and a store that does not fit;
    ``FileNotFoundError`` without one."""
    declared = {path.stem: read_parameters(path) for path in paths}
    known = {name: one for found in declared.values() for name, one in found.items()}
    given: dict[str, Any] = {}
    for name, text in words:
        if name not in known:
            told = f"no chosen notebook has a parameter {name!r}"
            raise ValueError(f"{told}; known: {', '.join(sorted(known))}")
        if name in given:
            raise ValueError(f"parameter {name} was given twice, with -p or as --{name}")
        given[name] = known[name].convert(text)
    fields = {k: v for k, v in given.items() if k in ("form", "scale") or is_field(k)}
    settings = make_config(**fields)
    if place := given.get("data"):
        width, scale, wanted = FeatureStore.open(place).dim, settings.scale, settings.model.dim
        if width != wanted:
            told = f"{width} wide, but --scale {scale} expects {wanted}; choose the other scale"
            raise ValueError(f"the features in {place} are {told}")
    return {stem: {k: v for k, v in given.items() if k in p} for stem, p in declared.items()}


def is_field(name: str) -> bool:
    """Whether a parameter of this name is a field of a section of the configuration."""
    sections = make_config().to_dict()
    return any(name in sections[part] for part in ("model", "loss", "train", "data"))
