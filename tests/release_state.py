"""Our weights in the release's key format, as its code would load them: the inverse of
``compare.release``, so that both directions can be held together."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from avadclip_lite.compare.release import CLIP_PREFIX, SIGMA, release_key
from avadclip_lite.config import make_config
from avadclip_lite.encoders import check_weights
from avadclip_lite.model import AVadCLIP, build


def to_release_state(detector: AVadCLIP, clip_state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A detector's weights under the release's key names, as its code would load them.

    ``clip_state`` is the CLIP the detector was trained against, with or without the prefix
    ``clipmodel.``; it is copied in whole. A focal weight that was not learned is written as the
    constant it was. The release computes form "released": weights trained in another form load
    there, but are not run in the way they were trained.

    Raises ``ValueError`` naming a part that the release does not have, or lacks in the detector.
    """
    settings, prompt = detector.settings, detector.textual_prompt
    state = {release_key(k): v.detach().clone() for k, v in detector.trainable_state().items()}
    of = {"role": settings.model.role, "dim": settings.model.dim}
    theirs = build(make_config(form="released", scale="xd", **of), prompt.tower, prompt.prompts)
    needed = {release_key(k): v for k, v in theirs.trainable_state().items()}
    state.setdefault("alpha", torch.full((len(prompt.prompts.ids),), settings.loss.focal_alpha))
    state[SIGMA] = torch.full((1,), 0.1)
    check_weights(state, needed | {SIGMA: state[SIGMA]}, "this detector")
    for key in [k for k in state if k.startswith("temporalconvnet.")]:
        stem, conv, rest = re.match(r"(.+)\.(conv[12])\.(.+)", key).groups()
        state[f"{stem}.net.{0 if conv == 'conv1' else 4}.{rest}"] = state[key]
    clip = {CLIP_PREFIX + k.removeprefix(CLIP_PREFIX): value for k, value in clip_state.items()}
    for key, value in prompt.tower.state_dict().items():
        other = clip.get(CLIP_PREFIX + key)
        if other is None or not torch.equal(other.float().cpu(), value.cpu()):
            raise ValueError(
                f"clip_state's {key} is missing or not the one this detector was trained against; "
                "give the CLIP weights that the text tower came from"
            )
    return state | clip
