"""The oracle against every choice that could have been made.

Authors
 * The speechbrain-ee contributors 2026
"""

from itertools import product

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from speechbrain_ee.exits.oracle import (
    earliest_best,
    earliest_no_worse,
    lambda_bound,
    overthinking,
)

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


@given(ERRORS)
def test_fewest_layers_of_those_never_worse_than_the_last(errors_NE):
    layers_E = layers_of(errors_NE)
    chosen = earliest_no_worse(errors_NE)
    allowed = [
        totals(errors_NE, choice, layers_E)[1]
        for choice in all_choices(errors_NE)
        if all(
            row[k] <= row[-1] for row, k in zip(errors_NE, choice, strict=True)
        )
    ]
    assert totals(errors_NE, chosen, layers_E)[1] == min(allowed)
    assert all(
        row[k] <= row[-1] for row, k in zip(errors_NE, chosen, strict=True)
    )


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


@given(ERRORS)
def test_overthinking_is_what_the_oracle_gains(errors_NE):
    rows = np.arange(len(errors_NE))
    gain_N = errors_NE[:, -1] - errors_NE[rows, earliest_best(errors_NE)]
    assert (overthinking(errors_NE) == (gain_N > 0)).all()
    assert (earliest_no_worse(errors_NE) <= earliest_best(errors_NE)).all()
