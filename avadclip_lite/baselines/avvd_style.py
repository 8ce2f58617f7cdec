"""AVVD-style: HL-Net that also names what it finds (after Wu, Liu and Liu, IEEE TMM 2022).

The idea of AVVD: split the task in two, coarse violent-frame detection and fine violent-event
detection, where each class is named and localised under the same weak labels and without any text.
It is where XD-Violence's mAP comes from. The network keeps the three relation branches.

A RECONSTRUCTION in that spirit, for no code exists: HL-Net's trunk, graphs and online head; the
classifier has one more output a class; the fine loss is MIL-Align without words (each class scored
by its own K best snippets, a softmax over classes against the label). It reproduces nobody's
number.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from avadclip_lite import losses
from avadclip_lite.baselines.common import Traced
from avadclip_lite.baselines.hl_net import HLNet, HLNetOptions
from avadclip_lite.dataset import Batch
from avadclip_lite.model import Context, register

__all__ = ["AVVDStyle"]


@dataclass(frozen=True, kw_only=True)
class AVVDStyleOptions(HLNetOptions):
    fine: float = 1.0  # weight of the class-wise task


@register("avvd_style")
class AVVDStyle(HLNet):
    """See the module. ``alignment_logits`` (B, T, C) are the class outputs, normal first."""

    Options = AVVDStyleOptions

    def more_outputs(self, context: Context) -> int:
        return len(context.classes)

    def loss(self, output: Traced, batch: Batch) -> dict[str, Tensor]:
        """HL-Net's parts, and ``fine``."""
        parts = super().loss(output, batch)
        lengths = output.mask.sum(dim=1)
        parts["fine"] = losses.mil_align(
            output.alignment_logits, batch.labels, lengths
        ).cross_entropy
        return parts | {"total": parts["total"] + self.options.fine * parts["fine"]}
