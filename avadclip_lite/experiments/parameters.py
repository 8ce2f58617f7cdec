"""The parameters of notebooks: declared in their cell tagged ``parameters``, given in words.

A line of that cell reads ``name: type = literal  # what it is``; ``papermill`` reads it.
"""

from __future__ import annotations

import ast
import logging
import math
import re
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avadclip_lite.config import make_config


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One line of a notebook's parameters cell."""

    name: str
    type: str  # as annotated: int, float, str, bool, list[int], list[float], list[str]
    default: Any = None
    help: str = ""

    def convert(self, text: str) -> Any:
        """The value that a command line's word stands for; ``ValueError`` if it is of another
        type. Lists are written with commas: ``0,1,2``."""
        if self.type.startswith("list["):
            words = (word.strip().strip("'\"") for word in text.strip().strip("[]()").split(","))
            return [self._one(word, self.type[5:-1]) for word in words if word]
        return self._one(text, self.type)

    def _one(self, text: str, kind: str) -> Any:
        try:
            if kind == "bool":
                return {"true": True, "false": False, "1": True, "0": False}[text.lower()]
            value = {"int": int, "float": float, "str": str}[kind](text)
            if kind == "float" and not math.isfinite(value):
                raise ValueError(text)
            return value
        except (ValueError, KeyError):
            raise ValueError(f"parameter {self.name} wants {self.type}, got {text!r}") from None


def read_parameters(path: Path) -> dict[str, Parameter]:
    """The parameters that a notebook declares, in order.

    Raises ``ValueError`` for a file that is no notebook, a type that no command line can give, and
    a default that is no plain literal.
    """
    import papermill

    logging.getLogger("papermill").setLevel(logging.ERROR)  # it warns of what we say ourselves
    try:
        found = papermill.inspect_notebook(str(path))
    except Exception as error:  # whatever is wrong with it: nbformat's, jsonschema's, ...
        raise ValueError(
            f"{path} is not a notebook ({type(error).__name__}); restore it from git"
        ) from None
    parameters = {}
    for name, one in found.items():
        kind = one["inferred_type_name"]
        if not re.fullmatch(r"(list\[)?(int|float|str)\]?|bool", kind):
            raise ValueError(
                f"{path.name}: parameter {name} has type {kind}; use int, float, str, bool or list"
            )
        try:
            default = ast.literal_eval(one["default"])
        except ValueError:
            raise ValueError(f"{path.name}: the default of {name} is no plain literal") from None
        parameters[name] = Parameter(name=name, type=kind, default=default, help=one["help"])
    return parameters


def check_parameters(names: MutableMapping[str, Any]) -> None:
    """For a setup cell, ``check_parameters(globals())``: values get the type that was declared.

    Plain ``papermill -p seeds 0,1`` hands text over where a list is declared, and a number where
    its text was meant; both are put right in ``names``. ``ValueError`` for what cannot be.
    """
    for name, kind in names.get("__annotations__", {}).items():
        value, inner = names[name], getattr(kind, "__args__", None)
        if type(value) is not getattr(kind, "__origin__", kind) or (
            inner and any(type(entry) is not inner[0] for entry in value)
        ):
            text = ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
            declared = str(kind) if inner else kind.__name__
            names[name] = Parameter(name=name, type=declared).convert(text)


def settle_parameters(
    paths: Sequence[Path], words: Sequence[tuple[str, str]]
) -> dict[str, dict[str, Any]]:
    """What each notebook will be given, by its stem: only what it declares.

    ``words`` are names and values from the command line. A parameter that has the name of a
    configuration field is that field, so its value is checked as the configuration would.

    Raises ``ValueError`` for a name that no notebook declares, a value of the wrong type or that
    the configuration refuses, and a store that does not fit; ``FileNotFoundError`` without one.
    """
    declared = {path.stem: read_parameters(path) for path in paths}
    known = {name: one for found in declared.values() for name, one in found.items()}
    given: dict[str, Any] = {}
    for name, text in words:
        if name not in known:
            names = ", ".join(sorted(known))
            raise ValueError(f"no chosen notebook has a parameter {name!r}; known: {names}")
        if name in given:
            raise ValueError(f"parameter {name} was given twice, with -p or as --{name}")
        given[name] = known[name].convert(text)
    fields = {k: v for k, v in given.items() if k in ("form", "scale") or is_field(k)}
    settings = make_config(**fields)
    if place := given.get("data"):
        from avadclip_lite.dataset import FeatureStore

        if not Path(place).is_dir():
            raise FileNotFoundError(
                f"no feature store at {place}; make one with: python -m avadclip_lite import --help"
            )
        if (width := FeatureStore.open(place).dim) != settings.model.dim:
            raise ValueError(
                f"the features in {place} are {width} wide, but --scale {settings.scale} expects "
                f"{settings.model.dim}; choose the other scale"
            )
    return {stem: {k: v for k, v in given.items() if k in p} for stem, p in declared.items()}


def is_field(name: str) -> bool:
    """Whether a parameter of this name is a field of a section of the configuration."""
    sections = make_config().to_dict()
    return any(name in sections[part] for part in ("model", "loss", "train", "data"))
