"""AVVD-style: HL-Net that also names what it finds (after Wu, Liu and Liu, IEEE TMM 2022).

The idea, from memory of AVVD and unchecked: split the task in two, coarse violent-frame and fine
violent-event detection. Each class is named and localised under the same weak labels, here without
any text. The three relation branches of HL-Net serve both.

A RECONSTRUCTION in that spirit, for no code was found: HL-Net's trunk and online head; one
output for each class; the fine loss is MIL-Align (``losses``) without words. It reproduces nobody's
number. Left out: whatever the paper changed in the trunk.
"""

from torch import Tensor

from avadclip_lite import losses
from avadclip_lite.baselines import common, hl_net


@common.register("avvd_style")
class AVVDStyle(hl_net.HLNet):
    """See the module. ``alignment_logits`` (B, T, C) are the class outputs, normal first."""

    names_classes = True

    def loss(self, output: common.Traced, batch: common.Batch) -> dict[str, Tensor]:
        """HL-Net's parts, and ``fine``."""
        parts, lengths = super().loss(output, batch), output.mask.sum(dim=1)
        fine = losses.mil_align(output.alignment_logits, batch.labels, lengths).cross_entropy
        return parts | {"fine": fine, "total": parts["total"] + fine}
