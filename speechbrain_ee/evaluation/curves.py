"""Operating curves: word error rate against compute, from a trace.

An operating point is what a policy gives on a test set: its word error rate
and the average depth (and multiply-accumulates) it needs. A curve is the
points of one family. The mixture line is what tossing a coin between two
fixed exits gives; a criterion is worth what lies between that line and the
oracle.

Axes: N utterances, E exits.

Authors
 * The speechbrain-ee contributors 2026
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.evaluation.operating_point import (
    OperatingPoint,
    criterion_macs,
    measure,
)
from speechbrain_ee.exits.criteria import get_criterion
from speechbrain_ee.exits.oracle import lambda_bound
from speechbrain_ee.exits.policy import first_exit
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
    """

    name: str
    points: tuple[OperatingPoint, ...]
    mixable: bool = False

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

    The first stops every utterance at the first exit, the last none before
    the last exit.

    Arguments
    ---------
    scores_NE : array of shape (N, E)
        Scores at every exit.

    Returns
    -------
    array
        At most ``MAX_THRESHOLDS`` increasing values.

    Example
    -------
    >>> thresholds_for(np.array([[0.0, 1.0, 9.0]])).round(3).tolist()
    [0.0, 1.0, 1.0]
    """
    deciding = np.unique(scores_NE[:, :-1].astype(np.float64))
    if not deciding.size:
        return np.zeros(1)
    if deciding.size >= MAX_THRESHOLDS:
        places = np.linspace(0, 1, MAX_THRESHOLDS - 1)
        # taken from the scores themselves: between them nothing changes
        deciding = np.unique(
            np.quantile(scores_NE[:, :-1], places, method="nearest")
        )
    return np.append(deciding, np.nextafter(deciding[-1], np.inf))


def sweep(trace: Trace, name: str, scores_NE: NDArray[np.floating]) -> Curve:
    """Curve of a criterion with one threshold for all exits.

    Arguments
    ---------
    trace : Trace
        One test set.
    name : str
        The criterion, whose own cost is charged.
    scores_NE : array of shape (N, E)
        Its scores, higher = more ready.

    Returns
    -------
    Curve
    """
    cost_NE = criterion_macs(trace, get_criterion(name))
    return _curve(
        name,
        (
            measure(trace, first_exit(scores_NE, limit), float(limit), cost_NE)
            for limit in thresholds_for(scores_NE)
        ),
    )


def fixed_exits(trace: Trace) -> Curve:
    """One point per exit: every utterance stops there.

    Arguments
    ---------
    trace : Trace
        One test set.

    Returns
    -------
    Curve
    """
    count = len(trace)
    points = (
        measure(trace, np.full(count, column))
        for column in range(len(trace.layers_E))
    )
    return Curve("fixed", tuple(points))


def mixture(fixed: Curve, axis: str = "avg_layer") -> Curve:
    """Lower convex hull of the fixed exits.

    Every point on it is had by choosing at random between two fixed exits,
    without looking at the utterance.

    Arguments
    ---------
    fixed : Curve
        The fixed exits.
    axis : str
        Cost, ``avg_layer`` or ``avg_macs``.

    Returns
    -------
    Curve
    """
    hull: list[OperatingPoint] = []
    for point in sorted(fixed.points, key=lambda p: getattr(p, axis)):
        while len(hull) > 1 and not _turns_left(*hull[-2:], point, axis):
            hull.pop()
        hull.append(point)
    return Curve("mixture", tuple(hull), mixable=True)


def oracle_curve(trace: Trace, axis: str = "avg_layer") -> Curve:
    """The lambda bound: least errors + lambda x cost, lambda swept.

    Arguments
    ---------
    trace : Trace
        One test set; with multiply-accumulates if they are the cost.
    axis : str
        Cost, ``avg_layer`` or ``avg_macs``.

    Returns
    -------
    Curve
    """
    costs_NE = np.broadcast_to(trace.layers_E, trace.errors_NE.shape)
    if axis == "avg_macs" and trace.macs_NE is not None:
        # in units of a full pass, so that prices stay near one
        costs_NE = trace.macs_NE / trace.macs_NE[:, -1].mean()
    return _curve(
        "oracle",
        (
            measure(
                trace,
                lambda_bound(trace.errors_NE, costs_NE, price),
                float(price),
            )
            for price in _prices(trace.errors_NE, costs_NE)
        ),
    )


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


def _curve(name: str, points: Iterable[OperatingPoint]) -> Curve:
    ordered = sorted(points, key=lambda p: (p.avg_layer, p.threshold or 0))
    return Curve(name, tuple(ordered))


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
