"""p-values and passing rules against textbook values and simulation.

Authors
 * The speechbrain-ee contributors 2026
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from speechbrain_ee.exits.calibration.risk import (
    METHODS,
    guarantee,
    p_values,
    passing,
)
from speechbrain_ee.exits.clusters import Clusters

SEEDS = st.integers(0, 10_000)
FEW = settings(max_examples=40, deadline=None)


def losses(seed, utterances=60, candidates=12):
    """Losses whose mean rises from clearly below to clearly above 0."""
    rng = np.random.default_rng(seed)
    drift = np.linspace(-1, 0.5, candidates)
    return drift + rng.standard_normal((utterances, candidates))


@FEW
@given(SEEDS)
def test_p_value_is_the_t_test_with_the_noise_of_the_target_set(seed):
    losses_NT = losses(seed)
    expected = stats.ttest_1samp(losses_NT, 0, alternative="less").pvalue
    assert p_values(losses_NT, np.inf) == pytest.approx(expected)
    n = len(losses_NT)
    t_T = losses_NT.mean(axis=0) / (
        losses_NT.std(axis=0, ddof=1) * np.sqrt(1 / n + 1 / 30)
    )
    assert p_values(losses_NT, 30) == pytest.approx(stats.t.cdf(t_T, n - 1))


def test_p_value_without_spread():
    losses_NT = np.tile([-1.0, 0.0, 1.0], (5, 1))
    assert p_values(losses_NT, 10).tolist() == [0, 1, 1]
    assert p_values(losses_NT[:1], 10).tolist() == [1, 1, 1]


@FEW
@given(SEEDS, st.sampled_from(METHODS), st.booleans())
def test_passing_by_loop(seed, method, safe):
    losses_NT = losses(seed)
    n = len(losses_NT)
    expected, on = [], True
    for column, p in zip(losses_NT.T, p_values(losses_NT, n)):
        passes = column.sum() <= 0
        if method == "crc":
            passes = (column.sum() + 3) / (n + 1) <= 0
        elif method == "ltt":
            passes = p <= 0.7 * 0.2
        passes = passes or (safe and not expected)
        on &= passes
        expected.append(passes if method == "naive" else on)
    assert passing(losses_NT, method, 0.2, 3, n, safe).tolist() == expected
    passed_T = passing(np.ones((20, 2)), method, 0.1, 1, 20, safe)
    assert passed_T.tolist() == [safe, False]


def test_ltt_breaks_the_budget_in_at_most_delta_of_the_draws():
    """A chain of candidates that get worse together, tested on new draws."""
    rng = np.random.default_rng(0)
    drift = np.linspace(-0.6, 0.6, 40)
    broken = {"naive": 0, "ltt": 0}
    draws = 400
    for _ in range(draws):
        # skewed: most utterances lose nothing, a few lose much
        both = rng.exponential(1, (2, 100, 1)) - 1 + drift
        for method in broken:
            passed_T = passing(both[0], method, 0.1, 5, 100, True)
            last = int(np.flatnonzero(passed_T).max())
            broken[method] += both[1][:, last].mean() > 0
    assert broken["ltt"] / draws <= 0.1
    assert broken["naive"] / draws >= 0.3


def clusters(speakers, utterances=60):
    names = [f"s{n % speakers}" for n in range(utterances)]
    return Clusters.of(names, [str(n) for n in range(utterances)])


@pytest.mark.parametrize(
    ("method", "of", "said"),
    [
        ("naive", clusters(20), ["None: B"]),
        (
            # word errors are not monotone, and their bound is what was seen
            "crc",
            clusters(20),
            [
                "In expectation",
                "need not rise",
                "largest loss seen",
                "No promise for new speakers.",
            ],
        ),
        (
            "ltt",
            clusters(20),
            [
                "With probability 0.9",
                "60 or more utterances of 20 or more new speakers",
            ],
        ),
        ("ltt", clusters(5), ["None: 5 speakers: too few"]),
        (
            "ltt",
            Clusters.single(60),
            [
                "With probability 0.9",
                "By utterance; no promise for new speakers.",
            ],
        ),
    ],
)
def test_guarantee_says_what_is_and_is_not_promised(method, of, said):
    text = guarantee(method, 0.1, 60, of.count, of, "B")
    assert text.startswith(said[0])
    assert all(each in text for each in said)
