"""Four baselines without a paper: what the features and the labels are worth by themselves.

``zero_shot`` compares each snippet with the class words; nothing is learned. ``linear_svm`` is a
linear classifier of snippets that inherit their video's label: what it loses against MIL is the
price of label noise. ``one_class_svm`` knows normal snippets alone: "unlike the training data" is a
poor proxy of an anomaly. ``late_fusion`` averages the scores of two small networks, one a sense,
each trained with Top-K MIL by itself.

The two support vector machines are scikit-learn's, fitted before the first epoch on unit-length
snippets drawn at random; the loss of what has no gradient only reports how well bags are judged.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avadclip_lite.baselines import common
from avadclip_lite.baselines.deepmil import RankingMLP


class Fixed(common.Baseline):
    """A detector without gradients: one batch an epoch, for the report."""

    paired = False

    class Options(common.Options):
        snippets: int = 20_000  # at most so many are looked at
        temperature: float = 0.07  # zero_shot
        outliers: float = 0.1  # one_class_svm: share of normal snippets that may lie outside

    def batches(self, bags: common.TrainingSet, generator: torch.Generator) -> list[Tensor]:
        return super().batches(bags, generator)[:1]

    def loss(self, output: common.Traced, batch: common.Batch) -> dict[str, Tensor]:
        judged = common.bag_cross_entropy(output.anomaly_logits, output.mask, batch.labels).detach()
        return {"bags": judged, "total": judged.clone().requires_grad_()}

    def draw(self, bags: common.TrainingSet, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Unit-length snippets (n, D) of the chosen bags, and their videos' labels (n,), 1 for
        anomalous."""
        rows, labels = [], []
        for index in chosen.split(256):
            batch = bags.batch(index)
            x, mask = self.inputs(batch)
            rows.append(F.normalize(x[mask], dim=-1).cpu())
            labels.append((~common.is_normal(batch.labels))[:, None].expand_as(mask)[mask].cpu())
        keep = torch.randperm(sum(map(len, rows)))[: self.options.snippets]
        return torch.cat(rows)[keep], torch.cat(labels)[keep]


@common.register("zero_shot")
class ZeroShot(Fixed):
    """Softmax over the cosines with the class words; with sound, the mean of both cosines."""

    needs_text, frozen = True, ("words.tower.",)

    def build(self, dim: int, context: common.Context) -> None:
        self.words = self.class_words(context, learned=False)

    def forward(self, batch: common.Batch) -> common.Traced:
        x, mask = self.inputs(batch)
        senses = F.normalize(x.unflatten(-1, (-1, self.settings.model.dim)), dim=-1)
        present = senses.any(dim=-1).sum(dim=-1, keepdim=True).clamp_min(1)
        cosine = (senses.sum(dim=2) / present) @ F.normalize(self.words(), dim=-1).T
        logits = cosine / self.options.temperature  # (B, T, C)
        anomaly = logits[..., 1:].logsumexp(dim=-1) - logits[..., 0]
        return common.Traced(anomaly_logits=anomaly, mask=mask, alignment_logits=logits)


@common.register("linear_svm")
class LinearSVM(Fixed):
    """See the module."""

    def build(self, dim: int, context: common.Context) -> None:
        self.score = nn.Linear(self.width, 1).requires_grad_(False)

    def forward(self, batch: common.Batch) -> common.Traced:
        x, mask = self.inputs(batch)
        return self.output(self.score(F.normalize(x, dim=-1)).squeeze(-1), mask)

    def start_epoch(self, epoch: int, bags: common.TrainingSet) -> None:
        if epoch == 0:
            from sklearn.svm import LinearSVC  # only training needs it

            rows, labels = self.draw(bags, torch.arange(len(bags)))
            svm = LinearSVC(dual="auto", random_state=0).fit(rows.numpy(), labels.numpy())
            self.score.weight.copy_(torch.from_numpy(svm.coef_))
            self.score.bias.copy_(torch.from_numpy(svm.intercept_))


@common.register("one_class_svm")
class OneClass(Fixed):
    """Gaussian kernel on at most 2,000 normal snippets."""

    def build(self, dim: int, context: common.Context) -> None:
        count = min(self.options.snippets, 2_000)
        shapes = {"support": (count, self.width), "dual": (count,), "gamma": (), "offset": ()}
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.zeros(shape), requires_grad=False))

    def forward(self, batch: common.Batch) -> common.Traced:
        x, mask = self.inputs(batch)
        gap = torch.cdist(F.normalize(x, dim=-1), self.support).square()
        return self.output(self.offset - torch.exp(-self.gamma * gap) @ self.dual, mask)

    def start_epoch(self, epoch: int, bags: common.TrainingSet) -> None:
        if epoch == 0:
            from sklearn.svm import OneClassSVM

            normal = common.is_normal(bags.labels.cpu()).nonzero().squeeze(1)
            rows = self.draw(bags, normal)[0][: len(self.dual)]
            self.gamma.fill_(1 / (rows.shape[1] * rows.var(correction=0)))  # "scale"
            svm = OneClassSVM(gamma=float(self.gamma), nu=self.options.outliers).fit(rows.numpy())
            count, scale = len(svm.support_vectors_), svm.dual_coef_.sum()  # no saturated logits
            self.support[:count] = torch.from_numpy(svm.support_vectors_)
            self.dual[:count] = torch.from_numpy(svm.dual_coef_[0] / scale)
            self.offset.fill_(-float(svm.intercept_[0]) / scale)


@common.register("late_fusion")
class LateFusion(common.Baseline):
    """See the module. A snippet without sound is judged by what is seen alone."""

    paired = False

    class Options(common.Options):
        modality: Literal["audio_visual"] = "audio_visual"
        dropout: float = 0.6

    def build(self, dim: int, context: common.Context) -> None:
        self.video, self.audio = (RankingMLP(dim, self.options.dropout) for _ in range(2))

    def forward(self, batch: common.Batch) -> common.Traced:
        x, mask = self.inputs(batch)
        video, audio = x.chunk(2, dim=-1)
        video, audio = self.video(video), self.audio(audio)
        with_sound = mask if batch.audio_mask is None else batch.audio_mask
        score = torch.where(with_sound, (video.sigmoid() + audio.sigmoid()) / 2, video.sigmoid())
        return self.output(torch.logit(score, eps=1e-7), mask, video=video, audio=audio)

    def loss(self, output: common.Traced, batch: common.Batch) -> dict[str, Tensor]:
        """Parts: the cross-entropy of each sense's Top-K bag."""
        traces = output.traces.items()
        parts = {k: common.bag_cross_entropy(v, output.mask, batch.labels) for k, v in traces}
        return parts | {"total": sum(parts.values())}
