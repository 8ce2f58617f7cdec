"""TPWNG-like: CLIP as an annotator of snippets (after Yang et al., CVPR 2024).

The idea: instead of MIL, compare every snippet of an anomalous video with the text of its *known*
class, corrected by its match to "normal", and take the result as the snippet's label. The text
side is adapted by ranking right words above wrong ones and by keeping "its class" and "normal" from
rising together. A causal Transformer with a learned span learns the labels; at test only it runs.

A RECONSTRUCTION in that spirit: no code was found, readings of the formulas contradict each other,
the schedule is second hand. Labels are made anew in every step. Left out: normality visual prompt.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avadclip_lite.baselines import common
from avadclip_lite.baselines.cupl import stretched
from avadclip_lite.baselines.ju_like import class_words


@common.register("tpwng_like")
class TPWNGLike(common.Baseline):
    """See the module. Only ``layers``, ``spans`` and ``classifier`` are used at test."""

    needs_text, frozen = True, ("words.tower.",)
    Options = common.options(modality=("vision",), layers=4, heads=4)

    def build(self, dim: int, context: common.Context) -> None:
        o, self.max_snippets = self.options, self.settings.model.max_snippets
        self.words = class_words(self, context)
        tower = self.words.tower  # our own copy: its last projection is learned
        self.projection = nn.Parameter(tower.text_projection.detach().clone())
        tower.text_projection.data = torch.eye(tower.width)
        more = {"dim_feedforward": 4 * dim, "dropout": 0.0, "activation": "gelu"}
        more |= {"batch_first": True, "norm_first": True}
        layers = (nn.TransformerEncoderLayer(dim, o.heads, **more) for _ in range(o.layers))
        self.layers = nn.ModuleList(layers)
        self.spans = nn.ModuleList(nn.Linear(dim, o.heads) for _ in self.layers)
        self.classifier = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 1))

    def forward(self, batch: common.Batch) -> common.Traced:
        x, mask = self.inputs(batch)
        x, traces = F.normalize(x, dim=-1), {}
        if self.training:
            words = F.normalize(self.words() @ self.projection, dim=-1)
            traces["similarity"] = x @ words.T  # (B, T, C)
        for layer, span in zip(self.layers, self.spans, strict=True):
            x = layer(x, src_mask=self.reach(span(x)))
        return self.output(self.classifier(x).squeeze(-1), mask, **traces)

    def reach(self, span: Tensor) -> Tensor:
        """Logarithm of the soft mask over the past, (B, T, heads) -> (B * heads, T, T): each query
        sets how gently the past fades, over the longest video's length; nothing is cut off."""
        longest, place = float(self.max_snippets), torch.arange(span.shape[1], device=span.device)
        back = place[:, None] - place  # query - key
        width = longest * span.sigmoid().mT[..., None]  # (B, heads, T, 1)
        soft = ((longest + width - back) / longest).clamp(1e-8, 1).log()
        return soft.masked_fill(back < 0, -torch.inf).flatten(0, 1)

    def label(self, own: Tensor, normal: Tensor, mask: Tensor) -> Tensor:
        """Labels (B, T), 0 or 1, from the similarities to the video's own class and, a fifth, from
        how little it looks "normal". The threshold is XD-Violence's (UCF-Crime: 0.55)."""
        abnormality = 0.8 * stretched(own, mask) + 0.2 * (1 - stretched(normal, mask))
        return ((stretched(abnormality, mask) > 0.35) & mask).float()

    def loss(self, output: common.Traced, batch: common.Batch) -> dict[str, Tensor]:
        """Parts: classifier, rank_normal, rank_abnormal, disagreement, smooth, sparse, total."""
        mask, similarity = output.mask, output.traces["similarity"]
        labels, odd = batch.labels > 0, ~common.is_normal(batch.labels)
        normal = similarity[..., 0]
        own = similarity.masked_fill(~labels[:, None, :], -1.0).amax(dim=-1)
        target = self.label(own.detach(), normal.detach(), mask) * odd[:, None]
        best = similarity.masked_fill(~mask[..., None], -1.0).amax(dim=1)  # (B, C)
        shown = labels | F.one_hot(torch.zeros_like(batch.lengths), labels.shape[1]).bool()
        wrong = best.masked_fill(shown, -1.0).amax(dim=1)
        rank = F.relu(1 - best.masked_fill(~labels, -1.0).amax(dim=1) + wrong)
        valid = mask[odd].float()
        curve, logits = stretched(own, mask)[odd] * valid, output.anomaly_logits
        parts = {
            "classifier": F.binary_cross_entropy_with_logits(logits[mask], target[mask]),
            "rank_normal": rank[~odd].mean(),
            "rank_abnormal": (rank + F.relu(1 - best[:, 0] + wrong))[odd].mean(),
            "disagreement": F.cosine_similarity(own[odd] * valid, normal[odd] * valid).mean(),
        }
        smooth = (curve.diff(dim=1) * valid[:, 1:]).square().sum(dim=1).mean()
        sparse = curve.sum(dim=1).mean()
        total = sum(parts.values()) + 0.1 * smooth + 0.01 * sparse
        return parts | {"smooth": smooth, "sparse": sparse, "total": total}
