"""A store of a few short videos and a text tower of one layer, for tests of training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from avadclip_lite.config import XD_CLASSES, Config, make_config
from avadclip_lite.dataset import FeatureStore
from avadclip_lite.encoders import TextTower, WordPrompts
from avadclip_lite.features.writer import StoreWriter

DIM = 8


def tiny_settings(**overrides) -> Config:
    """D = 8, three epochs of three batches."""
    small = {"dim": DIM, "fusion_heads": 2, "epochs": 3, "batch_size": 8, "context_before": 1}
    small |= {"context_after": 1, "device": "cpu"}
    return make_config(**(small | overrides))


def tiny_text() -> tuple[TextTower, WordPrompts]:
    """Seven one-word classes; weights from a seed of its own."""
    tower = TextTower(width=8, heads=2, layers=1, positions=8, vocabulary=range(9), dim=DIM)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in tower.parameters():
            parameter.normal_(0.0, 0.3, generator=generator)
    return tower, WordPrompts(tuple((i,) for i in range(7)), 7, 8)


def tiny_store(path: Path, *, train: int = 24, test: int = 6, longest: int = 30) -> FeatureStore:
    """Videos of 3 to ``longest`` snippets: every second is anomalous in its middle third, where
    one feature of its class stands out; the first has no audio."""
    rng = np.random.default_rng(4)
    with StoreWriter(
        path, classes=XD_CLASSES, dim=DIM, stride=16, encoder="tiny", dtype="float32"
    ) as writer:
        for i in range(train + test):
            snippets = int(rng.integers(3, longest + 1))
            video = rng.standard_normal((snippets, DIM)).astype(np.float32)
            audio = rng.standard_normal((snippets, DIM)).astype(np.float32)
            code, segments = "A", []
            if i % 2:
                c = 1 + (i // 2) % 6
                code = XD_CLASSES.codes[c]
                first, last = snippets // 3, max(2 * snippets // 3, snippets // 3 + 1)
                video[first:last, c] += 4
                audio[first:last, c] += 4
                segments = [(code, 16 * first, 16 * last)]
            in_test = i >= train
            writer.add(
                name=f"v{i:03d}_label_{code}",
                label=code,
                split="test" if in_test else "train",
                crop=0,
                video=video,
                audio=None if i == 0 else audio,
                segments=segments if in_test else [],
            )
        writer.finish()
    return FeatureStore.open(path)
