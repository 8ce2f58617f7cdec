"""DeepMIL: learning to rank a pair of bags (Sultani, Chen and Shah, CVPR 2018).

The idea: earlier detectors learned what is normal and called the rest anomalous; DeepMIL learns
from both kinds of video with one label a video. The most suspicious snippet of an anomalous video
has to outrank the most suspicious snippet of a normal one. Two priors place the anomaly in time:
it is rare (sparsity) and its score changes slowly (smoothness).

``variant="official"`` is the authors' objective, where *every* anomalous bag is ranked against
every normal one; "port" is the PyTorch version that XD-Violence users run: one pair at a time,
a second ReLU, dropout on the scores themselves, Adam. Left out: the test on 32 segments (scores
are given for every snippet). ``matlab_segments`` is the release's way to make 32 rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avadclip_lite.baselines.common import Baseline, Options, Traced, is_normal
from avadclip_lite.config import Config
from avadclip_lite.dataset import Batch
from avadclip_lite.model import Context, register

__all__ = ["DeepMIL", "RankingMLP", "matlab_segments"]


class RankingMLP(nn.Module):
    """Three linear layers over single snippets, D -> 512 -> 32 -> 1; no context in time."""

    def __init__(self, dim: int, dropout: float, *, second_relu: bool = False) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(dim, 512), nn.Linear(512, 32), nn.Linear(32, 1)
        self.dropout = nn.Dropout(dropout)
        self.second_relu = second_relu
        start = nn.init.xavier_uniform_ if second_relu else nn.init.xavier_normal_
        for layer in (self.fc1, self.fc2, self.fc3):
            start(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., D) -> logits (...)."""
        x = self.fc2(self.dropout(F.relu(self.fc1(x))))
        x = F.relu(x) if self.second_relu else x
        return self.fc3(self.dropout(x)).squeeze(-1)


@dataclass(frozen=True, kw_only=True)
class DeepMILOptions(Options):
    variant: Literal["official", "port"] = "official"
    bins: int = 32
    dropout: float = 0.6
    sparsity: float = 8e-5
    smoothness: float = 8e-5
    weight_penalty: float = 1e-3  # of the squared weights, biases excepted; official only


@register("deepmil")
class DeepMIL(Baseline):
    """See the module. Training sees bags of ``bins`` means; the output is then (B, J)."""

    Options = DeepMILOptions

    def __init__(self, settings: Config, context: Context) -> None:
        super().__init__(settings, context)
        port = self.options.variant == "port"
        self.mlp = RankingMLP(self.width, self.options.dropout, second_relu=port)

    def forward(self, batch: Batch) -> Traced:
        x, mask = self.inputs(batch, bins=self.options.bins)
        logits = self.mlp(x)
        scores = torch.sigmoid(logits)
        if self.options.variant == "port":
            scores = self.mlp.dropout(scores)
        return self.output(logits, mask, scores=scores)

    def loss(self, output: Traced, batch: Batch) -> dict[str, Tensor]:
        """Parts: hinge, sparsity, smoothness, mil (their sum), weight_l2 (official), total."""
        options, normal = self.options, is_normal(batch.labels)
        abnormal, ordinary = output.traces["scores"][~normal], output.traces["scores"][normal]
        parts = {
            "hinge": ranking_hinge(abnormal, ordinary, all_pairs=options.variant == "official"),
            "sparsity": options.sparsity * abnormal.sum(),
            "smoothness": options.smoothness * abnormal.diff(dim=1).square().sum(),
        }
        if options.variant == "port":  # the port's terms are means over the bags
            parts["sparsity"] = parts["sparsity"] / len(abnormal)
            parts["smoothness"] = parts["smoothness"] / len(abnormal)
            return parts | {"total": sum(parts.values())}
        parts["mil"] = parts["hinge"] + parts["sparsity"] + parts["smoothness"]
        layers = (self.mlp.fc1, self.mlp.fc2, self.mlp.fc3)
        squares = sum(layer.weight.square().sum() for layer in layers)
        parts["weight_l2"] = options.weight_penalty * squares
        return parts | {"total": parts["mil"] + parts["weight_l2"]}

    def optimizers(self) -> list[torch.optim.Optimizer]:
        if self.options.variant == "port":
            return super().optimizers()
        return [
            torch.optim.Adagrad(self.learnable(), lr=self.settings.train.learning_rate, eps=1e-8)
        ]


def ranking_hinge(abnormal: Tensor, normal: Tensor, *, all_pairs: bool) -> Tensor:
    """Hinge between bag maxima of scores (B, J) each: ``sum over all B x B pairs / B``, an AUC
    surrogate (official), or the mean over pairs in order (the port, the paper's equation)."""
    high, low = abnormal.amax(dim=1), normal.amax(dim=1)
    if all_pairs:
        return F.relu(1 - high[:, None] + low).sum() / len(high)
    return F.relu(1 - high + low).mean()


def matlab_segments(features: np.ndarray, segments: int = 32) -> np.ndarray:
    """The release's bags: (L, D) -> (segments, D), means over clips b_i .. b_(i+1) - 1 with
    b = round(linspace(1, L, segments + 1)), halves away from zero, then unit length. As released
    the last clip is never used (its test for the last segment looks one index too far)."""
    first, last = segment_bounds(len(features), segments)
    rows = np.stack([features[a - 1 : b].mean(axis=0) for a, b in zip(first, last, strict=True)])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def segment_bounds(clips: int, segments: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """First and last clip of each of ``matlab_segments``, counted from 1."""
    bounds = np.floor(np.linspace(1, clips, segments + 1) + 0.5).astype(int)
    return bounds[:-1], np.maximum(bounds[1:] - 1, bounds[:-1])
