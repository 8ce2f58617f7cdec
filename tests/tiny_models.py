"""Detectors small enough to test in milliseconds, with everything seeded."""

from __future__ import annotations

import torch

from avadclip_lite.config import Config, make_config
from avadclip_lite.dataset import Batch
from avadclip_lite.encoders import TextTower, WordPrompts
from avadclip_lite.model import Detector, Output, build

DIM = 16
WORDS = WordPrompts(
    ids=((2,), (3,), (4, 5), (6,)), start=0, end=1
)  # four classes, one of two words


def text_tower(*, dim: int = DIM, width: int = 8, positions: int = 32, seed: int = 0) -> TextTower:
    """A frozen text tower with a vocabulary of eight tokens."""
    tower = TextTower(
        width=width, heads=2, layers=2, positions=positions, vocabulary=range(8), dim=dim
    )
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in tower.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator) * 0.3
        parameter.data.copy_(1 + noise if "ln_" in name and name.endswith("weight") else noise)
    return tower


def settings(*, form: str = "paper", role: str = "audio_visual", **overrides) -> Config:
    return make_config(form=form, role=role, **{"dim": DIM} | overrides)


def detector(*, seed: int = 0, **choices) -> Detector:
    """A detector in eval mode (no dropout) with seeded weights."""
    torch.manual_seed(seed)
    return build(settings(**choices), text_tower(), WORDS).eval()


def batch(lengths: list[int], *, snippets: int | None = None, dim: int = DIM, seed: int = 1):
    """video, audio (B, T, D) with zeros beyond the lengths, and lengths (B,). The contents of a
    video do not depend on how far the batch is padded."""
    snippets = snippets or max(lengths)
    video, audio = torch.zeros(2, len(lengths), snippets, dim).unbind()
    for row, length in enumerate(lengths):
        generator = torch.Generator().manual_seed(1000 * seed + row)
        drawn = torch.randn(2, length, dim, generator=generator)
        # Neighbours look alike, as in a real video, so that the similarity graph has edges.
        drawn[:, 1::2] = drawn[:, : 2 * (length // 2) : 2] + 0.3 * drawn[:, 1::2]
        video[row, :length], audio[row, :length] = drawn
    return video, audio, torch.tensor(lengths)


def multi_hot(rows: list[list[int]], classes: int = len(WORDS.ids)) -> torch.Tensor:
    """Labels (B, C) from class indices per video."""
    labels = torch.zeros(len(rows), classes)
    for row, present in enumerate(rows):
        labels[row, present] = 1.0
    return labels


def call(model: Detector, video, audio, lengths, audio_mask=None) -> Output:
    """The detector on loose tensors."""
    return model(Batch(video=video, audio=audio, lengths=lengths, audio_mask=audio_mask))
