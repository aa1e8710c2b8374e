"""Analyses: which criteria are compared, and what is said of each.

Authors
 * The speechbrain-ee contributors 2026
"""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from speechbrain_ee.evaluation.analysis import analyse, available_criteria
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
    histogram = analysis.difficulty(found)
    choice_N = first_exit(
        -analysis.trace.evidence_NE("entropy"), found.equal_wer.threshold
    )
    counts = np.array(histogram.counts)
    shares = counts @ np.array(histogram.shares) / counts.sum()
    assert shares == pytest.approx(np.bincount(choice_N, minlength=4) / 90)
    assert shares == pytest.approx(found.exit_shares)
    assert analysis.difficulty(analysis.oracle) is None
