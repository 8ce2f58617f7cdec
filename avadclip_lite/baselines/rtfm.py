"""RTFM: the length of the features chooses the snippets (Tian et al., ICCV 2021).

The idea: early in training scores are noise, so RTFM selects snippets by the *magnitude* of their
features. It trains the magnitudes, long for anomalous videos and short for normal ones, and a
video's score is the mean of its three longest, not one maximum. A multi-scale temporal network
(dilated convolutions, a non-local block) makes features that know their neighbours.

As released, which departs from the paper in places: ``loss`` and ``select`` name them, and
``form="intended"`` is the paper's but for the weight decay. Left out: averaging over image crops.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avadclip_lite.baselines import common


class MultiScale(nn.Module):
    """Three dilated convolutions and a non-local block side by side, joined, plus the input."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        dilated = (nn.Conv1d(dim, width, 3, padding=d, dilation=d) for d in (1, 2, 4))
        dilated = (nn.Sequential(conv, nn.ReLU(), nn.BatchNorm1d(width)) for conv in dilated)
        self.dilated = nn.ModuleList(dilated)
        self.reduce = nn.Conv1d(dim, width, 1, bias=False)
        self.theta, self.phi, self.g = (nn.Conv1d(width, width // 2, 1) for _ in range(3))
        self.non_local_out = nn.Conv1d(width // 2, width, 1)
        self.non_local_norm = nn.BatchNorm1d(width)
        self.join = nn.Conv1d(4 * width, dim, 3, padding=1, bias=False)
        self.join_norm = nn.BatchNorm1d(dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x (N, T, D), mask (N, T) bool -> (N, T, D), zero outside the mask."""
        keep = mask[:, None, :].to(x.dtype)  # (N, 1, T)
        x = x.mT * keep
        scales, u = [branch(x) for branch in self.dilated], F.relu(self.reduce(x))
        scales = torch.cat([*scales, u + self.non_local(u, keep)], dim=1)
        return ((self.join_norm(F.relu(self.join(scales * keep))) + x) * keep).mT

    def non_local(self, u: Tensor, keep: Tensor) -> Tensor:
        """Every snippet takes from all: dot products over the length, without a softmax."""
        relation = self.theta(u).mT @ self.phi(u) / keep.sum(dim=-1, keepdim=True)  # (N, T, T)
        return self.non_local_norm(self.non_local_out((self.g(u) * keep) @ relation.mT))


@common.register("rtfm")
class RTFM(common.Baseline):
    """See the module. Training sees bags of 32 means; the output is then (B, 32)."""

    head = (512, 128)  # widths of the classifier
    Options = common.options(top=3, branch_width=0, dropout=0.7, margin=100.0, form=common.FORMS)

    def build(self, dim: int, context: common.Context) -> None:
        dim, (wide, narrow) = self.width, self.head
        self.drop = drop = nn.Dropout(self.options.dropout)
        self.multi_scale = MultiScale(dim, self.options.branch_width or dim // 4)
        self.classifier = nn.Sequential(
            *(nn.Linear(dim, wide), nn.ReLU(), drop),
            *(nn.Linear(wide, narrow), nn.ReLU(), drop),
            nn.Linear(narrow, 1),
        )
        for part in self.modules():
            if isinstance(part, (nn.Conv1d, nn.Linear)):
                nn.init.xavier_uniform_(part.weight)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)
        nn.init.zeros_(self.multi_scale.non_local_norm.weight)  # begins without its block

    def forward(self, batch: common.Batch) -> common.Traced:
        return self.encode(*self.inputs(batch, bins=32))

    def encode(self, x: Tensor, mask: Tensor) -> common.Traced:
        """x (B, T, D), mask (B, T) -> logits (B, T), with the features (B, T, D) they rest on."""
        features = self.drop(self.multi_scale(x, mask))
        return self.output(self.classifier(features).squeeze(-1), mask, features=features)

    def select(self, output: common.Traced) -> tuple[Tensor, Tensor]:
        """Bag scores (B,) and features (B, top, D) of the snippets of largest magnitude. Dropout on
        the *candidates* is not in the text."""
        longest = output.traces["features"].norm(dim=-1)
        longest = longest * self.drop(torch.ones_like(longest)) if self.released else longest
        top = longest.topk(self.options.top, dim=1).indices
        chosen = output.traces["features"].take_along_dim(top[..., None], dim=1)
        return output.confidence.gather(1, top).mean(dim=1), chosen

    def loss(self, output: common.Traced, batch: common.Batch) -> dict[str, Tensor]:
        """Parts: bce, magnitude (unweighted), main (both), smooth, sparsity (weighted), total. The
        i-th anomalous video is paired with the i-th normal one. As released: the norm of a mean,
        not the mean of norms; a square, no hinge; one video's end tied to the next's start; L2. The
        margin was made for I3D (CLIP's features are ten long)."""
        normal, released = common.is_normal(batch.labels), self.released
        margin = self.options.margin
        bag, chosen = self.select(output)
        length = chosen.mean(dim=-2).norm(dim=-1) if released else chosen.norm(dim=-1).mean(dim=-1)
        high, low = length[~normal], length[normal]
        gap = (margin - high).abs() + low if released else F.relu(margin - high + low)
        magnitude = (gap.square() if released else gap).mean()
        scores = output.confidence[~normal]
        row = scores.flatten() if released else scores
        bce = common.cross_entropy(bag, (~normal).to(bag.dtype))
        smooth = 8e-4 * row.diff().square().sum()
        sparsity = 8e-3 * torch.linalg.vector_norm(scores, 2 if released else 1)
        main = bce + 1e-4 * magnitude
        parts = {"bce": bce, "magnitude": magnitude, "main": main, "smooth": smooth}
        return parts | {"sparsity": sparsity, "total": main + smooth + sparsity}
