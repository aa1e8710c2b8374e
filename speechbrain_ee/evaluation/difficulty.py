"""Where easy and hard utterances stop.

Axes: N utterances, E exits, G groups of difficulty.

Authors
 * The speechbrain-ee contributors 2026
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.exits.oracle import earliest_best
from speechbrain_ee.exits.trace import Trace

NAMES = ("easy", "medium", "hard")


@dataclass(frozen=True)
class DifficultyHistogram:
    """Exits taken by utterances of one difficulty.

    Arguments
    ---------
    names : tuple of G str
        ``easy``, ``medium``, ``hard``; groups without utterances left out.
    counts : tuple of G int
        Utterances of each group.
    shares : tuple of G tuples of E floats
        Share of the group's utterances that stop at each exit.
    oracle_shares : tuple of G tuples of E floats
        The same for the earliest best exit.
    avg_layer : tuple of G floats
        Average layer of each group.
    oracle_avg_layer : tuple of G floats
        The same for the earliest best exit.
    """

    names: tuple[str, ...]
    counts: tuple[int, ...]
    shares: tuple[tuple[float, ...], ...]
    oracle_shares: tuple[tuple[float, ...], ...]
    avg_layer: tuple[float, ...]
    oracle_avg_layer: tuple[float, ...]


def difficulty_groups(trace: Trace) -> NDArray[np.int64]:
    """Thirds of a test set by word errors per word, averaged over exits.

    Utterances of equal rate are of equal difficulty, so that groups are
    thirds only as far as ties allow: where most utterances are recognised
    without an error at every exit, they all are easy.

    Arguments
    ---------
    trace : Trace
        One test set.

    Returns
    -------
    array of shape (N,)
        0 easy, 1 medium, 2 hard.
    """
    words_N = np.maximum(trace.words_N, 1)
    # exact: a sum of integers by an integer, equal rates are equal floats
    rate_N = trace.errors_NE.sum(axis=1) / words_N
    limits = np.quantile(rate_N, (1 / 3, 2 / 3), method="lower")
    return np.searchsorted(limits, rate_N, side="left")


def difficulty_histogram(
    trace: Trace, choice_N: NDArray[np.integer]
) -> DifficultyHistogram:
    """Count the exits taken in each group.

    Arguments
    ---------
    trace : Trace
        One test set.
    choice_N : array of shape (N,)
        Column of the exit that each utterance takes.

    Returns
    -------
    DifficultyHistogram
    """
    group_N = difficulty_groups(trace)
    best_N = earliest_best(trace.errors_NE)
    present = [g for g in range(len(NAMES)) if (group_N == g).any()]
    exits = len(trace.layers_E)

    def shares(chosen_N: NDArray[np.integer]) -> NDArray[np.float64]:
        counts_GE = np.zeros((len(NAMES), exits))
        np.add.at(counts_GE, (group_N, chosen_N), 1)
        counts_GE = counts_GE[present]
        return counts_GE / counts_GE.sum(axis=1, keepdims=True)

    shares_GE, oracle_GE = shares(choice_N), shares(best_N)
    return DifficultyHistogram(
        names=tuple(NAMES[g] for g in present),
        counts=tuple(int((group_N == g).sum()) for g in present),
        shares=tuple(map(tuple, shares_GE.tolist())),
        oracle_shares=tuple(map(tuple, oracle_GE.tolist())),
        avg_layer=tuple((shares_GE @ trace.layers_E).tolist()),
        oracle_avg_layer=tuple((oracle_GE @ trace.layers_E).tolist()),
    )
