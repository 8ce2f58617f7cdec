"""Ju-like: prompts and a light Transformer, without a design for MIL (after Ju et al., ECCV 2022).

The idea: adapt frozen CLIP to video with almost nothing trained, a few learned vectors around each
class name and one or two Transformer layers over the features. One recipe serves recognition,
localisation and retrieval. For this field it is the row "plain adaptation of CLIP".

The release holds the classifier of trimmed clips (``readout="mean"``: features are pooled, then
compared with the words; exact). How it was trained on bags and read out for the tables was never
published, so ``readout="mil"`` is OUR RECONSTRUCTION: snippets are compared with the words, then
pooled by MIL-Align. The difference between the two is the lesson of MIL. Left out: random clips.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avadclip_lite import losses
from avadclip_lite.baselines.common import Baseline, Options, Traced, class_words
from avadclip_lite.config import Config
from avadclip_lite.dataset import Batch
from avadclip_lite.model import Context, register
from avadclip_lite.temporal import WindowBlock, zero_padding

__all__ = ["JuLike"]


@dataclass(frozen=True, kw_only=True)
class JuLikeOptions(Options):
    modality: Literal["vision"] = "vision"
    readout: Literal["mil", "mean"] = "mil"
    layers: int = 2
    heads: int = 8
    temperature: float = 0.07


@register("ju_like")
class JuLike(Baseline):
    """See the module. The anomaly score is 1 - P(normal)."""

    Options = JuLikeOptions
    optimizer = torch.optim.AdamW
    paired = False
    needs_text = True
    frozen = ("words.tower.",)

    def __init__(self, settings: Config, context: Context) -> None:
        super().__init__(settings, context)
        options, dim = self.options, settings.model.dim
        self.max_snippets = settings.model.max_snippets
        self.positions = nn.Parameter(torch.empty(self.max_snippets, dim).normal_(std=0.01))
        self.blocks = nn.ModuleList(WindowBlock(dim, options.heads) for _ in "l" * options.layers)
        self.words = class_words(settings, context)

    def forward(self, batch: Batch) -> Traced:
        x, mask = self.inputs(batch)
        x = x + self.positions[: x.shape[1]]
        for block in self.blocks:
            x = block(x, mask)
        words = self.words()
        logits = self.compare(x, words)  # (B, T, C)
        rest = logits[..., 1:].logsumexp(dim=-1)
        clip = zero_padding(x, mask).sum(dim=1) / mask.sum(dim=1, keepdim=True)  # (B, D)
        return Traced(
            anomaly_logits=rest - logits[..., 0],
            mask=mask,
            alignment_logits=logits,
            features=x,
            class_embeddings=words,
            traces={"clip": self.compare(clip, words)},
        )

    def compare(self, x: Tensor, words: Tensor) -> Tensor:
        """Cosines over the temperature: x (..., D), words (C, D) -> (..., C)."""
        unit = F.normalize(x.float(), dim=-1) @ F.normalize(words.float(), dim=-1).T
        return unit / self.options.temperature

    def loss(self, output: Traced, batch: Batch) -> dict[str, Tensor]:
        """One part: the cross-entropy of the whole video's classes."""
        if self.options.readout == "mean":
            shares = losses.label_distribution(batch.labels)
            total = F.cross_entropy(output.traces["clip"], shares)
        else:
            lengths = output.mask.sum(dim=1)
            total = losses.mil_align(output.alignment_logits, batch.labels, lengths).cross_entropy
        return {"alignment": total, "total": total}
