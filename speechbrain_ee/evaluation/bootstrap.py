"""Bootstrap: how far results may be off because a test set is finite.

Speakers are drawn with replacement, each with all its utterances (the
cluster bootstrap of Davison & Hinkley 1997, section 3.8); where a trace names
none, utterances are drawn (Efron 1979), and the interval is one for other
utterances of the same people. Intervals are percentiles over the replicates,
a little further out than 2.5 and 97.5 where there are few speakers: a spread
estimated from G of them is too small by sqrt((G - 1)/G), and Student's t is
wider than the normal distribution (Hesterberg 2015, "expanded percentiles").

All ways of choosing exits of a set see the same draws, and so does the last
exit, so that a level like "5 % above the last exit" is read anew, and paired,
in every replicate. Draws depend on who is drawn: the same speakers are drawn
together in every trace, different sets independently of each other.

Axes: B replicates, N utterances, G clusters, T thresholds, E exits.

Authors
 * The speechbrain-ee contributors 2026
"""

import zlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtrit

from speechbrain_ee.evaluation.operating_point import LEVELS
from speechbrain_ee.exits.policy import at_choice
from speechbrain_ee.exits.trace import Trace

REPLICATES = 200
_OUTSIDE = 0.05  # what a 95 % interval leaves out
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
    percentiles : tuple of (float, float)
        Of the ends of an interval.
    """

    wer_BT: NDArray[np.float64]
    layer_BT: NDArray[np.float64]
    percentiles: Interval

    def band(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Lower and upper end of the word error rate at each threshold.

        Returns
        -------
        low : tuple of T floats
            In percent.
        high : tuple of T floats
            In percent.
        """
        low_T, high_T = np.percentile(self.wer_BT, self.percentiles, axis=0)
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
        self.trace, self.clusters = trace, trace.clusters
        count = self.clusters.count
        self.percentiles = percentiles(count)
        # in the order of the names: that of the trace shall not matter
        order_G = np.argsort(np.array(self.clusters.names), kind="stable")
        seed = zlib.crc32("\n".join(sorted(self.clusters.names)).encode())
        generator = np.random.default_rng(seed)
        self.weights_BG = np.empty((replicates, count))
        for row_G in self.weights_BG:
            drawn_G = generator.integers(0, count, count)
            row_G[order_G] = np.bincount(drawn_G, minlength=count)
        # a draw of utterances that all have empty references has no rate
        self.words_B = np.maximum(self.total(trace.words_N), 1.0)
        self.sizes_B = self.weights_BG @ self.clusters.sizes_G

    def total(self, values_N: NDArray[np.number]) -> NDArray[np.float64]:
        """Sum over the utterances of every draw.

        Arguments
        ---------
        values_N : array of shape (N, ...)
            Values by utterance.

        Returns
        -------
        array of shape (B, ...)
        """
        sums_G = self.clusters.sums(np.asarray(values_N, dtype=np.float64))
        return self.weights_BG @ sums_G

    def rate(self, errors_N: NDArray[np.number]) -> NDArray[np.float64]:
        """Errors per word of every draw, in percent.

        Arguments
        ---------
        errors_N : array of shape (N, ...)
            Word errors, or differences of them.

        Returns
        -------
        array of shape (B, ...)
        """
        return 100 * (self.total(errors_N).T / self.words_B).T

    def mean(self, values_N: NDArray[np.number]) -> NDArray[np.float64]:
        """Average over the utterances of every draw.

        Arguments
        ---------
        values_N : array of shape (N, ...)
            Values by utterance.

        Returns
        -------
        array of shape (B, ...)
        """
        return (self.total(values_N).T / self.sizes_B).T

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
        return Replicates(
            self.rate(at_choice(self.trace.errors_NE, choice_NT)),
            self.mean(self.trace.layers_E[choice_NT]),
            self.percentiles,
        )

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
        return self._intervals(intervals)

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
        return self._intervals(needed)

    def _limits(self) -> dict[str, NDArray[np.float64]]:
        """Word error rate of each level in every draw."""
        last_B = self.fixed.wer_BT[:, -1]
        return {
            level: factor * last_B + _TOLERANCE
            for level, factor in LEVELS.items()
        }

    def _intervals(
        self, needed: dict[str, NDArray[np.float64]]
    ) -> dict[str, Interval]:
        intervals = {}
        for level, needed_B in needed.items():
            if np.isfinite(needed_B).all():
                # the tolerance of the levels shall not show
                ends = np.percentile(needed_B, self.percentiles).round(6)
                intervals[level] = tuple(ends.tolist())
        return intervals


def percentiles(clusters: int) -> Interval:
    """Ends of a 95 % interval among replicates.

    Arguments
    ---------
    clusters : int
        How many G are drawn.

    Returns
    -------
    tuple of (float, float)
        In percent, with the normal distribution's share beyond
        ``t sqrt(G/(G - 1))``, t of Student's distribution with G - 1 degrees
        of freedom; the extremes for a single cluster.

    Example
    -------
    >>> [round(percentiles(g)[0], 2) for g in (2, 10, 40, 2000)]
    [0.0, 0.86, 2.03, 2.49]
    """
    if clusters < 2:
        return 0.0, 100.0
    t = -stdtrit(clusters - 1, _OUTSIDE / 2)
    low = 100 * float(ndtr(-t * np.sqrt(clusters / (clusters - 1))))
    return low, 100 - low
