"""What training minimises: Top-K classification, MIL-Align with focal loss, text contrast, and the
uncertainty-driven distillation of the students.

Every function works on whole batches with masks and never asks the device for a number."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from avadclip_lite.config import LossConfig
from avadclip_lite.dataset import Batch, Output
from avadclip_lite.temporal import length_mask


def topk_mean(scores: Tensor, lengths: Tensor, divisor: int = 16) -> Tensor:
    """Mean of each video's K largest scores, K = floor(length / divisor) + 1, at most its length.
    scores (B, T) or (B, T, C), lengths (B,) snippets -> (B,) or (B, C); each class chooses its own
    snippets."""
    flat = scores if scores.ndim == 3 else scores[..., None]  # (B, T, C)
    snippets = flat.shape[1]
    valid = length_mask(lengths, snippets)
    most = min(snippets // divisor + 1, snippets)  # the largest K this batch can have
    top = flat.masked_fill(~valid[..., None], -torch.inf).topk(most, dim=1).values
    count = torch.minimum(lengths // divisor + 1, lengths)
    chosen = length_mask(count, most)[..., None]
    mean = torch.where(chosen, top, 0.0).sum(dim=1) / count[:, None]
    return mean if scores.ndim == 3 else mean.squeeze(-1)


def topk_bce(logits: Tensor, anomalous: Tensor, lengths: Tensor, divisor: int = 16) -> Tensor:
    """Binary cross-entropy of the mean of the K largest confidences of each video. logits (B, T),
    anomalous (B,) 0 or 1, lengths (B,) -> scalar, mean over videos."""
    with torch.autocast(logits.device.type, enabled=False):
        score = topk_mean(torch.sigmoid(logits.float()), lengths, divisor)
        return cross_entropy(score, anomalous)


def cross_entropy(p: Tensor, target: Tensor | float) -> Tensor:
    """Mean binary cross-entropy of probabilities; log 0 is -87 (torch: -100). torch's own asserts
    0 <= p <= 1 on the device: a NaN would end the process instead of being seen."""
    yes, no = (q.clamp_min(torch.finfo(q.dtype).tiny).log() for q in (p, 1 - p))
    return -(target * yes + (1 - target) * no).mean()


def focal(cross_entropy: Tensor, p_t: Tensor, alpha: Tensor | float, gamma: float = 2.0) -> Tensor:
    """Focal loss, ``alpha (1 - p)^gamma ce``, mean over videos: cross_entropy (B,), p_t (B,) the
    probability given to the true classes, alpha (B,) or a number."""
    return (alpha * (1.0 - p_t).clamp_min(0.0) ** gamma * cross_entropy).mean()


class MilAlign(NamedTuple):
    """The two parts of the alignment loss; the paper takes their mean."""

    cross_entropy: Tensor
    focal: Tensor


def mil_align(
    alignment_logits: Tensor,
    labels: Tensor,
    lengths: Tensor,
    *,
    alpha: Tensor | float = 0.25,
    gamma: float = 2.0,
    divisor: int = 16,
) -> MilAlign:
    """MIL-Align (equation 8): each class is scored by its own K best snippets, a softmax over
    classes is compared with the video's label. alignment_logits (B, T, C); labels (B, C) multi-hot;
    lengths (B,); alpha a number or one per class (C,), averaged over the video's classes."""
    z = topk_mean(alignment_logits.float(), lengths, divisor)  # (B, C)
    y = labels / labels.sum(dim=1, keepdim=True)  # two classes count a half each
    per_video = -(y * z.log_softmax(dim=1)).sum(dim=1)
    p_t = (y * z.softmax(dim=1)).sum(dim=1)
    weight = (y * alpha).sum(dim=1)
    return MilAlign(per_video.mean(), focal(per_video, p_t, weight, gamma))


def text_contrast(class_embeddings: Tensor) -> Tensor:
    """Mean |cosine| between the normal class and every other one (the release; not in the paper).
    class_embeddings (C, D) -> scalar."""
    unit = F.normalize(class_embeddings.float(), dim=-1)
    return (unit[1:] @ unit[0]).abs().mean()


def ukd(
    student: Tensor,
    teacher: Tensor,
    log_variance: Tensor | None = None,
    mask: Tensor | None = None,
    kind: str = "paper",
) -> Tensor:
    """Uncertainty-driven distillation (equations 9 to 11), mean over snippets and channels.
    ``kind`` "paper": the negative log-likelihood of x_av = x_vs + eps sigma, with
    theta = ln sigma^2, ``((x_av - x_vs)^2 exp(-theta) + theta) / 2``. "released":
    ``(x_av - x_vs)^2 / (1e-6 + 2 exp(theta)) + theta``, which halves only the first term. "mse":
    the plain squared error, no uncertainty. student, teacher, log_variance (B, T, D), mask (B, T)
    or None (the release: padding counts)."""
    squared = (teacher.float() - student.float()) ** 2
    if kind == "mse":
        loss = squared
    elif log_variance is None:
        raise ValueError(f"ukd kind {kind!r} needs log_variance; build the student with it")
    elif kind == "paper":
        loss = 0.5 * (squared * torch.exp(-log_variance.float()) + log_variance.float())
    elif kind == "released":
        loss = squared / (1e-6 + 2.0 * torch.exp(log_variance.float())) + log_variance.float()
    else:
        raise ValueError(f"ukd kind must be 'paper', 'released' or 'mse', got {kind!r}")
    if mask is None:
        return loss.mean()
    return loss.masked_fill(~mask[..., None], 0.0).sum() / (mask.sum() * loss.shape[-1])


def compute(
    output: Output, batch: Batch, settings: LossConfig, alpha: Tensor | None = None
) -> dict[str, Tensor]:
    """The losses that ``settings`` ask for by name, unweighted (classification, cross_entropy,
    focal, alignment, contrast, ukd), and "total", what to minimise. ``batch`` gives labels (B, C)
    and lengths (B,); ``alpha`` (C,): the detector's learned focal weight, if it has one."""
    labels, lengths = batch.labels, batch.lengths
    divisor = settings.topk_divisor
    parts = {"classification": topk_bce(output.anomaly_logits, 1 - labels[:, 0], lengths, divisor)}
    total = parts["classification"]
    if settings.alignment != "none":
        options = dict(gamma=settings.focal_gamma, divisor=divisor)
        options |= dict(alpha=settings.focal_alpha if alpha is None else alpha)
        found = mil_align(output.alignment_logits, labels, lengths, **options)
        parts |= found._asdict() | {"alignment": found.cross_entropy}
        if settings.alignment == "cross_entropy_focal":
            parts["alignment"] = (found.cross_entropy + found.focal) / 2
        total = total + parts["alignment"]
    if settings.contrast_weight:
        parts["contrast"] = text_contrast(output.class_embeddings)
        total = total + settings.contrast_weight * parts["contrast"]
    if output.teacher_features is not None and settings.ukd != "none":
        features = output.features, output.teacher_features
        mask = output.mask if settings.ukd_mask else None
        parts["ukd"] = ukd(*features, output.log_variance, mask, settings.ukd)
        total = total + settings.ukd_weight * parts["ukd"]
    return parts | {"total": total}
