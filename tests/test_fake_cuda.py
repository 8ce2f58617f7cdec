"""Every public entry on a GPU that is not there: nothing mixes devices, or types that a GPU would
not multiply. Content is checked elsewhere, on a CPU, and by ``gpu_check.sh`` on a real GPU."""

from __future__ import annotations

import copy
import typing
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from fake_cuda import CONTENT, as_captured, fake_cuda

from avadclip_lite import baselines, model
from avadclip_lite.config import (
    SAMPLE_RATE,
    XD_CLASSES,
    DataConfig,
    LossConfig,
    ModelConfig,
    TrainConfig,
)
from avadclip_lite.dataset import Batch
from avadclip_lite.encoders import load_encoders, load_text
from avadclip_lite.evaluate import predict, predict_videos
from avadclip_lite.model import Detector, FrozenTeacher
from avadclip_lite.train import TrainingRun

CUDA = torch.device("cuda")
LENGTHS = [9, 21, 3]
CONTEXT = ({"context_before": 0, "context_after": 0}, {"heads": 2}, {"window": 64})
PRECISIONS = ("float32", "bf16")  # choices within a form in bf16 alone, which holds both types
NUMBERS = ({"grad_clip": 1.0}, {"contrast_weight": 0.1}, {"fusion_heads": 2}, *CONTEXT)


def _values(kind: type) -> Iterator[dict[str, Any]]:
    """Every value of every choice of a section of the configuration that is not its default."""
    for item in fields(kind):
        hint = typing.get_type_hints(kind)[item.name]
        choices = (True, False) if hint is bool else typing.get_args(hint)
        literal = hint is bool or typing.get_origin(hint) is typing.Literal
        yield from ({item.name: v} for v in choices if literal and v != item.default)


def configurations() -> Iterator[dict[str, Any]]:
    forms = [
        {"form": form, "role": role}
        for form in ("paper", "released")
        for role in ("audio_visual", "vision", "audio")
    ]
    yield from (form | {"precision": precision} for form in forms for precision in PRECISIONS)
    for section in (ModelConfig, LossConfig, TrainConfig, DataConfig):
        for choice in _values(section):
            if "role" in choice or "precision" in choice:
                continue
            if choice.get("padding") == "leaking":
                choice |= {"length_aware": False}
            student = "ukd" in next(iter(choice)) or {"variance_head", "enhancement_blocks"} & {
                *choice
            }
            yield choice | {"role": "vision"} if student else choice
    yield from NUMBERS


def named(choice: dict[str, Any]) -> str:
    return "-".join(str(v) if k in ("form", "role") else f"{k}={v}" for k, v in choice.items())


def batch() -> Batch:
    video, audio, lengths = tiny_models.batch(LENGTHS)
    return Batch(
        video=video,
        audio=audio,
        lengths=lengths,
        audio_mask=torch.arange(max(LENGTHS)) < (lengths - 1)[:, None],
        labels=tiny_models.multi_hot([[0], [1, 2], [3]]),
        index=torch.arange(len(LENGTHS)),
    )


def build(choice: dict[str, Any]) -> tuple[Detector, Detector | None]:
    """A detector, and the teacher that a student learns from."""
    detector = tiny_models.detector(**choice)
    role, ukd = detector.settings.model.role, detector.settings.loss.ukd
    if role == "audio_visual" or ukd == "none":
        return detector, None
    return detector, tiny_models.detector(form=choice.get("form", "paper"))


@pytest.mark.parametrize("choice", list(configurations()), ids=named)
def test_a_training_step_and_a_prediction(choice: dict[str, Any]) -> None:
    detector, teacher = build({"precision": "bf16"} | choice)
    precision = detector.settings.train.precision
    with fake_cuda() as move:
        detector, given = move(detector), move(batch())
        if teacher is not None:
            with torch.utils._mode_utils.no_dispatch():
                frozen = FrozenTeacher(teacher)
            detector._teacher = [move(frozen)]
        run = TrainingRun(detector.settings, detector.train(), CUDA)
        parts = run.one_step(given)
        assert parts["total"].device.type == "cuda" and parts["total"].dtype == torch.float32
        assert ("ukd" in parts) == (teacher is not None)
        with as_captured():  # the second step, as a CUDA graph's: the first one looks words up
            run.backward(given)
        output = predict(detector, given, precision)
        assert output.anomaly_logits.device.type == "cuda"
        assert output.anomaly_logits.dtype == output.alignment_logits.dtype == torch.float32
    updated = {name for name, p in detector.named_parameters() if p.requires_grad}
    assert updated and all(
        p in run.optimizers[0].state for p in run.parameters if p.grad is not None
    )


@pytest.mark.parametrize("name", baselines.SYSTEMS)
def test_a_step_and_a_prediction_of_every_earlier_system(name: str) -> None:
    """In bf16, with sound where a system takes it. What one fits with scikit-learn before the first
    epoch, or relabels from scores, happens on the host, and is left out."""
    alone = baselines.SYSTEMS[name].takes == "vision"
    settings = baselines.configure(
        name,
        scale="soundstage",
        options={} if name == "vadclip" else {"modality": "vision" if alone else "audio_visual"},
        precision="bf16",
        **({"context_before": 4, "context_after": 4} if alone else {}),
    )
    text = load_text("soundstage", XD_CLASSES.words)
    video, audio, lengths = tiny_models.batch([40, 33, 40, 21], dim=settings.model.dim)
    given = Batch(
        video=video,
        audio=audio,
        lengths=lengths,
        audio_mask=torch.arange(40) < (lengths - 1)[:, None],
        labels=torch.eye(7)[[0, 0, 1, 2]],
        index=torch.arange(4),
    )
    detector = model.build(settings, *text)
    with fake_cuda() as move:
        detector, given = move(detector), move(given)
        run = TrainingRun(settings, detector.train(), CUDA)
        assert run.one_step(given)["total"].device.type == "cuda"
        assert predict(detector, given, "bf16").anomaly_logits.dtype == torch.float32


@pytest.mark.parametrize("form", ["paper", "released"])
@pytest.mark.parametrize("role", ["audio_visual", "vision", "audio"])
def test_videos_are_scored_and_the_scores_come_home(form: str, role: str) -> None:
    detector = tiny_models.detector(form=form, role=role)
    noise = np.random.default_rng(0).standard_normal((2, 300, tiny_models.DIM)).astype(np.float32)
    partial = np.arange(300) < 100
    videos = [(noise[0], noise[1], partial), (noise[0, :5], None, None)]
    with fake_cuda() as move:
        found = predict_videos(move(detector), videos, precision="bf16")
    assert found.anomaly_logits.shape == (305,) and found.alignment.shape == (305, 4)


@pytest.mark.parametrize("entry", ["encode_text", "encode_images", "encode_audio"])
def test_encoders_take_from_the_host_and_give_to_it(entry: str) -> None:
    inputs = {
        "encode_text": ["normal", "car accident"],
        "encode_images": np.zeros((2, 48, 64, 3), np.uint8),
        "encode_audio": np.zeros((2, SAMPLE_RATE), np.float32),
    }
    encoders = load_encoders("soundstage", weights="random")
    with fake_cuda() as move:
        there = copy.copy(encoders)  # frozen, and built it would move its towers itself
        towers = {name: move(getattr(encoders, name)) for name in ("text", "image", "audio")}
        for name, value in (towers | {"device": CUDA}).items():
            object.__setattr__(there, name, value)
        out = getattr(there, entry)(inputs[entry])
        assert out.device.type == "cpu" and out.shape == (2, encoders.dim)
        assert out.dtype == torch.float32


# --- that faults are seen -------------------------------------------------------------------------


def _mask_stays_behind(detector: Detector, given: Batch) -> Batch:
    return replace(given, audio_mask=torch.ones(given.audio_mask.shape, dtype=torch.bool))


def _weight_stays_behind(detector: Detector, given: Batch) -> Batch:
    detector.anomaly.score.weight = torch.nn.Parameter(torch.zeros(1, tiny_models.DIM))
    return given


def _weight_of_another_type(detector: Detector, given: Batch) -> Batch:
    score = detector.anomaly.score
    score.weight = torch.nn.Parameter(score.weight.to(torch.bfloat16))
    return given


@pytest.mark.parametrize(
    ("plant", "said"),
    [
        (_mask_stays_behind, "two different devices"),
        (_weight_stays_behind, "two different devices"),
        (_weight_of_another_type, "mixes .*bfloat16.*float32"),
    ],
)
def test_a_planted_fault_is_refused(plant: Callable[..., Batch], said: str) -> None:
    detector = tiny_models.detector()
    with fake_cuda() as move:
        detector = move(detector)
        given = plant(detector, move(batch()))
        with pytest.raises(RuntimeError, match=said):
            predict(detector, given)


def _from_the_host(given: Batch) -> None:
    torch.tensor([1, 2], device=CUDA)


def _a_number_is_asked_for(given: Batch) -> None:
    given.video.sum().item()


def _a_branch(given: Batch) -> None:
    bool(given.audio_mask.all())


def _rows_by_a_mask(given: Batch) -> None:
    given.video[given.audio_mask]


@pytest.mark.parametrize(
    "plant", [_from_the_host, _a_number_is_asked_for, _a_branch, _rows_by_a_mask]
)
def test_what_a_graph_cannot_hold_is_refused(plant: Callable[[Batch], None]) -> None:
    with fake_cuda() as move:
        given = move(batch())
        with as_captured(), pytest.raises(Exception, match="cannot hold|local_scalar"):
            plant(given)


def test_scores_that_stay_on_the_device_are_refused() -> None:
    with fake_cuda() as move, pytest.raises(TypeError, match="use Tensor.cpu"):
        move(torch.ones(2)).numpy()


def test_gradients_are_those_of_the_engine() -> None:
    """The walk over the graph, on real tensors: the same gradients as torch's own."""
    from fake_cuda import backward

    detector = tiny_models.detector(form="released").train()
    given = batch()
    walked = []
    for walk in (backward, torch.Tensor.backward):
        torch.manual_seed(0)
        detector.zero_grad(set_to_none=True)
        walk(detector.loss(detector(given), given)["total"])
        walked.append({n: p.grad for n, p in detector.named_parameters() if p.grad is not None})
    torch.testing.assert_close(*walked)
    assert len(walked[0]) > 30


def test_every_question_about_content_has_its_reason() -> None:
    assert all(len(reason.split()) > 4 for _, reason in CONTENT.values())
