"""p-values and passing rules against textbook values and simulation.

Authors
 * The speechbrain-ee contributors 2026
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.calibration.risk import (
    _TEST_SHARE,
    METHODS,
    check_method,
    guarantee,
    p_values,
    passing,
)
from speechbrain_ee.exits.clusters import Clusters

SEEDS = st.integers(0, 10_000)


def losses(seed, utterances=60, candidates=12):
    """Losses whose mean rises from clearly below to clearly above 0."""
    rng = np.random.default_rng(seed)
    drift = np.linspace(-1, 0.5, candidates)
    return drift + rng.standard_normal((utterances, candidates))


@given(SEEDS)
def test_p_value_is_the_one_sample_t_test(seed):
    losses_NT = losses(seed)
    expected = stats.ttest_1samp(losses_NT, 0, alternative="less").pvalue
    assert p_values(losses_NT, np.inf) == pytest.approx(expected)


def test_p_value_counts_the_noise_of_the_target_set():
    losses_NT = losses(1)
    n = len(losses_NT)
    t_T = losses_NT.mean(axis=0) / (
        losses_NT.std(axis=0, ddof=1) * np.sqrt(1 / n + 1 / 30)
    )
    assert p_values(losses_NT, 30) == pytest.approx(stats.t.cdf(t_T, n - 1))


def test_p_value_without_spread():
    losses_NT = np.tile([-1.0, 0.0, 1.0], (5, 1))
    assert p_values(losses_NT, 10).tolist() == [0, 1, 1]
    assert p_values(losses_NT[:1], 10).tolist() == [1, 1, 1]


@given(SEEDS, st.floats(0.05, 0.5), st.floats(0.05, 0.5))
def test_ltt_passes_more_with_a_larger_delta(seed, one, two):
    small, large = sorted((one, two))
    few, many = (
        passing(losses(seed), "ltt", delta, 3, 60, True)
        for delta in (small, large)
    )
    assert (few <= many).all()


@given(SEEDS, st.sampled_from(["naive", "crc", "ltt"]))
def test_passing_by_loop(seed, method):
    losses_NT = losses(seed)
    n = len(losses_NT)
    expected, on = [], True
    for column, p in zip(losses_NT.T, p_values(losses_NT, n)):
        if method == "naive":
            expected.append(column.sum() <= 0)
            continue
        if method == "crc":
            on &= (column.sum() + 3) / (n + 1) <= 0
        else:
            on &= p <= _TEST_SHARE * 0.2
        expected.append(on)
    assert passing(losses_NT, method, 0.2, 3, n, False).tolist() == expected


def test_first_candidate_may_be_safe_by_construction():
    losses_NT = np.ones((20, 2))
    for method in ("naive", "crc", "ltt"):
        for safe in (True, False):
            passed_T = passing(losses_NT, method, 0.1, 1, 20, safe)
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


@pytest.mark.parametrize(
    ("method", "delta", "said"),
    [("lt", 0.1, "naive, crc, ltt"), ("ltt", 0.0, "0.1"), ("ltt", 1, "0.1")],
)
def test_unknown_method_and_delta_out_of_range(method, delta, said):
    with pytest.raises(InputError, match=said):
        check_method(method, delta)


def test_guarantee_says_what_is_and_is_not_promised():
    many = Clusters.of(
        [f"s{n % 20}" for n in range(60)], [str(n) for n in range(60)]
    )
    said = {m: guarantee(m, 0.1, 60, 20, many, "B") for m in METHODS}
    assert said["naive"].startswith("None: B")
    assert "expectation" in said["crc"]
    # word errors are not monotone, and their bound is what was seen
    assert "need not rise" in said["crc"] and "largest loss seen" in said["crc"]
    assert "No promise for new speakers." in said["crc"]
    assert "probability 0.9" in said["ltt"]
    assert "60 or more utterances of 20 or more new speakers" in said["ltt"]
    blind = guarantee("ltt", 0.1, 60, 60, Clusters.single(60), "B")
    assert blind.startswith("With probability 0.9")
    assert blind.endswith("By utterance; no promise for new speakers.")
    few = Clusters.of(
        [f"s{n % 5}" for n in range(60)], [str(n) for n in range(60)]
    )
    assert guarantee("ltt", 0.1, 60, 5, few, "B").startswith(
        "None: 5 speakers: too few"
    )
