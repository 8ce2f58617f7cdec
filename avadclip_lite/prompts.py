"""Class embeddings: learned words around each class name, then the video's own imprint on them.

The *textual prompt* runs the class words, wrapped in learned context vectors, through the frozen
text tower: one embedding per class, ``x_c`` (C, D), the same for every video. The *audio-visual
prompt* bends these towards what was seen and heard in one video: ``x_cp`` (B, C, D).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from avadclip_lite.encoders import TextTower, WordPrompts
from avadclip_lite.temporal import FeedForward


class TextualPrompt(nn.Module):
    """Learned context vectors around the class word, through the frozen text tower. Layout of a
    prompt: start, ``before`` context vectors, the word's tokens, ``after`` context vectors, end.
    ``context`` (positions, W) holds one vector per *absolute position* and all classes share it, as
    in the release. The tower is causal, so nothing after the end token is computed. Raises
    ``ValueError`` if a prompt is longer than the tower's position table."""

    def __init__(
        self, tower: TextTower, prompts: WordPrompts, before: int = 10, after: int = 10
    ) -> None:
        super().__init__()
        self.tower, self.prompts = tower, prompts
        (words, start, end), positions = prompts, tower.positions
        left, right = before * [-1], after * [-1]  # places of context vectors
        rows = [torch.tensor([start, *left, *word, *right, end]) for word in words]
        ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=end)
        if (used := ids.shape[1]) > positions:
            what = f"a prompt of {used} tokens does not fit the text tower's {positions} positions"
            raise ValueError(f"{what}; use fewer context vectors than {before} + {after}")
        learned, ends = ids < 0, torch.tensor([len(row) - 1 for row in rows])
        # Looked up once: the tower is frozen, and it checks ids on the host.
        tokens = tower.embed_tokens(ids.masked_fill(learned, end))
        self.register_buffer("tokens", tokens, persistent=False)  # (C, L, W)
        self.register_buffer("learned", learned, persistent=False)
        self.register_buffer("ends", ends, persistent=False)
        context = torch.empty(positions, tower.width).normal_(std=0.01) if before + after else None
        self.context = None if context is None else nn.Parameter(context)
        self._cast: dict[str, Tensor] = {}  # the tower's weights for autocast

        def forget(module: TextualPrompt, state: dict[str, Tensor], prefix: str, *_) -> None:
            if any(name.startswith(f"{prefix}tower.") for name in state):  # else graphs read them
                module._cast.clear()

        self.register_load_state_dict_pre_hook(forget)

    def forward(self) -> Tensor:
        """Class embeddings x_c (C, D), not normalised."""
        given, device = (self.embed(), self.ends), self.tokens.device
        if not torch.is_autocast_enabled(device.type):
            return self.tower(*given)
        if not self._cast or self._cast["text_projection"].device != device:
            with torch.inference_mode(False):  # training may go on with them
                self._cast = self.tower.cast(torch.get_autocast_dtype(device.type))
        return functional_call(self.tower, self._cast, given)

    def embed(self) -> Tensor:
        """What enters the tower: token embeddings with the context put in, (C, L, W)."""
        if self.context is None:
            return self.tokens
        context = self.context[: self.tokens.shape[1]]
        return torch.where(self.learned[..., None], context, self.tokens)


def global_vector(features: Tensor, weights: Tensor) -> Tensor:
    """One unit vector per video, ``x_p = Norm(a^T x_av)`` (equation 4). features (B, T, D),
    weights (B, T) -> (B, D). Rows of zeros have no part in it."""
    return F.normalize((weights[:, None, :] @ features).squeeze(1), dim=-1)


class AudioVisualPrompt(nn.Module):
    """Class embeddings that know the video (equations 5 to 7). ``weights`` "softmax": each class
    takes a share of the video's global vector, a softmax over classes of the cosines. "uniform":
    the whole vector; this is what the release computes, where the softmax runs over equal columns.
    ``skip`` "class" adds ``x_c`` back after the network (the paper), "sum" ``x_c + x_mp`` (the
    release)."""

    def __init__(
        self, dim: int, *, weights: str = "softmax", skip: str = "class", temperature: float = 1.0
    ) -> None:
        super().__init__()
        self.weights, self.skip, self.temperature = weights, skip, temperature
        self.ffn = FeedForward(dim)

    def similarity(self, x_c: Tensor, x_p: Tensor) -> Tensor:
        """s_p (B, C): how much of the global vector each class takes (equation 5)."""
        if self.weights == "uniform":
            return x_p.new_ones(len(x_p), len(x_c))
        cosine = F.normalize(x_p, dim=-1) @ F.normalize(x_c, dim=-1).mT
        return (cosine / self.temperature).softmax(dim=-1)

    def forward(self, x_c: Tensor, x_p: Tensor) -> Tensor:
        """x_c (C, D), x_p (B, D) -> x_cp (B, C, D)."""
        x_mp = self.similarity(x_c, x_p)[..., None] * x_p[:, None, :]  # (B, C, D), equation 6
        u = x_mp + x_c
        return self.ffn(u) + (x_c if self.skip == "class" else u)  # equation 7


def alignment_map(features: Tensor, embeddings: Tensor, temperature: float = 0.07) -> Tensor:
    """m = cos(x_av, x_cp) / temperature: features (B, T, D), embeddings (B, C, D) -> (B, T, C), in
    float32: divided by 0.07, the rounding of a bfloat16 cosine is a twentieth of a logit."""
    with torch.autocast(features.device.type, enabled=False):
        unit = F.normalize(features.float(), dim=-1)
        return unit @ F.normalize(embeddings.float(), dim=-1).mT / temperature
