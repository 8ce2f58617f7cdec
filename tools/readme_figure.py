"""Draw the picture of the README: a teacher and a vision-only baseline on one test video.

    python tools/readme_figure.py docs/timeline.png

Trains both on Soundstage (seed 0) unless the cache has them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np

from avadclip_lite.config import make_config
from avadclip_lite.evaluate import predict
from avadclip_lite.train import trained
from avadclip_lite.viz import plots
from avadclip_lite.viz.lesson import EXAMPLES, open_stage, row_of
from data.make_soundstage.captions import setting
from data.make_soundstage.render import wave
from data.make_soundstage.sample import sample_scene
from data.make_soundstage.world import FPS

plots.use_style()
store = open_stage()
row = row_of(store, EXAMPLES["sound saves"])
scene = sample_scene(int(store.videos[row].source.removeprefix("scene:")))
curves, probabilities = {}, None
for label, role in (("audio-visual", "audio_visual"), ("vision only", "vision")):
    model = trained(make_config(role=role, ukd="none"), store, progress=False).model
    found = predict(model, store, np.array([row]))
    curves[label] = found.anomaly
    probabilities = found.alignment if probabilities is None else probabilities
figure = plots.timeline(
    curves,
    store.segments(row),
    fps=FPS,
    seconds=scene.duration,
    names=dict(zip(store.classes.codes, store.classes.words, strict=True)),
    probabilities=probabilities,
    wave=wave(scene),
    title=f"Soundstage (synthetic): {setting(scene)}, an accident off camera",
)
target = Path(sys.argv[1])
target.parent.mkdir(exist_ok=True)
figure.savefig(target, dpi=110)
print(store.videos[row].name, {k: np.round(v, 2).tolist() for k, v in curves.items()})
