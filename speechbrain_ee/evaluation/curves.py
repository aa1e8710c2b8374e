"""Operating curves: word error rate against compute, from a trace.

An operating point is what a policy gives on a test set: its word error rate
and the average depth (and multiply-accumulates) it needs. A sweep of
thresholds gives the curve of a criterion. The mixture line is what tossing a
coin between two fixed exits gives; a criterion is worth what lies between
that line and the oracle.

Axes: N utterances, E exits, T thresholds.

Authors
 * The speechbrain-ee contributors 2026
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.evaluation.bootstrap import Bootstrap, Interval
from speechbrain_ee.evaluation.operating_point import (
    OperatingPoint,
    criterion_macs,
    measure_many,
)
from speechbrain_ee.exits.criteria import get_criterion
from speechbrain_ee.exits.oracle import lambda_bound
from speechbrain_ee.exits.policy import choices_NT
from speechbrain_ee.exits.trace import Trace

MAX_THRESHOLDS = 200
MAX_PRICES = 100

# WER in percent is a quotient of integers: far below one error in 10^7 words.
WER_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Curve:
    """Operating points of one family, in order of average layer.

    Arguments
    ---------
    name : str
        Criterion, ``fixed``, ``oracle`` or ``mixture``.
    points : tuple of OperatingPoint
        Measured points.
    mixable : bool
        Whether every point on the line between two neighbours can be had
        (by choosing at random between two fixed exits), too.
    wer_low, wer_high : tuple of float, optional
        Ends of the 95 % interval of the word error rate at each point.
    above_low, above_high : tuple of float, optional
        The same of the word error rate minus the last exit's, in points.
        Both see the same draws of utterances, so that the interval is that
        of the comparison, and vanishes at the last exit.
    layer_intervals : mapping of str to (low, high)
        By level: 95 % interval of the average layer needed.
    """

    name: str
    points: tuple[OperatingPoint, ...]
    mixable: bool = False
    wer_low: tuple[float, ...] | None = None
    wer_high: tuple[float, ...] | None = None
    above_low: tuple[float, ...] | None = None
    above_high: tuple[float, ...] | None = None
    layer_intervals: Mapping[str, Interval] = field(default_factory=dict)

    def axis(self, name: str) -> NDArray[np.float64]:
        """One coordinate of all points.

        Arguments
        ---------
        name : str
            ``avg_layer``, ``avg_macs``, ``wer`` or ``threshold``.

        Returns
        -------
        array of shape (points,)
        """
        values = [getattr(point, name) for point in self.points]
        return np.array(
            [np.nan if value is None else value for value in values]
        )

    def cheapest(
        self, wer: float, axis: str = "avg_layer"
    ) -> OperatingPoint | None:
        """The point with the smallest cost at a word error rate.

        Arguments
        ---------
        wer : float
            Word error rate in percent that must not be exceeded.
        axis : str
            The cost, ``avg_layer`` or ``avg_macs``.

        Returns
        -------
        OperatingPoint or None
            None if no point of the curve is that good.
        """
        good = [p for p in self.points if p.wer <= wer + WER_TOLERANCE]
        best = min(good, key=lambda p: (getattr(p, axis), p.wer), default=None)
        if best is None or not self.mixable:
            return best
        place = self.points.index(best)
        if place == 0:
            return best
        return _between(self.points[place - 1], best, wer)


def thresholds_for(scores_NE: NDArray[np.floating]) -> NDArray[np.float64]:
    """Thresholds of a sweep: quantiles of the scores that decide.

    The first stops every utterance at the first exit that has a score, the
    last none before the last exit.

    Arguments
    ---------
    scores_NE : array of shape (N, E)
        Scores at every exit.

    Returns
    -------
    array
        At most ``MAX_THRESHOLDS`` increasing, finite values.

    Example
    -------
    >>> thresholds_for(np.array([[0.0, 1.0, 9.0]])).round(3).tolist()
    [0.0, 1.0, 1.0]
    """
    deciding_NE = scores_NE[:, :-1].astype(np.float64)
    # infinite: nothing to go by yet, which no threshold can change
    distinct, counts = np.unique(
        deciding_NE[np.isfinite(deciding_NE)], return_counts=True
    )
    if not distinct.size:
        return np.zeros(1)
    if distinct.size >= MAX_THRESHOLDS:
        # one value that many share is one threshold, not many
        weights = np.minimum(counts, counts.sum() / MAX_THRESHOLDS).cumsum()
        places = np.linspace(0, weights[-1], MAX_THRESHOLDS - 1)
        # taken from the scores themselves: between them nothing changes
        chosen = np.searchsorted(weights, places)
        distinct = distinct[np.unique(chosen.clip(max=distinct.size - 1))]
    return np.append(distinct, np.nextafter(distinct[-1], np.inf))


def sweep(
    trace: Trace,
    name: str,
    scores_NE: NDArray[np.floating],
    bootstrap: Bootstrap | None = None,
) -> Curve:
    """Curve of a criterion with one threshold for all exits.

    Arguments
    ---------
    trace : Trace
        One test set.
    name : str
        The criterion, whose own cost is charged.
    scores_NE : array of shape (N, E)
        Its scores, higher = more ready.
    bootstrap : Bootstrap, optional
        Draws of the set, for intervals.

    Returns
    -------
    Curve
    """
    thresholds_T = thresholds_for(scores_NE)
    choice_NT = choices_NT(scores_NE, thresholds_T)
    points = measure_many(
        trace,
        choice_NT,
        thresholds_T,
        criterion_macs(trace, get_criterion(name)),
    )
    return _curve(name, points, choice_NT, bootstrap)


def fixed_exits(trace: Trace, bootstrap: Bootstrap | None = None) -> Curve:
    """One point per exit: every utterance stops there.

    Arguments
    ---------
    trace : Trace
        One test set.
    bootstrap : Bootstrap, optional
        Draws of the set, for intervals.

    Returns
    -------
    Curve
    """
    exits = len(trace.layers_E)
    choice_NE = np.tile(np.arange(exits), (len(trace), 1))
    points = measure_many(trace, choice_NE, [None] * exits)
    return _curve("fixed", points, choice_NE, bootstrap)


def mixture(
    fixed: Curve, axis: str = "avg_layer", bootstrap: Bootstrap | None = None
) -> Curve:
    """Lower convex hull of the fixed exits.

    Every point on it is had by choosing at random between two fixed exits,
    without looking at the utterance.

    Arguments
    ---------
    fixed : Curve
        The fixed exits.
    axis : str
        Cost, ``avg_layer`` or ``avg_macs``.
    bootstrap : Bootstrap, optional
        Draws of the set, for the intervals of the layers needed.

    Returns
    -------
    Curve
    """
    hull: list[OperatingPoint] = []
    for point in sorted(fixed.points, key=lambda p: getattr(p, axis)):
        while len(hull) > 1 and not _turns_left(*hull[-2:], point, axis):
            hull.pop()
        hull.append(point)
    intervals = bootstrap.mixture_intervals() if bootstrap else {}
    return Curve(
        "mixture", tuple(hull), mixable=True, layer_intervals=intervals
    )


def oracle_curve(
    trace: Trace, axis: str = "avg_layer", bootstrap: Bootstrap | None = None
) -> Curve:
    """The lambda bound: least errors + lambda x cost, lambda swept.

    Arguments
    ---------
    trace : Trace
        One test set; with multiply-accumulates if they are the cost.
    axis : str
        Cost, ``avg_layer`` or ``avg_macs``.
    bootstrap : Bootstrap, optional
        Draws of the set, for intervals.

    Returns
    -------
    Curve
    """
    costs_NE = np.broadcast_to(trace.layers_E, trace.errors_NE.shape)
    if axis == "avg_macs" and trace.macs_NE is not None:
        # in units of a full pass, so that prices stay near one
        costs_NE = trace.macs_NE / trace.macs_NE[:, -1].mean()
    prices_T = _prices(trace.errors_NE, costs_NE)
    choice_NT = np.stack(
        [lambda_bound(trace.errors_NE, costs_NE, p) for p in prices_T], axis=1
    )
    points = measure_many(trace, choice_NT, prices_T)
    return _curve("oracle", points, choice_NT, bootstrap)


def _prices(
    errors_NE: NDArray[np.integer], costs_NE: NDArray[np.number]
) -> NDArray[np.float64]:
    """Prices between which the oracle's choice changes."""
    ratios = [np.zeros(1)]
    exits = errors_NE.shape[1]
    for early in range(exits):
        for late in range(early + 1, exits):
            gained_N = errors_NE[:, early] - errors_NE[:, late]
            step_N = costs_NE[:, late] - costs_NE[:, early]
            pays_N = (gained_N > 0) & (step_N > 0)
            ratios.append(gained_N[pays_N] / step_N[pays_N])
    changes = np.unique(np.concatenate(ratios).round(12))
    if changes.size > MAX_PRICES:
        places = np.linspace(0, changes.size - 1, MAX_PRICES).astype(int)
        changes = changes[places]
    between = (changes[1:] + changes[:-1]) / 2
    return np.concatenate([changes[:1], between, changes[-1:] + 1])


def _curve(
    name: str,
    points: Sequence[OperatingPoint],
    choice_NT: NDArray[np.integer],
    bootstrap: Bootstrap | None,
) -> Curve:
    """Points in order of depth, with intervals if there are draws."""
    order = sorted(
        range(len(points)),
        key=lambda t: (points[t].avg_layer, points[t].threshold or 0),
    )
    ordered = tuple(points[t] for t in order)
    if bootstrap is None:
        return Curve(name, ordered)
    replicates = bootstrap.replicate(choice_NT[:, order])
    above_BT = replicates.wer_BT - bootstrap.fixed.wer_BT[:, -1:]
    intervals = bootstrap.layer_intervals(replicates)
    return Curve(
        name,
        ordered,
        False,
        *replicates.band(),
        *replace(replicates, wer_BT=above_BT).band(),
        intervals,
    )


def _turns_left(
    a: OperatingPoint, b: OperatingPoint, c: OperatingPoint, axis: str
) -> bool:
    """Whether the way a, b, c turns left, as a lower hull does."""
    ab, ac = (getattr(p, axis) - getattr(a, axis) for p in (b, c))
    return ab * (c.wer - a.wer) - (b.wer - a.wer) * ac > 0


def _between(
    worse: OperatingPoint, better: OperatingPoint, wer: float
) -> OperatingPoint:
    """The point of a segment that has exactly this word error rate."""
    if math.isclose(worse.wer, better.wer):
        return better
    share = (worse.wer - wer) / (worse.wer - better.wer)
    share = min(max(share, 0.0), 1.0)

    def mix(a: float | None, b: float | None) -> float | None:
        return None if a is None or b is None else a + share * (b - a)

    return OperatingPoint(
        avg_layer=mix(worse.avg_layer, better.avg_layer) or 0.0,
        wer=mix(worse.wer, better.wer) or 0.0,
        avg_macs=mix(worse.avg_macs, better.avg_macs),
    )
