"""The detectors: the audio-visual teacher and the students of one modality, put together from the
rooms of ``temporal``, ``fusion`` and ``prompts``.

    detector = build(settings, *load_text("soundstage", XD_CLASSES.words))
    output = detector(batch.video, batch.audio, batch.lengths, batch.audio_mask)

Shape letters: B videos, T snippets, D feature width, C classes (class 0 is normal).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avadclip_lite.config import Config
from avadclip_lite.encoders import TextTower, WordPrompts
from avadclip_lite.fusion import build_fusion
from avadclip_lite.prompts import AudioVisualPrompt, TextualPrompt, alignment_map, global_vector
from avadclip_lite.temporal import (
    Enhancement,
    FeedForward,
    LogVarianceHead,
    TemporalConvNet,
    VideoEncoder,
    length_mask,
    zero_padding,
)

__all__ = ["AnomalyHead", "Detector", "Output", "build"]


@dataclass(frozen=True)
class Output:
    """Everything a detector says about a batch. Rows outside ``mask`` mean nothing."""

    features: Tensor  # (B, T, D): x_av of the teacher, x_vs of a student
    anomaly_logits: Tensor  # (B, T): classification branch
    alignment_logits: Tensor  # (B, T, C): the alignment map, temperature applied
    class_embeddings: Tensor  # (C, D): x_c, before the audio-visual prompt
    prompted_embeddings: Tensor  # (B, C, D): x_cp, after it
    log_variance: Tensor | None  # (B, T, D): ln sigma^2 of a student that distils
    mask: Tensor  # (B, T) bool: the snippets that exist

    @property
    def confidence(self) -> Tensor:
        """a = sigmoid of the anomaly logits, (B, T)."""
        return torch.sigmoid(self.anomaly_logits)

    @property
    def class_probabilities(self) -> Tensor:
        """Softmax over classes of the alignment map, (B, T, C)."""
        return self.alignment_logits.softmax(dim=-1)


class AnomalyHead(nn.Module):
    """The classification branch: one anomaly logit a snippet, ``Linear_D->1(x + FFN(x))``."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.ffn = FeedForward(dim)
        self.score = nn.Linear(dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, D) -> logits (B, T)."""
        return self.score(x + self.ffn(x)).squeeze(-1)


class Detector(nn.Module):
    """An AVadCLIP detector. ``settings.model.role`` decides which one.

    "audio_visual" is the teacher: video encoder, audio branch, fusion. "vision" and "audio" are
    students: the encoder on the features of their one modality, the enhancement module, and (where
    the loss is an uncertainty-driven distillation) a head for the log-variance. Both heads and both
    prompts are the same in all of them. Build it with ``build``.
    """

    def __init__(self, settings: Config, text: TextTower, prompts: WordPrompts) -> None:
        super().__init__()
        model, loss = settings.model, settings.loss
        self.settings = settings
        self.encoder = VideoEncoder(
            model.dim,
            heads=model.heads,
            blocks=model.blocks,
            window=model.window,
            max_snippets=model.max_snippets,
            threshold=model.similarity_threshold,
            padding=model.padding,
        )
        self.log_variance = None
        if model.role == "audio_visual":
            self.audio_encoder = TemporalConvNet(
                model.dim,
                dilations=model.tcn_dilations,
                dropout=model.tcn_dropout,
                context=model.audio_context,
            )
            self.fusion = build_fusion(model)
        else:
            self.enhancement = Enhancement(model.dim, model.enhancement_blocks)
            if loss.ukd in ("paper", "released"):
                self.log_variance = LogVarianceHead(
                    model.dim, bounded=model.variance_head == "bounded"
                )
        self.anomaly = AnomalyHead(model.dim)
        self.textual_prompt = TextualPrompt(
            text, prompts, before=model.context_before, after=model.context_after
        )
        self.av_prompt = None
        if model.av_prompt != "none":
            self.av_prompt = AudioVisualPrompt(
                model.dim,
                weights=model.av_prompt,
                skip=model.prompt_skip,
                temperature=model.prompt_temperature,
            )
        learned = loss.focal_alpha_learned and loss.alignment == "cross_entropy_focal"
        start = torch.full((len(prompts.ids),), loss.focal_alpha)
        self.alpha = nn.Parameter(start) if learned else None  # goes to the focal loss

    def forward(
        self,
        video: Tensor | None,
        audio: Tensor | None,
        lengths: Tensor,
        audio_mask: Tensor | None = None,
    ) -> Output:
        """video, audio (B, T, D), lengths (B,) snippets, audio_mask (B, T) True where there is
        sound (``None``: everywhere). A student ignores the other modality, which may be ``None``.

        With ``padding="leaking"`` the batch is filled with zeros to ``max_snippets`` rows for the
        computation, as the release always does, and what comes back is cut to T rows again.
        """
        model = self.settings.model
        features, log_variance, mask = self._encode(video, audio, lengths, audio_mask)
        snippets = (audio if model.role == "audio" else video).shape[1]

        anomaly = self.anomaly(features)  # (B, T)
        x_c = self.textual_prompt()  # (C, D)
        prompted = x_c.expand(len(features), -1, -1)
        if self.av_prompt is not None:
            weights = anomaly if model.global_weight == "logit" else torch.sigmoid(anomaly)
            # Masked padding has zero features and so no part in the vector, whatever its weight.
            prompted = self.av_prompt(x_c, global_vector(features, weights))
        alignment = alignment_map(features, prompted, model.temperature)
        return Output(
            features=features[:, :snippets],
            anomaly_logits=anomaly.float()[:, :snippets],
            alignment_logits=alignment[:, :snippets],
            class_embeddings=x_c,
            prompted_embeddings=prompted,
            log_variance=None if log_variance is None else log_variance[:, :snippets],
            mask=mask[:, :snippets],
        )

    def features(
        self,
        video: Tensor | None,
        audio: Tensor | None,
        lengths: Tensor,
        audio_mask: Tensor | None = None,
    ) -> Tensor:
        """``forward(...).features`` (B, T, D) without the two heads: all that a student needs of
        its teacher."""
        features, _, _ = self._encode(video, audio, lengths, audio_mask)
        return features[:, : (audio if self.settings.model.role == "audio" else video).shape[1]]

    def _encode(
        self,
        video: Tensor | None,
        audio: Tensor | None,
        lengths: Tensor,
        audio_mask: Tensor | None,
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Features, log-variance and mask over all the rows that are computed."""
        model = self.settings.model
        if model.role != "audio":
            _check_input("video", video, model.dim)
        if model.role != "vision":
            _check_input("audio", audio, model.dim)
            audio = zero_padding(audio, audio_mask)
        if model.role == "audio_visual" and video.shape[:2] != audio.shape[:2]:
            raise ValueError(
                f"video {tuple(video.shape)} and audio {tuple(audio.shape)} must hold the same "
                "videos and snippets; cut or resample them together"
            )
        main = audio if model.role == "audio" else video
        fill = model.max_snippets - main.shape[1]
        if model.padding == "leaking" and fill > 0:
            main = F.pad(main, (0, 0, 0, fill))
            audio = audio if audio is None else F.pad(audio, (0, 0, 0, fill))
            audio_mask = audio_mask if audio_mask is None else F.pad(audio_mask, (0, fill))
        mask = length_mask(lengths, main.shape[1])
        keep = mask if model.padding == "masked" else None

        encoded = self.encoder(main, mask)  # (B, T, D)
        log_variance = None
        if model.role == "audio_visual":
            heard = self.audio_encoder(audio, keep)
            sound = audio_mask if model.missing_audio == "skip" else None
            features = self.fusion(encoded, heard, keep, sound)
        else:
            features = self.enhancement(encoded, keep)
            if self.log_variance is not None:
                log_variance = self.log_variance(encoded, keep)
        return features, log_variance, mask

    def trainable_state(self) -> dict[str, Tensor]:
        """All weights but the frozen text tower's, by name."""
        return {k: v for k, v in self.state_dict().items() if not k.startswith(_TOWER)}

    def load_trainable_state(self, state: dict[str, Tensor]) -> None:
        """The inverse of ``trainable_state``.

        Raises ``ValueError`` naming the first key that is missing, unknown or of another shape.
        """
        own = self.trainable_state()
        for key in sorted(own.keys() ^ state.keys()):
            what = "lacks" if key in own else "has the unknown key"
            raise ValueError(
                f"the checkpoint {what} {key!r}; it belongs to another configuration than this "
                f"{self.settings.model.role} detector"
            )
        for key, value in state.items():
            if value.shape != own[key].shape:
                raise ValueError(
                    f"the checkpoint's {key!r} has shape {tuple(value.shape)}, this detector needs "
                    f"{tuple(own[key].shape)}"
                )
        self.load_state_dict(state, strict=False)


_TOWER = "textual_prompt.tower."


def _check_input(name: str, features: Tensor | None, dim: int) -> None:
    if features is None:
        raise ValueError(f"this detector needs {name} features, got None")
    if features.ndim != 3 or features.shape[-1] != dim:
        raise ValueError(
            f"{name} must be (videos, snippets, {dim}), got {tuple(features.shape)}; the feature "
            "width and the configuration's dim have to agree"
        )


def build(settings: Config, text: TextTower, prompts: WordPrompts) -> Detector:
    """A detector with fresh weights, drawn from torch's global generator: seed it first.

    ``text`` and ``prompts`` come from ``encoders.load_text``. Raises ``ValueError`` if the text
    tower's embeddings are not as wide as the features.
    """
    if text.dim != settings.model.dim:
        raise ValueError(
            f"the text tower gives embeddings of width {text.dim}, the configuration says "
            f"dim={settings.model.dim}; take the encoders that made the features"
        )
    return Detector(settings, text, prompts)
