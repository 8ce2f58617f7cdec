"""UR-DMU: two memories, one of the normal and one of the abnormal (Zhou, Yu and Yang, AAAI 2023).

The idea: earlier methods look hard at the abnormal and take the normal for granted. Here learned
prototypes of *both* are kept, and each snippet is asked how well each memory explains it. What
the normal memory gives back is a distribution (mean and variance, sampled in training), so that
camera cuts and other harmless variation do not become anomalies.

As released, with two slips, which ``form="intended"`` mends: attention by distance in time is
normalised by columns, which dims a video's ends, and the KL is summed over time. Left out: crops.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avadclip_lite.baselines import common
from avadclip_lite.losses import topk_mean
from avadclip_lite.temporal import distance_adjacency


def distance_attention(mask: Tensor, released: bool = True) -> Tensor:
    """exp(-|i - j| / e) over the snippets that exist, its columns (a slip), or else its rows,
    divided by their sums: mask (B, T) -> (B, T, T)."""
    near = distance_adjacency(mask.shape[1], device=mask.device) * mask[:, None, :]
    sums = near.sum(dim=-1, keepdim=True)
    return near / (sums.mT if released else sums)


class GlobalLocalBlock(nn.Module):
    """Pre-norm attention, half of each head by content and half by distance; feed-forward."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.drop = heads, nn.Dropout(dropout)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkvt, self.out = nn.Linear(width, 4 * width, bias=False), nn.Linear(2 * width, width)
        self.ffn1, self.ffn2 = nn.Linear(width, width), nn.Linear(width, width)

    def attend(self, x: Tensor, mask: Tensor, distance: Tensor) -> Tensor:
        """x (B, T, W), mask (B, T), distance (B, T, T) -> (B, T, W), before the residual."""
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


@common.register("ur_dmu")
class URDMU(common.Baseline):
    """See the module. Training sees bags of ``bins`` means; the output is then (B, J)."""

    Options = common.options(bins=200, width=512, blocks=2, form=common.FORMS)

    def build(self, dim: int, context: common.Context) -> None:
        width = self.options.width
        self.embed = nn.Conv1d(self.width, width, 3, padding=1)
        blocks = (GlobalLocalBlock(width, 4, 0.5) for _ in range(self.options.blocks))
        self.blocks = nn.ModuleList(blocks)
        self.abnormal, self.normal = Memory(60, width), Memory(60, width)
        self.mean, self.log_variance = nn.Linear(width, width), nn.Linear(width, width)
        self.classifier = nn.Sequential(nn.Linear(2 * width, 128), nn.ReLU(), nn.Linear(128, 1))

    def forward(self, batch: common.Batch) -> common.Traced:
        x, mask = self.inputs(batch, bins=self.options.bins)
        z, distance = F.relu(self.embed(x.mT)).mT, distance_attention(mask, self.released)
        for block in self.blocks:
            z = block(z, mask, distance)
        (att_a, aug_a), (att_n, aug_n) = self.abnormal(z), self.normal(z)
        read, explained = self.mean(aug_a), self.mean(aug_n)
        traces = {"z": z, "att_a": att_a, "att_n": att_n, "aug_a": aug_a, "read": read}
        if self.training:  # what the normal memory reads in normal videos is drawn
            normal = common.is_normal(batch.labels)
            mu, v = explained[normal], self.log_variance(aug_n[normal])
            drawn = mu + self.noise(mu) * torch.exp(v / 2)
            traces |= {"mu": mu, "v": v, "drawn": drawn}
            explained = explained.masked_scatter(normal[:, None, None], drawn.to(explained.dtype))
        logits = self.classifier(torch.cat([z, read + explained], dim=-1)).squeeze(-1)
        return self.output(logits, mask, **traces)

    def noise(self, like: Tensor) -> Tensor:
        return torch.randn_like(like)

    def loss(self, output: common.Traced, batch: common.Batch) -> dict[str, Tensor]:
        """Parts, unweighted: anomaly; the memory terms P_anomaly_NonA (some snippet does not match
        the normal memory), A_on_A, N_on_N, A_on_N; triplet, kl, distance; total. The margin of 100
        is never reached by what is read: the distance works as a constant push."""
        t, normal, bce = output.traces, common.is_normal(batch.labels), common.cross_entropy
        lengths, k = output.mask.sum(dim=1), output.mask.shape[1] // 16 + 1  # all bins; a 16th
        parts = ("z", "att_a", "att_n", "read")
        a, n = ({key: t[key][videos] for key in parts} for videos in (~normal, normal))
        triple = (n["z"], n["att_n"]), (a["z"], a["att_n"]), (a["z"], a["att_a"])
        triple = (F.normalize(common.top_rows(*one, k).mean(dim=1), dim=-1) for one in triple)
        divergence = -0.5 * (1 + t["v"] - t["mu"].square() - t["v"].exp())  # (b, T, W)
        pair = (a["read"], a["att_a"]), (t["drawn"], n["att_n"])
        far, near = (common.top_rows(*one, k).mean(dim=1).norm(dim=-1) for one in pair)
        memories = {
            "P_anomaly_NonA": bce(topk_mean(1 - a["att_n"], lengths[~normal]), 1.0),
            "A_on_A": bce(topk_mean(a["att_a"], lengths[~normal]), 1.0),
            "N_on_N": bce(n["att_n"], 1.0),
            "A_on_N": bce(n["att_a"], 0.0),
        }
        parts = memories | {
            "anomaly": bce(topk_mean(output.confidence, lengths), (~normal).float()),
            "triplet": F.triplet_margin_loss(*triple),
            "kl": divergence.sum(dim=1 if self.released else 2).mean(),
            "distance": F.relu(100 - far + near).mean(),
        }
        total = parts["anomaly"] + 0.1 * (sum(memories.values()) + parts["triplet"])
        return parts | {"total": total + 1e-3 * parts["kl"] + 1e-4 * parts["distance"]}
