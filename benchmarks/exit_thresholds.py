"""Thresholds read off a set, and thresholds that other speakers give.

Axes: N utterances, E exits, T thresholds, K exits but the last.

Authors
 * The speechbrain-ee contributors 2026
"""

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.exits.calibration.ladder import Search
from speechbrain_ee.exits.policy import at_choice, choices_NT
from speechbrain_ee.exits.trace import Trace

# Word errors that are allowed, in those of the last exit.
LEVELS = {"equal_wer": 1.0, "plus_1": 1.01, "plus_5": 1.05, "plus_10": 1.1}
PRICES = 48


def threshold(
    trace: Trace, scores_NE: NDArray[np.float64], factor: float
) -> float:
    """The threshold with the fewest layers at most ``factor`` as many errors."""
    reached_N = np.maximum.accumulate(scores_NE[:, :-1], axis=1)
    limits = np.append(np.quantile(reached_N, np.linspace(0, 1, 1000)), np.inf)
    choice_NT = choices_NT(scores_NE, limits)
    errors_T = at_choice(trace.errors_NE, choice_NT).sum(axis=0)
    layers_T = trace.layers_E[choice_NT].mean(axis=0)
    good = errors_T <= factor * trace.errors_NE[:, -1].sum() + 1e-9
    return float(limits[good][layers_T[good].argmin()])


def per_exit(
    trace: Trace, scores_NE: NDArray[np.float64], folds: int
) -> dict[str, float]:
    """Layers with a threshold per exit, each vector from other speakers."""
    fold_N = trace.clusters.folds(folds)
    errors_NE = trace.errors_NE.astype(float)
    layers_NE = np.broadcast_to(trace.layers_E.astype(float), errors_NE.shape)
    totals = np.zeros((PRICES, 2))
    for fold in np.unique(fold_N):
        seen, rows = fold_N != fold, fold_N == fold
        search = Search.on(scores_NE[seen])
        limits_K = np.full(errors_NE.shape[1] - 1, np.inf)
        for place, price in enumerate(np.geomspace(1e-3, 1.0, PRICES)):
            total_NE = errors_NE[seen] + price * layers_NE[seen]
            _, limits_K = search.minimise(limits_K, total_NE)
            choice_N1 = choices_NT(scores_NE[rows], limits_K[None])
            for column, values_NE in enumerate((layers_NE, errors_NE)):
                sum_ = at_choice(values_NE[rows], choice_N1).sum()
                totals[place, column] += sum_
    depth, last = float(trace.layers_E[-1]), errors_NE[:, -1].sum()
    layers_T = np.append(totals[:, 0] / len(trace), depth)
    errors_T = np.append(totals[:, 1], last)
    return {
        level: float(layers_T[errors_T <= factor * last + 1e-9].min())
        for level, factor in LEVELS.items()
    }
