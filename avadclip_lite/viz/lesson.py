"""What lessons share: the store they open, the videos that all of them follow, and their clips."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from avadclip_lite.config import soundstage_path
from avadclip_lite.dataset import FeatureStore

__all__ = ["EXAMPLES", "FPS", "clip_path", "examples", "open_stage", "row_of"]

FPS = 24.0  # frames a second, of Soundstage and of XD-Violence

# Three test videos of Soundstage, followed through all notebooks.
EXAMPLES = {
    "sound saves": "soundstage_0483_label_B6-0-0",  # a car accident off camera, heard throughout
    "sound lies": "soundstage_0414_label_A",  # fireworks over a stadium, nothing else happens
    "many labels": "soundstage_0545_label_B1-B2-B5",  # one seen only, two seen and heard
}


def open_stage(data: str | Path = "") -> FeatureStore:
    """The feature store in the folder ``data``; the Soundstage set that ships where it is empty."""
    return FeatureStore.open(data or soundstage_path())


def clip_path(name: str) -> Path | None:
    """The example clip (MP4 with sound) that ships of the Soundstage video called ``name``.

    ``None`` where there is none: few videos of Soundstage have one, and other data has features
    only.
    """
    path = soundstage_path() / "clips" / f"{name}.mp4"
    return path if path.is_file() else None


def row_of(store: FeatureStore, name: str) -> int:
    """The first row of the video called ``name``. Raises ``ValueError`` where there is none."""
    for i, row in enumerate(store.videos):
        if row.name == name:
            return i
    raise ValueError(f"no video called {name!r} in {store.path}")


def examples(store: FeatureStore) -> dict[str, int]:
    """The running examples as rows of the store, by role.

    In other data the roles are filled by what its labels can tell: the longest test video with the
    most classes, the longest with one class, and the longest normal one.
    """
    names = [row.name for row in store.videos]
    if set(EXAMPLES.values()) <= set(names):
        return {role: names.index(name) for role, name in EXAMPLES.items()}
    test = store.indices("test")
    labels = store.labels(test)
    order = test[np.argsort(-store.snippets[test], kind="stable")]
    count = dict(zip(test.tolist(), np.where(labels[:, 0] > 0, 0, labels.sum(1)), strict=True))
    roles = {"sound saves": 1, "sound lies": 0, "many labels": int(max(count.values()))}
    found = {}
    for role, wanted in roles.items():
        found[role] = next((int(i) for i in order if count[int(i)] == wanted), int(order[0]))
    return found
