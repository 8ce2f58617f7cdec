"""CUPL: pseudo labels made more complete, and believed where certain (Zhang et al., CVPR 2023).

The idea: self-training makes snippet labels with MIL and then trains on them, but MIL lights up
only the most obvious part of an event, and all labels are trusted alike. Here several heads
must differ, so that together they cover more of the event (completeness). Monte-Carlo dropout
tells which labels are stable; only those are trained on, and the result relabels.

RECONSTRUCTED: the release holds the retrained network alone (``refiner`` on ``context_pairs``:
exact). Of its training we remember the idea; losses (diversity, balance: CMCS, CVPR 2019), numbers
and schedule are ours: stage 1 for half of the epochs, then three rounds. Left out: crops.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avadclip_lite.baselines import common
from avadclip_lite.baselines.deepmil import ranking_hinge, ranking_mlp


def context_pairs(x: Tensor, window: int = 5) -> Tensor:
    """Each snippet beside the mean of the (up to five) before it; the first beside itself. Strictly
    causal. x (B, T, D) -> (B, T, 2D)."""
    count = torch.arange(x.shape[1], device=x.device).clamp(1, window)[:, None]
    before = F.avg_pool1d(F.pad(x.mT, (window, -1)), window, stride=1).mT * window / count
    return torch.cat([x, torch.cat([x[:, :1], before[:, 1:]], dim=1)], dim=-1)


@common.register("cupl")
class CUPL(common.Baseline):
    """See the module. Training sees bags of 32 means; the output is then (B, 32)."""

    Options = common.options(passes=20)  # with dropout on, to see which labels are stable

    def build(self, dim: int, context: common.Context) -> None:
        self.heads = nn.ModuleList(ranking_mlp(self.width, 0.6) for _ in range(2))
        # as released: pairs -> logits of normal and anomalous; every round starts it afresh
        self.refiner = ranking_mlp(2 * self.width, 0.8, outputs=2)
        self.register_buffer("round", torch.tensor(0))  # 0: stage 1; saved with the weights
        self.labels = self.kept = torch.zeros(0, 32)  # (R, 32)

    def forward(self, batch: common.Batch) -> common.Traced:
        x, mask = self.inputs(batch, bins=32)
        logits = self.logits(x)
        return self.output(logits.mean(dim=0), mask, rows=logits.sigmoid())

    def logits(self, x: Tensor) -> Tensor:
        """x (B, T, D) -> (H, B, T): of the heads, or in the second stage of the refiner alone."""
        if not self.round:
            return torch.stack([head(x).squeeze(-1) for head in self.heads])
        normal, anomalous = self.refiner(context_pairs(x)).unbind(dim=-1)
        return (anomalous - normal)[None]

    def start_epoch(self, epoch: int, bags: common.TrainingSet) -> None:
        """A new round: label all bags with the present network, then train a fresh refiner."""
        later = self.settings.train.epochs // 2
        first = self.settings.train.epochs - later
        due = sum(epoch >= first + k * later // 3 for k in range(3))
        if due > int(self.round):
            self.relabel(bags)
            self.round.fill_(due)
            for layer in (0, 3, 5):
                self.refiner[layer].reset_parameters()

    @torch.no_grad()
    def relabel(self, bags: common.TrainingSet) -> None:
        """Labels (R, 32) of all bags, and which of them are stable under dropout."""
        found = []
        for index in torch.arange(len(bags)).split(256):
            batch = bags.batch(index).to(self.round.device)
            x, _ = self.train().inputs(batch, bins=32)
            draws = [self.logits(x).mean(dim=0).sigmoid() for _ in range(self.options.passes)]
            label, certain = most_certain(torch.stack(draws))
            if not self.round:
                label = stretched(self.eval().logits(x).sigmoid().mean(dim=0))
            normal = common.is_normal(batch.labels)[:, None]
            found.append((label.masked_fill(normal, 0.0), (certain | normal).float()))
        self.labels, self.kept = (torch.cat(part) for part in zip(*found, strict=True))

    def loss(self, output: common.Traced, batch: common.Batch) -> dict[str, Tensor]:
        """Stage 1: rank, diversity, balance (unweighted), total. Later: refine, total."""
        rows, normal = output.traces["rows"], common.is_normal(batch.labels)
        mean = rows.mean(dim=0)
        if not self.round:
            rank = ranking_hinge(mean[~normal], mean[normal], all_pairs=False)
            diversity, balance = completeness(rows[:, ~normal])
            total = rank + 0.2 * diversity + 0.2 * balance
            return {"rank": rank, "diversity": diversity, "balance": balance, "total": total}
        kept, label = (part.to(mean.device)[batch.index] for part in (self.kept, self.labels))
        refine = common.cross_entropy(mean[kept > 0], label[kept > 0])
        return {"refine": refine, "total": refine}

    def training_state(self) -> dict[str, Tensor]:
        return {"labels": self.labels, "kept": self.kept}

    def load_training_state(self, state: dict[str, Tensor]) -> None:
        self.labels, self.kept = state["labels"], state["kept"]


def completeness(rows: Tensor) -> tuple[Tensor, Tensor]:
    """How alike the two heads' score rows (2, B, T) of anomalous videos are (cosine), and how
    unequal their means: without the second, one head can satisfy the first by dying."""
    level = rows.mean(dim=-1)
    return F.cosine_similarity(*rows, dim=-1).mean(), (level[0] - level[1]).abs().mean() / 2


def stretched(rows: Tensor, mask: Tensor | None = None) -> Tensor:
    """Score rows (B, T), each stretched to [0, 1] over its valid snippets."""
    mask = torch.ones_like(rows, dtype=torch.bool) if mask is None else mask
    low = rows.masked_fill(~mask, torch.inf).amin(dim=1, keepdim=True)
    high = rows.masked_fill(~mask, -torch.inf).amax(dim=1, keepdim=True)
    return (rows - low) / (high - low).clamp_min(1e-8)


def most_certain(draws: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (B, T) over passes (M, B, T), and the half of each row that varies least."""
    order = draws.std(dim=0, correction=0).argsort(dim=-1, stable=True)
    kept = order[:, : -(-draws.shape[-1] // 2)]
    return draws.mean(dim=0), torch.zeros_like(order, dtype=torch.bool).scatter(1, kept, True)
