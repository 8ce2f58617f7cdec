"""The rehearsal folder, written from the layout's description alone, is what the importer reads.

And notebook 09 takes features as wide as the real ones, and the release's checkpoints."""

from __future__ import annotations

import ast
import importlib.util
import json
from pathlib import Path

import jupytext
import numpy as np
import pytest
import torch
from fake_release import build_standin
from reference_fill import filled, release_shapes

from avadclip_lite.config import CLIP_DIM, XD_CLASSES
from avadclip_lite.dataset import FeatureStore
from avadclip_lite.features.import_release import import_layout
from avadclip_lite.features.writer import StoreWriter
from tools.notebook_files import settle_parameters

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "09_xd_violence.py"
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
    report = import_layout(
        "xd",
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


# --- notebook 09 on features as wide as the real ones ---------------------------------------------


@pytest.fixture(scope="module")
def wide(tmp_path_factory) -> FeatureStore:
    """A store of 512-wide stand-in features, which no text tower belongs to."""
    folder = tmp_path_factory.mktemp("wide")
    made = build_standin(
        folder / "in", width=CLIP_DIM, train_videos=2, test_videos=5, crops=1, seed=3
    )
    lists = (made.train_list, made.test_list)
    options = {"encoder": made.encoder, "progress": False}
    report = import_layout(
        "xd", made.features, *lists, made.annotations, folder / "store", **options
    )
    return FeatureStore.open(report.path)


def run_cell(holding: str, **parameters) -> dict:
    """Execute the notebook's parameters and setup, and the cell that holds a text."""
    names: dict = {}
    for cell in jupytext.read(NOTEBOOK, fmt="py:percent").cells:
        tags = cell.metadata.get("tags", [])
        if cell.cell_type == "code" and (
            {"parameters", "setup"} & set(tags) or holding in cell.source
        ):
            exec(compile(cell.source, NOTEBOOK.name, "exec", dont_inherit=True), names)
        if "parameters" in tags:
            assert parameters.keys() <= names.keys()
            names |= parameters
    return names


@pytest.fixture
def records(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("AVADCLIP_RECORDS", str(tmp_path / "records.jsonl"))
    monkeypatch.setenv("MPLBACKEND", "Agg")
    return tmp_path / "records.jsonl"


def test_a_store_and_checkpoints_are_checked_and_recorded(wide, tmp_path, records, capsys):
    """The release's file name, made-up weights; ``test_check_features`` has the oracle."""
    state = {k: v.half() for k, v in filled(release_shapes("teacher")).items()}
    torch.save(state, tmp_path / "model_xd_t.pth")
    table = run_cell("check_features(", data=str(wide.path), checkpoints=str(tmp_path))["table"]
    text = capsys.readouterr().out
    assert "No store was named" not in text and "DIFFERS" in text
    found = table.set_index("what")["found"]
    assert found["test videos"] == "5" and found["train videos"] == "2"
    lines = [json.loads(line) for line in records.read_text().splitlines()]
    assert {line["branch"]: round(100 * line["value"], 2) for line in lines} == {
        branch: float(found[f"AP of model_xd_t.pth, {branch}"])
        for branch in ("classification", "alignment")
    }


def test_without_a_store_it_is_said_so(records, capsys):
    run_cell("check_features(")
    assert "nothing on this page says anything about XD-Violence" in capsys.readouterr().out
    assert not records.exists()


def test_a_folder_without_checkpoints_is_said_so(wide, tmp_path, records):
    with pytest.raises(FileNotFoundError, match="holds neither of model_xd_t.pth, model_xd_s.pth"):
        run_cell("check_features(", data=str(wide.path), checkpoints=str(tmp_path))


def test_the_runner_takes_the_rehearsal(wide, tmp_path):
    """What ``run --only 09 --scale xd`` is asked with on real features."""
    place, scale = ("data", str(wide.path)), ("scale", "xd")
    notebooks = [NOTEBOOK.with_suffix(".ipynb")]
    given = settle_parameters(notebooks, [scale, place, ("checkpoints", str(tmp_path))])
    assert given == {
        "09_xd_violence": {
            "data": str(wide.path),
            "checkpoints": str(tmp_path),
            "scale": "xd",
        }
    }
    with pytest.raises(ValueError, match="512 wide, but --scale soundstage expects 64"):
        settle_parameters(notebooks, [place])
