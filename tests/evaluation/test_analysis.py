"""Analyses: which criteria are compared, and what is said of each.

Authors
 * The speechbrain-ee contributors 2026
"""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings

from speechbrain_ee.evaluation.analysis import (
    DIFFICULTIES,
    analyse,
    available_criteria,
    difficulty_groups,
    difficulty_histogram,
    transfer_matrices,
)
from speechbrain_ee.evaluation.curves import (
    LEVELS,
)
from speechbrain_ee.exits import ExitRecord, Trace
from speechbrain_ee.exits.criteria import criterion_names, get_criterion
from speechbrain_ee.exits.policy import first_exit
from tests.evaluation.made_up import TRACES, made_up


def with_evidence(trace, *names):
    """The trace with the entropies under other names."""
    for name in names:
        trace = trace.with_evidence(name, trace.evidence_NE("entropy"))
    return trace


@settings(max_examples=20, deadline=None)
@given(TRACES)
def test_levels(trace):
    analysis = analyse(with_evidence(trace, "max_prob"))
    found = analysis.criteria["entropy"]
    for level, factor in LEVELS.items():
        point = found.points[level]
        good = [
            p.avg_layer
            for p in found.curve.points
            if p.wer <= factor * analysis.wer[-1] + 1e-9
        ]
        assert point.avg_layer == min(good)
        low, high = found.layer_intervals[level]
        assert trace.layers_E[0] <= low <= high <= trace.layers_E[-1]
    assert found.equal_wer is found.points["equal_wer"]
    assert found.plus_5 is found.points["plus_5"]
    order = [r.plus_5.avg_layer for r in analysis.ranked()]
    assert order == sorted(order) and len(order) == len(analysis.criteria)
    names = [r.name for r in analysis.results()]
    assert names[:2] == ["fixed", "mixture"] and names[-1] == "oracle"
    best, blind = analysis.oracle.points, analysis.mixture.points
    for level, share in found.gap_shares.items():
        assert share <= 1 + 1e-9
        assert share == pytest.approx(
            (blind[level].avg_layer - found.points[level].avg_layer)
            / (blind[level].avg_layer - best[level].avg_layer)
        )


def test_the_same_decisions_are_shown_once():
    twins = {
        name: get_criterion(name).same_as
        for name in criterion_names()
        if get_criterion(name).same_as
    }
    assert twins["entropy_nats"] == "entropy"
    trace = with_evidence(made_up(9, 1), "entropy_nats")
    assert [c.name for c in available_criteria(trace)] == ["entropy"]
    records = tuple(
        replace(
            row,
            exits=tuple(
                replace(e, evidence={"entropy_nats": e.evidence["entropy"]})
                for e in row.exits
            ),
        )
        for row in trace.records
    )
    alone = Trace(trace.header, records)
    assert [c.name for c in available_criteria(alone)] == ["entropy_nats"]
    # recorded with parameters, a criterion is another one
    trace = with_evidence(trace, "tsallis_min:alpha=0.5")
    found = [c.name for c in available_criteria(trace)]
    assert found == ["entropy", "tsallis_min:alpha=0.5"]
    analyse(trace)


def test_transcripts_alone_are_enough_for_some_criteria():
    trace = made_up(40, 2)
    records = tuple(
        replace(
            row,
            exits=tuple(
                ExitRecord(e.layer, row.ref.replace("w", "x", e.errors))
                for e in row.exits
            ),
        )
        for row in trace.records
    )
    found = analyse(Trace(trace.header, records)).criteria
    assert "agreement" in found and not {"fixed", "random"} & {*found}
    for name, result in found.items():
        assert get_criterion(name).needs == ("transcripts",)
        assert result.equal_wer is not None


def test_difficulty_is_that_of_the_choice_at_equal_error_rate():
    analysis = analyse(made_up(90, 3))
    trace, found = analysis.trace, analysis.criteria["entropy"]
    histogram = analysis.difficulty("entropy", found.equal_wer)
    choice_N = first_exit(
        -trace.evidence_NE("entropy"), found.equal_wer.threshold
    )
    group_N, counts = difficulty_groups(trace), np.array(histogram.counts)
    best_N = trace.errors_NE.argmin(axis=1)
    for place, name in enumerate(histogram.names):
        rows = np.flatnonzero(group_N == DIFFICULTIES.index(name))
        assert counts[place] == len(rows)
        for shares, layers, taken_N in (
            (histogram.shares, histogram.avg_layer, choice_N),
            (histogram.oracle_shares, histogram.oracle_avg_layer, best_N),
        ):
            stopped = np.bincount(taken_N[rows], minlength=4) / len(rows)
            assert shares[place] == pytest.approx(stopped)
            mean = trace.layers_E[taken_N[rows]].mean()
            assert layers[place] == pytest.approx(mean)
    shares = counts @ np.array(histogram.shares) / counts.sum()
    assert shares == pytest.approx(found.exit_shares)
    assert analysis.difficulty("entropy", None) is None
    # ties stay together
    trace.__dict__["errors_NE"] = np.zeros((90, 4), dtype=int)
    trace.errors_NE[9] = 3
    few = difficulty_histogram(trace, np.zeros(90, dtype=int))
    assert few.names == ("easy", "hard") and few.counts == (89, 1)


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


@pytest.fixture(scope="module")
def analyses():
    return [analyse(made_up(60, seed), f"set{seed}") for seed in (1, 2, 3)]


def test_a_cell_is_the_threshold_of_the_one_set_on_the_other(analyses):
    (cells,) = transfer_matrices(analyses).values()
    keys = [each.key for each in analyses]
    assert [*cells] == keys and all([*row] == keys for row in cells.values())
    source, target = analyses[:2]
    cell = cells["set1"]["set2"]
    assert cell.threshold == source.criteria["entropy"].plus_5.threshold
    errors = layers = 0
    for record in target.trace.records:
        for exit_ in record.exits:
            if -exit_.evidence["entropy"] >= cell.threshold:
                break
        errors += exit_.errors
        layers += exit_.layer
    wer = 100 * errors / target.words
    assert cell.wer == pytest.approx(wer)
    assert cell.avg_layer == pytest.approx(layers / len(target.trace))
    last = sum(row.exits[-1].errors for row in target.trace.records)
    assert cell.excess == pytest.approx(100 * (errors - last) / last)
    for analysis in analyses:
        own = cells[analysis.key][analysis.key]
        assert own.excess <= 5 + 1e-9
        point = analysis.criteria["entropy"].plus_5
        assert own.avg_layer == pytest.approx(point.avg_layer)


def test_other_exit_layers_have_no_transfer(analyses):
    other = analyse(made_up(20, 4, exits=3), "shallow")
    assert transfer_matrices([analyses[0], other]) == {}
    assert transfer_matrices(analyses[:1]) == {}
    trace = made_up(20, 5)
    perfect = tuple(
        replace(r, exits=(*r.exits[:-1], replace(r.exits[-1], errors=0)))
        for r in trace.records
    )
    target = analyse(Trace(trace.header, perfect), "perfect")
    cells = transfer_matrices([analyses[0], target])["entropy"]
    assert cells["set1"]["perfect"].excess is None
