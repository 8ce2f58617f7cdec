"""The drawing of the detector: nothing overlaps, no words leave their box, every part leads on."""

import matplotlib.pyplot as plt
import pytest
from matplotlib.patches import FancyBboxPatch

from avadclip_lite.viz import plots
from avadclip_lite.viz.diagram import BOXES, architecture


@pytest.fixture
def drawn():
    plots.use_style()
    figure = architecture()
    figure.canvas.draw()
    yield figure
    plt.close("all")


def test_words_stay_inside_their_boxes(drawn):
    axes = drawn.axes[0]
    patches = [p for p in axes.patches if isinstance(p, FancyBboxPatch)]
    texts = {t.get_text(): t for t in axes.texts}
    assert len(patches) == len(BOXES)
    for box, patch in zip(BOXES.values(), patches, strict=True):
        outer, inner = patch.get_window_extent(), texts[box.words].get_window_extent()
        assert outer.x0 + 3 < inner.x0 and inner.x1 < outer.x1 - 3, box.words  # pixels
        assert outer.y0 + 3 < inner.y0 and inner.y1 < outer.y1 - 3, box.words


def test_boxes_and_words_do_not_overlap(drawn):
    axes = drawn.axes[0]
    shown = [t for t in axes.texts if t.get_text()]
    extents = [t.get_window_extent() for t in shown]
    extents += [drawn.axes[0].get_legend().get_window_extent()]
    for i, one in enumerate(extents):
        for other in extents[i + 1 :]:
            assert not one.overlaps(other)
    frame = drawn.bbox
    for extent in extents:
        assert frame.x0 <= extent.x0 and extent.x1 <= frame.x1


def test_the_notebook_asked_for_stands_out():
    plain, marked = architecture(), architecture(here="06")

    def widths(figure):
        patches = [p for p in figure.axes[0].patches if isinstance(p, FancyBboxPatch)]
        return [p.get_linewidth() for p in patches]

    thick = [w > max(widths(plain)) for w in widths(marked)]
    names = [name for name, strong in zip(BOXES, thick, strict=True) if strong]
    plt.close("all")
    assert names == ["tcn", "classification", "confidence", "map"]


def test_an_unknown_notebook_is_refused():
    with pytest.raises(ValueError, match="no part is built in notebook '99'; there are 00, 01, 02"):
        architecture(here="99")
