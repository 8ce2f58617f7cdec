"""The two sides of the speed benchmark compute the same, on a batch of two; time is never judged
here."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F

from avadclip_lite.config import XD_CLASSES, make_config
from avadclip_lite.encoders import load_text
from avadclip_lite.model import build
from avadclip_lite.train import TrainingRun
from tools import bench

SCRIPT = Path(__file__).parent / "benchmarks" / "speed.py"
OUTPUTS, LOSSES, GRADIENTS = 1e-5, 1e-5, 1e-4  # as against the release's recorded numbers


@pytest.fixture(scope="module")
def speed() -> ModuleType:
    spec = importlib.util.spec_from_file_location("speed", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_both_sides_agree_and_a_difference_is_seen(speed, role) -> None:
    sides = speed.Sides(role, 2)
    gaps = sides.deviations()
    assert gaps["outputs"] < OUTPUTS and gaps["losses"] < LOSSES
    assert gaps["gradients"] < GRADIENTS
    with torch.no_grad():  # the literal side reads the state dict, ours holds its own tensors
        sides.detector.anomaly.score.bias += 0.01
        theirs, ours = sides.literal()[0]["anomaly"], sides.ours()[0]["anomaly"]
    torch.testing.assert_close(ours - 0.01, theirs, atol=OUTPUTS, rtol=0)


@pytest.mark.parametrize("part", ["text", "inference"])
def test_parts_without_a_step_run_and_agree(speed, part) -> None:
    rows = {}

    class Table:
        def row(self, name, seconds, **about):
            rows[name] = seconds, about["theirs"], float(about["note"].split()[-1])

    getattr(speed, part)(Table(), 1)
    for ours, theirs, gap in rows.values():
        assert ours > 0 and theirs > 0 and gap < OUTPUTS
    assert set(rows) == {"text": {"text forward", "text forward+backward"}}.get(part, {part})


def test_sides_are_timed_in_turns(speed, monkeypatch) -> None:
    clock, order = [0.0], []
    costs = {"literal": iter([9.0, 4.0, 6.0, 5.0]), "ours": iter([9.0, 1.0, 3.0, 2.0])}

    def side(name: str):
        def call() -> None:
            order.append(name)
            clock[0] += next(costs[name])

        return call

    monkeypatch.setattr(speed.time, "perf_counter", lambda: clock[0])
    assert speed.in_turns([side("literal"), side("ours")], 3) == [5.0, 2.0]  # warm-up left out
    assert order == ["literal", "ours"] * 4


def test_operations_are_counted(speed) -> None:
    x, weight = torch.ones(10, 20), torch.ones(30, 20)
    assert speed.counted(lambda: F.linear(x, weight)) == pytest.approx(2 * 10 * 20 * 30 / 1e12)


def test_operations_of_large_steps_follow_from_small_ones(speed) -> None:
    settings = make_config(device="cpu", max_snippets=256)
    torch.manual_seed(0)
    detector = build(settings, *load_text("soundstage", XD_CLASSES.words))
    run = TrainingRun(settings, detector.train(), torch.device("cpu"))
    bags = bench.synthetic_bags(settings, videos=5, crops=1)
    batch = bags.batch(torch.arange(5))
    shape = tuple(batch.video.shape[:2])
    counted = speed.counted(lambda: run.one_step(batch))
    assert speed.counted_steps(run, [shape]) == pytest.approx([counted], rel=0.01)
