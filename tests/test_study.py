"""Studies over seeds: what is trained, what is kept in the file, and how two rows are compared."""

from __future__ import annotations

import csv
import math
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_rel
from tiny import DIM, tiny_store, tiny_text

from avadclip_lite import __main__ as command_line
from avadclip_lite import train
from avadclip_lite.baselines import SYSTEMS
from avadclip_lite.compare import paper
from avadclip_lite.config import make_config
from avadclip_lite.dataset import FeatureStore, TrainingSet
from avadclip_lite.evaluate import evaluate
from avadclip_lite.experiments import study
from avadclip_lite.experiments.cache import train_or_load
from avadclip_lite.experiments.files import RESULTS, results_path

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


def run(store, out, studies=("protocols",), seeds=range(1), grid_of=None, **overrides):
    return study.run_study(
        out,
        studies=studies,
        data=store.path,
        seeds=seeds,
        overrides=SMALL | overrides,
        cache=out.parent / "cache",
        grid_of=grid_of,
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
    assert settings.train.seed == 7
    if variant.system:
        assert settings.detector == variant.system and variant.teacher is None
        return
    assert settings.model.role == variant.role
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
    best = max(range(2), key=lambda e: (seen[e]["frame_ap_alignment"], -e))
    by_hand = {
        "chosen": (result.chosen_epoch, chosen),
        "last": (2, seen[-1]),
        "best on test": (best + 1, seen[best]),
    }
    for line in mine:
        epoch, metrics = by_hand[line["protocol"]]
        assert int(line["epoch"]) == epoch
        for name in (
            "frame_ap_alignment",
            "frame_auc_classification",
            "map_with_normal",
            "map_anomaly@0.3",
        ):
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

    assert same(read(out)) == same(whole)
    run(store, out, studies=["parts"], seeds=range(2))
    assert len(calls) == 3 + 8


def test_only_teachers_are_kept_and_nothing_lies_beside_the_file(store, tmp_path) -> None:
    out = run(store, tmp_path / "s.csv", studies=["parts", "protocols"])
    kept = sorted(path.name for path in (tmp_path / "cache").iterdir() if path.is_dir())
    assert [name.rpartition("-")[0] for name in kept] == [
        "avadclip-paper-audio_visual",
        "avadclip-released-audio_visual",
    ]
    assert {p.name for p in tmp_path.iterdir() if p.name[0] != "."} == {
        out.name,
        "s_videos.csv",
        "cache",
    }


def test_a_teacher_that_somebody_trained_without_looking_is_trained_again(store, tmp_path) -> None:
    train_or_load(make_config(**SMALL), store, cache=tmp_path / "cache", progress=False)
    again = read(run(store, tmp_path / "s.csv", studies=["protocols"]))
    fresh = read(run(store, tmp_path / "other" / "s.csv", studies=["protocols"]))
    assert same(again) == same(fresh)


def test_a_training_that_was_watched_in_part_is_no_dead_end(store, tmp_path, monkeypatch) -> None:
    """Killed after its first epoch and finished by somebody who does not look, a notebook or an
    earlier version's student: later epochs lack the numbers, and every later run died of it."""
    real = train.TrainingRun.save
    monkeypatch.setattr(
        train.TrainingRun, "save", lambda self, folder: real(self, folder) or _interrupt()
    )
    with pytest.raises(KeyboardInterrupt):
        run(store, tmp_path / "s.csv")
    monkeypatch.setattr(train.TrainingRun, "save", real)
    result = train_or_load(make_config(**SMALL), store, cache=tmp_path / "cache", progress=False)
    looked = [any(key.startswith("frame_ap_") for key in entry) for entry in result.history]
    assert looked == [True, False]
    try:
        again = read(run(store, tmp_path / "s.csv"))
    except KeyError as error:
        raise AssertionError(f"the study can never be finished: KeyError {error}") from None
    assert same(again) == same(read(run(store, tmp_path / "other" / "s.csv")))


def _interrupt():
    raise KeyboardInterrupt


def same(lines) -> list[dict[str, str]]:
    """All but what no two runs share."""
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


# --- what does not belong together ----------------------------------------------------------------


@pytest.mark.parametrize("seeds", [range(2), range(2, 4)])
def test_another_configuration_is_never_averaged_in(store, tmp_path, seeds) -> None:
    """Two seeds of two epochs and two of one epoch are not four seeds."""
    out = run(store, tmp_path / "s.csv", studies=["parts"], seeds=range(2))
    before, said = out.read_text(), ""
    try:
        run(store, out, studies=["parts"], seeds=seeds, epochs=1)
    except ValueError as error:
        said = str(error)
    frame = study.results("parts", path=out)
    assert list(frame.groupby("row").size()) == [2] * 5, "lines of two configurations averaged"
    assert "holds results of another configuration" in said and "choose another file" in said
    assert out.read_text() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 1}, "mixes results of more than one configuration"),
        ({"store": 26}, "mixes results of more than one data"),
    ],
)
def test_files_put_together_by_hand_are_refused(store, tmp_path, change, message) -> None:
    one = run(store, tmp_path / "one.csv", studies=["parts"], seeds=[0])
    data = store
    if "store" in change:
        data = tiny_store(tmp_path / "data", train=change.pop("store"))
    other = run(data, tmp_path / "two" / "two.csv", studies=["parts"], seeds=[1], **change)
    one.write_text(one.read_text() + other.read_text().partition("\n")[2])
    for use in (
        lambda: study.results("parts", path=one),
        lambda: run(store, one, studies=["parts"], seeds=range(2)),
    ):
        with pytest.raises(ValueError, match=message):
            use()


def test_other_sources_are_told_and_force_nothing(store, tmp_path, monkeypatch, capsys) -> None:
    out = run(store, tmp_path / "s.csv", studies=["parts"])
    monkeypatch.setattr(study, "source_digest", lambda: "changed")
    monkeypatch.setattr(study, "repeat", lambda task: pytest.fail("trained again"))
    study.run_study(out, studies=["parts"], data=store.path, seeds=range(1), overrides=SMALL)
    assert "lines are kept that earlier sources" in capsys.readouterr().err


# --- kills ----------------------------------------------------------------------------------------

KILLED = """
import sys, time
sys.path[:0] = [{tests!r}, {root!r}]
from avadclip_lite import train
from avadclip_lite.experiments import study
import test_study, tiny
real = study.repeat

def repeat(task):  # travels to the workers
    train.load_text = lambda *args, **kwargs: tiny.tiny_text()
    if task.variant == {slow!r}:
        time.sleep(600)
    return real(task)

study.repeat = repeat
if __name__ == "__main__":
    study.run_study({out!r}, studies={studies!r}, data={data!r}, seeds=range(2),
                    jobs={jobs},
                    overrides=test_study.SMALL, cache={cache!r})
"""


def start(store, out, *, studies=("protocols",), jobs=1, slow="") -> subprocess.Popen:
    """A study in a process of its own, in a group that can be killed."""
    tests = Path(__file__).parent
    script = out.with_suffix(".py")
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(
        KILLED.format(
            tests=str(tests),
            root=str(tests.parent),
            slow=slow,
            out=str(out),
            studies=list(studies),
            data=str(store.path),
            jobs=jobs,
            cache=str(out.parent / "cache"),
        )
    )
    return subprocess.Popen([sys.executable, str(script)], start_new_session=True)


def kill(process: subprocess.Popen) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_what_a_worker_has_finished_survives_a_kill(store, tmp_path) -> None:
    """The first training takes for ever; those behind it finish, and are in the file."""
    out = tmp_path / "s.csv"
    process = start(store, out, studies=["parts"], jobs=2, slow="paper")
    try:
        give_up = time.monotonic() + 400
        while not (out.is_file() and len(read(out)) >= 3) and time.monotonic() < give_up:
            assert process.poll() is None
            time.sleep(0.2)
    finally:
        kill(process)
    finished = {(line["variant"], line["seed"]) for line in read(out)} if out.is_file() else set()
    assert len(finished) >= 3, f"finished trainings are lost with a kill: only {finished} are filed"


def test_kills_at_random_moments_lose_nothing(store, tmp_path) -> None:
    whole = same(read(run(store, tmp_path / "whole" / "s.csv", seeds=range(2))))
    out = tmp_path / "s.csv"
    moments = np.random.default_rng(0).uniform(4.0, 9.0, size=3)
    known: set[tuple[str, ...]] = set()
    for moment in moments:
        process = start(store, out)
        try:
            process.wait(timeout=float(moment))
        except subprocess.TimeoutExpired:
            kill(process)
        lines = {tuple(line.values()) for line in read(out)} if out.is_file() else set()
        assert known <= lines, "a result was lost"
        known = lines
    assert start(store, out).wait(timeout=120) == 0
    assert same(read(out)) == whole


# --- the field ------------------------------------------------------------------------------------


def test_every_system_is_a_row_of_the_field_beside_ours(store, tmp_path, capsys) -> None:
    """Each is trained once; those that name classes have a mAP; the command prints all of them."""
    rows = study.STUDIES["field"]
    assert {study.VARIANTS[v].system for v in rows.values()} == {"", *SYSTEMS}
    words = [word for pair in (SMALL | {"epochs": 1, "max_steps": 1}).items() for word in pair]
    fields = [w for k in range(0, len(words), 2) for w in ("-s", *map(str, words[k : k + 2]))]
    out = ["--data", str(store.path), "--seeds", "1", "--out", str(tmp_path / "s.csv")]
    assert command_line.main(["study", "field", *out, *fields]) == 0
    printed = capsys.readouterr().out
    frame = study.results("field", path=tmp_path / "s.csv").set_index("row")
    assert list(frame.index) == list(rows)
    assert all(f"\n{row} " in printed for row in rows) and "parameters" in printed
    assert np.isfinite(frame["frame_ap_classification"]).all()
    named = {"zero_shot", "late_fusion", "avvd_style", "ju_like", "vadclip", "AVadCLIP"}
    assert set(frame["map_anomaly"].dropna().index.str.split(",").str[0]) == named
    learned = frame["parameters"] > 0
    assert set(frame.index[~learned].str.split(",").str[0]) == {"zero_shot"}


# --- rates and arrival ----------------------------------------------------------------------------


def tuned(store, out, **overrides):
    given = {"studies": ["parts"], "data": store.path, "cache": out.parent / "cache"}
    return given | {"overrides": SMALL | overrides}


def test_the_grid_holds_a_quarter_out_and_the_study_takes_its_rates(store, tmp_path, monkeypatch):
    seen = []
    real = study.fit
    monkeypatch.setattr(study, "fit", lambda s, *a, **k: seen.append((s, k)) or real(s, *a, **k))
    monkeypatch.setattr(study, "evaluate", lambda *a, **k: pytest.fail("looked at the test set"))
    out = tmp_path / "s.csv"
    chosen = study.grid(out, **tuned(store, out))
    assert set(chosen.index) == set(study.STUDIES["parts"].values())
    assert len(seen) == 3 * 3 * 4  # "paper", a teacher, is trained into the cache
    for settings, how in seen:
        assert settings.train.holdout_share == 0.25 and settings.train.selection == "holdout"
        assert settings.train.seed in study.TUNING_SEEDS and how["watch"] is None
    assert {round(s.train.learning_rate * 3e3) for s, _ in seen} == {1, 3, 9}
    monkeypatch.undo()
    monkeypatch.setattr(train, "load_text", lambda *args, **kwargs: tiny_text())
    lines = study.read_lines(study.beside(out, "tuning"))
    worse = {"rate / 3": "0.9", "rate": "0.2", "rate x 3": "0.1"}
    mine = lines["variant"] == "fusion"
    lines.loc[mine, "holdout"] = lines.loc[mine, "protocol"].map(worse)
    lines.to_csv(study.beside(out, "tuning"), index=False)
    assert study.chosen_rates(out)["fusion"] == pytest.approx(1 / 3)
    run(store, out, studies=["parts"])
    rates = study.results("parts", path=out).set_index("variant")["rate"]
    assert rates["fusion"] == pytest.approx(1e-3 / 3)
    heard = tmp_path / "of_other_data.csv"  # which has no grid of its own
    run(store, heard, studies=["parts"], grid_of=out)
    assert study.results("parts", path=heard).set_index("variant")["rate"].equals(rates)
    with pytest.raises(ValueError, match="nothing_tuning.csv lacks rates of 'paper'; run --grid"):
        run(store, heard, studies=["parts"], grid_of=tmp_path / "nothing.csv")
    lines[~mine].to_csv(study.beside(out, "tuning"), index=False)
    with pytest.raises(ValueError, match="lacks rates of 'fusion'; run --grid again"):
        run(store, tmp_path / "s.csv", studies=["parts"])
    lines.assign(store="another").to_csv(study.beside(out, "tuning"), index=False)
    with pytest.raises(ValueError, match="s_tuning.csv holds results of other data"):
        run(store, tmp_path / "s.csv", studies=["parts"])
    lines.to_csv(study.beside(out, "tuning"), index=False)
    study.grid(out, **tuned(store, out))  # nothing is left to do
    with pytest.raises(ValueError, match="another configuration"):
        study.grid(out, **tuned(store, out, epochs=1))


def test_the_middle_rate_wins_within_one_standard_error(tmp_path, monkeypatch) -> None:
    def lines(variant, **values):
        return [
            {"variant": variant, "seed": seed, "protocol": protocol, "holdout": value + shift}
            for protocol, value in zip(study.RATES, values["means"], strict=True)
            for seed, shift in zip(study.TUNING_SEEDS, (-0.1, 0.0, 0.1), strict=True)
        ]

    # standard error 0.1 / sqrt(3) = 0.058
    rows = lines("near", means=(0.5, 0.5, 0.55)) + lines("far", means=(0.4, 0.5, 0.56))
    rows += lines("low", means=(0.6, 0.5, 0.1)) + lines("part", means=(0.1, 0.1, 0.9))[:-1]
    monkeypatch.setattr(study, "read_lines", lambda path: pd.DataFrame(rows))
    found = study.chosen_rates(tmp_path / "s.csv")
    assert found == {"near": 1.0, "far": 3.0, "low": pytest.approx(1 / 3)}


def test_lines_stand_by_seed_and_in_the_order_of_the_protocols(tmp_path: Path) -> None:
    about = dict.fromkeys(study.ABOUT, "x")
    new = [
        about | {"variant": "paper", "seed": seed, "protocol": protocol}
        for seed in (10, 9)
        for protocol in reversed(study.PROTOCOLS)
    ]
    study.add_lines(tmp_path / "s.csv", new)
    lines = study.read_lines(tmp_path / "s.csv")
    assert lines["seed"].tolist() == ["9"] * 3 + ["10"] * 3
    assert lines["protocol"].tolist() == [*study.PROTOCOLS] * 2


def test_arrival_trains_twice_as_long_and_tells_the_change_alone(store, tmp_path, capsys) -> None:
    out = tmp_path / "s.csv"
    found = study.arrival(out, **tuned(store, out))
    assert list(found.columns) == ["change", "error", "arrived"]
    lines = study.read_lines(study.beside(out, "tuning"))
    assert set(lines["protocol"]) == {"rate", "rate, twice the epochs"}
    one = lines[lines["variant"] == "fusion"].astype({"holdout": float})
    wide = one.pivot(index="seed", columns="protocol", values="holdout")
    change = wide["rate, twice the epochs"] - wide["rate"]
    assert found.loc["fusion", "change"] == pytest.approx(100 * change.mean(), abs=0.006)
    task = study.Task(variant="hl_net, vision", seed=0, data="", scale="soundstage")
    once, twice = task.settings(), task.settings(protocol="rate" + study.LONGER)
    assert twice.options["steps"] == 2 * once.options["steps"]
    assert twice.train.epochs == 2 * once.train.epochs
    assert twice.train.milestones == tuple(2 * epoch for epoch in once.train.milestones) != ()


# --- other data -----------------------------------------------------------------------------------


def test_results_of_other_data_are_refused(store, tmp_path) -> None:
    out = run(store, tmp_path / "s.csv", studies=["parts"])
    other = tiny_store(tmp_path / "other", train=26)
    with pytest.raises(ValueError, match="other data .* choose another file"):
        run(other, out, studies=["parts"])


def test_bad_input_is_refused(store, tmp_path) -> None:
    with pytest.raises(
        ValueError, match="unknown study 'part'; there are main, primary, field, parts"
    ):
        run(store, tmp_path / "s.csv", studies=["part"])
    (tmp_path / "foreign.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="no result file of a study, .* choose another file"):
        run(store, tmp_path / "foreign.csv", studies=["parts"])
    with pytest.raises(IsADirectoryError):  # told after the first training once
        run(store, tmp_path, studies=["parts"])
    assert command_line.main(["study", "--out", str(tmp_path / "s.csv"), "--jobs", "0"]) == 2
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
    assert found.verdict == "not distinguishable"
    told = f"a - b: +2.0 points [{2 - half:+.1f}, +{2 + half:.1f}], higher on 3 of 3 seeds"
    assert str(found) == f"{told}; uncorrected: not distinguishable"


def test_what_two_trainings_have_in_common_is_told(store, tmp_path, monkeypatch) -> None:
    """Which videos a training sees, in which order, is taken from the trainings themselves."""
    seen: dict[str, list] = {}
    real_batch = TrainingSet.batch

    def spy(self, index):
        seen.setdefault(current[-1], []).append(self.rows[index].tolist())
        return real_batch(self, index)

    current: list[str] = []
    monkeypatch.setattr(TrainingSet, "batch", spy)
    names = ("paper", "vision", "fusion", "released", "released, vision", "late fusion, maximum")
    for name in names:
        current.append(name)
        study.repeat(
            study.Task(
                variant=name,
                seed=3,
                data=str(store.path),
                scale="soundstage",
                overrides=SMALL,
                cache=str(tmp_path),  # a student finds its teacher trained
                keep=False,
            )
        )
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        [
            {"row": v, "variant": v, "seed": seed, "protocol": "chosen", "ap": rng.random()}
            for v in seen
            for seed in range(3)
        ]
    )
    for one in seen:
        for other in seen:
            if one < other:
                found = study.paired(frame, one, other, "ap")
                told = "trained on other batches" not in str(found)
                assert told == (seen[one] == seen[other]), f"{one} and {other}"


def test_verdicts_and_seeds_that_only_one_row_has() -> None:
    frame = frame_of(a=[0.80, 0.82, 0.81, 0.9], b=[0.70, 0.71, 0.72])
    assert study.paired(frame, "a", "b", "ap").verdict == "higher"
    assert study.paired(frame, "b", "a", "ap").verdict == "lower"
    assert len(study.paired(frame, "a", "b", "ap").differences) == 3
    equal = frame_of(a=[0.8, 0.9], b=[0.8, 0.9])
    assert study.paired(equal, "a", "b", "ap").verdict == "not distinguishable"
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
    assert np.isfinite(frame["frame_ap_alignment"]).all()


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
