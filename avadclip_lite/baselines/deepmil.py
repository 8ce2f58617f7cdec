"""DeepMIL: learning to rank a pair of bags (Sultani, Chen and Shah, CVPR 2018).

The idea: earlier detectors learned what is normal and called the rest anomalous; DeepMIL learns
from both, with one label for each video. The most suspicious snippet of an anomalous video has to
outrank the most suspicious snippet of a normal one. Two priors place the anomaly in time: it is
rare (sparsity) and its score changes slowly (smoothness).

As released, *every* anomalous bag is ranked against every normal one; ``form="intended"``: pairs in
order, means over bags, ten times the weight penalty, all as in the paper. ``own_bags``: unit-length
means within the release's bounds, which drop the last of more than 17 snippets. Left out: scores of
32 segments (at test we score every snippet).
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avadclip_lite.baselines import common


def ranking_mlp(dim: int, dropout: float, outputs: int = 1) -> nn.Sequential:
    """Three layers over single snippets, (..., D) -> logits (..., outputs); no context in time."""
    layers = nn.Linear(dim, 512), nn.Linear(512, 32), nn.Linear(32, outputs)
    for layer in layers:
        nn.init.xavier_normal_(layer.weight)
        nn.init.zeros_(layer.bias)
    drop = nn.Dropout(dropout)
    return nn.Sequential(layers[0], nn.ReLU(), drop, layers[1], drop, layers[2])


@common.register("deepmil")
class DeepMIL(common.Baseline):
    """See the module. Training sees bags of 32 means; the output is then (B, 32)."""

    optimizer = partial(torch.optim.Adagrad, eps=1e-8)
    Options = common.options(form=common.FORMS, own_bags=False, sparsity=8e-5, smoothness=8e-5)

    def build(self, dim: int, context: common.Context) -> None:
        self.mlp = ranking_mlp(self.width, dropout=0.6)

    def forward(self, batch: common.Batch) -> common.Traced:
        x, mask = self.inputs(batch, bins=32, last=not self.options.own_bags)
        x = F.normalize(x, dim=-1) if self.options.own_bags else x
        return self.output(self.mlp(x).squeeze(-1), mask)

    def loss(self, output: common.Traced, batch: common.Batch) -> dict[str, Tensor]:
        """Parts: hinge, sparsity, smoothness, mil (their sum), weight_l2 (not of biases), total."""
        normal, scores = common.is_normal(batch.labels), output.confidence
        abnormal, released = scores[~normal], self.released
        bags = 1 if released else len(abnormal)
        parts = {
            "hinge": ranking_hinge(abnormal, scores[normal], all_pairs=released),
            "sparsity": self.options.sparsity * abnormal.sum() / bags,
            "smoothness": self.options.smoothness * abnormal.diff(dim=1).square().sum() / bags,
        }
        mil, weights = sum(parts.values()), (w for w in self.mlp.parameters() if w.ndim == 2)
        penalty = (1e-3 if released else 1e-2) * sum(w.square().sum() for w in weights)
        return parts | {"mil": mil, "weight_l2": penalty, "total": mil + penalty}


def ranking_hinge(abnormal: Tensor, normal: Tensor, *, all_pairs: bool) -> Tensor:
    """Hinge between the maxima of score rows (B, J): the sum over all B x B pairs divided by B
    (released; an AUC surrogate), or the mean over pairs in order (the paper's equation)."""
    high, low = abnormal.amax(dim=1), normal.amax(dim=1)
    if all_pairs:
        return F.relu(1 - high[:, None] + low).sum() / len(high)
    return F.relu(1 - high + low).mean()
