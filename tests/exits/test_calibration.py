"""Calibration: what it must hold, what it must not notice, what breaks nothing.

Protects: the budget on the data that it was calibrated on, the exact optimum
where it can be had by trying everything, more saving for a larger budget, and
choices that depend on the order of the scores alone: neither on their scale,
the order of the utterances, nor the unit of compute. And promises that hold
for new speakers of a published model.

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

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.calibration.budget import Budget, Outcomes
from speechbrain_ee.exits.calibration.calibrate import (
    CANDIDATES,
    Search,
    calibrate,
    per_exit_ladder,
    single_ladder,
)
from speechbrain_ee.exits.calibration.risk import METHODS
from speechbrain_ee.exits.criteria import get_criterion
from speechbrain_ee.exits.policy import at_choice, choices_NT, first_exit
from speechbrain_ee.exits.trace_file import read_trace

FEW = settings(max_examples=25, deadline=None, derandomize=True)
# eighths: sums and the changes of scale below are exact
SCORE = st.one_of(
    st.just(-np.inf), st.integers(-24, 24).map(lambda eighths: eighths / 8)
)
BUDGETS = st.sampled_from(
    ["wer=+0", "wer=+2", "wer=+15%", "layers=3", "layers=4.25"]
).map(Budget.parse)


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


def informed(seed, utterances=80, exits=4, by=1.0):
    """Scores that tell a little of the errors; ties and infinities happen."""
    rng = np.random.default_rng(seed)
    words_N = rng.integers(8, 25, utterances)
    hard_N = rng.gamma(1, 1, utterances)
    errors_NE = rng.poisson(3 * hard_N[:, None] * 0.5 ** np.arange(exits))
    noise_NE = rng.standard_normal((utterances, exits))
    scores_NE = np.round(-by * errors_NE + noise_NE, 1)
    scores_NE[:, 0] = np.where(errors_NE[:, 0] > 8, -np.inf, scores_NE[:, 0])
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


def total(scores_NE, values_NE, limits_K):
    choice_NT = choices_NT(scores_NE, limits_K[None])
    return at_choice(values_NE, choice_NT).sum()


@pytest.mark.parametrize("per_exit", [False, True])
@pytest.mark.parametrize("method", METHODS)
@FEW
@given(tables(), BUDGETS)
def test_what_is_reported_is_what_happens(method, per_exit, table, budget):
    scores_NE, outcomes = table
    found = calibrate("c", scores_NE, outcomes, budget, method, 0.3, per_exit)
    place_N, layers, errors = chosen(found, scores_NE, outcomes)
    assert found.policy.choose(scores_NE).tolist() == place_N
    words = outcomes.words_N.sum()
    assert found.wer == pytest.approx(100 * errors / words)
    assert found.avg_layer == pytest.approx(layers / len(outcomes))
    last = outcomes.errors_NE[:, -1].sum()
    assert found.wer_last == pytest.approx(100 * last / words)
    # a part made the ladder, so the whole may break it where it was split
    if found.satisfied and (method == "naive" or not per_exit):
        assert holds(budget, outcomes, layers, errors)
    if not found.satisfied:
        fallback = 0 if budget.on_compute else scores_NE.shape[1] - 1
        assert set(place_N) == {fallback}


@FEW
@given(tables(exits=3, most=8), BUDGETS)
def test_thresholds_against_all_there_are(table, budget):
    """One threshold is the best; one per exit lies between that and the best
    of all pairs.
    """
    scores_NE, outcomes = table
    early = scores_NE[:, :-1]
    single = [(limit,) * 2 for limit in [np.inf, -np.inf, *np.unique(early)]]
    pairs = itertools.product(*([np.inf, *np.unique(c)] for c in early.T))
    best = []
    for candidates in (single, pairs):
        values = [np.inf]
        for limits in candidates:
            choice_N = first_exit(scores_NE, limits)
            layers = outcomes.layers_E[choice_N].sum()
            errors = at_choice(outcomes.errors_NE, choice_N).sum()
            if holds(budget, outcomes, layers, errors):
                values.append(errors if budget.on_compute else layers)
        best.append(min(values))
    one, many = (
        chosen(
            calibrate("c", scores_NE, outcomes, budget, "naive", 0.1, per_exit),
            scores_NE,
            outcomes,
        )[2 if budget.on_compute else 1]
        for per_exit in (False, True)
    )
    if np.isfinite(best[0]):  # else nobody can hold it
        assert best[1] <= many <= one == best[0]


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


@FEW
@given(st.integers(0, 9999), st.sampled_from(["wer=+{}", "wer=+{}%"]))
def test_ltt_gets_cheaper_with_delta_and_budget_and_never_bolder_than_naive(
    seed, form
):
    scores_NE, outcomes = informed(seed, utterances=150)

    def layers(value, *method):
        budget = Budget.parse(form.format(value))
        found = calibrate("c", scores_NE, outcomes, budget, *method)
        return found.satisfied, -found.avg_layer

    for value, method in ((4, ("ltt", 0.05)), (1, ("ltt", 0.3)), (4, ("crc",))):
        less, more = layers(value, *method), layers(4, "ltt", 0.3)
        if method[0] == "ltt":
            assert less <= more
        assert not less[0] or less <= layers(value, "naive")


@pytest.mark.parametrize("method", METHODS)
@FEW
@given(tables(), BUDGETS, st.sampled_from([0.5, 4.0]), st.integers(-3, 3))
def test_scale_of_the_scores_means_nothing(method, table, budget, by, shift):
    scores_NE, outcomes = table
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
@given(tables(), BUDGETS, st.randoms(use_true_random=False))
def test_order_of_the_utterances_means_nothing(method, table, budget, random):
    scores_NE, outcomes = table
    order = list(range(len(outcomes)))
    random.shuffle(order)
    mixed = scores_NE[order], outcomes.select(np.array(order))
    one, other = (
        calibrate("c", *each, budget, method, 0.3) for each in (table, mixed)
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
    single_TK = single_ladder(scores_NE)
    rungs_TK = per_exit_ladder(
        scores_NE, outcomes.errors_NE, outcomes.layers_NE
    )
    for ladder_TK in (single_TK, rungs_TK):
        assert np.isposinf(ladder_TK[0]).all()
        assert np.isneginf(ladder_TK[-1]).all()
        for limits_K, choice_N in zip(
            ladder_TK, choices_NT(scores_NE, ladder_TK).T
        ):
            expected = first_exit(scores_NE, tuple(limits_K))
            assert choice_N.tolist() == expected.tolist()
    early = scores_NE[:, :-1]
    occurring = np.unique(early[np.isfinite(early)])
    assert single_TK[1:-1, 0].tolist() == occurring[::-1].tolist()
    assert (np.diff(choices_NT(scores_NE, single_TK), axis=1) <= 0).all()


def test_single_ladder_has_at_most_200_falling_candidates():
    scores_NE = np.random.default_rng(0).random((3000, 4))
    ladder_TK = single_ladder(scores_NE)
    assert len(ladder_TK) == CANDIDATES
    assert (np.diff(ladder_TK[1:-1], axis=0) < 0).all()
    assert np.isin(ladder_TK[1:-1], scores_NE[:, :-1]).all()


@FEW
@given(tables())
def test_search_never_rises_and_keeps_the_bound(table):
    scores_NE, outcomes = table
    search, layers_NE = Search(scores_NE), outcomes.layers_NE
    losses_NE = Budget("wer_percent", 20).losses_NE(outcomes)
    start_K = np.full(scores_NE.shape[1] - 1, np.inf)
    best, limits_K = search.minimise(start_K, layers_NE, losses_NE)
    assert best == total(scores_NE, layers_NE, limits_K)
    assert best <= total(scores_NE, layers_NE, start_K)
    assert total(scores_NE, losses_NE, limits_K) <= 1e-6
    assert np.isposinf(start_K).all()  # not changed in place
    # no other threshold of one exit alone would have been better
    for exit, grid in enumerate(search.grids):
        totals_G = search.totals(limits_K, exit, layers_NE)
        for limit, layers in zip(grid, totals_G, strict=True):
            other_K = limits_K.copy()
            other_K[exit] = limit
            assert layers == pytest.approx(total(scores_NE, layers_NE, other_K))
            if total(scores_NE, losses_NE, other_K) <= 0:
                assert layers >= best - 1e-6


def test_no_threshold_satisfies_a_word_error_budget():
    scores_NE, outcomes = informed(0, utterances=200, by=0.0)
    found = calibrate("c", scores_NE, outcomes, Budget.parse("wer=+0"))
    assert not found.satisfied
    assert found.policy.threshold == np.inf
    assert found.avg_layer == outcomes.layers_E[-1]
    assert found.wer == found.wer_last


@pytest.mark.parametrize("method", METHODS)
def test_compute_budget_of_all_layers_or_of_the_first_exit(method):
    first, full, more = (
        calibrate("c", *informed(0), Budget("layers", layers), method)
        for layers in (2, 8, 99)
    )
    assert (first.avg_layer, first.satisfied, full.satisfied) == (2, True, True)
    assert more.wer <= first.wer


def test_operations_that_cannot_be_promised():
    """On average the first exit just holds it, with certainty it does not."""
    macs_NE = np.tile([[1.0, 5.0], [3.0, 9.0]], (25, 1))
    outcomes = Outcomes(
        np.zeros((50, 2), dtype=int), np.full(50, 9), np.array([2, 4]), macs_NE
    )
    scores_NE = np.random.default_rng(0).random((50, 2))
    for method, satisfied in (("naive", True), ("crc", False), ("ltt", False)):
        budget = Budget("macs", 2.0)
        found = calibrate("c", scores_NE, outcomes, budget, method)
        assert (found.avg_layer, found.satisfied) == (2, satisfied)


@pytest.mark.parametrize("per_exit", [False, True])
def test_no_threshold_is_minus_zero(per_exit):
    outcomes = Outcomes(np.array([[1, 1, 1]] * 9), np.ones(9), np.arange(3) + 1)
    scores_NE, budget = np.full((9, 3), -0.0), Budget.parse("wer=+0")
    found = calibrate("c", scores_NE, outcomes, budget, "naive", 0.1, per_exit)
    limits = np.ravel(found.policy.threshold)
    assert not np.signbit(limits[limits == 0]).any()
    assert found.avg_layer == 1


def test_controlled_risk_goes_as_far_as_it_may():
    """``crc`` takes the last of the candidates that pass, not the cheapest."""
    rng = np.random.default_rng(0)
    errors_NE = rng.integers(0, 2, (400, 1)) + np.array([[1, 0]])
    errors_NE[:, 0] -= rng.random(400) < 0.9
    outcomes = Outcomes(errors_NE, np.full(400, 10), np.array([2, 4]))
    scores_NE = np.round(rng.random((400, 2)), 1)
    found = calibrate("c", scores_NE, outcomes, Budget.parse("wer=+9"), "crc")
    assert found.policy.threshold == -np.inf
    assert found.avg_layer == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"method": "hope"}, "naive, crc, ltt"),
        ({"delta": 0.0}, "0.1"),
        ({"delta": 2.0}, "delta=2"),
        ({"target": 0}, "target=0"),
        ({"budget": Budget("layers", 1)}, "layers=2"),
    ],
)
def test_wrong_arguments(arguments, said):
    scores_NE, outcomes = informed(0)
    given_ = {"budget": Budget.parse("wer=+5%"), **arguments}
    with pytest.raises(InputError, match=said):
        calibrate("c", scores_NE, outcomes, **given_)


def test_too_few_data():
    scores_NE, outcomes = informed(0)
    budget = Budget.parse("layers=4")
    # a promise on a single utterance is a wide one, but it can be asked
    assert calibrate("c", scores_NE, outcomes, budget, target=1).target == 1
    few = outcomes.select(np.arange(3))
    with pytest.raises(InputError, match="too few"):
        calibrate("c", scores_NE[:3], few, budget, per_exit=True)
    silent = replace(outcomes, words_N=np.zeros(80, dtype=int))
    with pytest.raises(InputError, match="references are empty"):
        calibrate("c", scores_NE, silent, budget)


@pytest.fixture(scope="module")
def real(shared_folder):
    """Test sets of a published model."""
    path = shared_folder / "traces" / "wav2vec2-ee.greedy.jsonl.gz"
    trace = read_trace(path).with_speakers_from_ids()
    trace.score()
    return {name: trace.subset(name) for name in trace.sets}


@pytest.mark.parametrize("text", ["wer=+1", "wer=+5%"])
@pytest.mark.parametrize("criterion", ["entropy", "agreement"])
@pytest.mark.parametrize("name", ["test-clean", "test-other"])
def test_ltt_holds_its_budget_for_new_speakers(real, name, criterion, text):
    """In 200 random splits of the speakers."""
    part, budget, splits = real[name], Budget.parse(text), 200
    scores_NE = get_criterion(criterion).scores(part.evidence)
    outcomes = Outcomes(
        part.errors_NE, part.words_N, part.layers_E, None, part.clusters
    )
    losses_NE = budget.losses_NE(outcomes)
    broken = 0
    for seed in range(splits):
        seen, unseen = outcomes.clusters.split(0.5, seed)
        found = calibrate(
            criterion, scores_NE[seen], outcomes.select(seen), budget, delta=0.1
        )
        choice_N1 = found.policy.choose(scores_NE[unseen])[:, None]
        loss = at_choice(losses_NE[unseen], choice_N1).mean()
        broken += loss > 1e-9
    assert broken / splits <= 0.1
