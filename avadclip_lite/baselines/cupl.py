"""CUPL: complete and uncertain pseudo labels (Zhang et al., CVPR 2023).

The idea: self-training makes snippet labels with MIL and then trains on them, but MIL lights up
only the most obvious part of an event, and all labels are trusted alike. Here several heads are
pushed apart, so that together they cover more of the event (completeness). Monte-Carlo dropout
then tells which labels are stable; only those are trained on, and the new classifier relabels.

RECONSTRUCTED: of the release only the second stage's network exists (``context_pairs`` and
``Refiner``: exact). The first stage, its losses, the share kept and the schedule follow the idea
with equations of our own, the diversity terms those of CMCS (CVPR 2019). The first half of the
epochs is stage 1, each ``rounds``-th part of the rest a round of labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avadclip_lite.baselines.common import Baseline, Options, Traced, cross_entropy, is_normal
from avadclip_lite.baselines.deepmil import RankingMLP, ranking_hinge
from avadclip_lite.config import Config
from avadclip_lite.dataset import Batch, TrainingSet
from avadclip_lite.model import Context, register

__all__ = ["CUPL", "Refiner", "completeness", "context_pairs", "most_certain"]


def context_pairs(x: Tensor, window: int = 5) -> Tensor:
    """Each snippet beside the mean of the (up to five) before it; the first beside itself. Strictly
    causal. x (B, T, D) -> (B, T, 2D)."""
    count = torch.arange(x.shape[1], device=x.device).clamp(1, window)[:, None]
    before = F.avg_pool1d(F.pad(x.mT, (window, -1)), window, stride=1).mT * window / count
    return torch.cat([x, torch.cat([x[:, :1], before[:, 1:]], dim=1)], dim=-1)


class Refiner(nn.Module):
    """The released classifier: 2D -> 512 -> 32 -> 2 outputs, dropout 0.8."""

    def __init__(self, dim: int, dropout: float = 0.8) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(2 * dim, 512), nn.Linear(512, 32), nn.Linear(32, 2)
        self.drop = nn.Dropout(dropout)

    def forward(self, pairs: Tensor) -> Tensor:
        """pairs (..., 2D) -> logits (..., 2) of normal and anomalous."""
        return self.fc3(self.drop(self.fc2(self.drop(F.relu(self.fc1(pairs))))))


@dataclass(frozen=True, kw_only=True)
class CUPLOptions(Options):
    bins: int = 32
    heads: int = 2
    diversity: float = 0.2
    balance: float = 0.2
    rounds: int = 3
    passes: int = 20  # with dropout on, to see which labels are stable
    ranking: float = 0.0  # weight of the hinge in the second stage


@register("cupl")
class CUPL(Baseline):
    """See the module. Training sees bags of ``bins`` means; the output is then (B, J)."""

    Options = CUPLOptions

    def __init__(self, settings: Config, context: Context) -> None:
        super().__init__(settings, context)
        self.heads = nn.ModuleList(RankingMLP(self.width, 0.6) for _ in "h" * self.options.heads)
        self.refiner = Refiner(self.width)
        self.register_buffer("round", torch.tensor(0))  # 0: stage 1; saved with the weights
        self.labels = self.kept = torch.zeros(0, self.options.bins)  # (R, J) of the training rows

    def forward(self, batch: Batch) -> Traced:
        x, mask = self.inputs(batch, bins=self.options.bins)
        logits = self.logits(x)
        rows = logits.sigmoid()
        return self.output(logits[0] if self.round else logits.mean(dim=0), mask, rows=rows)

    def logits(self, x: Tensor) -> Tensor:
        """x (B, T, D) -> (H, B, T): of the heads, or in the second stage of the refiner alone."""
        if not self.round:
            return torch.stack([head(x) for head in self.heads])
        normal, anomalous = self.refiner(context_pairs(x)).unbind(dim=-1)
        return (anomalous - normal)[None]

    def start_epoch(self, epoch: int, bags: TrainingSet) -> None:
        """A new round: label all bags with the present network, then train a fresh refiner."""
        epochs, rounds = self.settings.train.epochs, self.options.rounds
        first = [epochs - epochs // 2 + k * (epochs // 2) // rounds for k in range(rounds)]
        due = sum(epoch >= start for start in first)
        if due > int(self.round):
            self.relabel(bags)
            self.round.fill_(due)
            for layer in (self.refiner.fc1, self.refiner.fc2, self.refiner.fc3):
                layer.reset_parameters()

    @torch.no_grad()
    def relabel(self, bags: TrainingSet) -> None:
        """Labels (R, J) and which of them are stable under dropout."""
        found = []
        for index in torch.arange(len(bags)).split(256):
            batch = bags.batch(index).to(self.round.device)
            x, _ = self.train().inputs(batch, bins=self.options.bins)
            # the mean of the heads' logits, over passes
            draws = [self.logits(x).mean(dim=0).sigmoid() for _ in range(self.options.passes)]
            mean, certain = most_certain(torch.stack(draws))
            label = mean if self.round else scaled(self.eval().logits(x).sigmoid().mean(dim=0))
            found.append((label.masked_fill(is_normal(batch.labels)[:, None], 0.0), certain))
        self.labels, self.kept = (torch.cat(part).float() for part in zip(*found, strict=True))

    def loss(self, output: Traced, batch: Batch) -> dict[str, Tensor]:
        """Stage 1: rank, diversity, balance. Later: refine, and rank if it is asked for."""
        options, rows, normal = self.options, output.traces["rows"], is_normal(batch.labels)
        mean = rows.mean(dim=0)
        parts = {"rank": ranking_hinge(mean[~normal], mean[normal], all_pairs=False)}
        if not self.round:
            parts["diversity"], parts["balance"] = completeness(rows[:, ~normal])
            spread = options.diversity * parts["diversity"] + options.balance * parts["balance"]
            return parts | {"total": parts["rank"] + spread}
        index = batch.index.to(self.labels.device)
        kept = (self.kept[index] > 0).to(normal.device) | normal[:, None]
        label = self.labels[index].to(normal.device)
        parts["refine"] = cross_entropy(mean[kept], label[kept])
        return parts | {"total": parts["refine"] + options.ranking * parts["rank"]}

    def training_state(self) -> dict[str, Tensor]:
        return {"labels": self.labels, "kept": self.kept}

    def load_training_state(self, state: dict[str, Tensor]) -> None:
        self.labels, self.kept = state["labels"], state["kept"]


def completeness(rows: Tensor) -> tuple[Tensor, Tensor]:
    """How alike the heads' score rows (H, B, T) of anomalous videos are (cosine, over pairs of
    heads), and how unequal their means: without the second one head can satisfy the first by
    dying."""
    norm = rows.norm(dim=-1)
    cosine = torch.einsum("hbt,gbt->hgb", rows, rows) / (norm[:, None] * norm[None] + 1e-6)
    first, second = torch.triu_indices(len(rows), len(rows), offset=1)
    level = rows.mean(dim=-1)
    return cosine[first, second].mean(), (level - level.mean(dim=0)).abs().mean()


def scaled(rows: Tensor) -> Tensor:
    """Score rows (B, T), each stretched to [0, 1]."""
    low, high = rows.amin(dim=-1, keepdim=True), rows.amax(dim=-1, keepdim=True)
    return (rows - low) / (high - low).clamp_min(torch.finfo(rows.dtype).tiny)


def most_certain(draws: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (B, T) over passes (M, B, T), and the half of each row that varies least."""
    order = draws.std(dim=0, correction=0).argsort(dim=-1, stable=True)
    kept = order[:, : -(-draws.shape[-1] // 2)]
    certain = torch.zeros_like(order, dtype=torch.bool).scatter(1, kept, True)
    return draws.mean(dim=0), certain
