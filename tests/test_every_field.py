"""Every field of the configuration does something: two values of it give two trainings.

A field that is read and never passed on is the commonest fault of a configuration, and no test of
a single module sees it. Here each field is changed alone, a tiny detector is trained, and what it
predicts, or its losses on the way, must differ; the same settings twice must give the same.
"""

from __future__ import annotations

import functools
from dataclasses import fields

import numpy as np
import pytest
from tiny import DIM, tiny_settings, tiny_text

from avadclip_lite.config import (
    XD_CLASSES,
    Config,
    DataConfig,
    LossConfig,
    ModelConfig,
    TrainConfig,
)
from avadclip_lite.dataset import FeatureStore
from avadclip_lite.evaluate import predict_store
from avadclip_lite.features.writer import StoreWriter
from avadclip_lite.train import fit

STUDENT = {"role": "vision"}
FEATURES = {"role": "vision", "ukd": "released", "ukd_weight": 1.0}
# field: (settings around it, one value, another value)
FIELDS = {
    "role": ({"ukd": "none"}, "audio_visual", "vision"),
    "heads": ({}, 1, 2),
    "blocks": ({}, 1, 2),
    "window": ({}, 2, 4),
    "max_snippets": ({}, 8, 12),
    "similarity_threshold": ({}, 0.0, 0.9),
    "padding": ({"length_aware": False}, "masked", "leaking"),
    "fusion": ({}, "adaptive", "add"),
    "fusion_heads": ({"fusion": "cross_attention"}, 1, 2),
    "tcn_dilations": ({}, (1, 2), (1, 4)),
    "audio_context": ({}, "causal", "both"),
    "tcn_dropout": ({}, 0.0, 0.5),
    "enhancement_blocks": (STUDENT, 1, 3),
    "context_before": ({}, 1, 2),
    "context_after": ({}, 1, 2),
    "av_prompt": ({}, "softmax", "uniform"),
    "prompt_temperature": ({}, 1.0, 0.1),
    "global_weight": ({}, "confidence", "logit"),
    "prompt_skip": ({}, "class", "sum"),
    "temperature": ({}, 0.07, 0.2),
    "variance_head": (FEATURES, "free", "bounded"),
    "missing_audio": ({}, "skip", "zeros"),
    "topk_divisor": ({}, 16, 2),
    "alignment": ({}, "cross_entropy_focal", "cross_entropy"),
    "focal_gamma": ({}, 2.0, 0.0),
    "focal_alpha": ({}, 0.25, 0.75),
    "focal_alpha_learned": ({}, False, True),
    "contrast_weight": ({}, 0.0, 1.0),
    "ukd": (STUDENT, "paper", "mse"),
    "ukd_weight": (STUDENT, 1.0, 0.1),
    "ukd_mask": (STUDENT, True, False),
    "seed": ({}, 0, 1),
    "epochs": ({"selection": "last"}, 1, 2),
    "batch_size": ({}, 4, 6),
    "learning_rate": ({}, 1e-3, 1e-2),
    "weight_decay": ({}, 0.0, 1.0),
    "milestones": ({"epochs": 2, "selection": "last"}, (), (1,)),
    "grad_clip": ({}, 0.0, 1e-3),
    "selection": ({}, "holdout", "last"),
    "reload_best": ({"selection": "test", "epochs": 6, "learning_rate": 0.03}, False, True),
    "holdout_share": ({}, 0.2, 0.4),
    "max_steps": ({}, 1, 2),
    "precision": ({}, "float32", "bf16"),
    "resample": ({"role": "audio_visual"}, "together", "separate"),
    "crops": ({}, "all", "first"),
    "length_aware": ({}, True, False),
    "dim": None,  # the store's width: another one is refused (test_train)
    "device": None,  # another one needs a GPU; names are tried in test_train
}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> FeatureStore:
    """Two crops a video, bags longer than any position table below, sound that is missing, or one
    snippet shorter."""
    path = tmp_path_factory.mktemp("data") / "crops"
    rng = np.random.default_rng(4)
    with StoreWriter(
        path, classes=XD_CLASSES, dim=DIM, stride=16, encoder="tiny", dtype="float32"
    ) as writer:
        for i in range(18):
            snippets = int(rng.integers(5, 24))
            code = XD_CLASSES.codes[i % 7]
            audio = rng.standard_normal((snippets - i % 2, DIM)).astype(np.float32)
            test = i >= 14
            base = rng.standard_normal((snippets, DIM)).astype(np.float32)
            for crop in (5,) if test else (0, 5):
                noise = rng.standard_normal((snippets, DIM)).astype(np.float32)
                writer.add(
                    name=f"v{i}_label_{code}",
                    label=code,
                    split="test" if test else "train",
                    crop=crop,
                    video=base + 0.3 * noise,
                    audio=None if i in (3, 15) else audio,
                    segments=[(code, 16, 48)] if test and code != "A" else [],
                )
        writer.finish()
    return FeatureStore.open(path)


@pytest.fixture(scope="module")
def trained(store):
    """What a training with these settings predicts, and its losses; each is trained once."""
    text, prompts = tiny_text()
    base = {"max_snippets": 10, "epochs": 1, "batch_size": 4, "learning_rate": 5e-3}

    @functools.cache
    def teacher():
        return fit(tiny_settings(**base), store, text=text, prompts=prompts, progress=False).model

    @functools.cache
    def of(choices: tuple) -> np.ndarray:
        settings = tiny_settings(**base | dict(choices))
        distils = settings.model.role != "audio_visual" and settings.loss.ukd != "none"
        result = fit(
            settings,
            store,
            text=text,
            prompts=prompts,
            teacher=teacher() if distils else None,
            progress=False,
        )
        found = predict_store(result.model, store, store.indices("test"))
        losses = [entry["total"] for entry in result.history]
        return np.concatenate([found.anomaly_logits, found.alignment.ravel(), losses])

    return lambda **choices: of(tuple(sorted(choices.items())))


def test_every_field_is_in_the_table() -> None:
    sections = (ModelConfig, LossConfig, TrainConfig, DataConfig)
    names = [item.name for section in sections for item in fields(section)]
    assert sorted(names) == sorted(FIELDS)
    # form and scale choose defaults for the fields above (test_config); detector and options are
    # the seam's (test_seam)
    rest = {item.name for item in fields(Config)} - {"model", "loss", "train", "data"}
    assert rest == {"form", "scale", "detector", "options"}


@pytest.mark.parametrize("field", [name for name, row in FIELDS.items() if row])
def test_two_values_of_a_field_give_two_trainings(trained, field) -> None:
    around, one, other = FIELDS[field]
    first = trained(**around | {field: one})
    second = trained(**around | {field: other})
    same_size = first.shape == second.shape
    changed = not same_size or float(np.abs(first - second).max()) > 1e-6
    assert changed, f"{field} changes nothing"


def test_the_same_settings_give_the_same_training(trained) -> None:
    assert np.array_equal(trained(), trained(seed=0))
