"""MACIL-SD: violent sights and violent sounds are pulled together (Yu et al., ACM MM 2022).

The idea: sound and picture of an event need not coincide, so in each modality the network's own
scores form violent, normal and background groups. The violent group of one is pulled to the other's
and away from its rest. A vision-only network's weights are averaged in after every epoch.

As released: the contrast takes each stream for the other, padding leaks in training; not so with
``form="intended"``. Which bags are violent the network decides (``by_label``: their labels).
Left out: unused weights; crops. ``modality="vision"``: the vision-only network alone.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avadclip_lite.baselines import common
from avadclip_lite.losses import topk_mean
from avadclip_lite.temporal import length_mask


class Stream(nn.Module):
    """Projections, one attention layer (only queries are normalised, no positions), a score."""

    def __init__(self, dim: int, hidden: int, *, audio: bool) -> None:
        super().__init__()
        self.project = nn.Linear(dim, hidden)
        self.project_audio = nn.Linear(dim, hidden) if audio else None
        self.norm1, self.norm2 = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.attention = nn.MultiheadAttention(hidden, 4, 0.1, batch_first=True)
        self.ffn1, self.ffn2 = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)
        self.score, self.drop = nn.Linear(hidden, 1), nn.Dropout(0.1)
        one = nn.Linear(hidden, hidden)  # released: query, key, value and output start as copies
        start = {"in_proj_weight": one.weight.repeat(3, 1), "in_proj_bias": one.bias.repeat(3)}
        start |= {"out_proj.weight": one.weight, "out_proj.bias": one.bias}
        self.attention.load_state_dict(start)

    def forward(self, x: Tensor, memory: Tensor, keys: Tensor) -> Tensor:
        """x, memory (B, T, H), keys (B, T) True where to look -> (B, T, H)."""
        found, _ = self.attention(self.norm1(x), memory, memory, ~keys, need_weights=False)
        x = x + self.drop(found)
        return x + self.drop(self.ffn2(self.drop(F.relu(self.ffn1(self.norm2(x))))))


@common.register("macil_sd")
class MACILSD(common.Baseline):
    """See the module. The snippet logit is the sum of both streams' logits."""

    paired, rates = False, {"vision.": 0.2}
    progress = 0.0  # share of the epochs; 50 were published
    Options = common.options(modality=common.NATIVE, width=128, by_label=False, form=common.FORMS)

    def build(self, dim: int, context: common.Context) -> None:
        width, both = self.options.width, self.options.modality == "audio_visual"
        self.audio_visual = Stream(dim, width, audio=True) if both else None
        self.vision = Stream(dim, width, audio=False)

    def forward(self, batch: common.Batch) -> common.Traced:
        x, mask = self.inputs(batch, longest=200)
        keys = torch.ones_like(mask) if self.training and self.released else mask  # padding leaks
        net = self.audio_visual
        v = self.vision.project(x[..., : self.settings.model.dim])
        vision = self.vision.score(self.vision(v, v, keys)).squeeze(-1)
        if net is None:
            return self.output(vision, mask, vision=vision)
        v, a = x.chunk(2, dim=-1)
        v, a = net.project(v), net.project_audio(a)
        traces = {"vision": vision, "v": net(v, a, keys), "a": net(a, v, keys)}
        l_v, l_a = (net.score(traces[stream]).squeeze(-1) for stream in ("v", "a"))
        return self.output(l_v + l_a, mask, p_v=l_v.sigmoid(), p_a=l_a.sigmoid(), **traces)

    def loss(self, output: common.Traced, batch: common.Batch) -> dict[str, Tensor]:
        """Parts: vision; bce, c1 to c4, audio_visual (their weighted sum); total (of both)."""
        traces, mask, labels = output.traces, output.mask, batch.labels
        vision = common.bag_cross_entropy(traces["vision"], mask, labels)
        if self.audio_visual is None:
            return {"vision": vision, "total": vision}
        bce = common.bag_cross_entropy(output.anomaly_logits, mask, labels)
        violent = topk_mean(output.anomaly_logits, mask.sum(dim=1)) > 0  # by its own verdict
        violent = ~common.is_normal(labels) if self.options.by_label else violent
        terms = self.contrast(traces, mask, violent)
        both = bce + min(1.5, 5 * self.progress) * sum(terms)  # full weight after 15 of 50 epochs
        parts = {f"c{n}": term for n, term in enumerate(terms, start=1)}
        return parts | {"bce": bce, "audio_visual": both, "vision": vision, "total": both + vision}

    def contrast(self, traces: dict[str, Tensor], mask: Tensor, violent: Tensor) -> list[Tensor]:
        """The four InfoNCE terms c1 to c4; zeros unless there are bags of both kinds. As
        released the visual output counts where the *sound* is violent, and vice versa."""
        if violent.all() or not violent.any():
            return [traces["v"].new_zeros(())] * 4
        a, v = ("v", "a") if self.released else ("a", "v")
        audio, *audio_rest = _groups(traces[a], traces["p_a"], mask, violent)
        video, *video_rest = _groups(traces[v], traces["p_v"], mask, violent)
        terms = [_info_nce(audio, video, other) for other in video_rest]
        return terms + [_info_nce(video, audio, other) for other in audio_rest]

    def start_epoch(self, epoch: int, bags: common.TrainingSet) -> None:
        self.progress = epoch / self.settings.train.epochs
        for group in self.groups:  # a cosine over 60 epochs, of which 50 are run
            group["lr"] *= (1 + math.cos(math.pi * self.progress * 50 / 60)) / 2

    def kept_share(self) -> float:
        """What the audio-visual network keeps of itself after a published epoch: 0.91 to 1."""
        return 1 - 0.045 * (1 + math.cos(math.pi * self.progress))

    @torch.no_grad()
    def end_epoch(self, epoch: int) -> None:
        """The vision-only weights are averaged into their namesakes, less and less."""
        kept = self.kept_share() ** (50 / self.settings.train.epochs)
        for name, weight in self.vision.named_parameters() if self.audio_visual else ():
            self.audio_visual.get_parameter(name).lerp_(weight, 1 - kept)


def _groups(rows: Tensor, scores: Tensor, mask: Tensor, violent: Tensor) -> tuple[Tensor, ...]:
    """Rows (n, H) by scores (B, T): violent (mean of a bag's top K, K times), background (bottom K
    of every bag), normal (top K of the other bags)."""
    count = torch.minimum(mask.sum(dim=1) // 16 + 1, mask.sum(dim=1))
    chosen = length_mask(count, int(count.max()))
    ranked = (ranking.masked_fill(~mask, -torch.inf) for ranking in (scores, -scores))
    top, bottom = (common.top_rows(rows, ranking, chosen.shape[1]) for ranking in ranked)
    mean = (top * chosen[..., None]).sum(dim=1) / count[:, None]
    repeated = mean[violent].repeat_interleave(count[violent], dim=0)
    return repeated, bottom[chosen], top[~violent][chosen[~violent]]


def _info_nce(query: Tensor, positive: Tensor, negatives: Tensor) -> Tensor:
    """InfoNCE of unit rows, temperature 0.1: query, positive (n, H) in pairs, negatives (m, H)."""
    query, positive, negatives = (F.normalize(x, dim=-1) for x in (query, positive, negatives))
    own = torch.linalg.vecdot(query, positive)[:, None]
    logits = torch.cat([own, query @ negatives.T], dim=-1) / 0.1
    return -logits.log_softmax(dim=-1)[:, 0].mean()
