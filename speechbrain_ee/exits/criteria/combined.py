"""Criteria that combine others, and the baselines that all must beat.

Combinations are weighted z-scores, or scores of the learned selector
(:mod:`speechbrain_ee.exits.selector.selector`).

Axes: N utterances, E exits.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.criteria.registry import (
    criterion,
    get_criterion,
    per_entry,
)
from speechbrain_ee.exits.evidence import Evidence
from speechbrain_ee.exits.trace import Trace

# What the selector reads of the frames: measures that share one pass over the
# probabilities. The others cost several times as much, and no gain from them
# was measured.
LIGHT = (
    "entropy",
    "entropy_nonblank",
    "max_prob_nonblank",
    "margin_nonblank",
)
# Three networks at a word, three words a second.
_MACS_PER_S = 37500
# Scores further out say no more, and minus infinity has a place among them.
_LIMIT = 6.0


@dataclass(frozen=True)
class ZScores:
    """Weighted sum of the z-scores of several criteria."""

    weights: Mapping[str, float]
    means: Mapping[str, float]
    scales: Mapping[str, float]

    @classmethod
    def fit(
        cls, trace: Trace, weights: Mapping[str, float] | Sequence[str]
    ) -> "ZScores":
        """Take means and deviations from a development trace."""
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
        """The weighted sum at every exit."""
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
    """Scores that a combination gave a trace."""
    return evidence.column("combination")


def _cost(frames: Any, vocab: int, frames_per_s: float = 25.0) -> Any:
    macs = round(_MACS_PER_S / frames_per_s)  # of the words, by frame
    return len(LIGHT) * frames * vocab + macs * frames


@criterion(
    "learned",
    needs=("learned",),
    formula="-max_(q>k) E[errors_k - errors_q] / (layers_q - layers_k)",
    source="this project; value of going on, after Weitzman 1979",
    cost=_cost,
)
def learned(evidence: Evidence) -> NDArray[np.floating]:
    """Scores that a learned selector gave a trace."""
    return evidence.column("learned")


@criterion(
    "fixed",
    formula="k, the number of the exit",
    source="a fixed exit",
    baseline=True,
)
def fixed(evidence: Evidence) -> NDArray[np.float64]:
    """The number of the exit: threshold k stops everything at exit k."""
    rows, exits = evidence.shape
    return np.tile(np.arange(1.0, exits + 1), (rows, 1))


@criterion(
    "random",
    formula="uniform in [0, 1), a hash of utterance and exit layer",
    source="a random exit",
    baseline=True,
)
def random(evidence: Evidence) -> NDArray[np.float64]:
    """A number drawn for every utterance and exit.

    The same in every process and every batch: it is a hash, not the state
    of a generator.
    """
    layers = [int(layer) for layer in evidence.layers_E]
    drawn = [[_uniform(id, layer) for layer in layers] for id in evidence.ids]
    return np.array(drawn, dtype=np.float64).reshape(evidence.shape)


def _uniform(id: str, layer: int) -> float:
    digest = blake2b(f"{layer} {id}".encode(), digest_size=8).digest()
    # 53 bits are what a double holds: the largest value stays below 1
    return (int.from_bytes(digest, "big") >> 11) / 2**53
