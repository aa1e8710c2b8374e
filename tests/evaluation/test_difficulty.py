"""Difficulty: counted by hand.

Authors
 * The speechbrain-ee contributors 2026
"""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings

from speechbrain_ee.evaluation.analysis import (
    DIFFICULTIES,
    difficulty_groups,
    difficulty_histogram,
)
from tests.evaluation.made_up import TRACES, made_up


@settings(max_examples=30)
@given(TRACES)
def test_groups_are_thirds_in_order_of_errors_per_word(trace):
    group_N = difficulty_groups(trace)
    rates = [
        Fraction(int(errors_E.sum()), int(words))
        for errors_E, words in zip(trace.errors_NE, trace.words_N)
    ]
    for one, first in zip(rates, group_N):
        for two, second in zip(rates, group_N):
            if one < two:
                assert first <= second
            if one == two:
                assert first == second
    # a third but for ties: fewer than a third are strictly easier
    for place, limit in ((0, 1 / 3), (1, 2 / 3)):
        inside = [r for r, g in zip(rates, group_N) if g <= place]
        edge = max(inside)
        easier = sum(rate < edge for rate in rates)
        assert easier < limit * len(rates) + 1
        assert len(inside) >= limit * len(rates) - 1


@settings(max_examples=30)
@given(TRACES)
def test_histogram_counts(trace):
    choice_N = np.arange(len(trace)) % 4
    found = difficulty_histogram(trace, choice_N)
    group_N = difficulty_groups(trace)
    assert sum(found.counts) == len(trace)
    for place, name in enumerate(found.names):
        rows = [i for i, g in enumerate(group_N) if DIFFICULTIES[g] == name]
        assert found.counts[place] == len(rows) > 0
        for column in range(4):
            stopped = sum(choice_N[i] == column for i in rows)
            assert found.shares[place][column] == stopped / len(rows)
            best = sum(
                list(trace.errors_NE[i]).index(min(trace.errors_NE[i]))
                == column
                for i in rows
            )
            assert found.oracle_shares[place][column] == best / len(rows)
        layers = [trace.layers_E[choice_N[i]] for i in rows]
        assert found.avg_layer[place] == pytest.approx(np.mean(layers))


def test_ties_stay_together():
    trace = made_up(10, 0)
    trace.__dict__["errors_NE"] = np.zeros((10, 4), dtype=int)
    trace.errors_NE[9] = 3
    found = difficulty_histogram(trace, np.zeros(10, dtype=int))
    assert found.names == ("easy", "hard") and found.counts == (9, 1)
