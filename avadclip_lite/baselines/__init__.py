"""The systems that the paper compares with, each through the same seam as AVadCLIP.

    settings = configure("rtfm", scale="soundstage", options={"modality": "audio_visual"})
    result = fit(settings, store)

Importing this package registers them. AVCL (Meng et al., IEEE TMM 2025) is missing: no code,
equation or size of it is public, so it cannot be rebuilt honestly; its numbers are only quoted.
"""

from typing import Any, NamedTuple

from avadclip_lite.baselines import (  # noqa: F401  (importing registers)
    avvd_style,
    clip_tsa,
    cupl,
    deepmil,
    fvai,
    hl_net,
    ju_like,
    macil_sd,
    rtfm,
    simple,
    tpwng_like,
    ur_dmu,
    vadclip,
)
from avadclip_lite.config import Config, Scale, make_config


class System(NamedTuple):
    """A system, and the recipe that it was published with (or that we chose, where none was)."""

    idea: str
    year: int
    takes: str  # modalities; "concatenated" where sound is appended to the features
    steps: int = 0  # optimiser steps on XD-Violence, or on the set it was published with
    batch: int = 64
    rate: float = 1e-4
    decay: float = 0.0
    drops: tuple[float, ...] = ()  # the rate is cut to a tenth after these shares of the epochs
    fields: dict[str, Any] = {}  # of the configuration, otherwise
    small: dict[str, Any] = {}  # options at scale "soundstage": sizes made for 512-wide features


_CONCAT, _BOTH = "vision, concatenated", "vision, audio-visual"
SYSTEMS: dict[str, System] = {
    "zero_shot": System("compare snippets with the class words; learn nothing", 2021, _BOTH, 1),
    "linear_svm": System("snippets inherit their video's label", 2004, _CONCAT, 1),
    "one_class_svm": System("whatever is unlike normal snippets", 2001, _CONCAT, 1),
    "late_fusion": System("one small network a sense, scores averaged", 2014, "audio-visual", 4000),
    "deepmil": System(
        "rank the best snippet of an anomalous bag above a normal bag's", 2018, _CONCAT,
        steps=20_000, batch=60, rate=0.01,
    ),
    "hl_net": System(
        "three graphs let a snippet borrow evidence; an online student", 2020, _CONCAT,
        steps=7750, batch=128, drops=(0.18,),
    ),
    "rtfm": System(
        "the length of the features chooses the snippets", 2021, _CONCAT,
        steps=15_000, rate=1e-3, decay=5e-3,
    ),
    "fvai": System(
        "each sense re-weights the other; fusion by multiplication", 2021, _BOTH,
        steps=7750, batch=128,
    ),
    "avvd_style": System(
        "classes are named and localised from weak labels", 2022, _CONCAT,
        steps=7750, batch=128, drops=(0.18,),
    ),
    "macil_sd": System(
        "contrast between what is seen and heard; weights averaged in", 2022, _BOTH,
        steps=7750, batch=128, rate=4e-4,
    ),
    "ju_like": System(
        "learned words around class names, a light Transformer", 2022, "vision",
        fields={"context_before": 16, "context_after": 16},
        small={"heads": 8},
    ),
    "ur_dmu": System(
        "two memories, of the normal and of the abnormal", 2023, _CONCAT,
        steps=3000, batch=128, decay=5e-5, small={"bins": 64, "width": 128},
    ),
    "cupl": System(
        "complete pseudo labels, trusted only where they are certain", 2023, _CONCAT,
        steps=6000, decay=5e-4,
    ),
    "clip_tsa": System(
        "RTFM on CLIP features behind a learned gate", 2023, _CONCAT,
        steps=4000, batch=32, rate=1e-3, decay=5e-3,
    ),
    "tpwng_like": System(
        "CLIP labels the snippets of a video whose class is known", 2024, "vision",
        steps=1280, decay=5e-3, fields={"context_before": 8, "context_after": 0},
    ),
    "vadclip": System(
        "keep CLIP's text side: a binary and a class-wise branch", 2024, "vision",
        fields=vadclip.FIELDS,
    ),
}  # fmt: skip
SHARE = {"xd": 1.0, "soundstage": 1 / 8}  # AVadCLIP: 4,120 steps on XD-Violence, 500 on Soundstage


def configure(name: str, *, scale: Scale, **overrides: Any) -> Config:
    """The settings of a system at a scale, single fields overridden by name.

    One rule scales every schedule: a system takes its published number of steps on XD-Violence, and
    an eighth of them on Soundstage, as AVadCLIP does. Batch size, optimiser, rate and decay are its
    own; epochs, that is looks at held-out videos, are everybody's. Without steps of its own a
    system takes AVadCLIP's recipe. Raises ``ValueError`` for an unknown name, field or option.
    """
    if name not in SYSTEMS:
        raise ValueError(f"unknown system {name!r}; known: {', '.join(SYSTEMS)}")
    system, options = SYSTEMS[name], dict(overrides.pop("options", {}))
    fields = {"milestones": ()} | system.fields
    if scale == "soundstage":
        options = system.small | options
    if system.steps:
        fields |= {"batch_size": system.batch, "learning_rate": system.rate}
        fields |= {"weight_decay": system.decay}
        epochs = make_config(scale=scale, **overrides).train.epochs
        fields["milestones"] = tuple(max(round(share * epochs), 1) for share in system.drops)
        options = {"steps": max(round(system.steps * SHARE[scale]), 1)} | options
    return make_config(detector=name, scale=scale, options=options, **(fields | overrides))
