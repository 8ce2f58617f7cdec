"""From files to scores by both ways, store and evaluation or ``score``: one rule for sound, one
seam for detectors."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from clips import clip_wave, flat, write_clip
from test_seam import Toy  # noqa: F401  (registers the toy detector)

from avadclip_lite.config import SAMPLE_RATE, make_config
from avadclip_lite.dataset import FeatureStore
from avadclip_lite.encoders import load_encoders
from avadclip_lite.evaluate import evaluate, predict_store
from avadclip_lite.train import fit
from avadclip_lite.video import timeline
from avadclip_lite.video.detect import DetectorSet, score_video
from avadclip_lite.video.folder import extract_folder


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Four videos of four seconds, their sound as long as the picture, half as long, or absent."""
    root = tmp_path_factory.mktemp("films")
    for k, share in enumerate((1.0, 0.5, None, 0.5)):
        wave = None if share is None else clip_wave(4 * share, SAMPLE_RATE, [0.4], noise=0.05)
        write_clip(
            root / f"{k}_label_{'B1' if k % 2 else 'A'}.mp4",
            seconds=4,
            picture=lambda n, k=k: flat(40 * k + 3 * (n % 16), (32, 32)),
            size=(32, 32),
            wave=wave,
            sample_rate=SAMPLE_RATE,
        )
    extract_folder(root, root / "store", weights="random", device="cpu", progress=False)
    return root


@pytest.mark.filterwarnings("ignore:the text tower has random weights")
def test_a_track_that_ends_half_way_scores_the_same_from_file_and_from_store(films, tmp_path):
    """The stored flag and the extraction's coverage mask the same snippets: a teacher says of the
    store what it says of the file."""
    store = FeatureStore.open(films / "store")
    masks = [store.audio_mask(i) for i in range(len(store))]
    shares = [float(mask.mean()) for mask in masks]
    assert shares[0] == 1 and shares[2] == 0 and 0.5 <= shares[1] == shares[3] < 0.8
    settings = make_config(epochs=1, max_steps=2, batch_size=4, selection="last", device="cpu")
    fit(settings, store, text="random", out=tmp_path / "teacher", progress=False)
    detectors = DetectorSet.load([tmp_path / "teacher"])
    encoders = load_encoders("soundstage", weights="random")
    model = detectors.detectors["audio_visual"]
    stored = predict_store(model, store, range(len(store)))
    for v, name in enumerate(stored.names):
        if not masks[v].any():
            continue  # `score` would ask for a vision-only detector
        scores = score_video(films / f"{name}.mp4", detectors, encoders)
        own = slice(*stored.offsets[v : v + 2])
        np.testing.assert_allclose(scores.logits, stored.anomaly_logits[own], atol=2e-3)
    # without the rule the encoded silence would speak: the same store, everything called sound
    store.audio_mask = lambda i: np.ones(len(masks[i]), bool)
    half = slice(*stored.offsets[1:3].tolist())
    careless = predict_store(model, store, range(len(store))).anomaly_logits[half]
    assert np.abs(careless - stored.anomaly_logits[half]).max() > 2e-3


def test_a_foreign_detector_scores_files_and_names_no_classes(films, tmp_path):
    store = FeatureStore.open(films / "store")
    settings = make_config(
        detector="toy", epochs=2, batch_size=4, selection="last", device="cpu", learning_rate=0.1
    )
    fit(settings, store, out=tmp_path / "toy", progress=False)
    out = tmp_path / "out"
    detectors = DetectorSet.load([tmp_path / "toy"])
    scores = score_video(
        films / "1_label_B1.mp4", detectors, load_encoders("soundstage", weights="random")
    )
    assert scores.probabilities is None and len(scores.confidence) == int(store.snippets[1])
    out.mkdir()
    timeline.write_scores(scores, out / "1")
    told = json.loads((out / "1.json").read_text())
    assert all(event["name"] is None for event in told["events"])
    assert (out / "1.png").is_file()


def test_a_store_without_a_test_split_is_said_so(films):
    store = FeatureStore.open(films / "store")
    stand_in = SimpleNamespace(settings=make_config(), parameters=lambda: iter([torch.zeros(1)]))
    with pytest.raises(ValueError, match="no split 'test'; it has train"):
        evaluate(stand_in, store)
