"""The parameters of a notebook, given in words: on a command line, or by plain papermill."""

from __future__ import annotations

import math
from collections.abc import MutableMapping
from typing import Any

_BOOL = {"true": True, "false": False, "1": True, "0": False}
_READ = {"int": int, "float": float, "str": str, "bool": lambda text: _BOOL[text.lower()]}


def convert(name: str, kind: str, text: str) -> Any:
    """The value that a command line's word stands for, of a parameter annotated as int, float, str,
    bool or a list of one of the first three, written with commas. ``ValueError``: another type."""
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


def check_parameters(names: MutableMapping[str, Any]) -> None:
    """For a setup cell, ``check_parameters(globals())``: values get the type that was declared,
    where plain ``papermill -p seeds 0,1`` hands text over. ``ValueError`` for what cannot be."""
    for name, kind in names.get("__annotations__", {}).items():
        value, declared = names[name], str(kind) if hasattr(kind, "__args__") else kind.__name__
        text = ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
        names[name] = convert(name, declared, text)
