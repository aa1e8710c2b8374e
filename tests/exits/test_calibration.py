"""Calibration: ladders, properties, and budgets held on real traces.

Authors
 * The speechbrain-ee contributors 2026
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.calibration.budget import Budget, Outcomes
from speechbrain_ee.exits.calibration.calibrate import (
    CANDIDATES,
    Search,
    calibrate,
    per_exit_ladder,
    single_ladder,
)
from speechbrain_ee.exits.criteria import get_criterion
from speechbrain_ee.exits.policy import at_choice, choices_NT, first_exit
from speechbrain_ee.exits.trace_file import read_trace

SEEDS = st.integers(0, 100_000)
BUDGETS = st.sampled_from(
    ["wer=+1", "wer=+0", "wer=+10%", "wer=+50%", "layers=5", "layers=7.5"]
)
FEW = settings(max_examples=25, deadline=None)


def data(seed, utterances=80, exits=4, informed=1.0):
    """Scores that tell a little of the errors; ties and infinities happen."""
    rng = np.random.default_rng(seed)
    words_N = rng.integers(8, 25, utterances)
    hard_N = rng.gamma(1, 1, utterances)
    decay_E = 0.5 ** np.arange(exits)
    errors_NE = rng.poisson(3 * hard_N[:, None] * decay_E)
    noise_NE = rng.standard_normal((utterances, exits))
    scores_NE = np.round(-informed * errors_NE + noise_NE, 1)
    scores_NE[:, 0] = np.where(errors_NE[:, 0] > 8, -np.inf, scores_NE[:, 0])
    layers_E = 2 * np.arange(1, exits + 1)
    return scores_NE, Outcomes(errors_NE, words_N, layers_E)


def sums(result, scores_NE, outcomes, budget):
    """Loss, layers and errors of a calibrated policy."""
    choice_N1 = result.policy.choose(scores_NE)[:, None]
    return [
        float(at_choice(values, choice_N1).sum())
        for values in (
            budget.losses_NE(outcomes),
            outcomes.layers_NE,
            outcomes.errors_NE,
        )
    ]


@FEW
@given(SEEDS)
def test_all_candidates_at_once_choose_what_each_would(seed):
    scores_NE, outcomes = data(seed)
    ladder = per_exit_ladder(scores_NE, outcomes.errors_NE, outcomes.layers_NE)
    for ladder_TK in (single_ladder(scores_NE), ladder):
        choice_NT = choices_NT(scores_NE, ladder_TK)
        for limits_K, choice_N in zip(ladder_TK, choice_NT.T):
            expected = first_exit(scores_NE, tuple(limits_K))
            assert choice_N.tolist() == expected.tolist()
        last = scores_NE.shape[1] - 1
        assert (choice_NT[:, 0] == last).all()
        assert (choice_NT[:, -1] == 0).all()


def test_single_ladder_has_at_most_200_falling_candidates():
    scores_NE = np.random.default_rng(0).random((3000, 4))
    ladder_TK = single_ladder(scores_NE)
    assert len(ladder_TK) == CANDIDATES
    assert (np.diff(ladder_TK[1:-1], axis=0) < 0).all()
    assert np.isin(ladder_TK[1:-1], scores_NE[:, :-1]).all()


@FEW
@given(SEEDS, st.integers(0, 2))
def test_search_totals_by_trying_every_threshold(seed, exit):
    scores_NE, outcomes = data(seed, utterances=30)
    search = Search(scores_NE)
    limits_K = np.random.default_rng(seed).normal(-1, 1, 3)
    totals_G = search.totals(limits_K, exit, outcomes.errors_NE)
    for threshold, total in zip(search.grids[exit], totals_G, strict=True):
        limits_K[exit] = threshold
        choice_N = first_exit(scores_NE, tuple(limits_K))
        taken = outcomes.errors_NE[np.arange(30), choice_N].sum()
        assert total == pytest.approx(taken)


@FEW
@given(SEEDS, BUDGETS)
def test_per_exit_is_never_worse_than_global_on_its_own_data(seed, text):
    scores_NE, outcomes = data(seed)
    budget = Budget.parse(text)
    one, many = (
        calibrate("c", scores_NE, outcomes, budget, "naive", per_exit=per_exit)
        for per_exit in (False, True)
    )
    _, layers_1, errors_1 = sums(one, scores_NE, outcomes, budget)
    loss, layers_E, errors_E = sums(many, scores_NE, outcomes, budget)
    assert loss <= 1e-6
    if budget.on_compute:
        assert errors_E <= errors_1
    else:
        assert layers_E <= layers_1


@FEW
@given(SEEDS, BUDGETS)
def test_naive_is_the_best_single_threshold(seed, text):
    """Against every score that occurs, one at a time."""
    scores_NE, outcomes = data(seed, utterances=25)
    budget = Budget.parse(text)
    found = calibrate("c", scores_NE, outcomes, budget, "naive")
    rows, best = np.arange(25), np.inf
    early = scores_NE[:, :-1]
    for limit in [np.inf, -np.inf, *np.unique(early[np.isfinite(early)])]:
        choice_N = first_exit(scores_NE, limit)
        if budget.losses_NE(outcomes)[rows, choice_N].sum() <= 1e-7:
            values = (
                outcomes.errors_NE if budget.on_compute else outcomes.layers_NE
            )
            best = min(best, values[rows, choice_N].sum())
    _, layers, errors = sums(found, scores_NE, outcomes, budget)
    assert (errors if budget.on_compute else layers) == best


@FEW
@given(SEEDS, st.sampled_from(["wer=+{}", "wer=+{}%"]), st.booleans())
def test_ltt_gets_cheaper_with_delta_and_budget(seed, form, per_exit):
    scores_NE, outcomes = data(seed, utterances=150)

    def layers(value, delta):
        budget = Budget.parse(form.format(value))
        return calibrate(
            "c", scores_NE, outcomes, budget, "ltt", delta, per_exit
        )

    for values, deltas in (((4, 4), (0.05, 0.3)), ((1, 12), (0.1, 0.1))):
        less, more = (layers(v, d) for v, d in zip(values, deltas))
        # a policy made from half of the data is compared on that half only
        if not per_exit:
            assert more.avg_layer <= less.avg_layer
        assert less.satisfied <= more.satisfied


@FEW
@given(SEEDS, BUDGETS, st.booleans())
def test_naive_is_at_least_as_bold_as_the_methods_with_a_promise(
    seed, text, per_exit
):
    scores_NE, outcomes = data(seed)
    budget = Budget.parse(text)
    naive, *careful = (
        calibrate("c", scores_NE, outcomes, budget, method)
        for method in ("naive", "crc", "ltt")
    )
    for each in careful:
        if not each.satisfied:
            continue
        loss, *_ = sums(each, scores_NE, outcomes, budget)
        assert loss <= 1e-6
        if not budget.on_compute:
            assert naive.avg_layer <= each.avg_layer


def test_no_threshold_satisfies_a_word_error_budget():
    scores_NE, outcomes = data(0, utterances=200, informed=0.0)
    found = calibrate("c", scores_NE, outcomes, Budget.parse("wer=+0"))
    assert not found.satisfied
    assert found.policy.threshold == np.inf
    assert found.avg_layer == outcomes.layers_E[-1]
    assert found.wer == found.wer_last


def test_compute_budget_of_all_layers_or_of_the_first_exit():
    scores_NE, outcomes = data(0)
    for method in ("naive", "crc", "ltt"):
        first = calibrate("c", scores_NE, outcomes, Budget("layers", 2), method)
        assert (first.avg_layer, first.satisfied) == (2, True)
        full = calibrate("c", scores_NE, outcomes, Budget("layers", 8), method)
        assert full.satisfied
        best = calibrate("c", scores_NE, outcomes, Budget("layers", 99), method)
        assert best.wer <= first.wer


def test_wrong_arguments():
    scores_NE, outcomes = data(0)
    budget = Budget.parse("wer=+5%")
    for arguments, said in (
        ({"method": "hope"}, "naive, crc, ltt"),
        ({"delta": 2.0}, "delta=2"),
        ({"target": 0}, "target=0"),
        ({"budget": Budget("layers", 1)}, "layers=2"),
    ):
        given_ = {"budget": budget, **arguments}
        with pytest.raises(InputError, match=said):
            calibrate("c", scores_NE, outcomes, **given_)
    few = outcomes.select(np.arange(3))
    with pytest.raises(InputError, match="too few"):
        calibrate("c", scores_NE[:3], few, budget, per_exit=True)


@pytest.fixture(scope="module")
def real(shared_folder):
    """Scores and outcomes of both test sets of a published model."""
    path = shared_folder / "traces" / "wav2vec2-ee.greedy.jsonl.gz"
    trace = read_trace(path).with_speakers_from_ids()
    trace.score()
    sets = {}
    for name in trace.sets:
        part = trace.subset(name)
        outcomes = Outcomes(
            part.errors_NE,
            part.words_N,
            part.layers_E,
            by_speaker=part.clusters,
        )
        for criterion in ("entropy", "agreement"):
            scores_NE = get_criterion(criterion).scores(part.evidence)
            sets[name, criterion] = scores_NE, outcomes
    return sets


@pytest.mark.parametrize("text", ["wer=+1", "wer=+5%"])
@pytest.mark.parametrize("criterion", ["entropy", "agreement"])
@pytest.mark.parametrize("name", ["test-clean", "test-other"])
def test_ltt_holds_its_budget_for_new_speakers(real, name, criterion, text):
    """In 200 random splits of the speakers."""
    scores_NE, outcomes = real[name, criterion]
    budget = Budget.parse(text)
    losses_NE = budget.losses_NE(outcomes)
    broken, splits = 0, 200
    for seed in range(splits):
        seen, unseen = outcomes.clusters.split(0.5, seed)
        found = calibrate(
            criterion, scores_NE[seen], outcomes.select(seen), budget, delta=0.1
        )
        choice_N1 = found.policy.choose(scores_NE[unseen])[:, None]
        loss = at_choice(losses_NE[unseen], choice_N1).mean()
        broken += loss > 1e-9
    assert broken / splits <= 0.1
