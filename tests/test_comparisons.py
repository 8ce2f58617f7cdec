"""Comparisons over seeds and test videos: every number against an oracle that works otherwise."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_rel
from sklearn.metrics import average_precision_score
from test_study import SMALL
from tiny import tiny_settings, tiny_store, tiny_text

from avadclip_lite import __main__ as command_line
from avadclip_lite import train
from avadclip_lite.config import soundstage_path
from avadclip_lite.dataset import FeatureStore
from avadclip_lite.evaluate import Predictions, predict_store
from avadclip_lite.experiments import comparisons, study
from avadclip_lite.experiments.comparisons import MEASURE, RESAMPLED, compare, holm, intervals

README = Path(__file__).parents[1] / "data" / "README.md"


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> FeatureStore:
    return tiny_store(tmp_path_factory.mktemp("data") / "tiny", test=20)


@pytest.fixture(autouse=True)
def tiny_tower(monkeypatch):
    monkeypatch.setattr(train, "load_text", lambda *args, **kwargs: tiny_text())


def predictions(store, seed=0, ties=False) -> Predictions:
    rows, rng = store.indices("test"), np.random.default_rng(seed)
    lengths = store.snippets[rows]
    logits = rng.standard_normal(lengths.sum()).astype(np.float32)
    names = [store.videos[i].name for i in rows]
    logits = logits.round(0) if ties else logits
    return Predictions(names=names, lengths=lengths, anomaly_logits=logits, alignment=None)


# --- test videos drawn again ----------------------------------------------------------------------


@pytest.mark.parametrize("ties", [False, True])
def test_it_is_the_ap_of_the_frames_of_videos_that_are_repeated(store, ties) -> None:
    """Frames are written out one by one and the videos repeated as they were drawn."""
    found, rows = predictions(store, ties=ties), store.indices("test")
    again = comparisons.resampled_ap(found, store)
    dice = np.random.RandomState(int(store.digest[:8], 16))
    draws = dice.randint(20, size=(200, 20), dtype=np.int64)
    truth = [store.frame_truth([i]) for i in rows]
    scores = [np.repeat(found.video(v)[0], store.stride) for v in range(20)]
    for draw, value in zip(draws, again, strict=True):
        frames = [np.concatenate([which[v] for v in draw]) for which in (truth, scores)]
        assert value == pytest.approx(average_precision_score(*frames), abs=1e-12)
    assert len(set(again)) > 190 and abs(again.mean() - whole_ap(found, store)) < 0.05


def whole_ap(found, store) -> float:
    truth = store.frame_truth(store.indices("test"))
    return float(average_precision_score(truth, np.repeat(found.anomaly, store.stride)))


def test_draws_hang_on_the_store_alone_so_that_differences_are_paired(store, tmp_path) -> None:
    one, other = predictions(store), predictions(store, seed=1)
    np.random.seed(3)
    again = comparisons.resampled_ap(one, store)
    np.random.seed(4)
    np.testing.assert_array_equal(again, comparisons.resampled_ap(one, store))
    # near to each other on every draw, however far the draws are apart
    near = predictions(store)
    near.anomaly_logits[:3] += 0.01
    apart = comparisons.resampled_ap(near, store) - again
    assert np.std(apart) < np.std(again) / 10
    assert np.std(comparisons.resampled_ap(other, store) - again) > np.std(apart)
    with pytest.raises(ValueError, match="not predictions of the test split"):
        comparisons.resampled_ap(one, tiny_store(tmp_path / "other", test=8))


def test_clips_of_one_film_are_drawn_together(store) -> None:
    """Clips of two films: a draw is the one, the other or both, so there are three values."""
    found, rows = predictions(store), store.indices("test")
    films = store.film_ids.copy()
    try:
        store.film_ids[rows] = films[rows[0]] + np.arange(20) // 10
        assert len({round(x, 12) for x in comparisons.resampled_ap(found, store)}) == 3
    finally:
        store.film_ids[:] = films


# --- intervals ------------------------------------------------------------------------------------


def test_the_intervals_by_hand_and_scipys() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(80, 3, 10), rng.normal(78, 3, 10)
    again = rng.normal(2, 1.5, (10, 200))
    found, test = intervals(a - b, again), ttest_rel(a, b)
    assert found["seeds"] == 10 and found["mean"] == pytest.approx(a.mean() - b.mean())
    theirs = test.confidence_interval(0.95)
    assert (found["seeds low"], found["seeds high"]) == pytest.approx((theirs.low, theirs.high))
    assert found["p"] == pytest.approx(test.pvalue)
    means = sorted(again.mean(axis=0))  # 2.5 % of the way from the 1st to the 200th: 4.975
    assert found["videos low"] == pytest.approx(0.025 * means[4] + 0.975 * means[5], abs=0.02)
    assert means[193] < found["videos high"] < means[196]
    # without any spread over videos it is the interval over seeds
    alone = intervals(a - b, np.full((10, 200), 2.0))
    assert alone["both low"] == pytest.approx(alone["seeds low"])
    assert alone["p both"] == pytest.approx(test.pvalue)
    # where all seeds agree, that of a normal mean over videos; both below 0.05 or neither
    equal = intervals(np.full(10, 2.0), np.tile(again[:1], (10, 1)))
    half = 1.959964 * again[0].std(ddof=1)
    assert equal["both low"] == pytest.approx(2 - half, abs=1e-5)
    for one in (found, alone, equal):
        assert (one["p both"] < 0.05) == (one["both low"] * one["both high"] > 0)


def test_draws_without_an_anomaly_are_left_out_and_equal_rows_differ_by_nothing() -> None:
    again = np.random.default_rng(0).normal(2, 1, (3, 200))
    d = np.array([1.0, 2.0, 4.0])
    fewer = intervals(d, np.where(np.arange(200) % 50, again, np.nan))
    rest = intervals(d, again[:, np.arange(200) % 50 > 0])
    assert fewer == pytest.approx(rest)
    nothing = intervals(np.zeros(3), np.zeros((3, 200)))
    assert nothing["mean"] == 0 and holm([nothing["p"], nothing["p both"]]).tolist() == [1, 1]


def test_what_the_intervals_promise_they_hold_where_the_truth_is_known() -> None:
    """Differences are made of a seed's part, a video's part and what a seed makes of a video; the
    truth is 0. For new seeds *and* videos only the interval over both may be trusted."""
    rng, held = np.random.default_rng(1), {"seeds": 0, "videos": 0, "both": 0}
    for _ in range(400):
        d = rng.normal(0, 1, (10, 1)) + rng.normal(0, 3, 60) + rng.normal(0, 3, (10, 60))
        draws = rng.multinomial(60, np.full(60, 1 / 60), 200) / 60
        found = intervals(d.mean(axis=1), d @ draws.T)
        for name in held:
            held[name] += found[f"{name} low"] <= 0 <= found[f"{name} high"]
    share = {name: count / 400 for name, count in held.items()}
    assert 0.93 <= share["both"] <= 0.985, share
    assert share["seeds"] < 0.9 and share["videos"] < 0.9, share


# --- Holm -----------------------------------------------------------------------------------------


def test_holm_by_hand() -> None:
    # 0.01 x 4; 0.02 x 3 = 0.06; 0.03 x 2 = 0.06; 0.04 x 1, but not below the one before: 0.06
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.6]).tolist() == [1.0, 1.0]
    assert holm([0.001, np.nan]).tolist() == [0.002, 1.0]


def test_holm_is_the_closed_test_of_bonferroni() -> None:
    """A claim falls where every set of claims that holds it falls by Bonferroni: all 2^m sets."""
    rng = np.random.default_rng(0)
    for m in (1, 2, 5, 8):
        for p in (rng.random(m) ** 3, np.round(rng.random(m) / 5, 2)):
            closed = [0.0] * m
            for size in range(1, m + 1):
                for together in itertools.combinations(range(m), size):
                    bonferroni = min(1.0, size * min(p[i] for i in together))
                    for i in together:
                        closed[i] = max(closed[i], bonferroni)
            assert holm(p) == pytest.approx(closed)


# --- claims and verdicts --------------------------------------------------------------------------


def frame_of(shift=0.05, spread=0.01, seeds=range(6), rng=0) -> pd.DataFrame:
    """Rows a, b, c of which a is higher by ``shift``, b and c alike; lines in no order."""
    dice, lines = np.random.default_rng(rng), []
    for seed in seeds:
        for row in "cab":
            ap = 0.7 + shift * (row == "a") + dice.normal(0, spread)
            again = ap + dice.normal(0, spread, 200)
            lines.append({"row": row, "seed": seed, MEASURE: ap, **dict(zip(RESAMPLED, again))})  # noqa: B905
    return pd.DataFrame(lines).sample(frac=1, random_state=0)


PAIRS = {"a beats b": ("a", "b"), "b against c": ("b", "c"), "b against a": ("b", "a")}


def test_rows_are_paired_by_seed_on_the_same_draws() -> None:
    frame = frame_of()
    table = compare(frame, PAIRS)
    wide = 100 * frame.pivot(index="seed", columns="row", values=MEASURE)
    again = {r: frame[frame.row == r].sort_values("seed")[RESAMPLED].to_numpy() for r in "abc"}
    for claim, (row, against) in PAIRS.items():
        by_hand = intervals(
            (wide[row] - wide[against]).to_numpy(), 100 * (again[row] - again[against])
        )
        assert table.loc[claim, list(by_hand)].to_dict() == pytest.approx(by_hand)
        paired = study.paired(frame.assign(protocol="chosen"), row, against, MEASURE)
        assert table.loc[claim, ["mean", "seeds low", "seeds high"]].tolist() == pytest.approx(
            [paired.mean, paired.low, paired.high]
        )
    assert table["p, Holm"].tolist() == pytest.approx(holm(table["p"]))
    assert table["p both, Holm"].tolist() == pytest.approx(holm(table["p both"]))
    fewer = frame[(frame.row != "b") | (frame.seed < 4)]
    assert compare(fewer, PAIRS)["seeds"].tolist() == [4, 4, 4]
    for left in (fewer[(fewer.row != "b") | (fewer.seed < 1)], fewer[fewer.row != "b"]):
        with pytest.raises(ValueError, match="'a' and 'b' have fewer than two seeds in common"):
            compare(left, PAIRS)


def test_a_sign_shows_where_all_worlds_show_it() -> None:
    one, twice = compare(frame_of(), PAIRS), compare(frame_of(rng=1), PAIRS)
    other = compare(frame_of(shift=-0.05), PAIRS)
    weak = compare(frame_of(shift=0.004, rng=2), PAIRS)
    assert weak.loc["a beats b", "mean"] * one.loc["a beats b", "mean"] > 0  # same sign, unsure

    def verdicts(**worlds) -> list[str]:
        table = comparisons.judge(worlds)
        assert table.index.names == ["world", "claim"] and len(table) == 3 * len(worlds)
        of_each = [table.loc[world, "verdict"].tolist() for world in worlds]
        assert all(found == of_each[0] for found in of_each)
        return of_each[0]

    assert verdicts(one=one) == verdicts(one=one, two=twice) == ["shows", "open", "shows"]
    assert verdicts(one=one, two=other) == verdicts(one=one, two=weak) == ["open"] * 3
    # sure over seeds, but not over videos: all seeds higher on some videos, lower on others
    frame, swing = frame_of(), np.random.default_rng(0).normal(0, 0.05, 200)
    frame.loc[frame.row == "a", RESAMPLED] += swing
    table = comparisons.judge({"one": compare(frame, PAIRS)})
    assert table["p, Holm"].iloc[0] < 0.05 and table["verdict"].iloc[0] == "open"


# --- in the study ---------------------------------------------------------------------------------


def test_claims_are_those_of_the_readme_and_rows_of_the_study() -> None:
    told = README.read_text().partition("### What will be compared")[2]
    assert list(study.COMPARISONS) == re.findall(r"^\d\. (.*)$", told, re.MULTILINE)
    assert {x for pair in study.COMPARISONS.values() for x in pair} <= set(study.STUDIES["main"])
    for claim, (row, against) in study.COMPARISONS.items():
        one, other = (study.VARIANTS[study.STUDIES["main"][x]] for x in (row, against))
        assert one.form == other.form == "paper" and row != against, claim


def small(
    store, out, monkeypatch, rows=("adaptive", "addition", "late fusion, mean", "audio only")
):
    """A study of a few rows of main."""
    monkeypatch.setitem(study.STUDIES, "main", {k: study.STUDIES["main"][k] for k in rows})
    given = {"studies": ["main"], "data": store.path, "seeds": range(2)}
    return study.run_study(out, overrides=SMALL, cache=out.parent / "cache", **given)


def test_every_kind_of_row_is_tested_on_videos_drawn_again(store, tmp_path, monkeypatch) -> None:
    out = small(store, tmp_path / "s.csv", monkeypatch)
    lines, again = study.read_lines(out), study.read_lines(study.beside(out, "videos"))
    assert not set(lines) & set(RESAMPLED) and set(again) == {*study.ABOUT, *RESAMPLED}
    chosen = lines[lines["protocol"] == "chosen"].reset_index(drop=True)
    pd.testing.assert_frame_equal(chosen[[*study.ABOUT]], again[[*study.ABOUT]])
    assert set(chosen["variant"]) == {"paper", "addition", "late_fusion, audio-visual", "audio"}
    settings = tiny_settings(**SMALL, fusion="add")
    model = train.fit(settings, store, progress=False).model
    by_hand = comparisons.resampled_ap(predict_store(model, store, store.indices("test")), store)
    filed = again[(again["variant"] == "addition") & (again["seed"] == "0")][RESAMPLED]
    assert filed.astype(float).to_numpy()[0] == pytest.approx(by_hand, abs=5.1e-5)


def test_a_kill_between_the_two_files_leaves_no_line_without_its_test(
    store, tmp_path, monkeypatch
) -> None:
    whole = small(store, tmp_path / "whole" / "s.csv", monkeypatch)
    real, out, calls = study.add_lines, tmp_path / "s.csv", []

    def dies(path, new):
        calls.append(path)
        if len(calls) == 6:
            raise KeyboardInterrupt
        real(path, new)

    monkeypatch.setattr(study, "add_lines", dies)
    with pytest.raises(KeyboardInterrupt):
        small(store, out, monkeypatch)
    videos = study.beside(out, "videos")
    assert calls[-1] == out and len(study.read_lines(videos)) == 3  # one ahead of the other
    assert study.read_lines(out).drop_duplicates(["variant", "seed"]).shape[0] == 2
    monkeypatch.setattr(study, "add_lines", real)
    small(store, out, monkeypatch)
    for what in ("", "videos"):
        mine, theirs = (
            study.read_lines(study.beside(path, what) if what else path) for path in (out, whole)
        )
        pd.testing.assert_frame_equal(mine.drop(columns="seconds"), theirs.drop(columns="seconds"))
    one, other = (study.read_lines(path) for path in (out, videos))
    chosen = one[one["protocol"] == "chosen"].reset_index(drop=True)
    pd.testing.assert_series_equal(chosen["seconds"], other["seconds"])  # of one training


def test_a_file_beside_that_belongs_to_something_else_is_refused(store, tmp_path, monkeypatch):
    out = small(store, tmp_path / "s.csv", monkeypatch, rows=["addition"])
    out.unlink()
    videos = study.beside(out, "videos")
    lines = study.read_lines(videos)
    lines.assign(setup="another").to_csv(videos, index=False)
    with pytest.raises(ValueError, match="s_videos.csv holds results of another configuration"):
        small(store, out, monkeypatch, rows=["addition"])


def test_from_the_training_to_the_verdict(store, tmp_path, monkeypatch, capsys) -> None:
    """The command trains the rows, and compares them, in one world and in two."""
    rows = list(study.STUDIES["main"])[:5]
    pairs = {k: v for k, v in study.COMPARISONS.items() if {*v} <= {*rows}}
    monkeypatch.setattr(study, "COMPARISONS", pairs)
    monkeypatch.setitem(study.STUDIES, "main", {k: study.STUDIES["main"][k] for k in rows})
    monkeypatch.setenv("AVADCLIP_CACHE", str(tmp_path / "cache"))
    words = [word for pair in SMALL.items() for word in ("-s", *map(str, pair))]
    out, other = tmp_path / "one" / "s.csv", tmp_path / "two" / "s.csv"
    for file, data in ((out, store), (other, tiny_store(tmp_path / "d", test=12))):
        command = ["study", "main", "--out", str(file), "--data", str(data.path), "--seeds", "3"]
        assert command_line.main([*command, *words]) == 0
    capsys.readouterr()
    monkeypatch.setattr(study, "repeat", lambda task: pytest.fail("trained"))
    compare_them = ["study", "main", "--out", str(out), "--compare"]
    assert command_line.main(compare_them) == 0
    printed, table = capsys.readouterr().out, study.comparisons(out)
    assert len(table) == len(pairs) == 4 and set(table["seeds"]) == {3}
    frame = study.results("main", path=out)
    for claim, (row, against) in pairs.items():
        assert claim in printed
        paired = study.paired(frame, row, against, MEASURE)
        assert table.loc[(str(out), claim), "mean"] == pytest.approx(paired.mean)
    filed = pd.read_csv(study.beside(out, "comparisons"), index_col=[0, 1])
    pd.testing.assert_frame_equal(filed, table)
    assert command_line.main([*compare_them, "--and", str(other)]) == 0
    with pytest.raises(ValueError, match="is on the same data as a file before it"):
        study.comparisons(out, other, out)
    both = study.comparisons(out, other)
    assert len(both) == 8 and set(both["verdict"]) <= {"shows", "open"}
    lines = study.read_lines(study.beside(out, "videos"))
    for lost in (lines[lines["variant"] != "addition"], lines.assign(seconds="0.12"), lines[:0]):
        lost.to_csv(study.beside(out, "videos"), index=False)
        with pytest.raises(ValueError, match="s_videos.csv lacks the test of '.*', seed 0; train"):
            study.comparisons(out)
    study.beside(out, "videos").unlink()
    with pytest.raises(ValueError, match="lacks the test of"):
        study.comparisons(out)
    with pytest.raises(FileNotFoundError, match="no result file"):
        study.comparisons(tmp_path / "none.csv")


def test_the_file_beside_a_study_of_ten_seeds_is_small(tmp_path) -> None:
    line = {"config": "0" * 12, "setup": "0" * 12, "store": "0" * 12, "sources": "0" * 12}
    line |= {"torch": "2.11.0", "seconds": 100.1, "epoch": 15, "protocol": "chosen"}
    line |= dict.fromkeys(RESAMPLED, 0.7654)
    new = [
        line | {"variant": variant, "seed": seed}
        for variant in study.STUDIES["main"].values()
        for seed in range(10)
    ]
    study.add_lines(tmp_path / "s.csv", new)
    assert len(new) == 240 and (tmp_path / "s.csv").stat().st_size < 400_000


def test_the_shipped_test_videos_are_a_film_each() -> None:
    store = FeatureStore.open(soundstage_path())
    rows = store.indices("test")
    assert len(set(store.film_ids[rows])) == len(rows)
