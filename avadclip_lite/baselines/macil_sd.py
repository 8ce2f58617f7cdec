"""MACIL-SD: contrast between what is seen and what is heard (Yu et al., ACM MM 2022).

The idea: sound and picture of an event need not coincide, and Top-K MIL treats all other snippets
alike. So in each modality the network's own scores form violent, normal and background groups,
and the violent group of one is pulled to the other's and away from the rest (InfoNCE). A
vision-only network trains beside it and leaks in: after every epoch its weights are averaged into
the audio-visual one, which the paper calls self-distillation.

As released, the contrast mixes up the two streams' outputs (``swap``), trusts the network's verdict
where the labels are at hand (``groups``), and padding leaks in training (``padding``). Left out:
tensors that are saved and never used. ``modality="vision"`` is the vision-only network alone.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avadclip_lite.baselines.common import Baseline, Options, Traced, bag_cross_entropy, is_normal
from avadclip_lite.config import Config
from avadclip_lite.dataset import Batch, TrainingSet
from avadclip_lite.losses import topk_mean
from avadclip_lite.model import Context, register
from avadclip_lite.temporal import length_mask

__all__ = ["MACILSD", "Stream", "info_nce"]

PUBLISHED_EPOCHS = 50  # the coefficients by epoch are stretched over the epochs of the settings


class Stream(nn.Module):
    """Projections and one attention layer that asks in one modality and answers in another (or in
    the same). Queries are normalised, keys and values are not; no positions."""

    def __init__(self, dim: int, hidden: int, heads: int, dropout: float, *, audio: bool) -> None:
        super().__init__()
        self.heads, self.drop = heads, nn.Dropout(dropout)
        self.project = nn.Linear(dim, hidden)
        if audio:
            self.project_audio = nn.Linear(dim, hidden)
        self.norm1, self.norm2 = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.query = nn.Linear(hidden, hidden)
        # as released, the four matrices start as copies of one
        self.key, self.value, self.out = (copy.deepcopy(self.query) for _ in range(3))
        self.ffn1, self.ffn2 = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)
        self.score = nn.Linear(hidden, 1)

    def forward(self, x: Tensor, memory: Tensor, keys: Tensor) -> Tensor:
        """x, memory (B, T, H), keys (B, T) True where to look -> (B, T, H)."""
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.query(self.norm1(x)), self.key(memory), self.value(memory))
        )
        chance = self.drop.p if self.training else 0.0
        keys = keys[:, None, None, :]
        seen = F.scaled_dot_product_attention(query, key, value, keys, chance)
        x = x + self.drop(self.out(seen.transpose(1, 2).flatten(2)))
        return x + self.drop(self.ffn2(self.drop(F.relu(self.ffn1(self.norm2(x))))))


@dataclass(frozen=True, kw_only=True)
class MACILSDOptions(Options):
    modality: Literal["vision", "audio_visual"] = "audio_visual"
    longest: int = 200  # longer bags are thinned in training, by picking rows
    width: int = 128
    heads: int = 4
    dropout: float = 0.1
    temperature: float = 0.1
    contrast: float = 1.5  # weight, reached after 15 of 50 epochs
    swap: bool = True  # released: the visual output where the *sound* is violent, and vice versa
    groups: Literal["predicted", "labels"] = "predicted"
    padding: Literal["leaking", "masked"] = "leaking"  # in training
    averaging: float = 0.045  # 0: the "light" model


@register("macil_sd")
class MACILSD(Baseline):
    """See the module. The snippet logit is the sum of both streams' logits."""

    Options = MACILSDOptions
    paired = False

    def __init__(self, settings: Config, context: Context) -> None:
        super().__init__(settings, context)
        sizes = (settings.model.dim, self.options.width, self.options.heads, self.options.dropout)
        both = self.options.modality == "audio_visual"
        self.audio_visual = Stream(*sizes, audio=True) if both else None
        self.vision = Stream(*sizes, audio=False)
        self.published_epoch = 0.0

    def forward(self, batch: Batch) -> Traced:
        x, mask = self.inputs(batch, longest=self.options.longest)
        keys, traces, net = self.visible(mask), {}, self.audio_visual
        v, a = (x, None) if net is None else x.chunk(2, dim=-1)
        alone = self.vision.project(v)
        traces["vision"] = self.vision.score(self.vision(alone, alone, keys)).squeeze(-1)
        if net is None:
            return self.output(traces["vision"], mask, **traces)
        v, a = net.project(v), net.project_audio(a)
        traces["v"], traces["a"] = net(v, a, keys), net(a, v, keys)
        scores = {k: net.score(traces[k]).squeeze(-1) for k in ("v", "a")}
        traces |= {f"p_{k}": torch.sigmoid(score) for k, score in scores.items()}
        return self.output(scores["v"] + scores["a"], mask, **traces)

    def loss(self, output: Traced, batch: Batch) -> dict[str, Tensor]:
        """Parts: vision (cross-entropy of the vision-only network); with sound bce, c1 to c4 and
        their weighted sum audio_visual; total (the two networks share nothing)."""
        vision = bag_cross_entropy(output.traces["vision"], output.mask, batch.labels)
        if self.audio_visual is None:
            return {"vision": vision, "total": vision}
        parts = {"vision": vision}
        parts["bce"] = bag_cross_entropy(output.anomaly_logits, output.mask, batch.labels)
        violent = topk_mean(output.anomaly_logits, output.mask.sum(dim=1)) > 0
        if self.options.groups == "labels":
            violent = ~is_normal(batch.labels)
        terms = self.contrast(output.traces, output.mask, violent)
        weight = min(self.options.contrast, 0.1 * self.published_epoch)
        parts["audio_visual"] = parts["bce"] + weight * sum(terms)
        parts |= {f"c{n}": term for n, term in enumerate(terms, start=1)}
        return parts | {"total": parts["audio_visual"] + vision}

    def contrast(self, traces: dict[str, Tensor], mask: Tensor, violent: Tensor) -> list[Tensor]:
        """The four InfoNCE terms c1 to c4; zeros unless there are bags of both kinds."""
        if violent.all() or not violent.any():
            return [traces["v"].new_zeros(())] * 4
        lengths = mask.sum(dim=1)
        count = torch.minimum(lengths // 16 + 1, lengths)
        sources = ("v", "a") if self.options.swap else ("a", "v")
        (audio, audio_normal, audio_back), (video, video_normal, video_back) = (
            _groups(traces[stream], traces[ranking], mask, count, violent)
            for stream, ranking in zip(sources, ("p_a", "p_v"), strict=True)
        )
        heat = self.options.temperature
        against_video = [info_nce(audio, video, rest, heat) for rest in (video_back, video_normal)]
        against_audio = [info_nce(video, audio, rest, heat) for rest in (audio_back, audio_normal)]
        return against_video + against_audio

    def start_epoch(self, epoch: int, bags: TrainingSet) -> None:
        self.published_epoch = epoch * PUBLISHED_EPOCHS / self.settings.train.epochs

    @torch.no_grad()
    def end_epoch(self, epoch: int) -> None:
        """The vision-only weights are averaged into their namesakes, less and less."""
        if self.audio_visual is None:
            return
        kept = self.kept_share() ** (PUBLISHED_EPOCHS / self.settings.train.epochs)
        other = dict(self.vision.named_parameters())
        for name, weight in self.audio_visual.named_parameters():
            if name in other:
                weight.lerp_(other[name], 1 - kept)

    def kept_share(self) -> float:
        """What the audio-visual network keeps of itself after a published epoch: 0.91 to 1."""
        phase = math.pi * self.published_epoch / PUBLISHED_EPOCHS
        return 1 - self.options.averaging * (1 + math.cos(phase))

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Adam; the vision-only network learns at a fifth of the rate beside the other."""
        rate = self.settings.train.learning_rate
        if self.audio_visual is None:
            return [torch.optim.Adam(self.learnable(), lr=rate)]
        groups = [
            {"params": self.audio_visual.parameters(), "lr": rate},
            {"params": self.vision.parameters(), "lr": rate / 5},
        ]
        return [torch.optim.Adam(groups)]


def _groups(
    rows: Tensor, scores: Tensor, mask: Tensor, count: Tensor, violent: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Violent (a bag's mean of its top K, K times), normal (top K) and background (bottom K of
    every bag) rows (n, H): rows (B, T, H) ranked by scores (B, T), K = count (B,)."""
    most = int(count.max())
    chosen = length_mask(count, most)  # (B, most)

    def best(ranking: Tensor) -> Tensor:
        at = ranking.masked_fill(~mask, -torch.inf).topk(most, dim=1).indices
        return rows.gather(1, at[..., None].expand(-1, -1, rows.shape[2]))

    top = best(scores)
    mean = (top * chosen[..., None]).sum(dim=1) / count[:, None]
    repeated = mean[violent].repeat_interleave(count[violent], dim=0)
    return repeated, top[~violent][chosen[~violent]], best(-scores)[chosen]


def info_nce(query: Tensor, positive: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """InfoNCE of unit rows: query, positive (n, H) in pairs, negatives (m, H) for all."""
    query, positive, negatives = (F.normalize(x, dim=-1) for x in (query, positive, negatives))
    right = (query * positive).sum(dim=-1, keepdim=True)
    logits = torch.cat([right, query @ negatives.T], dim=-1) / temperature
    return -logits.log_softmax(dim=-1)[:, 0].mean()
