"""The bench command: its bags are what training would see, its tables hold real numbers, and the
parts of a fit are those of the fit."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from avadclip_lite import train
from avadclip_lite.config import make_config
from avadclip_lite.dataset import TrainingSet
from tools import bench

SMALL = {"dim": 64, "batch_size": 2}  # the width of the tiny text tower


def test_videos_have_the_lengths_of_xd_violence_and_share_audio_between_crops(
    tmp_path: Path,
) -> None:
    store = bench.synthetic_store(tmp_path / "store", videos=600, crops=2, dim=8)
    lengths = store.snippets[::2].clip(max=256)
    assert len(store) == 1200 and lengths.min() >= 1
    assert (lengths == 256).mean() == pytest.approx(0.2, abs=0.03)  # XD-Violence's lists: a fifth
    assert np.median(lengths) == pytest.approx(bench.MEDIAN_LENGTH, rel=0.1)
    assert len(set(store.film_ids)) == 300  # hold-out is by film, so films matter
    bags = TrainingSet(
        store, store.indices("train"), make_config(dim=8, fusion_heads=1, max_snippets=256)
    )
    batch = bags.batch(torch.tensor([0, 1]))
    assert torch.equal(batch.audio[0], batch.audio[1]) and torch.equal(*batch.labels)
    assert not torch.equal(batch.video[0], batch.video[1])
    assert batch.audio_mask.all() and batch.video.shape[1] == lengths[0]


def call(*words: str) -> int:
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    return bench.main(parser.parse_args(words))


def test_the_tables_are_measured_and_written(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(bench, "make_config", lambda **chosen: make_config(**{**chosen, **SMALL}))
    monkeypatch.setattr(bench, "matmul_rate", lambda *_: 0.1)
    monkeypatch.setattr(bench, "WARM_UP", 1)
    monkeypatch.setattr(bench, "COUNTED", 1)
    out = tmp_path / "bench.json"
    words = "--device cpu --videos 6 --crops 1 --steps 1 --epochs 2 --only"
    assert call(*words.split(), "paper float32", "--json", str(out)) == 0
    kept = json.loads(out.read_text())
    names = ["paper float32 teacher", "paper float32 student"]
    assert [row["name"] for row in kept["steps"]] == names
    assert [row["name"] for row in kept["fits"]] == names
    for row in kept["steps"]:
        assert (
            300 < row["operations"] < 10_000
            and row["step_ms"] > 0
            and row["tflop"] > 0
            and math.isnan(row["peak_gib"])
        )
        assert row["tflop_per_second"] == pytest.approx(1e3 * row["tflop"] / row["step_ms"])
        assert 0 < row["waiting_share"] < 1
    for row in kept["fits"]:
        assert row["videos"] == 6 and row["epochs"] == 2
        assert all(row["parts"][part] > 0 for part in ("packing", "training", "holdout"))
        assert row["parts"]["checkpoints"] > 0 and sum(row["parts"].values()) < row["seconds"]
        assert row["extrapolated_seconds"] > 100 * row["parts"]["training"]
    said = capsys.readouterr().out
    assert all(part in said for part in bench.PARTS) and "paper float32 student" in said


def test_operations_are_counted_and_views_are_not() -> None:
    x = torch.ones(2, 3, requires_grad=True)
    with bench.Dispatched() as counted:
        (x.view(6)[None].mT * 2).sum().backward()
    forward, backward = 2, 2  # product and sum; ones for the loss, product; the expansion is a view
    assert counted.count == forward + backward


def test_what_is_clocked_is_put_back_and_a_fit_stays_the_same(tmp_path: Path) -> None:
    before = [getattr(owner, name) for owner, name in bench.PARTS.values()]
    settings = make_config(scale="xd", device="cpu", epochs=1, **SMALL)
    store = bench.synthetic_store(tmp_path / "store", videos=4, crops=1, dim=64)
    timing = bench.measure_fit("teacher", settings, store)
    assert [getattr(owner, name) for owner, name in bench.PARTS.values()] == before
    assert timing.seconds < timing.extrapolated_seconds
    assert train.TrainingSet is TrainingSet


def test_a_gpu_that_is_not_there_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ValueError, match="torch finds 0 GPUs here"):
        call("--device", "cuda")
