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
    Curve,
    OperatingPoint,
    Result,
)
from speechbrain_ee.exits import ExitRecord, Trace
from speechbrain_ee.exits.criteria import criterion_names, get_criterion
from speechbrain_ee.exits.policy import first_exit
from tests.evaluation.made_up import TRACES, made_up


def result(*layers, macs=None, name="c"):
    """A result that needs so many layers at the four levels."""
    points = {
        level: None
        if layer is None
        else OperatingPoint(layer, 1.0, None if macs is None else macs * layer)
        for level, layer in zip(LEVELS, layers, strict=True)
    }
    return Result(name, Curve(name, ()), points)


def with_evidence(trace, *names):
    """The trace with the entropies under other names."""
    for name in names:
        trace = trace.with_evidence(name, trace.evidence_NE("entropy"))
    return trace


def with_transcripts(trace):
    """The trace with transcripts that change from exit to exit."""
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
    return Trace(trace.header, records)


def test_share_of_the_gap():
    blind, best = result(12, 10, 9, 8), result(6, 6, 5, 8)
    found = result(9, 11, None, 8).with_gap(blind, best)
    # half the way, beyond the mixture, not reached, no way to go
    assert found.gap_shares == {"equal_wer": 0.5, "plus_1": -0.25}
    assert found.gap_shares_macs == {}
    assert best.with_gap(blind, best).gap_shares["plus_5"] == 1.0
    paid = result(9, 11, None, 8, macs=3).with_gap(
        result(12, 10, 9, 8, macs=2), result(6, 6, 5, 8, macs=2)
    )
    assert paid.gap_shares_macs["equal_wer"] == pytest.approx((24 - 27) / 12)


@settings(max_examples=20, deadline=None)
@given(TRACES)
def test_levels(trace):
    analysis = analyse(trace)
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
    best, blind = analysis.oracle.points, analysis.mixture.points
    for level, share in found.gap_shares.items():
        assert share <= 1 + 1e-9
        assert share == pytest.approx(
            (blind[level].avg_layer - found.points[level].avg_layer)
            / (blind[level].avg_layer - best[level].avg_layer)
        )


def test_criteria_are_ranked_by_layers_at_5_percent():
    trace = with_evidence(made_up(80, 1), "max_prob", "margin")
    analysis = analyse(trace)
    order = [r.plus_5.avg_layer for r in analysis.ranked()]
    assert order == sorted(order) and len(order) == len(analysis.criteria)
    names = [r.name for r in analysis.results()]
    assert names[:2] == ["fixed", "mixture"] and names[-1] == "oracle"
    assert sorted(names[2:-1]) == sorted(analysis.criteria)


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


def test_transcripts_alone_are_enough_for_some_criteria():
    trace = with_transcripts(made_up(40, 2))
    analysis = analyse(trace)
    assert "agreement" in analysis.criteria
    for name in analysis.criteria:
        assert get_criterion(name).needs == ("transcripts",)
    assert not {"fixed", "random"} & set(analysis.criteria)
    for found in analysis.criteria.values():
        assert found.equal_wer is not None


def test_evidence_recorded_with_parameters():
    trace = with_evidence(made_up(9, 1), "tsallis_min:alpha=0.5")
    found = [c.name for c in available_criteria(trace)]
    assert found == ["entropy", "tsallis_min:alpha=0.5"]
    analyse(trace)


def test_difficulty_is_that_of_the_choice_at_equal_error_rate():
    analysis = analyse(made_up(90, 3))
    found = analysis.criteria["entropy"]
    histogram = analysis.difficulty("entropy", found.equal_wer)
    choice_N = first_exit(
        -analysis.trace.evidence_NE("entropy"), found.equal_wer.threshold
    )
    counts = np.array(histogram.counts)
    shares = counts @ np.array(histogram.shares) / counts.sum()
    assert shares == pytest.approx(np.bincount(choice_N, minlength=4) / 90)
    assert shares == pytest.approx(found.exit_shares)
    assert analysis.difficulty("entropy", None) is None


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


def test_a_perfect_last_exit_has_no_relative_excess(analyses):
    trace = made_up(20, 5)
    perfect = tuple(
        replace(r, exits=(*r.exits[:-1], replace(r.exits[-1], errors=0)))
        for r in trace.records
    )
    target = analyse(Trace(trace.header, perfect), "perfect")
    cells = transfer_matrices([analyses[0], target])["entropy"]
    assert cells["set1"]["perfect"].excess is None
