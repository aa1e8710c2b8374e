"""Bootstrap: the same as drawing utterances one by one.

Authors
 * The speechbrain-ee contributors 2026
"""

import numpy as np
import pytest
from hypothesis import given, settings

from speechbrain_ee.evaluation.curves import (
    LEVELS,
    Bootstrap,
    fixed_exits,
    measure,
    mixture,
    oracle_curve,
    sweep,
)
from speechbrain_ee.exits.policy import first_exit
from tests.evaluation.made_up import TRACES, made_up


def draws(bootstrap):
    """Every draw as a trace in which utterances repeat."""
    for weights_G in bootstrap.weights_BG:
        weights_N = weights_G[bootstrap.clusters.label_N]
        rows = np.repeat(np.arange(len(weights_N)), weights_N.astype(int))
        yield bootstrap.trace.select(rows.tolist())


@settings(max_examples=10, deadline=None)
@given(TRACES)
def test_band_and_intervals_are_those_of_the_drawn_traces(trace):
    scores_NE = -trace.evidence_NE("entropy")
    bootstrap = Bootstrap(trace, replicates=7)
    curve = sweep(trace, "entropy", scores_NE, bootstrap)
    wer_BT, needed, blind = [], [], []
    for drawn in draws(bootstrap):
        scores = -drawn.evidence_NE("entropy")
        points = [
            measure(drawn, first_exit(scores, point.threshold))
            for point in curve.points
        ]
        wer_BT.append([point.wer for point in points])
        fixed = fixed_exits(drawn)
        last = fixed.points[-1].wer
        needed.append(
            [
                min(
                    point.avg_layer
                    for point in points
                    if point.wer <= factor * last + 1e-9
                )
                for factor in LEVELS.values()
            ]
        )
        hull = mixture(fixed)
        blind.append(
            [
                hull.cheapest(factor * last).avg_layer
                for factor in LEVELS.values()
            ]
        )
    low_T, high_T = np.percentile(wer_BT, bootstrap.percentiles, axis=0)
    assert curve.wer_low == pytest.approx(low_T)
    assert curve.wer_high == pytest.approx(high_T)
    line = mixture(fixed_exits(trace), bootstrap=bootstrap)
    for values, found in ((needed, curve), (blind, line)):
        ends = np.percentile(values, bootstrap.percentiles, axis=0)
        for place, level in enumerate(LEVELS):
            expected = tuple(ends[:, place])
            assert found.layer_intervals[level] == pytest.approx(
                expected, abs=1e-6
            )


def test_points_and_bands_are_in_the_same_order():
    trace = made_up(300, 3)
    bootstrap = Bootstrap(trace)
    curves = [
        sweep(trace, "entropy", -trace.evidence_NE("entropy"), bootstrap),
        fixed_exits(trace, bootstrap),
        oracle_curve(trace, bootstrap=bootstrap),
    ]
    for curve in curves:
        wer = curve.axis("wer")
        assert (np.array(curve.wer_low) <= wer).all()
        assert (np.array(curve.wer_high) >= wer).all()
        assert (np.diff(curve.axis("avg_layer")) >= 0).all()


def test_width_is_that_of_the_normal_approximation():
    trace = made_up(2000, 1)
    band = fixed_exits(trace, Bootstrap(trace, replicates=1000))
    words = trace.words_N.sum()
    for column, point in enumerate(band.points):
        # of a ratio of two sums over utterances
        residual_N = (
            trace.errors_NE[:, column] - point.wer / 100 * trace.words_N
        )
        half = 1.96 * 100 * residual_N.std() * np.sqrt(2000) / words
        width = band.wer_high[column] - band.wer_low[column]
        assert width == pytest.approx(2 * half, rel=0.1)


def test_draws_are_the_same_every_time():
    one, two = (Bootstrap(made_up(50, seed)) for seed in (1, 2))
    assert (one.weights_BG == two.weights_BG).all()
    assert (one.weights_BG.sum(axis=1) == 50).all()
    assert len({tuple(row) for row in one.weights_BG}) == 200


def test_all_references_empty_in_a_draw():
    trace = made_up(3, 0)
    trace.__dict__["words_N"] = np.array([9, 0, 0])
    fixed = fixed_exits(trace, Bootstrap(trace))
    assert np.isfinite([*fixed.wer_low, *fixed.wer_high]).all()
