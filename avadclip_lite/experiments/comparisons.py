"""Two rows of a study compared over seeds and over test videos, several pairs at a time.

Ten trainings say how far another ten may lie apart, nothing of other test videos. For that the test
is drawn again: as many films, with replacement, some twice and some never (the bootstrap). The
draws hang on the store alone, so that every row and seed is tested on the same ones and differences
are paired. The seeds are those of a study, ``study.comparisons`` is how a result file is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.stats import t, ttest_1samp

from avadclip_lite.dataset import FeatureStore
from avadclip_lite.evaluate import Predictions, average_precision, snippet_truth

Array = np.ndarray
MEASURE = "frame_ap_classification"
RESAMPLED = [f"ap_{n}" for n in range(200)]  # MEASURE on test set n of those drawn again
LEVEL, SIDES = 0.05, ("low", "high")


def resampled_ap(predicted: Predictions, store: FeatureStore) -> Array:
    """AP (R,) of the classification branch on R test sets drawn again, fractions: of the frames, as
    ``evaluate`` counts them, each as often as its video was drawn; NaN where none is anomalous.
    ``predicted`` holds the store's test split in its order, else ``ValueError``. Clips of one film
    are drawn together; Soundstage's videos are a film each."""
    rows, lengths = store.indices("test"), predicted.lengths
    if predicted.names != [store.videos[i].name for i in rows]:
        raise ValueError(f"these are not predictions of the test split of {store.path}")
    truth = store.frame_truth(rows, lengths * store.stride)
    positive, negative = snippet_truth(truth, lengths, store.stride)
    films, film = np.unique(store.film_ids[rows], return_inverse=True)
    film, found = np.repeat(film, lengths), []  # of every snippet
    dice = np.random.RandomState(int(store.digest[:8], 16))  # NumPy promises that this one stays
    for drawn in dice.randint(len(films), size=(len(RESAMPLED), len(films)), dtype=np.int64):
        times = np.bincount(drawn, minlength=len(films))[film]
        found.append(average_precision(predicted.anomaly, positive * times, negative * times))
    return np.array(found)


def intervals(differences: Array, resampled: Array) -> dict[str, float]:
    """What is known of a mean difference, from that of every seed ``(n,)`` on the test set and on R
    drawn again ``(n, R)``; same units. 95 % intervals and p values of no difference:

    - seeds: mean ± t s / sqrt(n), the paired t-test, for other trainings on these test videos
    - videos: 2.5 to 97.5 % of the R means over seeds, for these trainings on other test videos
    - both: the variances add up, s^2 / n and that of the R means, with degrees of freedom after
      Satterthwaite (the second is taken as known). What a seed makes of a video counts in both,
      so that this interval is a little too wide rather than too narrow.
    """
    mean, n, means = float(np.mean(differences)), len(differences), np.mean(resampled, axis=0)
    test = ttest_1samp(differences, 0.0)
    seeds, videos = test.confidence_interval(1 - LEVEL), np.nanpercentile(means, [2.5, 97.5])
    of_seeds = np.var(differences, ddof=1) / n
    variance = of_seeds + np.nanvar(means, ddof=1)
    with np.errstate(divide="ignore", invalid="ignore"):  # equal rows
        error, freedom = np.sqrt(variance), (n - 1) * (variance / of_seeds) ** 2
        p_both = 2 * t.sf(abs(mean) / error, freedom)
    half = t.ppf(1 - LEVEL / 2, freedom) * error
    ends = {"seeds": seeds, "videos": videos, "both": (mean - half, mean + half)}
    found = {f"{k} {side}": float(v[i]) for k, v in ends.items() for i, side in enumerate(SIDES)}
    return {"seeds": n, "mean": mean, **found, "p": float(test.pvalue), "p both": float(p_both)}


def holm(p: Sequence[float]) -> Array:
    """Holm's adjusted p values (m,): whichever hypotheses are true, one of them falls below 5 % in
    at most 5 % of all studies. An undefined p (two equal rows) counts as 1."""
    p = np.nan_to_num(np.asarray(p, float), nan=1.0)
    order = np.argsort(p)  # the smallest is tested first,
    steps = p[order] * np.arange(len(p), 0, -1)  # times m, the next times m - 1, ..., the last x 1,
    adjusted = np.maximum.accumulate(steps)  # and none passes where a smaller one failed
    return np.minimum(adjusted, 1.0)[np.argsort(order)]


def compare(frame: pd.DataFrame, pairs: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """One line a claim of ``pairs`` {claim: (row, against)}: ``intervals`` of row minus against in
    points, on the seeds that both have, and Holm's p over all claims. ``frame``: lines of one
    protocol with ``row``, ``seed``, MEASURE, RESAMPLED. ``ValueError``: fewer than two seeds."""
    found, measured = {}, frame.set_index("seed")[[MEASURE, *RESAMPLED]]
    of_row = frame["row"].to_numpy()
    for claim, (row, against) in pairs.items():
        apart = (measured[of_row == row] - measured[of_row == against]).dropna(subset=MEASURE)
        if len(apart) < 2:
            raise ValueError(f"{row!r} and {against!r} have fewer than two seeds in common")
        found[claim] = intervals(100 * apart[MEASURE].to_numpy(), 100 * apart[RESAMPLED].to_numpy())
    table = pd.DataFrame.from_dict(found, orient="index").astype({"seeds": int})
    return table.assign(**{f"{k}, Holm": holm(table[k]) for k in ("p", "p both")})


def judge(worlds: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Tables of ``compare`` by world, one below the other, with a column ``verdict``. The rule: a
    sign *shows* where both of Holm's p values, over seeds and over seeds and videos, are below 5 %
    in every world, with the same sign; else the claim is *open*."""
    table = pd.concat(worlds, names=["world", "claim"])
    below = (table[["p, Holm", "p both, Holm"]] < LEVEL).all(axis=1)
    signs = np.sign(table["mean"]).where(below, 0).groupby("claim").transform("sum")
    return table.assign(verdict=np.where(signs.abs() == len(worlds), "shows", "open"))
