"""The detector as one drawing, for the notebooks and the README.

architecture()            # the whole detector, each part with the notebook that builds it
architecture(here="03")   # the same, what notebook 03 is about standing out
"""

from __future__ import annotations

from itertools import pairwise
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

    def at(self, right: float, up: float) -> tuple[float, float]:
        """A point of the box: (0, 0) is its middle, (1, 1) its upper right corner."""
        return self.x + right * self.width / 2, self.y + up * self.height / 2


BOXES: dict[str, Box] = {
    "student": Box("student: sees video only\nenhancement", "student", ("07",), 5.5, 5.0, 2.5),
    "video": Box("video\nin snippets", "data", ("00",), 0.95, 3.7),
    "clip": Box("CLIP\nimage tower", "frozen", ("01",), 3.1, 3.7),
    "temporal": Box("windows + graph\nover time", "learned", ("02",), 5.25, 3.7),
    "audio": Box("sound\nin snippets", "data", ("00",), 0.95, 2.3),
    "wav2clip": Box("Wav2CLIP", "frozen", ("01",), 3.1, 2.3),
    "tcn": Box("temporal\nconvolution", "learned", ("06",), 5.25, 2.3),
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
        box.at(-1, -1),
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
    ax.text(*box.at(0, 0), box.words, ha="center", va="center", fontsize=7.6, color=colour)
    right, top = box.at(1, 1)
    numbers = ", ".join(box.notebooks)
    ax.text(right, top + 0.04, numbers, ha="right", va="bottom", fontsize=6.5, color=colour)


def _arrow(
    ax: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    bend: tuple[int, int] | None = None,
    **look: str,
) -> None:
    """An arrow; ``bend`` gives it one corner: the angles at which it leaves and arrives."""
    way = "arc3" if bend is None else f"angle,angleA={bend[0]},angleB={bend[1]},rad=6"
    style = {"arrowstyle": "-|>", "mutation_scale": 10, "connectionstyle": way, "linewidth": 1.2}
    style |= {"shrinkA": 0, "shrinkB": 0, "color": INK} | look
    ax.annotate("", xy=end, xytext=start, arrowprops=style, zorder=1)


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
    for chain in ("video clip temporal", "audio wav2clip tcn", "words context text prompt"):
        for left, right in pairwise(chain.split()):
            _arrow(ax, b[left].at(1, 0), b[right].at(-1, 0))
    fusion, prompt, student = b["fusion"], b["prompt"], b["student"]
    for source, side in (("temporal", 1), ("tcn", -1)):
        _arrow(ax, b[source].at(1, 0), fusion.at(-1, 0.36 * side), (0, -60 * side))
    for branch, result, side in (("classification", "confidence", 1), ("alignment", "map", -1)):
        _arrow(ax, fusion.at(1, 0.36 * side), b[branch].at(-1, 0))
        _arrow(ax, b[branch].at(1, 0), b[result].at(-1, 0))
    _arrow(ax, fusion.at(0, -1), prompt.at(0, 1))
    _arrow(ax, prompt.at(1, 0), b["alignment"].at(0, -1), (0, 90))
    _arrow(ax, b["clip"].at(0, 1), student.at(-1, 0), (90, 0), color=BASELINE)
    _arrow(ax, fusion.at(0, 1), student.at(1, 0), (90, 0), color=BASELINE, linestyle="--")
    for x, y, words in (
        (6.33, 3.84, "$x_v$"),
        (6.33, 2.44, "$x_a$"),
        (8.52, 3.0, "$x_{av}$"),
        (10.97, 3.84, "$a$"),
        (10.97, 2.19, "$m$"),
        (6.45, 0.89, "$x_c$"),
        (7.19, 1.6, "$a,\\ x_{av}$"),
        (9.05, 0.89, "$x_{cp}$"),
        (9.4, 4.65, "distillation (UKD): imitate $x_{av}$,\nand say where that cannot be known"),
    ):
        ax.text(x, y, words, ha="center", va="center", fontsize=8, color=INK)
    keys = [Patch(facecolor=_FILL[r], edgecolor=_EDGE[r], label=t) for r, t in _LEGEND.items()]
    ax.legend(handles=keys, loc="lower right", frameon=False, fontsize=7, borderaxespad=0)
    return fig
