"""Frozen encoders behind one interface: CLIP and Wav2CLIP, and the tiny trio that ships.

    encoders = load_encoders("soundstage")             # or "clip"
    encoders.encode_images(frames)                     # uint8 (n, H, W, 3)   -> (n, D)
    encoders.encode_audio(waves)                       # float (n, samples)   -> (n, D)
    encoders.encode_text(["a riot in a street"])       # n prompts            -> (n, D)

    text, prompts = load_text("soundstage", XD_CLASSES.words)   # what the detector trains against

``clip`` is what the paper uses: CLIP ViT-B/16 with OpenAI's weights for frames and words, and
Wav2CLIP for sound, D = 512, features as the networks give them. ``soundstage`` is a tiny CLIP of
the same make (a small ``open_clip`` model) and a small audio tower distilled from its image
tower, D = 64; its image and audio features are L2-normalised and multiplied by sqrt(D), so that
an entry has root mean square 1, as a detector's first layers expect.

Everything here is frozen: no parameter asks for a gradient and nothing ever leaves eval mode. A
feature never depends on what else is in the call.

Shape letters: n frames, snippets or prompts; P prompts, L token positions, W width of the text
tower, D feature width, H heads.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import urllib.error
import urllib.request
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from avadclip_lite.config import CLIP_DIM, SAMPLE_RATE, soundstage_path

__all__ = [
    "CLASS_TOKENS",
    "END_TOKEN",
    "QUICK",
    "START_TOKEN",
    "AudioTower",
    "Encoders",
    "TextTower",
    "WordPrompts",
    "clip_pixels",
    "load_encoders",
    "load_text",
    "quick_gelu",
    "save_soundstage",
    "soundstage_clip",
    "token_ids",
    "weights_folder",
]

START_TOKEN, END_TOKEN = 49406, 49407  # of CLIP's byte-pair vocabulary

# CLIP's token ids of the class words, so that training needs no tokenizer. A test compares them
# with open_clip's.
CLASS_TOKENS: dict[str, tuple[int, ...]] = {
    "normal": (5967,),
    "fighting": (4652,),
    "shooting": (3992,),
    "riot": (14218,),
    "abuse": (7678,),
    "car accident": (1615, 6608),
    "explosion": (13785,),
}

# CLIP's pixel statistics (the values its authors published; open_clip ships the same).
PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)

CLIP_MODEL = "ViT-B-16-quickgelu"  # OpenAI trained with the quick GELU
CLIP_TEXT_HEADS = 8
CLIP_FILE = "ViT-B-16-openai.safetensors"
CLIP_URL = (
    "https://huggingface.co/timm/vit_base_patch16_clip_224.openai/"
    "resolve/main/open_clip_model.safetensors"
)
CLIP_ARCHIVE = "ViT-B-16.pt"  # OpenAI's own file (TorchScript), read as well where it is present
WAV2CLIP_FILE = "Wav2CLIP.pt"
WAV2CLIP_URL = (
    "https://github.com/descriptinc/lyrebird-wav2clip/releases/download/v0.1.0-alpha/Wav2CLIP.pt"
)
WAV2CLIP_MIN_SAMPLES = 512  # one analysis window; the package fails at 256 samples and fewer

SOUNDSTAGE_FILE = "encoders.safetensors"
SOUNDSTAGE_DIM = 64
# The tiny CLIP, in open_clip's own configuration format. 32 positions hold a caption, and the
# 24 of a class word between ten learned context vectors on each side.
SOUNDSTAGE_CLIP: dict[str, Any] = {
    "embed_dim": SOUNDSTAGE_DIM,
    "quick_gelu": True,
    "vision_cfg": {"layers": (1, 1, 1, 1), "width": 16, "image_size": 64, "head_width": 64},
    "text_cfg": {"context_length": 32, "width": 64, "heads": 4, "layers": 2},
}


# ---- the text tower ------------------------------------------------------------------------------


class WordPrompts(NamedTuple):
    """Token ids of the class words, and of the marks that a prompt starts and ends with."""

    ids: tuple[tuple[int, ...], ...]
    start: int
    end: int


QUICK = 1.702  # the factor of CLIP's quick GELU


def quick_gelu(x: Tensor) -> Tensor:
    """CLIP's cheap GELU, x * sigmoid(1.702 x).

    Written with SiLU(z) = z * sigmoid(z), z = 1.702 x, which is one kernel each way.
    """
    return F.silu(QUICK * x) / QUICK


_ACTIVATIONS = {True: quick_gelu, False: F.gelu}  # by "is it the quick one"


class _Attention(nn.Module):
    """Causal multi-head self-attention with the parameter names of ``nn.MultiheadAttention``."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(P, L, W) -> (P, L, W); position l sees positions 0..l."""
        p, length, width = x.shape
        qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        q, k, v = qkv.view(p, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out_proj(out.transpose(1, 2).reshape(p, length, width))


class _Block(nn.Module):
    """Pre-norm Transformer block with CLIP's names."""

    def __init__(self, width: int, heads: int, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = _Attention(width, heads)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.ModuleDict(
            {"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)}
        )
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp["c_proj"](self.activation(self.mlp["c_fc"](self.ln_2(x))))


class TextTower(nn.Module):
    """CLIP's causal text Transformer in plain torch, always frozen.

    Gradients still flow *through* it to the embeddings it is given: that is how prompts learn.
    A tower may know only part of CLIP's vocabulary (``vocabulary`` holds the ids of its rows).
    """

    def __init__(
        self,
        *,
        width: int,
        heads: int,
        layers: int,
        positions: int,
        rows: int,
        dim: int,
        quick_gelu: bool = True,
        vocabulary: Sequence[int] | Tensor | None = None,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"the text tower's width {width} is not divisible by heads={heads}")
        self.token_embedding = nn.Embedding(rows, width)
        self.positional_embedding = nn.Parameter(torch.empty(positions, width))
        activation = _ACTIVATIONS[quick_gelu]
        blocks = [_Block(width, heads, activation) for _ in range(layers)]
        self.transformer = nn.ModuleDict({"resblocks": nn.ModuleList(blocks)})
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.empty(width, dim))
        if vocabulary is None:
            vocabulary = torch.arange(rows)
        vocabulary = torch.as_tensor(vocabulary, dtype=torch.int64)
        if len(vocabulary) != rows or not bool((vocabulary.diff() > 0).all()):
            raise ValueError(
                f"the vocabulary must list the {rows} token ids of the embedding rows in rising "
                f"order, got {len(vocabulary)} ids"
            )
        self.register_buffer("vocabulary", vocabulary, persistent=False)
        self.requires_grad_(False)
        super().train(False)

    @classmethod
    def from_state_dict(
        cls,
        state: Mapping[str, Tensor],
        *,
        heads: int,
        prefix: str = "",
        quick_gelu: bool = True,
        vocabulary: Sequence[int] | Tensor | None = None,
    ) -> TextTower:
        """A tower from CLIP's key names, each preceded by ``prefix``; other keys are ignored.

        ``heads`` is the one size that the weights do not tell (CLIP ViT-B/16: 8). Raises
        ``ValueError`` naming a key that is missing.
        """
        needed = ("token_embedding.weight", "positional_embedding", "text_projection")
        for key in needed:
            if prefix + key not in state:
                raise ValueError(f"these weights hold no text tower: {prefix + key} is missing")
        rows, width = state[prefix + "token_embedding.weight"].shape
        stem = f"{prefix}transformer.resblocks."
        layers = 1 + max(
            (int(k[len(stem) :].split(".")[0]) for k in state if k.startswith(stem)), default=-1
        )
        tower = cls(
            width=width,
            heads=heads,
            layers=layers,
            positions=state[prefix + "positional_embedding"].shape[0],
            rows=rows,
            dim=state[prefix + "text_projection"].shape[1],
            quick_gelu=quick_gelu,
            vocabulary=vocabulary,
        )
        own = tower.state_dict()
        missing = [key for key in own if prefix + key not in state]
        if missing:
            raise ValueError(f"the text tower's weights lack {prefix + missing[0]}")
        tower.load_state_dict({key: state[prefix + key].float() for key in own})
        return tower

    @property
    def width(self) -> int:
        """W, the width of token embeddings."""
        return self.token_embedding.embedding_dim

    @property
    def positions(self) -> int:
        """The longest sequence the tower has position embeddings for."""
        return self.positional_embedding.shape[0]

    @property
    def dim(self) -> int:
        """D, the width of what comes out."""
        return self.text_projection.shape[1]

    def train(self, mode: bool = True) -> TextTower:
        """Frozen: stays in eval mode whatever is asked."""
        return super().train(False)

    def knows(self, ids: Tensor) -> Tensor:
        """Which CLIP token ids the tower has a row for: bool, the shape of ``ids``."""
        rows = torch.searchsorted(self.vocabulary, ids).clamp_max(len(self.vocabulary) - 1)
        return self.vocabulary[rows] == ids

    def embed_tokens(self, ids: Tensor | Sequence[int]) -> Tensor:
        """CLIP token ids (...) -> embeddings (..., W).

        Raises ``ValueError`` for an id outside the tower's vocabulary.
        """
        ids = torch.as_tensor(ids, dtype=torch.int64, device=self.vocabulary.device).contiguous()
        known = self.knows(ids)
        if not bool(known.all()):
            raise ValueError(
                f"this text tower has {len(self.vocabulary)} tokens and no row for token id "
                f"{int(ids[~known][0])}; use words of its captions, or CLIP's own tower"
            )
        return self.token_embedding(torch.searchsorted(self.vocabulary, ids))

    def forward(self, embeddings: Tensor, end: Tensor) -> Tensor:
        """Token embeddings (P, L, W) and the position of each end mark (P,) -> (P, D).

        Only the L positions given are computed: attention is causal, so nothing behind the end
        mark can change the result. Not normalised.
        """
        length = embeddings.shape[1]
        if length > self.positions:
            raise ValueError(
                f"a prompt of {length} positions is longer than the text tower's {self.positions}"
            )
        x = embeddings + self.positional_embedding[:length]
        for block in self.transformer["resblocks"]:
            x = block(x)
        x = x[torch.arange(len(x), device=x.device), end.to(x.device)]
        return self.ln_final(x) @ self.text_projection


def token_ids(text: str) -> tuple[int, ...]:
    """CLIP's token ids of a text, without start and end mark. The class words need no tokenizer;
    anything else is read with open_clip's."""
    if text in CLASS_TOKENS:
        return CLASS_TOKENS[text]
    from open_clip.tokenizer import SimpleTokenizer

    global _tokenizer
    if _tokenizer is None:
        _tokenizer = SimpleTokenizer()
    return tuple(_tokenizer.encode(text))


_tokenizer: Any = None  # reading the vocabulary takes a good part of a second: once a process


def _check_words(tower: TextTower, texts: Iterable[str]) -> None:
    """Refuse a text with a word outside the tower's vocabulary, by that word."""
    for text in texts:
        if bool(tower.knows(torch.tensor(token_ids(text))).all()):
            continue
        unknown = [
            word
            for word in text.split()
            if not bool(tower.knows(torch.tensor(token_ids(word))).all())
        ]
        raise ValueError(
            f"the tiny text tower has never read {unknown[0] if unknown else text!r} (in {text!r}):"
            f" it knows only the {len(tower.vocabulary)} tokens of its captions; use their words, "
            "or CLIP's text tower"
        )


def load_text(
    which: Literal["soundstage", "clip", "random"],
    words: Sequence[str],
    *,
    dim: int | None = None,
    weights: str | Path = "auto",
) -> tuple[TextTower, WordPrompts]:
    """The frozen text tower and the token ids of the class words. Needs no open_clip as long as
    the words are the seven of XD-Violence.

    ``random`` has CLIP's architecture (12 layers, width 512, 8 heads, 77 positions) with seeded
    random weights and rows for these words only: plumbing without the real file, and it warns
    that it is that. ``dim``: the feature width the caller expects; ``random`` takes any.

    Raises ``FileNotFoundError`` with what to fetch if weights are missing, ``ValueError`` for an
    unknown ``which``, a width that differs, or a word outside the tiny vocabulary.
    """
    prompts = WordPrompts(tuple(token_ids(word) for word in words), START_TOKEN, END_TOKEN)
    if which == "random":
        warnings.warn("the text tower has random weights: class words mean nothing", stacklevel=2)
        tower = _random_text(prompts, dim or CLIP_DIM)
    elif which == "clip":
        path = _clip_file(weights)
        state = _read_tensors(path, lambda key: not key.startswith("visual."))
        tower = TextTower.from_state_dict(state, heads=CLIP_TEXT_HEADS)
    elif which == "soundstage":
        tower = _soundstage_text(_read_soundstage(weights, lambda key: key.startswith("text.")))
        _check_words(tower, words)
    else:
        raise ValueError(f"text tower must be one of soundstage, clip, random, got {which!r}")
    if dim is not None and tower.dim != dim:
        raise ValueError(
            f"the {which} text tower gives {tower.dim} numbers a prompt, but {dim} are expected; "
            "features and text tower must come from the same encoders"
        )
    return tower, prompts


def _random_text(prompts: WordPrompts, dim: int) -> TextTower:
    """CLIP's text architecture, initialised as open_clip does, from a fixed seed."""
    used = sorted({START_TOKEN, END_TOKEN, *(i for ids in prompts.ids for i in ids)})
    width, layers = 512, 12
    tower = TextTower(
        width=width,
        heads=CLIP_TEXT_HEADS,
        layers=layers,
        positions=77,
        rows=len(used),
        dim=dim,
        vocabulary=used,
    )
    std = {
        "token_embedding.weight": 0.02,
        "positional_embedding": 0.01,
        "in_proj_weight": width**-0.5,
        "out_proj.weight": (2 * layers * width) ** -0.5,
        "c_fc.weight": (2 * width) ** -0.5,
        "c_proj.weight": (2 * layers * width) ** -0.5,
        "text_projection": width**-0.5,
    }
    generator = torch.Generator().manual_seed(0)
    for name, parameter in tower.named_parameters():
        scale = next((s for key, s in std.items() if name.endswith(key)), None)
        if scale is not None:
            parameter.data.normal_(0.0, scale, generator=generator)
        elif name.endswith("bias"):
            parameter.data.zero_()
    return tower


# ---- images --------------------------------------------------------------------------------------


def clip_pixels(frames: np.ndarray | Tensor, size: int) -> Tensor:
    """CLIP's own preprocessing: frames uint8 (n, H, W, 3) of any size -> float32 (n, 3, S, S).

    The shorter side is resized to S (bicubic, antialiased), the centre S x S cut out, the pixels
    standardised with CLIP's statistics. Frames that are S x S already are only standardised, so
    other crops can be cut beforehand. Raises ``ValueError`` for another type or shape.
    """
    from PIL import Image

    frames = np.asarray(frames)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
        raise ValueError(
            f"frames must be uint8 of shape (n, height, width, 3), got {frames.dtype} "
            f"{tuple(frames.shape)}"
        )
    height, width = frames.shape[1:3]
    if (height, width) != (size, size):
        scale = min(height, width)
        resized = (size * width // scale, size * height // scale)  # PIL: width first
        left, top = round((resized[0] - size) / 2), round((resized[1] - size) / 2)
        box = (left, top, left + size, top + size)
        frames = np.stack(
            [
                np.asarray(Image.fromarray(f).resize(resized, Image.Resampling.BICUBIC).crop(box))
                for f in frames
            ]
        )
    pixels = torch.from_numpy(np.array(frames)).permute(0, 3, 1, 2).float() / 255
    mean, std = torch.tensor(PIXEL_MEAN), torch.tensor(PIXEL_STD)
    return (pixels - mean[:, None, None]) / std[:, None, None]


# ---- audio ---------------------------------------------------------------------------------------


def _as_waves(waves: np.ndarray | Tensor, minimum: int) -> Tensor:
    """Mono waveforms (n, samples) as float32, padded with zeros behind to ``minimum`` samples."""
    waves = torch.as_tensor(np.asarray(waves))
    if waves.ndim != 2 or not waves.is_floating_point():
        raise ValueError(
            f"waves must be floating-point of shape (n, samples) at {SAMPLE_RATE} Hz, got "
            f"{waves.dtype} {tuple(waves.shape)}"
        )
    return F.pad(waves.float(), (0, max(0, minimum - waves.shape[1])))


class _Wav2ClipTower(nn.Module):
    """Wav2CLIP's audio encoder and projection head, with the spectrogram normalised snippet by
    snippet.

    The package standardises the log spectrogram with the mean and standard deviation of the
    whole batch, so that there a snippet's feature depends on its neighbours in the call. Here
    each snippet uses its own, which is what the package computes when it is given one snippet
    at a time.
    """

    def __init__(self, extractor: nn.Module) -> None:
        super().__init__()
        self.extractor = extractor

    def forward(self, waves: Tensor) -> Tensor:
        """(n, samples) at 16 kHz -> (n, 512)."""
        net = self.extractor.encoder
        x = torch.log(net.spectrogram(waves[:, None]) + 1e-7)  # (n, 1, bins, frames)
        std, mean = torch.std_mean(x, dim=(1, 2, 3), keepdim=True)
        x = (x - mean) / (std + 1e-9)
        x = net.maxpool(net.relu(net.bn1(net.conv1(x))))
        x = net.layer4(net.layer3(net.layer2(net.layer1(x))))
        return self.extractor.transform(net.avgpool(x).flatten(1))


def _wav2clip(path: Path | None) -> nn.Module:
    """The package's own classes, put together as its ``get_model`` does, without its unsafe
    load (and, for ``None``, with random weights, which the package builds without the head)."""
    from wav2clip.model.encoder import MLPLayers, ResNetExtractor

    extractor = ResNetExtractor(scenario="supervise")
    extractor.transform = MLPLayers()
    if path is not None:
        state = _read_tensors(path)
        _fill(extractor.encoder, state, "audio_encoder.", path)
        _fill(extractor.transform, state, "audio_transform.", path)
    return _Wav2ClipTower(extractor)


def mel_filters(bands: int, n_fft: int, low: float, high: float) -> Tensor:
    """Triangular mel filters (n_fft // 2 + 1, bands), HTK scale, edges ``low`` to ``high`` Hz."""
    mel = torch.linspace(
        2595 * math.log10(1 + low / 700), 2595 * math.log10(1 + high / 700), bands + 2
    )
    edges = 700 * (10 ** (mel / 2595) - 1)
    hertz = torch.linspace(0, SAMPLE_RATE / 2, n_fft // 2 + 1)[:, None]
    up = (hertz - edges[:-2]) / (edges[1:-1] - edges[:-2])
    down = (edges[2:] - hertz) / (edges[2:] - edges[1:-1])
    return torch.minimum(up, down).clamp_min(0)


class AudioTower(nn.Module):
    """The tiny audio tower: log-mel spectrogram with *fixed* statistics, a small CNN, D numbers.

    Unlike Wav2CLIP's, the statistics come from the pretraining snippets and are part of the
    weights: loudness survives, and a feature depends on its own samples alone.
    """

    BANDS, N_FFT, HOP = 48, 512, 160

    def __init__(self, dim: int = SOUNDSTAGE_DIM, width: int = 24) -> None:
        super().__init__()
        self.register_buffer("mel_mean", torch.zeros(self.BANDS))
        self.register_buffer("mel_std", torch.ones(self.BANDS))
        filters = mel_filters(self.BANDS, self.N_FFT, 40.0, SAMPLE_RATE / 2)
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("window", torch.hann_window(self.N_FFT), persistent=False)
        sizes = (1, width, 2 * width, 3 * width, 4 * width)
        layers: list[nn.Module] = []
        for inside, outside in zip(sizes[:-1], sizes[1:], strict=True):
            layers += [
                nn.Conv2d(inside, outside, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(outside),
                nn.ReLU(),
            ]
        self.cnn = nn.Sequential(*layers)
        self.head = nn.Linear(2 * sizes[-1], dim)

    def log_mel(self, waves: Tensor) -> Tensor:
        """(n, samples) -> (n, bands, frames), not yet standardised."""
        spectrum = torch.stft(waves, self.N_FFT, self.HOP, window=self.window, return_complex=True)
        power = spectrum.abs().square() / self.window.sum().square()
        return torch.log(self.filters.T @ power + 1e-9)

    def forward(self, waves: Tensor) -> Tensor:
        """(n, samples) at 16 kHz -> (n, D), not normalised."""
        return self.from_log_mel(self.log_mel(waves))

    def from_log_mel(self, mel: Tensor) -> Tensor:
        """(n, bands, frames) -> (n, D). Mean over time says what lasts, maximum what strikes."""
        x = (mel - self.mel_mean[:, None]) / self.mel_std[:, None]
        x = self.cnn(x[:, None]).flatten(2)
        return self.head(torch.cat([x.mean(2), x.amax(2)], dim=1))


# ---- the interface -------------------------------------------------------------------------------


class Encoders:
    """Three frozen towers into one space. Features come back as float32 tensors on the CPU.

    Attributes: ``name`` ("soundstage" or "clip"), ``dim`` (D), ``image_size`` (pixels),
    ``text`` (the ``TextTower``), ``device``.
    """

    def __init__(
        self,
        *,
        name: str,
        image: nn.Module,
        image_size: int,
        text: TextTower,
        audio: nn.Module,
        min_samples: int,
        normalise: bool,
        batch_size: int,
        device: str | torch.device,
    ) -> None:
        self.name, self.image_size, self.dim = name, image_size, text.dim
        self.text, self._image, self._audio = text, image, audio
        self._min_samples, self._normalise = min_samples, normalise
        self._batch_size, self.device = batch_size, torch.device(device)
        for tower in (image, text, audio):
            tower.requires_grad_(False).eval().to(self.device)

    def encode_images(self, frames: np.ndarray | Tensor) -> Tensor:
        """uint8 (n, H, W, 3), any size -> (n, D). See ``clip_pixels``."""
        frames = np.asarray(frames)
        return self._encode(frames, lambda part: self._image(self._pixels(part)))

    def encode_audio(self, waves: np.ndarray | Tensor) -> Tensor:
        """float (n, samples), mono, 16 kHz -> (n, D). Shorter than one analysis window: padded
        with zeros."""
        waves = _as_waves(waves, self._min_samples)
        return self._encode(waves, lambda part: self._audio(part.to(self.device)))

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Prompts -> (n, D), as the tower gives them (not normalised).

        Raises ``ValueError`` for a word outside the tiny vocabulary, or a prompt too long.
        """
        _check_words(self.text, texts)
        rows = [(START_TOKEN, *token_ids(text), END_TOKEN) for text in texts]
        end = torch.tensor([len(row) - 1 for row in rows])
        ids = torch.full((len(rows), int(end.max()) + 1), END_TOKEN)
        for row, out in zip(rows, ids, strict=True):
            out[: len(row)] = torch.tensor(row)
        with torch.no_grad():
            return self.text(self.text.embed_tokens(ids), end).cpu()

    def _pixels(self, frames: np.ndarray) -> Tensor:
        return clip_pixels(frames, self.image_size).to(self.device)

    def _encode(self, inputs: Any, tower: Callable[[Any], Tensor]) -> Tensor:
        parts = []
        with torch.no_grad():
            for start in range(0, len(inputs), self._batch_size):
                parts.append(tower(inputs[start : start + self._batch_size]).float().cpu())
        out = torch.cat(parts) if parts else torch.empty(0, self.dim)
        return F.normalize(out, dim=-1) * math.sqrt(self.dim) if self._normalise else out


def load_encoders(
    which: Literal["soundstage", "clip"],
    *,
    weights: str | Path = "auto",
    device: str | torch.device = "cpu",
) -> Encoders:
    """Frozen image, audio and text encoders of one space.

    ``weights``: ``"auto"`` (soundstage: the shipped file; clip: the two files of
    ``weights_folder()``, downloaded into it if they are not there), ``"random"`` (seeded random
    weights, for shapes and plumbing), or the folder that holds the files.

    Raises ``FileNotFoundError`` saying which file to fetch, from where, and where to put it;
    ``ValueError`` for an unknown ``which`` or a damaged file.
    """
    if which == "clip":
        return _load_clip(weights, device)
    if which == "soundstage":
        return _load_soundstage(weights, device)
    raise ValueError(f"encoders must be one of soundstage, clip, got {which!r}")


def _bare_clip() -> nn.Module:
    """ViT-B/16 as open_clip builds it, without its warning that no weights were loaded: they are
    filled in by our own reader, or are meant to be random."""
    import open_clip

    return open_clip.CLIP(**open_clip.get_model_config(CLIP_MODEL))


def _load_clip(weights: str | Path, device: str | torch.device) -> Encoders:
    if weights == "random":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            clip = _bare_clip()
            audio = _wav2clip(None)
    else:
        clip_path = _clip_file(weights)
        audio_path = _weight_file(weights, WAV2CLIP_FILE, WAV2CLIP_URL, "Wav2CLIP's weights")
        clip = _bare_clip()
        _fill(clip, _read_tensors(clip_path), "", clip_path)
        audio = _wav2clip(audio_path)
    return Encoders(
        name="clip",
        image=clip.visual,
        image_size=224,
        text=TextTower.from_state_dict(clip.state_dict(), heads=CLIP_TEXT_HEADS),
        audio=audio,
        min_samples=WAV2CLIP_MIN_SAMPLES,
        normalise=False,
        batch_size=32,
        device=device,
    )


# ---- the tiny trio -------------------------------------------------------------------------------


def soundstage_clip(rows: int) -> nn.Module:
    """The tiny CLIP as an ``open_clip`` model, for a vocabulary of so many token rows. The rows
    are in rising order of their ids, so that the end mark is the last, as open_clip expects."""
    import open_clip

    text = {**SOUNDSTAGE_CLIP["text_cfg"], "vocab_size": rows}
    return open_clip.CLIP(**{**SOUNDSTAGE_CLIP, "text_cfg": text})


def save_soundstage(
    path: Path, clip: nn.Module, audio: AudioTower, vocabulary: Sequence[int], about: dict
) -> None:
    """Write the trio to one safetensors file: matrices as float16, vectors as float32, the ids
    of the token rows, and ``about`` (plain JSON: how it was made) in the header."""
    state = {}
    for name, value in clip.state_dict().items():
        key = name if name.startswith("visual.") else f"text.{name}"
        if name != "logit_scale":
            state[key] = value
    state |= {f"audio.{name}": value for name, value in audio.state_dict().items()}
    state = {
        k: (v.half() if v.is_floating_point() and v.ndim > 1 else v).contiguous()
        for k, v in state.items()
    }
    state["text.vocabulary"] = torch.tensor(vocabulary, dtype=torch.int32)
    half = path.with_suffix(".part")
    save_file(state, half, metadata={"about": json.dumps(about)})
    half.replace(path)


def _soundstage_text(state: Mapping[str, Tensor]) -> TextTower:
    return TextTower.from_state_dict(
        state,
        heads=SOUNDSTAGE_CLIP["text_cfg"]["heads"],
        prefix="text.",
        quick_gelu=SOUNDSTAGE_CLIP["quick_gelu"],
        vocabulary=state["text.vocabulary"],
    )


def _soundstage_file(weights: str | Path) -> Path:
    return (soundstage_path() if weights == "auto" else Path(weights)) / SOUNDSTAGE_FILE


def _read_soundstage(
    weights: str | Path, wanted: Callable[[str], bool] = lambda key: True
) -> dict[str, Tensor]:
    path = _soundstage_file(weights)
    if not path.is_file():
        raise FileNotFoundError(
            f"the tiny encoders are not at {path}; they ship with the repository, so restore the "
            "file from it, or build it again with: python -m data.make_soundstage.build"
        )
    return _read_tensors(path, wanted)


def _load_soundstage(weights: str | Path, device: str | torch.device) -> Encoders:
    if weights == "random":
        used = {START_TOKEN, END_TOKEN, *(i for ids in CLASS_TOKENS.values() for i in ids)}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            clip, audio = soundstage_clip(len(used)), AudioTower()
        text = TextTower.from_state_dict(
            clip.state_dict(),
            heads=SOUNDSTAGE_CLIP["text_cfg"]["heads"],
            quick_gelu=SOUNDSTAGE_CLIP["quick_gelu"],
            vocabulary=sorted(used),
        )
    else:
        state = _read_soundstage(weights)
        clip, audio = soundstage_clip(len(state["text.vocabulary"])), AudioTower()
        _fill(clip.visual, state, "visual.", _soundstage_file(weights))
        _fill(audio, state, "audio.", _soundstage_file(weights))
        text = _soundstage_text(state)
    return Encoders(
        name="soundstage",
        image=clip.visual,
        image_size=SOUNDSTAGE_CLIP["vision_cfg"]["image_size"],
        text=text,
        audio=audio,
        min_samples=AudioTower.N_FFT,
        normalise=True,
        batch_size=128,
        device=device,
    )


# ---- weight files --------------------------------------------------------------------------------


def weights_folder() -> Path:
    """Where CLIP's and Wav2CLIP's files are kept: ``AVADCLIP_WEIGHTS``, or
    ``~/.cache/avadclip_lite``."""
    return Path(os.environ.get("AVADCLIP_WEIGHTS") or Path.home() / ".cache" / "avadclip_lite")


def _clip_file(weights: str | Path) -> Path:
    folder = weights_folder() if weights == "auto" else Path(weights)
    if (folder / CLIP_ARCHIVE).is_file() and not (folder / CLIP_FILE).is_file():
        return folder / CLIP_ARCHIVE
    return _weight_file(weights, CLIP_FILE, CLIP_URL, "CLIP's weights (ViT-B/16, OpenAI)")


def _weight_file(weights: str | Path, name: str, url: str, what: str) -> Path:
    """The file in its folder; with ``auto`` it is downloaded if it is not there."""
    folder = weights_folder() if weights == "auto" else Path(weights)
    path = folder / name
    if path.is_file():
        return path
    why = ""
    if weights == "auto":
        try:
            _download(url, path)
            return path
        except OSError as error:
            why = f" and could not be downloaded ({getattr(error, 'reason', error)})"
    raise FileNotFoundError(
        f"{what} are not at {path}{why}; fetch {url} and save it as {path}, or set "
        "AVADCLIP_WEIGHTS to the folder that holds it"
    )


def _download(url: str, path: Path) -> None:
    """Fetch a file, atomically: a file of that name is always a whole one."""
    from tqdm import tqdm

    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        with urllib.request.urlopen(url, timeout=30) as source, part.open("wb") as target:
            size = int(source.headers.get("Content-Length") or 0)
            with tqdm.wrapattr(source, "read", total=size, desc=path.name) as reader:
                shutil.copyfileobj(reader, target, 1 << 20)
        if size and part.stat().st_size != size:
            raise urllib.error.URLError(f"only {part.stat().st_size} of {size} bytes arrived")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _read_tensors(path: Path, wanted: Callable[[str], bool] = lambda key: True) -> dict:
    """Named tensors of a weight file: safetensors, a TorchScript archive (OpenAI's CLIP), or a
    plain state dict; never an arbitrary pickle. ``ValueError`` naming the file if damaged."""
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                return {key: file.get_tensor(key) for key in file.keys() if wanted(key)}
        if _is_torchscript(path):
            state = torch.jit.load(path, map_location="cpu").state_dict()
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        return {key: value for key, value in state.items() if wanted(key)}
    except (SafetensorError, UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"{path} is not a readable weight file ({str(error).splitlines()[0]}); delete it and "
            "fetch it again"
        ) from None


def _fill(part: nn.Module, state: Mapping[str, Tensor], prefix: str, path: Path) -> None:
    """Load a part's weights from the keys with its prefix; keys that it does not have are left
    alone (OpenAI's archive carries its sizes along), one that is missing or of another shape is
    a ``ValueError`` naming the file."""
    own = part.state_dict()
    for key, value in own.items():
        found = state.get(prefix + key)
        if found is None or found.shape != value.shape:
            what = "lacks" if found is None else f"has another shape ({tuple(found.shape)}) of"
            raise ValueError(f"{path} {what} {prefix + key}: it holds another model's weights")
    part.load_state_dict({key: state[prefix + key].to(own[key].dtype) for key in own})


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("constants.pkl") for name in archive.namelist())
