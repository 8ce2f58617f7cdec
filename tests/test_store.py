"""The feature store: what goes in comes out, whatever interrupts the writing."""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from avadclip_lite.config import CCTV_CLASSES, XD_CLASSES, make_config
from avadclip_lite.dataset import (
    FeatureStore,
    StoreError,
    TrainingSet,
    holdout_split,
    resample,
)
from avadclip_lite.features.writer import StoreWriter

DIM = 6
REFERENCE = Path(__file__).parent / "fixtures" / "ref_data_excerpt.npz"


def features(seed: int, snippets: int, dim: int = DIM, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(snippets, dim)).astype(dtype)


def writer_at(path: Path, **changes) -> StoreWriter:
    options = {"classes": XD_CLASSES, "dim": DIM, "stride": 16, "encoder": "clip"} | changes
    return StoreWriter(path, **options)


def add(writer: StoreWriter, name: str = "v__#1_label_B1-0-0", **changes) -> None:
    row = {"split": "train", "video": features(1, 5), "audio": features(2, 5)} | changes
    writer.add(name=name, **row)


# ---------------------------------------------------------------------------- arithmetic of bags


def test_resampling_equals_the_release_bit_for_bit():
    with np.load(REFERENCE) as reference:
        for length in (1, 5, 100, 255, 256, 257, 300, 511, 512, 513, 2200):
            ours, theirs = resample(reference[f"in_{length}"]), reference[f"train_{length}"]
            assert len(ours) == reference[f"train_len_{length}"]
            assert np.array_equal(ours, theirs[: len(ours)]), length
            assert not theirs[len(ours) :].any()  # the release pads what is shorter


def test_resampling_by_hand():
    x = np.arange(5, dtype=np.float16)[:, None] * np.ones(2, np.float16)
    # edges of truncated linspace(0, 5, 4): 0, 1, 3, 5
    assert resample(x, 3).tolist() == [[0, 0], [1.5, 1.5], [3.5, 3.5]]
    assert resample(x, 3).dtype == np.float32
    assert resample(x, 5).tolist() == x.tolist()
    assert resample(x, 256).shape == (5, 2)


# ---------------------------------------------------------------------------- round trip


@pytest.fixture()
def small(tmp_path) -> tuple[FeatureStore, dict[str, np.ndarray]]:
    """Six rows: a long two-crop training video, a silent one, a normal one; two test videos."""
    given = {
        "long": features(10, 300),
        "long_crop": features(11, 300),
        "long_audio": features(12, 300),
        "silent": features(13, 7),
        "normal": features(14, 20),
        "normal_audio": features(15, 21),  # one snippet longer
        "test": features(16, 4),
        "test_audio": features(17, 3),  # one snippet shorter
        "calm": features(18, 9),
        "calm_audio": features(19, 9),
    }
    with writer_at(tmp_path / "store") as writer:
        name = 'one, "quoted" = #1_label_B2-G-0'
        for crop, key in ((0, "long"), (3, "long_crop")):
            writer.add(
                name=name,
                split="train",
                crop=crop,
                video=given[key],
                audio=given["long_audio"],
                source=f"sub/{key}.npy",
            )
        writer.add(name="two_label_B6", split="train", video=given["silent"])
        writer.add(
            name="three_label_A", split="train", video=given["normal"], audio=given["normal_audio"]
        )
        writer.add(
            name="four_label_B1-G-0",
            split="test",
            crop=5,
            video=given["test"],
            audio=given["test_audio"],
            segments=[("G", 10, 20), ("B1", 15, 30), ("B1", 40, 79)],
        )
        writer.add(
            name="five_label_A",
            split="test",
            crop=5,
            video=given["calm"],
            audio=given["calm_audio"],
        )
        writer.finish()
    return FeatureStore.open(tmp_path / "store"), given


def test_rows_come_back(small):
    store, given = small
    assert (store.dim, store.stride, store.encoder) == (DIM, 16, "clip")
    assert store.classes == XD_CLASSES
    assert store.indices("train").tolist() == [0, 1, 2, 3]
    assert store.indices("test").tolist() == [4, 5]
    for row, key in enumerate(["long", "long_crop", "silent", "normal"]):
        assert np.array_equal(store.video(row), given[key])
    assert np.array_equal(store.audio(0), given["long_audio"])
    assert np.array_equal(store.audio(1), given["long_audio"])
    assert store.audio(2) is None
    assert store.has_audio.tolist() == [True, True, False, True, True, True]
    first = store.videos[0]
    assert first.name == 'one, "quoted" = #1_label_B2-G-0'
    assert (first.label, first.split, first.crop, first.snippets) == ("B2-G", "train", 0, 300)
    assert (first.frames, first.stride, first.source) == (4800, 16, "sub/long.npy")
    assert store.flag_names == () and store.flags(0) == {}
    assert store.snippets.tolist() == [300, 300, 7, 20, 3, 9]


def test_one_snippet_apart_is_cut_to_the_shorter(small):
    store, given = small
    assert np.array_equal(store.audio(3), given["normal_audio"][:20])
    assert np.array_equal(store.video(4), given["test"][:3])
    video, audio = store.uncut(4)  # what the release resamples
    assert np.array_equal(video, given["test"]) and np.array_equal(audio, given["test_audio"])


def test_audio_is_on_disk_once_for_all_crops(small):
    store, _ = small
    assert np.load(store.path / "video.npy").shape == (300 + 300 + 7 + 20 + 4 + 9, DIM)
    assert np.load(store.path / "audio.npy").shape == (300 + 21 + 3 + 9, DIM)


def test_features_are_mapped_not_loaded(small):
    store, _ = small
    base = store.video(0)
    while isinstance(base.base, np.ndarray):
        base = base.base
    assert isinstance(base, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        store.video(0)[0, 0] = 1.0


def test_weak_labels_are_multi_hot(small):
    store, _ = small
    # A, B1, B2, B4, B5, B6, G
    assert store.labels([3, 0, 2]).tolist() == [
        [1, 0, 0, 0, 0, 0, 0],
        [0, 0, 1, 0, 0, 0, 1],
        [0, 0, 0, 0, 0, 1, 0],
    ]
    assert store.labels([]).shape == (0, 7)


def test_segments_are_clipped_to_the_row(small):
    store, _ = small
    # 3 shared snippets are 48 frames; 79 ended within a stride of the video's own 64
    assert store.segments(4) == [("G", 10, 20), ("B1", 15, 30), ("B1", 40, 48)]
    assert store.segments(5) == store.segments(0) == []


def test_frame_truth_by_hand(small):
    store, _ = small
    truth = store.frame_truth([5, 4])
    assert truth.dtype == np.uint8 and truth.shape == (144 + 48,)
    assert np.flatnonzero(truth).tolist() == [144 + f for f in (*range(10, 30), *range(40, 48))]
    assert store.frame_truth([]).shape == (0,)


def test_events_known_in_both_forms(tmp_path):
    """The binary form is the frame truth, the other names and delimits the events."""
    with writer_at(tmp_path / "s") as writer:
        add(writer, "a_label_B1", segments=[("B1", 1, 4)])
        add(
            writer, "b_label_B1-G", segments=[("B1", 0, 9), (None, 2, 7), ("G", 7, 9), (None, 8, 9)]
        )
        add(writer, "c_label_B1-G", segments=[(None, 3, 99 - 16)])
        writer.finish()
    store = FeatureStore.open(tmp_path / "s")
    assert store.segments(1) == [("B1", 0, 9), ("G", 7, 9)]
    assert store.segments(2) == [(None, 3, 80)]
    truth = store.frame_truth([1, 2, 0]).reshape(3, 80)
    assert np.flatnonzero(truth[0]).tolist() == [2, 3, 4, 5, 6, 8]
    assert np.flatnonzero(truth[1]).tolist() == list(range(3, 80))
    assert np.flatnonzero(truth[2]).tolist() == [1, 2, 3]


def test_frame_truth_equals_a_loop_over_frames(tmp_path):
    rng = np.random.default_rng(0)
    with writer_at(tmp_path / "s") as writer:
        for k in range(40):
            snippets = int(rng.integers(1, 12))
            ends = rng.integers(1, 16 * snippets + 16, size=rng.integers(0, 5))
            events = [("B1", int(rng.integers(0, end)), int(end)) for end in ends]
            add(
                writer,
                f"{k}_label_B1-0-0",
                split="test",
                video=features(k, snippets),
                audio=None,
                segments=events,
            )
        writer.finish()
    store = FeatureStore.open(tmp_path / "s")
    rows = rng.permutation(40)[:30]
    expected = []
    for row in rows:
        for frame in range(store.videos[row].frames):
            expected.append(any(a <= frame < b for _, a, b in store.segments(row)))
    assert 0 < sum(expected) < len(expected)
    assert store.frame_truth(rows).tolist() == [int(e) for e in expected]


def test_flags_follow_their_row(tmp_path):
    on = np.array([0, 1, 1, 0, 1], bool)
    with writer_at(tmp_path / "s") as writer:
        add(writer, "a_label_A", flags={"audible": on, "visible": ~on})
        add(writer, "b_label_A", audio=features(2, 4), flags={"visible": on, "audible": on & False})
        with pytest.raises(StoreError, match="flags .* in other rows"):
            add(writer, "c_label_A")
        with pytest.raises(StoreError, match="5 snippets"):
            add(writer, "c_label_A", flags={"audible": on[:2], "visible": on})
        writer.finish()
    store = FeatureStore.open(tmp_path / "s")
    assert set(store.flag_names) == {"audible", "visible"}
    assert store.flags(0)["audible"].tolist() == on.tolist()
    assert store.flags(0)["visible"].tolist() == (~on).tolist()
    assert store.flags(1)["visible"].tolist() == on[:4].tolist()  # cut with the row
    assert not store.flags(1)["audible"].any()


@pytest.mark.parametrize(
    ("dtype", "given"), [("float16", "float16"), ("float32", "float16"), ("float32", "float64")]
)
def test_dtype_is_as_asked(tmp_path, dtype, given):
    x = features(1, 5, dtype=given)
    with writer_at(tmp_path / "s", dtype=dtype) as writer:
        add(writer, video=x, audio=features(2, 5, dtype="float16"))
        writer.finish()
    store = FeatureStore.open(tmp_path / "s")
    assert store.video(0).dtype == store.audio(0).dtype == dtype
    assert np.array_equal(store.video(0), x.astype(dtype))


def test_a_store_without_any_audio_or_event(tmp_path):
    with writer_at(tmp_path / "s") as writer:
        add(writer, audio=None)
        writer.finish()
    store = FeatureStore.open(tmp_path / "s")
    assert store.audio(0) is None and store.segments(0) == []
    assert not (store.path / "audio.npy").exists()
    assert not store.frame_truth([0]).any()


def test_the_digest_changes_with_features_labels_and_events_only(tmp_path):
    def digest(folder: str, **changes) -> str:
        with writer_at(tmp_path / folder) as writer:
            add(writer, **({"split": "test", "segments": [("B1", 0, 9)]} | changes))
            writer.finish()
        return FeatureStore.open(tmp_path / folder).digest

    other = features(1, 5)
    other[3, 2] += 1e-3
    same = digest("a")
    assert same == digest("b") == digest("c", source="elsewhere.npy")
    changed = [
        digest("d", video=other),
        digest("e", audio=None),
        digest("f", segments=[("B1", 0, 10)]),
        digest("g", label="B1-B2-0"),
    ]
    assert len({same, *changed}) == 5


# ---------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"video": features(1, 5, dim=7)},
            r"video features must be floating point \(T, 6\), got float32 \(5, 7\)",
        ),
        ({"audio": features(1, 5, dim=5)}, r"audio features must be .*got float32 \(5, 5\)"),
        ({"video": features(1, 0)}, "zero snippets"),
        ({"video": features(1, 7)}, "7 video and 5 audio snippets are more than one apart"),
        ({"video": np.ones((5, DIM), int)}, "must be floating point .T, 6., got int64"),
        ({"video": np.ones(DIM, "f")}, r"floating point .T, 6., got float32 \(6,\)"),
        ({"video": np.array([[1.0] * DIM, [np.nan] * DIM])}, "NaN or infinity, first in snippet 1"),
        ({"audio": np.full((5, DIM), np.inf)}, "audio features hold NaN or infinity"),
        ({"video": np.full((5, DIM), 1e39)}, "NaN or infinity"),  # beyond float32
        ({"name": "v_label_B7-0-0"}, "unknown label code 'B7'"),
        ({"name": "v"}, "carries no label"),
        (
            {"segments": [("B1", 0, 96)]},
            "has 80 frames and is annotated up to frame 96, a stride of 16",
        ),
        ({"segments": [("B9", 0, 5)]}, "unknown label code 'B9'"),
        ({"segments": [("B1", 5, 5)]}, "event 5 to 5 is not a span"),
    ],
)
def test_bad_rows_are_refused_by_name_and_leave_nothing_behind(tmp_path, changes, message):
    with writer_at(tmp_path / "s") as writer:
        with pytest.raises(ValueError, match=message) as error:
            add(writer, **changes)
        assert changes.get("name", "v__#1_label_B1-0-0") in str(error.value) or "code" in message
        assert "\n" not in str(error.value)
        add(writer, "good_label_A")  # the writer goes on, and holds this row only
        writer.finish()
    store = FeatureStore.open(tmp_path / "s")
    assert [row.name for row in store.videos] == ["good_label_A"]
    assert np.array_equal(store.video(0), features(1, 5))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": "test"}, "its split differs from another crop's of this video, 'test' and"),
        ({"label": "B2-0-0"}, "its label differs .*, 'B2' and 'B1'"),
        ({"segments": [("B1", 0, 7)]}, "its segments differs .*"),
        ({"audio": features(3, 5)}, "its audio differs from another crop's"),
        ({"audio": None}, "its audio differs from another crop's"),
        ({"video": features(1, 3)}, "3 video and 5 audio snippets"),
        ({"crop": 0}, "crop 0 is already in"),
    ],
)
def test_crops_of_a_video_agree(tmp_path, changes, message):
    with writer_at(tmp_path / "s") as writer:
        add(writer, segments=[("B1", 0, 9)])
        with pytest.raises(StoreError, match=message):
            add(writer, **({"crop": 1} | changes))
        add(writer, crop=1, video=features(5, 6))
        writer.finish()
    store = FeatureStore.open(tmp_path / "s")
    assert len(store) == 2 and store.segments(1) == [("B1", 0, 9)]
    assert np.array_equal(store.audio(1), features(2, 5))
    assert np.array_equal(store.video(1), features(5, 6)[:5])


def test_float32_does_not_slip_into_a_float16_store(tmp_path):
    with writer_at(tmp_path / "s", dtype="float16") as writer:
        with pytest.raises(StoreError, match="float32 and the store is float16"):
            add(writer)
    with pytest.raises(StoreError, match="float16 or float32, got 'int8'"):
        writer_at(tmp_path / "t", dtype="int8")


def test_nothing_to_finish(tmp_path):
    with writer_at(tmp_path / "s") as writer:
        with pytest.raises(StoreError, match="at least one row"):
            writer.finish()


def test_opening_what_is_not_a_store(tmp_path):
    with pytest.raises(FileNotFoundError, match="no feature store at .*nowhere.*import"):
        FeatureStore.open(tmp_path / "nowhere")
    (tmp_path / "other").mkdir()
    with pytest.raises(StoreError, match="no feature store at .*other, for it has no meta.json"):
        FeatureStore.open(tmp_path / "other")


def test_damaged_stores_are_refused(small, tmp_path):
    store, _ = small

    def damaged(name: str) -> Path:
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(store.path, copy)
        return copy / name

    path = damaged("video.npy")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StoreError, match="video.npy cannot be read"):
        FeatureStore.open(path.parent)
    np.save(damaged("audio.npy"), np.zeros((3, DIM), "f"))
    with pytest.raises(StoreError, match=r"audio.npy holds \(3, 6\) where meta.json .*333, 6"):
        FeatureStore.open(path.parent)
    damaged("video.npy").write_bytes(b"")
    with pytest.raises(StoreError, match="video.npy cannot be read: No data left"):
        FeatureStore.open(path.parent)
    damaged("manifest.csv").unlink()
    with pytest.raises(StoreError, match="copy is damaged .*manifest.csv"):
        FeatureStore.open(path.parent)
    damaged("audio.npy").unlink()
    with pytest.raises(StoreError, match="audio.npy cannot be read: .*No such file"):
        FeatureStore.open(path.parent)
    np.save(damaged("video.npy"), np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(StoreError, match="video.npy cannot be read.*Python objects"):
        FeatureStore.open(path.parent)
    path = damaged("manifest.csv")
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(StoreError, match="contradict"):
        FeatureStore.open(path.parent)
    path = damaged("manifest.csv")
    path.write_text(path.read_text()[:-9])
    with pytest.raises(StoreError, match="damaged|contradict"):
        FeatureStore.open(path.parent)
    path = damaged("manifest.csv")
    path.write_text(path.read_text().replace("audio_start", "start"))
    with pytest.raises(StoreError, match="copy is damaged .*audio_start"):
        FeatureStore.open(path.parent)
    path = damaged("manifest.csv")
    path.write_text(path.read_text().replace("split", "spilt", 1))
    with pytest.raises(StoreError, match="copy is damaged .*split"):
        FeatureStore.open(path.parent)
    path = damaged("meta.json")
    path.write_text(path.read_text().replace('"format": 1', '"format": 99'))
    with pytest.raises(StoreError, match="format 99, this package reads 1"):
        FeatureStore.open(path.parent)
    damaged("meta.json").write_text("{")
    with pytest.raises(StoreError, match="copy is damaged"):
        FeatureStore.open(path.parent)


def test_unknown_split(small):
    with pytest.raises(StoreError, match="no split 'validation'; it has test, train"):
        small[0].indices("validation")


# ---------------------------------------------------------------------------- interruptions


def fill(writer: StoreWriter, videos: int = 6, rows: int = 99) -> None:
    """Rows with everything in them, skipping those that are there."""
    for k in range(videos):
        for crop in range(2):
            if len(writer) < rows and (f"{k}_label_B1-0-0", crop) not in writer:
                add(
                    writer,
                    f"{k}_label_B1-0-0",
                    crop=crop,
                    video=features(10 * k + crop, 3 + k),
                    audio=features(10 * k + 5, 3 + k) if k != 2 else None,
                    segments=[("B1", k, k + 9)],
                    flags={"audible": np.arange(3 + k) % 2 == 0},
                )


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(path.iterdir())}


@pytest.fixture()
def whole(tmp_path) -> dict[str, bytes]:
    """What an uninterrupted run writes."""
    with writer_at(tmp_path / "whole") as writer:
        fill(writer)
        writer.finish()
    names = {"meta.json", "manifest.csv", "annotations.csv", "video.npy", "audio.npy", "flags.npy"}
    assert set(contents(tmp_path / "whole")) == names
    return contents(tmp_path / "whole")


def test_a_half_written_store_is_never_readable(tmp_path):
    path = tmp_path / "s"
    with writer_at(path) as writer:
        fill(writer)
        for look_at in (path, writer.partial):
            with pytest.raises(StoreError, match="half-written: run .* again.* or delete"):
                FeatureStore.open(look_at)
    with pytest.raises(StoreError, match="half-written"):
        FeatureStore.open(path)


def killed_child(path: Path, operation: int) -> bool:
    """Write a whole store in a child process that is killed right before its n-th operation on
    files of ``path``; whether there was such an operation."""
    child = os.fork()
    if child == 0:
        left = operation

        def watch(event: str, arguments: tuple) -> None:
            nonlocal left
            if event == "open" or event.startswith(("os.", "shutil.", "mmap.")):
                counts = event == "mmap.__new__" or str(path) in repr(arguments)
                left -= counts
                if counts and left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        try:
            sys.addaudithook(watch)
            with writer_at(path) as writer:
                fill(writer, videos=3)
                writer.finish()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def test_killed_before_any_operation_on_files_it_goes_on_and_ends_the_same(tmp_path):
    """Every second operation of a writer (each opening, renaming, deleting, mapping of a file)."""
    with writer_at(tmp_path / "whole") as writer:
        fill(writer, videos=3)
        writer.finish()
    path, resumed = tmp_path / "s", []
    for operation in itertools.count(0, 2):
        if not killed_child(path, operation):
            break
        if not (path / "meta.json").exists():
            with pytest.raises((StoreError, FileNotFoundError), match="half-written|no feature"):
                FeatureStore.open(path)
            with writer_at(path) as writer:
                resumed.append(writer.resumed)
                fill(writer, videos=3)
                writer.finish()
            assert not path.with_name("s.partial").exists()
        assert contents(path) == contents(tmp_path / "whole")
        shutil.rmtree(path)
        shutil.rmtree(path.with_name("s.partial"), ignore_errors=True)
    assert len(resumed) > 25 and set(resumed) == set(range(7))


def test_an_interrupted_replacement_goes_on(tmp_path, whole, monkeypatch):
    """The old store is gone, the new one not there yet: it says so, and the next run mends it."""
    path = tmp_path / "s"
    with writer_at(path) as writer:
        add(writer)
        writer.finish()
    (path / "README.md").write_text("mine")
    with writer_at(path, overwrite=True) as writer:
        fill(writer)
        (writer.partial / "log.jsonl").write_text("log")
        with monkeypatch.context() as patch:
            patch.setattr("os.replace", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                writer.finish()
    with pytest.raises(StoreError, match="half-written"):
        FeatureStore.open(path)
    with writer_at(path) as writer:
        assert writer.resumed == 12
        writer.finish()
    assert contents(path) == whole | {"README.md": b"mine", "log.jsonl": b"log"}


def harm(part: Path, how: str) -> None:
    data = bytearray(part.read_bytes())
    if how == "a hole":
        middle = data.index(b"NUMPY", data.index(b"video.npy")) + 130  # inside the features
        data[middle : middle + 8] = bytes(8)
    part.write_bytes(data[: {"a hole": None, "cut": len(data) // 2, "empty": 0}[how]])


@pytest.mark.parametrize("how", ["a hole", "cut", "empty"])
def test_features_lost_in_a_power_cut_are_noticed(tmp_path, whole, how):
    with writer_at(tmp_path / "s") as writer:
        fill(writer, 4)
        part = tmp_path / "s.partial" / "parts" / "000004.npz"
        harm(part, how)
    with writer_at(tmp_path / "s") as writer:
        assert writer.resumed == 4 and not part.exists()
        fill(writer)
        harm(part, how)
        with pytest.raises(StoreError, match="parts was harmed on disk; run the same again"):
            writer.finish()
    with writer_at(tmp_path / "s") as writer:
        assert writer.resumed == 4
        fill(writer)
        writer.finish()
    assert contents(tmp_path / "s") == whole


def test_a_missing_part_ends_what_is_kept(tmp_path, whole):
    with writer_at(tmp_path / "s") as writer:
        fill(writer, 4)
    (tmp_path / "s.partial" / "parts" / "000002.npz").unlink()
    with writer_at(tmp_path / "s") as writer:
        assert writer.resumed == 2
        fill(writer)
        writer.finish()
    assert contents(tmp_path / "s") == whole


def test_a_partial_store_of_an_earlier_version_is_refused(tmp_path):
    (tmp_path / "s.partial").mkdir()
    (tmp_path / "s.partial" / "journal.jsonl").write_text("{}")
    with pytest.raises(StoreError, match="s.partial is an earlier version's; delete it to start"):
        writer_at(tmp_path / "s")
    assert (tmp_path / "s.partial" / "journal.jsonl").exists()


def test_the_content_of_a_store_is_that_of_earlier_versions(whole):
    """Recorded from the writer of e281ea6 with the same rows, the digest in meta.json included;
    numpy pads the 128 bytes of an array's header in another way."""
    content = {n: c[128:] if n.endswith(".npy") else c for n, c in whole.items()}
    assert {n: hashlib.sha256(c).hexdigest()[:12] for n, c in content.items()} == {
        "annotations.csv": "7a043ae5a328",
        "audio.npy": "574d535094d9",
        "flags.npy": "77287f382be3",
        "manifest.csv": "d9fcc34c6f5f",
        "meta.json": "8bd24212676b",
        "video.npy": "327b912a4e41",
    }


def test_resuming_twice_and_with_only_a_head(tmp_path, whole):
    with writer_at(tmp_path / "s") as writer:
        with pytest.raises(StoreError):
            add(writer, video=features(1, 5, dim=9))
    for rows in (1, 3):
        with writer_at(tmp_path / "s") as writer:
            fill(writer, rows)
    with writer_at(tmp_path / "s") as writer:
        assert writer.resumed == 6
        fill(writer)
        writer.finish()
    assert contents(tmp_path / "s") == whole


def test_a_partial_store_of_something_else_is_not_continued(tmp_path):
    with writer_at(tmp_path / "s") as writer:
        fill(writer, 1)
    for changes in ({"inputs": "other lists"}, {"dim": 7}, {"classes": CCTV_CLASSES}):
        with pytest.raises(StoreError, match="s.partial was begun with other inputs"):
            writer_at(tmp_path / "s", **changes)
    with pytest.raises(StoreError, match="s.partial was begun with other inputs or settings"):
        writer_at(tmp_path / "s", dtype="float16")


def test_one_writer_at_a_time(tmp_path):
    pytest.importorskip("fcntl")
    with writer_at(tmp_path / "s"):
        with pytest.raises(StoreError, match="being written by another process"):
            writer_at(tmp_path / "s")


def test_after_a_failed_write_the_writer_goes_on(tmp_path, whole, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with writer_at(tmp_path / "s") as writer:
        fill(writer, 2)
        with monkeypatch.context() as patch:
            patch.setattr("numpy.savez", full)
            with pytest.raises(OSError, match="No space"):
                fill(writer, 3)
        fill(writer, 3)  # the row is not on disk, but not lost either
    with writer_at(tmp_path / "s") as writer:
        assert writer.resumed == 6
        fill(writer)
        writer.finish()
    assert contents(tmp_path / "s") == whole


def test_a_finished_store_is_replaced_only_on_request(tmp_path, whole):
    path = tmp_path / "s"
    with writer_at(path) as writer:
        add(writer)
        writer.finish()
    (path / "README.md").write_text("mine")
    with pytest.raises(StoreError, match="already a feature store"):
        writer_at(path)
    with writer_at(path, overwrite=True) as writer:
        fill(writer)
        assert len(FeatureStore.open(path)) == 1  # the old one, until the end
        writer.finish()
    assert contents(path) == whole | {"README.md": b"mine"}
    with writer_at(path, overwrite=True) as writer:
        add(writer, audio=None)
        writer.finish()
    assert "flags.npy" not in contents(path) and "audio.npy" not in contents(path)


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "s").write_text("x")
    with pytest.raises(StoreError, match="is a file"):
        writer_at(tmp_path / "s")


def test_opening_four_thousand_rows_takes_under_a_fifth_of_a_second(tmp_path):
    """A tenth of XD-Violence with ten crops; features one wide, as opening reads none."""
    with writer_at(tmp_path / "s", dim=1) as writer:
        x = np.zeros((2, 1), np.float32)
        for k in range(400):
            for crop in range(10):
                writer.add(
                    name=f"A.Film.Of.Length.2001__#00-00-00_00-01-00_{k}_label_B2-G-0",
                    split="train",
                    crop=crop,
                    video=x,
                    audio=x,
                    segments=[("G", 1, 9)] if k % 8 == 0 else (),
                    source=f"XDTrainClipFeatures/{k}__{crop}.npy",
                )
        writer.finish()
    seconds = []
    for _ in range(3):
        start = time.process_time()
        store = FeatureStore.open(tmp_path / "s")
        seconds.append(time.process_time() - start)
    assert len(store) == 4_000
    assert min(seconds) < 0.2


# ---------------------------------------------------------------------------- training bags


def naive_batch(store: FeatureStore, rows, length: int, separate: bool = False):
    """Bag by bag, snippet by snippet."""
    video = np.zeros((len(rows), length, store.dim), np.float32)
    audio, mask = video.copy(), np.zeros((len(rows), length), bool)
    for b, row in enumerate(rows):
        x, y = store.uncut(row) if separate else (store.video(row), store.audio(row))
        for out, given in ((video, x), (audio, y)):
            if given is None:
                continue
            size = min(len(given), 256)
            edges = [int(v) for v in np.linspace(0, len(given), size + 1)]
            for s in range(min(size, length)):
                out[b, s] = given[edges[s] : edges[s + 1]].mean(axis=0, dtype=np.float32)
        if y is not None:
            mask[b, : min(len(x), len(y), 256)] = True
    return video, audio, mask


@pytest.mark.parametrize("separate", [False, True])
def test_a_batch_equals_a_loop(small, separate):
    store, _ = small
    settings = make_config(dim=8, max_snippets=256, resample="separate" if separate else "together")
    bags = TrainingSet(store, [0, 1, 2, 3, 4], settings)
    for picked in ([0, 1, 2, 3, 4], [2, 3], [3, 3, 0], [2]):
        batch = bags.batch(torch.tensor(picked))
        length = int(batch.lengths.max())
        video, audio, mask = naive_batch(store, picked, length, separate)
        np.testing.assert_allclose(batch.video.numpy(), video, atol=1e-6)
        np.testing.assert_allclose(batch.audio.numpy(), audio, atol=1e-6)
        assert np.array_equal(batch.audio_mask.numpy(), mask)
        assert torch.equal(batch.labels, torch.from_numpy(store.labels(picked)))
    lengths = bags.batch(torch.arange(5)).lengths
    assert lengths.tolist() == [256, 256, 7, 20, 4 if separate else 3]
    assert lengths.dtype == torch.int64 and batch.labels.dtype == torch.float32
    assert torch.equal(bags.lengths, lengths) and len(bags) == 5


@pytest.mark.parametrize(
    ("dtype", "precision"), [("float16", "bf16"), ("float32", "bf16"), ("float16", "float32")]
)
def test_only_halves_of_a_bf16_training_are_packed_as_halves(tmp_path, dtype, precision):
    """What a store holds in float32 may be out of their range, and float32 is meant in full."""
    long, short = features(1, 600, 8, dtype), features(2, 5, 8, dtype)
    with writer_at(tmp_path / "s", dim=8, dtype=dtype) as writer:
        add(writer, video=long, audio=long)
        add(writer, name="b_label_A", video=short, audio=None)
        writer.finish()
    store = FeatureStore.open(tmp_path / "s")
    settings = make_config(dim=8, max_snippets=256, precision=precision)
    bags = TrainingSet(store, [0, 1], settings)
    batch = bags.batch(torch.tensor([0, 1]))
    assert batch.video.dtype == batch.audio.dtype == torch.float32
    video, audio, _ = naive_batch(store, [0, 1], 256, separate=False)
    narrow = dtype == "float16" and precision == "bf16"
    near = {"rtol": 2**-11, "atol": 1e-7} if narrow else {"rtol": 1e-6, "atol": 1e-6}
    np.testing.assert_allclose(batch.video.numpy(), video, **near)
    np.testing.assert_allclose(batch.audio.numpy(), audio, **near)
    full = sum(len(x) for x in (video[0], video[1][:5], audio[0])) + 2  # a row of zeros each
    assert bags.nbytes == full * 8 * (2 if narrow else 4)


def test_together_keeps_both_modalities_of_an_event_in_one_bin(tmp_path):
    """511 video and 512 audio snippets with one event in snippets 400 and 401 of both: together
    it stays in one place; apart, as in the release, the picture spreads over two bins."""
    video, audio = np.zeros((511, DIM), "f"), np.zeros((512, DIM), "f")
    video[400:402] = audio[400:402] = 1.0
    with writer_at(tmp_path / "s") as writer:
        add(writer, video=video, audio=audio)
        writer.finish()
    store = FeatureStore.open(tmp_path / "s")

    def bins(resample):
        bags = TrainingSet(store, [0], make_config(dim=8, max_snippets=256, resample=resample))
        batch = bags.batch(torch.tensor([0]))
        return [
            {s: float(x[0, s, 0]) for s in x[0, :, 0].nonzero()[:, 0].tolist()}
            for x in (batch.video, batch.audio)
        ]

    # truncated edges: 2s - 1 of 511 snippets (from s = 1), 2s of 512
    assert bins("together") == [{200: 0.5, 201: 0.5}, {200: 0.5, 201: 0.5}]
    assert bins("separate") == [{200: 0.5, 201: 0.5}, {200: 1.0}]


def test_length_aware_only_cuts_padding(small):
    store, _ = small
    cut = TrainingSet(store, [2, 3], make_config(dim=8, max_snippets=256))
    full = TrainingSet(store, [2, 3], make_config(dim=8, max_snippets=256, length_aware=False))
    index = torch.tensor([1, 0])
    short, long = cut.batch(index), full.batch(index)
    assert short.video.shape == (2, 20, DIM) and long.video.shape == (2, 256, DIM)
    assert torch.equal(long.video[:, :20], short.video) and not long.video[:, 20:].any()
    assert torch.equal(long.audio[:, :20], short.audio) and not long.audio[:, 20:].any()
    assert not long.audio_mask[:, 20:].any()


def test_shorter_bags_on_request(small):
    store, given = small
    bags = TrainingSet(store, [0], make_config(dim=8, max_snippets=10))
    batch = bags.batch(torch.tensor([0]))
    np.testing.assert_allclose(batch.video[0].numpy(), given["long"].reshape(10, 30, DIM).mean(1))


def test_first_crop_only(small):
    store, _ = small
    bags = TrainingSet(store, [3, 1, 0, 2], make_config(dim=8, max_snippets=256, crops="first"))
    assert bags.rows.tolist() == [3, 0, 2]
    assert TrainingSet(
        store, [3, 1], make_config(dim=8, max_snippets=256, crops="first")
    ).rows.tolist() == [3, 1]


def test_audio_is_in_memory_once_for_all_crops(small):
    store, _ = small
    bags = TrainingSet(store, [0, 1], make_config(dim=8, max_snippets=256))
    # two videos and one track of 256, and a row of zeros each
    assert bags.nbytes == 4 * DIM * (2 * 256 + 1 + 256 + 1)


def test_bags_move(small):
    store, _ = small
    bags = TrainingSet(store, [0, 2], make_config(dim=8, max_snippets=256))
    assert bags.to("cpu") is bags
    batch = bags.batch(torch.tensor([1])).to(torch.device("cpu"))
    assert len(batch) == 1
    meta = (
        TrainingSet(store, [0, 2], make_config(dim=8, max_snippets=256))
        .to("meta")
        .batch(torch.tensor([1, 0]))
    )
    assert {t.device.type for t in vars(meta).values()} == {"meta"}
    assert meta.video.shape == (2, 256, DIM)  # the length was known without the device
    with pytest.raises(StoreError, match="no training rows"):
        TrainingSet(store, [], make_config(dim=8, max_snippets=256))


# ---------------------------------------------------------------------------- hold-out


@pytest.fixture()
def labelled(tmp_path) -> FeatureStore:
    """100 training videos of three crops: 50 normal, 30 fights, 16 shootings, 4 rare ones."""
    labels = ["A"] * 50 + ["B1-0-0"] * 30 + ["B2-0-0"] * 16 + ["B2-G-0", "B4", "B5", "B6-G-0"]
    with writer_at(tmp_path / "s", dim=1) as writer:
        x = np.zeros((1, 1), np.float32)
        for crop in range(3):
            for k, label in enumerate(labels):
                writer.add(name=f"{k}_label_{label}", split="train", crop=crop, video=x)
        writer.finish()
    return FeatureStore.open(tmp_path / "s")


def test_holdout_keeps_crops_together_and_strata_in_proportion(labelled):
    rows = np.random.default_rng(0).permutation(300)
    for seed in range(20):
        kept, held = holdout_split(labelled, rows, 0.1, seed)
        assert sorted([*kept, *held]) == list(range(300))
        assert not {r % 100 for r in kept} & {r % 100 for r in held}  # row r is video r % 100
        assert [r for r in rows if r in set(held)] == held.tolist()  # order kept
        label = [labelled.videos[r].label for r in held]
        assert len(held) == 30 and label.count("A") == 15
        assert label.count("B1") // 3 == 3 and label.count("B2") // 3 in (1, 2)


def test_holdout_is_seeded_and_reaches_every_video(labelled):
    rows = labelled.indices("train")
    first = holdout_split(labelled, rows, 0.2, 7)
    again = holdout_split(labelled, rows, 0.2, 7)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    seen = {int(r) % 100 for seed in range(60) for r in holdout_split(labelled, rows, 0.2, seed)[1]}
    assert len(seen) == 100


def test_holdout_edges(labelled):
    rows = labelled.indices("train")
    kept, held = holdout_split(labelled, rows, 0.0, 0)
    assert len(held) == 0 and np.array_equal(kept, rows)
    kept, held = holdout_split(labelled, rows, 0.001, 0)  # at least one normal and one anomaly
    assert sorted(labelled.labels(held)[:, 0]) == [0, 0, 0, 1, 1, 1]
    kept, held = holdout_split(labelled, [0], 0.5, 0)
    assert len(kept) + len(held) == 1
