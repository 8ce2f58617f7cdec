"""VadCLIP: a class-agnostic and a class-wise branch on frozen CLIP (Wu et al., AAAI 2024).

The idea: earlier detectors used a frozen backbone as a feature extractor for a binary classifier;
VadCLIP keeps CLIP's *text* side too and compares every snippet with every class name. The binary
branch says where something is wrong, and its scores make a visual prompt for the class embeddings.
Learned prompts, MIL-Align and a light local-then-global temporal adapter came with it.

It is AVadCLIP's vision student with the extras off (enhancement, focal loss, distillation), so
there is no second implementation: ``FIELDS`` turns them off, in the released form but under our
protocol. Of the paper's choices ``global_weight`` and ``prompt_skip`` are fields. Left out: the
paper's overlapping windows and normalised graphs.
"""

from avadclip_lite.model import AVadCLIP, register

FIELDS = {
    "form": "released",
    "role": "vision",
    "enhancement_blocks": 0,
    "alignment": "cross_entropy",
    "focal_alpha_learned": False,
    "ukd": "none",
    "selection": "holdout",  # the release chooses on the test set, and goes back to its best
    "reload_best": False,
    "resample": "together",
    "seed": 0,
}


@register("vadclip")
class VadCLIP(AVadCLIP):
    """See the module; ``baselines.configure("vadclip", scale=...)`` gives its settings."""
