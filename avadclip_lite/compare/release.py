"""The authors' release: its checkpoints in our modules, and our weights in its key format.

    teacher = load_teacher("model_t.pth")     # or an already loaded state dict
    output = teacher(video, audio, lengths)   # (B, T, 512) each

The release saves bare state dicts with the whole frozen CLIP inside. What it computes is form
"released" at D = 512: every batch is filled with zeros to 256 snippets and the padding takes part.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor

from avadclip_lite.config import CLIP_DIM, XD_CLASSES, Role, make_config
from avadclip_lite.encoders import (
    CLIP_TEXT_HEADS,
    END_TOKEN,
    START_TOKEN,
    TextTower,
    WordPrompts,
    token_ids,
)
from avadclip_lite.model import Detector, build

__all__ = ["load_student", "load_teacher", "release_key", "to_release_state"]

CLIP_PREFIX = "clipmodel."
_UNUSED_CLIP = re.compile(r"clipmodel\.(visual\..+|logit_scale)")
# Second names that the release's audio branch gives its convolutions, inside nn.Sequential.
_ALIAS = re.compile(r"(temporalconvnet\.network\.\d+)\.net\.([04])\.(.+)")
_ALIAS_OF = {"0": "conv1", "4": "conv2"}
_SIGMA = "disAdj.sigma"  # saved by the release, used nowhere
_SIGMA_START = 0.1

# Our names to the release's, applied in this order.
_RENAME = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"^encoder\.transformer\.positions$", "frame_position_embeddings.weight"),
        (r"^encoder\.transformer\.blocks\.", "temporal.resblocks."),
        (r"\.norm_attention\.", ".ln_1."),
        (r"\.norm_ffn\.", ".ln_2."),
        (r"\.qkv\.(weight|bias)$", r".attn.in_proj_\1"),
        (r"^(temporal\.resblocks\.\d+)\.out\.", r"\1.attn.out_proj."),
        (r"^(temporal\.resblocks\.\d+)\.ffn\.", r"\1.mlp."),
        (r"^encoder\.similarity\.0\.", "gc1."),
        (r"^encoder\.similarity\.1\.", "gc2."),
        (r"^encoder\.distance\.0\.", "gc3."),
        (r"^encoder\.distance\.1\.", "gc4."),
        (r"^encoder\.project\.", "linear."),
        (r"^audio_encoder\.blocks\.", "temporalconvnet.network."),
        (r"\.parametrizations\.weight\.original0$", ".weight_g"),
        (r"\.parametrizations\.weight\.original1$", ".weight_v"),
        (r"^fusion\.weigh\.", "temporalgatedresidual.gate_proj.0."),
        (r"^fusion\.mix\.", "temporalgatedresidual.residual_proj.0."),
        (r"^fusion\.out\.", "temporalgatedresidual.residual_proj.2."),
        (r"^enhancement\.convs\.(\d+)\.", r"fe_net.conv.\1.conv.0."),
        (r"^log_variance\.first\.", "fe_net.theta.theta.0."),
        (r"^log_variance\.middle\.", "fe_net.theta.theta.2."),
        (r"^log_variance\.last\.", "fe_net.theta.theta.3."),
        (r"^anomaly\.ffn\.", "mlp2."),
        (r"^anomaly\.score\.", "classifier."),
        (r"^av_prompt\.ffn\.", "mlp1."),
        (r"\.widen\.", ".c_fc."),
        (r"\.narrow\.", ".c_proj."),
        (r"^textual_prompt\.context$", "text_prompt_embeddings.weight"),
    )
)


def release_key(name: str) -> str:
    """The release's name of one of our trainable weights: ``encoder.project.bias`` is
    ``linear.bias``."""
    for pattern, replacement in _RENAME:
        name = pattern.sub(replacement, name)
    return name


def load_teacher(source: str | Path | Mapping[str, Tensor]) -> Detector:
    """The release's audio-visual teacher, in eval mode on the CPU, from a file or a state dict.

    Raises ``FileNotFoundError`` for a missing file, and ``ValueError`` naming the key for a key
    that is missing, unexpected or of another shape.
    """
    return _load(source, "audio_visual")


def load_student(source: str | Path | Mapping[str, Tensor]) -> Detector:
    """The release's vision-only student; otherwise like ``load_teacher``."""
    return _load(source, "vision")


def to_release_state(detector: Detector, clip_state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A detector's weights under the release's key names, as its code would load them.

    ``clip_state`` is the CLIP the detector was trained against, with or without the prefix
    ``clipmodel.``; it is copied in whole. A focal weight that was not learned is written as the
    constant it was. The release computes form "released": weights trained in another form load
    there, but are not run in the way they were trained.

    Raises ``ValueError`` naming a part that the release does not have, or lacks in the detector.
    """
    settings = detector.settings
    state = {release_key(k): v.detach().clone() for k, v in detector.trainable_state().items()}
    tower, prompts = detector.textual_prompt.tower, detector.textual_prompt.prompts
    template = _template(settings.model.role, settings.model.dim, tower, prompts)
    state.setdefault("alpha", torch.full((len(prompts.ids),), settings.loss.focal_alpha))
    state[_SIGMA] = torch.full((1,), _SIGMA_START)
    _check_keys(state, _release_shapes(template), "this detector")
    for key in [k for k in state if k.startswith("temporalconvnet.")]:
        stem, conv, rest = re.match(r"(.+)\.(conv[12])\.(.+)", key).groups()
        state[f"{stem}.net.{0 if conv == 'conv1' else 4}.{rest}"] = state[key]
    clip = {
        key if key.startswith(CLIP_PREFIX) else CLIP_PREFIX + key: value
        for key, value in clip_state.items()
    }
    for key, value in tower.state_dict().items():
        other = clip.get(CLIP_PREFIX + key)
        if other is None or not torch.equal(other.float().cpu(), value.cpu()):
            raise ValueError(
                f"clip_state's {key} is missing or not the one this detector was trained against; "
                "give the CLIP weights that the text tower came from"
            )
    return state | clip


def _load(source: str | Path | Mapping[str, Tensor], role: Role) -> Detector:
    state, where = _read(source)
    state = _without_aliases(state, where)
    text = {k: v for k, v in state.items() if k.startswith(CLIP_PREFIX)}
    text = {k: v for k, v in text.items() if not _UNUSED_CLIP.fullmatch(k)}
    own = {k: v for k, v in state.items() if not k.startswith(CLIP_PREFIX)}
    _check_keys(text, _clip_text_shapes(), where)
    with torch.random.fork_rng(devices=[]):
        tower = TextTower.from_state_dict(text, prefix=CLIP_PREFIX, heads=CLIP_TEXT_HEADS)
    words = tuple(token_ids(word) for word in XD_CLASSES.words)
    detector = _template(role, CLIP_DIM, tower, WordPrompts(words, START_TOKEN, END_TOKEN))
    _check_keys(own, _release_shapes(detector), where)
    detector.load_trainable_state(
        {key: own[release_key(key)].float() for key in detector.trainable_state()}
    )
    return detector.eval()


def _template(role: Role, dim: int, tower: TextTower, prompts: WordPrompts) -> Detector:
    """The release's own architecture, freshly built, without touching the global generator."""
    with torch.random.fork_rng(devices=[]):
        settings = make_config(form="released", scale="xd", role=role, dim=dim)
        return build(settings, tower, prompts)


def _release_shapes(detector: Detector) -> dict[str, tuple[int, ...]]:
    """The release's trainable keys and shapes, from a detector of its architecture."""
    shapes = {release_key(k): tuple(v.shape) for k, v in detector.trainable_state().items()}
    return shapes | {_SIGMA: (1,)}


def _read(source: str | Path | Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """A state dict and how to call it in messages."""
    where = "the state dict"
    if isinstance(source, (str, Path)):
        where = str(source)
        if not Path(source).is_file():
            raise FileNotFoundError(
                f"{where} does not exist; download the release's checkpoint from the link in its "
                "README"
            )
        try:
            source = torch.load(source, map_location="cpu", weights_only=True)
        except (UnpicklingError, RuntimeError, EOFError, ValueError) as error:
            raise ValueError(
                f"{where} is no checkpoint that can be read safely; download it again"
            ) from error
    if not isinstance(source, Mapping) or not all(isinstance(v, Tensor) for v in source.values()):
        raise ValueError(
            f"{where} is not a bare state dict (names to tensors), which is what the release saves"
        )
    return dict(source), where


def _without_aliases(state: dict[str, Tensor], where: str) -> dict[str, Tensor]:
    """Second names folded into the first; ``ValueError`` if the two hold different values."""
    folded = {k: v for k, v in state.items() if not _ALIAS.fullmatch(k)}
    for key in state.keys() - folded.keys():
        stem, place, rest = _ALIAS.fullmatch(key).groups()
        first = f"{stem}.{_ALIAS_OF[place]}.{rest}"
        if not torch.equal(folded.setdefault(first, state[key]), state[key]):
            raise ValueError(
                f"{where}: {key} and {first} are two names of one tensor but hold different "
                "values; keep one of them"
            )
    return folded


def _check_keys(state: Mapping[str, Tensor], expected: Mapping[str, tuple], where: str) -> None:
    for key in sorted(expected.keys() - state.keys()):
        raise ValueError(f"{where} lacks {key}, which the release's model has")
    for key in sorted(state.keys() - expected.keys()):
        raise ValueError(f"{where} has {key}, which the release's model does not have")
    for key, shape in expected.items():
        if tuple(state[key].shape) != tuple(shape):
            raise ValueError(
                f"{where}: {key} has shape {tuple(state[key].shape)}, the release's model needs "
                f"{tuple(shape)}"
            )


def _clip_text_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the text tower of CLIP ViT-B/16, prefix included."""
    w = CLIP_DIM
    shapes = {
        "positional_embedding": (77, w),
        "text_projection": (w, w),
        "token_embedding.weight": (END_TOKEN + 1, w),
        "ln_final.weight": (w,),
        "ln_final.bias": (w,),
    }
    block = {
        "attn.in_proj_weight": (3 * w, w),
        "attn.in_proj_bias": (3 * w,),
        "attn.out_proj.weight": (w, w),
        "attn.out_proj.bias": (w,),
        "ln_1.weight": (w,),
        "ln_1.bias": (w,),
        "mlp.c_fc.weight": (4 * w, w),
        "mlp.c_fc.bias": (4 * w,),
        "mlp.c_proj.weight": (w, 4 * w),
        "mlp.c_proj.bias": (w,),
        "ln_2.weight": (w,),
        "ln_2.bias": (w,),
    }
    for layer in range(12):
        shapes |= {f"transformer.resblocks.{layer}.{k}": v for k, v in block.items()}
    return {CLIP_PREFIX + key: shape for key, shape in shapes.items()}
