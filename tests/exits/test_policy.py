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
from speechbrain_ee.exits.calibration.policy_file import ExitPolicy
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

# few distinct values, so that ties happen; some that are none
SCORE = st.sampled_from([-np.inf, -1.0, 0.0, 0.5, 1.0, np.inf, np.nan])
LIMIT = st.sampled_from([-np.inf, -1.0, 0.0, 0.25, 0.5, 1.0, 2.0, np.inf])
# quarters: exact in floating point, so that ties are ties
PRICE = st.integers(0, 12).map(lambda quarters: quarters / 4)


@st.composite
def tables(draw, rows=8, exits=5):
    """Errors and scores of the same utterances and exits; a limit for each."""
    shape = draw(st.integers(1, rows)), draw(st.integers(1, exits))
    errors_NE = draw(hnp.arrays(np.int64, shape, elements=st.integers(0, 4)))
    scores_NE = draw(hnp.arrays(float, shape, elements=SCORE))
    return (
        errors_NE,
        scores_NE,
        draw(hnp.arrays(float, shape[1], elements=LIMIT)),
    )


def taken(values_NE, choice_N):
    return np.take_along_axis(values_NE, np.array(choice_N)[:, None], 1)[:, 0]


def first_exit_by_loop(scores_NE, limits_E):
    chosen = []
    for row in scores_NE:
        for k, (score, limit) in enumerate(zip(row, limits_E)):
            reached = score >= limit if np.isfinite(limit) else limit < 0
            if reached or k == len(row) - 1:
                chosen.append(k)
                break
    return chosen


@given(tables(), st.booleans(), st.booleans())
def test_decisions_of_table_and_live_by_loop(table, as_torch, one_limit):
    _, scores_NE, limits = table
    rows, exits = scores_NE.shape
    if one_limit:
        limits[:] = limits[0]
    expected = first_exit_by_loop(scores_NE, limits)
    threshold = float(limits[0]) if one_limit else tuple(limits.tolist())
    assert first_exit(scores_NE, threshold).tolist() == expected
    policies = ThresholdPolicy("c", threshold, exits), FixedExit(exits)
    for policy in policies:
        live = np.full(rows, -1)
        for k in range(1, exits + 1):
            score_B = scores_NE[:, k - 1]
            if as_torch:
                score_B = torch.from_numpy(score_B.copy()).float()
            stop_B = np.asarray(policy.stop(k, score_B))
            live[stop_B & (live < 0)] = k - 1
        assert live.tolist() == policy.choose(scores_NE).tolist()
    assert policies[0].choose(scores_NE).tolist() == expected


def test_thresholds_are_not_rounded_to_single_precision():
    score = torch.tensor([0.1])  # slightly above 0.1 in double precision
    just_above = float(score.double()) + 1e-12
    policy = ThresholdPolicy("c", just_above, exits=2)
    assert not policy.stop(1, score).item()
    assert ThresholdPolicy("c", float(score), 2).stop(1, score).item()
    assert policy.stop(2, score).item()


@given(tables(), st.data())
def test_a_higher_threshold_never_stops_earlier(table, data):
    _, scores_NE, limits = table
    exits = len(limits)
    higher = np.maximum(
        limits, data.draw(st.lists(LIMIT, min_size=exits, max_size=exits))
    )
    for low, high in (
        (limits, higher),
        (float(limits[0]), float(higher[0])),
        (limits.min(), limits),
    ):
        early_N, late_N = (
            first_exit(scores_NE, low),
            first_exit(scores_NE, high),
        )
        assert (early_N <= late_N).all()


# ---- The oracle ------------------------------------------------------------


@given(tables(rows=3, exits=4), PRICE, st.booleans())
def test_the_oracle_by_all_choices(table, price, own_costs):
    errors_NE, _, _ = table
    costs_NE = (
        2 * np.arange(1, errors_NE.shape[1] + 1) * np.ones_like(errors_NE)
    )
    if own_costs:
        costs_NE *= np.arange(1, len(errors_NE) + 1)[:, None]
    choices = list(product(range(errors_NE.shape[1]), repeat=len(errors_NE)))

    def value(choice, price):
        total_NE = errors_NE + price * costs_NE
        return taken(total_NE, choice).sum(), taken(costs_NE, choice).sum()

    chosen = lambda_bound(errors_NE, costs_NE, price)
    assert value(chosen, price) == min(value(c, price) for c in choices)
    best = earliest_best(errors_NE)
    assert value(best, 0) == min(value(c, 0) for c in choices)
    gain_N = errors_NE[:, -1] - taken(errors_NE, best)
    assert (overthinking(errors_NE) == (gain_N > 0)).all()


@given(tables(), PRICE)
def test_no_policy_beats_the_oracle(table, price):
    errors_NE, scores_NE, limits = table
    choice_N = first_exit(scores_NE, limits)
    errors_N = taken(errors_NE, choice_N)
    assert (taken(errors_NE, earliest_best(errors_NE)) <= errors_N).all()
    # nor is one both earlier and never worse than the last exit
    earlier_N = choice_N < earliest_no_worse(errors_NE)
    assert (errors_N > errors_NE[:, -1])[earlier_N].all()
    value_NE = errors_NE + price * np.arange(errors_NE.shape[1])
    bound_N = lambda_bound(errors_NE, np.arange(errors_NE.shape[1]), price)
    assert (taken(value_NE, bound_N) <= taken(value_NE, choice_N)).all()


# ---- Which exits a policy is for -------------------------------------------


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
