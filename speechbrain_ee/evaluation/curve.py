"""A curve: the operating points of one way of choosing exits.

An operating point is what a policy gives on a test set: its word error rate
and the average depth (and multiply-accumulates) it needs.

Authors
 * The speechbrain-ee contributors 2026
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.evaluation.bootstrap import Interval
from speechbrain_ee.evaluation.operating_point import OperatingPoint

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
    layer_intervals : mapping of str to (low, high)
        By level: 95 % interval of the average layer needed.
    """

    name: str
    points: tuple[OperatingPoint, ...]
    mixable: bool = False
    wer_low: tuple[float, ...] | None = None
    wer_high: tuple[float, ...] | None = None
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
