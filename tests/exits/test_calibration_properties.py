"""What calibration must not notice, and what no data may break.

Protects: the budget on the data that it was calibrated on, the exact optimum
where it can be had by trying everything, more saving for a larger budget, and
choices that depend on the order of the scores alone: neither on their scale,
the order of the utterances, nor the unit of compute.

Axes: N utterances, E exits, T candidates.

Authors
 * The speechbrain-ee contributors 2026
"""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from speechbrain_ee.exits.calibration.budget import Budget, Outcomes
from speechbrain_ee.exits.calibration.calibrate import (
    Search,
    calibrate,
    per_exit_ladder,
    single_ladder,
)
from speechbrain_ee.exits.calibration.policy_file import ScoreDistribution
from speechbrain_ee.exits.calibration.risk import METHODS
from speechbrain_ee.exits.policy import at_choice, choices_NT, first_exit

FEW = settings(max_examples=30, deadline=None, derandomize=True)
# eighths: sums and the changes of scale below are exact
SCORE = st.one_of(
    st.just(-np.inf), st.integers(-24, 24).map(lambda eighths: eighths / 8)
)
FORMS = st.sampled_from(
    ["wer=+0", "wer=+2", "wer=+15%", "layers=3", "layers=4.25"]
)


@st.composite
def tables(draw, exits=None, most=24):
    """Scores and outcomes with many ties; later exits are not always better."""
    exits = draw(st.integers(2, 4)) if exits is None else exits
    shape = draw(st.integers(4, most)), exits
    scores_NE = draw(hnp.arrays(float, shape, elements=SCORE))
    errors_NE = draw(hnp.arrays(np.int64, shape, elements=st.integers(0, 5)))
    words_N = draw(hnp.arrays(np.int64, shape[:1], elements=st.integers(1, 20)))
    layers_E = 2 * np.arange(1, exits + 1)
    return scores_NE, Outcomes(errors_NE, words_N, layers_E)


def chosen(found, scores_NE, outcomes):
    """Exits, their layers and their errors in all, by a plain loop."""
    limits = np.broadcast_to(found.policy.threshold, scores_NE.shape[1] - 1)
    place_N = []
    for row in scores_NE:
        stops = [k for k, limit in enumerate(limits) if row[k] >= limit]
        stops = [k for k in stops if limits[k] < np.inf]
        place_N.append(min(stops, default=scores_NE.shape[1] - 1))
    layers = sum(outcomes.layers_E[k] for k in place_N)
    errors = sum(row[k] for row, k in zip(outcomes.errors_NE, place_N))
    return place_N, float(layers), float(errors)


def holds(budget, outcomes, layers, errors):
    """Whether a choice holds a budget, from the definition in words."""
    if budget.kind == "layers":
        return layers <= budget.value * len(outcomes) + 1e-6
    last = outcomes.errors_NE[:, -1].sum()
    if budget.kind == "wer_percent":
        return errors <= last * (1 + budget.value / 100) + 1e-6
    wer = 100 * (errors - last) / outcomes.words_N.sum()
    return wer <= budget.value + 1e-6


@pytest.mark.parametrize("per_exit", [False, True])
@pytest.mark.parametrize("method", METHODS)
@FEW
@given(tables(), FORMS)
def test_what_is_reported_is_what_happens(method, per_exit, table, form):
    scores_NE, outcomes = table
    budget = Budget.parse(form)
    found = calibrate("c", scores_NE, outcomes, budget, method, 0.3, per_exit)
    place_N, layers, errors = chosen(found, scores_NE, outcomes)
    assert found.policy.choose(scores_NE).tolist() == place_N
    words = outcomes.words_N.sum()
    assert found.wer == pytest.approx(100 * errors / words)
    assert found.avg_layer == pytest.approx(layers / len(outcomes))
    last = outcomes.errors_NE[:, -1].sum()
    assert found.wer_last == pytest.approx(100 * last / words)
    # a part made the ladder, so the whole may break it where it was split
    if method == "naive" or not per_exit:
        if found.satisfied:
            assert holds(budget, outcomes, layers, errors)
    if not found.satisfied:
        fallback = 0 if budget.on_compute else scores_NE.shape[1] - 1
        assert set(place_N) == {fallback}


@FEW
@given(tables(exits=3, most=8), FORMS)
def test_thresholds_per_exit_against_all_there_are(table, form):
    """Never better than the best of all pairs, never worse than one for all."""
    scores_NE, outcomes = table
    budget = Budget.parse(form)
    values = []
    grids = [[np.inf, *np.unique(c)] for c in scores_NE[:, :-1].T]
    for limits in itertools.product(*grids):
        choice_N = first_exit(scores_NE, limits)
        rows = np.arange(len(outcomes))
        layers = outcomes.layers_E[choice_N].sum()
        errors = outcomes.errors_NE[rows, choice_N].sum()
        if holds(budget, outcomes, layers, errors):
            values.append(errors if budget.on_compute else layers)
    found = {
        per_exit: chosen(
            calibrate("c", scores_NE, outcomes, budget, "naive", 0.1, per_exit),
            scores_NE,
            outcomes,
        )[2 if budget.on_compute else 1]
        for per_exit in (False, True)
    }
    if values:  # else nobody can hold it
        assert min(values) <= found[True] <= found[False]


@FEW
@given(tables(exits=2), FORMS)
def test_one_threshold_is_one_per_exit_of_two(table, form):
    """With one exit that decides there is one threshold to find."""
    scores_NE, outcomes = table
    budget = Budget.parse(form)
    one, other = (
        calibrate("c", scores_NE, outcomes, budget, "naive", 0.1, per_exit)
        for per_exit in (False, True)
    )
    assert one.satisfied == other.satisfied
    if budget.on_compute:
        assert one.wer == other.wer
    else:
        assert one.avg_layer == other.avg_layer


@pytest.mark.parametrize("form", ["wer=+{}", "wer=+{}%", "layers={}"])
@FEW
@given(tables(), st.lists(st.integers(2, 30), min_size=2, max_size=2))
def test_a_larger_budget_never_buys_less(form, table, values):
    scores_NE, outcomes = table
    small, large = (
        calibrate(
            "c", scores_NE, outcomes, Budget.parse(form.format(v)), "naive"
        )
        for v in sorted(values)
    )
    assert small.satisfied <= large.satisfied
    if form.startswith("layers"):
        assert large.wer <= small.wer + 1e-9
    else:
        assert large.avg_layer <= small.avg_layer + 1e-9


@pytest.mark.parametrize("method", METHODS)
@FEW
@given(tables(), FORMS, st.sampled_from([0.5, 4.0]), st.integers(-3, 3))
def test_scale_of_the_scores_means_nothing(method, table, form, by, shift):
    scores_NE, outcomes = table
    budget = Budget.parse(form)
    for per_exit in (False, True):
        one, other = (
            calibrate("c", values, outcomes, budget, method, 0.3, per_exit)
            for values in (scores_NE, by * scores_NE + shift)
        )
        limits = by * np.array(one.policy.threshold) + shift
        assert np.array_equal(limits, other.policy.threshold)
        assert replace(one, policy=other.policy) == other


@pytest.mark.parametrize("method", METHODS)
@FEW
@given(tables(), FORMS, st.randoms(use_true_random=False))
def test_order_of_the_utterances_means_nothing(method, table, form, random):
    scores_NE, outcomes = table
    order = list(range(len(outcomes)))
    random.shuffle(order)
    one, other = (
        calibrate("c", values, those, Budget.parse(form), method, 0.3)
        for values, those in (
            (scores_NE, outcomes),
            (scores_NE[order], outcomes.select(np.array(order))),
        )
    )
    assert one.policy == other.policy
    assert one.satisfied == other.satisfied


@FEW
@given(tables(), st.sampled_from([2, 3.5, 6]), st.booleans())
def test_unit_of_compute_means_nothing(table, bound, per_exit):
    """A layer takes 2^30 operations: the same policy from either budget."""
    scores_NE, outcomes = table
    unit = 2.0**30
    counted = replace(outcomes, macs_NE=unit * outcomes.layers_NE)
    in_layers, in_macs = (
        calibrate("c", scores_NE, counted, budget, "naive", 0.1, per_exit)
        for budget in (Budget("layers", bound), Budget("macs", unit * bound))
    )
    assert in_layers == in_macs
    assert in_macs.avg_macs == unit * in_macs.avg_layer


@FEW
@given(tables())
def test_ladders_go_down(table):
    """From always last to always first, cheaper with every single step."""
    scores_NE, outcomes = table
    for ladder_TK in (
        single_ladder(scores_NE),
        per_exit_ladder(scores_NE, outcomes.errors_NE, outcomes.layers_NE),
    ):
        assert np.isposinf(ladder_TK[0]).all()
        assert np.isneginf(ladder_TK[-1]).all()
        assert ladder_TK.shape[1] == scores_NE.shape[1] - 1
    single_TK = single_ladder(scores_NE)
    assert (np.diff(single_TK[:, 0]) < 0).all()
    early = scores_NE[:, :-1]
    occurring = np.unique(early[np.isfinite(early)])
    assert single_TK[1:-1, 0].tolist() == occurring[::-1].tolist()
    choice_NT = choices_NT(scores_NE, single_TK)
    assert (np.diff(choice_NT, axis=1) <= 0).all()


@FEW
@given(tables(), st.integers(0, 999))
def test_search_never_rises_and_keeps_the_bound(table, seed):
    scores_NE, outcomes = table
    search = Search(scores_NE)
    losses_NE = Budget("wer_percent", 20).losses_NE(outcomes)
    start_K = np.full(scores_NE.shape[1] - 1, np.inf)

    def total(values_NE, limits_K):
        choice_NT = choices_NT(scores_NE, limits_K[None])
        return at_choice(values_NE, choice_NT).sum()

    best, limits_K = search.minimise(start_K, outcomes.layers_NE, losses_NE)
    assert best == total(outcomes.layers_NE, limits_K)
    assert best <= total(outcomes.layers_NE, start_K)
    assert total(losses_NE, limits_K) <= 1e-6
    assert np.isposinf(start_K).all()  # not changed in place
    # no other threshold of one exit alone would have been better
    for exit, grid in enumerate(search.grids):
        for limit in grid:
            other_K = limits_K.copy()
            other_K[exit] = limit
            if total(losses_NE, other_K) <= 0:
                assert total(outcomes.layers_NE, other_K) >= best - 1e-6


@FEW
@given(hnp.arrays(float, st.integers(1, 30), elements=SCORE))
def test_scores_are_no_distance_from_themselves(scores_N):
    stored = ScoreDistribution.of(scores_N)
    assert stored.distance(scores_N)[0] == pytest.approx(0, abs=1e-6)
    assert stored.distance(np.tile(scores_N, 3))[0] == pytest.approx(
        0, abs=1e-6
    )
    assert list(stored.scores) == sorted(set(stored.scores))
    for score, share in zip(stored.scores, stored.shares):
        assert share == pytest.approx(np.mean(scores_N <= score), abs=1e-6)
    assert stored.shares[-1] == 1
