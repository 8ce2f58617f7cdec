"""What the systems of the field share: options, inputs, bins, paired batches.

Each system is a ``Detector`` with options of its own and goes through the same training and the
same evaluation as AVadCLIP. Shape letters: B videos, T snippets, J bins, D width of the features
that enter (twice the store's with sound concatenated), R training rows.
"""

from __future__ import annotations

import copy
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avadclip_lite.config import Config
from avadclip_lite.config import _check as check_fields
from avadclip_lite.dataset import Batch, TrainingSet
from avadclip_lite.losses import topk_mean
from avadclip_lite.model import Context, Detector, Output
from avadclip_lite.prompts import TextualPrompt
from avadclip_lite.temporal import length_mask, zero_padding

__all__ = [
    "Baseline",
    "Options",
    "Traced",
    "bag_cross_entropy",
    "class_words",
    "cross_entropy",
    "is_normal",
    "pick_rows",
    "shared_bins",
]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Hyperparameters of a system, checked when made. Every system has these two."""

    modality: Literal["vision", "audio_visual"] = "vision"  # sound is concatenated, or native
    steps: int = 0  # optimiser steps of the whole training; 0: one pass over the rows an epoch

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True)
class Traced(Output):
    """An output with the intermediate results that the system's own loss reads, by name."""

    traces: Mapping[str, Tensor] = field(default_factory=dict)


class Baseline(Detector):
    """A system of the field. Subclasses name their ``Options`` and whether batches are ``paired``:
    as many normal as anomalous bags in each, drawn from two lists that are shuffled apart."""

    Options: typing.ClassVar[type[Options]] = Options
    paired: typing.ClassVar[bool] = True
    optimizer: typing.ClassVar[type[torch.optim.Optimizer]] = torch.optim.Adam

    def __init__(self, settings: Config, context: Context) -> None:
        super().__init__(settings)
        known = [item.name for item in fields(self.Options)]
        for name in settings.options:
            if name not in known:
                raise ValueError(
                    f"{settings.detector} has no option {name!r}; it has {', '.join(known)}"
                )
        self.options = self.Options(**settings.options)
        self.width = settings.model.dim * (2 if self.options.modality == "audio_visual" else 1)

    def inputs(self, batch: Batch, *, bins: int = 0, longest: int = 0) -> tuple[Tensor, Tensor]:
        """What enters: features (B, T, D), zero beyond a video's end, and the mask (B, T).

        In training ``bins`` makes bags of that fixed length, and ``longest`` thins longer bags;
        the output then has their length too.
        """
        mask = length_mask(batch.lengths, batch.video.shape[1])
        x = batch.video
        if self.options.modality == "audio_visual":
            x = torch.cat([x, zero_padding(batch.audio, batch.audio_mask)], dim=-1)
        if self.training and bins:
            x = shared_bins(batch.lengths, bins, x.shape[1]).to(x.dtype) @ x
            mask = mask.new_ones(x.shape[:2])
        if self.training and longest:
            x, lengths = pick_rows(x, batch.lengths, longest)
            mask = length_mask(lengths, x.shape[1])
        return zero_padding(x, mask), mask

    def output(self, logits: Tensor, mask: Tensor, /, **traces: Tensor) -> Traced:
        """An output without classes; ``traces`` go to the loss."""
        return Traced(anomaly_logits=logits, mask=mask, traces=traces)

    def visible(self, mask: Tensor) -> Tensor:
        """The rows that take part: all of them where padding leaks, as some releases let it in
        training (``options.padding``), else the mask. At test nothing leaks."""
        leaking = self.training and self.options.padding == "leaking"
        return torch.ones_like(mask) if leaking else mask

    def learnable(self) -> list[nn.Parameter]:
        return [p for p in self.parameters() if p.requires_grad]

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """The method's own kind, at the rate and decay of the settings; Adam's decay is L2."""
        train = self.settings.train
        rate, decay = train.learning_rate, train.weight_decay
        return [self.optimizer(self.learnable(), lr=rate, weight_decay=decay)]

    def batches(self, bags: TrainingSet, generator: torch.Generator) -> list[Tensor]:
        """Positions of the bags of each step of an epoch: ``steps / epochs`` steps if the options
        say so, else one pass. Paired halves come normal first; each list starts over when it is
        used up, whatever the other does. Raises ``ValueError`` if one kind is missing."""
        size, train = self.settings.train.batch_size, self.settings.train
        steps = -(-self.options.steps // train.epochs) or -(-len(bags) // size)
        if not self.paired:
            order = _endless(torch.arange(len(bags)), steps * size, generator)
            if not self.options.steps:
                order = order[: len(bags)]
            return list(order.split(size))
        normal = is_normal(bags.labels.cpu())
        if normal.all() or not normal.any():
            raise ValueError(
                f"{self.settings.detector} trains on pairs of a normal and an anomalous video; "
                "the training split holds only one kind"
            )
        half = max(size // 2, 1)
        halves = [
            _endless(kind.nonzero().squeeze(1), steps * half, generator)
            for kind in (normal, ~normal)
        ]
        return [torch.cat(pair) for pair in zip(*(h.split(half) for h in halves), strict=True)]


def _endless(items: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """``count`` entries of one shuffled pass over ``items`` after another."""
    passes = -(-count // len(items))
    order = [items[torch.randperm(len(items), generator=generator)] for _ in range(passes)]
    return torch.cat(order)[:count]


def bag_cross_entropy(logits: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy of the logistic of each bag's K largest logits' mean, K = n // 16 + 1
    (HL-Net, MACIL-SD): logits, mask (B, T), labels (B, C)."""
    bag = topk_mean(logits.float(), mask.sum(dim=1))
    return F.binary_cross_entropy_with_logits(bag, (~is_normal(labels)).float())


def cross_entropy(p: Tensor, target: Tensor | float) -> Tensor:
    """Mean binary cross-entropy of probabilities p, of any shape. Torch's own stops the process
    where a probability is not a number, before the loss can be looked at."""
    tiny = torch.finfo(p.dtype).tiny
    yes, no = p.clamp_min(tiny).log(), (1 - p).clamp_min(tiny).log()
    return -(target * yes + (1 - target) * no).mean()


def class_words(settings: Config, context: Context, *, learned: bool = True) -> TextualPrompt:
    """Class embeddings from a copy of the text tower, with ``context_before`` and ``_after``
    learned vectors around each word, or none."""
    if context.text is None or context.text.dim != settings.model.dim:
        raise ValueError(
            f"{settings.detector} is built from a text tower of dim={settings.model.dim}; "
            "encoders.load_text gives the one that belongs to the features"
        )
    beside = (settings.model.context_before, settings.model.context_after) if learned else (0, 0)
    tower = copy.deepcopy(context.text)
    return TextualPrompt(tower, context.prompts, before=beside[0], after=beside[1])


def is_normal(labels: Tensor) -> Tensor:
    """Which videos are labelled normal: labels (B, C) -> (B,) bool."""
    return labels[:, 0] > 0


def shared_bins(lengths: Tensor, bins: int, snippets: int) -> Tensor:
    """Shares (B, J, T) of the snippets in each bin: bin j is the mean of rows floor(j L / J) up to
    floor((j + 1) L / J), or the one row at its start where that range is empty, so that a short
    video repeats rows and nothing is padded (RTFM, UR-DMU, the ports of DeepMIL)."""
    edges = torch.arange(bins + 1, device=lengths.device) * lengths[:, None] // bins  # (B, J + 1)
    start, end = edges[:, :-1, None], edges[:, 1:, None]
    place = torch.arange(snippets, device=lengths.device)
    inside = (place >= start) & (place < torch.maximum(end, start + 1))
    return inside / inside.sum(dim=-1, keepdim=True)


def pick_rows(x: Tensor, lengths: Tensor, longest: int = 200) -> tuple[Tensor, Tensor]:
    """Bags of at most ``longest`` snippets by *picking* rows trunc(linspace(0, L - 1, longest)) of
    a longer video (HL-Net, MACIL-SD): x (B, T, D) -> (B, min(T, longest), D), lengths (B,)."""
    if x.shape[1] <= longest:
        return x, lengths
    place = torch.arange(longest, device=x.device)
    last = (lengths[:, None] - 1).double()
    picked = (place * (last / (longest - 1))).long()  # (B, longest)
    picked[:, -1] = lengths - 1  # whatever the rounding
    at = torch.where(lengths[:, None] > longest, picked, place)
    return x.gather(1, at[..., None].expand(-1, -1, x.shape[2])), lengths.clamp_max(longest)
