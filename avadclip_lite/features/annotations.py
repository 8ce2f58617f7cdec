"""What people's lists say of videos: names, text files, tables, and the official annotations.

Names from anywhere (files, labels, annotations, scores) meet through ``match_names`` alone.

In the official annotation files a test video's events stand in one line, in frames with exclusive
ends, in either of two forms, and normal videos have no line::

    NAME start end start end ...
    NAME CODE start end CODE start end ...

The two files of XD-Violence differ in five videos, by 125 frames altogether: the release takes the
frame truth (AP) from the first form and the events by class (mAP) from the second. So a video's
events may be of both forms at once; ``dataset.events_of`` tells them apart.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from avadclip_lite.config import ClassSet
from avadclip_lite.dataset import LABEL_MARK, Segment

VIDEO_SUFFIXES = frozenset(
    ".mp4 .m4v .mov .mkv .webm .avi .mpg .mpeg .ts .mts .m2ts .wmv .asf .flv .3gp .ogv .gif"
    " .vob .f4v .3g2 .mxf".split()
)
FOREIGN = {"thumbs.db", "desktop.ini", "__macosx", "@eadir", "system volume information"}
# a name ends with its label; one without a label is a single word; spreadsheets write commas
_NAME = re.compile(rf"(.*{LABEL_MARK})?[^\s,;]+")
_EVENT = re.compile(r"(?:([A-Za-z]\w*)[\s,;]+)?(\d+)[\s,;]+(\d+)(?:[\s,;]+|$)", re.ASCII)


def video_name(name: str) -> str:
    """A video's name as it is compared: ``/`` between folders, composed Unicode (macOS writes é as
    two characters), no blanks around it, without the suffix of a video file."""
    name = unicodedata.normalize("NFC", re.sub(r"[\\/]+", "/", name.strip())).removeprefix("./")
    stem, _, suffix = name.rpartition(".")
    return stem if stem and f".{suffix.lower()}" in VIDEO_SUFFIXES else name


def is_hidden(path: str | Path) -> bool:
    """Whether a file or folder is another system's business: ``._clip.mp4``, ``Thumbs.db``."""
    name = Path(path).name.lower()
    return name.startswith((".", "$recycle", "#recycle", "@recycle", "lost+")) or name in FOREIGN


def match_names(listed: Iterable[str], videos: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """``{video: listed name}`` and the listed names that stand for no video. Names are one where
    one of them ends with the other, folders included: ``/disk/a/1.mp4`` is the video ``1`` or
    ``a/1``, not ``b/1``. Raises ``ValueError`` for a listed name that could be two videos, and for
    two names of one video."""
    tails: dict[str, list[str]] = defaultdict(list)
    for video in videos:
        for tail in _tails(video_name(video)):
            tails[tail].append(video)
    found: dict[str, str] = {}
    unmatched = []
    for name in listed:
        whole = video_name(name)
        ends = ([v for v in tails.get(t, ()) if t in (whole, video_name(v))] for t in _tails(whole))
        fits = next(filter(None, ends), [])
        fits = [v for v in fits if v == name] or [v for v in fits if video_name(v) == whole] or fits
        if not fits:
            unmatched.append(name)
        elif len(fits) > 1:
            both = f"{fits[0]!r} or {fits[1]!r}"
            raise ValueError(f"{name!r} could be {both}; write it as one of them")
        elif found.setdefault(fits[0], name) != name:
            both = f"{found[fits[0]]!r} and {name!r}"
            raise ValueError(f"{both} are both names of video {fits[0]!r}; keep one")
    return found, unmatched


def _tails(name: str) -> list[str]:
    parts = name.split("/")
    return ["/".join(parts[start:]) for start in range(len(parts))]


def some(names: Sequence[str], what: str = "video", shown: int = 3) -> str:
    """``"5 videos: a, b, c and 2 more"``, for messages."""
    more = f" and {len(names) - shown:,} more" if len(names) > shown else ""
    return f"{len(names):,} {what}{'s' * (len(names) != 1)}: {', '.join(names[:shown])}{more}"


def read_text(path: str | Path, remarks: list[str] | None = None) -> str:
    """A text file in UTF-8, UTF-16 (each with or without its mark), or Windows-1252, which holds
    Latin-1; of the last, which is a guess, ``remarks`` gets a sentence. Raises
    ``FileNotFoundError``, and ``ValueError`` for what is in none of them."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist, or is a folder; check the path")
    data = path.read_bytes()
    guesses = ["utf-8-sig", "cp1252"]
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        guesses = ["utf-16"]
    elif b"\0" in data[:100]:  # text has no such byte, and UTF-16 has it in every plain letter
        guesses = ["utf-16-be" if data[0] == 0 else "utf-16-le"]
    for guess in guesses:
        try:
            text = data.decode(guess)
        except UnicodeDecodeError:
            continue
        if guess == "cp1252" and remarks is not None:
            remarks.append(f"{path} is not in UTF-8 and was read as Windows-1252: check its names")
        return text
    raise ValueError(f"{path} is not text in UTF-8, UTF-16 or Windows-1252; save it in UTF-8")


def read_table(
    path: str | Path, columns: Mapping[str, str], remarks: list[str] | None = None
) -> list[tuple[str, dict[str, str]]]:
    """(where, cells by column) for each line of a table with a header, whose case and blanks do not
    count, nor what is above it: empty lines, and the ``sep=;`` of spreadsheets; cells are separated
    by commas, semicolons or tabs. ``columns``: those that must be there, each with what to do where
    it is not. ``ValueError`` for a missing one or an uneven line."""
    text = read_text(path, remarks)
    separator = max(",;\t", key=text.lstrip().partition("\n")[0].count)
    table = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    first = next((row for row in table if any(row) and row[0][:4].lower() != "sep="), [])
    header = [cell.strip().lower().replace(" ", "_") for cell in first]
    for column, remedy in columns.items():
        if header.count(column) != 1:
            what = f"{'two columns' if column in header else 'no column'} {column!r}"
            raise ValueError(f"{path} has {what} in '{', '.join(header):.80}'; {remedy}")
    lines = []
    for cells in table:
        where = f"{path}, line {table.line_num}"
        if any(cell.strip() for cell in cells):
            if len(cells) != len(header):
                raise ValueError(f"{where}: wrong number of cells; quote names with {separator!r}")
            lines.append((where, dict(zip(header, (c.strip() for c in cells), strict=True))))
    return lines


def read_annotations(
    paths: str | Path | Iterable[str | Path], classes: ClassSet, remarks: list[str] | None = None
) -> dict[str, list[Segment]]:
    """The events of every annotated video, ``{name: [(code or None, start, end), ...]}`` in the
    order of the file, or of a file of each form; frames, end exclusive, not clipped. ``remarks``:
    see ``read_text``. Raises ``FileNotFoundError``, and ``ValueError`` naming file and line."""
    found: dict[str, list[Segment]] = {}
    for path in [paths] if isinstance(paths, (str, Path)) else paths:
        for number, line in enumerate(read_text(path, remarks).splitlines(), 1):
            if not line.strip():
                continue
            try:
                name, segments = _parse_line(line.strip(), classes)
                before = found.setdefault(name, [])
                if (segments[0][0] is None) in {code is None for code, _, _ in before}:
                    raise ValueError(f"video {name!r} has two lines of one form; join them")
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from None
            before += segments
    return found


def _parse_line(line: str, classes: ClassSet) -> tuple[str, list[Segment]]:
    found = _NAME.match(line)
    if found is None:
        raise ValueError(f"{line!r} does not begin with the name of a video")
    name, rest = video_name(found[0].strip('"')), line[found.end() :].strip(" \t,;")
    groups = _EVENT.findall(rest)
    if not groups or _EVENT.sub("", rest) or len({bool(code) for code, _, _ in groups}) > 1:
        form = "needs groups of 'start end' or of 'CODE start end' in whole frames"
        raise ValueError(f"video {name!r} {form}, got {rest!r}")
    for code, start, end in groups:
        if code and classes.index(code) == 0:
            raise ValueError(f"video {name!r} annotates the normal class {code} as an event")
        if int(end) <= int(start):
            raise ValueError(f"video {name!r}: an event ends before it starts, {start} {end}")
    return name, [(code or None, int(start), int(end)) for code, start, end in groups]
