"""DeepMIL: learning to rank a pair of bags (Sultani, Chen and Shah, CVPR 2018).

The idea: earlier detectors learned what is normal and called the rest anomalous; DeepMIL learns
from both kinds with one label a video. The most suspicious snippet of an anomalous video has to
outrank the most suspicious snippet of a normal one. Two priors place the anomaly in time: it is
rare (sparsity) and its score changes slowly (smoothness).

"official" ranks *every* anomalous bag against every normal one; "port" is what XD-Violence users
run: one pair at a time, a second ReLU, dropout on the scores, Adam. Left out: scoring 32 segments.
"""

from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avadclip_lite.baselines import common


def ranking_mlp(dim: int, dropout: float, *, port: bool = False) -> nn.Sequential:
    """Three layers over single snippets, (..., D) -> logits (..., 1); no context in time."""
    start = nn.init.xavier_uniform_ if port else nn.init.xavier_normal_
    layers = nn.Linear(dim, 512), nn.Linear(512, 32), nn.Linear(32, 1)
    for layer in layers:
        start(layer.weight)
        nn.init.zeros_(layer.bias)
    second, drop = nn.ReLU() if port else nn.Identity(), nn.Dropout(dropout)
    return nn.Sequential(layers[0], nn.ReLU(), drop, layers[1], second, drop, layers[2])


@common.register("deepmil")
class DeepMIL(common.Baseline):
    """See the module. Training sees bags of ``bins`` means; the output is then (B, J)."""

    class Options(common.Options):
        variant: Literal["official", "port"] = "official"
        bins: int = 32
        matlab: bool = False  # the release's own bags: other bounds, and rows of unit length
        dropout: float = 0.6
        sparsity: float = 8e-5
        smoothness: float = 8e-5
        weight_penalty: float = 1e-3  # of squared weights, not biases; official only

    def build(self, dim: int, context: common.Context) -> None:
        self.port = self.options.variant == "port"
        self.mlp = ranking_mlp(self.width, self.options.dropout, port=self.port)
        self.drop = nn.Dropout(self.options.dropout)  # of the port's scores
        if not self.port:
            self.optimizer = partial(torch.optim.Adagrad, eps=1e-8)

    def forward(self, batch: common.Batch) -> common.Traced:
        x, mask = self.inputs(batch, bins=0 if self.options.matlab else self.options.bins)
        if self.training and self.options.matlab:
            x, mask = self.segments(x, batch.lengths), mask.new_ones(len(x), self.options.bins)
        logits = self.mlp(x).squeeze(-1)
        scores = self.drop(logits.sigmoid()) if self.port else logits.sigmoid()
        return self.output(logits, mask, scores=scores)

    def segments(self, x: Tensor, lengths: Tensor) -> Tensor:
        """The release's bags: means of clips (B, T, D) -> (B, J, D), then unit length."""
        bins = common.shared_bins(lengths, self.options.bins, x.shape[1], matlab=True)
        return F.normalize(bins.to(x.dtype) @ x, dim=-1)

    def loss(self, output: common.Traced, batch: common.Batch) -> dict[str, Tensor]:
        """Parts: hinge, sparsity, smoothness, mil (their sum), weight_l2 (official), total."""
        normal, scores = common.is_normal(batch.labels), output.traces["scores"]
        abnormal, count = scores[~normal], (~normal).sum() if self.port else 1
        hinge = ranking_hinge(abnormal, scores[normal], all_pairs=not self.port)
        sparsity = self.options.sparsity * abnormal.sum() / count
        smoothness = self.options.smoothness * abnormal.diff(dim=1).square().sum() / count
        mil = hinge + sparsity + smoothness
        parts = {"hinge": hinge, "sparsity": sparsity, "smoothness": smoothness, "mil": mil}
        if self.port:
            return parts | {"total": mil}
        squares = (weight.square().sum() for weight in self.mlp.parameters() if weight.ndim == 2)
        penalty = self.options.weight_penalty * sum(squares)
        return parts | {"weight_l2": penalty, "total": mil + penalty}


def ranking_hinge(abnormal: Tensor, normal: Tensor, *, all_pairs: bool) -> Tensor:
    """Hinge between the maxima of score rows (B, J): over all B x B pairs, summed over B (official;
    an AUC surrogate), or the mean over pairs in order (the port, the paper's equation)."""
    high, low = abnormal.amax(dim=1), normal.amax(dim=1)
    if all_pairs:
        return F.relu(1 - high[:, None] + low).sum() / len(high)
    return F.relu(1 - high + low).mean()
