"""Rules of the data that training and evaluation share: partial sound, films, hold-out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import DIM, tiny_settings, tiny_store, tiny_text

from avadclip_lite.config import XD_CLASSES
from avadclip_lite.dataset import (
    AUDIO_PRESENT,
    FeatureStore,
    TrainingSet,
    holdout_split,
    resample,
)
from avadclip_lite.evaluate import evaluate, predict_store
from avadclip_lite.features.writer import StoreWriter
from avadclip_lite.model import build
from avadclip_lite.train import fit, video_level


def store_of(path, videos, **choices) -> FeatureStore:
    """A store of ``(name, label, split, video, audio, audio_present or None, segments)``."""
    with StoreWriter(
        path, classes=XD_CLASSES, dim=DIM, stride=16, encoder="tiny", dtype="float32", **choices
    ) as writer:
        for name, label, split, video, audio, present, segments in videos:
            flags = {} if present is None else {"flags": {AUDIO_PRESENT: present}}
            writer.add(
                name=name, label=label, split=split, crop=0, video=video, audio=audio,
                segments=segments, **flags,
            )  # fmt: skip
        writer.finish()
    return FeatureStore.open(path)


def features(rng, n):
    return rng.standard_normal((n, DIM)).astype(np.float32)


@pytest.fixture
def half_tracks(tmp_path):
    """Sound that ends half-way, in training and in test; one video whole, one without."""
    rng = np.random.default_rng(0)
    rows = []
    for split in ("train", "test"):
        for i, n in enumerate((20, 9, 14, 12, 10, 16)):
            present = np.arange(n) < (n // 2 if i % 2 else n)
            audio = None if i == 4 else features(rng, n)
            present = present & (audio is not None)
            label, events = ("B1", [("B1", 32, 96)]) if i % 2 else ("A", [])
            name = f"{split}{i}_label_{label}"
            events = events if split == "test" else []
            rows.append((name, label, split, features(rng, n), audio, present, events))
    return store_of(tmp_path / "half", rows)


def test_partial_sound_is_masked_by_one_rule_everywhere(half_tracks) -> None:
    """Encoded silence beyond the end of a track has no influence: neither on training bags, nor on
    evaluation, nor on the judgement of held-out videos."""
    settings = tiny_settings()
    torch.manual_seed(0)
    model = build(settings, *tiny_text()).eval()
    noisy = {}
    for i in range(len(half_tracks)):
        audio = half_tracks.audio(i)
        mask = half_tracks.audio_mask(i)
        assert mask.tolist() == half_tracks.flags(i)[AUDIO_PRESENT].tolist()
        noisy[i] = None if audio is None else np.where(mask[:, None], audio, 99.0)
    plain = {
        split: predict_store(model, half_tracks, half_tracks.indices(split))
        for split in ("train", "test")
    }
    bags = TrainingSet(half_tracks, half_tracks.indices("train"), settings)
    before = bags.batch(torch.arange(len(bags))), video_level(model, bags)
    half_tracks.uncut = lambda i, uncut=half_tracks.uncut: (uncut(i)[0], noisy[i])
    for split, expected in plain.items():
        again = predict_store(model, half_tracks, half_tracks.indices(split))
        np.testing.assert_array_equal(again.anomaly_logits, expected.anomaly_logits)
    bags = TrainingSet(half_tracks, half_tracks.indices("train"), settings)
    batch = bags.batch(torch.arange(len(bags)))
    assert torch.equal(batch.audio_mask, before[0].audio_mask)
    assert torch.equal(batch.audio, before[0].audio)
    assert video_level(model, bags) == before[1]
    for row, mask in enumerate(batch.audio_mask):
        expected = half_tracks.audio_mask(bags.rows[row])
        assert (
            mask[: len(expected)].tolist() == expected.tolist() and not mask[len(expected) :].any()
        )


def test_a_bag_scores_in_training_as_its_video_does_in_evaluation(half_tracks) -> None:
    model = fit(
        tiny_settings(epochs=1), half_tracks, text=tiny_text()[0], prompts=tiny_text()[1],
        progress=False,
    ).model  # fmt: skip
    rows = half_tracks.indices("train")
    scored = predict_store(model, half_tracks, rows)
    bags = TrainingSet(half_tracks, rows, model.settings)
    with torch.no_grad():
        output = model(bags.batch(torch.arange(len(rows))))
    for v in range(len(rows)):
        ours = output.anomaly_logits[v, : scored.lengths[v]].sigmoid().numpy()
        np.testing.assert_allclose(ours, scored.video(v)[0], atol=1e-6)


def test_a_bin_of_partial_sound_is_the_mean_of_what_is_there() -> None:
    x = np.arange(8, dtype=np.float32)[:, None]
    keep = np.array([1, 1, 1, 0, 0, 0, 1, 1], bool)
    assert resample(x, 4, keep)[:, 0].tolist() == [0.5, 2.0, 0.0, 6.5]
    assert resample(x, 4)[:, 0].tolist() == [0.5, 2.5, 4.5, 6.5]


def test_sound_that_is_one_snippet_shorter_cuts_the_paper_form_alone(tmp_path) -> None:
    rng = np.random.default_rng(1)
    rows = []
    for split in ("train", "test"):
        for i, label in enumerate(("A", "B1", "A", "B1")):
            events = [("B1", 16 * 9, 16 * 10)] if label == "B1" and split == "test" else []
            video, audio = features(rng, 10), features(rng, 9)
            name = f"{split}{i}_label_{label}"
            rows.append((name, label, split, video, audio, None, events))
    store = store_of(tmp_path / "short", rows)
    for form, snippets, positive in (("paper", 9, 0), ("released", 10, 2 * 16)):
        model = build(tiny_settings(form=form, max_snippets=32), *tiny_text()).eval()
        report = evaluate(model, store)
        assert report.predictions.lengths.tolist() == [snippets] * 4
        assert report.metrics["frames"] == 4 * 16 * snippets
        assert report.metrics["positive_share"] * report.metrics["frames"] == positive


def test_clips_of_one_film_are_held_out_together(tmp_path) -> None:
    rng = np.random.default_rng(2)
    rows = []
    for film in range(40):
        for clip in range(1 + film % 5):
            label = "A" if (film + clip) % 2 else ("B1", "B2", "G")[film % 3]
            name = f"Film.{film}__#{clip}_label_{label}"
            rows.append((name, label, "train", features(rng, 3), None, None, []))
    store = store_of(tmp_path / "films", rows)
    everything = store.indices("train")
    shares = []
    for seed in range(20):
        kept, held = holdout_split(store, everything, 0.25, seed)
        assert sorted([*kept, *held]) == everything.tolist()
        names = [{store.videos[i].name.split("__")[0] for i in side} for side in (kept, held)]
        films = [set(store.film_ids[side]) for side in (kept, held)]
        assert not names[0] & names[1] and list(map(len, films)) == list(map(len, names))
        shares.append(len(held) / len(everything))
    assert abs(np.mean(shares) - 0.25) < 0.03 and max(shares) < 0.35


def test_single_clips_are_held_out_by_label(tmp_path) -> None:
    store = tiny_store(tmp_path / "tiny", train=40)
    _, held = holdout_split(store, store.indices("train"), 0.25, 0)
    normal = [store.videos[i].label == "A" for i in held]
    assert len(held) == 10 and sum(normal) == 5
