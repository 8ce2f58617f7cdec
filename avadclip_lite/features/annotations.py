"""The official annotation files.

A test video's events stand in a text file, one line a video, in frames with exclusive
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
from pathlib import Path

from avadclip_lite.config import ClassSet
from avadclip_lite.dataset import LABEL_MARK, Segment

__all__ = ["read_annotations"]

# a name ends with its label; one without a label is a single word
_LABELLED_LINE = re.compile(rf"(?P<name>.*{LABEL_MARK}\S+)(?:\s+(?P<rest>.*))?")
_PLAIN_LINE = re.compile(r"(?P<name>\S+)(?:\s+(?P<rest>.*))?")


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
