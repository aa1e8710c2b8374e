"""Results: what one way of choosing exits needs.

Axes: N utterances, E exits.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.evaluation.curves import Curve
from speechbrain_ee.evaluation.operating_point import LEVELS, OperatingPoint


@dataclass(frozen=True)
class Result:
    """What one way of choosing exits needs.

    Arguments
    ---------
    name : str
        Criterion, ``fixed``, ``mixture`` or ``oracle``.
    curve : Curve
        Its operating points.
    points : mapping of str to OperatingPoint or None
        By level (see :data:`LEVELS`): the cheapest point whose word error
        rate is at most the last exit's, or 1, 5, 10 % (relative) more. For
        the mixture and the oracle, which can aim at either, layers and
        multiply-accumulates are each the smallest possible.
    exit_shares : tuple of float, optional
        Share of utterances that stop at each exit at ``equal_wer``.
    gap_shares : mapping of str to float
        By level: how much of the way from the mixture of fixed exits to the
        oracle is covered, in layers; 1 is the oracle, 0 the mixture. Levels
        without such a way are left out.
    gap_shares_macs : mapping of str to float
        The same in multiply-accumulates; empty where they are not known.
    """

    name: str
    curve: Curve
    points: Mapping[str, OperatingPoint | None]
    exit_shares: tuple[float, ...] | None = None
    gap_shares: Mapping[str, float] = field(default_factory=dict)
    gap_shares_macs: Mapping[str, float] = field(default_factory=dict)

    @property
    def equal_wer(self) -> OperatingPoint | None:
        """Cheapest point no worse than the last exit."""
        return self.points["equal_wer"]

    @property
    def plus_5(self) -> OperatingPoint | None:
        """Cheapest point at most 5 % (relative) worse than the last exit."""
        return self.points["plus_5"]

    @property
    def layer_intervals(self) -> Mapping[str, tuple[float, float]]:
        """By level: 95 % interval of the average layer needed."""
        return self.curve.layer_intervals

    @classmethod
    def at_levels(cls, curve: Curve, wer: float) -> "Result":
        """Read a curve at the levels that tables show.

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
        points = {
            level: curve.cheapest(factor * wer)
            for level, factor in LEVELS.items()
        }
        return cls(curve.name, curve, points)

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
        points = {
            level: _take_macs(
                self.points[level], by_macs.cheapest(factor * wer, "avg_macs")
            )
            for level, factor in LEVELS.items()
        }
        return replace(self, points=points)

    def with_gap(self, mixture: "Result", oracle: "Result") -> "Result":
        """The same with the share of the way from mixture to oracle.

        Arguments
        ---------
        mixture : Result
            What looks at no utterance.
        oracle : Result
            What knows the errors.

        Returns
        -------
        Result
        """
        layers, macs = (
            {
                level: share
                for level in LEVELS
                if (share := _covered(self, mixture, oracle, level, axis))
                is not None
            }
            for axis in ("avg_layer", "avg_macs")
        )
        return replace(self, gap_shares=layers, gap_shares_macs=macs)


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


def _covered(
    result: Result, mixture: Result, oracle: Result, level: str, axis: str
) -> float | None:
    """(mixture - result) / (mixture - oracle) in one cost at one level."""
    costs = []
    for each in (mixture, result, oracle):
        point = each.points[level]
        cost = None if point is None else getattr(point, axis)
        if cost is None:
            return None
        costs.append(cost)
    blind, reached, best = costs
    if blind <= best:
        return None
    return (blind - reached) / (blind - best)
