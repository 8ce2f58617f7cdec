"""The detectors: the seam that training and evaluation know, and AVadCLIP on it, the audio-visual
teacher and the students of one modality."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avadclip_lite import losses, temporal
from avadclip_lite.config import XD_CLASSES, ClassSet, Config, Section
from avadclip_lite.dataset import Batch, Output, TrainingSet, shuffled_batches
from avadclip_lite.encoders import TextTower, WordPrompts, check_weights
from avadclip_lite.fusion import build_fusion
from avadclip_lite.prompts import AudioVisualPrompt, TextualPrompt, alignment_map, global_vector
from avadclip_lite.temporal import FeedForward, TemporalConvNet, VideoEncoder, zero_padding

# --- the seam -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Context:
    """What a detector is built from besides its settings. Whoever keeps the text tower copies it:
    the caller's stays the caller's."""

    classes: ClassSet
    text: TextTower | None = None
    prompts: WordPrompts | None = None


class Detector(nn.Module):
    """The base of all detectors. A subclass writes ``forward(batch) -> Output`` and ``loss``, and
    is registered; the other methods are hooks for what some need, and may stay as they are."""

    Options: type[Section] | None = None  # names what it takes as options; None: whatever comes
    needs_text = False  # whether it is built from a text tower
    frozen: tuple[str, ...] = ()  # prefixes of the state that no training changes
    max_snippets: int | None = None  # longest chunk that it takes; None: any length
    classes: ClassSet  # of the data that it was trained on, and
    features_of: str  # the encoder of these: both set by ``train.load``
    capturable = False  # whether a step does the same at every batch, with nothing on the host

    def __init__(self, settings: Config) -> None:
        super().__init__()
        self.settings = settings

    def loss(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Named parts; "total" is what to minimise."""
        raise NotImplementedError

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """All of them step after every batch. Default: one AdamW over what asks for gradients."""
        train = self.settings.train
        weights = [p for p in self.parameters() if p.requires_grad]
        rates = {"lr": train.learning_rate, "weight_decay": train.weight_decay}
        return [torch.optim.AdamW(weights, **rates, fused=True)]

    def batches(self, bags: TrainingSet, generator: torch.Generator) -> list[Tensor]:
        """Positions of the bags of every batch of an epoch. Paired halves go here."""
        return shuffled_batches(bags, self.settings.train.batch_size, generator)

    def start_epoch(self, epoch: int, bags: TrainingSet) -> None:
        """Before an epoch, counted from 0: pseudo labels of a new stage (a batch's ``index`` tells
        which bags it holds), coefficients that depend on the epoch."""

    def end_epoch(self, epoch: int) -> None:
        """After an epoch and before it is judged: weights averaged, or mixed in."""

    def training_state(self) -> dict[str, Tensor]:
        """What going on after an interruption needs besides weights and optimisers."""
        return {}

    def load_training_state(self, state: dict[str, Tensor]) -> None:
        """The inverse of ``training_state``."""

    def distil_from(self, teacher: Detector | None) -> None:
        """Learn from a trained teacher; ``ValueError`` where one is missing, or of no use."""
        if teacher is not None:
            raise ValueError(f"a {self.settings.detector} detector cannot learn from a teacher")

    def trainable_state(self) -> dict[str, Tensor]:
        """All weights but the frozen ones, by name."""
        return {k: v for k, v in self.state_dict().items() if not k.startswith(self.frozen)}

    def load_trainable_state(self, state: dict[str, Tensor]) -> None:
        """The inverse of ``trainable_state``; raises what ``check_weights`` does."""
        check_weights(state, self.trainable_state(), "the checkpoint")
        self.load_state_dict(state, strict=False)


_DETECTORS: dict[str, type[Detector]] = {}


def register(name: str) -> Callable[[type[Detector]], type[Detector]]:
    """Class decorator: ``Config.detector`` may say ``name``. It takes settings and ``Context``."""

    def add(kind: type[Detector]) -> type[Detector]:
        _DETECTORS[name] = kind
        return kind

    return add


def registered(name: str) -> type[Detector]:
    """What was registered under a name; ``ValueError`` with the known names otherwise."""
    if name not in _DETECTORS:
        known = f"no detector is registered as {name!r}, only {', '.join(sorted(_DETECTORS))}"
        raise ValueError(f"{known}; import what registers it first (say avadclip_lite.baselines)")
    return _DETECTORS[name]


def build(
    settings: Config,
    text: TextTower | None = None,
    prompts: WordPrompts | None = None,
    *,
    classes: ClassSet = XD_CLASSES,
) -> Detector:
    """The detector that ``settings.detector`` names, with fresh weights drawn from torch's global
    generator: seed it first. ``text`` and ``prompts`` come from ``encoders.load_text``; the tower
    is copied. ``ValueError`` for an unknown name or option, or a tower that does not fit."""
    kind, dim = registered(settings.detector), settings.model.dim
    known = [item.name for item in fields(kind.Options)] if kind.Options else settings.options
    if other := [name for name in settings.options if name not in known]:
        raise ValueError(f"{settings.detector} has no option {other[0]!r}, only {known or 'none'}")
    if kind.needs_text and (text is None or prompts is None or text.dim != dim):
        got = "none" if text is None or prompts is None else f"one of dim={text.dim}"
        what = f"{settings.detector} needs a text tower of dim={dim} with its prompts, got {got}"
        raise ValueError(f"{what}; features and text tower must come from the same encoders")
    return kind(settings, Context(classes, text, prompts))


# --- AVadCLIP -------------------------------------------------------------------------------------


class AnomalyHead(nn.Module):
    """The classification branch: one anomaly logit a snippet, ``Linear_D->1(x + FFN(x))``."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.ffn = FeedForward(dim)
        self.score = nn.Linear(dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, D) -> logits (B, T), in float32: bfloat16 makes neighbouring scores equal."""
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            return self.score(x + self.ffn(x)).squeeze(-1)


class Enhancement(nn.Module):
    """The students' visual enhancement: ``z + ReLU(conv3(z))``, once in the paper, three times in
    the release. Convolution over three snippets, zeros around the video."""

    def __init__(self, dim: int, blocks: int = 1) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv1d(dim, dim, 3, padding=1) for _ in range(blocks))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x (B, T, D), mask (B, T) or None -> (B, T, D)."""
        x = zero_padding(x, mask)
        for conv in self.convs:
            x = zero_padding(x + F.relu(conv(x.mT).mT), mask)
        return x


class LogVarianceHead(nn.Module):
    """ln sigma^2 of the distilled features, per snippet and channel: three convolutions. In the
    paper's text conv1, ReLU, conv3, ReLU, conv1, free in sign; ``bounded``, as released,
    theta = -(y + ReLU(conv1(conv3(ReLU(conv1(y)))))), which can never exceed -y."""

    def __init__(self, dim: int, *, bounded: bool = False) -> None:
        super().__init__()
        self.bounded = bounded
        self.first = nn.Conv1d(dim, dim, 1)
        self.middle = nn.Conv1d(dim, dim, 3, padding=1)
        self.last = nn.Conv1d(dim, dim, 1)

    def forward(self, y: Tensor, mask: Tensor | None = None) -> Tensor:
        """y (B, T, D) of the video encoder, mask (B, T) or None -> (B, T, D), in float32."""
        with torch.autocast(y.device.type, enabled=False):
            y = zero_padding(y.float(), mask)
            # The biases of the first convolution fill the padding, which the middle one would see.
            hidden = self.middle(zero_padding(F.relu(self.first(y.mT)).mT, mask).mT)
            if self.bounded:
                return zero_padding(-(y + F.relu(self.last(hidden)).mT), mask)
            return zero_padding(self.last(F.relu(hidden)).mT, mask)


class FrozenTeacher(nn.Module):
    """A copy of a teacher that never trains: no parameter asks for a gradient, no call of
    ``train()`` leaves eval mode, and no graph is recorded."""

    def __init__(self, detector: AVadCLIP) -> None:
        super().__init__()
        self.detector = copy.deepcopy(detector).requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> FrozenTeacher:
        """Frozen: stays in eval mode whatever is asked."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, batch: Batch) -> Tensor:
        """x_av (B, T, D) of a batch; the heads, which nobody reads, are not computed."""
        assert not any(module.training for module in self.modules()), "the teacher left eval mode"
        features, _, _ = self.detector.encode(batch)
        return features[:, : batch.snippets]


@register("avadclip")
class AVadCLIP(Detector):
    """An AVadCLIP detector, by ``settings.model.role``. "audio_visual" is the teacher: video
    encoder, audio branch, fusion. "vision" and "audio" are students: the encoder on their one
    modality, the enhancement, and (where uncertainty is distilled) a head for the log-variance."""

    needs_text = capturable = True
    Options, frozen = Section, ("textual_prompt.tower.",)  # it takes no options

    def __init__(self, settings: Config, context: Context) -> None:
        super().__init__(settings)
        model, loss = settings.model, settings.loss
        self.max_snippets = model.max_snippets
        windows = dict(heads=model.heads, blocks=model.blocks, window=model.window)
        windows |= dict(max_snippets=model.max_snippets, threshold=model.similarity_threshold)
        self.encoder = VideoEncoder(model.dim, **windows, padding=model.padding)
        self.log_variance = None
        if model.role == "audio_visual":
            blocks = dict(dilations=model.tcn_dilations, dropout=model.tcn_dropout)
            self.audio_encoder = TemporalConvNet(model.dim, **blocks, context=model.audio_context)
            self.fusion = build_fusion(model)
        else:
            self.enhancement = Enhancement(model.dim, model.enhancement_blocks)
            if loss.ukd in ("paper", "released"):
                bounded = model.variance_head == "bounded"
                self.log_variance = LogVarianceHead(model.dim, bounded=bounded)
        self.anomaly = AnomalyHead(model.dim)
        tower = copy.deepcopy(context.text)
        around = model.context_before, model.context_after
        self.textual_prompt = TextualPrompt(tower, context.prompts, *around)
        self.av_prompt = None
        if model.av_prompt != "none":
            how = dict(skip=model.prompt_skip, temperature=model.prompt_temperature)
            self.av_prompt = AudioVisualPrompt(model.dim, weights=model.av_prompt, **how)
        learned = loss.focal_alpha_learned and loss.alignment == "cross_entropy_focal"
        start = torch.full((len(context.prompts.ids),), loss.focal_alpha)
        self.alpha = nn.Parameter(start) if learned else None  # goes to the focal loss
        self._teacher: list[FrozenTeacher] = []  # in a list: no part of this module's state

    def distil_from(self, teacher: Detector | None) -> None:
        """Copy a trained audio-visual detector, whose features a student imitates from now on."""
        model, ukd = self.settings.model, self.settings.loss.ukd
        student = model.role != "audio_visual" and ukd != "none"
        if student != (teacher is not None):
            what = "learns from a teacher: name one (--teacher, teacher=), or set ukd to none"
            what = what if student else "has no use for the teacher that was passed"
            raise ValueError(f"role={model.role!r} with ukd={ukd!r} {what}")
        if teacher is None:
            return
        theirs, ours = teacher.settings.model, isinstance(teacher, AVadCLIP)
        if not ours or theirs.role != "audio_visual" or theirs.dim != model.dim:
            is_ = f"{theirs.role if ours else teacher.settings.detector} one of dim={theirs.dim}"
            need = f"this student needs an audio_visual one of dim={model.dim}"
            raise ValueError(f"the teacher is a {is_}; {need}")
        self._teacher = [FrozenTeacher(teacher).to(next(self.parameters()).device)]

    def forward(self, batch: Batch) -> Output:
        """Score a batch; a student ignores the other modality. ``padding="leaking"``: zeros fill
        it up to ``max_snippets`` rows, as in the release, and the output is cut to T."""
        model = self.settings.model
        features, log_variance, mask = self.encode(batch)
        anomaly = self.anomaly(features)  # (B, T)
        x_c = self.textual_prompt()  # (C, D)
        prompted = x_c.expand(len(features), -1, -1)
        if self.av_prompt is not None:
            weights = anomaly if model.global_weight == "logit" else torch.sigmoid(anomaly)
            # Masked padding has zero features and so no part in the vector, whatever its weight.
            prompted = self.av_prompt(x_c, global_vector(features, weights))
        alignment = alignment_map(features, prompted, model.temperature)
        rows, distils = batch.snippets, self.training and self._teacher
        return Output(
            anomaly_logits=anomaly[:, :rows],
            mask=mask[:, :rows],
            alignment_logits=alignment[:, :rows],
            features=features[:, :rows],
            class_embeddings=x_c,
            prompted_embeddings=prompted,
            log_variance=None if log_variance is None else log_variance[:, :rows],
            teacher_features=self._teacher[0](batch) if distils else None,
        )

    def loss(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """All losses of ``losses.compute``."""
        return losses.compute(output, batch, self.settings.loss, self.alpha)

    def encode(self, batch: Batch) -> tuple[Tensor, Tensor | None, Tensor]:
        """Everything before the heads, over all the rows that are computed: features (B, T, D), the
        log-variance of a student that distils, and the mask (B, T)."""
        model = self.settings.model
        video, audio, audio_mask = batch.video, batch.audio, batch.audio_mask
        needed = {"vision": ("video",), "audio": ("audio",)}.get(model.role, ("video", "audio"))
        for name in needed:
            x = getattr(batch, name)
            if x is None or x.ndim != 3 or x.shape[-1] != model.dim:
                got = None if x is None else tuple(x.shape)
                raise ValueError(f"{name} must be (videos, snippets, {model.dim}), got {got}")
        if model.role != "vision":
            audio = zero_padding(audio, audio_mask)
        if model.role == "audio_visual" and video.shape[:2] != audio.shape[:2]:
            shapes = f"video {tuple(video.shape)} and audio {tuple(audio.shape)}"
            raise ValueError(f"{shapes} must hold the same snippets; resample them together")
        main = audio if model.role == "audio" else video
        fill = model.max_snippets - main.shape[1]
        if model.padding == "leaking" and fill > 0:
            main = F.pad(main, (0, 0, 0, fill))
            audio = None if audio is None else F.pad(audio, (0, 0, 0, fill))
            audio_mask = None if audio_mask is None else F.pad(audio_mask, (0, fill))
        mask = temporal.length_mask(batch.lengths, main.shape[1])
        keep = mask if model.padding == "masked" else None

        encoded = self.encoder(main, mask)  # (B, T, D)
        log_variance = None
        if model.role == "audio_visual":
            audio_features = self.audio_encoder(audio, keep)
            with_sound = audio_mask if model.missing_audio == "skip" else None
            features = self.fusion(encoded, audio_features, keep, with_sound)
        else:
            features = self.enhancement(encoded, keep)
            if self.log_variance is not None:
                log_variance = self.log_variance(encoded, keep)
        return features, log_variance, mask
