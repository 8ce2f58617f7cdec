"""Numbers with names: what ``record`` takes, what it refuses, and the schema that holds both."""

from __future__ import annotations

import json
import math
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from avadclip_lite.config import XD_CLASSES, make_config
from avadclip_lite.evaluate import Predictions, score
from avadclip_lite.experiments import metrics
from avadclip_lite.experiments.metrics import record
from tools.run import gather_metrics


@pytest.fixture
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AVADCLIP_RECORDS", str(tmp_path / "records.jsonl"))
    monkeypatch.setenv("AVADCLIP_NOTEBOOK", "06_teacher")
    return tmp_path / "records.jsonl"


def fits(*lines: dict) -> None:
    """What a run would write fits the schema."""
    jsonschema.validate({"notebooks": [], "metrics": list(lines)}, metrics.SCHEMA)


def test_record_says_where_a_number_comes_from(records: Path) -> None:
    settings = make_config(seed=3)
    about = {"dataset": "Soundstage", "detector": "paper", "split": "test", "seed": 3}
    record("frame_ap", np.float32(0.5), branch="alignment", config=settings, **about)
    line = json.loads(records.read_text())
    assert line == about | {
        "notebook": "06_teacher",
        "measure": "frame_ap",
        "value": 0.5,
        "branch": "alignment",
        "config": settings.digest(),
        "device": "cpu",
        "protocol": "",
    }
    fits(line)


def test_a_flat_name_is_a_measure_and_its_branch(records: Path) -> None:
    record("frame_ap_abnormal_classification", 0.5, dataset="x", detector="paper")
    line = json.loads(records.read_text())
    assert (line["measure"], line["branch"]) == ("frame_ap_abnormal", "classification")
    with pytest.raises(ValueError, match="was given another branch, 'fused'"):
        record("frame_ap_alignment", 0.5, dataset="x", branch="fused")


@pytest.mark.parametrize("measure", metrics.MEASURES)
def test_whatever_is_written_fits_the_schema(records: Path, measure: str) -> None:
    record(measure, 1, dataset="x", split="train")
    fits(json.loads(records.read_text()))


def test_the_schema_refuses_what_record_does(records: Path) -> None:
    """So that a file written by other means is held to the same words."""
    record("frame_ap", 0.5, dataset="x")
    good = json.loads(records.read_text())
    fits(good)
    for change in (
        {"value": 81.3},
        {"measure": "AP, %"},
        {"branch": "both"},
        {"split": "all"},
        {"detector": ""},
        {"dataset": " "},
        {"measure": "videos"},
        {"extra": 1},
    ):
        with pytest.raises(jsonschema.ValidationError):
            fits(good | change)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"measure": "AP, %"}, "no measure 'AP, %'; known: frame_ap, frame_auc,"),
        ({"branch": "both"}, "no branch 'both'; known: classification, alignment, fused, None"),
        ({"split": "all"}, "no split 'all'; known: train, test, holdout, None"),
        ({"value": 81.3}, "frame_ap is a number from 0 to 1, got 81.3"),
        ({"value": math.nan}, "got nan"),
        ({"value": math.inf, "measure": "seconds"}, "got inf"),
        ({"value": "many"}, "many"),
        ({"value": 1.5, "measure": "events"}, "events is a count, got 1.5"),
        ({"value": -2, "measure": "cosine"}, "cosine is a number from -1 to 1, got -2"),
        ({"dataset": " "}, "record wants names"),
        ({"detector": ""}, "record wants names"),
    ],
)
def test_what_is_refused(records: Path, call: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        record(**({"measure": "frame_ap", "value": 0.5, "dataset": "Soundstage"} | call))
    assert not records.exists()


def test_every_measure_of_a_report_is_a_word_or_of_one_class(records: Path) -> None:
    rng = np.random.default_rng(0)
    seen = Predictions(
        names=["v"],
        lengths=np.array([4]),
        anomaly_logits=rng.normal(size=4),
        alignment=rng.dirichlet(np.ones(7), 4),
    )
    truth = np.repeat([0, 1, 1, 0], 16)
    found = score(seen, truth, [[("B1", 16, 48)]], XD_CLASSES, 16).metrics
    for name, value in found.items():
        if "@" not in name and name.removeprefix("map_") not in XD_CLASSES.codes:
            record(name, value, dataset="x")
    lines = [json.loads(line) for line in records.read_text().splitlines()]
    assert len(lines) == 3 * 2 + 2 + 4
    fits(*lines)


def test_a_notebook_opened_by_hand_is_checked_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AVADCLIP_RECORDS", "AVADCLIP_NOTEBOOK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    record("frame_ap", 1.0, dataset="Soundstage", seed=0)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="frame_ap is a number from 0 to 1, got 81.3"):
        record("frame_ap", 81.3, dataset="Soundstage", seed=0)


def test_the_last_word_on_a_number_counts() -> None:
    first = {"measure": "frame_ap", "seed": 0, "value": 1.0}
    other = {"measure": "frame_ap", "seed": 1, "value": 2.0}
    again = {"measure": "frame_ap", "seed": 0, "value": 3.0}
    assert gather_metrics([first, other, again]) == [other, again]
