"""check-features: a small store in which everything is as it must be, and one fault at a time.

The store is written here from made-up arrays; what is expected of XD-Violence is set to its counts.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from reference_fill import filled, release_shapes
from sklearn.metrics import average_precision_score

from avadclip_lite import __main__ as command_line
from avadclip_lite.compare import features
from avadclip_lite.compare.features import check_features
from avadclip_lite.compare.release import load_teacher
from avadclip_lite.config import CLASS_SETS, XD_CLASSES
from avadclip_lite.dataset import Batch, FeatureStore
from avadclip_lite.features.writer import StoreWriter

TRAIN = {"Film.1__#1_label_B1-0-0": 5, "Film.2__#1_label_A": 300, "Film.3__#1_label_G-0-0": 7}
TEST = {  # name: (snippets, events)
    "Other.1__#1_label_B2-0-0": (6, [("B2", 32, 64)]),
    "Other.2__#1_label_G-0-0": (4, [("G", 48, 70)]),  # 6 frames past the end
    "Other.3__#1_label_A": (8, []),
}
FRAMES, ANOMALOUS = 16 * 18, 32 + 16
# what the module expects, before the fixture below changes it
COUNTS, VIDEOS = (features.FRAMES, features.ANOMALOUS, features.PAST), dict(features.VIDEOS)
OFFICIAL = "data/studies/xd_random.json"


def write(
    out: Path,
    *,
    dim: int = 512,
    stride: int = 16,
    kind: str = "xd",
    leave_out: str = "",
    crops: tuple[int, ...] = tuple(range(10)),
    test_crop: int = 5,
    copies: bool = False,
    normalised: str = "",
    zero: str = "",
    silent: str = "",
    moved: int = 0,
) -> FeatureStore:
    """The store, or one with a fault."""
    draw = np.random.default_rng(0)

    def made(sense: str, snippets: int) -> np.ndarray:
        x = draw.normal(size=(snippets, dim)).astype(np.float32) * draw.uniform(0.3, 0.6)
        if sense == normalised:
            x /= np.linalg.norm(x, axis=1, keepdims=True)
        if sense == zero:
            x[0] = 0
        return x

    about = {"classes": CLASS_SETS[kind], "dim": dim, "stride": stride, "encoder": "clip"}
    with StoreWriter(out, **about) as writer:
        videos = [(name, "train", n, ()) for name, n in TRAIN.items()]
        videos += [(name, "test", n, events) for name, (n, events) in TEST.items()]
        for name, split, snippets, events in videos:
            if name == leave_out:
                continue
            audio = None if name == silent else made("audio", snippets)
            one = made("video", snippets)
            for crop in crops if split == "train" else (test_crop,):
                video = one if copies else made("video", snippets)
                events = [(c, a + moved, b + moved) for c, a, b in events]
                label = "A" if kind == "cctv" else None
                own = {"segments": () if kind == "cctv" else events, "label": label}
                writer.add(name=name, split=split, crop=crop, video=video, audio=audio, **own)
        return FeatureStore.open(writer.finish())


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """XD-Violence, as large as the store here."""
    monkeypatch.setattr(features, "VIDEOS", {"train": (3, list(range(10))), "test": (3, [5])})
    for name, value in {"FRAMES": FRAMES, "ANOMALOUS": ANOMALOUS, "PAST": 1}.items():
        monkeypatch.setattr(features, name, value)


def differing(found: pd.DataFrame) -> list[str]:
    return found["what"][found["verdict"] == "DIFFERS"].tolist()


def test_the_real_counts_are_expected() -> None:
    """Those that were counted on the official annotations and lists."""
    official = json.loads((Path(__file__).parents[1] / OFFICIAL).read_text())
    names = ("frames", "anomalous frames", "videos annotated past their end")
    assert tuple(official[name] for name in names) == COUNTS
    assert VIDEOS == {"train": (3954, list(range(10))), "test": (official["videos"], [5])}


def test_nothing_differs_in_a_good_store(tmp_path: Path) -> None:
    found = check_features(write(tmp_path / "s"))
    assert differing(found) == []
    assert set(found["verdict"]) == {"ok"} and len(found) > 12


FAULTS = [
    ({"dim": 64}, ["width of both senses"]),
    ({"leave_out": "Film.2__#1_label_A"}, ["train videos"]),
    ({"crops": tuple(range(9))}, ["train videos whose crops are not 0-9"]),
    ({"test_crop": 0}, ["test videos whose crops are not 5"]),
    ({"copies": True}, ["crops of the first video that are copies"]),
    ({"normalised": "video"}, ["length of CLIP features"]),
    ({"normalised": "audio"}, ["length of Wav2CLIP features"]),
    ({"zero": "video"}, ["length of CLIP features"]),
    ({"zero": "audio"}, ["length of Wav2CLIP features"]),
    ({"silent": "Film.1__#1_label_B1-0-0"}, ["videos without sound"]),
    ({"leave_out": "Other.3__#1_label_A"}, ["test videos", "test frames"]),
    ({"moved": -7}, ["anomalous test frames", "videos annotated past their end"]),
]


@pytest.mark.parametrize(("fault", "expected"), FAULTS, ids=lambda x: str(x)[:40])
def test_each_fault_is_noticed_and_nothing_else(
    tmp_path: Path, fault: dict, expected: list
) -> None:
    assert differing(check_features(write(tmp_path / "s", **fault))) == expected


def test_another_data_set_differs_in_classes_and_stride(tmp_path: Path) -> None:
    found = differing(check_features(write(tmp_path / "s", kind="cctv", stride=4)))
    assert found[:2] == ["classes", "frames a snippet"] and "test frames" in found


def test_a_store_without_training_videos_is_judged_too(tmp_path: Path) -> None:
    with StoreWriter(
        tmp_path / "s", classes=XD_CLASSES, dim=512, stride=16, encoder="clip"
    ) as writer:
        ones = np.ones((6, 512), np.float32)
        writer.add(name="x_label_A", split="test", crop=5, video=ones, audio=ones)
        store = FeatureStore.open(writer.finish())
    assert "train videos" in differing(check_features(store))


def test_checkpoints_are_scored_beside_what_is_published(tmp_path: Path, monkeypatch) -> None:
    """The release's file name, made-up weights; the oracle expands frames, video by video."""
    store = write(tmp_path / "s")
    state = {k: v.half() for k, v in filled(release_shapes("teacher")).items()}
    torch.save(state, tmp_path / "model_xd_t.pth")
    teacher, truth, scores = load_teacher(state), [], {"classification": [], "alignment": []}
    for name, (snippets, events) in TEST.items():
        row = next(i for i in store.indices("test") if store.videos[i].name == name)
        own = np.zeros(16 * snippets)
        for _, start, end in events:
            own[start:end] = 1
        truth.append(own)
        bags = [torch.from_numpy(np.array(x))[None] for x in (store.video(row), store.audio(row))]
        with torch.no_grad():
            out = teacher(Batch(video=bags[0], audio=bags[1], lengths=torch.tensor([snippets])))
        normal = out.alignment_logits[0].softmax(-1)[:, 0]
        scores["classification"].append(out.anomaly_logits[0].sigmoid().repeat_interleave(16))
        scores["alignment"].append((1 - normal).repeat_interleave(16))
    ap = {
        branch: 100 * average_precision_score(np.concatenate(truth), torch.cat(parts).numpy())
        for branch, parts in scores.items()
    }
    monkeypatch.setitem(features.XD_AP, "AVadCLIP", ap["alignment"] + 0.4)
    found = check_features(store, tmp_path).set_index("what")
    for branch, value in ap.items():
        line = found.loc[f"AP of model_xd_t.pth, {branch}"]
        assert float(line["found"]) == pytest.approx(value, abs=0.02)
        assert line["verdict"] == "ok"  # one branch within half a point is enough
    monkeypatch.setitem(features.XD_AP, "AVadCLIP", max(ap.values()) + 0.6)
    found = check_features(store, tmp_path).set_index("what")
    assert {found.loc[f"AP of model_xd_t.pth, {b}", "verdict"] for b in ap} == {"DIFFERS"}
    assert not any("model_xd_s" in what for what in found.index)


def test_the_command_prints_one_table_and_says_by_its_status(tmp_path: Path, capsys) -> None:
    write(tmp_path / "good")
    write(tmp_path / "bad", test_crop=0)
    assert command_line.main(["check-features", str(tmp_path / "good")]) == 0
    text = capsys.readouterr().out
    assert text.splitlines()[0].split() == ["what", "found", "expected", "verdict"]
    assert "DIFFERS" not in text
    assert command_line.main(["check-features", str(tmp_path / "bad")]) == 1
    assert capsys.readouterr().out.count("DIFFERS") == 1


def test_what_is_no_store_is_refused_in_a_sentence(tmp_path: Path, capsys) -> None:
    (tmp_path / "empty").mkdir()
    write(tmp_path / "good")
    asked = [
        ([str(tmp_path / "empty")], "there is no feature store at"),
        ([str(tmp_path / "nowhere")], "there is no feature store at"),
        ([str(tmp_path / "good"), "--checkpoints", str(tmp_path)], "holds neither of model_xd_t"),
    ]
    for words, sentence in asked:
        assert command_line.main(["check-features", *words]) == 2
        said = capsys.readouterr().err.strip()
        assert sentence in said and "\n" not in said
