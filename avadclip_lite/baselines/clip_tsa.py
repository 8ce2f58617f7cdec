"""CLIP-TSA: RTFM on CLIP features, behind a learned gate on snippets (Joo et al., ICIP 2023).

The idea: take RTFM and replace its I3D features by CLIP's image embeddings, a first in this
field, its authors say. Before RTFM's temporal network a small scorer weights the snippets: how
often each is among the top k under Gaussian noise, so that the choice can be trained. Called
temporal self-attention, it scores each snippet alone and cuts none off: weights in [0, 1].

As released; the gate's gradient is mostly noise, less so with ``gate="centred"``; "off": no gate.
At test the noise has a fixed seed. Left out: the cap of 1,000 on k; the unused MLP.
"""

import torch
from torch import Tensor, nn

from avadclip_lite.baselines import common, rtfm


class PerturbedTopK(torch.autograd.Function):
    """Share of the noisy draws in which a snippet is among the ``count`` best: p (B, T), noise
    (B, S, T) already scaled by sigma, count (B,) -> (B, T), summing to count."""

    @staticmethod
    def forward(ctx, p, noise: Tensor, count: Tensor, sigma: float, centred: bool) -> Tensor:
        rank = (p[:, None] + noise).argsort(dim=-1, descending=True).argsort(dim=-1)
        chosen = (rank < count[:, None, None]).to(p.dtype)  # (B, S, T)
        gate = chosen.mean(dim=1)
        ctx.save_for_backward(chosen - centred * gate[:, None], noise / sigma**2)
        return gate

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The release's estimator: its sum over draws has indicator and noise the other way round
        than the textbook's; both have the same expectation, and less variance when centred."""
        chosen, noise = ctx.saved_tensors
        return (chosen * (noise @ gradient[..., None])).mean(dim=1), None, None, None, None


@common.register("clip_tsa")
class CLIPTSA(rtfm.RTFM):
    """See the module. Training sees bags of 32 means; the output is then (B, 32)."""

    head = (128, 32)
    Options = common.options(rtfm.RTFM.Options, draws=100, gate=("released", "centred", "off"))

    def build(self, dim: int, context: common.Context) -> None:
        if self.options.gate != "off":
            self.scorer = nn.Sequential(nn.Linear(self.width, 256), nn.ReLU(), nn.Linear(256, 1))
        super().build(dim, context)

    def forward(self, batch: common.Batch) -> common.Traced:
        x, mask = self.inputs(batch, bins=32)
        if self.options.gate != "off":
            x = x * self.nominate(x, mask)[..., None]
        return self.encode(x, mask)

    def nominate(self, x: Tensor, mask: Tensor) -> Tensor:
        """x (B, T, D), mask (B, T) -> the gate (B, T); nine tenths of the snippets are chosen."""
        p = self.scorer(x).squeeze(-1).float().sigmoid().masked_fill(~mask, -torch.inf)
        count = (mask.sum(dim=1) * 0.9).long().clamp_min(1)
        noise = (0.05 * self.noise(x)).expand(len(x), -1, -1)
        return PerturbedTopK.apply(p, noise, count, 0.05, self.options.gate == "centred")

    def noise(self, x: Tensor) -> Tensor:
        """Unit normal (B, S, T); at test (1, S, T), the same for a snippet in any batch."""
        batch, snippets, draws = *x.shape[:2], self.options.draws
        if self.training:
            return torch.randn(batch, draws, snippets, device=x.device)
        rows = -(-snippets // 16) * 16  # whole blocks of the generator: a longer batch adds to them
        fixed = torch.Generator().manual_seed(0)
        return torch.randn(rows, draws, generator=fixed)[:snippets].T[None].to(x.device)
