"""Combinations of criteria as weighted z-scores.

Axes: N utterances, E exits.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.criteria.criterion import per_entry
from speechbrain_ee.exits.criteria.registry import criterion, get_criterion
from speechbrain_ee.exits.evidence import Evidence
from speechbrain_ee.exits.trace import Trace

# Scores further out say no more, and minus infinity has a place among them.
_LIMIT = 6.0


@dataclass(frozen=True)
class ZScores:
    """Weighted sum of the z-scores of several criteria.

    Arguments
    ---------
    weights : mapping of str to float
        By criterion; positive.
    means : mapping of str to float
        Mean of each criterion's scores on development data.
    scales : mapping of str to float
        Their standard deviation.

    Example
    -------
    >>> import speechbrain_ee.exits.criteria  # all of them
    >>> evidence = Evidence(
    ...     np.array([2, 4]), ["u1"], {"max_prob": np.array([[0.8, 0.9]])}
    ... )
    >>> combined = ZScores({"max_prob": 1.0}, {"max_prob": 0.8}, {"max_prob": 0.1})
    >>> combined.scores(evidence).round(6).tolist()
    [[0.0, 1.0]]
    """

    weights: Mapping[str, float]
    means: Mapping[str, float]
    scales: Mapping[str, float]

    @classmethod
    def fit(
        cls, trace: Trace, weights: Mapping[str, float] | Sequence[str]
    ) -> "ZScores":
        """Take means and deviations from a development trace.

        Arguments
        ---------
        trace : Trace
            With the evidence of all criteria.
        weights : mapping of str to float, or sequence of str
            Weights by criterion; names alone weigh the same.

        Returns
        -------
        ZScores

        Raises
        ------
        InputError
            If a criterion is unknown, has no evidence or a weight that is
            not positive, or if none is given.
        """
        if not isinstance(weights, Mapping):
            weights = dict.fromkeys(weights, 1.0)
        if not weights:
            raise InputError("weights: name at least one criterion.")
        means, scales = {}, {}
        for name, weight in weights.items():
            if not weight > 0:
                raise InputError(
                    f"weights: {name} has {weight}; scores are higher where "
                    f"an exit is more ready, so a weight is positive."
                )
            scores_NE = get_criterion(name).scores(trace.evidence)
            known = scores_NE[np.isfinite(scores_NE)]
            means[name] = float(known.mean()) if known.size else 0.0
            scales[name] = float(known.std()) if known.size else 0.0
        return cls(dict(weights), means, scales)

    def scores(self, evidence: Evidence) -> NDArray[np.float64]:
        """The weighted sum at every exit.

        Arguments
        ---------
        evidence : Evidence
            With the evidence of all criteria.

        Returns
        -------
        array of shape (N, E)
        """
        total_NE = np.zeros(evidence.shape)
        for name, weight in self.weights.items():
            scores_NE = get_criterion(name).scores(evidence)
            scale = self.scales[name] or 1.0
            z_NE = (scores_NE - self.means[name]) / scale
            total_NE += weight * np.clip(z_NE, -_LIMIT, _LIMIT)
        return total_NE


@criterion(
    "combination",
    needs=("combination",),
    formula="sum_c w_c (score_c - mean_c) / deviation_c",
    source="weighted z-scores; Kittler et al. 1998, IEEE TPAMI 20(3), sum rule",
    cost=per_entry(1),  # of the entropy in it
)
def combination(evidence: Evidence) -> NDArray[np.floating]:
    """Scores that a combination gave a trace.

    Arguments
    ---------
    evidence : Evidence
        With ``combination``.

    Returns
    -------
    array of shape (N, E)
    """
    return evidence.column("combination")
