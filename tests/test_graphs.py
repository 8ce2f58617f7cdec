"""Captured steps, as far as a machine without a GPU can tell: rounding lengths up changes nothing,
and whatever a capture does wrong, the steps are the eager ones. Stand-ins take capture's place."""

from __future__ import annotations

import weakref
from argparse import Namespace
from collections.abc import Callable
from unittest.mock import MagicMock

import pytest
import tiny_models
import torch
from tiny import tiny_settings, tiny_store, tiny_text

from avadclip_lite import train
from avadclip_lite.config import make_config
from avadclip_lite.dataset import Batch
from avadclip_lite.experiments import cache, graphs, study, train_command
from avadclip_lite.experiments.graphs import GraphedStep, round_up
from avadclip_lite.model import Detector
from avadclip_lite.train import TrainingRun
from tools import bench
from tools.bench import Dispatched

CPU = torch.device("cpu")


def batch(lengths=(20, 9, 17), **changes) -> Batch:
    video, audio, counts = tiny_models.batch(list(lengths))
    labels = tiny_models.multi_hot([[0], [1, 2], [3]])
    mask = torch.arange(max(lengths)) < (counts - 1)[:, None]
    given = {"video": video, "audio": audio, "lengths": counts, "labels": labels}
    return Batch(**given | {"audio_mask": mask, "index": torch.arange(3)} | changes)


def training(**overrides) -> TrainingRun:
    detector = tiny_models.detector(**overrides)
    return TrainingRun(detector.settings, detector.train(), CPU)


def step_of(run: TrainingRun, given: Batch) -> tuple[dict, list]:
    torch.manual_seed(5)
    losses = {k: v.item() for k, v in run.backward(given).items()}
    return losses, [None if p.grad is None else p.grad.clone() for p in run.parameters]


@pytest.mark.parametrize(
    ("snippets", "most", "expected"),
    [(1, 256, 32), (32, 256, 32), (33, 256, 64), (250, 256, 256), (20, 24, 24), (40, 24, 40)],
)
def test_lengths_are_rounded_up_to_few(snippets: int, most: int, expected: int) -> None:
    given = batch((snippets, 1, 1))
    filled = round_up(given, most)
    assert filled.snippets == filled.audio.shape[1] == filled.audio_mask.shape[1] == expected
    assert torch.equal(filled.video[:, :snippets], given.video)
    assert not filled.video[:, snippets:].any() and not filled.audio_mask[:, snippets:].any()
    assert filled.lengths is given.lengths and filled.labels is given.labels
    alone = round_up(batch((snippets, 1, 1), audio=None, audio_mask=None), most)
    assert alone.audio is None and alone.audio_mask is None and alone.snippets == expected


@pytest.mark.parametrize(
    "choice",
    [
        {},
        {"fusion": "cross_attention"},
        {"audio_context": "both"},
        {"missing_audio": "zeros"},
        {"role": "vision", "ukd": "none"},
        {"role": "audio", "ukd": "none"},
    ],
    ids=str,
)
def test_the_padding_is_inert(choice: dict) -> None:
    """Losses and gradients of a step do not see it."""
    run, given = training(tcn_dropout=0.0, **choice), batch()
    losses, gradients = step_of(run, given)
    filled = round_up(given, run.model.max_snippets)
    assert filled.snippets > given.snippets
    padded, same = step_of(run, filled)
    assert padded == pytest.approx(losses, rel=1e-5)
    for one, other in zip(gradients, same, strict=True):
        if one is not None:
            torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-6)


class Capture:
    """A stand-in: "captures" by keeping the step; ``harm`` may change what a replay gives."""

    def __init__(self, harm=lambda losses: losses) -> None:
        self.harm, self.shapes, self.replays = harm, [], 0

    def __call__(self, step, given, parameters, pool):
        self.shapes.append((len(given), given.snippets))
        step(given)  # it warms up, and draws random numbers

        def replay(batch: Batch) -> dict:
            assert batch.snippets == given.snippets
            self.replays += 1
            return self.harm(step(batch))

        return replay


def graphed(run: TrainingRun, capture) -> tuple[GraphedStep, Callable]:
    own = GraphedStep(run.parameters, run.model.max_snippets, capture)
    return own, lambda given: own(run.backward, given)


def test_each_shape_is_captured_once_and_replayed() -> None:
    """Dropout included: the captured step draws what eager drew, and the training what it would
    have drawn without a trial."""
    run, capture = training(tcn_dropout=0.5), Capture()
    own, step = graphed(run, capture)
    torch.manual_seed(5)
    found = {k: v.item() for k, v in step(batch()).items()}
    expected, _ = step_of(run, round_up(batch(), run.model.max_snippets))
    assert found == expected and not own.failed
    for lengths in ((20, 9, 17), (31, 2, 2), (40, 3, 3), (25, 1, 1)):
        step(batch(lengths))
    assert capture.shapes == [(3, 32), (3, 64)] == list(own.captured)
    assert capture.replays == 5 + 3  # and two trials of the first shape, one of the other


def test_a_replay_that_does_not_see_new_weights_is_found_when_its_shape_is_next_met(caplog) -> None:
    """As of a graph that reads a copy of the weights, or of the batch, made at its capture."""
    run = training(tcn_dropout=0.0)

    def stale(step, given, parameters, pool):
        step(given)
        told = {k: v.detach().clone() for k, v in step(given).items()}
        kept = [None if p.grad is None else p.grad.clone() for p in parameters]

        def replay(batch: Batch) -> dict:
            for parameter, gradient in zip(parameters, kept, strict=True):
                parameter.grad = gradient
            return told

        return replay

    own, step = graphed(run, stale)
    step(batch())
    assert not own.failed
    with torch.no_grad():
        for parameter in run.parameters:
            parameter.mul_(1.1)
    losses, _ = step_of(run, batch())
    assert {k: v.item() for k, v in step(batch()).items()} == losses
    assert "eager" in own.failed and own.failed in caplog.text


def broken(*_) -> None:
    raise torch.AcceleratorError("operation not permitted when stream is capturing\nmore")


def fails_without_a_word(*_) -> None:
    raise AssertionError


def fails_below_an_empty_line(*_) -> None:
    raise RuntimeError("\nmore")


def wrong_gradient(losses: dict) -> dict:
    run_of_test.parameters[0].grad.mul_(3)
    return losses


@pytest.mark.parametrize(
    "capture",
    [
        Capture(lambda losses: losses | {"total": losses["total"] * 1.01}),
        Capture(lambda losses: losses | {"total": losses["total"] * torch.nan}),
        Capture(lambda losses: {"total": losses["total"]}),
        Capture(wrong_gradient),
        broken,
        fails_without_a_word,
        fails_below_an_empty_line,
    ],
    ids=["wrong", "nan", "missing", "gradient", "fails", "fails silently", "fails below"],
)
def test_a_capture_that_is_not_eager_falls_back_and_says_so_once(capture, caplog) -> None:
    global run_of_test
    run = run_of_test = training(tcn_dropout=0.5)
    own, step = graphed(run, capture)
    torch.manual_seed(5)
    found = {k: v.item() for k, v in step(batch()).items()}
    expected, gradients = step_of(run, batch())
    assert found == expected  # of the batch as it came, with the numbers that eager draws
    for _ in range(3):
        step(batch((40, 3, 3)))
    assert own.failed and not own.captured  # no fallback counts as a capture
    (line,) = [record.getMessage() for record in caplog.records]
    assert "not captured as CUDA graphs" in line and "\n" not in line


def test_the_reason_is_what_ended_the_capture_and_not_that_it_had_ended(
    monkeypatch, caplog
) -> None:
    """And torch is told that it has ended, whose own context leaves the random numbers and the
    memory as if it went on. CUDA's part is a stand-in."""

    class Graph(MagicMock):
        def __exit__(self, *_) -> None:
            raise torch.AcceleratorError("operation failed due to a previous error during capture")

    for name in ("Stream", "current_stream", "CUDAGraph", "stream"):
        monkeypatch.setattr(torch.cuda, name, MagicMock())
    generator = MagicMock()
    monkeypatch.setattr(torch.cuda, "graph", Graph())
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "default_generators", [generator])
    for name in ("_cuda_endAllocateToPool", "_cuda_releasePool"):
        monkeypatch.setattr(torch._C, name, MagicMock(), raising=False)
    run = training(tcn_dropout=0.5)
    own = GraphedStep(run.parameters, run.model.max_snippets)
    steps = iter(range(100))

    def step(given: Batch) -> dict:
        if next(steps) == 4:  # an eager one and three before a capture have passed
            raise RuntimeError("operation not permitted when stream is capturing")
        return run.backward(given)

    assert own(step, batch())["total"].isfinite()
    assert own.failed == "operation not permitted when stream is capturing"
    generator.graphsafe_set_state.assert_called_once_with(generator.clone_state.return_value)
    torch._C._cuda_endAllocateToPool.assert_called_once_with(0, own.pool)
    torch._C._cuda_releasePool.assert_called_once_with(0, own.pool)


@pytest.mark.parametrize(
    ("variable", "device", "capturable", "fields", "captured"),
    [
        (None, "cuda", True, {}, True),
        ("1", "cuda", True, {}, True),
        ("0", "cuda", True, {}, False),
        (None, "cpu", True, {}, False),
        (None, "cuda", False, {}, False),  # it does other things from batch to batch
        (None, "cuda", True, {"ukd_mask": False}, False),  # padding would count
        (None, "cuda", True, {"ukd_mask": False, "length_aware": False}, True),
    ],
)
def test_steps_are_captured_where_they_can_be_and_are_to_be(
    monkeypatch, variable, device, capturable, fields, captured
) -> None:
    monkeypatch.delenv("AVADCLIP_GRAPHS", raising=False)
    if variable is not None:
        monkeypatch.setenv("AVADCLIP_GRAPHS", variable)
    detector = tiny_models.detector(**fields)
    assert detector.capturable and not Detector.capturable
    detector.capturable = capturable
    given = detector.settings, detector, torch.device(device)
    run = TrainingRun(*given, graphs.steps)
    assert TrainingRun(*given).captured is None  # nobody asked
    assert type(run.captured) is (GraphedStep if captured else type(None))
    assert not captured or run.captured.capture is graphs.capture


class Asked(Exception):
    """Stops a training that is about to begin."""


def test_commands_study_cache_and_bench_ask_for_them(monkeypatch, tmp_path) -> None:
    def fit(*_, steps=None, **__):
        assert steps is graphs.steps
        raise Asked

    for module in (train, study, train_command, bench):
        monkeypatch.setattr(module, "fit", fit)
    store, settings = tiny_store(tmp_path / "store"), tiny_settings()
    task = study.Task(variant="fusion", seed=0, data="", scale="soundstage", keep=False)
    args = {"data": store.path, "out": None, "teacher": None, "text": None, "set": []}
    args |= dict.fromkeys(("form", "role", "scale")) | {"device": "cpu"}
    text, prompts = tiny_text()
    how = {"text": text, "prompts": prompts, "cache": tmp_path}
    of_bench = make_config(device="cpu")
    for train_it in (
        lambda: cache.train_or_load(settings, store, **how),
        lambda: study.trained(task, store),
        lambda: train_command.main(Namespace(**args)),
        lambda: bench.measure_fit("teacher", of_bench, store),
    ):
        with pytest.raises(Asked):
            train_it()
    asked = []
    monkeypatch.setattr(graphs, "steps", lambda run: asked.append(run))
    assert asked == [bench.training_run(of_bench, CPU)]


def test_a_run_ends_with_its_fit(tmp_path) -> None:
    """It does not wait for the garbage collector, with the optimisers' moments and what graphs
    keep."""
    runs = []

    def steps(run: TrainingRun) -> Callable:
        runs.append(weakref.ref(run))
        return graphs.steps(run)

    text, prompts = tiny_text()
    how = {"text": text, "prompts": prompts, "progress": False, "steps": steps}
    train.fit(tiny_settings(epochs=1), tiny_store(tmp_path / "store"), **how)
    assert [run() for run in runs] == [None]


def test_a_captured_step_dispatches_next_to_nothing(monkeypatch) -> None:
    """What the host does at a replay, counted as ``bench`` counts: the batch is copied, the
    optimiser steps. CUDA's own part is a stand-in here that records nothing and replays nothing."""
    for name in ("Stream", "current_stream", "CUDAGraph", "stream", "graph"):
        monkeypatch.setattr(torch.cuda, name, MagicMock())
    run, given = training(tcn_dropout=0.0), batch()
    own = GraphedStep(run.parameters, run.model.max_snippets)
    run.captured = own
    with Dispatched() as eager:
        run.one_step(given)  # captures, for which it steps eagerly
    assert not own.failed
    own.checks.update(own.captured.keys())  # the second check would find that nothing is replayed
    with Dispatched() as replayed:
        run.one_step(given)
    assert replayed.count == 13 < eager.count / 10  # as docs/gpu.md says
