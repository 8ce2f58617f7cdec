"""Every figure the notebooks show, in one look.

Functions take plain arrays and return the matplotlib ``Figure``; none of them knows about models
or stores. Colours are from the Okabe-Ito palette, which colour-blind readers can tell apart, and
lines also differ in style or lightness, so that a greyscale print still reads.

Shape letters: T snippets of a video, C classes, N frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgba
from matplotlib.figure import Figure

from avadclip_lite.config import SAMPLE_RATE, XD_CLASSES
from avadclip_lite.dataset import Segment

WIDTH = 9.0  # inches, the width of every full-width figure
MODEL = "#0072B2"  # the audio-visual detector, blue as in the paper's qualitative figure
BASELINE = "#E69F00"  # what it is compared with, amber
TRUTH = "#D55E00"  # shaded ground truth
INK = "#333333"
_HUES = ("#8C8C8C", "#D55E00", "#0072B2", "#CC79A7", "#009E73", "#E69F00", "#56B4E9")
CLASS_COLOURS = dict(zip(XD_CLASSES.codes, _HUES, strict=True))


def use_style() -> None:
    """Set fonts, sizes and spines for every figure of a notebook; call once at its top."""
    sns.set_theme(
        style="ticks",
        context="notebook",
        font_scale=0.85,
        rc={
            "figure.dpi": 96,
            "savefig.dpi": 96,
            "figure.constrained_layout.use": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlelocation": "left",
            "axes.titlesize": "medium",
        }
        | dict.fromkeys(
            ("axes.edgecolor", "axes.labelcolor", "text.color", "xtick.color", "ytick.color"), INK
        ),
    )


def colour_of(code: str) -> str:
    """Colour of a class code; codes outside XD-Violence share the first anomaly's colour."""
    return CLASS_COLOURS.get(code, CLASS_COLOURS["B1"])


def shade(
    ax: Axes,
    segments: Sequence[Segment],
    *,
    fps: float,
    names: Mapping[str, str] | None = None,
) -> None:
    """Shade true segments over a time axis in seconds; ``names`` writes the class above each.

    Segments that overlap in time share the place of one label, so that text never collides.
    """
    labels: list[tuple[float, float, list[str]]] = []  # left, right, codes
    for code, start, end in sorted(segments, key=lambda segment: segment[1]):
        left, right = start / fps, end / fps
        ax.axvspan(left, right, color=TRUTH, alpha=0.16, lw=0)
        if labels and left < labels[-1][1]:
            first, last, codes = labels.pop()
            labels.append((first, max(last, right), [*codes, code]))
        else:
            labels.append((left, right, [code]))
    raised, previous = False, -np.inf
    for left, right, codes in labels if names is not None else ():
        middle = (left + right) / 2
        near = middle - previous < 0.16 * (ax.get_xlim()[1] or 1.0)  # its neighbour on the left
        raised, previous = near and not raised, middle
        words = " + ".join(dict.fromkeys(names[code] for code in codes))
        look = {"ha": "center", "va": "bottom", "fontsize": "x-small", "color": TRUTH}
        height = 1.1 if raised else 1.02
        ax.text(middle, height, words, transform=ax.get_xaxis_transform(), **look)


def _picture(ax: Axes, frame: np.ndarray, caption: str, marked: bool) -> None:
    """A frame (H, W, 3) without ticks, its caption below it; framed where it is marked."""
    ax.imshow(frame)
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set(visible=True, color=TRUTH if marked else "white", linewidth=3 if marked else 1)
    ax.set_xlabel(caption, fontsize="x-small", color=TRUTH if marked else INK)


def contact_sheet(
    frames: Sequence[np.ndarray],
    captions: Sequence[str],
    *,
    marked: Sequence[bool] | None = None,
    columns: int = 8,
    title: str = "",
) -> Figure:
    """Frames (each (H, W, 3) uint8) in reading order, a caption under each, marked ones framed."""
    rows = -(-len(frames) // columns)
    cell = WIDTH / columns
    fig, axes = plt.subplots(rows, columns, figsize=(WIDTH, rows * cell * 1.22), squeeze=False)
    for place, ax in enumerate(axes.flat):
        if place < len(frames):
            hit = marked is not None and bool(marked[place])
            _picture(ax, frames[place], captions[place], hit)
        else:
            ax.set_visible(False)
    if title:
        fig.suptitle(title, x=0.01, ha="left", fontsize="medium")
    return fig


def spectrogram(ax: Axes, wave: np.ndarray, *, rate: int = SAMPLE_RATE, start: float = 0.0) -> None:
    """Draw the spectrogram of a waveform (samples,) in decibels, time in seconds, up to 8 kHz."""
    window, hop = 512, 256
    padded = np.pad(np.asarray(wave, np.float32), window // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
    power = np.abs(np.fft.rfft(frames * np.hanning(window), axis=1)) ** 2
    decibel = 10 * np.log10(power.T + 1e-8)
    peak = decibel.max()
    ax.imshow(
        decibel,
        origin="lower",
        aspect="auto",
        cmap="magma",
        vmin=peak - 70,
        vmax=peak,
        extent=(start, start + len(wave) / rate, 0, rate / 2000),
    )
    ax.set_ylabel("kHz")


def _no_sound(ax: Axes) -> None:
    ax.text(0.5, 0.5, "no audio track", transform=ax.transAxes, ha="center", va="center")
    ax.set_yticks([])


def _envelope(ax: Axes, wave: np.ndarray | None, seconds: float, rate: float) -> None:
    """Draw the loudness of a waveform over time as a mirrored RMS band; says so when missing."""
    ax.set_ylabel("sound", rotation=0, ha="right", va="center")
    if wave is None:
        return _no_sound(ax)
    ax.set_yticks([])
    bins = min(400, len(wave))
    edges = np.linspace(0, len(wave), bins + 1).astype(int)
    energy = np.add.reduceat(np.square(wave, dtype=np.float64), edges[:-1]) / np.diff(edges)
    loudness = np.sqrt(energy)
    centre = (edges[:-1] + edges[1:]) / 2 / rate
    ax.fill_between(centre, -loudness, loudness, color="#666666", lw=0)
    ax.set_xlim(0, seconds)
    reach = max(float(loudness.max()), 1e-3) * 1.1
    ax.set_ylim(-reach, reach)


def pictures_and_sound(
    frames: Sequence[np.ndarray],
    times: Sequence[float],
    wave: np.ndarray | None,
    segments: Sequence[Segment],
    *,
    fps: float,
    seconds: float,
    names: Mapping[str, str],
    title: str = "",
) -> Figure:
    """A strip of frames over the spectrogram of the whole video, true segments shaded in both."""
    fig = plt.figure(figsize=(WIDTH, 3.4))
    grid = fig.add_gridspec(2, len(frames), height_ratios=(1.0, 1.25))
    for place, (frame, when) in enumerate(zip(frames, times, strict=True)):
        hit = any(start <= when * fps < end for _, start, end in segments)
        _picture(fig.add_subplot(grid[0, place]), frame, f"{when:.0f} s", hit)
    below = fig.add_subplot(grid[1, :])
    if wave is None:
        _no_sound(below)
    else:
        spectrogram(below, wave)
    below.set(xlim=(0, seconds), ylim=(0, SAMPLE_RATE / 2000), xlabel="time (s)")
    ink = TRUTH if wave is None else "white"
    for code, start, end in segments:
        below.axvspan(start / fps, end / fps, facecolor="none", edgecolor=ink, lw=1.5)
        left = min(start / fps, seconds * 0.9)
        height = 0.9 * SAMPLE_RATE / 2000
        below.text(left, height, f" {names[code]}", color=ink, fontsize="x-small", va="top")
    if title:
        fig.suptitle(title, x=0.01, ha="left", fontsize="medium")
    return fig


def class_map(
    ax: Axes, probabilities: np.ndarray, words: Sequence[str], codes: Sequence[str], seconds: float
) -> None:
    """Class probabilities (T, C) as one coloured row a class: the fine-grained result."""
    for row, code in enumerate(codes):
        ramp = LinearSegmentedColormap.from_list(code, ["white", to_rgba(colour_of(code))])
        ax.imshow(
            probabilities[None, :, row],
            cmap=ramp,
            vmin=0,
            vmax=1,
            aspect="auto",
            interpolation="nearest",
            extent=(0, seconds, row + 0.5, row - 0.5),
        )
    ax.set_xlim(0, seconds)
    ax.set_ylim(len(codes) - 0.5, -0.5)
    ax.set_yticks(range(len(codes)), words, fontsize="x-small")
    ax.hlines(np.arange(len(codes) - 1) + 0.5, 0, seconds, color="#dddddd", lw=0.6)


def timeline(
    confidences: Mapping[str, np.ndarray],
    segments: Sequence[Segment],
    *,
    fps: float,
    seconds: float,
    names: Mapping[str, str],
    probabilities: np.ndarray | None = None,
    wave: np.ndarray | None = None,
    sound: bool = True,
    rate: float = SAMPLE_RATE,
    title: str = "",
) -> Figure:
    """The paper's qualitative figure: confidence curves over shaded truth, the class map below,
    the sound's loudness at the bottom.

    ``confidences`` maps a label to (T,) values in [0, 1]; the first is drawn strongest.
    ``probabilities`` is (T, C) in the order of ``names``; ``seconds`` is the video's length.
    ``wave`` may also be a series of loudness values, ``rate`` a second.
    """
    heights = [2.0, *[1.5] * (probabilities is not None), *[0.5] * sound]
    size = (WIDTH, 0.5 + sum(heights))
    rows = {"height_ratios": heights, "sharex": True, "squeeze": False}
    fig, axes = plt.subplots(len(heights), 1, figsize=size, **rows)
    top, *below = axes[:, 0]
    styles = ((MODEL, "-"), (BASELINE, "--"), ("#009E73", ":"), ("#CC79A7", "-."))
    for (label, values), (colour, dash) in zip(confidences.items(), styles, strict=False):
        width = 2.2 if colour == MODEL else 1.8
        edges = np.linspace(0, seconds, len(values) + 1)
        look = {"color": colour, "ls": dash, "lw": width, "zorder": 2}
        top.stairs(values, edges, baseline=None, label=label, **look)
    top.set(ylim=(-0.03, 1.03), xlim=(0, seconds), ylabel="confidence")
    shade(top, segments, fps=fps, names=names)
    fig.legend(frameon=False, fontsize="x-small", loc="upper right", ncols=len(confidences))
    if probabilities is not None:
        class_map(below[0], probabilities, list(names.values()), list(names), seconds)
    if sound:
        _envelope(below[-1], wave, seconds, rate)
    axes[-1, 0].set_xlabel("time (s)")
    if title:
        fig.suptitle(title, x=0.01, ha="left", fontsize="medium")
    return fig


def curves(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    xlabel: str,
    ylabel: str,
    title: str = "",
    ylim: tuple[float, float] | None = None,
) -> Figure:
    """Lines labelled at their right end in place of a legend."""
    fig, ax = plt.subplots(figsize=(WIDTH * 0.68, 3.2))
    colours = cycle((MODEL, BASELINE, "#009E73", "#CC79A7", "#56B4E9", "#8C8C8C"))
    dashes = cycle(("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1))))
    ends: list[tuple[float, float, str, str]] = []
    for (label, (x, y)), colour, dash in zip(series.items(), colours, dashes, strict=False):
        ax.plot(x, y, color=colour, ls=dash, lw=2, marker="o", ms=3.5)
        ends.append((float(y[-1]), float(x[-1]), label, colour))
    ax.set(xlabel=xlabel, ylabel=ylabel, title=title, ylim=ylim)
    low, high = ax.get_ylim()
    gap, last = 0.07 * (high - low), -np.inf
    for y, x, label, colour in sorted(ends):
        last = max(y, last + gap)
        look = {"color": colour, "va": "center", "fontsize": "small", "annotation_clip": False}
        ax.annotate(label, (x, last), xytext=(8, 0), textcoords="offset points", **look)
    return fig


def heatmap(
    values: np.ndarray,
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    fmt: str = ".2f",
    vmin: float | None = 0.0,
    vmax: float | None = 1.0,
    **labels: str,
) -> Figure:
    """An annotated matrix, for confusions and similarity tables; ``labels``: title, xlabel and
    ylabel."""
    size = (min(WIDTH, 1.8 + 0.75 * len(columns)), 1.2 + 0.42 * len(rows))
    fig, ax = plt.subplots(figsize=size)
    ticks = {"xticklabels": columns, "yticklabels": rows, "annot_kws": {"fontsize": "x-small"}}
    look = {"annot": True, "fmt": fmt, "cmap": "Blues", "vmin": vmin, "vmax": vmax, "cbar": False}
    sns.heatmap(values, ax=ax, **look, **ticks)
    plt.setp(ax.get_xticklabels(), rotation=35, ha="right", rotation_mode="anchor")
    ax.tick_params(axis="y", rotation=0)
    ax.set(**labels)
    return fig


def seeds_dotplot(
    values: Mapping[str, Sequence[float]],
    *,
    xlabel: str,
    title: str = "",
    reference: float | None = None,
) -> Figure:
    """One row a variant: a dot a seed, and the mean as a bar with its number."""
    fig, ax = plt.subplots(figsize=(WIDTH * 0.75, 0.9 + 0.45 * len(values)))
    for row, numbers in enumerate(values.values()):
        numbers = np.asarray(numbers, float)
        ax.plot(numbers, np.full(len(numbers), row), "o", color=MODEL, alpha=0.55, ms=6, mew=0)
        mean = float(numbers.mean())
        ax.plot([mean, mean], [row - 0.28, row + 0.28], color=INK, lw=2)
        ax.annotate(f"{mean:.1f}", (mean, row - 0.32), ha="center", va="bottom", fontsize="x-small")
    if reference is not None:
        ax.axvline(reference, color="#999999", ls=":", lw=1.2)
    ax.set_yticks(range(len(values)), list(values))
    ax.set_ylim(len(values) - 0.5, -0.7)
    ax.set(xlabel=xlabel, title=title)
    return fig
