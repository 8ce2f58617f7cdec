"""Context over time: the windowed Transformer, the two-branch graph convolution, and the audio
branch's temporal convolution network.

Every module takes features (B, T, D) and a mask (B, T), True on the snippets that exist. With a
mask, what stands beyond a video's end can never reach a snippet inside it, neither its value nor
its gradient. Without one (``None``) every row counts, padding included, as in the release.

Shape letters: B videos, T snippets, D feature width, K output width, W snippets a window, H heads.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from avadclip_lite.encoders import quick_gelu


def length_mask(lengths: Tensor, snippets: int) -> Tensor:
    """True on the first ``lengths[b]`` of ``snippets`` places: (B,) -> (B, T) bool."""
    return torch.arange(snippets, device=lengths.device) < lengths[:, None]


def zero_padding(x: Tensor, mask: Tensor | None) -> Tensor:
    """Zeros wherever the mask is False, whatever stood there (NaN too); ``None`` changes nothing.
    x (B, T, D), mask (B, T) or None -> (B, T, D)."""
    return x if mask is None else x.masked_fill(~mask[..., None], 0.0)


class FeedForward(nn.Module):
    """Linear D -> 4D, quick GELU, Linear 4D -> D: CLIP's feed-forward network. (..., D) kept."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(quick_gelu(self.fc1(x)))


class WindowBlock(nn.Module):
    """One pre-norm Transformer block over a batch of windows, each a sequence of its own."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.norm_ffn = nn.LayerNorm(dim)
        self.ffn = FeedForward(dim)
        nn.init.xavier_uniform_(self.qkv.weight)
        nn.init.zeros_(self.qkv.bias)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, keys: Tensor | None = None) -> Tensor:
        """x (windows, W, D) -> the same; ``keys`` (windows, W): True on rows to attend to."""
        x = x + self.attend(self.norm_attention(x), keys)
        return x + self.ffn(self.norm_ffn(x))

    def attend(self, x: Tensor, keys: Tensor | None) -> Tensor:
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each (windows, H, W, D/H)
        # Plain products: a window is a handful of snippets, too small for a fused kernel to pay.
        scores = query @ key.mT / math.sqrt(query.shape[-1])
        if keys is not None:
            scores = scores.masked_fill(~keys[:, None, None, :], -torch.inf)
        mixed = scores.softmax(dim=-1) @ value
        return self.out(mixed.transpose(1, 2).flatten(2))


class WindowedTransformer(nn.Module):
    """Learned positions, then Transformer blocks that attend inside windows of W snippets: T is
    filled up to a multiple of W and cut into T/W short sequences, which run as one batch. Raises
    ``ValueError`` for more snippets than the position table holds."""

    def __init__(
        self, dim: int, *, heads: int = 1, blocks: int = 2, window: int = 4, max_snippets: int = 256
    ) -> None:
        super().__init__()
        self.window = window
        self.positions = nn.Parameter(torch.empty(max_snippets, dim).normal_(std=0.01))
        self.blocks = nn.ModuleList(WindowBlock(dim, heads) for _ in range(blocks))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x (B, T, D), mask (B, T) or None -> (B, T, D); rows outside the mask come back zero."""
        batch, snippets, dim = x.shape
        if snippets > (most := len(self.positions)):
            what = f"{snippets} snippets, but the position table holds {most}"
            raise ValueError(f"{what}; resample the video or cut it into chunks of {most}")
        x = zero_padding(x, mask) + self.positions[:snippets]
        window, keys = min(self.window, snippets), mask
        if fill := -snippets % window:  # rows that complete the last window are never attended to
            keys = x.new_ones(batch, snippets, dtype=torch.bool) if mask is None else mask
            keys = F.pad(keys, (0, fill))
            x = F.pad(x, (0, 0, 0, fill))
        x = x.reshape(-1, window, dim)
        if keys is not None:
            keys = keys.reshape(-1, window)
            # A softmax over nothing is NaN: a window without a snippet attends to its own padding,
            # and the result is dropped below.
            keys = keys | ~keys.any(dim=1, keepdim=True)
        for block in self.blocks:
            x = block(x, keys)
        return zero_padding(x.reshape(batch, -1, dim)[:, :snippets], mask)


def similarity_adjacency(x: Tensor, mask: Tensor, threshold: float = 0.7) -> Tensor:
    """Which snippets look alike: cosine similarities, softmax over each row, x (B, T, D), mask
    (B, T) bool -> (B, T, T), zero outside the mask. Those at or below ``threshold`` become 0
    *before* the softmax, so cut edges keep the weight exp(0) (as in the release)."""
    norm = x.norm(dim=-1, keepdim=True)
    cosine = (x @ x.mT) / (norm * norm.mT + 1e-20)
    cosine = torch.where(cosine > threshold, cosine, 0.0)
    # The smallest number and not -inf, so that rows of padding are finite until they are zeroed.
    cosine = cosine.masked_fill(~mask[:, None, :], torch.finfo(cosine.dtype).min)
    return cosine.softmax(dim=-1) * mask[:, None, :] * mask[:, :, None]


def distance_adjacency(snippets: int, *, device: torch.device | None = None) -> Tensor:
    """How close snippets are in time: exp(-|i - j| / e), e = 2.718..., not normalised. (T, T)."""
    place = torch.arange(snippets, device=device, dtype=torch.get_default_dtype())
    return torch.exp(-(place[:, None] - place[None, :]).abs() / math.e)


class GraphConvolution(nn.Module):
    """One graph layer, ``quick_gelu(A (x W) + r)``: every snippet takes a weighted sum over
    all, plus r: x where the width stays, else a convolution over five snippets."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(in_dim, out_dim))
        nn.init.xavier_uniform_(self.weight)
        self.residual = None if in_dim == out_dim else nn.Conv1d(in_dim, out_dim, 5, padding=2)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        """x (B, T, D), adjacency (B, T, T) or (T, T) -> (B, T, K)."""
        residual = x if self.residual is None else self.residual(x.mT).mT
        return quick_gelu(adjacency @ (x @ self.weight) + residual)


class VideoEncoder(nn.Module):
    """Snippet features in context: windowed Transformer (options ``windows``), then two branches of
    two graph layers each, between snippets that look alike and snippets that are close in time, and
    a linear layer that joins them to ``x_v``. ``padding`` "masked": rows beyond a video's end count
    as absent everywhere, and come back zero. "leaking": only the similarity graph knows where a
    video ends, as in the release."""

    def __init__(
        self, dim: int, *, threshold: float = 0.7, padding: str = "masked", **windows: int
    ) -> None:
        super().__init__()
        self.threshold, self.padding = threshold, padding
        self.transformer = WindowedTransformer(dim, **windows)
        half = dim // 2
        self.similarity = nn.ModuleList([GraphConvolution(dim, half), GraphConvolution(half, half)])
        self.distance = nn.ModuleList([GraphConvolution(dim, half), GraphConvolution(half, half)])
        self.project = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x (B, T, D), mask (B, T) bool -> x_v (B, T, D)."""
        keep = mask if self.padding == "masked" else None
        x = self.transformer(x, keep)
        by_similarity = similarity_adjacency(x, mask, self.threshold)
        by_distance = distance_adjacency(x.shape[1], device=x.device)
        branches = []
        for layers, adjacency in ((self.similarity, by_similarity), (self.distance, by_distance)):
            branch = x
            # Zero rows carry nothing along an edge (a layer's product has no bias), so zeroing the
            # padding after each layer also takes it out of the distance graph.
            for layer in layers:
                branch = zero_padding(layer(branch, adjacency), keep)
            branches.append(branch)
        return zero_padding(self.project(torch.cat(branches, dim=-1)), keep)


class CausalBlock(nn.Module):
    """Two convolutions over the present and one earlier snippet, and a residual. ``ahead``: the
    second one looks at one *later* snippet instead; then it is not causal."""

    def __init__(self, dim: int, dilation: int, dropout: float, *, ahead: bool = False) -> None:
        super().__init__()
        self.dilation, self.ahead = dilation, ahead
        self.conv1 = weight_norm(nn.Conv1d(dim, dim, kernel_size=2, dilation=dilation))
        self.conv2 = weight_norm(nn.Conv1d(dim, dim, kernel_size=2, dilation=dilation))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x (B, D, T), mask (B, T) or None -> (B, D, T); zeros stand around the video. The mask
        matters only with ``ahead``: what looks back never meets what follows the end."""
        keep = mask if self.ahead else None
        hidden = self.dropout(F.relu(self.conv1(F.pad(x, (self.dilation, 0)))))
        hidden = zero_padding(hidden.mT, keep).mT
        around = (0, self.dilation) if self.ahead else (self.dilation, 0)
        hidden = self.dropout(F.relu(self.conv2(F.pad(hidden, around))))
        return zero_padding(F.relu(hidden + x).mT, keep).mT


class TemporalConvNet(nn.Module):
    """The audio branch: causal residual blocks whose reach doubles, ``x_a`` (B, T, D). ``context``
    "causal" (the release): it only looks back, 14 snippets with the dilations given here. "both":
    the second convolution of every block looks ahead; equal weights, equal reach."""

    def __init__(
        self,
        dim: int,
        *,
        dilations: tuple[int, ...] = (1, 2, 4),
        dropout: float = 0.1,
        context: str = "causal",
    ) -> None:
        super().__init__()
        ahead = context == "both"
        self.blocks = nn.ModuleList(CausalBlock(dim, d, dropout, ahead=ahead) for d in dilations)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x (B, T, D), mask (B, T) or None -> (B, T, D)."""
        x = zero_padding(x, mask).mT
        for block in self.blocks:
            x = block(x, mask)
        return zero_padding(x.mT, mask)
