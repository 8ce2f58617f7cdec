"""A folder of clips becomes a store: labels, resuming, extending, broken files, workers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from clips import clip_wave, flat, write_clip

from avadclip_lite.dataset import FeatureStore
from avadclip_lite.encoders import load_encoders
from avadclip_lite.video import folder as folders
from avadclip_lite.video.extract import extract
from avadclip_lite.video.folder import UNLABELLED, extract_folder, find_videos, video_names


def clip(path: Path, grey: int, seconds: float = 1.92, sound: bool = True) -> None:
    """Two to a few snippets at 25 frames/s that differ from clip to clip."""
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = clip_wave(seconds, 16000, [0.3], noise=grey / 1000) if sound else None
    picture = lambda k: flat(grey + k, (32, 32))  # noqa: E731
    write_clip(
        path,
        seconds=seconds,
        size=(32, 32),
        picture=picture,
        video_codec="mpeg4",
        wave=wave,
        sample_rate=16000,
    )


@pytest.fixture
def films(tmp_path):
    """Four good clips and two bad ones."""
    root = tmp_path / "films"
    clip(root / "a_label_B2-G-0.mp4", 20)
    clip(root / "b.mkv", 60, sound=False)
    clip(root / "deeper" / "c.avi", 100, seconds=3.2)
    clip(root / "d_label_A.mp4", 140)
    (root / "bad.mp4").write_text("no video at all")
    (root / "empty.mov").touch()
    (root / "notes.txt").write_text("not looked at")
    return root


def run(root: Path, out: Path, **choices):
    choices = {"weights": "random", "device": "cpu", "progress": False} | choices
    return extract_folder(root, out, **choices)


GOOD = ["a_label_B2-G-0", "b", "d_label_A", "deeper/c"]  # in the order of their paths


def test_a_folder_becomes_a_store(films, tmp_path):
    summary = run(films, tmp_path / "store")
    store = FeatureStore.open(tmp_path / "store")
    rows = list(store.videos)
    assert [row.name for row in rows] == GOOD == summary.done
    assert [row.snippets for row in rows] == [3, 3, 3, 5]
    assert [row.has_audio for row in rows] == [True, False, True, True]
    assert [row.label for row in rows] == ["B2-G", "A", "A", "A"]
    assert [row.split for row in rows] == ["train", UNLABELLED, "train", UNLABELLED]
    assert [row.source for row in rows][3] == "deeper/c.avi"
    assert summary.sounds == {"present": 3, "absent": 1} and summary.unlabelled == 2
    assert set(summary.set_aside) == {"bad", "empty"}
    assert "is empty (0 bytes)" in summary.set_aside["empty"]
    assert "2 set aside" in str(summary)

    alone = extract(films / "d_label_A.mp4", load_encoders("soundstage", weights="random"))
    np.testing.assert_allclose(store.video(2), alone.video[0], atol=1e-6)
    np.testing.assert_allclose(store.audio(2), alone.audio, atol=1e-6)

    lines = [json.loads(line) for line in (store.path / "extraction.jsonl").open()]
    assert lines[0]["settings"]["crops"] == "whole" and lines[0]["settings"]["picture"] == "middle"
    seconds = {line["name"]: line.get("seconds") for line in lines[1:]}
    assert seconds["b"] == pytest.approx(1.92, abs=0.01) and seconds["empty"] is None


def test_labels_and_splits_from_a_csv_and_events_from_annotations(films, tmp_path):
    labels = tmp_path / "labels.csv"
    labels.write_text("name,label,split\nb.mkv,B1,test\nc,G,\na_label_B2-G-0,B6,train\ngone,A,\n")
    events = tmp_path / "events.txt"
    events.write_text("b 5 20\n")
    run(films, tmp_path / "store", labels=labels, annotations=events, split="extra")
    store = FeatureStore.open(tmp_path / "store")
    got = {row.name: (row.label, row.split) for row in store.videos}
    assert got == {
        "a_label_B2-G-0": ("B6", "train"),
        "b": ("B1", "test"),
        "d_label_A": ("A", "extra"),
        "deeper/c": ("G", "extra"),
    }
    assert store.frame_truth([1]).nonzero()[0].tolist() == list(range(5, 20))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("video,class\nb,B1\n", "must name the columns name,label"),
        ("name,label\nb,B3\n", "line 2: unknown label code 'B3'"),
        ("name,label\nb,B1\nb.mkv,A\n", "line 3: video 'b' is listed twice"),
    ],
)
def test_bad_label_files(films, tmp_path, text, message):
    labels = tmp_path / "labels.csv"
    labels.write_text(text)
    with pytest.raises(ValueError, match=message):
        run(films, tmp_path / "store", labels=labels)
    assert not (tmp_path / "store").exists()


def test_a_name_with_a_label_that_cannot_be_read_is_told(tmp_path):
    clip(tmp_path / "films" / "x_label_B9.mp4", 30)
    summary = run(tmp_path / "films", tmp_path / "store")
    assert summary.unlabelled == 1
    assert "unknown label code 'B9'" in summary.remarks[0] and "'B9'" in str(summary)


@pytest.fixture
def counted(monkeypatch):
    """The files that were extracted, in order."""
    files = []
    real = folders.extract

    def counting(path, *args, **choices):
        files.append(Path(path).name)
        return real(path, *args, **choices)

    monkeypatch.setattr(folders, "extract", counting)
    return files


def features(path: Path) -> dict[str, bytes]:
    return {name: (path / name).read_bytes() for name in ("video.npy", "audio.npy", "manifest.csv")}


def test_an_interrupted_run_goes_on_where_it_stopped(films, tmp_path, monkeypatch, counted):
    run(films, tmp_path / "whole")
    counted.clear()
    real = folders.ResultLog.add

    def interrupted(self, name, *args):
        if name == "d_label_A":
            raise KeyboardInterrupt
        real(self, name, *args)

    monkeypatch.setattr(folders.ResultLog, "add", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(films, tmp_path / "store")
    assert not (tmp_path / "store").exists()
    monkeypatch.setattr(folders.ResultLog, "add", real)
    counted.clear()
    summary = run(films, tmp_path / "store")
    assert summary.kept == {"a_label_B2-G-0", "b"}
    assert counted == ["bad.mp4", "d_label_A.mp4", "c.avi", "empty.mov"]
    assert features(tmp_path / "store") == features(tmp_path / "whole")


def test_a_finished_store_is_extended_and_relabelled_without_extracting_again(
    films, tmp_path, counted
):
    store = tmp_path / "store"
    run(films, store)
    before = features(store)
    counted.clear()
    again = run(films, store)
    assert counted == [] and again.done == [] and again.kept == set(GOOD)
    assert set(again.set_aside) == {"bad", "empty"}  # known, and not tried again
    assert features(store) == before

    clip(films / "e_label_G.mp4", 180)
    clip(films / "empty.mov", 200)  # mended
    more = run(films, store)
    assert sorted(counted) == ["e_label_G.mp4", "empty.mov"]
    assert set(more.done) == {"e_label_G", "empty"} and set(more.set_aside) == {"bad"}
    opened = FeatureStore.open(store)
    assert [row.name for row in opened.videos][:4] == GOOD and len(opened) == 6

    counted.clear()
    labels = tmp_path / "labels.csv"
    labels.write_text("name,label\nb,B4\n")
    old = np.array(opened.video(1))
    run(films, store, labels=labels)
    opened = FeatureStore.open(store)
    assert counted == [] and opened.videos[1].label == "B4" and opened.videos[1].split == "train"
    np.testing.assert_array_equal(opened.video(1), old)

    clip(films / "b.mkv", 90, seconds=6.4)  # another film of that name
    run(films, store, labels=labels)
    opened = FeatureStore.open(store)
    assert counted == ["b.mkv"]
    assert {row.name: row.snippets for row in opened.videos}["b"] == 10


def test_a_video_that_left_the_folder_stays_in_the_store(films, tmp_path):
    labels = tmp_path / "labels.csv"
    labels.write_text("name,label,split\nb,B1,test\n")
    run(films, tmp_path / "store", labels=labels)
    (films / "b.mkv").unlink()
    clip(films / "e.mp4", 30)
    run(films, tmp_path / "store")
    store = FeatureStore.open(tmp_path / "store")
    got = {row.name: (row.label, row.split) for row in store.videos}
    assert got["b"] == ("B1", "test") and "e" in got


def test_other_choices_do_not_mix_into_a_store(films, tmp_path):
    run(films, tmp_path / "store")
    with pytest.raises(ValueError, match="was made with crops='whole', not 'clip'"):
        run(films, tmp_path / "store", crops="clip")
    (tmp_path / "store" / "extraction.jsonl").unlink()
    with pytest.raises(ValueError, match="is a store that extract did not make"):
        run(films, tmp_path / "store")


def test_several_crops_are_rows_that_share_the_sound(films, tmp_path):
    run(films, tmp_path / "store", crops="0,5")
    store = FeatureStore.open(tmp_path / "store")
    assert [(row.name, row.crop) for row in store.videos][:2] == [(GOOD[0], 0), (GOOD[0], 5)]
    assert store.videos[0].track == store.videos[1].track and len(store) == 8


def test_nothing_that_can_be_read(tmp_path):
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "a.mp4").touch()
    summary = run(tmp_path / "films", tmp_path / "store")
    assert not summary.done and len(summary.set_aside) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["films"]


def test_bad_arguments(films, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        run(tmp_path / "nowhere", tmp_path / "store")
    (tmp_path / "bare").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no video; looked for .3g2, .3gp, .asf"):
        run(tmp_path / "bare", tmp_path / "store")
    with pytest.raises(ValueError, match="jobs must be at least 1, got 0"):
        run(films, tmp_path / "store", jobs=0)


def test_names_of_videos(tmp_path):
    for name in ("x.mp4", "x.avi", "sub/x.mp4", "y.with.dots.MOV"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    paths = find_videos(tmp_path)
    assert list(video_names(paths, tmp_path)) == ["sub/x", "x.avi", "x.mp4", "y.with.dots"]
    assert list(video_names(find_videos(tmp_path / "x.mp4"), tmp_path / "x.mp4")) == ["x"]


def test_two_processes_write_the_store_that_one_writes(films, tmp_path):
    run(films, tmp_path / "one")
    summary = run(films, tmp_path / "two", jobs=2)
    assert set(summary.set_aside) == {"bad", "empty"}
    one, two = FeatureStore.open(tmp_path / "one"), FeatureStore.open(tmp_path / "two")
    assert [row.name for row in one.videos] == [row.name for row in two.videos]
    for i in range(len(one)):
        np.testing.assert_allclose(one.video(i), two.video(i), atol=2e-5)
