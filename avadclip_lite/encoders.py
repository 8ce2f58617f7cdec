"""Frozen encoders behind one interface: CLIP and Wav2CLIP, and the tiny trio that ships.

    encoders = load_encoders("soundstage")             # or "clip"
    encoders.encode_images(frames)                     # uint8 (n, H, W, 3)   -> (n, D)
    encoders.encode_audio(waves)                       # float (n, samples)   -> (n, D)
    encoders.encode_text(["a riot in a street"])       # n prompts            -> (n, D)

    text, prompts = load_text("soundstage", XD_CLASSES.words)   # what the detector trains against

``clip`` is the paper's: CLIP ViT-B/16 (OpenAI) and Wav2CLIP, D = 512, features as the networks give
them. ``soundstage`` is a tiny ``open_clip`` model and an audio tower distilled from its image
tower, D = 64; its features are scaled to root mean square 1, as a detector's first layers expect.
Everything is frozen and in eval mode; a feature never depends on what else is in the call.

Shape letters: n inputs, P prompts, L token positions, W width of the text tower, D feature width.
"""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, pairwise
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from avadclip_lite.config import CLIP_DIM, SAMPLE_RATE, arithmetic, soundstage_path

START_TOKEN, END_TOKEN = 49406, 49407  # of CLIP's byte-pair vocabulary

# CLIP's token ids of the class words (a test asks open_clip), so that training needs no tokenizer.
CLASS_TOKENS: dict[str, tuple[int, ...]] = {
    "normal": (5967,),
    "fighting": (4652,),
    "shooting": (3992,),
    "riot": (14218,),
    "abuse": (7678,),
    "car accident": (1615, 6608),
    "explosion": (13785,),
}

CLIP_MODEL = "ViT-B-16-quickgelu"  # OpenAI trained with the quick GELU
CLIP_TEXT = {"width": 512, "heads": 8, "layers": 12, "positions": 77}
CLIP_FILE, WAV2CLIP_FILE = "ViT-B-16-openai.safetensors", "Wav2CLIP.pt"
CLIP_URL = (
    "https://huggingface.co/timm/vit_base_patch16_clip_224.openai/"
    "resolve/main/open_clip_model.safetensors"
)
WAV2CLIP_URL = (
    "https://github.com/descriptinc/lyrebird-wav2clip/releases/download/v0.1.0-alpha/Wav2CLIP.pt"
)

SOUNDSTAGE_FILE, SOUNDSTAGE_DIM = "encoders.safetensors", 64
MIN_SAMPLES = 512  # one analysis window of both audio towers; Wav2CLIP fails at 256 and fewer
# Of the text towers: the size that the weights do not tell, and what precedes their names.
_TEXT: dict[str, dict[str, Any]] = {
    "clip": {"heads": CLIP_TEXT["heads"], "prefix": ""},
    "soundstage": {"heads": 4, "prefix": "text."},
}


# ---- the text tower ------------------------------------------------------------------------------


class WordPrompts(NamedTuple):
    """Token ids of the class words, and of the marks that a prompt starts and ends with."""

    ids: tuple[tuple[int, ...], ...]
    start: int
    end: int


def quick_gelu(x: Tensor) -> Tensor:
    """CLIP's cheap GELU, x * sigmoid(1.702 x): a SiLU, which is one operation."""
    return F.silu(1.702 * x) / 1.702


class _Block(nn.Module):
    """Pre-norm Transformer block over (P, L, W), causal, with CLIP's names of weights."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        # Only holds the weights: its own forward takes three times the operations.
        self.attn = nn.MultiheadAttention(width, heads)
        wide = 4 * width
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, wide), "c_proj": nn.Linear(wide, width)})

    def forward(self, x: Tensor) -> Tensor:
        qkv = F.linear(self.ln_1(x), self.attn.in_proj_weight, self.attn.in_proj_bias)
        query, key, value = qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.attn.out_proj(attended.transpose(1, 2).flatten(2))
        return x + self.mlp["c_proj"](quick_gelu(self.mlp["c_fc"](self.ln_2(x))))


class TextTower(nn.Module):
    """CLIP's causal text Transformer, always frozen; gradients flow *through* it to the embeddings
    it is given. W is ``width``, D ``dim``; ``positions`` the longest prompt; ``vocabulary`` holds
    the token ids of its rows, all of CLIP's or a part, in rising order."""

    def __init__(
        self, *, vocabulary: Any, width: int, heads: int, layers: int, positions: int, dim: int
    ) -> None:
        super().__init__()
        self.width, self.positions, self.dim = width, positions, dim
        self.name: str | None = None  # what ``load_text`` knows it by
        known = torch.as_tensor(vocabulary, device="cpu").long()
        if not bool((known.diff() > 0).all()):
            raise ValueError("the vocabulary must list the token ids of its rows in rising order")
        self.register_buffer("vocabulary", known, persistent=False)
        self.known = frozenset(known.tolist())  # the same on the host
        self.token_embedding = nn.Embedding(len(known), width)
        self.positional_embedding = nn.Parameter(torch.empty(positions, width).normal_(std=0.01))
        blocks = nn.ModuleList(_Block(width, heads) for _ in range(layers))
        self.transformer = nn.ModuleDict({"resblocks": blocks})
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.empty(width, dim).normal_(std=width**-0.5))
        self.requires_grad_(False)
        super().train(False)

    @classmethod
    def from_state_dict(
        cls, state: Mapping[str, Tensor], *, heads: int, prefix: str = ""
    ) -> TextTower:
        """A tower from CLIP's key names, each preceded by ``prefix``, and the token ids of its
        rows if ``vocabulary`` is among them. ``heads`` is the one size that the weights do not
        tell. Raises ``ValueError`` naming a key that is missing."""
        own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        try:
            tower = cls(
                width=own["token_embedding.weight"].shape[1],
                heads=heads,
                layers=len({k.split(".")[2] for k in own if k.startswith("transformer.resblocks")}),
                positions=len(own["positional_embedding"]),
                dim=own["text_projection"].shape[1],
                vocabulary=own.get("vocabulary", range(len(own["token_embedding.weight"]))),
            )
            tower.load_state_dict({key: own[key].float() for key in tower.state_dict()})
        except (KeyError, RuntimeError) as error:  # one is missing, or of another shape
            told = str(error).splitlines()[-1].strip()
            raise ValueError(f"these weights hold no text tower: {told} under {prefix!r}") from None
        return tower

    def train(self, mode: bool = True) -> TextTower:
        """Frozen: stays in eval mode whatever is asked."""
        return super().train(False)

    def cast(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """The weights of its products in that type: what autocast makes of them at every call, as
        only weights that train are cast once."""
        products = {k: v for k, v in self.state_dict().items() if not re.search("embedding|ln_", k)}
        return {name: weight.to(dtype) for name, weight in products.items()}

    def embed_tokens(self, ids: Tensor | Sequence[int]) -> Tensor:
        """CLIP token ids (...) -> embeddings (..., W); ``ValueError`` for an unknown id."""
        ids = torch.as_tensor(ids, dtype=torch.int64, device=self.vocabulary.device).contiguous()
        known = torch.isin(ids, self.vocabulary)
        if not bool(known.all()):
            lack = f"this text tower has no row for token id {int(ids[~known][0])}"
            raise ValueError(f"{lack}; use words of its captions, or CLIP's tower")
        return self.token_embedding(torch.searchsorted(self.vocabulary, ids))

    def forward(self, embeddings: Tensor, end: Tensor) -> Tensor:
        """Token embeddings (P, L, W) and the position of each end mark (P,) -> (P, D), not
        normalised. L may be short: attention is causal, nothing behind an end mark counts."""
        length, most = embeddings.shape[1], self.positions
        if length > most:
            raise ValueError(f"a prompt of {length} positions is longer than the tower's {most}")
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
    from open_clip.tokenizer import _tokenizer  # reads its vocabulary once

    return tuple(_tokenizer.encode(text))


def _check_words(tower: TextTower, texts: Sequence[str]) -> None:
    """Refuse a text with a word outside the tower's vocabulary, by that word."""
    for text in (text for text in texts if not tower.known.issuperset(token_ids(text))):
        word = next((w for w in text.split() if not tower.known.issuperset(token_ids(w))), text)
        what = f"the tiny text tower has never read {word!r} (in {text!r})"
        raise ValueError(f"{what}; use words of its captions, or CLIP's text tower")


@torch.random.fork_rng(devices=[])  # building a module draws weights, loaded or not
def load_text(
    which: Literal["soundstage", "clip", "random"],
    words: Sequence[str],
    *,
    dim: int | None = None,
    weights: str | Path = "auto",
) -> tuple[TextTower, WordPrompts]:
    """The frozen text tower and the token ids of the class words. ``random``: CLIP's architecture
    with seeded random weights and rows for these words only; it warns that it is that. ``dim``: the
    width of ``random``. ``weights`` (or the file itself) and errors as in ``load_encoders``; also
    ``ValueError`` for an unknown word."""
    prompts = WordPrompts(tuple(map(token_ids, words)), START_TOKEN, END_TOKEN)
    if which == "random":
        warnings.warn("the text tower has random weights: class words mean nothing", stacklevel=3)
        used = sorted({START_TOKEN, END_TOKEN, *chain(*prompts.ids)})
        torch.manual_seed(0)
        tower = TextTower(vocabulary=used, dim=dim or CLIP_DIM, **CLIP_TEXT)
    elif which in _TEXT:
        state = _read_tensors(_weight_file(which, weights))
        tower = TextTower.from_state_dict(state, **_TEXT[which])
        _check_words(tower, words)
    else:
        raise ValueError(f"text tower must be one of soundstage, clip, random, got {which!r}")
    tower.name = which
    return tower, prompts


# ---- images and sounds ---------------------------------------------------------------------------


def clip_pixels(frames: np.ndarray | Tensor, size: int) -> Tensor:
    """CLIP's own preprocessing: frames uint8 (n, H, W, 3) of any size -> float32 (n, 3, S, S): the
    shorter side resized to S (bicubic), the centre cut out, the pixels standardised. Raises
    ``ValueError`` for another type or shape."""
    from open_clip import image_transform
    from PIL import Image

    frames = np.asarray(frames)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
        got = f"{frames.dtype} {tuple(frames.shape)}"
        raise ValueError(f"frames must be uint8 of shape (n, height, width, 3), got {got}")
    transform = image_transform(size, is_train=False)
    return torch.stack([transform(Image.fromarray(frame)) for frame in frames])


class _Wav2ClipTower(nn.Module):
    """Wav2CLIP's audio encoder and projection head. The package normalises spectrograms by the
    statistics of the whole batch; here each snippet is normalised by its own."""

    def __init__(self) -> None:
        from wav2clip.model.encoder import MLPLayers, ResNetExtractor

        super().__init__()
        self.extractor = ResNetExtractor(scenario="supervise")
        self.extractor.transform = MLPLayers()

    def forward(self, waves: Tensor) -> Tensor:
        """(n, samples) at 16 kHz -> (n, 512)."""
        net = self.extractor.encoder
        x = torch.log(net.spectrogram(waves[:, None]) + 1e-7)  # (n, 1, bins, frames)
        std, mean = torch.std_mean(x, dim=(1, 2, 3), keepdim=True)
        x = net.maxpool(net.relu(net.bn1(net.conv1((x - mean) / (std + 1e-9)))))
        x = net.layer4(net.layer3(net.layer2(net.layer1(x))))
        return self.extractor.transform(net.avgpool(x).flatten(1))


class AudioTower(nn.Module):
    """The tiny audio tower: log-mel spectrogram, a small CNN, D numbers. The statistics are those
    of the pretraining snippets, part of the weights: unlike in Wav2CLIP, loudness survives."""

    BANDS, N_FFT, HOP = 48, MIN_SAMPLES, 160

    def __init__(self, dim: int = SOUNDSTAGE_DIM, width: int = 24) -> None:
        from torchaudio.functional import melscale_fbanks  # heavy, and only for sound

        super().__init__()
        edges = {"f_min": 40.0, "f_max": SAMPLE_RATE / 2, "n_mels": self.BANDS}
        filters = melscale_fbanks(self.N_FFT // 2 + 1, **edges, sample_rate=SAMPLE_RATE)
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("window", torch.hann_window(self.N_FFT), persistent=False)
        self.register_buffer("mel_mean", torch.zeros(self.BANDS))
        self.register_buffer("mel_std", torch.ones(self.BANDS))
        self.cnn = nn.Sequential()
        for inside, outside in pairwise((1, width, 2 * width, 3 * width, 4 * width)):
            convolution = nn.Conv2d(inside, outside, 3, stride=2, padding=1, bias=False)
            self.cnn.extend([convolution, nn.BatchNorm2d(outside), nn.ReLU()])
        self.head = nn.Linear(8 * width, dim)

    def forward(self, waves: Tensor) -> Tensor:
        """(n, samples) at 16 kHz -> (n, D), not normalised."""
        return self.from_log_mel(self.log_mel(waves))

    def log_mel(self, waves: Tensor) -> Tensor:
        """(n, samples) -> (n, bands, frames), not yet standardised."""
        spectrum = torch.stft(waves, self.N_FFT, self.HOP, window=self.window, return_complex=True)
        power = spectrum.abs().square() / self.window.sum().square()
        return torch.log(self.filters.T @ power + 1e-9)

    def from_log_mel(self, mel: Tensor) -> Tensor:
        """(n, bands, frames) -> (n, D). Mean over time says what lasts, maximum what strikes."""
        x = (mel - self.mel_mean[:, None]) / self.mel_std[:, None]
        x = self.cnn(x[:, None]).flatten(2)
        return self.head(torch.cat([x.mean(2), x.amax(2)], dim=1))


# ---- the interface -------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Encoders:
    """Three frozen towers into one space; features come back as float32 tensors on the CPU."""

    name: str  # "soundstage" or "clip"
    dim: int  # D
    text: TextTower
    image: nn.Module
    audio: nn.Module
    image_size: int  # pixels
    normalise: bool  # to root mean square 1
    batch_size: int
    device: torch.device

    def __post_init__(self) -> None:
        for tower in (self.image, self.text, self.audio):
            tower.requires_grad_(False).eval().to(self.device)

    def encode_images(self, frames: np.ndarray | Tensor) -> Tensor:
        """uint8 (n, H, W, 3), any size -> (n, D). See ``clip_pixels``."""
        return self._encode(self.image, frames, partial(clip_pixels, size=self.image_size))

    def encode_audio(self, waves: np.ndarray | Tensor) -> Tensor:
        """float (n, samples), mono, 16 kHz -> (n, D). Padded with zeros to one analysis window.
        Raises ``ValueError`` for another type or shape."""
        waves = torch.as_tensor(np.asarray(waves))
        if waves.ndim != 2 or not waves.is_floating_point():
            got = f"got {waves.dtype} {tuple(waves.shape)}"
            raise ValueError(f"waves must be floating-point of shape (n, samples), {got}")
        missing = max(0, MIN_SAMPLES - waves.shape[1])
        return self._encode(self.audio, waves, lambda part: F.pad(part.float(), (0, missing)))

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Prompts -> (n, D), never normalised. Raises ``ValueError`` for a word outside the tiny
        vocabulary, or a prompt too long."""
        _check_words(self.text, texts)
        rows = [torch.tensor((START_TOKEN, *token_ids(text), END_TOKEN)) for text in texts]
        ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=END_TOKEN)
        end = torch.tensor([len(row) - 1 for row in rows])
        with torch.no_grad(), arithmetic("float32", self.device.type):
            return self.text(self.text.embed_tokens(ids), end).cpu()

    def _encode(self, tower: nn.Module, inputs: Any, prepare: Callable[[Any], Tensor]) -> Tensor:
        out = torch.empty(0, self.dim)
        with torch.no_grad(), arithmetic("float32", self.device.type):
            for at in range(0, len(inputs), self.batch_size):
                part = prepare(inputs[at : at + self.batch_size]).to(self.device)
                out = torch.cat([out, tower(part).float().cpu()])
        return F.normalize(out, dim=-1) * math.sqrt(self.dim) if self.normalise else out


def load_encoders(
    which: Literal["soundstage", "clip"],
    *,
    weights: str | Path = "auto",
    device: str | torch.device = "cpu",
) -> Encoders:
    """Frozen image, audio and text encoders of one space. ``weights``: ``"auto"`` (soundstage: the
    shipped file; clip: the two files of ``weights_folder()``, downloaded if they are not there),
    ``"random"`` (seeded, for shapes and plumbing), or the folder that holds the files. Raises
    ``FileNotFoundError`` saying which file to fetch, from where, and where to put it;
    ``ValueError`` for an unknown ``which`` or a damaged file."""
    import open_clip

    if which not in _TEXT:
        raise ValueError(f"encoders must be one of soundstage, clip, got {which!r}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if which == "clip":  # without create_model's warning that no weights were loaded
            clip, audio = open_clip.CLIP(**open_clip.get_model_config(CLIP_MODEL)), _Wav2ClipTower()
            known: Any = range(END_TOKEN + 1)
            both = {"encoder": audio.extractor.encoder, "transform": audio.extractor.transform}
            sound = {f"audio_{name}": part for name, part in both.items()}
            files = {"clip": {"visual": clip.visual}, "wav2clip": sound}  # with its names of parts
            use = {"image_size": 224, "normalise": False, "batch_size": 32}
        else:
            known = sorted({START_TOKEN, END_TOKEN, *chain(*CLASS_TOKENS.values())})
            clip, audio = soundstage_clip(len(known)), AudioTower()
            files = {"soundstage": {"visual": clip.visual, "audio": audio}}
            use = {"image_size": 64, "normalise": True, "batch_size": 128}
        if weights == "random":
            words = clip.state_dict() | {"vocabulary": torch.tensor(known)}
            text = TextTower.from_state_dict(words, heads=_TEXT[which]["heads"])
        else:
            paths = {name: _weight_file(name, weights) for name in files}
            for name, path in paths.items():
                held, parts = _read_tensors(path), nn.ModuleDict(files[name])
                own = {key: held[key] for key in held.keys() & parts.state_dict().keys()}
                check_weights(own, parts.state_dict(), str(path))
                parts.load_state_dict(own)
                if name == which:  # its file holds the words as well
                    text = TextTower.from_state_dict(held, **_TEXT[which])
    towers = {"image": clip.visual, "audio": audio, "text": text}
    return Encoders(name=which, dim=text.dim, device=torch.device(device), **towers, **use)


def soundstage_clip(rows: int) -> nn.Module:
    """The tiny CLIP as an ``open_clip`` model, for so many token rows, in rising order of their
    ids, so that the end mark is the last, as open_clip expects. 32 positions hold a caption, and
    the 24 of a class word between ten learned context vectors on each side."""
    import open_clip

    vision = {"layers": (1, 1, 1, 1), "width": 16, "image_size": 64, "head_width": 64}
    text = {"context_length": 32, "width": 64, "layers": 2, "vocab_size": rows}
    text["heads"] = _TEXT["soundstage"]["heads"]
    return open_clip.CLIP(SOUNDSTAGE_DIM, vision, text, quick_gelu=True)


# ---- weight files --------------------------------------------------------------------------------

_FETCH = "fetch {} and save it as {}, or set AVADCLIP_WEIGHTS to the folder that holds it"
_RESTORE = "restore the file from the repository, or: python -m data.make_soundstage.build"
_FILES = {  # name, what it holds, where to fetch it, what to do if it is not there
    "clip": (CLIP_FILE, "CLIP's weights (ViT-B/16, OpenAI)", CLIP_URL, _FETCH),
    "wav2clip": (WAV2CLIP_FILE, "Wav2CLIP's weights", WAV2CLIP_URL, _FETCH),
    "soundstage": (SOUNDSTAGE_FILE, "the tiny encoders", None, _RESTORE),
}


def weights_folder() -> Path:
    """Where CLIP's and Wav2CLIP's files are kept; ``AVADCLIP_WEIGHTS`` names another folder."""
    return Path(os.environ.get("AVADCLIP_WEIGHTS") or Path.home() / ".cache" / "avadclip_lite")


def _weight_file(which: str, weights: str | Path) -> Path:
    """The file in its folder; with ``auto`` it is downloaded if it is not there."""
    name, what, url, remedy = _FILES[which]
    home = weights_folder() if url else soundstage_path()
    path, why = (home if weights == "auto" else Path(weights)) / name, ""
    if weights == "auto" and url and not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path))  # whole, or not at all
        except OSError as error:
            why = f" and could not be downloaded ({getattr(error, 'reason', error)})"
    path = Path(weights) if weights != "auto" and Path(weights).is_file() else path
    if not path.is_file():
        raise FileNotFoundError(f"{what} are not at {path}{why}; {remedy.format(url, path)}")
    return path


def _read_tensors(path: Path) -> Mapping[str, Tensor]:
    """Named tensors of a safetensors file or a plain state dict, never an arbitrary pickle;
    ``ValueError`` naming the file if damaged."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, UnpicklingError, RuntimeError, EOFError) as error:
        what = f"{path} is not a readable weight file ({str(error).splitlines()[0]})"
        raise ValueError(f"{what}; delete it and fetch it again") from None


def check_weights(given: Mapping[str, Tensor], needed: Mapping[str, Tensor], where: str) -> None:
    """Refuse weights in a ``ValueError`` with the first key that is missing, unknown or of another
    shape; ``where`` they came from."""
    for key in sorted(given.keys() | needed.keys()):
        found, need = (tuple(one[key].shape) if key in one else None for one in (given, needed))
        what = f"{key} has shape {found}, not {need}"
        what = f"has the unknown key {key}" if need is None else what
        what = f"lacks {key}" if found is None else what
        if found != need:
            raise ValueError(f"{where} {what}: it is of another model or configuration")
