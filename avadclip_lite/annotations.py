"""Weak labels out of video names, and the official annotation files.

A video's name carries its weak label: ``..._label_B2-G-0`` is shooting and explosion (``0`` pads
to three). A test video's events stand in a text file, one line a video, in frames with exclusive
ends, in either of two forms::

    NAME start end start end ...
    NAME CODE start end CODE start end ...

Normal videos have no line. Some names in the official XD-Violence files end in ``.mp4``.

The two official files of XD-Violence differ in five videos, by 125 frames altogether: the release
takes the frame truth (AP) from the first form and the events by class (mAP) from the second. So a
video's events may be of both forms at once, and ``truth_events`` and ``class_events`` tell them
apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from .config import ClassSet

__all__ = [
    "Segment",
    "has_label",
    "parse_codes",
    "parse_label",
    "read_annotations",
    "truth_events",
    "class_events",
]

Segment = tuple[str | None, int, int]  # code (None in the binary form), first frame, end exclusive

_PADDING = "0"
_MARK = "_label_"
# a name ends with its label; one without a label is a single word
_LABELLED_LINE = re.compile(rf"(?P<name>.*{_MARK}\S+)(?:\s+(?P<rest>.*))?")
_PLAIN_LINE = re.compile(r"(?P<name>\S+)(?:\s+(?P<rest>.*))?")


def parse_codes(label: str | Iterable[str], classes: ClassSet) -> tuple[str, ...]:
    """The class codes of a label such as ``"B2-G-0"`` or ``("B2", "G")``, in class order, each
    once.

    Raises ``ValueError`` for an unknown code, for no code at all, and for the normal class
    together with an anomaly.
    """
    parts = label.split("-") if isinstance(label, str) else list(label)
    indices = sorted({classes.index(part.strip()) for part in parts if part.strip() != _PADDING})
    if not indices:
        raise ValueError(f"label {label!r} names no class of {', '.join(classes.codes)}")
    if indices[0] == 0 and len(indices) > 1:
        raise ValueError(
            f"label {label!r} calls a video normal ({classes.codes[0]}) and anomalous at once"
        )
    return tuple(classes.codes[i] for i in indices)


def has_label(name: str) -> bool:
    """Whether a video's name carries a weak label."""
    return _MARK in name


def parse_label(name: str, classes: ClassSet) -> tuple[str, ...]:
    """The class codes in a video's name: ``..._label_B2-G-0`` gives ``("B2", "G")``.

    Raises ``ValueError`` naming the video when it carries no label or an unknown code.
    """
    stem = name.removesuffix(".mp4")
    before, mark, label = stem.rpartition(_MARK)
    if not mark:
        raise ValueError(f"video name {name!r} carries no label; expected {_MARK}CODE at its end")
    try:
        return parse_codes(label, classes)
    except ValueError as error:
        raise ValueError(f"video name {name!r}: {error}") from None


def read_annotations(path: str | Path, classes: ClassSet) -> dict[str, list[Segment]]:
    """The events of every annotated video, ``{name: [(code or None, start, end), ...]}`` in the
    file's order; frames, end exclusive, not clipped to any length, ``.mp4`` stripped from names.

    Each line may be in either form. Raises ``FileNotFoundError``, and ``ValueError`` naming file
    and line for an unknown code, a lone or malformed number, an end not after its start, or a
    video that has two lines.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"annotation file {path} does not exist")
    found: dict[str, list[Segment]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        line = line.strip()
        if not line:
            continue
        try:
            name, segments = _parse_line(line, classes)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
        if name in found:
            raise ValueError(f"{path}, line {number}: video {name!r} has two lines; join them")
        found[name] = segments
    return found


def truth_events(events: list[Segment]) -> list[Segment]:
    """The events of one video that make its frame truth: those without a code if there are any,
    else all."""
    return [event for event in events if event[0] is None] or events


def class_events(events: list[Segment]) -> list[Segment]:
    """The events of one video by class: those with a code if there are any, else all."""
    return [event for event in events if event[0] is not None] or events


def _parse_line(line: str, classes: ClassSet) -> tuple[str, list[Segment]]:
    match = _LABELLED_LINE.fullmatch(line) or _PLAIN_LINE.fullmatch(line)
    assert match is not None  # a line that is not blank has a first word
    name, tokens = match["name"].removesuffix(".mp4"), (match["rest"] or "").split()
    coded = bool(tokens) and not _is_number(tokens[0])
    width = 3 if coded else 2
    form = "CODE start end" if coded else "start end"
    if not tokens or len(tokens) % width:
        raise ValueError(f"video {name!r} needs groups of '{form}', got {' '.join(tokens)!r}")
    segments: list[Segment] = []
    for at in range(0, len(tokens), width):
        *code, start, end = tokens[at : at + width]
        if not (_is_number(start) and _is_number(end)):
            raise ValueError(f"video {name!r} needs whole frame numbers, got '{start} {end}'")
        if code and classes.index(code[0]) == 0:
            raise ValueError(f"video {name!r} annotates the normal class {code[0]} as an event")
        if int(end) <= int(start):
            raise ValueError(
                f"video {name!r} has an event that ends before it starts, {start} {end}"
            )
        segments.append((code[0] if code else None, int(start), int(end)))
    return name, segments


def _is_number(token: str) -> bool:
    return token.isascii() and token.isdigit()
