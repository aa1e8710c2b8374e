"""What holds for any scores, thresholds and errors.

Authors
 * The speechbrain-ee contributors 2026
"""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from speechbrain_ee.exits.oracle import (
    earliest_best,
    earliest_no_worse,
    lambda_bound,
)
from speechbrain_ee.exits.policy import ThresholdPolicy, first_exit

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


@given(tables())
def test_extreme_thresholds(table):
    _, scores_NE = table
    last = scores_NE.shape[1] - 1
    assert (first_exit(scores_NE, -np.inf) == 0).all()
    assert (first_exit(scores_NE, np.inf) == last).all()
    for limit, place in ((-np.inf, 0), (np.inf, last)):
        policy = ThresholdPolicy("c", limit, exits=last + 1)
        assert (policy.choose(scores_NE) == place).all()
        stops_BE = np.stack(
            [policy.stop(k + 1, scores_NE[:, k]) for k in range(last + 1)], 1
        )
        assert (stops_BE.argmax(axis=1) == place).all()


@given(tables(), st.permutations(range(8)))
def test_utterances_do_not_look_at_each_other(table, order):
    _, scores_NE = table
    rows = [i for i in order if i < len(scores_NE)]
    whole_N = first_exit(scores_NE, 0.0)
    assert (first_exit(scores_NE[rows], 0.0) == whole_N[rows]).all()


@given(
    tables(),
    st.lists(PRICE, min_size=2, max_size=2).map(sorted),
    st.booleans(),
)
def test_a_higher_price_never_buys_more(table, prices, own_costs):
    errors_NE, _ = table
    costs_NE = np.cumsum(np.ones(errors_NE.shape), axis=1)
    if own_costs:
        costs_NE *= np.arange(1, len(errors_NE) + 1)[:, None]
    cheap_N, dear_N = (lambda_bound(errors_NE, costs_NE, p) for p in prices)
    assert (dear_N <= cheap_N).all()
    assert (taken(costs_NE, dear_N) <= taken(costs_NE, cheap_N)).all()
    assert (taken(errors_NE, dear_N) >= taken(errors_NE, cheap_N)).all()
    free_N = lambda_bound(errors_NE, costs_NE, 0)
    assert (free_N == earliest_best(errors_NE)).all()
    assert (lambda_bound(errors_NE, costs_NE, 1e3) == 0).all()
