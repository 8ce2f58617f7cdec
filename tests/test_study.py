"""Studies over seeds: what is trained, what is kept in the file, and how two rows are compared."""

from __future__ import annotations

import csv
import math
import statistics

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_rel
from tiny import DIM, tiny_store, tiny_text

from avadclip_lite import train
from avadclip_lite.compare import paper
from avadclip_lite.config import RESULTS, make_config, results_path
from avadclip_lite.dataset import FeatureStore
from avadclip_lite.evaluate import evaluate
from avadclip_lite.experiments import study

SMALL = {
    "dim": DIM,
    "fusion_heads": 2,
    "epochs": 2,
    "batch_size": 8,
    "context_before": 1,
    "context_after": 1,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> FeatureStore:
    return tiny_store(tmp_path_factory.mktemp("data") / "tiny")


@pytest.fixture(autouse=True)
def tiny_tower(monkeypatch):
    monkeypatch.setattr(train, "load_text", lambda *args, **kwargs: tiny_text())


def run(store, out, studies=("protocols",), seeds=range(1), **overrides):
    return study.run_study(
        out,
        studies=studies,
        data=store.path,
        seeds=seeds,
        overrides=SMALL | overrides,
        cache=out.parent / "cache",
        progress=False,
    )


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


# --- the variants ---------------------------------------------------------------------------------


def test_every_study_names_variants_and_every_variant_is_in_a_study() -> None:
    named = {variant for rows in study.STUDIES.values() for variant in rows.values()}
    assert named == set(study.VARIANTS)


@pytest.mark.parametrize("name", study.VARIANTS)
def test_a_variant_is_a_configuration_and_a_student_has_its_teacher(name: str) -> None:
    variant = study.VARIANTS[name]
    settings = variant.settings(scale="soundstage", seed=7)
    assert settings.train.seed == 7 and settings.model.role == variant.role
    student = variant.role != "audio_visual" and settings.loss.ukd != "none"
    assert (variant.teacher is not None) == student
    if student:
        assert study.VARIANTS[variant.teacher].form == variant.form


def test_no_two_variants_are_the_same_training() -> None:
    digests = [v.settings(scale="soundstage", seed=0).digest() for v in study.VARIANTS.values()]
    assert len(set(digests)) == len(digests)


def test_the_variant_called_paper_is_the_default_and_released_the_release() -> None:
    assert study.VARIANTS["paper"].settings(scale="xd", seed=0) == make_config(scale="xd")
    released = study.VARIANTS["released"].settings(scale="xd", seed=234)
    assert released == make_config(form="released", scale="xd")


# --- the file -------------------------------------------------------------------------------------


def test_what_is_written_is_what_training_and_evaluating_by_hand_gives(store, tmp_path) -> None:
    lines = read(run(store, tmp_path / "s.csv"))
    assert len(lines) == 4 * 3  # four variants, three protocols
    mine = [line for line in lines if line["variant"] == "paper"]
    seen = []
    result = train.fit(
        make_config(**SMALL),
        store,
        progress=False,
        watch=lambda model: seen.append(evaluate(model, store).metrics) or {},
    )
    chosen = evaluate(result.model, store).metrics
    best = max(range(2), key=lambda e: (seen[e]["ap_alignment"], -e))
    by_hand = {
        "chosen": (result.chosen_epoch, chosen),
        "last": (2, seen[-1]),
        "best on test": (best + 1, seen[best]),
    }
    for line in mine:
        epoch, metrics = by_hand[line["protocol"]]
        assert int(line["epoch"]) == epoch
        for name in ("ap_alignment", "auc_classification", "map_seven_avg", "map_six@0.3"):
            assert float(line[name]) == pytest.approx(metrics[name], abs=1e-6)


def test_a_student_learns_from_the_teacher_of_its_own_seed(store, tmp_path, monkeypatch) -> None:
    taught = []
    real = study.fit

    def spy(settings, store, *, teacher=None, **rest):
        if teacher is not None:
            taught.append((settings.train.seed, settings.form, teacher.settings))
        return real(settings, store, teacher=teacher, **rest)

    monkeypatch.setattr(study, "fit", spy)
    run(store, tmp_path / "s.csv", seeds=range(2))
    assert len(taught) == 4
    for seed, form, theirs in taught:
        assert theirs.train.seed == seed and theirs.form == form
        assert theirs.model.role == "audio_visual"


def test_an_interrupted_study_goes_on_and_a_finished_one_trains_nothing(
    store, tmp_path, monkeypatch
) -> None:
    whole = read(run(store, tmp_path / "whole.csv", studies=["parts"], seeds=range(2)))
    calls = []
    real = study.repeat

    def dies_at_the_third(task):
        calls.append(task.variant)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(task)

    monkeypatch.setattr(study, "repeat", dies_at_the_third)
    out = tmp_path / "part.csv"
    with pytest.raises(KeyboardInterrupt):
        run(store, out, studies=["parts"], seeds=range(2))
    assert len({(line["variant"], line["seed"]) for line in read(out)}) == 2
    run(store, out, studies=["parts"], seeds=range(2))
    assert len(calls) == 3 + 8

    def without_time(lines):
        return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]

    assert without_time(read(out)) == without_time(whole)
    run(store, out, studies=["parts"], seeds=range(2))
    assert len(calls) == 3 + 8
    # another configuration is another training
    run(store, out, studies=["parts"], seeds=[0], epochs=1)
    assert len(calls) == 3 + 8 + 5


def test_only_teachers_are_kept_and_nothing_lies_beside_the_file(store, tmp_path) -> None:
    out = run(store, tmp_path / "s.csv", studies=["parts", "protocols"])
    kept = sorted(path.name for path in (tmp_path / "cache").iterdir() if path.is_dir())
    assert [name.rpartition("-")[0] for name in kept] == [
        "paper-audio_visual",
        "released-audio_visual",
    ]
    assert {path.name for path in tmp_path.iterdir()} == {out.name, "cache"}


def test_a_teacher_that_somebody_trained_without_looking_is_trained_again(store, tmp_path) -> None:
    train.trained(make_config(**SMALL), store, cache=tmp_path / "cache", progress=False)
    again = read(run(store, tmp_path / "s.csv", studies=["protocols"]))
    fresh = read(run(store, tmp_path / "other" / "s.csv", studies=["protocols"]))
    assert [line["ap_alignment"] for line in again] == [line["ap_alignment"] for line in fresh]


def test_results_of_other_data_are_refused(store, tmp_path) -> None:
    out = run(store, tmp_path / "s.csv", studies=["parts"])
    other = tiny_store(tmp_path / "other", train=26)
    with pytest.raises(ValueError, match="other data .* choose another file"):
        run(other, out, studies=["parts"])


def test_bad_input_is_refused(store, tmp_path) -> None:
    with pytest.raises(ValueError, match="unknown study 'part'; there are parts, fusion"):
        run(store, tmp_path / "s.csv", studies=["part"])
    (tmp_path / "foreign.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="no result file of a study: it lacks the column"):
        run(store, tmp_path / "foreign.csv", studies=["parts"])
    with pytest.raises(FileNotFoundError, match="make it with: python -m avadclip_lite study"):
        study.results("parts", path=tmp_path / "none.csv")


# --- reading it -----------------------------------------------------------------------------------


def frame_of(**columns) -> pd.DataFrame:
    rows = [
        {"row": name, "seed": seed, "protocol": "chosen", "ap": value}
        for name, values in columns.items()
        for seed, value in enumerate(values)
    ]
    return pd.DataFrame(rows)


def test_the_paired_interval_is_students_t_by_hand_and_scipys() -> None:
    a, b = [0.80, 0.82, 0.79], [0.78, 0.79, 0.78]
    found = study.paired(frame_of(a=a, b=b), "a", "b", "ap")
    differences = [2.0, 3.0, 1.0]
    assert found.differences.tolist() == pytest.approx(differences)
    half = 4.302653 * statistics.stdev(differences) / math.sqrt(3)  # t(0.975, 2)
    assert (found.mean, found.low, found.high) == pytest.approx((2.0, 2 - half, 2 + half))
    theirs = ttest_rel(a, b).confidence_interval(0.95)
    assert (found.low / 100, found.high / 100) == pytest.approx((theirs.low, theirs.high))
    assert found.wins == 3 and found.verdict == "not distinguishable"


def test_verdicts_and_seeds_that_only_one_row_has() -> None:
    frame = frame_of(a=[0.80, 0.82, 0.81, 0.9], b=[0.70, 0.71, 0.72])
    assert study.paired(frame, "a", "b", "ap").verdict == "higher"
    assert study.paired(frame, "b", "a", "ap").verdict == "lower"
    assert len(study.paired(frame, "a", "b", "ap").differences) == 3
    with pytest.raises(ValueError, match="fewer than two seeds in common"):
        study.paired(frame[frame["seed"] == 0], "a", "b", "ap")


def test_a_table_is_mean_and_deviation_in_the_studys_order() -> None:
    shown = study.table(frame_of(b=[0.5, 0.7], a=[0.25, 0.25]), ["ap"])
    assert list(shown.index) == ["b", "a"]
    assert list(shown["ap"]) == ["60.0 ± 14.1", "25.0 ± 0.0"]
    assert list(shown["seeds"]) == [2, 2]
    frame = pd.concat([frame_of(a=[0.1]), frame_of(a=[0.2]).assign(protocol="last")])
    with pytest.raises(ValueError, match="one protocol"):
        study.table(frame, ["ap"])


def test_results_are_those_of_the_named_file(store, tmp_path, monkeypatch) -> None:
    out = run(store, tmp_path / "s.csv", studies=["parts"])
    monkeypatch.setenv(RESULTS, str(out))
    assert results_path() == out
    frame = study.results("parts")
    assert list(frame["row"]) == list(study.STUDIES["parts"])
    assert set(study.results(protocol="")["protocol"]) == set(study.PROTOCOLS)
    assert np.isfinite(frame["ap_alignment"]).all()


# --- the paper ------------------------------------------------------------------------------------


def test_the_papers_tables_agree_with_each_other() -> None:
    full = paper.Pair(86.04, 28.61)
    assert paper.ABLATION["+ focal loss"] == paper.FUSION["adaptive"] == full
    assert paper.DISTILLATION["audio-visual"] == full
    assert paper.XD_AP["AVadCLIP"] == full.ap and paper.XD_MAP["AVadCLIP"][-1] == full.map
    assert paper.DISTILLATION["vision only, UKD"].ap == paper.XD_AP["AVadCLIP*"]
    assert paper.DISTILLATION["vision only, UKD"].map == paper.XD_MAP["AVadCLIP*"][-1]
    for name, (*at_iou, average) in paper.XD_MAP.items():
        assert sum(at_iou) / 5 == pytest.approx(average, abs=0.011), name
