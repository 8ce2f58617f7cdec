"""Four baselines without a paper: what the features and the labels are worth by themselves.

The ideas: ``zero_shot`` compares each snippet with the class words; nothing is learned.
``linear_svm`` lets snippets inherit their video's label, right or wrong, where MIL only asks that
some deserve it. ``one_class_svm`` knows normal snippets alone: "unlike the training data" is a poor
proxy of an anomaly. ``late_fusion`` lets two detectors judge apart, one for each sense.

The SVMs are scikit-learn's, fitted before the first epoch on unit-length snippets drawn at
random; where nothing has a gradient, the loss is logged and trains nothing.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avadclip_lite.baselines import common
from avadclip_lite.baselines.ju_like import class_words
from avadclip_lite.model import AVadCLIP


class Fixed(common.Baseline):
    """A detector without gradients: one batch an epoch, for the report."""

    paired = False

    def batches(self, bags: common.TrainingSet, generator: torch.Generator) -> list[Tensor]:
        return super().batches(bags, generator)[:1]

    def loss(self, output: common.Traced, batch: common.Batch) -> dict[str, Tensor]:
        judged = common.bag_cross_entropy(output.anomaly_logits, output.mask, batch.labels).detach()
        return {"bags": judged, "total": judged.clone().requires_grad_()}


@common.register("zero_shot")
class ZeroShot(Fixed):
    """Softmax over the cosines with the class words; with sound, the mean of both cosines."""

    needs_text, frozen = True, ("words.tower.",)

    def build(self, dim: int, context: common.Context) -> None:
        self.words = class_words(self, context, learned=False)

    def forward(self, batch: common.Batch) -> common.Traced:
        x, mask = self.inputs(batch)
        senses = F.normalize(x.unflatten(-1, (-1, self.settings.model.dim)), dim=-1)
        present = senses.any(dim=-1).sum(dim=-1, keepdim=True).clamp_min(1)
        words = F.normalize(self.words(), dim=-1)
        return self.output((senses.sum(dim=2) / present) @ words.T / 0.07, mask)


@common.register("linear_svm")
@common.register("one_class_svm")
class SVM(Fixed):
    """``kernel(x, support) dual + offset``: linear, or Gaussian on up to 2,000 normal snippets."""

    Options = common.options(snippets=20_000)  # at most so many are looked at

    def build(self, dim: int, context: common.Context) -> None:
        self.linear = self.settings.detector == "linear_svm"
        rows = 1 if self.linear else min(self.options.snippets, 2_000)
        shapes = {"support": (rows, self.width), "dual": (rows,), "gamma": (), "offset": ()}
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.zeros(shape), requires_grad=False))

    def forward(self, batch: common.Batch) -> common.Traced:
        x, mask = self.inputs(batch)
        x = F.normalize(x, dim=-1)
        gaussian = torch.exp(-self.gamma * torch.cdist(x, self.support).square())
        kernel = x @ self.support.T if self.linear else gaussian
        return self.output(kernel @ self.dual + self.offset, mask)

    def draw(self, bags: common.TrainingSet) -> tuple[Tensor, Tensor]:
        """Unit-length snippets (n, D), and whether their videos are anomalous (n,)."""
        given = (self.inputs(bags.batch(index)) for index in torch.arange(len(bags)).split(256))
        rows = torch.cat([F.normalize(x[mask], dim=-1).cpu() for x, mask in given])
        anomalous = (~common.is_normal(bags.labels)).repeat_interleave(bags.lengths).cpu()
        keep = torch.randperm(len(rows))[: self.options.snippets]
        return rows[keep], anomalous[keep]

    @torch.no_grad()
    def start_epoch(self, epoch: int, bags: common.TrainingSet) -> None:
        if epoch:
            return
        from sklearn import svm  # only training needs it

        rows, anomalous = self.draw(bags)
        if self.linear:
            fitted = svm.LinearSVC(dual="auto", random_state=0).fit(rows, anomalous)
            support, dual, scale = fitted.coef_, [1.0], 1.0
        else:
            rows = rows[~anomalous][: len(self.dual)]
            self.gamma.fill_(1 / (rows.shape[1] * rows.var(correction=0)))  # "scale"
            fitted = svm.OneClassSVM(gamma=float(self.gamma), nu=0.1).fit(rows)
            scale = -fitted.dual_coef_.sum()  # small logits: confidences stay apart
            support, dual = fitted.support_vectors_, fitted.dual_coef_[0] / scale
        self.support[: len(support)] = torch.as_tensor(support)
        self.dual[: len(dual)] = torch.as_tensor(dual)
        self.offset.fill_(float(fitted.intercept_[0]) / scale)


@common.register("late_fusion")
class LateFusion(common.Baseline):
    """AVadCLIP's two students without a teacher, side by side: parameters, losses and gradients are
    apart. A snippet's score is the mean of both or the larger one; its classes' shares go with it;
    without sound it is what is seen that counts."""

    optimizer = torch.optim.AdamW
    paired, needs_text = False, True
    frozen = ("senses.0.textual_prompt.tower.", "senses.1.textual_prompt.tower.")
    Options = common.options(modality=("audio_visual",), rule=("mean", "maximum"))

    def build(self, dim: int, context: common.Context) -> None:
        self.max_snippets = self.settings.model.max_snippets
        roles = ({"role": role, "blocks": 1, "window": 64} for role in ("vision", "audio"))
        senses = (AVadCLIP(self.settings.override(ukd="none", **role), context) for role in roles)
        self.senses = nn.ModuleList(senses)

    def forward(self, batch: common.Batch) -> common.Traced:
        seen, heard = (sense(batch) for sense in self.senses)
        score, other = seen.confidence, heard.confidence
        share = (other > score).float() if self.options.rule == "maximum" else 0.5
        share = share * (seen.mask if batch.audio_mask is None else batch.audio_mask)  # of sound
        classes, others = (one.alignment_logits.softmax(dim=-1) for one in (seen, heard))
        classes = classes.lerp(others, share[..., None])
        logits, classes = torch.logit(score.lerp(other, share), eps=1e-7), classes.clamp_min(1e-12)
        return self.output(logits, seen.mask, classes=classes.log(), seen=seen, heard=heard)

    def loss(self, output: common.Traced, batch: common.Batch) -> dict[str, Tensor]:
        """Each sense's own total; total."""
        pairs = zip(self.senses, output.traces.items(), strict=True)
        parts = {k: sense.loss(out, batch)["total"] for sense, (k, out) in pairs}
        return parts | {"total": sum(parts.values())}
