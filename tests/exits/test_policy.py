"""Policies and oracle against plain loops and their defining properties.

Authors
 * The speechbrain-ee contributors 2026
"""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from speechbrain_ee.exits.oracle import (
    earliest_best,
    earliest_no_worse,
    lambda_bound,
    overthinking,
)
from speechbrain_ee.exits.policy import FixedExit, ThresholdPolicy, first_exit

SHAPES = st.tuples(st.integers(1, 8), st.integers(1, 5))
# few distinct values, so that ties happen
SCORES = SHAPES.flatmap(
    lambda shape: hnp.arrays(
        float, shape, elements=st.sampled_from([-1.0, 0.0, 0.5, 1.0])
    )
)
ERRORS = SHAPES.flatmap(
    lambda shape: hnp.arrays(np.int64, shape, elements=st.integers(0, 4))
)
LIMITS = st.sampled_from([-2.0, -1.0, 0.0, 0.25, 0.5, 1.0, 2.0])


def first_exit_by_loop(scores_NE, limits_E):
    chosen = []
    for row in scores_NE:
        for k, score in enumerate(row):
            if k == len(row) - 1 or score >= limits_E[k]:
                chosen.append(k)
                break
    return chosen


@given(SCORES, LIMITS)
def test_one_threshold(scores_NE, limit):
    expected = first_exit_by_loop(scores_NE, [limit] * scores_NE.shape[1])
    assert first_exit(scores_NE, limit).tolist() == expected
    assert ThresholdPolicy("c", limit).choose(scores_NE).tolist() == expected


@given(SCORES, st.lists(LIMITS, min_size=5, max_size=5))
def test_threshold_per_exit(scores_NE, limits):
    limits = limits[: scores_NE.shape[1]]
    expected = first_exit_by_loop(scores_NE, limits)
    assert first_exit(scores_NE, limits).tolist() == expected


@given(SCORES, LIMITS, LIMITS)
def test_stricter_is_never_earlier(scores_NE, one, two):
    loose, strict = sorted((one, two))
    assert (first_exit(scores_NE, loose) <= first_exit(scores_NE, strict)).all()


@given(SCORES, LIMITS, st.booleans())
def test_live_decisions_are_those_of_the_table(scores_NE, limit, as_torch):
    rows, exits = scores_NE.shape
    for threshold in (limit, (limit,) * exits):
        policy = ThresholdPolicy("c", threshold, exits)
        live = np.full(rows, -1)
        for k in range(1, exits + 1):
            score_B = scores_NE[:, k - 1]
            if as_torch:
                score_B = torch.from_numpy(score_B).float()
            stop_B = np.asarray(policy.stop(k, score_B))
            live[stop_B & (live < 0)] = k - 1
        assert live.tolist() == policy.choose(scores_NE).tolist()


def test_thresholds_are_not_rounded_to_single_precision():
    score = torch.tensor([0.1])  # slightly above 0.1 in double precision
    just_above = float(score.double()) + 1e-12
    policy = ThresholdPolicy("c", just_above, exits=2)
    assert not policy.stop(1, score).item()
    assert ThresholdPolicy("c", float(score), 2).stop(1, score).item()
    assert policy.stop(2, score).item()


UNUSUAL = SHAPES.flatmap(
    lambda shape: hnp.arrays(
        float, shape, elements=st.sampled_from([-np.inf, 0.0, np.inf, np.nan])
    )
)


@given(UNUSUAL, st.booleans())
def test_infinite_thresholds_are_always_first_and_always_last(
    scores_NE, per_exit
):
    exits = scores_NE.shape[1]
    for limit, expected in ((-np.inf, 0), (np.inf, exits - 1)):
        threshold = (limit,) * (exits - 1) if per_exit else limit
        policy = ThresholdPolicy("c", threshold, exits)
        assert (policy.choose(scores_NE) == expected).all()
        if exits > 1:
            for score_B in (scores_NE[:, 0], torch.tensor(scores_NE[:, 0])):
                stopped = np.asarray(policy.stop(1, score_B))
                assert (stopped == (expected == 0)).all()
            assert np.asarray(policy.stop(exits, scores_NE[:, -1])).all()


@given(SCORES, st.lists(LIMITS, min_size=5, max_size=5), st.integers(0, 4))
def test_one_stricter_exit_is_never_earlier(scores_NE, limits, place):
    limits = limits[: scores_NE.shape[1]]
    stricter = list(limits)
    place %= len(limits)
    stricter[place] += 1
    before, after = (first_exit(scores_NE, t) for t in (limits, stricter))
    assert (before <= after).all()


def test_fixed_exit():
    policy = FixedExit(2)
    scores_NE = np.random.default_rng(0).random((4, 3))
    assert policy.choose(scores_NE).tolist() == [1] * 4
    for score_B in (scores_NE[:, 0], torch.zeros(4)):
        assert np.asarray(policy.stop(1, score_B)).tolist() == [False] * 4
        assert np.asarray(policy.stop(2, score_B)).tolist() == [True] * 4


@given(ERRORS)
def test_oracles_by_loop(errors_NE):
    rows = errors_NE.tolist()
    assert earliest_best(errors_NE).tolist() == [r.index(min(r)) for r in rows]
    assert earliest_no_worse(errors_NE).tolist() == [
        next(k for k, e in enumerate(r) if e <= r[-1]) for r in rows
    ]
    assert overthinking(errors_NE).tolist() == [
        any(e < r[-1] for e in r[:-1]) for r in rows
    ]


@given(ERRORS, st.integers(0, 5))
def test_lambda_bound_by_loop(errors_NE, price):
    layers = np.arange(2, 2 * errors_NE.shape[1] + 1, 2)
    expected = []
    for row in errors_NE.tolist():
        costs = [e + price * c for e, c in zip(row, layers.tolist())]
        expected.append(costs.index(min(costs)))
    assert lambda_bound(errors_NE, layers, price).tolist() == expected


@given(ERRORS, SCORES, LIMITS)
def test_no_policy_beats_the_oracle(errors_NE, scores_NE, limit):
    scores_NE = np.resize(scores_NE, errors_NE.shape)
    rows = np.arange(len(errors_NE))
    choice = first_exit(scores_NE, limit)
    best = earliest_best(errors_NE)
    assert errors_NE[rows, best].sum() <= errors_NE[rows, choice].sum()
    layers = np.arange(errors_NE.shape[1])
    for price in (0.3, 1.0):
        bound = lambda_bound(errors_NE, layers, price)
        least = (errors_NE[rows, bound] + price * bound).sum()
        assert least <= (errors_NE[rows, choice] + price * choice).sum() + 1e-9
