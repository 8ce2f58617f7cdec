"""Four baselines that no paper needs: what the features and the labels are worth by themselves.

- ``zero_shot``: each snippet is compared with the class words through the text tower; nothing is
  learned.
- ``linear_svm``: a linear classifier of snippets that simply inherit their video's label; what is
  lost against MIL is the price of label noise.
- ``one_class_svm``: trained on normal snippets alone; "unlike the training data" is a poor proxy of
  an anomaly.
- ``late_fusion``: one small network a sense, each trained with Top-K MIL by itself; their scores
  are averaged.

The two support vector machines are scikit-learn's, fitted before the first epoch on unit-length
snippets drawn at random; their loss only reports how well whole training videos are judged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avadclip_lite.baselines.common import (
    Baseline,
    Options,
    Traced,
    bag_cross_entropy,
    class_words,
    is_normal,
)
from avadclip_lite.baselines.deepmil import RankingMLP
from avadclip_lite.config import Config
from avadclip_lite.dataset import Batch, TrainingSet
from avadclip_lite.model import Context, register

__all__ = ["LateFusion", "LinearSVM", "OneClassSVM", "ZeroShot"]


@dataclass(frozen=True, kw_only=True)
class FixedOptions(Options):
    snippets: int = 20_000  # at most so many are looked at
    temperature: float = 0.07  # zero_shot


class Fixed(Baseline):
    """A detector without gradients: one batch an epoch, whose loss is only reported."""

    Options = FixedOptions
    paired = False

    def optimizers(self) -> list[torch.optim.Optimizer]:
        return []

    def batches(self, bags: TrainingSet, generator: torch.Generator) -> list[Tensor]:
        return super().batches(bags, generator)[:1]

    def loss(self, output: Traced, batch: Batch) -> dict[str, Tensor]:
        judged = bag_cross_entropy(output.anomaly_logits, output.mask, batch.labels).detach()
        return {"bags": judged, "total": judged.clone().requires_grad_()}

    def draw(self, bags: TrainingSet, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Unit-length snippets (n, D) of the chosen bags, and whether each one's video is
        anomalous (n,)."""
        rows, labels = [], []
        for index in chosen.split(256):
            batch = bags.batch(index)
            x, mask = self.eval().inputs(batch)
            rows.append(F.normalize(x[mask], dim=-1).cpu())
            labels.append((~is_normal(batch.labels))[:, None].expand_as(mask)[mask].cpu())
        rows, labels = torch.cat(rows), torch.cat(labels)
        keep = torch.randperm(len(rows))[: self.options.snippets]
        return rows[keep], labels[keep]


@register("zero_shot")
class ZeroShot(Fixed):
    """Softmax over the cosines with the class words; with sound, the mean of both cosines."""

    needs_text = True
    frozen = ("words.tower.",)

    def __init__(self, settings: Config, context: Context) -> None:
        super().__init__(settings, context)
        self.words = class_words(settings, context, learned=False)

    def forward(self, batch: Batch) -> Traced:
        x, mask = self.inputs(batch)
        parts = F.normalize(x.unflatten(-1, (-1, self.settings.model.dim)), dim=-1)
        present = (parts.norm(dim=-1, keepdim=True) > 0).sum(dim=2).clamp_min(1)
        cosine = (parts.sum(dim=2) / present) @ F.normalize(self.words(), dim=-1).T
        logits = cosine / self.options.temperature  # (B, T, C)
        anomaly = logits[..., 1:].logsumexp(dim=-1) - logits[..., 0]
        return Traced(anomaly_logits=anomaly, mask=mask, alignment_logits=logits)


@register("linear_svm")
class LinearSVM(Fixed):
    def __init__(self, settings: Config, context: Context) -> None:
        super().__init__(settings, context)
        self.score = nn.Linear(self.width, 1).requires_grad_(False)

    def forward(self, batch: Batch) -> Traced:
        x, mask = self.inputs(batch)
        return self.output(self.score(F.normalize(x, dim=-1)).squeeze(-1), mask)

    def start_epoch(self, epoch: int, bags: TrainingSet) -> None:
        if epoch == 0:
            from sklearn.svm import LinearSVC  # only training needs it

            rows, labels = self.draw(bags, torch.arange(len(bags)))
            svm = LinearSVC(dual="auto", random_state=0).fit(rows.numpy(), labels.numpy())
            self.score.weight.copy_(torch.from_numpy(svm.coef_))
            self.score.bias.copy_(torch.from_numpy(svm.intercept_))


@register("one_class_svm")
class OneClassSVM(Fixed):
    """Gaussian kernel; the support vectors are kept, at most 2,000."""

    support_vectors = 2_000

    def __init__(self, settings: Config, context: Context) -> None:
        super().__init__(settings, context)
        count = min(self.options.snippets, self.support_vectors)
        shapes = {"support": (count, self.width), "dual": (count,), "gamma": (), "offset": ()}
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.zeros(shape), requires_grad=False))

    def forward(self, batch: Batch) -> Traced:
        x, mask = self.inputs(batch)
        gap = torch.cdist(F.normalize(x, dim=-1), self.support).square()
        return self.output(self.offset - torch.exp(-self.gamma * gap) @ self.dual, mask)

    def start_epoch(self, epoch: int, bags: TrainingSet) -> None:
        if epoch == 0:
            from sklearn.svm import OneClassSVM as Machine

            normal = is_normal(bags.labels.cpu()).nonzero().squeeze(1)
            rows = self.draw(bags, normal)[0][: len(self.dual)]
            gamma = 1 / (rows.shape[1] * float(rows.var(correction=0)))
            svm = Machine(gamma=gamma, nu=0.1).fit(rows.numpy())
            count = len(svm.support_vectors_)
            self.support[:count] = torch.from_numpy(svm.support_vectors_)
            self.dual[:count] = torch.from_numpy(svm.dual_coef_[0])
            self.gamma.fill_(gamma)
            self.offset.fill_(-float(svm.intercept_[0]))


@dataclass(frozen=True, kw_only=True)
class LateFusionOptions(Options):
    modality: Literal["audio_visual"] = "audio_visual"
    dropout: float = 0.6


@register("late_fusion")
class LateFusion(Baseline):
    """See the module. A snippet without sound is judged by what is seen alone."""

    Options = LateFusionOptions
    paired = False

    def __init__(self, settings: Config, context: Context) -> None:
        super().__init__(settings, context)
        dim, dropout = settings.model.dim, self.options.dropout
        self.seen, self.heard = RankingMLP(dim, dropout), RankingMLP(dim, dropout)

    def forward(self, batch: Batch) -> Traced:
        x, mask = self.inputs(batch)
        seen, heard = (net(part) for net, part in zip((self.seen, self.heard), x.chunk(2, -1)))
        scores = seen.sigmoid(), heard.sigmoid()
        both = torch.where(batch.audio_mask, (scores[0] + scores[1]) / 2, scores[0])
        return self.output(torch.logit(both, eps=1e-7), mask, seen=seen, heard=heard)

    def loss(self, output: Traced, batch: Batch) -> dict[str, Tensor]:
        """Parts: the cross-entropy of each sense's Top-K bag."""
        parts = {
            name: bag_cross_entropy(logits, output.mask, batch.labels)
            for name, logits in output.traces.items()
        }
        return parts | {"total": sum(parts.values())}
