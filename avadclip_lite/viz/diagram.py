"""The detector as one drawing, for the notebooks and the README.

architecture()            # the whole detector, each part with the notebook that builds it
architecture(here="03")   # the same, what notebook 03 is about standing out
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Patch

from avadclip_lite.viz.plots import BASELINE, INK, MODEL, WIDTH

__all__ = ["BOXES", "Box", "architecture"]

Role = Literal["data", "frozen", "learned", "student", "result"]


class Box(NamedTuple):
    """One part of the detector: its middle (x, y), width and height in drawing units."""

    words: str
    role: Role
    notebooks: tuple[str, ...]  # where it is built
    x: float
    y: float
    width: float = 1.84
    height: float = 0.74

    @property
    def left(self) -> tuple[float, float]:
        return self.x - self.width / 2, self.y

    @property
    def right(self) -> tuple[float, float]:
        return self.x + self.width / 2, self.y

    @property
    def top(self) -> tuple[float, float]:
        return self.x, self.y + self.height / 2

    @property
    def bottom(self) -> tuple[float, float]:
        return self.x, self.y - self.height / 2


BOXES: dict[str, Box] = {
    "student": Box("student: sees video only\nenhancement", "student", ("07",), 5.5, 5.0, 2.5),
    "video": Box("video\nin snippets", "data", ("00",), 0.95, 3.7),
    "clip": Box("CLIP\nimage tower", "frozen", ("01",), 3.1, 3.7),
    "temporal": Box("windows + graph\nover time", "learned", ("02",), 5.25, 3.7),
    "audio": Box("sound\nin snippets", "data", ("00",), 0.95, 2.3),
    "wav2clip": Box("Wav2CLIP", "frozen", ("01",), 3.1, 2.3),
    "tcn": Box("temporal\nconvolution", "learned", ("03",), 5.25, 2.3),
    "fusion": Box("adaptive\nfusion", "learned", ("03",), 7.55, 3.0, 1.3, 0.9),
    "words": Box("class words\nnormal, fighting, ...", "data", ("04",), 0.95, 0.75),
    "context": Box("learned words\naround each", "learned", ("04",), 3.1, 0.75),
    "text": Box("CLIP\ntext tower", "frozen", ("01", "04"), 5.25, 0.75),
    "prompt": Box("audio-visual\nprompt", "learned", ("04",), 7.55, 0.75, 1.5),
    "classification": Box("classification\nbranch", "learned", ("02", "06"), 9.85, 3.7),
    "alignment": Box("alignment\nbranch", "learned", ("05",), 9.85, 2.05),
    "confidence": Box("confidence\nhow anomalous?", "result", ("06",), 12.1, 3.7),
    "map": Box("alignment map\nwhich class?", "result", ("05", "06"), 12.1, 2.05),
}

_FILL = {
    "data": "#FFFFFF",
    "frozen": "#E6E6E6",
    "learned": "#CFE3F2",
    "student": "#FBE7C2",
    "result": "#FFFFFF",
}
_EDGE = {"data": "#999999", "frozen": "#777777", "learned": MODEL, "student": BASELINE}
_LEGEND = {
    "frozen": "frozen, pretrained elsewhere",
    "learned": "learned from weak labels",
    "student": "learned from weak labels and from the detector",
}


def _draw_box(ax: Axes, box: Box, faint: bool, strong: bool) -> None:
    patch = FancyBboxPatch(
        (box.x - box.width / 2, box.y - box.height / 2),
        box.width,
        box.height,
        boxstyle="round,pad=0,rounding_size=0.12",
        facecolor=_FILL[box.role],
        edgecolor=_EDGE.get(box.role, INK),
        linewidth=2.6 if strong else 1.2,
        alpha=0.35 if faint else 1.0,
        zorder=2,
    )
    ax.add_patch(patch)
    colour = "#999999" if faint else INK
    ax.text(box.x, box.y, box.words, ha="center", va="center", fontsize=7.6, color=colour, zorder=3)
    numbers = ", ".join(box.notebooks)
    place = (box.x + box.width / 2, box.y + box.height / 2 + 0.04)
    ax.text(*place, numbers, ha="right", va="bottom", fontsize=6.5, color=colour)


def _bent(leave: int, arrive: int) -> str:
    """One corner on the way: the angles at which the line leaves and arrives, in degrees."""
    return f"angle,angleA={leave},angleB={arrive},rad=6"


def _arrow(
    ax: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    *,
    bend: str = "arc3",
    colour: str = INK,
    dashed: bool = False,
) -> None:
    style = {
        "arrowstyle": "-|>",
        "mutation_scale": 10,
        "connectionstyle": bend,
        "color": colour,
        "linewidth": 1.2,
        "linestyle": "--" if dashed else "-",
        "shrinkA": 0,
        "shrinkB": 0,
    }
    ax.annotate("", xy=end, xytext=start, arrowprops=style, zorder=1)


def _write(ax: Axes, x: float, y: float, words: str, align: str = "center") -> None:
    ax.text(x, y, words, ha=align, va="center", fontsize=8, color=INK)


def architecture(here: str | None = None) -> Figure:
    """Draw the detector from its three inputs to its two results, and the student above it.

    The small number over each part is the notebook that builds it. ``here`` is such a number
    ("03"): its parts stand out and the others step back. Raises ``ValueError`` for a number that no
    part has.
    """
    known = sorted({number for box in BOXES.values() for number in box.notebooks})
    if here is not None and here not in known:
        raise ValueError(f"no part is built in notebook {here!r}; there are {', '.join(known)}")
    fig, ax = plt.subplots(figsize=(WIDTH, WIDTH * 5.75 / 13.1))
    ax.set(xlim=(0, 13.1), ylim=(-0.05, 5.7), aspect="equal")
    ax.axis("off")
    for box in BOXES.values():
        mine = here is not None and here in box.notebooks
        _draw_box(ax, box, faint=here is not None and not mine, strong=mine)

    b = BOXES
    chains = (("video", "clip", "temporal"), ("audio", "wav2clip", "tcn"))
    for row in (*chains, ("words", "context", "text")):
        for left, right in zip(row[:-1], row[1:], strict=True):
            _arrow(ax, b[left].right, b[right].left)

    left, right = b["fusion"].left, b["fusion"].right
    _arrow(ax, b["temporal"].right, (left[0], left[1] + 0.16), bend=_bent(0, -60))
    _arrow(ax, b["tcn"].right, (left[0], left[1] - 0.16), bend=_bent(0, 60))
    _write(ax, b["temporal"].x + 1.08, b["temporal"].y + 0.14, "$x_v$")
    _write(ax, b["tcn"].x + 1.08, b["tcn"].y + 0.14, "$x_a$")

    _arrow(ax, (right[0], right[1] + 0.16), b["classification"].left)
    _arrow(ax, (right[0], right[1] - 0.16), b["alignment"].left)
    _write(ax, right[0] + 0.32, right[1], "$x_{av}$")
    _arrow(ax, b["classification"].right, b["confidence"].left)
    _arrow(ax, b["alignment"].right, b["map"].left)
    _write(ax, 10.97, b["confidence"].y + 0.14, "$a$")
    _write(ax, 10.97, b["map"].y + 0.14, "$m$")

    _arrow(ax, b["text"].right, b["prompt"].left)
    _arrow(ax, b["fusion"].bottom, b["prompt"].top)
    _arrow(ax, b["prompt"].right, b["alignment"].bottom, bend=_bent(0, 90))
    _write(ax, 6.45, b["text"].y + 0.14, "$x_c$")
    _write(ax, b["prompt"].x - 0.36, 1.6, "$a,\\ x_{av}$")
    _write(ax, 9.05, b["prompt"].y + 0.14, "$x_{cp}$")

    student = b["student"]
    _arrow(ax, b["clip"].top, student.left, bend=_bent(90, 0), colour=BASELINE)
    _arrow(ax, b["fusion"].top, student.right, bend=_bent(90, 0), colour=BASELINE, dashed=True)
    what = "distillation (UKD): imitate $x_{av}$,\nand say where that cannot be known"
    _write(ax, b["fusion"].x + 0.12, 4.65, what, align="left")
    keys = [Patch(facecolor=_FILL[r], edgecolor=_EDGE[r], label=t) for r, t in _LEGEND.items()]
    ax.legend(handles=keys, loc="lower right", frameon=False, fontsize=7, borderaxespad=0)
    return fig
