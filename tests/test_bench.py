"""The bench command: its bags are what training would see, and its table holds real numbers."""

from __future__ import annotations

import argparse
import json
import math

import numpy as np
import pytest
import torch

from avadclip_lite.config import make_config
from tools import bench


def test_bags_have_the_lengths_of_xd_violence_and_share_audio_between_crops() -> None:
    settings = make_config(dim=8, fusion_heads=1)
    bags = bench.synthetic_bags(settings, videos=3000, crops=2)
    lengths = bags.lengths.numpy()
    assert len(bags) == 6000 and lengths.min() >= 1 and lengths.max() == 256
    assert (lengths == 256).mean() == pytest.approx(0.2, abs=0.03)  # XD-Violence's lists: a fifth
    assert np.median(lengths) == pytest.approx(bench.MEDIAN_LENGTH, rel=0.1)
    batch = bags.batch(torch.tensor([0, 1]))
    assert torch.equal(batch.audio[0], batch.audio[1]) and torch.equal(*batch.labels)
    assert not torch.equal(batch.video[0], batch.video[1])
    assert batch.audio_mask.all() and batch.video.shape[1] == lengths[0]


def test_the_table_is_measured_and_written(tmp_path, capsys, monkeypatch) -> None:
    small = {"dim": 16, "batch_size": 2, "epochs": 1, "fusion_heads": 1}
    monkeypatch.setattr(bench, "make_config", lambda **chosen: make_config(**{**chosen, **small}))
    monkeypatch.setattr(bench, "matmul_rate", lambda *_: 0.1)
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    out = tmp_path / "bench.json"
    words = ["--device", "cpu", "--videos", "4", "--crops", "1", "--steps", "1", "--full"]
    assert bench.main(parser.parse_args([*words, "--only", "paper float", "--json", str(out)])) == 0
    rows = json.loads(out.read_text())
    assert [row["name"] for row in rows] == ["paper float32 teacher", "paper float32 student"]
    for row in rows:
        assert row["step_ms"] > 0 and row["tflop_per_step"] > 0 and row["epochs_measured"]
        assert row["step_ms"] == pytest.approx(1e3 * row["epochs_seconds"] / 2)  # two steps
        assert 0 < row["waiting_share"] < 1 and math.isnan(row["peak_gib"])
    assert "paper float32 student" in capsys.readouterr().out


def test_a_gpu_that_is_not_there_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    with pytest.raises(ValueError, match="no GPU here"):
        bench.main(parser.parse_args(["--device", "cuda"]))
