"""Criteria that do not look at the utterance: what the others must beat.

Axes: N utterances, E exits.

Authors
 * The speechbrain-ee contributors 2026
"""

from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.exits.criteria.registry import criterion
from speechbrain_ee.exits.evidence import Evidence


@criterion(
    "fixed",
    formula="k, the number of the exit",
    source="a fixed exit",
    baseline=True,
)
def fixed(evidence: Evidence) -> NDArray[np.float64]:
    """The number of the exit: threshold k stops everything at exit k.

    Arguments
    ---------
    evidence : Evidence
        Only its shape matters.

    Returns
    -------
    array of shape (N, E)
    """
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

    Arguments
    ---------
    evidence : Evidence
        Only its names and layers matter.

    Returns
    -------
    array of shape (N, E)
        Uniform in [0, 1).
    """
    layers = [int(layer) for layer in evidence.layers_E]
    drawn = [[_uniform(id, layer) for layer in layers] for id in evidence.ids]
    return np.array(drawn, dtype=np.float64).reshape(evidence.shape)


def _uniform(id: str, layer: int) -> float:
    digest = blake2b(f"{layer} {id}".encode(), digest_size=8).digest()
    # 53 bits are what a double holds: the largest value stays below 1
    return (int.from_bytes(digest, "big") >> 11) / 2**53
