"""FVAI: fuse by a product, after each sense has re-weighted the other (Pang et al., ICASSP 2021).

The idea: a snippet-by-snippet dependency map between picture and sound drives co-attention both
ways, with self-attention beside it. The streams are fused by a product with a signed root, so that
agreement matters, in place of a concatenation. A second, vision-only network of another
architecture is trained along, and the two have to agree (mutual learning).

A RECONSTRUCTION: no code was found; the equations are from a reader's notes; widths, K, weights,
schedule, projections, softmax axes, alpha's start and the root's 1e-4 are ours. Left out: nothing.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avadclip_lite.baselines import common
from avadclip_lite.losses import topk_mean
from avadclip_lite.temporal import zero_padding


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """softmax(q k^T) v over the snippets that exist: (B, T, W) each, mask (B, T)."""
    return F.scaled_dot_product_attention(query, key, value, mask[:, None, :], scale=1.0)


class SelfAttention(nn.Module):
    """x + alpha softmax(q k^T) v over a video; alpha starts at 0."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.alpha = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return x + self.alpha * attend(self.query(x), self.key(x), self.value(x), mask)


class CoAttention(nn.Module):
    """Each stream (B, T, W) takes from the other along the dependency map (W1 v)(W2 a)^T."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.w1, self.w2, self.w3, self.w4 = (nn.Linear(width, width) for _ in range(4))
        self.alpha_v, self.alpha_a = (nn.Parameter(torch.zeros(())) for _ in range(2))

    def forward(self, v: Tensor, a: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        from_a = attend(self.w1(v), self.w2(a), self.w4(a), mask)
        from_v = attend(self.w2(a), self.w1(v), self.w3(v), mask)
        return v + self.alpha_a * from_a, a + self.alpha_v * from_v


@common.register("fvai")
class FVAI(common.Baseline):
    """See the module."""

    paired = False
    Options = common.options(modality=("audio_visual",), width=128)

    def build(self, dim: int, context: common.Context) -> None:
        width = self.options.width
        self.reduce_v, self.reduce_a = nn.Linear(dim, width), nn.Linear(dim, width)
        self.co, self.score = CoAttention(width), nn.Linear(width, 1)
        self.self_v, self.self_a = SelfAttention(width), SelfAttention(width)
        self.fuse_v, self.fuse_a = (nn.Conv1d(2 * width, width, 3, padding=1) for _ in "va")
        self.mutual_reduce, self.mutual_score = nn.Linear(dim, width), nn.Linear(width, 1)
        self.mutual_self = SelfAttention(width)

    def forward(self, batch: common.Batch) -> common.Traced:
        x, mask = self.inputs(batch)
        v, a = x.chunk(2, dim=-1)
        seen = zero_padding(F.relu(self.mutual_reduce(v)), mask)
        mutual = self.mutual_score(self.mutual_self(seen, mask)).squeeze(-1).sigmoid()
        v = zero_padding(F.relu(self.reduce_v(v)), mask)
        a = zero_padding(F.relu(self.reduce_a(a)), mask)
        co_v, co_a = self.co(v, a, mask)
        v = zero_padding(torch.cat([co_v, self.self_v(v, mask)], dim=-1), mask)
        a = zero_padding(torch.cat([co_a, self.self_a(a, mask)], dim=-1), mask)
        product = self.fuse_v(v.mT) * self.fuse_a(a.mT)
        fused = product / torch.sqrt(product.abs() + 1e-4)  # signed root, a finite slope at zero
        master = self.score(fused.mT).squeeze(-1).sigmoid()
        logits = torch.logit((master + mutual) / 2, eps=1e-7)
        return self.output(logits, mask, master=master, mutual=mutual)

    def loss(self, output: common.Traced, batch: common.Batch) -> dict[str, Tensor]:
        """Parts: master and mutual, squared errors of each network's top K snippets; agreement."""
        traces, mask = output.traces, output.mask
        target = (~common.is_normal(batch.labels)).float()
        sign = 1 - 2 * target  # where the label is 1, the largest scores have the smallest errors
        errors = {k: sign[:, None] * (p - target[:, None]).square() for k, p in traces.items()}
        parts = {k: (sign * topk_mean(e, mask.sum(dim=1))).mean() for k, e in errors.items()}
        agreement = (traces["master"] - traces["mutual"])[mask].square().mean()
        return parts | {"agreement": agreement, "total": sum(parts.values()) + agreement}
