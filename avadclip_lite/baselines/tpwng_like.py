"""TPWNG-like: CLIP as an annotator of snippets (after Yang et al., CVPR 2024).

The idea: instead of MIL, compare every snippet of an anomalous video with the text of its *known*
class, guided by how little it looks normal, and take the result as a label of the snippet. The text
side is adapted by ranking the right word above wrong ones, and by making the normal and the
abnormal curve disagree. A causal Transformer with a learned span of attention is trained on these
labels with plain cross-entropy, and is all that runs at test.

A RECONSTRUCTION in that spirit, for no code exists and the paper's formulas contradict each other
in places: labels are made anew in every step. Left out: the normality visual prompt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avadclip_lite.baselines.common import Baseline, Options, Traced, class_words, is_normal
from avadclip_lite.config import Config
from avadclip_lite.dataset import Batch
from avadclip_lite.model import Context, register

__all__ = ["TPWNGLike", "guided_labels", "stretch"]


def stretch(curve: Tensor, mask: Tensor) -> Tensor:
    """Curves (B, T) stretched to [0, 1] over their valid snippets."""
    low = curve.masked_fill(~mask, torch.inf).amin(dim=1, keepdim=True)
    high = curve.masked_fill(~mask, -torch.inf).amax(dim=1, keepdim=True)
    return (curve - low) / (high - low + 1e-8)


def guided_labels(
    own: Tensor, normal: Tensor, mask: Tensor, guidance: float, threshold: float
) -> Tensor:
    """Labels (B, T), 0 or 1: similarity to the video's own class, and lack of it to "normal"."""
    abnormality = (1 - guidance) * stretch(own, mask) + guidance * (1 - stretch(normal, mask))
    return ((stretch(abnormality, mask) > threshold) & mask).float()


@dataclass(frozen=True, kw_only=True)
class TPWNGLikeOptions(Options):
    modality: Literal["vision"] = "vision"
    layers: int = 4
    heads: int = 4
    guidance: float = 0.2
    threshold: float = 0.35  # XD-Violence; UCF-Crime 0.55
    smoothness: float = 0.1
    sparsity: float = 0.01


@register("tpwng_like")
class TPWNGLike(Baseline):
    """See the module. Only ``layers`` and ``classifier`` are used at test."""

    Options = TPWNGLikeOptions
    needs_text = True
    frozen = ("words.tower.",)

    def __init__(self, settings: Config, context: Context) -> None:
        super().__init__(settings, context)
        options, dim = self.options, settings.model.dim
        self.max_snippets = settings.model.max_snippets
        self.words = class_words(settings, context)
        tower = self.words.tower  # our own copy: its last projection is learned
        self.projection = nn.Parameter(tower.text_projection.detach().clone())
        tower.text_projection.data = torch.eye(tower.width)
        make = nn.TransformerEncoderLayer
        more = {"dropout": 0.0, "activation": "gelu", "batch_first": True, "norm_first": True}
        self.layers = nn.ModuleList(
            make(dim, options.heads, 4 * dim, **more) for _ in "l" * options.layers
        )
        self.spans = nn.ModuleList(nn.Linear(dim, options.heads) for _ in self.layers)
        self.classifier = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 1))

    def forward(self, batch: Batch) -> Traced:
        x, mask = self.inputs(batch)
        x = F.normalize(x, dim=-1)
        traces = {}
        if self.training:
            words = F.normalize(self.words() @ self.projection, dim=-1)
            traces["similarity"] = x @ words.T  # (B, T, C)
        for layer, span in zip(self.layers, self.spans, strict=True):
            x = layer(x, src_mask=self.reach(span(x)))
        return self.output(self.classifier(x).squeeze(-1), mask, **traces)

    def reach(self, span: Tensor) -> Tensor:
        """log of the soft mask over the past: span (B, T, heads) -> (B * heads, T, T). Each query
        chooses how far back it looks; ramps are as long as the longest video."""
        longest = float(self.max_snippets)
        place = torch.arange(span.shape[1], device=span.device)
        back = place[:, None] - place  # query - key
        width = longest * torch.sigmoid(span).mT[..., None]  # (B, heads, T, 1)
        soft = ((longest + width - back) / longest).clamp(1e-8, 1).log()
        return soft.masked_fill(back < 0, -torch.inf).flatten(0, 1)

    def loss(self, output: Traced, batch: Batch) -> dict[str, Tensor]:
        """Parts: classifier, rank_normal, rank_abnormal, disagreement, smooth, sparse, total."""
        mask, similarity = output.mask, output.traces["similarity"]
        labels, ordinary = batch.labels > 0, is_normal(batch.labels)
        normal = similarity[..., 0]
        own = similarity.masked_fill(~labels[:, None, :], -1.0).amax(dim=-1)
        with torch.no_grad():
            target = guided_labels(
                own, normal, mask, self.options.guidance, self.options.threshold
            ).masked_fill(ordinary[:, None], 0.0)
        best = similarity.masked_fill(~mask[..., None], -1.0).amax(dim=1)  # (B, C)
        wrong = labels.clone()
        wrong[:, 0] = True
        wrong = best.masked_fill(wrong, -1.0).amax(dim=1)  # of classes that are not shown
        right = best.masked_fill(~labels, -1.0).amax(dim=1)
        rank = F.relu(1 - right + wrong)
        rank_abnormal = rank + F.relu(1 - best[:, 0] + wrong)
        odd = ~ordinary
        valid = mask[odd].float()
        curve = stretch(own, mask)[odd] * valid
        step = curve.diff(dim=1) * valid[:, 1:]
        parts = {
            "classifier": F.binary_cross_entropy_with_logits(
                output.anomaly_logits[mask], target[mask]
            ),
            "rank_normal": rank[ordinary].mean(),
            "rank_abnormal": rank_abnormal[odd].mean(),
            "disagreement": F.cosine_similarity(own[odd] * valid, normal[odd] * valid).mean(),
            "smooth": step.square().sum(dim=1).mean(),
            "sparse": curve.sum(dim=1).mean(),
        }
        main = ("classifier", "rank_normal", "rank_abnormal", "disagreement")
        total = sum(parts[name] for name in main) + self.options.smoothness * parts["smooth"]
        return parts | {"total": total + self.options.sparsity * parts["sparse"]}
