"""What the systems of the field share: options, inputs, bags of fixed length, paired batches.

B videos, T snippets, J bins, D width (twice the store's with sound concatenated), C classes."""

from collections.abc import Mapping
from dataclasses import dataclass, field, make_dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from avadclip_lite.config import Config, Section
from avadclip_lite.dataset import Batch, TrainingSet
from avadclip_lite.losses import cross_entropy, topk_mean  # noqa: F401
from avadclip_lite.model import Context, Detector, Output, register  # noqa: F401
from avadclip_lite.temporal import length_mask, zero_padding

FORMS = "released", "intended"  # choices where a slip of a release matters: with it, or without
NATIVE = "audio_visual", "vision"  # modalities of what was made for sound


@dataclass(frozen=True, kw_only=True)
class Options(Section):
    """Hyperparameters that every system has, checked when made."""

    modality: Literal["vision", "audio_visual"] = "vision"  # sound is concatenated, or native
    steps: int = 0  # optimiser steps in all, up to whole epochs; 0: one pass over the rows an epoch


def options(base: type[Options] = Options, /, **new: Any) -> type[Options]:
    """``base`` with new hyperparameters: each a default, or its choices, of which the first is."""
    kinds = ((k, Literal[v], v[0]) if type(v) is tuple else (k, type(v), v) for k, v in new.items())
    return make_dataclass("Options", kinds, bases=(base,), frozen=True, kw_only=True)


@dataclass(frozen=True, kw_only=True)
class Traced(Output):
    """An output with the intermediate results that the system's own loss reads, by name."""

    traces: Mapping[str, Tensor] = field(default_factory=dict)


class Baseline(Detector):
    """A system of the field: a subclass has ``Options``, and ``build(dim, context)``: modules."""

    Options: ClassVar[type[Options]] = Options
    paired: ClassVar[bool] = True  # batches are half normal, half anomalous, in this order
    optimizer = torch.optim.Adam  # its weight decay is L2 in the gradient
    rates: ClassVar[dict[str, float]] = {}  # factors of the learning rate, by prefix of the weight

    def __init__(self, settings: Config, context: Context) -> None:
        super().__init__(settings)
        dim = settings.model.dim
        self.options = self.Options(**settings.options)
        self.released = getattr(self.options, "form", "released") == "released"
        self.width = dim * (2 if self.options.modality == "audio_visual" else 1)
        self.build(dim, context)

    def inputs(self, batch: Batch, *, bins=0, longest=0, last=True) -> tuple[Tensor, Tensor]:
        """What enters: features (B, T, D), zero beyond a video's end, and the mask (B, T). In
        training, bags (``max_snippets`` rows) become ``bins`` means or ``longest`` of the rows."""
        x, mask = batch.video, length_mask(batch.lengths, batch.snippets)
        if self.options.modality == "audio_visual":
            x = torch.cat([x, zero_padding(batch.audio, batch.audio_mask)], dim=-1)
        if self.training and bins:
            x = shared_bins(batch.lengths, bins, x.shape[1], last=last).to(x.dtype) @ x
            mask = mask.new_ones(x.shape[:2])
        if self.training and longest:
            x, lengths = pick_rows(x, batch.lengths, longest)
            mask = length_mask(lengths, x.shape[1])
        return zero_padding(x, mask), mask

    def output(self, logits: Tensor, mask: Tensor, /, *, classes=None, **traces: Any) -> Traced:
        """An output of anomaly logits (B, T), or of class logits (B, T, C), normal first, whose
        anomaly score is 1 - P(normal), or of both; ``traces`` go to the loss."""
        if logits.ndim == 3:
            classes, logits = logits, logits[..., 1:].logsumexp(dim=-1) - logits[..., 0]
        return Traced(anomaly_logits=logits, mask=mask, alignment_logits=classes, traces=traces)

    def optimizers(self) -> list[torch.optim.Optimizer]:
        train, groups = self.settings.train, {}
        for name, weight in self.named_parameters():
            if weight.requires_grad:
                factor = next((f for k, f in self.rates.items() if name.startswith(k)), 1.0)
                groups.setdefault(factor * train.learning_rate, []).append(weight)
        self.groups = [{"params": weights, "lr": rate} for rate, weights in groups.items()]
        return [self.optimizer(self.groups, weight_decay=train.weight_decay)] if groups else []

    def batches(self, bags: TrainingSet, generator: torch.Generator) -> list[Tensor]:
        """``steps / epochs`` batches of positions, or one pass; each half of a pair from a shuffled
        list of its own, which starts over when used up. Where the recipe is AVadCLIP's: its own."""
        if not (self.options.steps or self.paired):
            return super().batches(bags, generator)
        train, normal = self.settings.train, is_normal(bags.labels.cpu())
        steps = -(-self.options.steps // train.epochs) or -(-len(bags) // train.batch_size)
        kinds = [normal, ~normal] if self.paired else [torch.ones_like(normal)]
        if not all(kind.any() for kind in kinds):
            raise ValueError(f"{self.settings.detector} needs both normal and anomalous videos")
        size, halves = max(train.batch_size // len(kinds), 1), []
        for items in (kind.nonzero().squeeze(1) for kind in kinds):
            passes = range(-(-steps * size // len(items)))
            order = [items[torch.randperm(len(items), generator=generator)] for _ in passes]
            halves.append(torch.cat(order)[: steps * size].split(size))
        return [torch.cat(pair) for pair in zip(*halves, strict=True)]


def is_normal(labels: Tensor) -> Tensor:
    """Which videos are labelled normal: labels (B, C) -> (B,) bool."""
    return labels[:, 0] > 0


def bag_cross_entropy(logits: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of the mean of each bag's K = n // 16 + 1 largest logits (B, T)."""
    bag = topk_mean(logits.float(), mask.sum(dim=1))
    return F.binary_cross_entropy_with_logits(bag, (~is_normal(labels)).float())


def top_rows(rows: Tensor, ranking: Tensor, k: int) -> Tensor:
    """The k rows (B, k, W) of (B, T, W) that rank highest (B, T)."""
    return rows.take_along_dim(ranking.topk(k, dim=1).indices[..., None], dim=1)


def shared_bins(lengths: Tensor, bins: int, snippets: int, *, last: bool = True) -> Tensor:
    """Share (B, J, T) of each row in bin j, the mean from edge floor(j L / J) up to the next, or
    the one row there: short videos repeat rows. Without ``last`` edges are rounded from j (L - 1) /
    J, half upwards: DeepMIL's own, which leave out the last of more than 17 rows (J = 32)."""
    edges = torch.arange(bins + 1, device=lengths.device)
    edges = edges * lengths[:, None] if last else edges * (lengths[:, None] - 1) + bins // 2
    edges = edges // bins
    place, start = torch.arange(snippets, device=lengths.device), edges[:, :-1, None]
    inside = (place >= start) & (place < torch.maximum(edges[:, 1:, None], start + 1))
    return inside / inside.sum(dim=-1, keepdim=True)


def pick_rows(x: Tensor, lengths: Tensor, longest: int) -> tuple[Tensor, Tensor]:
    """Of a longer bag only the rows trunc(linspace(0, L - 1, longest)), *picked*, not averaged: x
    (B, T, D) -> (B, min(T, longest), D), and the lengths (B,)."""
    if x.shape[1] <= longest:
        return x, lengths
    place = torch.arange(longest, device=x.device)
    picked = place * (lengths[:, None] - 1) // (longest - 1)  # (B, longest)
    at = torch.where(lengths[:, None] > longest, picked, place)
    return x.gather(1, at[..., None].expand(-1, -1, x.shape[2])), lengths.clamp_max(longest)
