"""Importing the release's layout: what it holds, and every refusal."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import threading
import time
import unicodedata
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from tqdm import tqdm

from avadclip_lite.__main__ import main
from avadclip_lite.dataset import META, FeatureStore, StoreError
from avadclip_lite.features.import_release import import_layout
from avadclip_lite.features.writer import StoreWriter

DIM = 4
import_xd, import_cctv = (partial(import_layout, kind) for kind in ("xd", "cctv"))
FIGHT = "A.Film, Part 2 (1999)__#00-01-02_00-02-03_label_B1-B2-0"
CALM = "v=ab-cd_e__#1_label_A"
BOOM = "v=xy@z__#00-10_label_G-0-0"
TRAIN = (FIGHT, CALM)


class Layout:
    """A folder in the release's layout that a test may bend."""

    def __init__(self, root: Path, train_crops: int = 2) -> None:
        self.root = root
        self.arrays: dict[str, np.ndarray] = {}
        self.lines: dict[str, list[list[str]]] = {"train": [], "test": []}
        rng = np.random.default_rng(0)

        def array(snippets: int) -> np.ndarray:
            return rng.normal(size=(snippets, DIM)).astype("f")

        for name, snippets in ((FIGHT, 12), (CALM, 300)):
            for crop in range(train_crops):
                self.arrays[f"clip/train/{name}__{crop}.npy"] = array(snippets)
                self.line("train", name, crop)
            self.arrays[f"wav/{name}.npy"] = array(snippets)
        self.test("v=street__#2_label_A", array(7), array(7))
        self.test(BOOM, array(10), array(10))
        self.annotations = f"{BOOM}.mp4 G 10 50 G 150 165\n"

    def test(self, name: str, video: np.ndarray, audio: np.ndarray) -> None:
        self.arrays[f"clip/test/{name}__5.npy"] = video
        self.arrays[f"wav/{name}.npy"] = audio
        self.line("test", name, 5)

    def line(self, split: str, name: str, crop: int) -> None:
        far = "/home/someone/Desktop/XDFeatures"
        label = name.rsplit("_label_")[-1]
        self.lines[split].append([f"{far}/{name}__{crop}.npy", f"{far}Wav/{name}.npy", label])

    def write(self) -> Layout:
        for name, array in self.arrays.items():
            path = self.root / "features" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, array, allow_pickle=True)
        for split, lines in self.lines.items():
            with open(self.root / f"{split}.csv", "w", newline="") as file:
                csv.writer(file).writerows([["path", "audio_path", "label"], *lines])
        (self.root / "annotations.txt").write_text(self.annotations)
        return self

    def run(self, importer=import_xd, **options):
        r = self.root
        given = {"dim": DIM, "progress": False} | options
        lists = (r / "train.csv", r / "test.csv", r / "annotations.txt", r / "store")
        return importer(r / "features", *lists, **given)


@pytest.fixture()
def layout(tmp_path) -> Layout:
    return Layout(tmp_path)


def refusal(layout: Layout, kind: type[Exception] = StoreError, **options) -> str:
    """The sentence that an import of the layout is refused with; nothing readable must exist."""
    with pytest.raises(kind) as caught:
        layout.write().run(**options)
    message = str(caught.value)
    assert "\n" not in message
    assert not (layout.root / "store").exists()
    return message


# ---------------------------------------------------------------------------- what it holds


def test_the_store_holds_what_the_folder_held(layout):
    report = layout.write().run()
    store = FeatureStore.open(report.path)
    assert (store.classes.name, store.stride, store.dim) == ("XD-Violence", 16, DIM)
    assert store.encoder == "clip"
    for i, row in enumerate(store.videos):
        assert np.array_equal(store.video(i), layout.arrays[row.source])
        assert np.array_equal(store.audio(i), layout.arrays[f"wav/{row.name}.npy"])
    rows = [(row.name, row.crop, row.split, row.label) for row in store.videos]
    assert rows == [
        (FIGHT, 0, "train", "B1-B2"),
        (FIGHT, 1, "train", "B1-B2"),
        (CALM, 0, "train", "A"),
        (CALM, 1, "train", "A"),
        ("v=street__#2_label_A", 5, "test", "A"),
        (BOOM, 5, "test", "G"),
    ]
    # the second event overran 160 frames by 5
    assert store.segments(5) == [("G", 10, 50), ("G", 150, 160)]
    truth = store.frame_truth(store.indices("test"))
    assert len(truth) == 16 * 17 and truth.sum() == 50
    assert truth[16 * 7 + 10] and not truth[16 * 7 + 50]  # the end is exclusive


def test_the_report_counts(layout):
    report = layout.write().run()
    assert report.rows == {"train": 4, "test": 2}
    assert report.videos == {"train": 2, "test": 2}
    assert (report.frames, report.anomalous_frames, report.clipped_videos) == (272, 50, 1)
    assert (report.cut_rows, report.missing_audio, report.resumed_rows) == (0, 0, 0)
    assert report.snippets == 2 * 12 + 2 * 300 + 7 + 10
    assert report.warnings == [f"fewer or more than 10 training crops of 2 videos: {FIGHT}, {CALM}"]


def test_ten_crops_share_their_audio_and_need_no_warning(tmp_path):
    report = Layout(tmp_path, train_crops=10).write().run()
    assert report.rows["train"] == 20 and report.warnings == []
    stored = np.load(report.path / "audio.npy", mmap_mode="r")
    assert len(stored) == 12 + 300 + 7 + 10


def test_one_snippet_apart_is_cut_and_counted(layout):
    layout.arrays[f"wav/{FIGHT}.npy"] = np.ones((11, DIM), "f")  # two rows
    layout.arrays[f"clip/test/{BOOM}__5.npy"] = np.ones((9, DIM), "f")  # 10 snippets of audio
    layout.annotations = f"{BOOM} 10 50"
    report = layout.write().run()
    store = FeatureStore.open(report.path)
    assert report.cut_rows == 3
    assert store.snippets.tolist() == [11, 11, 300, 300, 7, 9]
    assert all(len(store.video(i)) == len(store.audio(i)) for i in range(6))


def test_an_event_at_the_end_of_a_video_that_is_cut(layout):
    """10 video snippets are 160 frames; 9 of audio leave 144: the tolerance is the video's."""
    layout.arrays[f"wav/{BOOM}.npy"] = np.ones((9, DIM), "f")
    report = layout.write().run()
    assert FeatureStore.open(report.path).segments(5) == [("G", 10, 50)]  # 150 to 165 is cut off
    assert (report.clipped_videos, report.anomalous_frames, report.frames) == (1, 40, 256)


def test_an_empty_audio_path_means_no_sound(layout):
    for line in layout.lines["train"][:2]:
        line[1] = ""
    report = layout.write().run()
    store = FeatureStore.open(report.path)
    assert report.missing_audio == 1
    assert store.has_audio.tolist() == [False, False, True, True, True, True]
    assert store.audio(0) is None


def test_a_missing_audio_file_means_no_sound_where_allowed(layout):
    del layout.arrays[f"wav/{BOOM}.npy"]
    message = refusal(layout, FileNotFoundError)
    assert f"1 listed file: {BOOM}.npy nowhere under" in message and "test.csv, line 3" in message
    assert "--allow-missing-audio" in message
    report = layout.run(allow_missing_audio=True)
    assert report.missing_audio == 1
    assert FeatureStore.open(report.path).audio(5) is None


def test_a_list_without_audio_column(layout):
    layout.write()
    for split in ("train", "test"):
        path = layout.root / f"{split}.csv"
        with open(path, newline="") as file:
            lines = [[line[0], line[2]] for line in csv.reader(file)]
        with open(path, "w", newline="") as file:
            csv.writer(file).writerows(lines)
    with pytest.raises(ValueError, match="train.csv has no column 'audio_path' in 'path, label'"):
        layout.run()
    report = layout.run(allow_missing_audio=True)
    assert report.missing_audio == 4 and not FeatureStore.open(report.path).has_audio.any()


def test_half_precision_stays_half_and_mixed_becomes_single(layout):
    layout.arrays = {name: a.astype("f2") for name, a in layout.arrays.items()}
    report = layout.write().run()
    assert FeatureStore.open(report.path).video(0).dtype == np.float16
    layout.arrays[f"wav/{BOOM}.npy"] = layout.arrays[f"wav/{BOOM}.npy"].astype("f4")
    report = layout.write().run(overwrite=True)
    assert FeatureStore.open(report.path).video(0).dtype == np.float32


def test_arrays_of_every_order_and_byte_order(layout):
    key = f"clip/test/{BOOM}__5.npy"
    layout.arrays[key] = np.asfortranarray(layout.arrays[key].astype(">f4"))
    report = layout.write().run()
    assert np.array_equal(FeatureStore.open(report.path).video(5), layout.arrays[key])


def test_lists_from_windows(layout):
    layout.write()
    text = (layout.root / "test.csv").read_text()
    text = text.replace("/home/someone/Desktop/XDFeatures", "C:\\data").replace("Wav/", "\\wav\\")
    text = text.replace("C:\\data/", "C:\\data\\")
    (layout.root / "test.csv").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert layout.run().rows["test"] == 2


def test_one_list_alone(layout):
    layout.write()
    root = layout.root
    options = {"dim": DIM, "progress": False}
    report = import_xd(root / "features", root / "train.csv", None, None, root / "a", **options)
    assert report.rows == {"train": 4} and report.frames == 0
    report = import_xd(
        root / "features",
        None,
        root / "test.csv",
        root / "annotations.txt",
        root / "b",
        **options,
    )
    assert report.rows == {"test": 2} and report.anomalous_frames == 50
    with pytest.raises(StoreError, match="a test list needs the annotation file"):
        import_xd(root / "features", None, root / "test.csv", None, root / "c", **options)
    with pytest.raises(StoreError, match="nothing to import"):
        import_xd(root / "features", None, None, None, root / "c", **options)


def test_cctv_fights_have_stride_four_and_two_classes(tmp_path):
    layout = Layout(tmp_path)
    layout.arrays.clear()
    layout.lines = {"train": [], "test": []}
    name = "fight_0001_label_B1-0-0"
    layout.test(name, np.ones((10, DIM), "f"), np.ones((10, DIM), "f"))
    layout.arrays["t/fight_0002_label_B1-0-0__0.npy"] = np.ones((3, DIM), "f")
    layout.arrays["t/fight_0002_label_B1-0-0.npy"] = np.ones((3, DIM), "f")
    layout.line("train", "fight_0002_label_B1-0-0", 0)
    layout.annotations = f"{name} 1 13 30 43\n"  # 40 frames
    report = layout.write().run(import_cctv)
    store = FeatureStore.open(report.path)
    assert (store.stride, store.classes.codes) == (4, ("A", "B1"))
    assert store.labels([0, 1]).tolist() == [[0, 1], [0, 1]]
    assert store.segments(1) == [("B1", 1, 13), ("B1", 30, 40)]  # the only class there is
    assert (report.frames, report.anomalous_frames, report.clipped_videos) == (40, 22, 1)
    layout.annotations = f"{name} 1 44\n"
    with pytest.raises(
        StoreError, match="has 40 frames and is annotated up to frame 44, a stride of 4"
    ):
        layout.write().run(import_cctv, overwrite=True)


# ---------------------------------------------------------------------------- annotation traps


def test_a_code_that_contradicts_the_name_is_reported(layout):
    layout.annotations = f"{BOOM} B4 10 50\n"
    report = layout.write().run()
    assert f"{BOOM} (B4 annotated)" in " ".join(report.warnings)
    assert FeatureStore.open(report.path).segments(5) == [("B4", 10, 50)]


def test_a_normal_video_that_is_annotated_is_reported(layout):
    layout.annotations += "v=street__#2_label_A 3 9\n"
    (warning,) = layout.write().run().warnings[1:]
    assert "contradict the label of 1 video: v=street__#2_label_A (an event" in warning


def test_an_annotated_video_that_is_not_listed_is_reported(layout):
    layout.annotations += "v=other__#1_label_B4-0-0 B4 0 99999\n"
    warnings = layout.write().run().warnings
    assert "annotated but not listed, left out: 1 video: v=other__#1_label_B4-0-0" in warnings


def test_an_anomalous_test_video_without_annotation_is_reported(layout):
    layout.test("v=riot__#1_label_B4-0-0", np.ones((4, DIM), "f"), np.ones((4, DIM), "f"))
    warnings = layout.write().run().warnings
    assert any(w.endswith("1 video: v=riot__#1_label_B4-0-0") for w in warnings)
    assert any("taken as normal throughout" in w for w in warnings)


def test_binary_annotations_take_the_class_of_a_single_label(layout):
    name = "v=two__#1_label_B2-B6-0"
    layout.test(name, np.ones((4, DIM), "f"), np.ones((4, DIM), "f"))
    layout.annotations = f"{BOOM} 10 50\n{name} 0 5 3 9\n"
    report = layout.write().run()
    store = FeatureStore.open(report.path)
    assert store.segments(5) == [("G", 10, 50)]
    assert store.segments(6) == [(None, 0, 5), (None, 3, 9)]
    assert store.frame_truth([6]).sum() == 9  # the overlap counts once
    assert any("events without a class" in w and name in w for w in report.warnings)


def test_both_annotation_files_at_once(layout):
    """Frame truth from the binary one, classes from the other."""
    layout.annotations = f"{BOOM} 10 50 150 163\n"
    layout.write()
    root = layout.root
    (root / "multi.txt").write_text(f"{BOOM}.mp4 G 10 30 G 30 50\n")

    def run(*annotations: str):
        lists = (root / "train.csv", root / "test.csv", [root / name for name in annotations])
        options = {"dim": DIM, "progress": False, "overwrite": True}
        return import_xd(root / "features", *lists, root / "store", **options)

    for order in (("annotations.txt", "multi.txt"), ("multi.txt", "annotations.txt")):
        report = run(*order)
        store = FeatureStore.open(report.path)
        assert store.segments(5) == [("G", 10, 30), ("G", 30, 50)]
        assert (report.anomalous_frames, report.clipped_videos) == (50, 1)
    (root / "annotations.txt").write_text(f"{BOOM} 10 50")
    assert run("annotations.txt", "multi.txt").clipped_videos == 0  # of the frame truth
    with pytest.raises(ValueError, match="multi.txt, line 1: .* has two lines of one form"):
        run("multi.txt", "multi.txt")


def test_an_event_a_stride_beyond_the_video_is_refused(layout):
    layout.annotations = f"{BOOM} G 10 175\n"  # 15 frames beyond 160
    assert layout.write().run().clipped_videos == 1
    layout.annotations = f"{BOOM} G 10 176\n"
    with pytest.raises(StoreError) as caught:
        layout.write().run(overwrite=True)
    assert f"{BOOM}__5.npy has 160 frames and is annotated up to frame 176" in str(caught.value)
    assert "a stride of 16 or more beyond them" in str(caught.value)


def test_annotations_of_other_data_are_refused(layout):
    layout.annotations = "v=other__#1_label_B4-0-0 B4 0 9\n"
    assert "belong to other data" in refusal(layout)


def test_an_unknown_annotated_code_is_refused(layout):
    layout.annotations = f"{BOOM} B3 0 9\n"
    message = refusal(layout, ValueError)
    assert "annotations.txt, line 1" in message and "unknown label code 'B3'" in message


# ---------------------------------------------------------------------------- bad files

VIDEO = f"clip/test/{BOOM}__5.npy"
AUDIO = f"wav/{BOOM}.npy"


@pytest.mark.parametrize("file", [VIDEO, AUDIO])
@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones((10, DIM + 1), "f"), "be floating point (T, 4), got float32 (10, 5)"),
        (np.ones((0, DIM), "f"), "have zero snippets; leave the video out"),
        (np.ones(DIM, "f"), "be floating point (T, 4), got float32 (4,)"),
        (np.ones((10, 1, DIM), "f"), "be floating point (T, 4), got float32 (10, 1, 4)"),
        (np.ones((10, DIM), np.int64), "be floating point (T, 4), got int64 (10, 4)"),
        (np.array([[{}]], dtype=object), "not a readable .npy array of numbers"),
        (np.array([[1.0] * DIM] * 9 + [[np.nan] * DIM]), "NaN or infinity, first in snippet 9"),
        (np.array([[1.0] * DIM] * 9 + [[-np.inf] * DIM]), "NaN or infinity, first in snippet 9"),
    ],
)
def test_bad_arrays_are_refused_by_file(layout, file, array, message):
    layout.arrays[file] = array
    sentence = refusal(layout)
    assert str(layout.root / "features" / file) in sentence
    assert message in sentence


def test_video_and_audio_more_than_one_snippet_apart(layout):
    layout.arrays[AUDIO] = np.ones((12, DIM), "f")
    sentence = refusal(layout)
    assert all(str(layout.root / "features" / file) in sentence for file in (VIDEO, AUDIO))
    assert "10 video and 12 audio snippets are more than one apart" in sentence


@pytest.mark.parametrize("keep", [0, 5, 60, 128, 200, -1])
def test_truncated_arrays_are_refused_by_file(layout, keep):
    layout.write()
    path = layout.root / "features" / VIDEO
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(StoreError) as caught:
        layout.run()
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert "download or extract it again" in str(caught.value)
    assert "is cut short or not a readable .npy array" in str(caught.value)
    assert not (layout.root / "store.partial").exists()  # found before anything was written


def test_what_is_no_array_at_all(layout):
    layout.write()
    path = layout.root / "features" / VIDEO
    path.write_text("<html>quota exceeded</html>")
    with pytest.raises(StoreError, match="not a readable .npy array"):
        layout.run()


def test_a_listed_file_that_is_missing(layout):
    del layout.arrays[VIDEO]
    sentence = refusal(layout, FileNotFoundError)
    assert "test.csv, line 3" in sentence and f"{BOOM}__5.npy nowhere under" in sentence


def test_a_file_name_in_two_places(layout):
    layout.arrays[f"backup/{BOOM}__5.npy"] = layout.arrays[VIDEO]
    sentence = refusal(layout)
    for folder in ("backup", "clip/test"):
        assert str(layout.root / "features" / folder / f"{BOOM}__5.npy") in sentence
    assert "is there twice" in sentence and "remove one" in sentence


def test_unneeded_files_may_be_anywhere_twice(layout):
    for folder in ("a", "b"):
        layout.arrays[f"{folder}/unlisted__0.npy"] = np.ones((1, 1))
    layout.write().run()


def test_links_among_the_folders(layout):
    layout.write()
    (layout.root / "features" / "clip" / "round").symlink_to(layout.root / "features")
    (layout.root / "features" / "again").symlink_to(layout.root / "features" / "wav")
    assert layout.run().rows == {"train": 4, "test": 2}


def relist(layout: Layout, split: str, change, encoding: str = "utf-8") -> None:
    """Write a list anew: its text as ``change`` makes it, in another encoding."""
    path = layout.root / f"{split}.csv"
    path.write_bytes(change(path.read_text()).encode(encoding))


CAFE = "Caf\u00e9.1999__#00-10-00_00-11-00_label_A"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("composed", [True, False])
def test_lists_and_names_as_other_programs_write_them(layout, encoding, composed):
    """The list has \u00e9 as one character, the file's name may have it as two (macOS)."""
    layout.test(CAFE, np.ones((3, DIM), "f"), np.ones((3, DIM), "f"))
    if not composed:
        for folder, end in (("clip/test", "__5"), ("wav", "")):
            twice = unicodedata.normalize("NFD", f"{folder}/{CAFE}{end}.npy")
            layout.arrays[twice] = layout.arrays.pop(f"{folder}/{CAFE}{end}.npy")
    layout.write()
    relist(layout, "test", str, encoding)
    report = layout.run()
    assert FeatureStore.open(report.path).videos[6].name == CAFE
    guessed = [w for w in report.warnings if "test.csv is not in UTF-8 and was read as" in w]
    assert len(guessed) == (encoding == "cp1252")


def test_a_list_that_was_guessed_wrong_says_so_where_files_are_missing(layout):
    layout.test("\u76d1\u63a7_label_A", np.ones((3, DIM), "f"), np.ones((3, DIM), "f"))
    layout.write()
    relist(layout, "test", str, "gbk")
    with pytest.raises(FileNotFoundError) as caught:
        layout.run()
    assert "2 listed files:" in str(caught.value)
    assert "test.csv is not in UTF-8 and was read as Windows-1252" in str(caught.value)


def test_all_missing_files_are_in_one_message(layout):
    for split in ("train", "test"):
        layout.lines[split] += [[f"gone{k}_label_A__{k}.npy", "", "A"] for k in range(125)]
    del layout.arrays[f"wav/{FIGHT}.npy"]
    sentence = refusal(layout, FileNotFoundError)
    assert f"train.csv, line 2: 126 listed files: {FIGHT}.npy, gone0_label_A__0.npy" in sentence
    assert "and 123 more nowhere under" in sentence and "--allow-missing-audio" in sentence


@pytest.mark.parametrize(
    "change",
    [
        lambda text: (
            text.replace(",", ";").replace("A.Film; Part", "A.Film, Part").replace('"', "")
        ),
        lambda text: text.replace("path,audio_path,label", "Path, Audio Path ,LABEL"),
        lambda text: text.replace("\n", "\n\n"),
    ],
)
def test_lists_with_other_separators_and_headers(layout, change):
    layout.write()
    whole = FeatureStore.open(layout.run().path).digest
    for split in ("train", "test"):
        relist(layout, split, change)
    assert FeatureStore.open(layout.run(overwrite=True).path).digest == whole


def test_another_tools_list_of_two_columns(layout):
    """VadCLIP's ``path,label``: refused with the option that reads it."""
    layout.write()
    for split in ("train", "test"):
        rows = [[line[0], line[2]] for line in layout.lines[split]]
        with open(layout.root / f"{split}.csv", "w", newline="") as file:
            csv.writer(file).writerows([["path", "label"], *rows])
    r = layout.root
    words = (
        f"import xd --features {r}/features --train {r}/train.csv --out {r}/s --dim {DIM}".split()
    )
    with pytest.raises(ValueError, match="no column 'audio_path'.* or --allow-missing-audio"):
        layout.run()
    assert main(words) == 2
    assert main([*words, "--allow-missing-audio"]) == 0
    assert len(FeatureStore.open(r / "s")) == 4


def test_files_of_other_systems_are_ignored(layout):
    layout.write()
    features = layout.root / "features"
    for name in ("clip/test/.DS_Store", f"clip/test/._{BOOM}__5.npy", "Thumbs.db"):
        (features / name).write_bytes(b"Mac OS X")
    (features / ".Trash").mkdir()
    shutil.copy(features / VIDEO, features / ".Trash")
    relist(layout, "test", lambda text: text + f"/x/._{BOOM}__5.npy,,G\n")
    warnings = layout.run().warnings
    assert f"left out as another system's files: 1 video: ._{BOOM}__5.npy" in warnings


def test_annotations_with_folders_and_suffixes_match(layout):
    layout.annotations = f"videos/test/{BOOM}.mp4 G 10 50\nnobody_label_G G 1 2\n"
    report = layout.write().run()
    assert report.anomalous_frames == 40
    assert "annotated but not listed, left out: 1 video: nobody_label_G" in report.warnings


def test_missing_inputs(layout):
    layout.write()
    (layout.root / "test.csv").unlink()
    with pytest.raises(FileNotFoundError, match="test.csv does not exist"):
        layout.run()
    with pytest.raises(FileNotFoundError, match="feature folder .*nowhere does not exist"):
        import_xd(layout.root / "nowhere", layout.root / "train.csv", None, None, "x")


# ---------------------------------------------------------------------------- bad lists


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "test.csv has no column 'path'"),
        ("file,label\na,b\n", "test.csv has no column 'path'"),
        ("path,audio_path,label\n", "test.csv lists no videos"),
        (
            "path,audio_path,label\nx/v.npy,x/v.npy,A\n",
            "test.csv, line 2: 'v.npy' is no feature file",
        ),
        ("path,audio_path,label\nx,y__5.npy,y.npy,A\n", "line 2: wrong number of cells"),
    ],
)
def test_bad_lists_are_refused_by_line(layout, text, message):
    layout.write()
    (layout.root / "test.csv").write_text(text)
    with pytest.raises(ValueError) as caught:
        layout.run()
    assert message in str(caught.value)


def bend(layout: Layout, how: str) -> None:
    lines = layout.lines
    if how == "unknown code in the name":
        layout.test("v_label_B3-0-0", np.ones((3, DIM), "f"), np.ones((3, DIM), "f"))
    elif how == "unknown code in the column":
        lines["test"][0][2] = "Normal"
    elif how == "no label at all":
        layout.test("v=unknown", np.ones((3, DIM), "f"), np.ones((3, DIM), "f"))
        lines["test"][-1][2] = ""
    elif how == "line twice":
        lines["train"].append(lines["train"][0])
    elif how == "two test crops":
        layout.arrays[f"clip/test/{BOOM}__6.npy"] = layout.arrays[VIDEO]
        layout.line("test", BOOM, 6)
    elif how == "trained on":
        layout.line("test", CALM, 0)
    elif how == "other audio":
        lines["train"][1][1] = lines["train"][2][1]
    elif how == "stolen audio":
        lines["test"][0][1] = lines["test"][1][1]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("unknown code in the name", "test.csv, line 4: unknown label code 'B3'"),
        ("unknown code in the column", "test.csv, line 2: unknown label code 'Normal'"),
        ("no label at all", "line 4: video 'v=unknown' has a label neither in its name nor in"),
        ("line twice", "train.csv, line 2, .*train.csv, line 6: video .* is listed twice"),
        ("two test crops", "test.csv, line 3, .*test.csv, line 4: .* has two crops on the test"),
        ("trained on", "train.csv, line 4, .*line 5: .* is on both lists, and must not be trained"),
        ("other audio", "line 2, .*line 3: video .* has crops with different audio files"),
        ("stolen audio", "line 2, .*line 3: video 'v=street.* shares its audio file with another"),
    ],
)
def test_contradicting_lists_are_refused(layout, how, message):
    bend(layout, how)
    with pytest.raises(ValueError, match=message):
        layout.write().run()


def test_a_label_column_that_contradicts_the_name_is_reported(layout):
    layout.lines["test"][1][2] = "B6-0-0"
    report = layout.write().run()
    assert any(
        f"label column contradicts the name, which was taken, of 1 video: {BOOM}" in w
        for w in report.warnings
    )
    assert FeatureStore.open(report.path).videos[5].label == "G"


def test_a_label_from_the_list_where_the_name_has_none(layout):
    layout.test("my own clip", np.ones((3, DIM), "f"), np.ones((3, DIM), "f"))
    layout.lines["test"][-1][2] = "B2-0-0"
    store = FeatureStore.open(layout.write().run().path)
    assert store.videos[6].name == "my own clip" and store.videos[6].label == "B2"


# ---------------------------------------------------------------------------- interruption


def test_an_interrupted_import_goes_on_without_redoing_rows(layout, monkeypatch):
    layout.write()
    added: list[tuple[str, int]] = []
    add = StoreWriter.add

    def counted(self, *, name: str, crop: int, **row) -> None:
        added.append((name, crop))
        if len(added) == 4:
            raise KeyboardInterrupt
        add(self, name=name, crop=crop, **row)

    monkeypatch.setattr(StoreWriter, "add", counted)
    with pytest.raises(KeyboardInterrupt):
        layout.run()
    with pytest.raises(StoreError, match="half-written"):
        FeatureStore.open(layout.root / "store")
    report = layout.run()
    assert report.resumed_rows == 3
    # the row that was interrupted is added again, no other
    assert added[3] == added[4] and len(set(added)) == len(added) - 1 == 6
    resumed = {f.name: f.read_bytes() for f in report.path.iterdir()}
    whole = layout.run(overwrite=True).path
    assert resumed == {f.name: f.read_bytes() for f in whole.iterdir()}


def test_killed_at_random_moments_an_import_loses_nothing(tmp_path, monkeypatch):
    """Twenty processes that are killed, each after up to about as long as a whole import takes."""
    # tqdm's own lock is shared between processes: a killed one would take it along
    monkeypatch.setattr(tqdm, "_lock", threading.RLock(), raising=False)
    layout = Layout(tmp_path, train_crops=10).write()
    started = time.perf_counter()
    whole = {f.name: f.read_bytes() for f in layout.run().path.iterdir()}
    span = time.perf_counter() - started
    rng, killed, kept = np.random.default_rng(1), 0, [0]
    for _ in range(200):
        if killed >= 20 and max(kept):
            break
        shutil.rmtree(tmp_path / "store", ignore_errors=True)
        child = os.fork()
        if child == 0:
            try:
                layout.run()
            finally:
                os._exit(0)
        time.sleep(span * rng.random())
        os.kill(child, signal.SIGKILL)
        hit = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        killed += hit
        span *= 1.1 if hit else 0.7  # whatever else the machine is doing
        if (tmp_path / "store" / META).exists():  # it was done
            assert {f.name: f.read_bytes() for f in (tmp_path / "store").iterdir()} == whole
        elif killed % 4 == 0:  # else the next one goes on from here
            report = layout.run()
            kept.append(report.resumed_rows)
            assert {f.name: f.read_bytes() for f in report.path.iterdir()} == whole
    assert killed >= 20 and max(kept) > 0
    assert not (tmp_path / "store.partial").exists()


def test_after_a_bad_file_is_replaced_the_import_goes_on(layout):
    good = layout.arrays[VIDEO]
    layout.arrays[VIDEO] = np.full_like(good, np.nan)
    assert "extract them again" in refusal(layout)
    layout.arrays[VIDEO] = good
    report = layout.write().run()
    assert report.resumed_rows == 5 and report.anomalous_frames == 50


def test_an_interrupted_import_is_not_continued_with_other_lists(layout):
    layout.arrays[VIDEO][3] = np.nan
    refusal(layout)
    layout.annotations = f"{BOOM} G 0 9\n"
    assert "store.partial was begun with other inputs" in refusal(layout)


# ---------------------------------------------------------------------------- command line


def test_the_command(layout, capsys):
    layout.write()
    r = layout.root
    words = f"import xd --features {r}/features --train {r}/train.csv --test {r}/test.csv".split()
    words += f"--annotations {r}/annotations.txt --out {r}/store --dim {DIM}".split()
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert "rows: {'train': 4, 'test': 2}\n" in out and "\nanomalous frames: 50\n" in out
    assert "\nwarning: fewer or more" in out and not err  # no bars away from a terminal
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert "already a feature store" in err and not out
    assert main([*words, "--overwrite"]) == 0
    with pytest.raises(SystemExit):
        main(["import", "ucf", *words[2:]])
