"""Criteria that wait until successive exits agree.

The window rule (after Berrebbi et al. 2023, arXiv 2211.08989): keep a window
of exits, at first the first one. D is the largest distance from the new exit
to the window. If D <= tau the new exit joins the window, else it takes the
place of the oldest member. Stop at P + 1 members, with the newest.

As a criterion with a threshold: the score of an exit is -tau for the smallest
tau with which the rule has stopped at or before it. The window is always the
last L exits, and L grows with tau. So with T_k(L) the smallest tau for a
window of at least L members after exit k,

    T_(k+1)(L) = min(T_k(L), max(T_k(L - 1), D_(k+1)(L - 1)))

where D_(k+1)(L) is the largest distance to the L exits before; T_1(1) is
minus infinity, T_1(L > 1) infinity.

Axes: N utterances, E exits.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.exits.criteria.registry import criterion
from speechbrain_ee.exits.evidence import Evidence

# Lags at which distances between output distributions are recorded.
LAGS = (1, 2, 3, 4)
PATIENCE = "after Berrebbi et al. 2023, arXiv 2211.08989, patience"
RULE = "-(least tau for P + 1 members: join if max distance <= tau, else slide)"

Distances = Callable[[int], NDArray[np.floating]]


@criterion(
    "agreement",
    needs=("transcripts",),
    formula="-CER(transcript, transcript of the previous exit), at least -1",
    source="after Zhou et al. 2020, arXiv 2006.04152, patience 1",
)
def agreement(evidence: Evidence) -> NDArray[np.float64]:
    """How little the transcript has changed since the previous exit.

    Arguments
    ---------
    evidence : Evidence
        With transcripts.

    Returns
    -------
    array of shape (N, E)
        0 where nothing has changed, -1 where everything has or nothing was
        recognised; NaN at the first exit.
    """
    return -_transcript_distance(evidence, 1)


@criterion(
    "patience_transcript",
    needs=("transcripts",),
    formula=f"{RULE}; distance: CER, at most 1",
    source=PATIENCE,
    ranges={"patience": (1, 100)},
)
def patience_transcript(
    evidence: Evidence, *, patience: int = 2
) -> NDArray[np.float64]:
    """Patience with the distance between transcripts.

    Arguments
    ---------
    evidence : Evidence
        With transcripts.
    patience : int
        Exits that must agree with those before, P.

    Returns
    -------
    array of shape (N, E)
        Minus infinity before exit P + 1.
    """
    return window_scores(
        lambda lag: _transcript_distance(evidence, lag),
        evidence.shape,
        patience,
    )


@criterion(
    "patience_distribution",
    needs=lambda patience: tuple(
        f"cross_entropy_{lag}" for lag in range(1, patience + 1)
    ),
    formula=f"{RULE}; distance: cross-entropy of output distributions",
    source=PATIENCE,
    ranges={"patience": (1, max(LAGS))},
)
def patience_distribution(
    evidence: Evidence, *, patience: int = 2
) -> NDArray[np.float64]:
    """Patience with the distance between output distributions.

    Arguments
    ---------
    evidence : Evidence
        With ``cross_entropy_1`` to ``cross_entropy_P``.
    patience : int
        Exits that must agree with those before, P; 4 in the source.

    Returns
    -------
    array of shape (N, E)
        Minus infinity before exit P + 1.
    """
    return window_scores(
        lambda lag: evidence.column(f"cross_entropy_{lag}"),
        evidence.shape,
        patience,
    )


def window_scores(
    distances: Distances, shape: tuple[int, int], patience: int
) -> NDArray[np.float64]:
    """Scores of the window rule for every tau at once.

    Arguments
    ---------
    distances : callable
        From a lag to the distances between each exit and the one so many
        earlier, shape (N, E); only columns from the lag on are read.
    shape : tuple of int
        Utterances and exits.
    patience : int
        P: the rule stops at P + 1 members.

    Returns
    -------
    array of shape (N, E)
        ``score >= -tau`` from the exit on at which the rule with tau stops.

    Example
    -------
    >>> change = {1: np.array([[np.nan, 0.3, 0.1, 0.2]])}
    >>> (-window_scores(change.__getitem__, (1, 4), 1)).tolist()
    [[inf, 0.3, 0.1, 0.1]]
    """
    rows, exits = shape
    by_lag = {
        lag: np.asarray(distances(lag), dtype=np.float64)
        for lag in range(1, min(patience, exits - 1) + 1)
    }
    # least tau for a window of L members, L = 1 to P + 1
    least = [np.full(rows, np.inf) for _ in range(patience + 1)]
    least[0] = np.full(rows, -np.inf)
    scores_NE = np.full(shape, -np.inf)
    for place in range(1, exits):
        reached, worst_N = [least[0]], np.full(rows, -np.inf)
        for members in range(1, min(patience, place) + 1):
            worst_N = np.maximum(worst_N, by_lag[members][:, place])
            joined_N = np.maximum(least[members - 1], worst_N)
            reached.append(np.minimum(least[members], joined_N))
        least = reached + least[len(reached) :]
        scores_NE[:, place] = -least[patience]
    return scores_NE


def _transcript_distance(evidence: Evidence, lag: int) -> NDArray[np.float64]:
    """CER between exits; at most 1, what nothing recognised counts as.

    A short early transcript would make it larger, but a change of everything
    is not less of an agreement than an empty transcript.
    """
    return np.minimum(evidence.change_NE(lag), 1.0)
