"""Ju-like: prompts and a light Transformer, without a design for MIL (after Ju et al., ECCV 2022).

The idea: adapt frozen CLIP to video with little trained beside it, a few prompt vectors shared by
all class names, and one or two Transformer layers over the features. One recipe serves
recognition, localisation and retrieval. Here it stands for plain adaptation of CLIP.

The release holds the classifier of trimmed clips (``readout="mean"``: features are pooled, then
compared with the words; exact). How it was trained on bags for the tables we found nowhere, so
``readout="mil"`` is OUR RECONSTRUCTION: snippets are compared, then pooled by MIL-Align. The
difference between the two shows what MIL adds. Left out: random clips.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avadclip_lite import losses
from avadclip_lite.baselines import common
from avadclip_lite.prompts import TextualPrompt
from avadclip_lite.temporal import WindowBlock, zero_padding


def class_words(system: common.Baseline, context: common.Context, learned=True) -> TextualPrompt:
    """Class embeddings from a copy of the text tower, with or without learned context."""
    model = system.settings.model
    before, after = (model.context_before, model.context_after) if learned else (0, 0)
    return TextualPrompt(copy.deepcopy(context.text), context.prompts, before=before, after=after)


def compared(x: Tensor, words: Tensor) -> Tensor:
    """Class logits (..., C): cosines of x (..., D) with words (C, D), over the temperature 0.07."""
    return F.normalize(x.float(), dim=-1) @ F.normalize(words.float(), dim=-1).T / 0.07


@common.register("ju_like")
class JuLike(common.Baseline):
    """See the module. The anomaly score is 1 - P(normal)."""

    optimizer = torch.optim.AdamW
    paired, needs_text, frozen = False, True, ("words.tower.",)
    Options = common.options(modality=("vision",), readout=("mil", "mean"), layers=2, heads=8)

    def build(self, dim: int, context: common.Context) -> None:
        self.max_snippets = self.settings.model.max_snippets
        self.positions = nn.Parameter(torch.empty(self.max_snippets, dim).normal_(std=0.01))
        blocks = (WindowBlock(dim, self.options.heads) for _ in range(self.options.layers))
        self.blocks, self.words = nn.ModuleList(blocks), class_words(self, context)

    def forward(self, batch: common.Batch) -> common.Traced:
        x, mask = self.inputs(batch)
        x, words = x + self.positions[: x.shape[1]], self.words()
        for block in self.blocks:
            x = block(x, mask)
        clip = zero_padding(x, mask).sum(dim=1) / mask.sum(dim=1, keepdim=True)  # (B, D)
        clip = compared(clip, words)
        return self.output(compared(x, words), mask, clip=clip, features=x, words=words)

    def loss(self, output: common.Traced, batch: common.Batch) -> dict[str, Tensor]:
        """One part: the cross-entropy of the whole video's classes."""
        logits, lengths = output.alignment_logits, output.mask.sum(dim=1)
        total = losses.mil_align(logits, batch.labels, lengths).cross_entropy
        if self.options.readout == "mean":
            total = F.cross_entropy(output.traces["clip"], F.normalize(batch.labels, p=1))
        return {"alignment": total, "total": total}
