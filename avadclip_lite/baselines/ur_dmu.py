"""UR-DMU: two memories, one of the normal and one of the abnormal (Zhou, Yu and Yang, AAAI 2023).

The idea: earlier methods look hard at the abnormal and take the normal for granted. Here learned
prototypes of *both* are kept, and each snippet is asked how well either memory explains it. What
the normal memory gives back is a distribution (mean and variance, sampled in training), so that
camera cuts and other harmless variation do not become anomalies.

As released; two slips are options: the distance attention is normalised by columns, which dims the
ends of a video (``attention``), and the divergence is summed over time where a variational model
sums over channels (``divergence``). Left out: crops as a fourth axis.
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
from avadclip_lite.temporal import distance_adjacency

__all__ = ["Memory", "URDMU", "distance_attention"]


def distance_attention(mask: Tensor, kind: str) -> Tensor:
    """exp(-|i - j| / e) over the snippets that exist, normalised: mask (B, T) -> (B, T, T)."""
    near = distance_adjacency(mask.shape[1], device=mask.device) * mask[:, None, :]
    total = near.sum(dim=-1, keepdim=True)
    return near / (total.mT if kind == "columns" else total)


class GlobalLocalBlock(nn.Module):
    """Pre-norm attention, half of each head by content and half by distance; then a feed-forward
    network."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.drop = heads, nn.Dropout(dropout)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkvt = nn.Linear(width, 4 * width, bias=False)
        self.out = nn.Linear(2 * width, width)
        self.ffn1, self.ffn2 = nn.Linear(width, width), nn.Linear(width, width)

    def attend(self, x: Tensor, mask: Tensor, distance: Tensor) -> Tensor:
        """x (B, T, W) -> the same, before the residual."""
        parts = self.qkvt(self.norm1(x)).unflatten(-1, (4, self.heads, -1))
        query, key, value, local = parts.permute(2, 0, 3, 1, 4)  # (B, heads, T, W / heads) each
        mixed = F.scaled_dot_product_attention(query, key, value, mask[:, None, None, :])
        mixed = torch.cat([mixed, distance[:, None] @ local], dim=-1)
        return self.drop(self.out(mixed.transpose(1, 2).flatten(2)))

    def forward(self, x: Tensor, mask: Tensor, distance: Tensor) -> Tensor:
        x = x + self.attend(x, mask, distance)
        return x + self.drop(self.ffn2(self.drop(F.gelu(self.ffn1(self.norm2(x))))))


class Memory(nn.Module):
    """Learned prototypes (slots, W), read through a sigmoid: every slot answers for itself."""

    def __init__(self, slots: int, width: int) -> None:
        super().__init__()
        self.slots = nn.Parameter(torch.empty(slots, width).uniform_(-(width**-0.5), width**-0.5))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """z (B, T, W) -> attention (B, T), mean over the best slots, and what is read (B, T, W)."""
        answers = torch.sigmoid(z @ self.slots.T / z.shape[-1] ** 0.5)
        best = answers.topk(len(self.slots) // 16 + 1, dim=-1).values.mean(dim=-1)
        return best, answers @ self.slots


@dataclass(frozen=True, kw_only=True)
class URDMUOptions(Options):
    bins: int = 200
    width: int = 512
    heads: int = 4
    blocks: int = 2
    slots: int = 60  # of each memory
    dropout: float = 0.5
    margin: float = 100.0  # made for I3D: never reached by what is read here
    attention: Literal["columns", "rows"] = "columns"
    divergence: Literal["time", "channels"] = "time"  # summed over; averaged over the other


@register("ur_dmu")
class URDMU(Baseline):
    """See the module. Training sees bags of ``bins`` means; the output is then (B, J)."""

    Options = URDMUOptions

    def __init__(self, settings: Config, context: Context) -> None:
        super().__init__(settings, context)
        options, width = self.options, self.options.width
        self.embed = nn.Conv1d(self.width, width, 3, padding=1)
        blocks = (
            GlobalLocalBlock(width, options.heads, options.dropout) for _ in "x" * options.blocks
        )
        self.blocks = nn.ModuleList(blocks)
        self.abnormal, self.normal = Memory(options.slots, width), Memory(options.slots, width)
        self.mean, self.log_variance = nn.Linear(width, width), nn.Linear(width, width)
        self.classifier = nn.Sequential(nn.Linear(2 * width, 128), nn.ReLU(), nn.Linear(128, 1))

    def encode(self, x: Tensor, mask: Tensor) -> Tensor:
        """x (B, T, D) zero outside the mask -> z (B, T, W)."""
        z = F.relu(self.embed(x.mT)).mT
        distance = distance_attention(mask, self.options.attention)
        for block in self.blocks:
            z = block(z, mask, distance)
        return z

    def forward(self, batch: Batch) -> Traced:
        x, mask = self.inputs(batch, bins=self.options.bins)
        z = self.encode(x, mask)
        if self.training:
            return self.training_pass(z, mask, is_normal(batch.labels))
        read = self.mean(self.abnormal(z)[1]) + self.mean(self.normal(z)[1])
        return self.output(self.classifier(torch.cat([z, read], dim=-1)).squeeze(-1), mask)

    def training_pass(
        self, z: Tensor, mask: Tensor, normal: Tensor, noise: Tensor | None = None
    ) -> Traced:
        """What the normal memory reads in normal videos is drawn anew each time; ``noise`` is
        unit normal (normal videos, T, W)."""
        att_a, aug_a = self.abnormal(z)
        att_n, aug_n = self.normal(z)
        mu_n, read = self.mean(aug_n), self.mean(aug_a)
        latent, log_variance = mu_n[normal], self.log_variance(aug_n[normal])
        noise = torch.randn_like(latent) if noise is None else noise
        drawn = latent + noise * torch.exp(log_variance / 2)
        both = read + mu_n.masked_scatter(normal[:, None, None], drawn)
        logits = self.classifier(torch.cat([z, both], dim=-1)).squeeze(-1)
        traces = {"z": z, "att_a": att_a, "att_n": att_n, "aug_a": aug_a, "read": read}
        traces |= {"latent": latent, "log_variance": log_variance, "drawn": drawn}
        return self.output(logits, mask, **traces)

    def loss(self, output: Traced, batch: Batch) -> dict[str, Tensor]:
        """Parts, unweighted: anomaly; the four memory terms NonA (some snippet does not match the
        normal memory), A_on_A, N_on_N, A_on_N; triplet, kl, distance; total."""
        t, normal = output.traces, is_normal(batch.labels)
        k = output.mask.shape[1] // 16 + 1
        att_aa, att_an = t["att_a"][~normal], t["att_a"][normal]
        att_na, att_nn = t["att_n"][~normal], t["att_n"][normal]
        anchor, alike, unlike = (
            F.normalize(_top_rows(t["z"][which], ranking, k), dim=-1)
            for which, ranking in ((normal, att_nn), (~normal, att_na), (~normal, att_aa))
        )
        mu, v = t["latent"], t["log_variance"]
        divergence = -0.5 * (1 + v - mu.square() - v.exp())  # (b, T, W)
        far = _top_rows(t["read"][~normal], att_aa, k).norm(dim=-1)
        near = _top_rows(t["drawn"], att_nn, k).norm(dim=-1)
        over = 1 if self.options.divergence == "time" else 2
        parts = {
            "anomaly": cross_entropy(_top_mean(output.confidence, k), (~normal).float()),
            "P_anomaly_NonA": cross_entropy(_top_mean(1 - att_na, k), 1.0),
            "A_on_A": cross_entropy(_top_mean(att_aa, k), 1.0),
            "N_on_N": cross_entropy(att_nn, 1.0),
            "A_on_N": cross_entropy(att_an, 0.0),
            "triplet": F.triplet_margin_loss(anchor, alike, unlike),
            "kl": divergence.sum(dim=over).mean(),
            "distance": F.relu(self.options.margin - far + near).mean(),
        }
        memories = sum(parts[name] for name in ("P_anomaly_NonA", "A_on_A", "N_on_N", "A_on_N"))
        total = parts["anomaly"] + 0.1 * (memories + parts["triplet"])
        return parts | {"total": total + 1e-3 * parts["kl"] + 1e-4 * parts["distance"]}


def _top_mean(scores: Tensor, k: int) -> Tensor:
    return scores.topk(k, dim=1).values.mean(dim=1)


def _top_rows(rows: Tensor, ranking: Tensor, k: int) -> Tensor:
    """Mean (B, W) of the k rows (B, T, W) that rank highest (B, T)."""
    at = ranking.topk(k, dim=1).indices[..., None].expand(-1, -1, rows.shape[2])
    return rows.gather(1, at).mean(dim=1)
