"""RTFM: the length of the features chooses the snippets (Tian et al., ICCV 2021).

The idea: early in training scores are noise, so RTFM selects snippets by the *magnitude* of their
features instead of by their scores. It trains the magnitudes, long for anomalous videos and short
for normal ones, and takes the mean of the top three in place of one maximum. A multi-scale
temporal network (dilated convolutions and a non-local block) makes features that know their
neighbours.

As released, which in five places is not the text: each is an option. Left out: the five or ten
crops as a loader's axis (``encode`` takes them). A batch longer than the training's bins is
masked, so that every video is scored as if alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avadclip_lite.baselines.common import Baseline, Options, Traced, cross_entropy, is_normal
from avadclip_lite.config import Config
from avadclip_lite.dataset import Batch
from avadclip_lite.model import Context, register

__all__ = ["RTFM", "MultiScale", "magnitude_losses", "xavier_start"]


class MultiScale(nn.Module):
    """Three dilated convolutions and a non-local block side by side, joined, plus the input."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.dilated = nn.ModuleList(
            nn.Conv1d(dim, width, 3, padding=d, dilation=d) for d in (1, 2, 4)
        )
        self.dilated_norms = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(3))
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
        pairs = zip(self.dilated, self.dilated_norms, strict=True)
        scales = [norm(F.relu(conv(x))) for conv, norm in pairs]
        u = F.relu(self.reduce(x))
        scales.append(u + self.non_local(u, keep))
        joined = self.join_norm(F.relu(self.join(torch.cat(scales, dim=1) * keep)))
        return ((joined + x) * keep).mT

    def non_local(self, u: Tensor, keep: Tensor) -> Tensor:
        """Every snippet takes from all: dot products over the length, without a softmax."""
        relation = self.theta(u).mT @ self.phi(u) / keep.sum(dim=-1, keepdim=True)  # (N, T, T)
        return self.non_local_norm(self.non_local_out((self.g(u) * keep) @ relation.mT))


def xavier_start(module: nn.Module) -> None:
    """The release's start: Xavier uniform, zero biases; the non-local block begins as zero, so
    that its inner weights get no gradient in the first step."""
    for part in module.modules():
        if isinstance(part, (nn.Conv1d, nn.Linear)):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        if isinstance(part, MultiScale):
            nn.init.zeros_(part.non_local_norm.weight)


@dataclass(frozen=True, kw_only=True)
class RTFMOptions(Options):
    bins: int = 32
    top: int = 3
    branch_width: int = 0  # of a scale; 0: a quarter of the input's
    dropout: float = 0.7
    prune: bool = True  # released: dropout on the *candidates* too, unmentioned in the text
    margin: float = 100.0  # made for I3D; CLIP's features are ten long
    margin_form: Literal["released", "hinge"] = "released"  # hinge: the text's equation
    margin_weight: float = 1e-4
    sparsity: float = 8e-3
    smoothness: float = 8e-4
    across_videos: bool = True  # released: the end of one video is tied to the next one's start


@register("rtfm")
class RTFM(Baseline):
    """See the module. Training sees bags of ``bins`` means; the output is then (B, J)."""

    Options = RTFMOptions

    def __init__(self, settings: Config, context: Context) -> None:
        super().__init__(settings, context)
        dim, drop = self.width, nn.Dropout(self.options.dropout)
        self.multi_scale = MultiScale(dim, self.options.branch_width or dim // 4)
        self.drop = drop
        self.head = self.make_head(dim, drop)
        xavier_start(self)

    def make_head(self, dim: int, drop: nn.Dropout) -> nn.Sequential:
        wide = (nn.Linear(dim, 512), nn.ReLU(), drop)
        return nn.Sequential(*wide, nn.Linear(512, 128), nn.ReLU(), drop, nn.Linear(128, 1))

    def forward(self, batch: Batch) -> Traced:
        x, mask = self.inputs(batch, bins=self.options.bins)
        traces = self.encode(x[:, None], mask)
        return self.output(traces["logits"][:, 0], mask, **traces)

    def encode(self, x: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """x (B, crops, T, D), mask (B, T): features and logits for each crop, and the means over
        crops of scores and magnitudes (B, T)."""
        crops = x.shape[1]
        features = self.drop(self.multi_scale(x.flatten(0, 1), mask.repeat_interleave(crops, 0)))
        features = features.unflatten(0, (-1, crops))  # (B, crops, T, D)
        logits = self.head(features).squeeze(-1)
        scores, magnitudes = torch.sigmoid(logits).mean(dim=1), features.norm(dim=-1).mean(dim=1)
        return {"features": features, "logits": logits, "scores": scores, "magnitudes": magnitudes}

    def loss(self, output: Traced, batch: Batch) -> dict[str, Tensor]:
        """Parts: bce, magnitude (unweighted), smooth, sparsity (weighted), total."""
        return magnitude_losses(output.traces, is_normal(batch.labels), self.options, self.training)


def select(
    traces: dict[str, Tensor], options: RTFMOptions, training: bool
) -> tuple[Tensor, Tensor]:
    """Bag scores (B,) and features (B, crops, top, D) of the snippets of largest magnitude; one
    choice a video, shared by its crops."""
    longest = traces["magnitudes"]
    if options.prune:
        longest = longest * F.dropout(torch.ones_like(longest), options.dropout, training)
    top = longest.topk(options.top, dim=1).indices
    features = traces["features"]
    at = top[:, None, :, None].expand(-1, features.shape[1], -1, features.shape[3])
    return traces["scores"].gather(1, top).mean(dim=1), features.gather(2, at)


def magnitude_losses(
    traces: dict[str, Tensor], normal: Tensor, options: RTFMOptions, training: bool
) -> dict[str, Tensor]:
    """The losses of RTFM and CLIP-TSA; the i-th anomalous video is paired with the i-th normal."""
    bag, chosen = select(traces, options, training)
    length = chosen.mean(dim=2).norm(dim=-1)  # (B, crops): the norm of the mean, as released
    high, low = length[~normal], length[normal]
    if options.margin_form == "hinge":
        magnitude = F.relu(options.margin - high + low).mean()
    else:
        magnitude = ((options.margin - high).abs() + low).square().mean()
    scores = traces["scores"][~normal]
    scores_row = scores.flatten()[None] if options.across_videos else scores
    parts = {
        "bce": cross_entropy(bag, (~normal).to(bag.dtype)),
        "magnitude": magnitude,
        "smooth": options.smoothness * scores_row.diff(dim=1).square().sum(),
        "sparsity": options.sparsity * scores.norm(),
    }
    parts["main"] = parts["bce"] + options.margin_weight * magnitude
    return parts | {"total": parts["main"] + parts["smooth"] + parts["sparsity"]}
