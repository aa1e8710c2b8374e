"""Curves and intervals: loops as reference, bounds, published numbers.

Authors
 * The speechbrain-ee contributors 2026
"""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechbrain_ee.errors import InputError
from speechbrain_ee.evaluation.curves import (
    LEVELS,
    MAX_THRESHOLDS,
    Bootstrap,
    Curve,
    OperatingPoint,
    fixed_exits,
    measure,
    mixture,
    oracle_curve,
    sweep,
    thresholds_for,
)
from speechbrain_ee.exits import (
    ExitRecord,
    Trace,
    TraceHeader,
    UtteranceRecord,
    read_trace,
)
from speechbrain_ee.exits.oracle import earliest_best, earliest_no_worse
from speechbrain_ee.exits.policy import first_exit
from tests.evaluation.made_up import TRACES, made_up


def cost_at(curve, wer, axis="avg_layer"):
    return getattr(curve.cheapest(wer, axis), axis)


@settings(max_examples=25)
@given(TRACES, st.booleans())
def test_sweep_is_the_loop_over_utterances(trace, told):
    """A criterion is charged where it is evaluated, if its cost is known."""
    if told:
        header = replace(trace.header, vocab_size=30, frames_per_s=25.0)
        trace = Trace(header, trace.records)
    scores_NE = -trace.evidence_NE("entropy")
    points = sweep(trace, "entropy", scores_NE).points
    assert len(points) == len(thresholds_for(scores_NE))
    for point in points:
        errors = words = layers = macs = 0
        for record in trace.records:
            for k, exit_ in enumerate(record.exits):
                if k == len(record.exits) - 1:
                    break
                macs += told * math.ceil(25.0 * record.duration_s) * 30
                if -exit_.evidence["entropy"] >= point.threshold:
                    break
            errors += exit_.errors
            words += len(record.ref.split())
            layers += exit_.layer
            macs += trace.header.macs[k] * record.duration_s / 10
        assert point.wer == pytest.approx(100 * errors / words)
        assert point.avg_layer == pytest.approx(layers / len(trace))
        assert point.avg_macs == pytest.approx(macs / len(trace))


@settings(max_examples=25)
@given(TRACES)
def test_a_sweep_goes_from_the_first_exit_to_the_last(trace):
    fixed = fixed_exits(trace).points
    curve = sweep(trace, "entropy", -trace.evidence_NE("entropy")).points
    for end in (0, -1):
        assert curve[end].wer == fixed[end].wer
        assert curve[end].avg_layer == fixed[end].avg_layer
    assert (np.diff([point.avg_layer for point in curve]) >= 0).all()


@settings(max_examples=25)
@given(TRACES)
def test_no_curve_beats_the_oracle(trace):
    best = measure(trace, earliest_best(trace.errors_NE))
    curves = [
        fixed_exits(trace),
        sweep(trace, "entropy", -trace.evidence_NE("entropy")),
    ]
    for axis in ("avg_layer", "avg_macs"):
        # by definition of lambda: no point lies below a tangent
        for tangent in oracle_curve(trace, axis).points:
            costs = trace.layers_E
            scale = 1.0
            if axis == "avg_macs":
                scale = trace.macs_NE[:, -1].mean()
                costs = trace.macs_NE
            assert costs.size
            price = tangent.threshold / scale
            # errors per utterance, from percent of all words
            rate = trace.words_N.mean() / 100
            bound = rate * tangent.wer + price * getattr(tangent, axis)
            for curve in curves:
                for point in curve.points:
                    value = rate * point.wer + price * getattr(point, axis)
                    assert bound <= value + 1e-9
                    assert best.wer <= point.wer


@settings(max_examples=40)
@given(TRACES, st.sampled_from(["avg_layer", "avg_macs"]))
def test_mixture_is_convex_and_below_the_fixed_exits(trace, axis):
    fixed = fixed_exits(trace)
    hull = mixture(fixed, axis)
    x, y = hull.axis(axis), hull.axis("wer")
    assert set(hull.points) <= set(fixed.points)
    slopes = np.diff(y) / np.diff(x)
    assert (np.diff(slopes) >= -1e-9).all()
    below = np.interp(fixed.axis(axis), x, y)
    assert (below <= fixed.axis("wer") + 1e-9).all()


def curve_of(*points):
    return Curve("fixed", tuple(OperatingPoint(*point) for point in points))


def test_the_cheapest_point_of_a_mixture_and_of_a_criterion():
    fixed = curve_of((2, 20.0), (4, 18.0), (6, 10.0), (8, 9.0))
    hull = mixture(fixed)
    assert [p.avg_layer for p in hull.points] == [2, 6, 8]
    for wer, layers in ((15.0, 4.0), (9.5, 7.0), (25.0, 2)):
        assert cost_at(hull, wer) == pytest.approx(layers)
    assert hull.cheapest(8.0) is None
    # where the last exit is worse
    assert cost_at(
        mixture(curve_of((2, 20.0), (4, 10.0), (6, 12.0))), 12.0
    ) == pytest.approx(3.6)
    # a criterion has its own points alone
    curve = curve_of((2, 20.0), (5, 10.0), (6, 10.5), (8, 9.0))
    assert (cost_at(curve, 10.5), cost_at(curve, 9.9)) == (5, 8)


@given(st.integers(1, 400), st.integers(0, 99))
def test_thresholds(count, seed):
    scores_NE = np.random.default_rng(seed).normal(size=(count, 3))
    limits = thresholds_for(scores_NE)
    assert len(limits) <= MAX_THRESHOLDS
    assert (np.diff(limits) > 0).all() and np.isfinite(limits).all()
    assert limits[0] == scores_NE[:, :-1].min()
    assert limits[-1] > scores_NE[:, :-1].max()


def test_thresholds_are_quantiles_but_not_wasted_on_one_value():
    generator = np.random.default_rng(0)
    scores_NE = generator.normal(size=(5000, 4))
    limits = thresholds_for(scores_NE)
    below = [(scores_NE[:, :-1] < limit).mean() for limit in limits[:-1]]
    assert len(limits) == MAX_THRESHOLDS
    assert np.abs(below - np.linspace(0, 1, len(below))).max() < 1e-3
    scores_NE[generator.random(scores_NE.shape) < 0.9] = 0.0
    limits = thresholds_for(scores_NE)
    # plain quantiles would find about 20
    assert len(limits) > 0.9 * MAX_THRESHOLDS and 0.0 in limits
    # scores that are not there yet
    some = np.array([[-np.inf, -np.inf, 0.1], [-np.inf, 0.5, 0.1]])
    assert thresholds_for(some)[0] == 0.5
    assert thresholds_for(np.full((3, 3), -np.inf)).tolist() == [0.0]


def test_one_exit_only():
    trace = made_up(5, 0, exits=1)
    curve = sweep(trace, "entropy", trace.evidence_NE("entropy"))
    wer = fixed_exits(trace).points[0].wer
    for found in (curve, oracle_curve(trace), mixture(fixed_exits(trace))):
        assert {point.wer for point in found.points} == {wer}


def test_empty_references_have_no_error_rate():
    exits = (ExitRecord(2, "a"),)
    trace = Trace(
        TraceHeader("m", "d", (2,)), (UtteranceRecord("u", "s", "", exits),)
    )
    with pytest.raises(InputError, match="'s'.*references are empty"):
        fixed_exits(trace)


PUBLISHED = [
    # file, set, WER by exit, oracle best, oracle no worse, overthinking,
    # layers at equal WER and +5 %: oracle, mixture
    (
        "greedy",
        "test-clean",
        (33.74, 17.38, 9.63, 5.78, 4.46, 4.35),
        (3.667, 7.265),
        (4.004, 7.109),
        (6.99, 6.99, 12, 9.84),
    ),
    (
        "greedy",
        "test-other",
        (55.98, 36.70, 23.68, 15.86, 12.59, 12.24),
        (11.300, 8.343),
        (11.646, 8.201),
        (8.06, 7.26, 12, 9.84),
    ),
    (
        "beam",
        "test-clean",
        None,
        (3.471, 6.496),
        None,
        (6.16, 5.61, 9.94, 9.38),
    ),
    ("beam", "test-other", None, (10.490, 7.826), None, (6.96, 6.74, 12, 9.54)),
]


@pytest.mark.parametrize(
    ("file", "name", "wer", "best", "no_worse", "layers"), PUBLISHED
)
def test_published_traces(
    shared_folder, file, name, wer, best, no_worse, layers
):
    path = shared_folder / "traces" / f"wav2vec2-ee.{file}.jsonl.gz"
    trace = read_trace(path).subset(name)
    fixed = fixed_exits(trace)
    if wer:
        assert fixed.axis("wer").round(2).tolist() == list(wer)
    for expected, choose in (
        (best, earliest_best),
        (no_worse, earliest_no_worse),
    ):
        if expected:
            point = measure(trace, choose(trace.errors_NE))
            assert (round(point.wer, 3), round(point.avg_layer, 3)) == expected
    last = fixed.points[-1].wer
    found = [
        cost_at(curve, factor * last)
        for curve in (oracle_curve(trace), mixture(fixed))
        for factor in (1, 1.05)
    ]
    assert found == pytest.approx(layers, abs=0.006)


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
    # also where all references of a draw are empty
    trace = made_up(3, 0)
    trace.__dict__["words_N"] = np.array([9, 0, 0])
    fixed = fixed_exits(trace, Bootstrap(trace))
    assert np.isfinite([*fixed.wer_low, *fixed.wer_high]).all()
