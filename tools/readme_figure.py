"""Draw the picture of the README: the two detectors that ship on one test video.

python tools/readme_figure.py docs/timeline.png
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import matplotlib  # noqa: E402

matplotlib.use("Agg")

import numpy as np  # noqa: E402

from avadclip_lite.evaluate import predict_store  # noqa: E402
from avadclip_lite.video.reader import read_clip  # noqa: E402
from avadclip_lite.viz import plots  # noqa: E402
from avadclip_lite.viz.lesson import (  # noqa: E402
    EXAMPLES,
    FPS,
    clip_path,
    open_stage,
    row_of,
    shipped,
)


def main(target: Path) -> None:
    """Draw the figure into ``target`` and print the confidences that it shows."""
    plots.use_style()
    store = open_stage()
    row = row_of(store, EXAMPLES["sound saves"])
    frames, _, wave = read_clip(clip_path(store.videos[row].name))
    curves, probabilities = {}, None
    for label, role in (("teacher", "teacher"), ("vision-only student", "student")):
        found = predict_store(shipped(store, role), store, [row])
        curves[label] = found.anomaly
        probabilities = found.alignment if probabilities is None else probabilities
    figure = plots.timeline(
        curves,
        store.segments(row),
        fps=FPS,
        seconds=len(frames) / FPS,
        names=dict(zip(store.classes.codes, store.classes.words, strict=True)),
        probabilities=probabilities,
        wave=wave,
        title="Soundstage (synthetic): four accidents on a street",
    )
    target.parent.mkdir(exist_ok=True)
    figure.savefig(target, dpi=110)
    print(store.videos[row].name, {k: np.round(v, 2).tolist() for k, v in curves.items()})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
