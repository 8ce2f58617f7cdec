"""HL-Net: three graphs over the snippets, and a light online student (Wu et al., ECCV 2020).

The idea: with XD-Violence came the first large weakly labelled *audio-visual* set and the proof
that sound helps. Snippets are the nodes of three graphs (alike in features, near in time, alike in
provisional scores), through which a snippet borrows evidence before the top ones are picked. A
causal head is taught by the graph network, so that a video can be scored while it plays.

As released: residuals in every graph layer, softmaxes that are close to uniform, a distance graph
that is not normalised (``distance``), and padding that leaks in training (``padding``; at test
there is none). Sound is concatenated natively. Left out: tensors that the release saves and never
uses; the crops of the test.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avadclip_lite.baselines.common import Baseline, Options, Traced, bag_cross_entropy
from avadclip_lite.config import Config
from avadclip_lite.dataset import Batch
from avadclip_lite.model import Context, register
from avadclip_lite.temporal import distance_adjacency, similarity_adjacency

__all__ = ["HLNet", "HLNetOptions"]


class GraphBranch(nn.Module):
    """Two graph layers on one relation; the first one's residual is a convolution over time."""

    def __init__(self, dim: int, width: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.empty(dim, width))
        self.residual = nn.Conv1d(dim, width, 5, padding=2)
        self.second = nn.Parameter(torch.empty(width, width))
        self.drop = nn.Dropout(dropout)
        nn.init.xavier_uniform_(self.first)
        nn.init.xavier_uniform_(self.second)

    def forward(self, h: Tensor, graph: Tensor, keep: Tensor) -> Tensor:
        """h (B, T, D), graph (B, T, T) or (T, T), keep (B, T, 1) -> (B, T, width)."""
        y = self.drop(F.relu(graph @ (h @ self.first) + self.residual(h.mT).mT)) * keep
        return self.drop(F.relu(graph @ (y @ self.second) + y))


@dataclass(frozen=True, kw_only=True)
class HLNetOptions(Options):
    modality: Literal["vision", "audio_visual"] = "audio_visual"
    longest: int = 200  # longer bags are thinned in training, by picking rows
    width: int = 128
    dropout: float = 0.6
    threshold: float = 0.7  # similarities at or below it are cut, before the softmax
    distance: Literal["released", "rows"] = "released"  # rows: each row sums to one
    padding: Literal["leaking", "masked"] = "leaking"  # in training
    distillation: float = 5.0


@register("hl_net")
class HLNet(Baseline):
    """See the module. ``anomaly_logits`` are the offline ones; traces hold the online ones."""

    Options = HLNetOptions
    paired = False
    outputs = 1

    def __init__(self, settings: Config, context: Context) -> None:
        super().__init__(settings, context)
        width, dropout = self.options.width, self.options.dropout
        self.outputs += self.more_outputs(context)
        self.fuse1, self.fuse2 = nn.Linear(self.width, 512), nn.Linear(512, width)
        self.online1, self.online2 = nn.Linear(width, 64), nn.Linear(64, 32)
        self.online_score = nn.Conv1d(32, 1, 5)
        names = ("similarity", "distance", "score")
        self.graphs = nn.ModuleDict({k: GraphBranch(width, 32, dropout) for k in names})
        self.classifier = nn.Linear(3 * 32, self.outputs)
        self.drop = nn.Dropout(dropout)
        for part in self.modules():
            if isinstance(part, (nn.Linear, nn.Conv1d)):
                nn.init.xavier_uniform_(part.weight)

    def more_outputs(self, context: Context) -> int:
        """Outputs of the classifier beside the anomaly logit."""
        return 0

    def forward(self, batch: Batch) -> Traced:
        x, mask = self.inputs(batch, longest=self.options.longest)
        keep = self.visible(mask)[..., None].to(x.dtype)
        h = self.drop(F.relu(self.fuse2(self.drop(F.relu(self.fuse1(x)))))) * keep
        online = F.relu(self.online2(F.relu(self.online1(h)))) * keep
        online = self.online_score(F.pad(online.mT, (4, 0))).squeeze(1)  # sees t - 4 to t
        graphs = self.relations(x, online.detach(), mask)
        branches = [branch(h, graphs[name], keep) for name, branch in self.graphs.items()]
        logits = self.classifier(torch.cat(branches, dim=-1))
        classes = logits[..., 1:] if self.outputs > 1 else None
        return Traced(
            anomaly_logits=logits[..., 0],
            mask=mask,
            alignment_logits=classes,
            traces={"online": online, "fused": h},
        )

    def relations(self, x: Tensor, online: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """The three graphs (B, T, T): features' cosines, distance in time, agreement of scores."""
        score = torch.sigmoid(online)
        agreement = 1 - (score[:, :, None] - score[:, None, :]).abs()
        agreement = torch.sigmoid((agreement - 0.5) / 0.1)
        agreement = agreement.masked_fill(~mask[:, None, :], torch.finfo(x.dtype).min)
        valid = mask[:, None, :] * mask[:, :, None]
        distance = distance_adjacency(x.shape[1], device=x.device, dtype=x.dtype)
        if self.options.distance == "rows":
            distance = distance * mask[:, None, :]
            distance = distance / distance.sum(dim=-1, keepdim=True)
        return {
            "similarity": similarity_adjacency(x, mask, self.options.threshold),
            "distance": distance,
            "score": agreement.softmax(dim=-1) * valid,
        }

    def loss(self, output: Traced, batch: Batch) -> dict[str, Tensor]:
        """Parts: offline and online cross-entropy of the top-K bag, distillation (unweighted)."""
        online, mask = output.traces["online"], output.mask
        # one-sided as released: no (1 - p) log(1 - q), so it can only push the student up
        cross = -output.confidence.detach() * F.logsigmoid(online) * mask
        parts = {
            "offline": bag_cross_entropy(output.anomaly_logits, mask, batch.labels),
            "online": bag_cross_entropy(online, mask, batch.labels),
            "distillation": (cross.sum(dim=1) / mask.sum(dim=1)).mean(),
        }
        total = parts["offline"] + parts["online"]
        return parts | {"total": total + self.options.distillation * parts["distillation"]}

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Adam; the online head learns at half the rate."""
        slow = {p for m in (self.online1, self.online2, self.online_score) for p in m.parameters()}
        rate = self.settings.train.learning_rate
        groups = [
            {"params": [p for p in self.learnable() if p not in slow], "lr": rate},
            {"params": list(slow), "lr": rate / 2},
        ]
        return [torch.optim.Adam(groups)]
