"""The bench command: its bags are what training would see, its tables hold real numbers, and the
parts of a fit are those of the fit."""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from avadclip_lite import __main__ as command_line
from avadclip_lite import train
from avadclip_lite.config import make_config
from avadclip_lite.dataset import TrainingSet
from tools import bench, bench_release

SMALL = {"dim": 64, "batch_size": 2}  # the width of the tiny text tower


def test_the_command_needs_no_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "main", lambda args: 7)
    assert command_line.main(["bench"]) == 7


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


# What ``--release`` calls of the authors' code, and nothing else of it: names, arguments, results.
CHECKOUT = {
    "clip/__init__.py": "",
    "clip/clip.py": "def load(name, device):\n    raise OSError('would be downloaded')\n",
    "clip/model.py": """
from torch import nn
class CLIP(nn.Module):
    def __init__(self, dim, *others):
        super().__init__()
        self.text = nn.Linear(dim, dim)
def convert_weights(model):
    model.half()
""",
    "model_t.py": """
import torch
from torch import nn
from clip import clip
class AVADCLIP(nn.Module):
    def __init__(self, classes, dim, length, width, head, layers, audio_length, audio_width, window,
                 before, after, device):
        super().__init__()
        self.clipmodel, _ = clip.load("ViT-B/16", device)
        self.length, self.score = length, nn.Linear(width, 1)
        self.context = nn.Parameter(torch.randn(classes, dim))
        self.alpha = nn.Parameter(torch.ones(classes) / 4)
    def forward(self, visual, audio, padding_mask, audio_mask, words, lengths):
        assert visual.shape == audio.shape and visual.shape[1] == self.length and len(words) == 7
        text, x = self.clipmodel.text(self.context), visual + audio + self.score.weight
        return x, text, self.score(x), x @ text.T, self.alpha
""",
    "model_s.py": """
from model_t import AVADCLIP
class AVADCLIP_MODEL(AVADCLIP):
    def __init__(self, classes, dim, length, width, head, layers, window, before, after, device):
        assert (layers, window) == (1, 64)
        super().__init__(classes, dim, length, width, head, layers, length, width, window, before,
                         after, device)
    def forward(self, visual, padding_mask, words, lengths):
        found = super().forward(visual, visual, None, None, words, lengths)
        x, text, anomaly, classes, alpha = found
        return x, text, anomaly, classes, x * 0, alpha
""",
    "xd_option.py": """
import argparse
parser = argparse.ArgumentParser()
for name, value in dict(embed_dim=512, visual_length=256, visual_width=512, visual_head=1,
                        visual_layers=2, visual_layers_1=1, audio_length=256, audio_width=512,
                        attn_window=4, attn_window_1=64, prompt_prefix=10, prompt_postfix=10,
                        classes_num=7, lr=1e-5).items():
    parser.add_argument("--" + name, default=value)
""",
    "xd_train_t.py": """
def CLAS2(logits, labels, lengths, device):
    return logits.mean() ** 2
def CLASM(logits, labels, lengths, device, alpha):
    return (labels.sum(1) * alpha.mean() * logits.mean((1, 2))).mean() ** 2
""",
    "xd_train_s.py": """
from xd_train_t import CLAS2, CLASM
def UC_Loss(theirs, own, theta):
    assert not theirs.requires_grad and own.requires_grad
    return ((theirs - own) ** 2 + theta).mean()
""",
    "utils/__init__.py": "",
    "utils/dataset.py": """
import numpy as np
import pandas as pd
class XDDataset:
    def __init__(self, most, most_audio, file, test, labels):
        self.table = pd.read_csv(file)
    def __len__(self):
        return len(self.table)
    def __getitem__(self, i):
        video, audio = (np.load(self.table.loc[i][c]) for c in ("path", "audio_path"))
        assert len(video) == len(audio)
        return video.mean(0), audio.mean(0), self.table.loc[i]["label"], len(video), len(audio)
""",
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name, code in CHECKOUT.items():
        path = tmp_path / "release" / "src" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code, encoding="utf-8")
    return tmp_path / "release"


def test_the_authors_step_is_a_second_column(tmp_path, capsys, monkeypatch, checkout) -> None:
    monkeypatch.setattr(bench_release, "CLIP_SIZES", (512, 0))
    timing = bench.StepTiming(**dict.fromkeys(bench.StepTiming.__annotations__, 2.0))
    monkeypatch.setattr(bench, "measure_steps", lambda name, *_, **__: replace(timing, name=name))
    few = {"batch_size": 2}
    monkeypatch.setattr(bench, "make_config", lambda **chosen: make_config(**chosen | few))
    before, known = list(sys.path), set(sys.modules)
    out = tmp_path / "bench.json"
    words = ["--device", "cpu", "--videos", "6", "--crops", "1", "--steps", "2", "--epochs", "0"]
    words += ["--only", "released", "--release", str(checkout), "--json", str(out)]
    assert call(*words) == 0
    theirs = json.loads(out.read_text())["release"]
    assert [row["role"] for row in theirs] == ["audio_visual", "vision"]
    said = capsys.readouterr().out
    for row in theirs:
        assert row["step_ms"] > 0 and row["loading_ms"] > 0
        assert f"{row['step_ms'] / 2:.1f} times ours" in said
    assert sys.path == before
    assert not {"utils", "model_t", "clip.clip"} & (set(sys.modules) - known)


def test_a_folder_without_the_authors_code_is_refused(tmp_path, checkout) -> None:
    with pytest.raises(ValueError, match="is no checkout of the authors' code; give the folder"):
        with bench_release.checkout(tmp_path):
            pass
    (checkout / "src" / "xd_option.py").write_text("import not_there_at_all\n")
    with pytest.raises(ValueError, match="No module named 'not_there_at_all'; install"):
        with bench_release.checkout(checkout):
            pass
    assert "model_t" not in sys.modules and str(checkout / "src") not in sys.path
