"""Score video files: from an MP4 to a timeline of named anomalies.

    results, failed = score(["street.mp4"], models=["runs/teacher", "runs/student"], out="scores")
    results[0].events

The audio-visual teacher scores what has sound, the vision-only student what has none. Written are
NAME.json (events, and every snippet's scores), NAME.png (the timeline) and, if wanted,
NAME_overlay.mp4. Whatever is wrong with one file, it is named and the others are scored.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from tqdm import tqdm

from avadclip_lite.config import find_device, soundstage_path
from avadclip_lite.encoders import load_encoders
from avadclip_lite.train import write_file
from avadclip_lite.video import folder
from avadclip_lite.video.detect import DetectorSet, Event, Scores, score_video
from avadclip_lite.video.extract import checked_crops, checked_picks
from avadclip_lite.video.overlay import write_overlay
from avadclip_lite.video.reader import clock, pictures_at, printable
from avadclip_lite.viz import plots

PEAKS = 6  # thumbnails under a timeline
LONGEST = 220  # bytes of a results' name; file systems allow 255, and endings follow


def timeline_figure(scores: Scores) -> Figure:
    """Confidence with threshold and events, the class map, and the sound, over even time."""
    seconds, count = float(scores.times[-1]), len(scores.logits)
    even = (np.arange(count) + 0.5) * seconds / count
    place = np.searchsorted(scores.times[1:-1], even, side="right")
    fig = plots.timeline(
        {scores.role.replace("_", "-"): scores.confidence[place]},
        [],
        fps=1.0,
        seconds=seconds,
        names=dict(zip(scores.classes.codes, scores.classes.words, strict=True)),
        probabilities=None if scores.probabilities is None else scores.probabilities[place],
        wave=scores.loudness[place] if scores.sound != "absent" else None,
        rate=count / seconds,
        # two dollar signs in a name would be a formula
        title=f"{printable(scores.source.name)}\n{scores.why}".replace("$", r"\$"),
    )
    for legend in fig.legends:  # there is one curve, and the title names it
        legend.remove()
    axis = fig.axes[0]
    axis.axhline(scores.threshold, color=plots.INK, ls=":", lw=1)
    last = -np.inf
    for event in scores.events:
        colour = plots.colour_of(event.code)
        axis.axvspan(event.start, event.end, color=colour, alpha=0.18, lw=0)
        middle = (event.start + event.end) / 2
        if middle - last > 0.12 * seconds:  # where there is room for the word
            last, form = middle, {"ha": "center", "va": "bottom", "fontsize": "x-small"}
            over = axis.get_xaxis_transform()
            axis.text(middle, 1.02, event.label, transform=over, color=colour, **form)
    return fig


def peaks_figure(scores: Scores) -> Figure:
    """The pictures at the peaks of the strongest events; without events, at the highest scores."""
    events = sorted(scores.events, key=lambda event: -event.score)[:PEAKS]
    if events:
        shown = sorted((e.peak, f"{e.label} {e.score:.2f}") for e in events)
    else:
        top = np.sort(np.argsort(-scores.logits, kind="stable")[:PEAKS])
        middle = (scores.times[:-1] + scores.times[1:]) / 2
        shown = [(float(middle[k]), f"{scores.confidence[k]:.2f}") for k in top]
    times = [scores.origin + when for when, _ in shown]
    return plots.contact_sheet(
        pictures_at(scores.source, times, seek=not scores.joins),
        [f"{when:.1f} s: {text}" for when, text in shown],
        marked=[bool(events)] * len(shown),
        columns=PEAKS,
    )


def timeline_picture(scores: Scores) -> Image.Image:
    """Timeline and peaks in one picture."""
    plots.use_style()
    parts = []
    for make in (timeline_figure, peaks_figure):
        figure = make(scores)
        with io.BytesIO() as file, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing")  # a box stands in the title
            figure.savefig(file, format="png", bbox_inches="tight")
            parts.append(Image.open(file).convert("RGB"))
        plt.close(figure)
    size = max(part.width for part in parts), sum(part.height for part in parts)
    whole = Image.new("RGB", size, "white")
    for k, part in enumerate(parts):
        whole.paste(part, (0, sum(above.height for above in parts[:k])))
    return whole


def write_scores(
    scores: Scores, stem: Path, *, timeline: bool = True, overlay: bool = False
) -> list[Path]:
    """STEM.json, STEM.png and STEM_overlay.mp4; returns the paths."""
    made = [stem.with_name(stem.name + ".json")]
    text = json.dumps(scores.to_dict(), indent=1, ensure_ascii=False) + "\n"
    write_file(made[0], text.encode())
    if timeline:
        made.append(stem.with_name(stem.name + ".png"))
        timeline_picture(scores).save(made[-1])
    if overlay:
        made.append(stem.with_name(stem.name + folder.OVERLAY))
        labels = [
            (e.start, e.end, f"{e.label} {e.score:.2f}", plots.colour_of(e.code))
            for e in scores.events
        ]
        drawn = (scores.times, scores.confidence, scores.threshold, labels)
        write_overlay(scores.source, made[-1], *drawn)
    return made


def score(
    videos: Sequence[str | Path],
    *,
    out: str | Path,
    models: Sequence[str | Path] = (),
    encoder: str | None = None,
    weights: str = "auto",
    device: str = "auto",
    threshold: float | None = None,
    timeline: bool = True,
    overlay: bool = False,
    stream: bool = False,
    tell: Callable[[str], None] = print,
    progress: bool = False,
    **choices: Any,
) -> tuple[list[Scores], dict[Path, str]]:
    """Score videos (files, or folders of them) and write the results into ``out``; returns the
    scores, and for each file that could not be scored the reason.

    ``models``: see ``DetectorSet.load``; none: those that ship. ``encoder``: by default the one
    that the detectors were trained with. ``tell`` receives lines for the reader. ``choices`` go to
    ``FeatureReader``. Raises ``ValueError`` or ``FileNotFoundError`` for what is wrong for all.
    """
    where = find_device(device)
    if threshold is not None and not 0 <= threshold <= 1:
        raise ValueError(f"threshold must be between 0 and 1, got {threshold}")
    detectors = DetectorSet.load(models or [_shipped(tell)], where)
    which = encoder or detectors.encoder
    if which not in ("soundstage", "clip"):
        raise ValueError(f"no encoder of ours is called {which!r}, the detector's; name --encoder")
    encoders = load_encoders(which, weights=weights, device=where)
    width = next(iter(detectors.detectors.values())).settings.model.dim
    if encoders.dim != width:
        ours = f"the {which} encoders give {encoders.dim}"
        raise ValueError(f"the detector takes features {width} wide, {ours}")
    checked_crops(choices.get("crops"), which)
    checked_picks(**choices)
    out = Path(out)
    files, results, failed = _files(videos, out), [], {}
    out.mkdir(parents=True, exist_ok=True)
    for path, stem in files:
        tell(printable(path))
        try:
            with tqdm(unit=" snippets", disable=stream or not progress, leave=False) as bar:
                on_event = (lambda *told: tell(_line(*told))) if stream else None
                told = {"threshold": threshold, "on_event": on_event, "progress": bar.update}
                scores = score_video(path, detectors, encoders, **told, **choices)
            made = write_scores(scores, out / stem, timeline=timeline, overlay=overlay)
        except Exception as error:  # whatever one file does, the others are scored
            failed[path] = folder.reason(error, path)
            tell(f"  not scored: {failed[path]}")
            continue
        results.append(scores)
        _report(scores, made, tell)
    return results, failed


def _shipped(tell: Callable[[str], None]) -> Path:
    models, none = soundstage_path() / "models", "no --model was given"
    if not models.is_dir():
        where = f"the detectors that ship are not at {models}"
        raise FileNotFoundError(f"{none}, and {where}; name the folder of one that `train` made")
    which = f"the detectors in {models} are used, which know Soundstage's synthetic world only"
    tell(f"{none}: {which}; what they say of other videos means little")
    return models


def _files(videos: Sequence[str | Path], out: Path) -> list[tuple[Path, str]]:
    """Files, and their results' names: without suffix, numbered if taken or if it replaced one."""
    many = {"among_others": len(videos) > 1}
    found = (folder.find_videos(p, **many) if Path(p).is_dir() else [Path(p)] for p in videos)
    files = dict.fromkeys(file for some in found for file in some)
    sources = {file.resolve() for file in files}
    named: dict[str, Path] = {}
    for file in files:
        base, number = file.stem, 2
        while len(os.fsencode(base)) > LONGEST:
            base = base[:-1]
        stem = base
        while stem in named or _taken(out / stem, file.name, sources):
            stem, number = f"{base}_{number}", number + 1
        named[stem] = file
    return [(file, stem) for stem, file in named.items()]


def _taken(stem: Path, name: str, sources: set[Path]) -> bool:
    """Whether results would replace a video that is scored, or a STEM.json (or another result
    alone) that was not made here of a video of this name."""
    if stem.with_name(stem.name + folder.OVERLAY).resolve() in sources:
        return True
    try:
        text = stem.with_name(f"{stem.name}.json").read_text(encoding="utf-8")
        return json.loads(text)["video"] != printable(name)
    except (FileNotFoundError, NotADirectoryError):
        return any(stem.with_name(stem.name + e).exists() for e in (".png", folder.OVERLAY))
    except (IsADirectoryError, ValueError, KeyError, TypeError):
        return True


def _line(what: str, event: Event) -> str:
    if what == "starts":
        return f"  [{clock(event.start)}] {event.label} starts ({event.score:.2f})"
    return f"  [{clock(event.end)}] {event.label} ends, peak {event.score:.2f}"


def _report(scores: Scores, made: Sequence[Path], tell: Callable[[str], None]) -> None:
    events = [] if scores.streamed else scores.events
    for line in (
        scores.why,
        *(f"note: {note}" for note in scores.notes),
        f"{clock(float(scores.times[-1]))}, {len(scores.logits)} snippets, "
        f"{len(scores.events)} events at threshold {scores.threshold:.3g}",
        *(f"{clock(e.start)} to {clock(e.end)}  {e.label} {e.score:.2f}" for e in events),
        f"wrote {', '.join(printable(path.name) for path in made)}",
    ):
        tell(f"  {line}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``python -m avadclip_lite score``."""
    parser.description = "Find anomalies in videos: JSON, a timeline PNG, perhaps a marked MP4."
    add = parser.add_argument
    add("videos", nargs="+", type=Path, help="video files, or folders of them")
    several = "folder of a trained detector, or of several (teacher, student); may be repeated; "
    shipped = "default: the two that ship, which know Soundstage's synthetic world only"
    add("--model", dest="models", action="append", type=Path, help=several + shipped)
    add("--out", type=Path, default="scores", help="folder for the results (%(default)s)")
    add("--threshold", type=float, help="instead of the one that `thresholds` saved")
    add("--overlay", "--annotate", action="store_true", help="also a copy with scores drawn in")
    add("--no-timeline", dest="timeline", action="store_false", help="write no PNG")
    add("--stream", action="store_true", help="print events while decoding")
    folder.add_encoder_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Score and print. Status 1 if a file could not be scored; bad input raises."""
    results, failed = score(progress=sys.stderr.isatty(), **folder.given(args))
    if failed:
        print(f"{len(results)} videos scored, {len(failed)} not (see above)")
    return 1 if failed else 0
