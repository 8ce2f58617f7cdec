"""The systems that the paper compares with, each through the same seam as AVadCLIP.

    settings = configure("rtfm", scale="soundstage", modality="audio_visual")
    result = fit(settings, store)

Importing this package registers them all; ``SYSTEMS`` says what each one's idea is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from avadclip_lite.baselines import (  # noqa: F401  (importing registers them)
    avvd_style,
    clip_tsa,
    cupl,
    deepmil,
    fvai,
    hl_net,
    ju_like,
    macil_sd,
    rtfm,
    ur_dmu,
    vadclip,
)
from avadclip_lite.config import Config, Scale, make_config

__all__ = ["SYSTEMS", "System", "configure"]


@dataclass(frozen=True, kw_only=True)
class System:
    """A system of the field and its published recipe."""

    idea: str
    year: int
    takes: str  # modalities that it can be given, its native ones first
    batch: int = 64
    rate: float = 1e-4
    decay: float = 0.0
    steps: int = 0  # published optimiser steps; 0: AVadCLIP's own recipe
    drops: tuple[float, ...] = ()  # rate x 0.1 after these shares of the epochs
    small: dict[str, Any] = field(default_factory=dict)  # options at scale "soundstage"
    fields: dict[str, Any] = field(default_factory=dict)


SYSTEMS: dict[str, System] = {
    "vadclip": System(
        idea="frozen CLIP with both its sides: a binary and a class-wise branch, learned prompts",
        year=2024,
        takes="vision",
        fields=vadclip.FIELDS,
    ),
}


def configure(name: str, *, scale: Scale, **overrides: Any) -> Config:
    """The settings of a system."""
    system = SYSTEMS[name]
    return make_config(detector=name, scale=scale, **(system.fields | overrides))
