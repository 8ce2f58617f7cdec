"""HL-Net: three graphs over the snippets, and a light online student (Wu et al., ECCV 2020).

The idea: snippets are nodes of three graphs (alike in features, near in time, alike in an online
head's scores), through which a snippet borrows evidence before the top ones are averaged. That head
sees the past alone and imitates the graphs, so that a video can be scored while it plays. With it
came XD-Violence, the first large weakly labelled *audio-visual* set, and evidence that sound helps.

As released: a residual in every graph layer; softmaxes close to uniform (``temperature``). What
``form="intended"`` mends: the distance graph is not normalised, padding leaks in training, teaching
can only raise scores. Sound is concatenated natively. Left out: unused weights; crops.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avadclip_lite.baselines import common
from avadclip_lite.temporal import distance_adjacency, similarity_adjacency


class GraphBranch(nn.Module):
    """Two graph layers on one relation; the first one's residual is a convolution over time."""

    def __init__(self, dim: int, width: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.Parameter(nn.init.xavier_uniform_(torch.empty(dim, width)))
        self.second = nn.Parameter(nn.init.xavier_uniform_(torch.empty(width, width)))
        self.residual, self.drop = nn.Conv1d(dim, width, 5, padding=2), nn.Dropout(dropout)

    def forward(self, h: Tensor, graph: Tensor, keep: Tensor) -> Tensor:
        """h (B, T, D), graph (B, T, T) or (T, T), keep (B, T, 1) -> (B, T, width)."""
        y = self.drop(F.relu(graph @ (h @ self.first) + self.residual(h.mT).mT)) * keep
        return self.drop(F.relu(graph @ (y @ self.second) + y))


@common.register("hl_net")
class HLNet(common.Baseline):
    """See the module. ``anomaly_logits`` are the offline ones; traces hold the online ones."""

    paired, names_classes = False, False  # the latter: by more outputs of the classifier
    rates = {"online": 0.5}
    Options = common.options(modality=common.NATIVE, width=128, temperature=1.0, form=common.FORMS)

    def build(self, dim: int, context: common.Context) -> None:
        width, dropout = self.options.width, 0.6
        self.fuse1, self.fuse2 = nn.Linear(self.width, 512), nn.Linear(512, width)
        self.online1, self.online2 = nn.Linear(width, 64), nn.Linear(64, 32)
        self.online_score = nn.Conv1d(32, 1, 5)
        names = ("similarity", "distance", "score")
        self.graphs = nn.ModuleDict({k: GraphBranch(width, 32, dropout) for k in names})
        self.classifier = nn.Linear(3 * 32, 1 + self.names_classes * len(context.classes))
        self.drop = nn.Dropout(dropout)
        for part in self.modules():
            if isinstance(part, (nn.Linear, nn.Conv1d)):
                nn.init.xavier_uniform_(part.weight)

    def forward(self, batch: common.Batch) -> common.Traced:
        x, mask = self.inputs(batch, longest=200)
        keep = torch.ones_like(mask) if self.training and self.released else mask  # padding leaks
        keep = keep[..., None].to(x.dtype)
        h = self.drop(F.relu(self.fuse2(self.drop(F.relu(self.fuse1(x)))))) * keep
        online = F.relu(self.online2(F.relu(self.online1(h)))) * keep
        online = self.online_score(F.pad(online.mT, (4, 0))).squeeze(1)  # sees t - 4 to t
        graphs = self.relations(x, online.detach(), mask)
        branches = [branch(h, graphs[name], keep) for name, branch in self.graphs.items()]
        logits = self.classifier(torch.cat(branches, dim=-1))
        classes = logits[..., 1:] if self.names_classes else None
        return self.output(logits[..., 0], mask, classes=classes, online=online, fused=h)

    def relations(self, x: Tensor, online: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Graphs (B, T, T): features' cosines, distance ((T, T) as released), scores' agreement."""
        similarity = similarity_adjacency(x, mask, 0.7)  # cut at or below, before the softmax
        distance = distance_adjacency(x.shape[1], device=x.device)
        if not self.released:
            distance = F.normalize(distance * mask[:, None, :], p=1, dim=-1)
        score = online.sigmoid()
        agreement = 1 - (score[:, :, None] - score[:, None, :]).abs()
        near = torch.sigmoid((agreement - 0.5) / 0.1).masked_fill(~mask[:, None, :], -torch.inf)
        score = near.softmax(dim=-1) * mask[:, :, None]
        if (power := 1 / self.options.temperature) != 1:  # that of a softmax is a sharper one
            similarity, score = (F.normalize(g**power, p=1, dim=-1) for g in (similarity, score))
        return {"similarity": similarity, "distance": distance, "score": score}

    def loss(self, output: common.Traced, batch: common.Batch) -> dict[str, Tensor]:
        """Parts: offline and online cross-entropy of the Top-K bag, distillation (unweighted)."""
        online, mask, labels = output.traces["online"], output.mask, batch.labels
        p = output.confidence.detach()
        down = 0 if self.released else (1 - p) * F.logsigmoid(-online)  # missing in the release
        cross = -(p * F.logsigmoid(online) + down) * mask
        distillation = (cross.sum(dim=1) / mask.sum(dim=1)).mean()
        offline = common.bag_cross_entropy(output.anomaly_logits, mask, labels)
        online = common.bag_cross_entropy(online, mask, labels)
        parts = {"offline": offline, "online": online, "distillation": distillation}
        return parts | {"total": offline + online + 5 * distillation}
