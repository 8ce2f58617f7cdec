"""Score video files: from an MP4 to a timeline of named anomalies.

    results, failed = score(["street.mp4"], models=["runs/teacher", "runs/student"], out="scores")
    results[0].events

For each video: the audio-visual teacher where it has sound, the vision-only student where it has
none, and a sentence that says which and why. Written are NAME.json (events, and every snippet's
scores), NAME.png (the timeline) and, if wanted, NAME_annotated.mp4.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageChops
from tqdm import tqdm

from avadclip_lite.encoders import load_encoders
from avadclip_lite.video.detect import Event, Panel, Scores, clock, score_video, stream_video
from avadclip_lite.video.extract import LOUDNESS_BINS
from avadclip_lite.video.folder import add_encoder_arguments, find_videos
from avadclip_lite.video.overlay import annotate
from avadclip_lite.video.reader import BrokenVideo, pictures_at
from avadclip_lite.viz import plots

__all__ = [
    "add_arguments",
    "main",
    "peaks_figure",
    "score",
    "timeline_figure",
    "timeline_picture",
    "write_scores",
]

PEAKS = 6  # thumbnails under a timeline


# ---- what is written -----------------------------------------------------------------------------


def timeline_figure(scores: Scores) -> Figure:
    """Confidence over time with the threshold and the events, the class map, and the sound.

    Time runs evenly along the axis, whatever the frame rate does."""
    seconds = float(scores.times[-1])
    count = len(scores.confidence)
    even = (np.arange(count) + 0.5) * seconds / count
    place = np.searchsorted(scores.times[1:-1], even, side="right")
    steps = count * LOUDNESS_BINS
    fine = (np.arange(steps) + 0.5) * seconds / steps
    spot = np.searchsorted(scores.times[1:-1], fine, side="right")
    share = (fine - scores.times[spot]) / np.diff(scores.times)[spot]
    within = np.minimum((share * LOUDNESS_BINS).astype(int), LOUDNESS_BINS - 1)
    names = dict(zip(scores.classes.codes, scores.classes.words, strict=True))
    fig = plots.timeline(
        {scores.role.replace("_", "-"): scores.confidence[place]},
        [],
        fps=1.0,
        seconds=seconds,
        names=names,
        probabilities=scores.probabilities[place],
        wave=scores.loudness[spot, within] if scores.sound != "absent" else None,
        rate=steps / seconds,
        title=f"{scores.source.name}\n{scores.why}",
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
            last = middle
            axis.text(
                middle,
                1.02,
                event.name,
                transform=axis.get_xaxis_transform(),
                ha="center",
                va="bottom",
                fontsize="x-small",
                color=colour,
            )
    return fig


def peaks_figure(scores: Scores) -> Figure:
    """The pictures at the peaks of the strongest events; without events, at the highest scores."""
    events = sorted(scores.events, key=lambda event: -event.score)[:PEAKS]
    if events:
        shown = sorted((e.peak, f"{e.name} {e.score:.2f}") for e in events)
    else:
        top = np.sort(np.argsort(-scores.confidence, kind="stable")[:PEAKS])
        middle = (scores.times[:-1] + scores.times[1:]) / 2
        shown = [(float(middle[k]), f"{scores.confidence[k]:.2f}") for k in top]
    pictures = pictures_at(scores.source, [scores.origin + when for when, _ in shown])
    return plots.contact_sheet(
        pictures,
        [f"{when:.1f} s: {text}" for when, text in shown],
        marked=[bool(events)] * len(shown),
        columns=PEAKS,
    )


def timeline_picture(scores: Scores) -> Image.Image:
    """Timeline and peaks in one picture."""
    plots.use_style()
    parts = []
    for figure in (timeline_figure(scores), peaks_figure(scores)):
        with io.BytesIO() as file:
            figure.savefig(file, format="png")
            parts.append(_without_margins(Image.open(file).convert("RGB")))
        plt.close(figure)
    width = max(part.width for part in parts)
    whole = Image.new("RGB", (width, sum(part.height for part in parts)), "white")
    top = 0
    for part in parts:
        whole.paste(part, (0, top))
        top += part.height
    return whole


def _without_margins(picture: Image.Image, margin: int = 6) -> Image.Image:
    """Cut white rows off above and below."""
    _, top, _, bottom = ImageChops.invert(picture).getbbox()
    low = min(bottom + margin, picture.height)
    return picture.crop((0, max(top - margin, 0), picture.width, low))


def write_scores(
    scores: Scores, stem: Path, *, timeline: bool = True, annotated: bool = False
) -> list[Path]:
    """STEM.json, STEM.png and STEM_annotated.mp4; returns the paths."""
    made = [stem.with_name(stem.name + ".json")]
    text = json.dumps(scores.to_dict(), indent=1, ensure_ascii=False) + "\n"
    made[0].write_text(text, encoding="utf-8")
    if timeline:
        made.append(stem.with_name(stem.name + ".png"))
        timeline_picture(scores).save(made[-1])
    if annotated:
        made.append(stem.with_name(stem.name + "_annotated.mp4"))
        annotate(
            scores.source,
            made[-1],
            times=scores.times,
            confidence=scores.confidence,
            threshold=scores.threshold,
            labels=[
                (e.start, e.end, f"{e.name} {e.score:.2f}", plots.colour_of(e.code))
                for e in scores.events
            ],
        )
    return made


# ---- several videos ------------------------------------------------------------------------------


def score(
    videos: Sequence[str | Path],
    *,
    models: Sequence[str | Path],
    out: str | Path,
    encoder: Literal["soundstage", "clip"] | None = None,
    weights: str = "auto",
    device: str = "auto",
    threshold: float | None = None,
    timeline: bool = True,
    annotated: bool = False,
    stream: bool = False,
    tell: Callable[[str], None] = print,
    progress: bool = False,
    **choices: Any,
) -> tuple[list[Scores], dict[Path, str]]:
    """Score videos (files, or folders of them) and write the results into ``out``.

    ``models``: see ``Panel.load``. ``encoder``: by default the one that the detectors were trained
    with. ``tell`` receives lines for the reader. ``choices`` go to ``FeatureReader``: crops,
    picture, stride, batch.

    Returns the scores, and for each file that could not be scored the reason. Raises ``ValueError``
    or ``FileNotFoundError`` for detectors or choices that are wrong for all.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if threshold is not None and not 0 <= threshold <= 1:
        raise ValueError(f"threshold must be between 0 and 1, got {threshold}")
    panel = Panel.load(models, device)
    which = encoder or panel.encoder
    if which not in ("soundstage", "clip"):
        raise ValueError(
            f"the detector was trained with text tower {which!r}, which says nothing about its "
            "features; name them with --encoder"
        )
    encoders = load_encoders(which, weights=weights, device=device)
    width = next(iter(panel.detectors.values())).settings.model.dim
    if encoders.dim != width:
        raise ValueError(
            f"the detector takes features {width} wide, the {which} encoders give {encoders.dim}"
        )
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    results, failed = [], {}
    for path, stem in _files(videos):
        tell(f"{path}")
        try:
            with _bar(progress and not stream) as advance:
                common = {"threshold": threshold, "progress": advance, **choices}
                if stream:
                    told = lambda what, event: tell(_line(what, event))  # noqa: E731
                    scores = stream_video(path, panel, encoders, on_event=told, **common)
                else:
                    scores = score_video(path, panel, encoders, **common)
            made = write_scores(scores, out / stem, timeline=timeline, annotated=annotated)
        except (BrokenVideo, OSError) as error:
            failed[path] = str(error)
            tell(f"  not scored: {error}")
            continue
        results.append(scores)
        _report(scores, made, tell)
    return results, failed


def _files(videos: Sequence[str | Path]) -> Iterator[tuple[Path, str]]:
    """Files, and what their results are called: the name without suffix, numbered if taken."""
    taken: set[str] = set()
    for path in videos:
        # a missing file is reported like any other that cannot be scored
        for file in find_videos(path) if Path(path).is_dir() else [Path(path)]:
            stem, number = file.stem, 2
            while stem in taken:
                stem, number = f"{file.stem}_{number}", number + 1
            taken.add(stem)
            yield file, stem


@contextmanager
def _bar(shown: bool) -> Iterator[Callable[[int], None]]:
    with tqdm(unit=" snippets", disable=not shown, leave=False) as bar:
        yield bar.update


def _line(what: str, event: Event) -> str:
    if what == "starts":
        return f"  [{clock(event.start)}] {event.name} starts ({event.score:.2f})"
    return f"  [{clock(event.end)}] {event.name} ends, peak {event.score:.2f}"


def _report(scores: Scores, made: Sequence[Path], tell: Callable[[str], None]) -> None:
    events = scores.events
    tell(f"  {scores.why}")
    for note in scores.notes:
        tell(f"  note: {note}")
    tell(
        f"  {clock(float(scores.times[-1]))}, {len(scores.confidence)} snippets, "
        f"{len(events)} event{'s' * (len(events) != 1)} at threshold {scores.threshold:.3g}"
    )
    if not scores.streamed:
        for event in events:
            tell(f"  {clock(event.start)} to {clock(event.end)}  {event.name} {event.score:.2f}")
    tell(f"  wrote {', '.join(path.name for path in made)}")


# ---- command line --------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``python -m avadclip_lite score``."""
    parser.description = (
        "Score videos: JSON, a timeline PNG and, if wanted, an annotated MP4 for each."
    )
    parser.add_argument("videos", nargs="+", type=Path, help="video files, or folders of them")
    parser.add_argument(
        "--model",
        action="append",
        required=True,
        type=Path,
        help="folder of a trained detector, or of several (teacher, student); may be repeated",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--threshold", type=float, help="instead of the one saved by `alarms`")
    parser.add_argument("--annotate", action="store_true", help="also a copy with scores drawn in")
    parser.add_argument("--no-timeline", action="store_true", help="write no PNG")
    parser.add_argument("--stream", action="store_true", help="print events while decoding")
    add_encoder_arguments(parser)
    parser.set_defaults(encoder=None)


def main(args: argparse.Namespace) -> int:
    """Score and print. Status 1 if a file could not be scored; bad input raises."""
    _, failed = score(
        args.videos,
        models=args.model,
        out=args.out,
        encoder=args.encoder,
        weights=args.weights,
        device=args.device,
        threshold=args.threshold,
        timeline=not args.no_timeline,
        annotated=args.annotate,
        stream=args.stream,
        progress=sys.stderr.isatty(),
        crops=args.crops,
        picture=args.picture,
        stride=args.stride,
        **({"batch": args.batch} if args.batch else {}),
    )
    return 1 if failed else 0
