"""Results: what one way of choosing exits needs.

Axes: N utterances, E exits.

Authors
 * The speechbrain-ee contributors 2026
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.evaluation.curves import Curve
from speechbrain_ee.evaluation.operating_point import OperatingPoint

PLUS_5 = 1.05


@dataclass(frozen=True)
class Result:
    """What one way of choosing exits needs.

    Arguments
    ---------
    name : str
        Criterion, ``fixed``, ``mixture`` or ``oracle``.
    curve : Curve
        Its operating points.
    equal_wer : OperatingPoint, optional
        Cheapest point no worse than the last exit. For the mixture and the
        oracle, which can aim at either, layers and multiply-accumulates are
        each the smallest possible.
    plus_5 : OperatingPoint, optional
        Cheapest point at most 5 % (relative) worse than the last exit.
    exit_shares : tuple of float, optional
        Share of utterances that stop at each exit at ``equal_wer``.
    """

    name: str
    curve: Curve
    equal_wer: OperatingPoint | None
    plus_5: OperatingPoint | None
    exit_shares: tuple[float, ...] | None = None

    @classmethod
    def at_levels(cls, curve: Curve, wer: float) -> "Result":
        """Read a curve at the two levels that tables show.

        Arguments
        ---------
        curve : Curve
            Operating points.
        wer : float
            Word error rate of the last exit in percent.

        Returns
        -------
        Result
        """
        return cls(
            curve.name, curve, curve.cheapest(wer), curve.cheapest(PLUS_5 * wer)
        )

    def with_macs(self, by_macs: Curve | None, wer: float) -> "Result":
        """The same layers with the multiply-accumulates of another curve.

        Arguments
        ---------
        by_macs : Curve, optional
            The curve whose cost is multiply-accumulates; without it nothing
            changes.
        wer : float
            Word error rate of the last exit in percent.

        Returns
        -------
        Result
        """
        if by_macs is None:
            return self
        equal, plus = (
            by_macs.cheapest(level, "avg_macs") for level in (wer, PLUS_5 * wer)
        )
        return replace(
            self,
            equal_wer=_take_macs(self.equal_wer, equal),
            plus_5=_take_macs(self.plus_5, plus),
        )


def exit_shares(choice_N: NDArray[np.integer], exits: int) -> tuple[float, ...]:
    """Share of utterances that stop at each exit.

    Arguments
    ---------
    choice_N : array of shape (N,)
        Column of the exit that each utterance takes.
    exits : int
        Number of exits E.

    Returns
    -------
    tuple of float

    Example
    -------
    >>> exit_shares(np.array([0, 2, 2, 2]), 3)
    (0.25, 0.0, 0.75)
    """
    counts = np.bincount(choice_N, minlength=exits)
    return tuple((counts / len(choice_N)).tolist())


def _take_macs(
    point: OperatingPoint | None, by_macs: OperatingPoint | None
) -> OperatingPoint | None:
    if point is None or by_macs is None:
        return point
    return replace(point, avg_macs=by_macs.avg_macs)
