"""The systems that the paper compares with, TPWNG, which it cites, and four simple ones; one seam.

    settings = configure("rtfm", scale="soundstage", options={"modality": "audio_visual"})
    result = fit(settings, store)

Importing this package registers them. AVCL (Meng et al., IEEE TMM 2025) is missing: we found its
abstract and no code, so it cannot be rebuilt honestly; its numbers are only quoted.
"""

from importlib import import_module
from pkgutil import iter_modules
from typing import Any, NamedTuple

from avadclip_lite.baselines import vadclip
from avadclip_lite.config import Config, Scale, make_config

for _file in iter_modules(__path__):  # a file registers its detector when it is imported
    import_module(f"{__name__}.{_file.name}")


class System(NamedTuple):
    """A system, and the recipe that it was published with (or that we chose, where none was)."""

    year: int
    takes: str  # modalities; "concatenated" where sound is appended to the features
    idea: str
    steps: int = 0  # optimiser steps on XD-Violence, or on the set it was published with
    batch: int = 64
    rate: float = 1e-4
    decay: float = 0.0
    drop: float = 0.0  # the rate is cut to a tenth after this share of the epochs; 0: never
    fields: dict[str, Any] = {}  # of the configuration, otherwise
    small: dict[str, Any] = {}  # options at scale "soundstage", in place of XD's sizes


_CAT, _BOTH, _SEE = "vision, concatenated", "vision, audio-visual", "vision"
_WORDS = {"context_before": 16, "context_after": 16}, {"context_before": 8, "context_after": 0}
SYSTEMS: dict[str, System] = {
    "zero_shot": System(2021, _BOTH, "compare snippets with the class words, learn nothing", 1),
    "linear_svm": System(1995, _CAT, "snippets inherit their video's label", 1),
    "one_class_svm": System(2001, _CAT, "whatever is unlike normal snippets is anomalous", 1),
    "late_fusion": System(2005, "audio-visual", "one detector a sense, scores averaged"),
    "deepmil": System(
        2018, _CAT, "an anomalous bag's best snippet outranks a normal one's", 20_000, 60, 0.01),
    "hl_net": System(
        2020, _CAT, "graphs through which snippets borrow evidence", 7750, 128, drop=0.18),
    "rtfm": System(
        2021, _CAT, "the length of the features chooses the snippets", 15_000, 64, 1e-3, 5e-3),
    "fvai": System(
        2021, "audio-visual", "each sense re-weights the other, then a product", 7750, 128),
    "avvd_style": System(
        2022, _CAT, "classes are named and localised from weak labels", 7750, 128, drop=0.18),
    "macil_sd": System(
        2022, _BOTH, "contrast between what is seen and what is heard", 7750, 128, 4e-4),
    "ju_like": System(2022, _SEE, "learned words, a light Transformer", fields=_WORDS[0]),
    "ur_dmu": System(
        2023, _CAT, "two memories, of the normal and of the abnormal", 3000, 128, 1e-4, 5e-5,
        small={"bins": 64, "width": 128}),
    "cupl": System(
        2023, _CAT, "complete pseudo labels, trusted where certain", 6000, 64, 1e-4, 5e-4),
    "clip_tsa": System(
        2023, _CAT, "RTFM on CLIP features behind a learned gate", 4000, 32, 1e-3, 5e-3),
    "tpwng_like": System(
        2024, _SEE, "CLIP as an annotator of snippets", 1280, 64, 1e-4, 5e-3, fields=_WORDS[1]),
    "vadclip": System(2024, _SEE, "CLIP's text side: two branches", fields=vadclip.FIELDS),
}  # fmt: skip
# What Soundstage leaves (of AVadCLIP's 4,120 steps of 96 a seventh: 580 of 32). SEEN: videos.
STEPS, BATCH, SEEN = 1 / 8, 1 / 3, 580 * 32


def configure(name: str, *, scale: Scale, **overrides: Any) -> Config:
    """The settings of a system at a scale, single fields overridden by name. One rule scales every
    schedule: at "xd" a system takes its published steps and batches, on Soundstage an eighth of the
    steps and a third of a batch, close to AVadCLIP's, and sees no fewer videos than it. Optimiser,
    rate and decay are its own; epochs, looks at held-out videos, are everybody's: where they are
    overridden, steps follow in proportion. Without steps of its own it takes AVadCLIP's recipe.
    ``ValueError``: unknown name, field or option."""
    if name not in SYSTEMS:
        raise ValueError(f"unknown system {name!r}; known: {', '.join(SYSTEMS)}")
    system, options = SYSTEMS[name], make_config(options=overrides.pop("options", None)).options
    heads = {} if name == "vadclip" else {"precision": "float32"}  # they have no float32 heads
    fields = heads | system.fields
    if system.steps:
        epochs, usual = (make_config(scale=scale, **x).train.epochs for x in (overrides, {}))
        steps, batch = system.steps, system.batch
        if scale == "soundstage" and steps > 1:
            batch = 2 * round(batch * BATCH / 2)  # even: paired systems halve it
            batch = overrides.get("batch_size", batch)
            steps = max(round(steps * STEPS), -(-SEEN // batch))
        steps = -(-steps * epochs // usual) if steps > 1 else steps
        fields |= {"batch_size": batch, "learning_rate": system.rate, "weight_decay": system.decay}
        fields["milestones"] = (max(round(system.drop * epochs), 1),) if system.drop else ()
        options = {"steps": steps} | options
    elif scale == "soundstage":
        # AVadCLIP's recipe there: no drops, and 10 + 10 context vectors in a tower of 32 positions
        fields |= {"milestones": (), "context_before": 10, "context_after": 10}
    options = (system.small if scale == "soundstage" else {}) | options
    return make_config(detector=name, scale=scale, options=options, **(fields | overrides))
