"""Do new data look like the data that a policy was calibrated on?

A guarantee speaks of data of the same kind. Scores need no transcript, so
they can be compared anywhere: a policy file stores, for every exit, the
distribution of the scores on its calibration set, and the two-sample
Kolmogorov-Smirnov statistic (the largest difference between two cumulative
distributions) tells whether new scores could come from it. Its asymptotic
critical value ``sqrt(-ln(a/2)/2 (n+m)/(nm))``, with a = 1 % shared by the
exits, holds for scores with ties as well, where it is conservative.

The other way round, a test on the calibration data itself says nothing. A
policy file therefore keeps a *fingerprint*: hashes of some of the utterances
that it was calibrated on, by which they are found again.

Axes: N utterances, E exits.

Authors
 * The speechbrain-ee contributors 2026
"""

import hashlib
import json
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.calibration.policy_file import (
    ExitPolicy,
    ScoreDistribution,
)
from speechbrain_ee.exits.criteria import get_criterion
from speechbrain_ee.exits.evidence import Evidence
from speechbrain_ee.exits.trace import UtteranceRecord

_FALSE_ALARMS = 0.01
# smaller differences do not matter, however certain they are
_SMALLEST_EFFECT = 0.05
_FINGERPRINT = 64  # utterances


def distributions(
    scores_NE: NDArray[np.floating],
) -> tuple[ScoreDistribution, ...]:
    """What a policy stores of the scores at every exit but the last."""
    return tuple(ScoreDistribution.of(c) for c in scores_NE[:, :-1].T)


def score_warnings(
    stored: Sequence[ScoreDistribution],
    utterances: int,
    scores_NE: NDArray[np.floating],
    exit_layers: Sequence[int],
) -> list[str]:
    """A sentence on the exit that differs most from what is stored of so
    many utterances; none if no difference stands out.
    """
    new = len(scores_NE)
    if not stored or not new:
        return []
    alarm = _FALSE_ALARMS / len(stored)
    critical = math.sqrt(-math.log(alarm / 2) / 2 * (1 / utterances + 1 / new))
    limit = max(critical, _SMALLEST_EFFECT)
    found = []
    for layer, each, scores_N in zip(exit_layers, stored, scores_NE.T):
        change, score = each.distance(scores_N)
        if abs(change) > limit:
            before = each.shares[each.scores.index(score)]
            found.append((abs(change), change, score, layer, before))
    if not found:
        return []
    _, change, score, layer, before = max(found, key=lambda item: item[0])
    direction = "less" if change > 0 else "more"
    return [
        f"The data look different from the calibration data: at layer "
        f"{layer}, {before + change:.0%} of the utterances score at most "
        f"{score:.4g} where {before:.0%} did (Kolmogorov-Smirnov distance "
        f"{abs(change):.2f}, limit {limit:.2f}; {len(found)} of "
        f"{len(stored)} exits differ). They are {direction} ready to "
        f"stop than the calibration data, so the stated guarantee may not "
        f"hold; calibrate on data like these."
    ]


def shift_warnings(policy: ExitPolicy, evidence: Evidence) -> list[str]:
    """Sentences on how data differ from what a policy was calibrated on."""
    layers = tuple(evidence.layers_E.tolist())
    if layers != tuple(policy.exit_layers):
        raise InputError(
            f"{evidence.source}: exits after layers {list(layers)}, but the "
            f"policy is for {list(policy.exit_layers)}; use a policy that was "
            f"calibrated on a trace of this model."
        )
    if not policy.distributions:
        return []
    return score_warnings(
        policy.distributions,
        policy.calibration.utterances,
        get_criterion(policy.criterion).scores(evidence),
        layers,
    )


def fingerprint(records: Sequence[UtteranceRecord]) -> tuple[str, ...]:
    """The smallest hashes of some utterances: a sample that depends neither
    on their order nor on what was measured on them.
    """
    return tuple(sorted({*map(_hash, records)})[:_FINGERPRINT])


def seen_share(
    known: Sequence[str], records: Sequence[UtteranceRecord]
) -> float:
    """Estimated share of the calibration data that is in a set, from a
    policy's fingerprint; 0 where so few are there that it may be chance.
    """
    found = len({*known} & {*map(_hash, records)})
    return found / len(known) if found > len(known) * _SMALLEST_EFFECT else 0.0


def seen_warnings(share: float) -> list[str]:
    """A sentence if a policy was calibrated on this share of a set."""
    if not share:
        return []
    return [
        f"It was calibrated on this data ({share:.0%} of its calibration "
        f"utterances are here), so what it reaches here is no test of its "
        f"budget; measure it on other data."
    ]


def _hash(record: UtteranceRecord) -> str:
    seconds = record.duration_s and round(record.duration_s, 3)
    told = json.dumps([record.id, record.ref, seconds])
    return hashlib.sha256(told.encode()).hexdigest()[:8]
