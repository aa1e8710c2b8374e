"""Bootstrap: how far results may be off because a test set is finite.

Utterances are drawn with replacement (Efron 1979); intervals are percentiles
over the replicates. All ways of choosing exits of a set see the same draws,
and so does the last exit, so that a level like "5 % above the last exit" is
read anew, and paired, in every replicate.

Axes: B replicates, N utterances, T thresholds, E exits.

Authors
 * The speechbrain-ee contributors 2026
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.evaluation.operating_point import LEVELS, taken
from speechbrain_ee.exits.trace import Trace

REPLICATES = 200
PERCENTILES = (2.5, 97.5)
_SEED = 0
_TOLERANCE = 1e-9

Interval = tuple[float, float]


@dataclass(frozen=True)
class Replicates:
    """A family of choices on every replicate of a test set.

    Arguments
    ---------
    wer_BT : array of shape (B, T)
        Word error rates in percent.
    layer_BT : array of shape (B, T)
        Average layers.
    """

    wer_BT: NDArray[np.float64]
    layer_BT: NDArray[np.float64]

    def band(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Lower and upper end of the word error rate at each threshold.

        Returns
        -------
        low : tuple of T floats
            In percent.
        high : tuple of T floats
            In percent.
        """
        low_T, high_T = np.percentile(self.wer_BT, PERCENTILES, axis=0)
        return tuple(low_T.tolist()), tuple(high_T.tolist())


class Bootstrap:
    """The draws of a test set.

    Arguments
    ---------
    trace : Trace
        One test set.
    replicates : int
        Number of draws B.

    Example
    -------
    >>> from speechbrain_ee.exits import (
    ...     ExitRecord, Trace, TraceHeader, UtteranceRecord
    ... )
    >>> exits = (ExitRecord(2, errors=1), ExitRecord(4, errors=0))
    >>> trace = Trace(
    ...     TraceHeader("m", "greedy", (2, 4)),
    ...     (UtteranceRecord("u", "s", "a b", exits),),
    ... )
    >>> bootstrap = Bootstrap(trace)
    >>> bootstrap.replicate(np.array([[0, 1]])).band()[0]
    (50.0, 0.0)
    """

    def __init__(self, trace: Trace, replicates: int = REPLICATES) -> None:
        self.trace = trace
        count = len(trace)
        generator = np.random.default_rng(_SEED)
        self.weights_BN = np.empty((replicates, count))
        for row_N in self.weights_BN:
            drawn_N = generator.integers(0, count, count)
            row_N[:] = np.bincount(drawn_N, minlength=count)
        # a draw of utterances that all have empty references has no rate
        self.words_B = np.maximum(self.weights_BN @ trace.words_N, 1.0)

    @cached_property
    def fixed(self) -> Replicates:
        """Every utterance at the same exit, one column per exit."""
        exits = len(self.trace.layers_E)
        choice_NE = np.tile(np.arange(exits), (len(self.trace), 1))
        return self.replicate(choice_NE)

    def replicate(self, choice_NT: NDArray[np.integer]) -> Replicates:
        """Measure a family of choices on every draw.

        Arguments
        ---------
        choice_NT : array of shape (N, T)
            Column of the exit that each utterance takes.

        Returns
        -------
        Replicates
        """
        errors_NT = taken(self.trace.errors_NE, choice_NT).astype(np.float64)
        layers_NT = self.trace.layers_E[choice_NT].astype(np.float64)
        wer_BT = 100 * (self.weights_BN @ errors_NT) / self.words_B[:, None]
        return Replicates(wer_BT, self.weights_BN @ layers_NT / len(choice_NT))

    def layer_intervals(self, replicates: Replicates) -> dict[str, Interval]:
        """Intervals of the layers needed at each level.

        In every draw the cheapest choice within the level is taken.

        Arguments
        ---------
        replicates : Replicates
            The family.

        Returns
        -------
        dict of str to (low, high)
            Levels that some draw does not reach are left out.
        """
        intervals = {}
        for level, limit_B in self._limits().items():
            good_BT = replicates.wer_BT <= limit_B[:, None]
            needed_BT = np.where(good_BT, replicates.layer_BT, np.inf)
            intervals[level] = needed_BT.min(axis=1)
        return _percentiles(intervals)

    def mixture_intervals(self) -> dict[str, Interval]:
        """Intervals of the layers that a mix of two fixed exits needs.

        Returns
        -------
        dict of str to (low, high)
        """
        wer_BE, layers_E = self.fixed.wer_BT, self.trace.layers_E
        needed = {}
        for level, limit_B in self._limits().items():
            good_BE = wer_BE <= limit_B[:, None]
            best_B = np.where(good_BE, layers_E, np.inf).min(axis=1)
            for early in range(len(layers_E)):
                for late in range(early + 1, len(layers_E)):
                    # how far to go from the bad exit to the good one
                    step_B = wer_BE[:, early] - wer_BE[:, late]
                    with np.errstate(divide="ignore", invalid="ignore"):
                        share_B = (wer_BE[:, early] - limit_B) / step_B
                    mixed_B = layers_E[early] + share_B * (
                        layers_E[late] - layers_E[early]
                    )
                    crosses_B = good_BE[:, late] & ~good_BE[:, early]
                    better_B = crosses_B & (mixed_B < best_B)
                    best_B = np.where(better_B, mixed_B, best_B)
            needed[level] = best_B
        return _percentiles(needed)

    def _limits(self) -> dict[str, NDArray[np.float64]]:
        """Word error rate of each level in every draw."""
        last_B = self.fixed.wer_BT[:, -1]
        return {
            level: factor * last_B + _TOLERANCE
            for level, factor in LEVELS.items()
        }


def _percentiles(
    needed: dict[str, NDArray[np.float64]],
) -> dict[str, Interval]:
    intervals = {}
    for level, needed_B in needed.items():
        if np.isfinite(needed_B).all():
            # the tolerance of the levels shall not show
            low, high = np.percentile(needed_B, PERCENTILES).round(6).tolist()
            intervals[level] = (low, high)
    return intervals
