"""Every figure the notebooks show, in one look.

Functions take plain arrays and return the matplotlib ``Figure``; none of them knows about models
or stores. Colours are from the Okabe-Ito palette, which colour-blind readers can tell apart, and
lines also differ in style or lightness, so that a greyscale print still reads.

Shape letters: T snippets of a video, C classes, N frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgba
from matplotlib.figure import Figure

from avadclip_lite.config import SAMPLE_RATE, XD_CLASSES

__all__ = [
    "BASELINE",
    "CLASS_COLOURS",
    "MODEL",
    "class_map",
    "colour_of",
    "contact_sheet",
    "curves",
    "envelope",
    "heatmap",
    "histogram",
    "pictures_and_sound",
    "seeds_dotplot",
    "shade",
    "spectrogram",
    "timeline",
    "use_style",
]

WIDTH = 9.0  # inches, the width of every full-width figure
MODEL = "#0072B2"  # the audio-visual detector, blue as in the paper's qualitative figure
BASELINE = "#E69F00"  # what it is compared with, amber
TRUTH = "#D55E00"  # shaded ground truth
INK = "#333333"
_HUES = ("#8C8C8C", "#D55E00", "#0072B2", "#CC79A7", "#009E73", "#E69F00", "#56B4E9")
CLASS_COLOURS = dict(zip(XD_CLASSES.codes, _HUES, strict=True))

Segment = tuple[str, int, int]  # class code, first frame, end frame (exclusive)


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
            "axes.edgecolor": INK,
            "axes.labelcolor": INK,
            "text.color": INK,
            "xtick.color": INK,
            "ytick.color": INK,
        },
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
    top = ax.get_xaxis_transform()
    written: list[tuple[float, float, list[str]]] = []
    for code, start, end in sorted(segments, key=lambda s: s[1]):
        left, right = start / fps, end / fps
        ax.axvspan(left, right, color=TRUTH, alpha=0.16, lw=0)
        if names is None:
            continue
        if written and left < written[-1][1]:
            first, last, words = written.pop()
            if names[code] not in words:
                words.append(names[code])
            written.append((first, max(last, right), words))
        else:
            written.append((left, right, [names[code]]))
    raised, previous = False, -np.inf
    width = ax.get_xlim()[1] or 1.0
    for left, right, words in written:
        middle = (left + right) / 2
        raised = not raised and middle - previous < 0.16 * width  # too close to its left neighbour
        previous = middle
        ax.text(
            middle,
            1.1 if raised else 1.02,
            " + ".join(words),
            transform=top,
            ha="center",
            va="bottom",
            fontsize="x-small",
            color=TRUTH,
        )


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
        ax.set_xticks([])
        ax.set_yticks([])
        if place >= len(frames):
            ax.set_visible(False)
            continue
        ax.imshow(frames[place])
        hit = marked is not None and bool(marked[place])
        for spine in ax.spines.values():
            spine.set(visible=True, color=TRUTH if hit else "white", linewidth=3 if hit else 1)
        ax.set_xlabel(captions[place], fontsize="x-small", color=TRUTH if hit else INK)
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


def envelope(
    ax: Axes, wave: np.ndarray | None, seconds: float, *, rate: float = SAMPLE_RATE
) -> None:
    """Draw the loudness of a waveform over time as a mirrored RMS band; says so when missing."""
    ax.set_yticks([])
    ax.set_ylabel("sound", rotation=0, ha="right", va="center")
    if wave is None:
        text = "no audio track"
        ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color="#777777")
        return
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
        ax = fig.add_subplot(grid[0, place])
        ax.imshow(frame)
        ax.set_xticks([])
        ax.set_yticks([])
        hit = any(start <= when * fps < end for _, start, end in segments)
        for spine in ax.spines.values():
            spine.set(visible=True, color=TRUTH if hit else "white", linewidth=3 if hit else 1)
        ax.set_xlabel(f"{when:.0f} s", fontsize="x-small")
    below = fig.add_subplot(grid[1, :])
    if wave is None:
        below.text(0.5, 0.5, "no audio track", transform=below.transAxes, ha="center", va="center")
        below.set_yticks([])
    else:
        spectrogram(below, wave)
    below.set_xlim(0, seconds)
    below.set_xlabel("time (s)")
    for code, start, end in segments:
        below.axvspan(start / fps, end / fps, facecolor="none", edgecolor="white", lw=1.5)
        left = min(start / fps, seconds * 0.9)
        height = 0.9 * SAMPLE_RATE / 2000
        below.text(left, height, f" {names[code]}", color="white", fontsize="x-small", va="top")
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
    heights = [2.0] + ([1.5] if probabilities is not None else []) + ([0.5] if sound else [])
    fig, axes = plt.subplots(
        len(heights),
        1,
        figsize=(WIDTH, 0.5 + 1.0 * sum(heights)),
        height_ratios=heights,
        sharex=True,
        squeeze=False,
    )
    axes = axes[:, 0]
    styles = (
        (MODEL, "-", 2.2),
        (BASELINE, "--", 1.8),
        ("#009E73", ":", 1.8),
        ("#CC79A7", "-.", 1.8),
    )
    for (label, values), (colour, dash, width) in zip(confidences.items(), styles, strict=False):
        step = seconds / len(values)
        edges = np.arange(len(values) + 1) * step
        held = np.append(values, values[-1])
        axes[0].step(edges, held, where="post", color=colour, ls=dash, lw=width, label=label)
    axes[0].set(ylim=(-0.03, 1.03), xlim=(0, seconds), ylabel="confidence")
    shade(axes[0], segments, fps=fps, names=names)
    fig.legend(frameon=False, fontsize="x-small", loc="upper right", ncols=len(confidences))
    row = 1
    if probabilities is not None:
        class_map(axes[row], probabilities, list(names.values()), list(names), seconds)
        row += 1
    if sound:
        envelope(axes[row], wave, seconds, rate=rate)
    axes[-1].set_xlabel("time (s)")
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
    logx: bool = False,
) -> Figure:
    """Lines labelled at their right end in place of a legend."""
    fig, ax = plt.subplots(figsize=(WIDTH * 0.68, 3.2))
    palette = (MODEL, BASELINE, "#009E73", "#CC79A7", "#56B4E9", "#8C8C8C")
    dashes = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)))
    ends: list[tuple[float, float, str, str]] = []
    for place, (label, (x, y)) in enumerate(series.items()):
        colour = palette[place % len(palette)]
        ax.plot(x, y, color=colour, ls=dashes[place % len(dashes)], lw=2, marker="o", ms=3.5)
        ends.append((float(y[-1]), float(x[-1]), label, colour))
    if logx:
        ax.set_xscale("log")
    if ylim is not None:
        ax.set_ylim(*ylim)
    ax.set(xlabel=xlabel, ylabel=ylabel, title=title)
    low, high = ax.get_ylim()
    gap, last = 0.07 * (high - low), -np.inf
    for y, x, label, colour in sorted(ends):
        last = max(y, last + gap)
        ax.annotate(
            label,
            (x, last),
            xytext=(8, 0),
            textcoords="offset points",
            color=colour,
            va="center",
            fontsize="small",
            annotation_clip=False,
        )
    return fig


def heatmap(
    values: np.ndarray,
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    title: str = "",
    xlabel: str = "",
    ylabel: str = "",
    fmt: str = ".2f",
    vmin: float | None = 0.0,
    vmax: float | None = 1.0,
) -> Figure:
    """An annotated matrix, for confusions and similarity tables."""
    size = (min(WIDTH, 1.8 + 0.75 * len(columns)), 1.2 + 0.42 * len(rows))
    fig, ax = plt.subplots(figsize=size)
    sns.heatmap(
        values,
        annot=True,
        fmt=fmt,
        cmap="Blues",
        vmin=vmin,
        vmax=vmax,
        cbar=False,
        xticklabels=columns,
        yticklabels=rows,
        annot_kws={"fontsize": "x-small"},
        ax=ax,
    )
    ax.tick_params(axis="x", rotation=35)
    plt.setp(ax.get_xticklabels(), ha="right", rotation_mode="anchor")
    ax.tick_params(axis="y", rotation=0)
    ax.set(title=title, xlabel=xlabel, ylabel=ylabel)
    return fig


def histogram(
    groups: Mapping[str, np.ndarray], *, xlabel: str, title: str = "", bins: int = 40
) -> Figure:
    """Distributions of a score in several groups, each normalised to its own size."""
    fig, ax = plt.subplots(figsize=(WIDTH * 0.68, 3.0))
    palette = ("#8C8C8C", TRUTH, MODEL, "#009E73")
    low = min(float(np.min(v)) for v in groups.values())
    high = max(float(np.max(v)) for v in groups.values())
    edges = np.linspace(low, high, bins + 1)
    for (label, values), colour in zip(groups.items(), palette, strict=False):
        weights = np.full(len(values), 1 / len(values))
        ax.hist(values, edges, weights=weights, color=colour, alpha=0.25)
        ax.hist(values, edges, weights=weights, color=colour, histtype="step", lw=1.8, label=label)
    ax.legend(frameon=False, fontsize="small")
    ax.set(xlabel=xlabel, ylabel="share of the group", title=title)
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
