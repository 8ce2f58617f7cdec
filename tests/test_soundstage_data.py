"""The data that ships against the code that made it: it cannot drift unnoticed."""

import csv
import json
import re

import av
import numpy as np
import pytest
import torch
from safetensors import safe_open
from sklearn.linear_model import LogisticRegression

from avadclip_lite.config import XD_CLASSES, soundstage_path
from avadclip_lite.dataset import FeatureStore
from avadclip_lite.encoders import SOUNDSTAGE_FILE, load_encoders, load_text, token_ids
from avadclip_lite.viz.lesson import EXAMPLES
from data.make_soundstage import build
from data.make_soundstage.encoders import Snippets, zero_shot
from data.make_soundstage.render import frame, wave
from data.make_soundstage.world import DISTRACTORS, STOCK, World


@pytest.fixture(scope="module")
def store():
    return FeatureStore.open(soundstage_path())


@pytest.fixture(scope="module")
def encoders():
    return load_encoders("soundstage")


@pytest.fixture(scope="module")
def snippets():
    return Snippets(seed=77, count=420, world=STOCK, workers=1)


def seed_of(store, i) -> int:
    return int(re.fullmatch(r"scene:(\d+)", store.videos[i].source)[1])


def scene_of(store, i):
    return build.video_scene(store.videos[i].split, seed_of(store, i))


def first(store, wanted) -> int:
    return next(i for i in range(len(store.videos)) if wanted(store.videos[i]))


def test_a_video_rendered_again_has_the_features_that_ship(store, encoders):
    """One abnormal, one normal, one without sound. float16 keeps three digits; the rest is the
    arithmetic of another machine."""
    chosen = [
        first(store, lambda v: v.label == "A" and v.has_audio),
        first(store, lambda v: v.label != "A" and v.has_audio and v.split == "test"),
        first(store, lambda v: not v.has_audio),
    ]
    for i in chosen:
        scene = scene_of(store, i)
        video, audio = build.encode(encoders, *build.render_scene(scene))
        np.testing.assert_allclose(store.video(i), video, atol=0.02)
        assert (audio is None) == (store.audio(i) is None)
        if audio is not None:
            np.testing.assert_allclose(store.audio(i), audio, atol=0.02)
            shifted = np.abs(store.audio(i)[1:].astype(np.float32) - audio[:-1])
            assert shifted.mean() > 0.1  # the tolerance tells one snippet from the next


def test_truth_and_names_are_the_scenes(store):
    rng = np.random.default_rng(0)
    for i in rng.choice(len(store.videos), 40, replace=False):
        row, scene = store.videos[i], scene_of(store, i)
        assert row.snippets == scene.snippets and row.has_audio == scene.has_audio
        assert tuple(row.label.split("-")) == scene.labels
        assert store.segments(i) == scene.segments
        assert np.array_equal(store.frame_truth([i]).astype(bool), scene.frame_truth())


def test_what_ships_is_whole_and_small(store):
    assert len(store.indices("train")) == 1000 and len(store.indices("test")) == 300
    assert store.classes == XD_CLASSES and (store.dim, store.stride) == (64, 16)
    assert store.encoder == "soundstage"
    seeds = [seed_of(store, i) for i in range(len(store.videos))]
    assert len(set(seeds)) == len(seeds)
    size = sum(path.stat().st_size for path in soundstage_path().rglob("*"))
    assert size < 34e6
    train = store.labels(store.indices("train"))
    assert (train.sum(0) >= 15).all(), train.sum(0)  # every class is there to be learned
    rms = np.sqrt(np.square(store.video(0).astype(np.float32)).mean(1))
    np.testing.assert_allclose(rms, 1, atol=0.01)


def test_labels_are_written_as_xd_violence_does(store):
    names = [row.name for row in store.videos]
    pattern = r"soundstage_\d{4}_label_(A|(B1|B2|B4|B5|B6|G)(-(B1|B2|B4|B5|B6|G|0)){2})"
    assert all(re.fullmatch(pattern, name) for name in names)


def test_windows_are_cut_where_the_snippets_are():
    """Snippet k starts at second 2k/3: sample 10,666.67 k, rounded; the last is padded."""
    track = np.arange(3 * 32_000 // 3, dtype=np.float32)  # three snippets
    windows = build.cut_windows(track, 3)
    assert windows.shape == (3, 10_667)
    assert [int(w[0]) for w in windows] == [0, 10_667, 21_333]
    assert windows[2][-1] == 31_999
    assert build.cut_windows(track[:-5], 3)[2][-6:].tolist() == [31_994, 0, 0, 0, 0, 0]


def test_zero_shot_is_as_reported_and_words_are_ambiguous(encoders, snippets):
    """Here a few hundred snippets of another seed; the full report is made by the build script."""
    report = zero_shot(encoders, snippets)
    assert report["chance"] == pytest.approx(1 / 7, abs=1e-3)
    filed = json.loads((soundstage_path() / build.REPORT_FILE).read_text())["zero_shot"]
    for sense in ("image_words", "audio_words"):
        told, found = filed[sense], report[sense]
        assert found["balanced_accuracy"] == pytest.approx(told["balanced_accuracy"], abs=0.1)
        assert 2 * report["chance"] < found["balanced_accuracy"] < 0.75
        assert np.mean(list(found["taken_for_an_anomaly"].values())) > 0.8


def test_features_hold_what_words_do_not_find(encoders, snippets):
    """A linear probe that is told the truth of half the snippets tells harm from harmless."""
    features = encoders.encode_images(snippets.frames[snippets.seen]).numpy()
    harm = np.array([code != "A" for code in snippets.codes[snippets.seen]])
    half = len(harm) // 2
    probe = LogisticRegression(C=0.1, max_iter=1000).fit(features[:half], harm[:half])
    words = encoders.encode_text(XD_CLASSES.words).numpy()
    by_words = (features[half:] @ words.T).argmax(1) > 0
    assert (probe.predict(features[half:]) == harm[half:]).mean() > 0.8
    assert (by_words == harm[half:]).mean() < 0.7


def test_zero_shot_counts_what_it_says():
    """Hand-made features: four snippets, two classes right, one wrong, one not in sight."""

    class Stub:
        def encode_text(self, prompts):
            words = [next(k for k, w in enumerate(XD_CLASSES.words) if w in p) for p in prompts]
            return torch.eye(7)[words]

        def encode_images(self, frames):
            return torch.eye(7)[[1, 0, 2, 5]]

        def encode_audio(self, waves):
            return torch.eye(7)[[1, 1, 2, 5]]

    class Data:
        frames = waves = np.zeros(4)
        codes = np.array(["B1", "B1", "B2", "A"])
        kinds = np.array(["fighting", "fighting", "shooting", "horn"])
        seen = np.array([True, True, True, True])
        heard = np.array([True, False, True, False])

        def __len__(self):
            return 4

    report = zero_shot(Stub(), Data())
    image, audio = report["image_words"], report["audio_words"]
    assert image["recall"] == {"normal": 0.0, "fighting": 0.5, "shooting": 1.0}
    assert image["balanced_accuracy"] == 0.5
    assert image["taken_for_an_anomaly"] == {"horn": 1.0}
    assert audio["recall"] == {"fighting": 1.0, "shooting": 1.0}  # what cannot be heard is out
    assert audio["balanced_accuracy"] == 1.0 and audio["taken_for_an_anomaly"] == {}


def test_class_words_are_found_between_learned_vectors(encoders, snippets):
    """A detector's prompts start as ten near-zero vectors, the word, ten more: 24 positions."""
    tower, prompts = load_text("soundstage", XD_CLASSES.words, dim=64)
    torch.manual_seed(0)
    rows, end = [], []
    for ids in prompts.ids:
        parts = [
            tower.embed_tokens([prompts.start]),
            0.01 * torch.randn(10, tower.width),
            tower.embed_tokens(ids),
            0.01 * torch.randn(10, tower.width),
            tower.embed_tokens([prompts.end]),
            torch.zeros(2 - len(ids), tower.width),
        ]
        rows.append(torch.cat(parts))
        end.append(21 + len(ids))
    classes = torch.nn.functional.normalize(tower(torch.stack(rows), torch.tensor(end)), dim=-1)
    guess = (encoders.encode_images(snippets.frames) @ classes.T).argmax(1).numpy()
    truth = np.array([XD_CLASSES.index(code) for code in snippets.codes])
    recall = [(guess == c)[snippets.seen & (truth == c)].mean() for c in range(len(XD_CLASSES))]
    assert np.mean(recall) > 2 / 7, np.round(recall, 2)  # twice chance, as bare words are


def test_words_outside_the_tiny_vocabulary_are_refused_by_name(encoders):
    with pytest.raises(ValueError, match="never read 'zebra'"):
        load_text("soundstage", ["normal", "zebra crossing"])
    with pytest.raises(ValueError, match="never read 'quixotic'"):
        encoders.encode_text(["a quixotic riot"])


def test_the_file_holds_used_token_rows_only():
    with safe_open(soundstage_path() / SOUNDSTAGE_FILE, framework="pt") as file:
        vocabulary = file.get_tensor("text.vocabulary").tolist()
        table = file.get_slice("text.token_embedding.weight").get_shape()
    assert table[0] == len(vocabulary) < 300
    assert set(token_ids("a photo of a car accident on a street by day")) <= set(vocabulary)


def test_a_store_build_is_resumed_and_repeats(encoders, tmp_path):
    splits = {"train": range(7_000, 7_002), "test": range(7_002, 7_003)}
    world = World(snippets=(3, 5))
    build.build_store(tmp_path / "a", encoders, splits, world, 1)
    render = build.render_scene
    calls = []

    def stop_at_second(scene):
        calls.append(scene.seed)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return render(scene)

    build.render_scene = stop_at_second
    with pytest.raises(KeyboardInterrupt):
        build.build_store(tmp_path / "b", encoders, splits, world, 1)
    build.build_store(tmp_path / "b", encoders, splits, world, 1)
    build.render_scene = render
    assert len(calls) == 4  # the first video was not rendered twice
    one, two = FeatureStore.open(tmp_path / "a"), FeatureStore.open(tmp_path / "b")
    assert [row.name for row in one.videos] == [row.name for row in two.videos]
    assert one.digest == two.digest


def test_world_overrides_are_checked():
    assert build.parse_world(["snippets=4,9", "both=0.4"]).snippets == (4, 9)
    with pytest.raises(SystemExit, match="unknown World field 'gravity'"):
        build.parse_world(["gravity=1"])


# --- example clips ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def index():
    with open(soundstage_path() / "clips" / "index.csv", encoding="utf-8") as file:
        return {row["file"]: row for row in csv.DictReader(file)}


def decoded(name: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Frames (N, H, W, 3) and samples at 16 kHz (or None) of a shipped clip."""
    with av.open(str(soundstage_path() / "clips" / name)) as file:
        frames = np.stack([f.to_ndarray(format="rgb24") for f in file.decode(video=0)])
    with av.open(str(soundstage_path() / "clips" / name)) as file:
        if not file.streams.audio:
            return frames, None
        parts = [f.to_ndarray()[0] for f in file.decode(audio=0)]
    return frames, np.concatenate(parts)


def test_clips_are_few_small_and_all_in_the_index(index):
    files = {path.name: path for path in (soundstage_path() / "clips").glob("*.mp4")}
    assert files.keys() == index.keys() and len(files) <= 24
    assert sum(path.stat().st_size for path in files.values()) < 4e6
    classes = {code for row in index.values() for code in row["classes"].split("-")}
    assert classes == set(XD_CLASSES.codes)
    assert {f"{name}.mp4" for name in EXAMPLES.values()} <= files.keys()
    assert {f"distractor_{kind}.mp4" for kind in DISTRACTORS} <= files.keys()


def test_an_example_clip_is_the_video_of_the_store(store, index):
    name = EXAMPLES["many labels"]
    i = first(store, lambda v: v.name == name)
    row, scene = index[f"{name}.mp4"], scene_of(store, i)
    assert row["events"] == " ".join(f"{c} {a} {b}" for c, a, b in store.segments(i))
    frames, sound = decoded(f"{name}.mp4")
    assert len(frames) == store.videos[i].frames and int(row["fps"]) == 24
    clean = 16 * np.flatnonzero(~scene.flags()["corrupted_video"])[2::8] + 8
    picture = [frame(scene, k / 24, len(frames[0])).astype(float) for k in clean]
    apart = np.array([[np.abs(frames[k] - other).mean() for other in picture] for k in clean])
    assert len(clean) >= 3 and apart.diagonal().max() < 12, apart  # compression blurs a little
    assert (apart.argmin(1) == np.arange(len(clean))).all()
    track = wave(scene)
    assert abs(len(sound) - len(track)) <= 2048
    match = [np.corrcoef(sound[s : s + 300_000], track[:300_000])[0, 1] for s in (0, 800, 1024)]
    assert max(match) > 0.9


def test_clips_show_the_faults_they_name():
    black, sound = decoded("fault_black_frames.mp4")
    assert black[60:90].max() < 40 and black[10:40].mean() > 60 and sound is not None
    assert decoded("fault_missing_audio.mp4")[1] is None
    quiet = decoded("fault_silent_microphone.mp4")[1]
    assert np.abs(quiet[36_000:60_000]).max() < 0.02 < np.abs(quiet[:24_000]).max()
