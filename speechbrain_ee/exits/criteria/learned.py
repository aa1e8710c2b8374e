"""The criterion of the learned selector: scores that it gave a trace.

The selector itself is :mod:`speechbrain_ee.exits.selector.learned`.

Axes: N utterances, E exits.

Authors
 * The speechbrain-ee contributors 2026
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.exits.criteria.registry import criterion
from speechbrain_ee.exits.evidence import Evidence

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
    """Scores that a learned selector gave a trace.

    Arguments
    ---------
    evidence : Evidence
        With ``learned``.

    Returns
    -------
    array of shape (N, E)
    """
    return evidence.column("learned")
