"""Policies and oracle: plain loops, every choice there is, any scores.

Authors
 * The speechbrain-ee contributors 2026
"""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.calibration.exit_policy import ExitPolicy
from speechbrain_ee.exits.oracle import (
    earliest_best,
    earliest_no_worse,
    lambda_bound,
    overthinking,
)
from speechbrain_ee.exits.policy import (
    FixedExit,
    ThresholdPolicy,
    check_exit,
    first_exit,
    rule_for,
)

SHAPES = st.tuples(st.integers(1, 8), st.integers(1, 5))


# few distinct values, so that ties happen
SCORES = SHAPES.flatmap(
    lambda shape: hnp.arrays(
        float, shape, elements=st.sampled_from([-1.0, 0.0, 0.5, 1.0])
    )
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


@given(SCORES, st.lists(LIMITS, min_size=5, max_size=5))
def test_thresholds_by_loop(scores_NE, limits):
    limits = limits[: scores_NE.shape[1]]
    expected = first_exit_by_loop(scores_NE, limits)
    assert first_exit(scores_NE, limits).tolist() == expected
    one = limits[0]
    expected = first_exit_by_loop(scores_NE, [one] * scores_NE.shape[1])
    assert first_exit(scores_NE, one).tolist() == expected
    assert ThresholdPolicy("c", one).choose(scores_NE).tolist() == expected


@given(SCORES, LIMITS, st.booleans())
def test_live_decisions_are_those_of_the_table(scores_NE, limit, as_torch):
    rows, exits = scores_NE.shape
    policies = [
        ThresholdPolicy("c", threshold, exits)
        for threshold in (limit, (limit,) * exits)
    ]
    for policy in (*policies, FixedExit(exits)):
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


# so small that all choices can be listed, and few values, so that ties occur
ERRORS = st.tuples(st.integers(1, 3), st.integers(1, 4)).flatmap(
    lambda shape: hnp.arrays(np.int64, shape, elements=st.integers(0, 4))
)


PRICES = st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0])


def totals(errors_NE, choice, layers_E):
    """Errors and layers of a choice of one exit per utterance."""
    errors = sum(int(errors_NE[i, k]) for i, k in enumerate(choice))
    return errors, sum(int(layers_E[k]) for k in choice)


def all_choices(errors_NE):
    return product(range(errors_NE.shape[1]), repeat=len(errors_NE))


def layers_of(errors_NE):
    return 2 * np.arange(1, errors_NE.shape[1] + 1)


@given(ERRORS)
def test_fewest_errors_then_fewest_layers(errors_NE):
    layers_E = layers_of(errors_NE)
    found = totals(errors_NE, earliest_best(errors_NE), layers_E)
    assert found == min(
        totals(errors_NE, choice, layers_E) for choice in all_choices(errors_NE)
    )
    gain_N = errors_NE[:, -1] - taken(errors_NE, earliest_best(errors_NE))
    assert (overthinking(errors_NE) == (gain_N > 0)).all()


@given(ERRORS, PRICES, st.booleans())
def test_least_errors_and_cost_together(errors_NE, price, own_costs):
    layers_E = layers_of(errors_NE)
    costs_NE = layers_E * np.ones((len(errors_NE), 1), dtype=np.int64)
    if own_costs:
        costs_NE *= np.arange(1, len(errors_NE) + 1)[:, None]
    chosen = lambda_bound(errors_NE, costs_NE if own_costs else layers_E, price)

    def value(choice):
        return sum(
            errors_NE[i, k] + price * costs_NE[i, k]
            for i, k in enumerate(choice)
        )

    assert value(chosen) == min(map(value, all_choices(errors_NE)))
    # ties go to the earlier exit, utterance by utterance
    for i, k in enumerate(chosen):
        here = errors_NE[i, k] + price * costs_NE[i, k]
        for earlier in range(k):
            there = errors_NE[i, earlier] + price * costs_NE[i, earlier]
            assert there > here


# scores as criteria give them: minus infinity where there is nothing yet
SCORE = st.one_of(
    st.just(-np.inf),
    st.sampled_from([-1.0, 0.0, 1.0]),
    st.floats(-1e6, 1e6, allow_nan=False),
)


# quarters: exact in floating point, so that ties are ties
PRICE = st.integers(0, 200).map(lambda quarters: quarters / 4)


LIMIT = st.one_of(st.sampled_from([-np.inf, np.inf]), SCORE)


@st.composite
def tables(draw):
    """Errors and scores of the same utterances and exits."""
    shape = draw(st.integers(1, 8)), draw(st.integers(1, 6))
    errors_NE = draw(hnp.arrays(np.int64, shape, elements=st.integers(0, 30)))
    return errors_NE, draw(hnp.arrays(float, shape, elements=SCORE))


def limits_for(draw, exits):
    """One threshold, or one per exit."""
    one = draw(st.booleans())
    several = draw(st.lists(LIMIT, min_size=exits, max_size=exits))
    return several[0] if one else several


def taken(values_NE, choice_N):
    return np.take_along_axis(values_NE, choice_N[:, None], axis=1)[:, 0]


@given(tables(), st.data(), PRICE)
def test_no_policy_beats_the_oracle(table, data, price):
    errors_NE, scores_NE = table
    limits = limits_for(data.draw, errors_NE.shape[1])
    choice_N = first_exit(scores_NE, limits)
    errors_N = taken(errors_NE, choice_N)
    assert (taken(errors_NE, earliest_best(errors_NE)) <= errors_N).all()
    # nor is one both earlier and never worse than the last exit
    earlier_N = choice_N < earliest_no_worse(errors_NE)
    assert (errors_N > errors_NE[:, -1])[earlier_N].all()
    costs_NE = np.arange(errors_NE.shape[1]) + np.zeros(errors_NE.shape)
    value_NE = errors_NE + price * costs_NE
    bound_N = lambda_bound(errors_NE, costs_NE, price)
    assert (taken(value_NE, bound_N) <= taken(value_NE, choice_N)).all()


@given(tables(), st.data())
def test_a_higher_threshold_never_stops_earlier(table, data):
    _, scores_NE = table
    exits = scores_NE.shape[1]
    limits = np.array(
        data.draw(st.lists(LIMIT, min_size=exits, max_size=exits))
    )
    higher = np.maximum(
        limits, data.draw(st.lists(LIMIT, min_size=exits, max_size=exits))
    )
    for low, high in (
        (limits, higher),
        (float(limits[0]), float(higher[0])),
        (limits.min(), limits),
        (limits, limits.max()),
    ):
        early_N, late_N = (
            first_exit(scores_NE, low),
            first_exit(scores_NE, high),
        )
        assert (early_N <= late_N).all()


def calibrated(layers, threshold=-0.1):
    return ExitPolicy("entropy", layers, threshold, "wer=+5%", "naive")


@pytest.mark.parametrize(
    ("layers", "exits"),
    [((2, 4, 6), (1, 2, 3)), ((4, 6), (2, 3)), ((2,), (1,)), ((6,), (3,))],
)
def test_exits_of_a_policy_are_counted_in_the_model(layers, exits):
    found, its_layers, rule = rule_for(calibrated(layers), (2, 4, 6), "it has")
    assert (found, its_layers) == (exits, layers)
    assert (rule.criterion, rule.threshold) == ("entropy", -0.1)
    assert rule.exits == len(layers)
    bare = ThresholdPolicy("entropy", (-0.2, -0.1), exits=3)
    assert rule_for(bare, (2, 4, 6), "it has")[1:] == ((2, 4, 6), bare)


@pytest.mark.parametrize(
    ("layers", "threshold", "message"),
    [
        ((2, 5), -0.1, r"\[2, 5\], and it has .*\[2, 4, 6\]"),
        ((2, 4, 6), (), "0 thresholds for 3 exits"),
        ((2, 4, 6), (-0.1,), "1 thresholds for 3 exits"),
        ((2, 4, 6), (-0.1,) * 4, "4 thresholds for 3 exits"),
    ],
)
def test_policies_that_do_not_fit(layers, threshold, message):
    with pytest.raises(InputError, match=message):
        rule_for(calibrated(layers, threshold), (2, 4, 6), "it has")
    for exit in (0, -1, 4):
        with pytest.raises(InputError, match=f"exit {exit} .* has .* 1 to 3"):
            check_exit(exit, (2, 4, 6), "it has")
    check_exit(3, (2, 4, 6), "it has")
