"""Every choice of the reproduction, named once: classes, constants, and frozen configuration.

``form`` says *what* is computed: ``paper`` follows the text of the paper, ``released`` the authors'
code, and every place where the two part ways is a field below. ``scale`` says *how large*: ``xd``
is XD-Violence with CLIP features, ``soundstage`` the small synthetic data set that ships.

Shape letters used in the whole package: B videos in a batch, T snippets of a video, D feature
width, C classes (class 0 is normal), N frames (N = stride x T).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import re
import typing
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

XD_STRIDE = 16  # frames a snippet, XD-Violence and Soundstage
CCTV_STRIDE = 4  # frames a snippet, CCTV-Fights_sub
MAX_SNIPPETS = 256  # longest bag seen in training; also the length of the position table
CROPS = 10  # crops of a training video in the released features
TEST_CROP = 5  # the only crop on the released test list: the flipped centre
CLIP_DIM = 512  # feature width of CLIP ViT-B/16 and of Wav2CLIP
SAMPLE_RATE = 16_000  # samples a second, mono, what Wav2CLIP expects
DATA = Path(__file__).parents[1] / "data"  # of the repository
IOU_THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5)  # of the temporal mAP

Form = Literal["paper", "released"]
Scale = Literal["xd", "soundstage"]
Role = Literal["audio_visual", "vision", "audio"]
Precision = Literal["auto", "float32", "tf32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class ClassSet:
    """Classes of a data set, normal first: codes of files and annotations, words of prompts."""

    name: str
    codes: tuple[str, ...]
    words: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.codes)

    def index(self, code: str) -> int:
        """Class index of an annotation code; ``ValueError`` naming the known codes otherwise."""
        if code not in self.codes:
            known = f"{self.name} knows {', '.join(self.codes)}"
            raise ValueError(f"unknown label code {code!r}; {known}")
        return self.codes.index(code)


XD_CLASSES = ClassSet(
    name="XD-Violence",
    codes=("A", "B1", "B2", "B4", "B5", "B6", "G"),
    words=("normal", "fighting", "shooting", "riot", "abuse", "car accident", "explosion"),
)
CCTV_CLASSES = ClassSet(name="CCTV-Fights", codes=("A", "B1"), words=("normal", "fighting"))
CLASS_SETS = {"xd": XD_CLASSES, "cctv": CCTV_CLASSES}


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the configuration, validated against its own annotations and limits."""

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for item in fields(self):
            value = getattr(self, item.name)
            if wrong := _wrong(value, hints[item.name], **item.metadata):
                name = f"{type(self).__name__}.{item.name}"
                raise ValueError(f"{name} must be {wrong}, got {value!r}")


def _wrong(value: Any, hint: Any, at_least: float = 0, at_most: float = math.inf) -> str | None:
    """What a value of this annotation must be, if it is not; None where it fits."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return None if value in args else "one of " + ", ".join(map(repr, args))
    if origin is dict and isinstance(value, dict):
        plain = json.dumps(value, default=str, skipkeys=True)
        return None if json.loads(plain) == value else "plain JSON"
    if origin is tuple and isinstance(value, tuple):
        found = (_wrong(entry, args[0], at_least, at_most) for entry in value)
        return next(filter(None, found), None)
    hint = origin or hint
    if hint not in (int, float):
        wanted = "a tuple (in JSON: a list)" if hint is tuple else hint.__name__
        return None if isinstance(value, hint) else wanted
    if isinstance(value, bool) or not isinstance(value, (int, hint)) or not math.isfinite(value):
        return "a whole number" if hint is int else "a finite number"
    small, large = value < at_least, value > at_most
    return f"at least {at_least}" if small else f"at most {at_most}" if large else None


def _at_least(low: float, default: Any, at_most: float = math.inf) -> Any:
    return field(default=default, metadata={"at_least": low, "at_most": at_most})


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Section):
    """What the network computes. Defaults are the paper's form at Soundstage's scale."""

    role: Role = "audio_visual"  # the teacher, or the student of one modality
    dim: int = _at_least(8, 64)  # D
    heads: int = _at_least(1, 1)  # of the windowed Transformer
    blocks: int = _at_least(1, 2)  # Transformer blocks: teacher 2, student 1
    window: int = _at_least(1, 4)  # snippets a window: teacher 4, student 64
    max_snippets: int = _at_least(1, MAX_SNIPPETS)
    similarity_threshold: float = _at_least(0.0, 0.7, at_most=1.0)  # similarity edges below are cut
    padding: Literal["masked", "leaking"] = "masked"  # the release lets padding leak
    fusion: Literal["adaptive", "concat", "add", "cross_attention"] = "adaptive"
    fusion_heads: int = _at_least(1, 8)  # cross attention only
    tcn_dilations: tuple[int, ...] = _at_least(1, (1, 2, 4))
    audio_context: Literal["causal", "both"] = "causal"  # the past, as released; or both ways
    tcn_dropout: float = _at_least(0.0, 0.1, at_most=0.9)
    enhancement_blocks: int = _at_least(0, 1)  # students: 1 in the paper, 3 released
    context_before: int = _at_least(0, 10)  # learned prompt vectors before the class word
    context_after: int = _at_least(0, 10)  # ... and after it
    av_prompt: Literal["none", "softmax", "uniform"] = "softmax"  # released is exactly uniform
    prompt_temperature: float = _at_least(1e-6, 1.0)  # of that softmax over classes
    global_weight: Literal["confidence", "logit"] = "confidence"  # sigmoid(s), or raw s
    prompt_skip: Literal["class", "sum"] = "class"  # skip from x_c, or from u = x_c + x_mp
    temperature: float = _at_least(1e-6, 0.07)  # of the alignment map
    variance_head: Literal["free", "bounded"] = "free"  # released theta is bounded by -y
    missing_audio: Literal["skip", "zeros"] = "skip"  # leave the residual out, or feed zeros

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dim % self.heads or self.dim % self.fusion_heads or self.dim % 2:
            all_ = f"2, heads={self.heads} and fusion_heads={self.fusion_heads}"
            raise ValueError(f"ModelConfig.dim must be divisible by {all_}, got {self.dim}")


@dataclass(frozen=True, kw_only=True)
class LossConfig(Section):
    """Which losses are summed, and how. Defaults are the paper's form."""

    topk_divisor: int = _at_least(1, 16)  # K = floor(T / 16) + 1
    alignment: Literal["cross_entropy_focal", "cross_entropy", "none"] = "cross_entropy_focal"
    focal_gamma: float = _at_least(0.0, 2.0)
    focal_alpha: float = _at_least(0.0, 0.25)
    focal_alpha_learned: bool = False  # learned per class in the release
    contrast_weight: float = _at_least(0.0, 0.0)  # 1e-4 in the release
    ukd: Literal["none", "mse", "paper", "released"] = "paper"  # students only
    ukd_weight: float = _at_least(0.0, 1.0)  # 1e-8 in the release
    ukd_mask: bool = True  # mean over valid snippets; the release averages padding too


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Section):
    """How long, how fast, and which epoch is kept."""

    seed: int = _at_least(0, 0)
    epochs: int = _at_least(1, 15)
    batch_size: int = _at_least(1, 32)
    learning_rate: float = _at_least(0.0, 1e-3)
    weight_decay: float = _at_least(0.0, 0.01)
    milestones: tuple[int, ...] = _at_least(1, ())  # learning rate x 0.1 after these epochs
    grad_clip: float = _at_least(0.0, 0.0)  # 0: none, as in paper and release
    selection: Literal["holdout", "last", "test"] = "holdout"  # the release looks at the test
    reload_best: bool = False  # the release loads its best weights back after every epoch
    holdout_share: float = _at_least(0.0, 0.1, at_most=0.5)  # of training videos, weak labels only
    max_steps: int = _at_least(0, 0)  # 0: no limit; otherwise stop after so many steps
    precision: Precision = "float32"  # ``arithmetic`` says what each computes
    device: str = "auto"  # "auto", "cpu", "cuda", "cuda:1"


@dataclass(frozen=True, kw_only=True)
class DataConfig(Section):
    """How videos become bags."""

    resample: Literal["together", "separate"] = "together"  # released treats each alone
    crops: Literal["all", "first"] = "all"  # training rows: every crop in the store, or one a video
    length_aware: bool = True  # cut a batch to its longest video (needs padding="masked")


@dataclass(frozen=True, kw_only=True)
class Config(Section):
    """Everything that determines a training run, except the data itself."""

    form: Form = "paper"
    scale: Scale = "soundstage"
    detector: str = "avadclip"  # a name of ``model.register``
    options: dict[str, Any] = field(default_factory=dict)  # what only that detector knows: JSON
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    data: DataConfig = field(default_factory=DataConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.data.length_aware and self.model.padding == "leaking":
            what = "DataConfig.length_aware=True would change the result with padding='leaking'"
            raise ValueError(f"{what}; set length_aware=False")

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dictionary (JSON types only, tuples as lists)."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Config:
        """The inverse of ``to_dict``."""
        built: dict[str, Any] = dict(data)
        for name, kind in _SECTIONS.items():
            values = {k: tuple(v) if isinstance(v, list) else v for k, v in data[name].items()}
            built[name] = kind(**values)
        return cls(**built)

    def digest(self) -> str:
        """Twelve hexadecimal digits that change whenever any choice changes."""
        text = json.dumps(self.to_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def override(self, **overrides: Any) -> Config:
        """A copy with single fields changed, by field name, whichever section they live in."""
        changed: dict[str, dict[str, Any]] = {}
        for name, value in overrides.items():
            if name not in SECTION_OF:
                known = ", ".join(sorted(SECTION_OF))
                raise ValueError(f"unknown configuration field {name!r}; known fields: {known}")
            changed.setdefault(SECTION_OF[name], {})[name] = value
        sections = {s: replace(getattr(self, s), **values) for s, values in changed.items()}
        return replace(self, **sections)


_SECTIONS = {"model": ModelConfig, "loss": LossConfig, "train": TrainConfig, "data": DataConfig}
SECTION_OF = {item.name: name for name, kind in _SECTIONS.items() for item in fields(kind)}

# What form and scale change away from the defaults above. Nothing is set in two places.
_SCALE: dict[str, dict[str, Any]] = {
    # 580 steps: twice as many change little; of three weight decays the best (data/README.md)
    "soundstage": {"weight_decay": 1.0, "epochs": 20, "max_snippets": 80},
    "xd": {"dim": CLIP_DIM, "batch_size": 96, "learning_rate": 1e-5, "epochs": 10}
    | {"precision": "auto"},
}
_RELEASED: dict[str, Any] = {
    "padding": "leaking",
    "length_aware": False,
    "av_prompt": "uniform",
    "global_weight": "logit",
    "prompt_skip": "sum",
    "enhancement_blocks": 3,
    "variance_head": "bounded",
    "missing_audio": "zeros",
    "focal_alpha_learned": True,
    "contrast_weight": 1e-4,
    "ukd": "released",
    "ukd_weight": 1e-8,
    "ukd_mask": False,
    "milestones": (3, 6),
    "selection": "test",
    "reload_best": True,
    "resample": "separate",
    "seed": 234,
}


def make_config(
    *,
    form: Form = "paper",
    scale: Scale = "soundstage",
    role: Role = "audio_visual",
    detector: str = "avadclip",
    options: dict[str, Any] | None = None,
    **overrides: Any,
) -> Config:
    """The configuration of a form at a scale, for the teacher or a student (or for another
    ``detector`` with ``options`` of its own), with single fields overridden by name. Raises
    ``ValueError`` for an unknown field or an invalid value, and says what is allowed."""
    blank = Config(form=form, scale=scale, detector=detector, options=options or {})
    released = _RELEASED if form == "released" else {}
    student = {"blocks": 1, "window": 64} if role in ("vision", "audio") else {}
    choices = _SCALE[scale] | released | {"role": role} | student | overrides
    # length-aware batches follow the padding unless they were chosen
    if choices.get("padding") == "leaking" and "length_aware" not in overrides:
        choices["length_aware"] = False
    return blank.override(**choices)


def find_device(name: str) -> torch.device:
    """The device of that name; "auto" is a GPU where there is one. Raises ``ValueError`` for any
    but the CPU and a GPU that is here."""
    import torch  # not needed to read a configuration

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise ValueError(f"device={name!r} is not supported; use 'auto', 'cpu' or 'cuda'")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= (found := torch.cuda.device_count()):
        raise ValueError(f"device={name!r}, but torch finds {found} GPUs here; try 'auto'")
    return device


def resolved(settings: Config) -> Config:
    """Settings as they are trained and recorded: precision "auto" becomes bf16 on a GPU and float32
    elsewhere. Raises what ``find_device`` does."""
    if settings.train.precision != "auto":
        return settings
    there = find_device(settings.train.device).type == "cuda"
    return settings.override(precision="bf16" if there else "float32")


@contextmanager
def arithmetic(precision: str, device: str) -> Iterator[torch.autocast]:
    """How numbers are multiplied while this is open, on a device of that type; it gives the
    autocast for a forward pass. "float32": in full, products and convolutions alike; "tf32": both
    in TF32; "bf16": the autocast is on, and what it leaves in float32 is full. Afterwards torch's
    switches, which are the whole process's, stand as before: no two at once in threads."""
    import torch

    if wrong := _wrong(precision, Precision):
        raise ValueError(f"precision must be {wrong}, got {precision!r}")
    half = precision == "bf16" or (precision == "auto" and device == "cuda")
    switches = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)
    before = [switch.fp32_precision for switch in switches]
    try:
        for switch in switches:
            switch.fp32_precision = "tf32" if precision == "tf32" else "ieee"
        yield torch.autocast(device, torch.bfloat16, enabled=half)
    finally:
        for switch, was in zip(switches, before, strict=True):
            switch.fp32_precision = was


def add_device_argument(parser: argparse.ArgumentParser) -> None:
    """The option ``--device``, the same in every command."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 (%(default)s)")


def soundstage_path() -> Path:
    """The shipped data and tiny weights: ``soundstage`` in the repository's ``data``, or in the
    folder that the environment variable ``AVADCLIP_DATA`` names."""
    return Path(os.environ.get("AVADCLIP_DATA") or DATA) / "soundstage"
