"""The configuration: its two axes, what it refuses, and that nothing changes without a trace."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import DIM, tiny_settings, tiny_text

import avadclip_lite
from avadclip_lite import config
from avadclip_lite.config import (
    CCTV_CLASSES,
    XD_CLASSES,
    Config,
    DataConfig,
    LossConfig,
    ModelConfig,
    TrainConfig,
    make_config,
)
from avadclip_lite.dataset import Batch
from avadclip_lite.evaluate import predict
from avadclip_lite.model import build
from avadclip_lite.train import TrainingRun

SECTIONS = (ModelConfig, LossConfig, TrainConfig, DataConfig)


def flat(settings: Config) -> dict[str, Any]:
    sections = (v for v in settings.to_dict().values() if isinstance(v, dict))
    return {name: value for section in sections for name, value in section.items()}


def difference(one: Config, other: Config) -> dict[str, tuple[Any, Any]]:
    a, b = flat(one), flat(other)
    return {name: (a[name], b[name]) for name in a if a[name] != b[name]}


# --- the axes ------------------------------------------------------------------------------------


# what the paper published for XD-Violence
PUBLISHED = {
    "dim": 512,
    "batch_size": 96,
    "learning_rate": 1e-5,
    "epochs": 10,
    "weight_decay": 0.01,
    "max_snippets": 256,
}


def test_scale_changes_size_and_pace_only() -> None:
    changed = difference(make_config(), make_config(scale="xd"))
    assert changed.keys() <= PUBLISHED.keys() | {"precision"}
    assert make_config().model.dim == 64  # of the features that ship


def test_the_scale_of_xd_violence_is_the_published_one() -> None:
    settings = flat(make_config(scale="xd"))
    assert {name: settings[name] for name in PUBLISHED} == PUBLISHED


def test_every_difference_of_the_release_is_a_field() -> None:
    """The list of what the authors' code does unlike the paper's text; nothing else may differ."""
    assert difference(make_config(), make_config(form="released")) == {
        "padding": ("masked", "leaking"),
        "length_aware": (True, False),
        "av_prompt": ("softmax", "uniform"),
        "global_weight": ("confidence", "logit"),
        "prompt_skip": ("class", "sum"),
        "enhancement_blocks": (1, 3),
        "variance_head": ("free", "bounded"),
        "missing_audio": ("skip", "zeros"),
        "focal_alpha_learned": (False, True),
        "contrast_weight": (0.0, 1e-4),
        "ukd": ("paper", "released"),
        "ukd_weight": (1.0, 1e-8),
        "ukd_mask": (True, False),
        "milestones": ([], [3, 6]),
        "selection": ("holdout", "test"),
        "reload_best": (False, True),
        "resample": ("together", "separate"),
        "seed": (0, 234),
    }


def test_form_and_scale_are_independent() -> None:
    paper, released = (
        difference(make_config(form=form), make_config(form=form, scale="xd"))
        for form in ("paper", "released")
    )
    assert paper == released


@pytest.mark.parametrize("role", ["vision", "audio"])
def test_students_have_one_block_and_wide_windows(role: str) -> None:
    assert difference(make_config(), make_config(role=role)) == {
        "role": ("audio_visual", role),
        "blocks": (2, 1),
        "window": (4, 64),
    }


def test_overrides_win_over_form_scale_and_role() -> None:
    settings = make_config(form="released", scale="xd", role="vision", window=8, epochs=1, seed=7)
    assert settings.model.window == 8
    assert settings.train.epochs == 1 and settings.train.seed == 7
    assert settings.model.dim == 512  # what was not overridden stays


def test_padding_that_leaks_is_never_cut() -> None:
    assert make_config(padding="leaking").data.length_aware is False
    with pytest.raises(ValueError, match="length_aware=True would change the result"):
        make_config(padding="leaking", length_aware=True)


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"form": "mine"}, "Config.form must be one of 'paper', 'released', got 'mine'"),
        ({"scale": "big"}, "Config.scale must be one of 'xd', 'soundstage', got 'big'"),
        ({"role": "smell"}, "ModelConfig.role must be one of .*, got 'smell'"),
        ({"fusion": "sum"}, "ModelConfig.fusion must be one of 'adaptive', .*, got 'sum'"),
        ({"epoch": 3}, "unknown configuration field 'epoch'; known fields: .*epochs"),
        ({"epochs": 0}, "TrainConfig.epochs must be at least 1, got 0"),
        ({"epochs": 2.0}, "TrainConfig.epochs must be a whole number, got 2.0"),
        ({"epochs": True}, "TrainConfig.epochs must be a whole number, got True"),
        ({"epochs": None}, "TrainConfig.epochs must be a whole number, got None"),
        ({"learning_rate": -1e-3}, "TrainConfig.learning_rate must be at least 0.0, got -0.001"),
        ({"learning_rate": float("nan")}, "learning_rate must be a finite number, got nan"),
        ({"learning_rate": float("inf")}, "learning_rate must be a finite number, got inf"),
        ({"learning_rate": "fast"}, "learning_rate must be a finite number, got 'fast'"),
        ({"tcn_dropout": 1.5}, "ModelConfig.tcn_dropout must be at most 0.9, got 1.5"),
        ({"temperature": 0.0}, "ModelConfig.temperature must be at least 1e-06, got 0.0"),
        (
            {"milestones": [3]},
            r"milestones must be a tuple \(in JSON: a list\), got \[3\]",
        ),
        ({"milestones": (3, 0)}, r"TrainConfig.milestones must be at least 1, got \(3, 0\)"),
        (
            {"milestones": (3, "x")},
            r"TrainConfig.milestones must be a whole number, got \(3, 'x'\)",
        ),
        ({"ukd_mask": 1}, "LossConfig.ukd_mask must be bool, got 1"),
        ({"device": 0}, "TrainConfig.device must be str, got 0"),
        ({"holdout_share": 0.6}, "TrainConfig.holdout_share must be at most 0.5, got 0.6"),
        ({"dim": 60}, "ModelConfig.dim must be divisible by 2, .*, got 60"),
        ({"dim": 64, "heads": 3}, "divisible by 2, heads=3"),
    ],
)
def test_a_bad_choice_is_named_with_its_value(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_config(**choices)


@pytest.mark.parametrize("section", SECTIONS, ids=lambda s: s.__name__)
def test_sections_are_frozen_and_take_keywords_only(section: type) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(section(), dataclasses.fields(section)[0].name, None)
    with pytest.raises(TypeError):
        section(1)


def test_no_field_name_is_in_two_sections() -> None:
    """``override`` finds a field's section by its name."""
    names = [field.name for section in SECTIONS for field in dataclasses.fields(section)]
    assert len(names) == len(set(names))


# --- traces --------------------------------------------------------------------------------------

# for every field another valid value
OTHER: dict[str, Any] = {
    "role": "vision",
    "dim": 128,
    "padding": "leaking",
    "fusion": "add",
    "tcn_dilations": (1, 2),
    "audio_context": "both",
    "av_prompt": "none",
    "global_weight": "logit",
    "prompt_skip": "sum",
    "variance_head": "bounded",
    "missing_audio": "zeros",
    "alignment": "none",
    "ukd": "mse",
    "milestones": (2,),
    "selection": "last",
    "precision": "bf16",
    "device": "cpu",
    "resample": "separate",
    "crops": "first",
    "similarity_threshold": 0.5,
    "heads": 2,
    "fusion_heads": 4,
    "holdout_share": 0.2,
}


def changed(name: str) -> Config:
    value = flat(make_config())[name]
    if name in OTHER:
        new = OTHER[name]
    elif isinstance(value, bool):
        new = not value
    else:
        new = value + 1 if isinstance(value, int) else value / 2 + 0.1
    return make_config(**{name: new})


@pytest.mark.parametrize("name", flat(make_config()))
def test_every_field_changes_the_digest_and_survives_a_file(name: str) -> None:
    settings = changed(name)
    assert name in difference(make_config(), settings)
    assert settings.digest() != make_config().digest()
    again = Config.from_dict(json.loads(json.dumps(settings.to_dict())))
    assert again == settings and again.digest() == settings.digest()


def test_form_and_scale_change_the_digest() -> None:
    every = [
        make_config(form=f, scale=s) for f in ("paper", "released") for s in ("xd", "soundstage")
    ]
    assert len({settings.digest() for settings in every}) == 4


def test_the_digest_is_the_same_in_another_process() -> None:
    code = "from avadclip_lite.config import make_config; print(make_config(seed=3).digest())"
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.strip() == make_config(seed=3).digest()


def test_with_leaves_the_original_alone() -> None:
    before = make_config()
    after = before.override(fusion="add", seed=4)
    assert difference(before, after) == {"fusion": ("adaptive", "add"), "seed": (0, 4)}
    assert before == make_config()


# --- classes -------------------------------------------------------------------------------------


def test_classes_are_the_papers_in_its_order() -> None:
    assert dict(zip(XD_CLASSES.codes, XD_CLASSES.words, strict=True)) == {
        "A": "normal",
        "B1": "fighting",
        "B2": "shooting",
        "B4": "riot",
        "B5": "abuse",
        "B6": "car accident",
        "G": "explosion",
    }
    assert len(XD_CLASSES) == 7 and XD_CLASSES.index("A") == 0 and XD_CLASSES.index("G") == 6
    assert CCTV_CLASSES.codes == ("A", "B1")


def test_an_unknown_code_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'B3'; XD-Violence knows A, B1, B2, B4, B5, B6, G"):
        XD_CLASSES.index("B3")


def test_the_shipped_data_can_be_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AVADCLIP_DATA", raising=False)
    assert config.soundstage_path() == Path(__file__).resolve().parents[1] / "data" / "soundstage"
    monkeypatch.setenv("AVADCLIP_DATA", "elsewhere")
    assert config.soundstage_path() == Path("elsewhere") / "soundstage"


def test_every_place_of_the_map_exists() -> None:
    """The package's docstring sends readers from equations to functions."""
    text = avadclip_lite.__doc__
    assert all(f"({n})" in text for n in range(1, 12))
    table = text.split("====\n")[1] if "====\n" in text else ""
    places = re.findall(r"``([a-z_]+\.[A-Za-z_.]+)``", table)
    assert len(places) > 20
    for place in places:
        module, *names = place.split(".")
        found = importlib.import_module(f"avadclip_lite.{module}")
        for name in names:
            found = getattr(found, name)


# --- arithmetic -----------------------------------------------------------------------------------


def switches() -> tuple[str, str]:
    return torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision


@pytest.mark.filterwarnings("ignore:CUDA is not available")
@pytest.mark.parametrize(
    ("precision", "device", "inside", "half"),
    [
        ("bf16", "cpu", "ieee", True),
        ("float32", "cuda", "ieee", False),
        ("tf32", "cuda", "tf32", False),
        ("bf16", "cuda", "ieee", True),
        ("auto", "cuda", "ieee", True),
        ("auto", "cpu", "ieee", False),
    ],
)
def test_one_setting_decides_products_and_convolutions(precision, device, inside, half) -> None:
    before = switches()
    with pytest.raises(ZeroDivisionError):
        with config.arithmetic(precision, device) as autocast:
            assert switches() == (inside, inside)
            with autocast:
                if device == "cpu" or torch.cuda.is_available():
                    assert torch.is_autocast_enabled(device) == half
            raise ZeroDivisionError
    assert switches() == before


def test_a_step_and_a_prediction_compute_as_the_setting_says(monkeypatch) -> None:
    """Forward, backward and loss of a step, and a prediction, see the switches of their setting."""
    text, prompts = tiny_text()
    for precision, expected in (("tf32", "tf32"), ("float32", "ieee"), ("bf16", "ieee")):
        settings = tiny_settings(precision=precision)
        model = build(settings, text, prompts)
        seen = []
        model.anomaly.score.register_forward_hook(lambda *_: seen.append(switches()))  # noqa: B023
        model.anomaly.score.weight.register_hook(lambda _: seen.append(switches()))  # noqa: B023
        batch = Batch(
            video=torch.randn(2, 5, DIM),
            audio=torch.randn(2, 5, DIM),
            lengths=torch.tensor([5, 3]),
            labels=torch.eye(7)[[0, 1]],
        )
        TrainingRun(settings, model, torch.device("cpu")).one_step(batch)
        predict(model, batch, precision)
        assert seen == 3 * [(expected, expected)]


def test_the_precision_of_xd_follows_the_device(monkeypatch) -> None:
    settings = make_config(scale="xd", device="cuda")
    assert settings.train.precision == "auto" and make_config().train.precision == "float32"
    monkeypatch.setattr(config, "find_device", torch.device)
    assert config.resolved(settings).train.precision == "bf16"
    assert config.resolved(settings.override(device="cpu")).train.precision == "float32"
    chosen = settings.override(precision="tf32")
    assert config.resolved(chosen) is chosen
    with pytest.raises(ValueError, match="precision must be one of 'auto', .*'bf16', got 'fp8'"):
        with config.arithmetic("fp8", "cpu"):
            pass
