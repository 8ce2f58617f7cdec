"""The stand-in folder: read here file by file, then by the importer, which must agree.

The reading below is this test's own (``csv``, ``split``): it shares nothing with the package.
"""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import numpy as np
import pytest
from fake_release import build_standin

from avadclip_lite.dataset import FeatureStore
from avadclip_lite.features.import_release import import_layout

SIZES = {"train_videos": 8, "test_videos": 20, "crops": 3}
STRIDE = 16


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return build_standin(tmp_path_factory.mktemp("made") / "in", **SIZES)


@pytest.fixture(scope="module")
def store(made):
    report = import_layout(
        "xd",
        made.features,
        made.train_list,
        made.test_list,
        made.annotations,
        made.features.parents[1] / "store",
        dim=made.width,
        encoder=made.encoder,
        progress=False,
    )
    return FeatureStore.open(report.path), report


def lines_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def annotated(path: Path, width: int) -> dict[str, list[list[str]]]:
    found = {}
    for line in path.read_text().splitlines():
        name, *words = line.split()
        found[name.removesuffix(".mp4")] = [
            words[i : i + width] for i in range(0, len(words), width)
        ]
    return found


def arrays(made) -> dict[str, np.ndarray]:
    return {path.name: np.load(path) for path in made.features.rglob("*.npy")}


def test_the_folder_has_the_layout_of_the_release(made):
    files = arrays(made)
    train, test = lines_of(made.train_list), lines_of(made.test_list)
    assert len(train) == 8 * 3 and len(test) == 20
    assert list(train[0]) == ["path", "audio_path", "label"]
    for line in train + test:
        assert line["path"].startswith("/") and not Path(line["path"]).exists()
        stem, _, crop = Path(line["path"]).name.removesuffix(".npy").rpartition("__")
        assert stem.endswith(f"_label_{line['label']}")
        assert (crop == "5") if line in test else (crop in "012")
        video, sound = files[Path(line["path"]).name], files[Path(line["audio_path"]).name]
        assert video.dtype == sound.dtype == np.float32
        assert video.shape[1] == sound.shape[1] == made.width == 64
        assert 0 <= len(sound) - len(video) <= 1
    crops = [files[Path(line["path"]).name] for line in train[:3]]
    gap = np.sqrt(np.mean((crops[0] - crops[1]) ** 2))
    assert gap == pytest.approx(0.1 * 2**0.5, rel=0.05), "crops differ by their noise alone"
    names = made.names["train"] + made.names["test"]
    assert len(set(names)) == 28


def test_both_annotation_files_tell_the_same_and_hold_the_traps(made):
    plain, coded = (annotated(path, n) for path, n in zip(made.annotations, (2, 3), strict=True))
    assert {k: [e[1:] for e in v] for k, v in coded.items()} == plain
    files, stride = arrays(made), STRIDE
    past = against = 0
    for name, events in coded.items():
        frames = stride * len(files[f"{name}__5.npy"])
        last = max(int(end) for _, _, end in events)
        assert all(int(start) < int(end) for _, start, end in events)
        assert last < frames + stride, "a stride or more past the end would be refused"
        past += last > frames
        against += not {c for c, _, _ in events} <= set(name.rpartition("_label_")[2].split("-"))
    anomalous = [n for n in made.names["test"] if not n.endswith("_label_A")]
    assert set(coded) == set(anomalous)
    mp4 = sum(".mp4" in line for line in made.annotations[0].read_text().splitlines())
    longer = {
        name
        for split, crop in (("train", 0), ("test", 5))
        for name in made.names[split]
        if len(files[f"{name}.npy"]) > len(files[f"{name}__{crop}.npy"])
    }
    assert made.traps == {
        "past the end": past,
        "ending in .mp4": mp4,
        "against the name": against,
        "longer sound": len(longer),
    }
    assert past and mp4 and longer and against == 1


def test_the_importer_reads_what_was_written(made, store):
    found, report = store
    plain = annotated(made.annotations[0], 2)
    files, stride = arrays(made), STRIDE
    test, train = found.indices("test"), found.indices("train")
    assert [found.videos[i].name for i in test] == made.names["test"]
    assert {found.videos[i].crop for i in test} == {5}
    assert [found.videos[i].crop for i in train[:3]] == [0, 1, 2]
    truth = []
    for name in made.names["test"]:
        own = np.zeros(stride * len(files[f"{name}__5.npy"]), int)
        for start, end in plain.get(name, []):
            own[int(start) : int(end)] = 1
        truth.append(own)
    np.testing.assert_array_equal(found.frame_truth(test), np.concatenate(truth))
    assert report.clipped_videos == made.traps["past the end"]
    for i in test:
        row = found.videos[i]
        np.testing.assert_array_equal(found.video(i), files[f"{row.name}__5.npy"])
    warned = any("contradict" in text for text in report.warnings)
    assert warned == bool(made.traps["against the name"])


def test_events_lie_where_soundstage_has_them(made):
    """A video of one part alone is that Soundstage video: find it by its features, compare."""
    stage = FeatureStore.open(Path(__file__).parents[1] / "data" / "soundstage")
    _, coded = (annotated(path, n) for path, n in zip(made.annotations, (2, 3), strict=True))
    files, stride = arrays(made), STRIDE
    sounds = {}
    for i in stage.indices("test"):
        if stage.audio(i) is not None:
            sounds[np.asarray(stage.audio(i), np.float32).tobytes()] = i
    compared = 0
    for name, events in coded.items():
        row = sounds.get(files[f"{name}.npy"].tobytes())
        own = set(name.rpartition("_label_")[2].split("-"))
        if row is None or not {c for c, _, _ in events} <= own:
            continue
        expected = [
            [c, str(a * stride // 16), str(b * stride // 16)] for c, a, b in stage.segments(row)
        ]
        assert events == expected
        compared += 1
    assert compared, "no video of one part, without a trap, was found"


def test_the_lift_keeps_lengths_and_angles(tmp_path):
    one, two = (
        build_standin(tmp_path / str(w), width=w, train_videos=2, test_videos=2, crops=1)
        for w in (64, 512)
    )
    assert (one.encoder, two.encoder) == ("soundstage", "random")
    for a, b in zip(*(sorted(m.features.rglob("*.npy")) for m in (one, two)), strict=True):
        x, y = np.load(a), np.load(b)
        assert y.shape == (len(x), 512)
        np.testing.assert_allclose(x @ x.T, y @ y.T, atol=2e-3)


def test_same_arguments_same_bytes(tmp_path):
    def digest(where: str, **options: int) -> str:
        made = build_standin(tmp_path / where, train_videos=2, test_videos=3, crops=1, **options)
        total = hashlib.sha256()
        for path in sorted(p for p in made.features.parent.rglob("*") if p.is_file()):
            total.update(str(path.relative_to(made.features.parent)).encode() + path.read_bytes())
        return total.hexdigest()

    assert digest("a") == digest("b") != digest("c", seed=1)


def test_bad_input_is_refused(tmp_path):
    with pytest.raises(ValueError, match="width=8 is narrower than Soundstage's 64"):
        build_standin(tmp_path / "a", width=8)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "kept.txt").write_text("mine")
    with pytest.raises(ValueError, match="full is not empty"):
        build_standin(tmp_path / "full")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["full"]
