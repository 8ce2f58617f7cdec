"""Putting video and audio together: the paper's adaptive fusion, and the three it compares with.

All take ``x_v`` and ``x_a`` (B, T, D), the mask (B, T) of snippets that exist (``None``: all rows)
and ``audio_mask`` (B, T), True where a snippet has sound (``None``: everywhere, as released, where
missing sound is a row of zeros). They return ``x_av`` (B, T, D), zero outside the mask, and ``x_v``
itself where there is no sound (but for concatenation).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avadclip_lite.config import ModelConfig
from avadclip_lite.temporal import FeedForward, zero_padding

Mask = Tensor | None  # (B, T) bool


class AdaptiveFusion(nn.Module):
    """Vision first, sound as a gated residual (equations 1 to 3): ``x_av = x_v + w * r``, both per
    snippet and channel."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(2 * dim, dim)
        self.residual_in = nn.Linear(2 * dim, dim)
        self.residual_out = nn.Linear(dim, dim)

    def gate(self, x_v: Tensor, x_a: Tensor) -> Tensor:
        """How much sound is let in, w (B, T, D) = sigmoid(Linear([x_v; x_a])) (equation 1)."""
        return torch.sigmoid(self.gate_proj(torch.cat([x_v, x_a], dim=-1)))

    def residual(self, x_v: Tensor, x_a: Tensor) -> Tensor:
        """What sound would add, r (B, T, D) = Linear(GELU(Linear([x_v; x_a]))) (equation 2)."""
        return self.residual_out(F.gelu(self.residual_in(torch.cat([x_v, x_a], dim=-1))))

    def forward(self, x_v: Tensor, x_a: Tensor, mask: Mask = None, audio_mask: Mask = None):
        added = self.gate(x_v, x_a) * self.residual(x_v, x_a)
        return zero_padding(x_v + zero_padding(added, audio_mask), mask)


class ConcatFusion(nn.Module):
    """Concatenation and one linear layer, 2D -> D. Missing sound enters as zeros."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(2 * dim, dim)

    def forward(self, x_v: Tensor, x_a: Tensor, mask: Mask = None, audio_mask: Mask = None):
        joint = torch.cat([x_v, zero_padding(x_a, audio_mask)], dim=-1)
        return zero_padding(self.project(joint), mask)


class AddFusion(nn.Module):
    """Element-wise addition, ``x_v + x_a``: nothing to learn."""

    def forward(self, x_v: Tensor, x_a: Tensor, mask: Mask = None, audio_mask: Mask = None):
        return zero_padding(x_v + zero_padding(x_a, audio_mask), mask)


class CrossAttentionFusion(nn.Module):
    """Video snippets ask, audio snippets of the same video answer: pre-norm multi-head attention
    with a residual onto the video, then one feed-forward network."""

    def __init__(self, dim: int, heads: int = 8) -> None:
        super().__init__()
        self.heads = heads
        self.norm_video = nn.LayerNorm(dim)
        self.norm_audio = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(dim, dim)
        self.norm_ffn = nn.LayerNorm(dim)
        self.ffn = FeedForward(dim)

    def forward(self, x_v: Tensor, x_a: Tensor, mask: Mask = None, audio_mask: Mask = None):
        keys = x_v.new_ones(x_v.shape[:2], dtype=torch.bool)
        for only in (mask, audio_mask):
            keys = keys if only is None else keys & only
        has_sound = keys.any(dim=1, keepdim=True)  # (B, 1)
        allowed = (keys | ~has_sound)[:, None, None, :]  # a softmax over nothing is NaN
        query = self.query(self.norm_video(x_v)).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        both = self.key_value(self.norm_audio(x_a)).unflatten(-1, (2, self.heads, -1))
        key, value = both.permute(2, 0, 3, 1, 4)  # each (B, H, T, D/H)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=allowed)
        x = x_v + self.out(attended.transpose(1, 2).flatten(2))
        x = x + self.ffn(self.norm_ffn(x))
        return zero_padding(torch.where(has_sound[..., None], x, x_v), mask)


def build_fusion(settings: ModelConfig) -> nn.Module:
    """The fusion that ``settings.fusion`` names."""
    if settings.fusion == "cross_attention":
        return CrossAttentionFusion(settings.dim, settings.fusion_heads)
    kinds = {"adaptive": AdaptiveFusion, "concat": ConcatFusion}
    return AddFusion() if settings.fusion == "add" else kinds[settings.fusion](settings.dim)
