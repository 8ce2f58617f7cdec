"""The rehearsal folder, written from the layout's description alone, is what the importer reads."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import numpy as np
import pytest

from avadclip_lite.config import XD_CLASSES
from avadclip_lite.importers import import_xd
from avadclip_lite.store import FeatureStore, StoreWriter

SCRIPT = Path(__file__).parent / "benchmarks" / "rehearsal_folder.py"
TESTS = {  # name: (frames, events)
    "v=a__#1_label_B1-G-0": (160, [("B1", 20, 50), ("G", 40, 90)]),
    "Film.1999__#0-01_label_A": (48, []),
    "v=b__#1_label_B6-0-0": (320, [("B6", 300, 333)]),  # 13 frames too far
}
TRAINS = [f"t{k}__#1_label_{label}" for k, label in enumerate(["A", "B2-0-0", "A", "B4-B5-0"])]


@pytest.fixture(scope="module")
def rehearsal():
    spec = importlib.util.spec_from_file_location("rehearsal_folder", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture()
def lists(tmp_path) -> Path:
    folder = tmp_path / "lists"
    folder.mkdir()
    rows = [f"{name},{name.split('_label_')[1]},{n}" for name, (n, _) in TESTS.items()]
    (folder / "test_videos.csv").write_text("\n".join(["name,label,n_frames", *rows]) + "\n")
    rows = [f"{name},{name.split('_label_')[1]}" for name in TRAINS]
    (folder / "train_videos.csv").write_text("\n".join(["name,label", *rows]) + "\n")
    coded, binary = [], []
    for name, (_, events) in TESTS.items():
        if events:
            coded.append(" ".join([f"{name}.mp4", *(f"{c} {a} {b}" for c, a, b in events)]))
            binary.append(" ".join([name, *(f"{a} {b}" for _, a, b in events)]))
    (folder / "annotations.txt").write_text("\n".join(binary))
    (folder / "annotations_multiclasses.txt").write_text("\n".join(coded))
    return folder


def imported(folder: Path, out: Path) -> FeatureStore:
    report = import_xd(
        folder / "features",
        folder / "xd_train.csv",
        folder / "xd_test.csv",
        [folder / "annotations.txt", folder / "annotations_multiclasses.txt"],
        out,
        progress=False,
    )
    return FeatureStore.open(report.path)


def test_what_was_written_is_what_is_imported(rehearsal, lists, tmp_path):
    out = tmp_path / "out"
    rehearsal.build(lists, out, train_videos=4, crops=3, source="random", uneven=1.0)
    store = imported(out, tmp_path / "store")
    tests, trains = store.indices("test"), store.indices("train")
    assert [store.videos[i].name for i in tests] == list(TESTS)
    assert [store.videos[i].frames for i in tests] == [n for n, _ in TESTS.values()]
    assert [store.videos[i].crop for i in tests] == [5, 5, 5]
    assert [store.videos[i].name for i in trains[::3]] == TRAINS
    assert [store.videos[i].crop for i in trains[:6]] == [0, 1, 2, 0, 1, 2]
    truth = []
    for frames, events in TESTS.values():
        truth += [int(any(a <= f < b for _, a, b in events)) for f in range(frames)]
    assert store.frame_truth(tests).tolist() == truth
    assert store.segments(tests[2]) == [("B6", 300, 320)]
    # every audio is one snippet longer, or in training shorter, and was cut
    lengths = [tuple(map(len, store.uncut(i))) for i in range(len(store))]
    assert all(abs(v - a) == 1 for v, a in lengths)
    assert all(a == v + 1 for v, a in (lengths[i] for i in tests))


def test_soundstage_snippets_go_where_their_class_is(rehearsal, lists, tmp_path, monkeypatch):
    """A stage of six videos whose features say their class: 10 + class index in the picture,
    100 + class index in the sound; the lift keeps lengths, so the norm tells what was drawn."""
    monkeypatch.setenv("AVADCLIP_DATA", str(tmp_path / "data"))
    options = {"classes": XD_CLASSES, "dim": 64, "stride": 16, "encoder": "soundstage"}
    with StoreWriter(tmp_path / "data" / "soundstage", **options) as writer:
        for k, code in enumerate(XD_CLASSES.codes[1:], 1):
            marks = np.where((np.arange(6) >= 2) & (np.arange(6) < 5), k, 0)[:, None]
            unit = np.eye(1, 64)
            writer.add(
                name=f"s{k}",
                label=code,
                split="test",
                video=(10.0 + marks) * unit,
                audio=(100.0 + marks) * unit,
                segments=[(code, 32, 80)],
            )
        writer.finish()
    rehearsal.build(lists, tmp_path / "out", train_videos=2, uneven=0.0)
    store = imported(tmp_path / "out", tmp_path / "store")
    expected = {  # by the class that covers at least half of a snippet; the later event wins
        "v=a__#1_label_B1-G-0": [0, 1, 6, 6, 6, 6, 0, 0, 0, 0],
        "Film.1999__#0-01_label_A": [0, 0, 0],
        "v=b__#1_label_B6-0-0": [0] * 19 + [5],
    }
    for i in store.indices("test"):
        kinds = np.array(expected[store.videos[i].name])
        np.testing.assert_allclose(np.linalg.norm(store.video(i), axis=1), 10 + kinds, rtol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(store.audio(i), axis=1), 100 + kinds, rtol=1e-5)
    assert store.dim == 512


def test_the_script_uses_nothing_of_the_importer():
    nodes = list(ast.walk(ast.parse(SCRIPT.read_text())))
    taken = {
        alias.name
        for node in nodes
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("avadclip_lite")
        for alias in node.names
    }
    assert taken == {"FeatureStore", "soundstage_path"}
    whole = {a.name for node in nodes if isinstance(node, ast.Import) for a in node.names}
    assert not any(name.startswith("avadclip_lite") for name in whole)
