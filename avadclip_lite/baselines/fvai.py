"""FVAI: fuse by multiplication, after each modality has re-weighted the other (Pang et al.,
ICASSP 2021).

The idea: a snippet-by-snippet dependency map between picture and sound drives co-attention both
ways, with self-attention beside it. The streams are fused by a product with a signed root, so that
agreement matters, in place of a concatenation. A second network of another architecture, which only
sees, is trained along, and the two have to agree (mutual learning).

A RECONSTRUCTION: no code was published; widths, K, weights, schedule and the softmaxes' axes are
ours, the equations a reader's notes of the paper. ``modality="vision"`` is the second network
alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avadclip_lite.baselines.common import Baseline, Options, Traced, is_normal
from avadclip_lite.config import Config
from avadclip_lite.dataset import Batch
from avadclip_lite.losses import topk_mean
from avadclip_lite.model import Context, register
from avadclip_lite.temporal import zero_padding

__all__ = ["FVAI", "signed_root"]


def signed_root(z: Tensor) -> Tensor:
    """sign(z) sqrt|z|, with a finite slope at zero."""
    return z / torch.sqrt(z.abs() + 1e-4)


def _over(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax (B, T, T) along each row over the snippets that exist."""
    least = torch.finfo(scores.dtype).min
    return scores.masked_fill(~mask[:, None, :], least).softmax(dim=-1)


class SelfAttention(nn.Module):
    """x + alpha softmax(q k^T) v over a video; alpha starts at 0."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.alpha = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        weights = _over(self.query(x) @ self.key(x).mT, mask)
        return x + self.alpha * (weights @ self.value(x))


class CoAttention(nn.Module):
    """Each stream takes from the other along the dependency map (W1 v)(W2 a)^T."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.w1, self.w2, self.w3, self.w4 = (nn.Linear(width, width) for _ in range(4))
        self.alpha_v, self.alpha_a = (nn.Parameter(torch.zeros(())) for _ in range(2))

    def forward(self, v: Tensor, a: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """v, a (B, T, W) -> the same two."""
        dependency = self.w1(v) @ self.w2(a).mT  # (B, T of v, T of a)
        from_sound = _over(dependency, mask) @ self.w4(a)
        from_sight = _over(dependency.mT, mask) @ self.w3(v)
        return v + self.alpha_a * from_sound, a + self.alpha_v * from_sight


@dataclass(frozen=True, kw_only=True)
class FVAIOptions(Options):
    modality: Literal["vision", "audio_visual"] = "audio_visual"
    width: int = 128
    agreement: float = 1.0  # weight of the mutual term
    share: float = 0.5  # of the second network in the score


@register("fvai")
class FVAI(Baseline):
    """See the module."""

    Options = FVAIOptions
    paired = False

    def __init__(self, settings: Config, context: Context) -> None:
        super().__init__(settings, context)
        dim, width = settings.model.dim, self.options.width
        self.both = self.options.modality == "audio_visual"
        if self.both:
            self.reduce_v, self.reduce_a = nn.Linear(dim, width), nn.Linear(dim, width)
            self.co = CoAttention(width)
            self.self_v, self.self_a = SelfAttention(width), SelfAttention(width)
            self.fuse_v, self.fuse_a = (nn.Conv1d(2 * width, width, 3, padding=1) for _ in "va")
            self.score = nn.Linear(width, 1)
        self.mutual_reduce, self.mutual_score = nn.Linear(dim, width), nn.Linear(width, 1)
        self.mutual_self = SelfAttention(width)

    def forward(self, batch: Batch) -> Traced:
        x, mask = self.inputs(batch)
        seen = x[..., : self.settings.model.dim]
        seen = zero_padding(F.relu(self.mutual_reduce(seen)), mask)
        mutual = self.mutual_score(self.mutual_self(seen, mask)).squeeze(-1)
        if not self.both:
            return self.output(mutual, mask, mutual=mutual.sigmoid())
        v, a = x.chunk(2, dim=-1)
        v = zero_padding(F.relu(self.reduce_v(v)), mask)
        a = zero_padding(F.relu(self.reduce_a(a)), mask)
        co_v, co_a = self.co(v, a, mask)
        v = zero_padding(torch.cat([co_v, self.self_v(v, mask)], dim=-1), mask)
        a = zero_padding(torch.cat([co_a, self.self_a(a, mask)], dim=-1), mask)
        fused = signed_root(self.fuse_v(v.mT) * self.fuse_a(a.mT)).mT
        master, mutual = self.score(fused).squeeze(-1).sigmoid(), mutual.sigmoid()
        combined = torch.lerp(master, mutual, self.options.share)
        logits = torch.logit(combined, eps=1e-7)
        return self.output(logits, mask, master=master, mutual=mutual)

    def loss(self, output: Traced, batch: Batch) -> dict[str, Tensor]:
        """Parts: master and mutual, squared errors of each network's top K snippets; agreement."""
        mask, target = output.mask, (~is_normal(batch.labels)).float()
        parts = {k: _top_error(p, target, mask) for k, p in output.traces.items()}
        total = sum(parts.values())
        if self.both:
            gap = (output.traces["master"] - output.traces["mutual"]).square()
            parts["agreement"] = gap[mask].mean()
            total = total + self.options.agreement * parts["agreement"]
        return parts | {"total": total}


def _top_error(scores: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Squared error of the K largest scores (B, T) against the label (B,), mean over K and bags."""
    sign = 1 - 2 * target  # where the label is 1, the largest scores have the smallest errors
    error = sign[:, None] * (scores - target[:, None]).square()
    return (sign * topk_mean(error, mask.sum(dim=1))).mean()
