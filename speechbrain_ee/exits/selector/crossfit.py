"""Cross-fitting: scores of utterances from models that never saw them.

Axes: N utterances, E exits.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.exits.evidence import Evidence
from speechbrain_ee.exits.trace import Trace

Scorer = Callable[[Evidence], NDArray[np.float64]]


def speakers(ids: Sequence[str]) -> tuple[str, ...]:
    """Speaker of each utterance, after LibriSpeech's way of naming.

    Arguments
    ---------
    ids : sequence of str
        Names such as ``speaker-chapter-number``.

    Returns
    -------
    tuple of str
        What stands before the first hyphen; the whole name if that is the
        same for all, so that utterances can still be told apart.

    Example
    -------
    >>> speakers(["6930-75918-0000", "utt7"])
    ('6930', 'utt7')
    """
    names = tuple(id.partition("-")[0] for id in ids)
    return names if len(set(names)) > 1 else tuple(ids)


def folds_by_group(groups: Sequence[str], folds: int) -> NDArray[np.int64]:
    """Deal whole groups to folds of nearly equal size.

    Arguments
    ---------
    groups : sequence of str
        Group of each utterance.
    folds : int
        How many folds; fewer if there are fewer groups.

    Returns
    -------
    array of shape (N,)
        Fold of each utterance, counted from 0.

    Example
    -------
    >>> folds_by_group(["a", "a", "b", "c", "a"], 2).tolist()
    [0, 0, 1, 1, 0]
    """
    names, counts = np.unique(np.asarray(groups), return_counts=True)
    sizes = np.zeros(min(folds, len(names)))
    fold_of = {}
    # largest first, each to the fold that has least
    for place in np.argsort(-counts, kind="stable"):
        fold = int(sizes.argmin())
        fold_of[names[place]] = fold
        sizes[fold] += counts[place]
    return np.array([fold_of[group] for group in groups], dtype=np.int64)


def cross_fitted(
    trace: Trace, fit: Callable[[Trace], Scorer], folds: int
) -> NDArray[np.float64]:
    """Scores from models that were fitted to other speakers.

    Arguments
    ---------
    trace : Trace
        The utterances.
    fit : callable
        From a part of the trace to a function that scores evidence.
    folds : int
        Parts that the speakers are dealt to.

    Returns
    -------
    array of shape (N, E)
    """
    fold_N = folds_by_group(speakers(trace.ids), folds)
    scores_NE = np.full(trace.evidence.shape, np.nan)
    for fold in np.unique(fold_N):
        scorer = fit(trace.select(np.flatnonzero(fold_N != fold).tolist()))
        rows = np.flatnonzero(fold_N == fold)
        scores_NE[rows] = scorer(trace.evidence.select(rows))
    return scores_NE
