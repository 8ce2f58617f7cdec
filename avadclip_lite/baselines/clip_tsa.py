"""CLIP-TSA: RTFM on CLIP features, behind a learned gate over time (Joo et al., ICIP 2023).

The idea: take RTFM and replace its I3D features by CLIP's image embeddings, the first use of them
in this field. In front of the temporal network a small scorer nominates snippets: the top k of its
scores under Gaussian noise, averaged over many draws, so that the choice can be trained. What the
paper calls temporal self-attention is this gate; it keeps every snippet, with a weight in [0, 1].

As released; the gate's gradient is mostly noise, which subtracting its mean helps
(``estimator="centred"``), and ``gate=False`` is RTFM on CLIP features, the ablation that tells
most. At test the noise is drawn from a fixed seed (the release draws it anew). Left out: the cap of
1,000 on k; the unused MLP for other features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from avadclip_lite.baselines.common import Traced
from avadclip_lite.baselines.rtfm import RTFM, RTFMOptions
from avadclip_lite.config import Config
from avadclip_lite.dataset import Batch
from avadclip_lite.model import Context, register

__all__ = ["CLIPTSA", "perturbed_top_k"]


class _PerturbedTopK(torch.autograd.Function):
    @staticmethod
    def forward(ctx, p: Tensor, noise: Tensor, count: Tensor, sigma: float, centred: bool):
        rank = (p[:, None] + sigma * noise).argsort(dim=-1, descending=True).argsort(dim=-1)
        chosen = (rank < count[:, None, None]).to(p.dtype)  # (B, S, T)
        gate = chosen.mean(dim=1)
        ctx.save_for_backward(chosen - gate[:, None] if centred else chosen, noise)
        ctx.sigma = sigma
        return gate

    @staticmethod
    def backward(ctx, gradient: Tensor):
        chosen, noise = ctx.saved_tensors
        along = noise @ gradient[..., None]  # (B, S, 1)
        return (chosen * along).mean(dim=1) / ctx.sigma, None, None, None, None


def perturbed_top_k(
    p: Tensor, noise: Tensor, count: Tensor, sigma: float = 0.05, *, centred: bool = False
) -> Tensor:
    """Share of the draws in which a snippet is among the ``count`` best of ``p + sigma noise``.

    p (B, T), noise (B or 1, S, T) unit normal, count (B,) -> (B, T), summing to count. The gradient
    is the release's estimator; ``centred`` subtracts the gate from its indicators.
    """
    return _PerturbedTopK.apply(p, noise.expand(len(p), -1, -1), count, sigma, centred)


@dataclass(frozen=True, kw_only=True)
class CLIPTSAOptions(RTFMOptions):
    gate: bool = True
    kept: float = 0.9  # k as a share of the length
    draws: int = 100
    sigma: float = 0.05
    estimator: Literal["released", "centred"] = "released"


@register("clip_tsa")
class CLIPTSA(RTFM):
    """See the module. Training sees bags of ``bins`` means; the output is then (B, J)."""

    Options = CLIPTSAOptions

    def __init__(self, settings: Config, context: Context) -> None:
        super().__init__(settings, context)
        if self.options.gate:
            layers = (nn.Linear(self.width, 256), nn.ReLU(), nn.Linear(256, 1))
            self.scorer = nn.Sequential(*layers)
            for layer in (self.scorer[0], self.scorer[2]):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def make_head(self, dim: int, drop: nn.Dropout) -> nn.Sequential:
        wide = (nn.Linear(dim, 128), nn.ReLU(), drop)
        return nn.Sequential(*wide, nn.Linear(128, 32), nn.ReLU(), drop, nn.Linear(32, 1))

    def forward(self, batch: Batch) -> Traced:
        x, mask = self.inputs(batch, bins=self.options.bins)
        if self.options.gate:
            x = x * self.nominate(x, mask)[..., None]
        traces = self.encode(x[:, None], mask)
        return self.output(traces["logits"][:, 0], mask, **traces)

    def nominate(self, x: Tensor, mask: Tensor) -> Tensor:
        """x (B, T, D), mask (B, T) -> the gate (B, T)."""
        options = self.options
        p = torch.sigmoid(self.scorer(x)).squeeze(-1).masked_fill(~mask, -torch.inf)
        count = (mask.sum(dim=1) * options.kept).long().clamp_min(1)
        noise = self.noise(x)
        centred = options.estimator == "centred"
        return perturbed_top_k(p, noise, count, options.sigma, centred=centred)

    def noise(self, x: Tensor) -> Tensor:
        """Unit normal (B, S, T); at test (1, S, T), the same for a snippet in any batch."""
        batch, snippets, draws = *x.shape[:2], self.options.draws
        if self.training:
            return torch.randn(batch, draws, snippets, device=x.device)
        fixed = torch.Generator().manual_seed(0)
        rows = -(-snippets // 16) * 16  # whole blocks of the generator: a longer batch adds to them
        return torch.randn(rows, draws, generator=fixed)[:snippets].T[None].to(x.device)
