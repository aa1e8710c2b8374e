"""Ladders: the ordered candidates that a calibration chooses from.

A ladder of single thresholds goes through quantiles of the scores. A ladder
of thresholds per exit goes through the policies that minimise ``errors +
price x cost`` for a rising price: every threshold in turn is set to its
best value with the others held (backward induction over the exits,
repeated until nothing changes), so that cheap utterances may leave early
at one exit while another exit is passed by. Both run from the policy that
is always last to the one that is always first.

Axes: N utterances, E exits, T candidates, G grid values of an exit.

Authors
 * The speechbrain-ee contributors 2026
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.exits.policy import at_choice, choices_NT, reaches

CANDIDATES = 200
GRID = 64
PRICES = 48
_SWEEPS = 20


def single_ladder(
    scores_NE: NDArray[np.floating], size: int = CANDIDATES
) -> NDArray[np.float64]:
    """Candidates with one threshold for all exits.

    Arguments
    ---------
    scores_NE : array of shape (N, E)
        Scores on the calibration set.
    size : int
        Most candidates.

    Returns
    -------
    array of shape (T, E - 1)
        From always last to always first; thresholds are scores that occur.

    Example
    -------
    >>> single_ladder(np.array([[0.1, 0.4, 0.9], [0.4, 0.3, 0.9]])).tolist()
    [[inf, inf], [0.4, 0.4], [0.3, 0.3], [0.1, 0.1], [-inf, -inf]]
    """
    early = scores_NE[:, :-1]
    inner = _quantiles(early, size - 2)[::-1]
    limits_T = np.concatenate([[np.inf], inner, [-np.inf]])
    return np.repeat(limits_T[:, None], early.shape[1], axis=1)


def per_exit_ladder(
    scores_NE: NDArray[np.floating],
    errors_NE: NDArray[np.floating],
    costs_NE: NDArray[np.floating],
    prices: int = PRICES,
) -> NDArray[np.float64]:
    """Candidates with a threshold per exit.

    Arguments
    ---------
    scores_NE : array of shape (N, E)
        Scores on the data that the ladder is made from.
    errors_NE : array of shape (N, E)
        Word errors.
    costs_NE : array of shape (N, E)
        Compute.
    prices : int
        Prices to try.

    Returns
    -------
    array of shape (T, E - 1)
        From always last to always first.
    """
    search = Search.on(scores_NE)
    single_TK = single_ladder(scores_NE)
    choice_NT = choices_NT(scores_NE, single_TK)
    errors_T = at_choice(errors_NE, choice_NT).sum(axis=0)
    costs_T = at_choice(costs_NE, choice_NT).sum(axis=0)
    slope = np.ptp(errors_NE.mean(axis=0)) or 1.0
    slope /= np.ptp(costs_NE.mean(axis=0)) or 1.0
    ladder = [single_TK[0]]
    for price in slope * np.geomspace(1e-3, 1e2, prices):
        total_NE = errors_NE + price * costs_NE
        start_K = single_TK[(errors_T + price * costs_T).argmin()]
        # the better of two starts, each improved
        ends = [search.minimise(s, total_NE) for s in (start_K, ladder[-1])]
        best_K = min(ends, key=lambda end: end[0])[1]
        if not np.array_equal(best_K, ladder[-1]):
            ladder.append(best_K)
    return np.stack([*ladder, single_TK[-1]])


@dataclass(frozen=True)
class Search:
    """Search for thresholds, one exit at a time.

    Arguments
    ---------
    scores_NE : array of shape (N, E)
        Scores.
    grids : tuple of E - 1 arrays of shape (G,)
        Thresholds to try at each exit, rising, infinities included.
    """

    scores_NE: NDArray[np.floating]
    grids: tuple[NDArray[np.float64], ...]

    @classmethod
    def on(cls, scores_NE: NDArray[np.floating], size: int = GRID) -> "Search":
        """A search on quantiles of every exit's own scores.

        Arguments
        ---------
        scores_NE : array of shape (N, E)
            Scores.
        size : int
            Most grid values of an exit.

        Returns
        -------
        Search
        """
        return cls(
            scores_NE,
            tuple(
                np.concatenate([[-np.inf], _quantiles(c, size), [np.inf]])
                for c in scores_NE[:, :-1].T
            ),
        )

    @cached_property
    def reached_NK(self) -> NDArray[np.int64]:
        """How many thresholds of an exit's grid each score there reaches."""
        pairs = zip(self.scores_NE.T, self.grids)
        counts = [
            reaches(s_N[:, None], grid).sum(axis=1) for s_N, grid in pairs
        ]
        return np.stack(counts, axis=1)

    def totals(
        self,
        limits_K: NDArray[np.floating],
        exit: int,
        values_NE: NDArray[np.floating],
    ) -> NDArray[np.float64]:
        """Sum over utterances for every threshold that one exit may get.

        Arguments
        ---------
        limits_K : array of shape (E - 1,)
            Thresholds of the other exits.
        exit : int
            The exit, counted from 0.
        values_NE : array of shape (N, E)
            What is summed at the exits taken.

        Returns
        -------
        array of shape (G,)
        """
        never_K, always_K = limits_K.copy(), limits_K.copy()
        never_K[exit], always_K[exit] = np.inf, -np.inf
        choice_N2 = choices_NT(self.scores_NE, np.stack([never_K, always_K]))
        values_N2 = at_choice(values_NE, choice_N2)
        on_N, stop_N = values_N2.T
        grid = self.grids[exit]
        change = np.bincount(
            self.reached_NK[:, exit],
            weights=stop_N - on_N,
            minlength=len(grid),
        )
        return on_N.sum() + np.append(change[1:][::-1].cumsum()[::-1], 0)

    def minimise(
        self,
        start_K: NDArray[np.floating],
        values_NE: NDArray[np.floating],
        bound_NE: NDArray[np.floating] | None = None,
    ) -> tuple[float, NDArray[np.float64]]:
        """Lower a sum, one threshold after the other, to a local minimum.

        Arguments
        ---------
        start_K : array of shape (E - 1,)
            Thresholds to start from.
        values_NE : array of shape (N, E)
            What is summed over the exits taken.
        bound_NE : array of shape (N, E), optional
            What must keep a sum of at most 0, as it has at the start.

        Returns
        -------
        tuple of (float, array of shape (E - 1,))
            The sum reached, never above that of the start, and where.
        """
        limits_K = np.array(start_K, dtype=np.float64)
        choice_N1 = choices_NT(self.scores_NE, limits_K[None])
        best = float(at_choice(values_NE, choice_N1).sum())
        tolerance = 1e-9 * (1 + np.abs(values_NE).sum())
        for _ in range(_SWEEPS):
            before = best
            for exit in reversed(range(len(limits_K))):
                totals_G = self.totals(limits_K, exit, values_NE)
                if bound_NE is not None:
                    bounds_G = self.totals(limits_K, exit, bound_NE)
                    totals_G[bounds_G > 0] = np.inf
                place = int(totals_G.argmin())
                if totals_G[place] < best - tolerance:
                    best = float(totals_G[place])
                    limits_K[exit] = self.grids[exit][place]
            if best == before:
                break
        return best, limits_K


def _quantiles(values: NDArray[np.floating], size: int) -> NDArray[np.float64]:
    """At most ``size`` of the finite values, spread evenly, rising."""
    finite = np.unique(values[np.isfinite(values)])
    if len(finite) <= size:
        return finite
    spread = values[np.isfinite(values)]
    levels = np.linspace(0, 1, size)
    return np.unique(np.quantile(spread, levels, method="inverted_cdf"))
