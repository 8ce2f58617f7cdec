"""Lengths, events and shares of a store beside XD-Violence's: a table, and a figure.

    python -m data.make_soundstage.distributions [STORE ...] [--out docs/soundstage_and_xd.png]

XD-Violence's numbers were counted from its test annotations (500 violent videos with 1,238 events,
300 normal ones), in snippets of 16 frames; lengths are scaled as the footage is.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from avadclip_lite.config import soundstage_path
from avadclip_lite.dataset import FeatureStore
from avadclip_lite.viz import plots
from data.make_soundstage.world import FOOTAGE

PERCENTILES = np.arange(5, 100, 10)
XD = {
    "violent video, snippets": (24, 42, 60, 75.6, 90, 105.5, 137.4, 165, 228, 343.4),
    "normal video, snippets": (59, 86.8, 112, 150.6, 191.9, 237.4, 270, 301, 378.6, 540),
    "event, snippets": (1.9, 2.9, 4.1, 5.4, 7.4, 9.8, 13.8, 21.5, 41, 119.9),
    "positive share of a violent video": (0.08, 0.15, 0.21, 0.26, 0.32, 0.4, 0.51, 0.66, 0.86, 1),
    "events of a violent video": (1, 1, 1, 1, 1, 2, 2, 3, 4, 7),
}


def measured(store: FeatureStore) -> dict[str, np.ndarray]:
    """The same quantities of a store's test videos, each (number of them,)."""
    rows = store.indices("test")
    violent = [i for i in rows if store.segments(i)]
    events = [store.segments(i) for i in violent]
    return {
        "violent video, snippets": store.snippets[violent],
        "normal video, snippets": store.snippets[[i for i in rows if not store.segments(i)]],
        "event, snippets": np.array([(b - a) / store.stride for es in events for _, a, b in es]),
        "positive share of a violent video": np.array(
            [store.frame_truth([i]).mean() for i in violent]
        ),
        "events of a violent video": np.array([len(es) for es in events]),
    }


def xd(name: str) -> np.ndarray:
    """XD-Violence's percentiles of a quantity, lengths scaled."""
    return np.array(XD[name]) * (FOOTAGE.time_scale if name.endswith("snippets") else 1)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m data.make_soundstage.distributions", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("stores", type=Path, nargs="*", default=[soundstage_path()])
    parser.add_argument("--out", type=Path, help="the figure, PNG")
    options = parser.parse_args(arguments)
    found = {path.name: measured(FeatureStore.open(path)) for path in options.stores}
    columns = {"XD-Violence": {name: xd(name) for name in XD}} | {
        store: {name: np.percentile(x, PERCENTILES) for name, x in of.items()}
        for store, of in found.items()
    }
    shown = {
        store: {
            name: " / ".join(f"{v:.3g}" for v in values[[2, 4, 5, 7]])
            for name, values in of.items()
        }
        for store, of in columns.items()
    }
    print("percentiles 25, 45, 55 and 75; lengths of XD-Violence scaled")
    print(pd.DataFrame(shown).to_string())
    plots.use_style()
    fig, axes = plt.subplots(1, len(XD), figsize=(plots.WIDTH * 1.6, 2.8), sharey=True)
    for ax, name in zip(axes, XD, strict=True):
        for store, of in columns.items():
            official = store == "XD-Violence"
            ax.plot(of[name], PERCENTILES, "" if official else ".-", lw=3 if official else 1,
                    color="#BBBBBB" if official else None, label=store)  # fmt: skip
        ax.set(xlabel=name.replace(" of a", "\nof a").replace(", ", ",\n"), xscale="log")
        ax.tick_params(which="minor", labelbottom=False)
        ax.xaxis.set_major_formatter("{x:g}")
    axes[0].set(ylabel="percentile")
    axes[0].legend(fontsize="x-small")
    if options.out:
        fig.savefig(options.out, dpi=110, bbox_inches="tight")


if __name__ == "__main__":
    main()
