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

Axes: N utterances, E exits, Q stored scores.

Authors
 * The speechbrain-ee contributors 2026
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.criteria import get_criterion
from speechbrain_ee.exits.evidence import Evidence
from speechbrain_ee.exits.trace import UtteranceRecord

KNOTS = 33
FALSE_ALARMS = 0.01
# smaller differences do not matter, however certain they are
SMALLEST_EFFECT = 0.05
FINGERPRINT = 64  # utterances


@dataclass(frozen=True)
class ScoreDistribution:
    """The scores of one exit on a calibration set, summarised.

    Arguments
    ---------
    scores : tuple of Q float
        Quantiles that differ, rising.
    shares : tuple of Q float
        Share of the utterances with at most that score.

    Example
    -------
    >>> ScoreDistribution.of(np.array([3.0, 1.0, 1.0, 2.0]))
    ScoreDistribution(scores=(1.0, 2.0, 3.0), shares=(0.5, 0.75, 1.0))
    """

    scores: tuple[float, ...]
    shares: tuple[float, ...]

    @classmethod
    def of(cls, scores_N: NDArray[np.floating]) -> "ScoreDistribution":
        """Summarise scores.

        Arguments
        ---------
        scores_N : array of shape (N,)
            Scores of an exit.

        Returns
        -------
        ScoreDistribution
        """
        ordered_N = np.sort(np.asarray(scores_N, dtype=np.float64))
        places = np.linspace(0, len(ordered_N) - 1, KNOTS).round().astype(int)
        # six digits are enough: shares are those of the rounded scores
        knots = np.unique([float(f"{s:.6g}") for s in ordered_N[places]])
        knots += 0.0  # no negative zero in a file
        return cls(
            tuple(knots.tolist()),
            tuple(
                round(float(share), 6) for share in _shares(ordered_N, knots)
            ),
        )

    def distance(self, scores_N: NDArray[np.floating]) -> tuple[float, float]:
        """Largest difference of the cumulative distributions.

        Arguments
        ---------
        scores_N : array of shape (N,)
            New scores.

        Returns
        -------
        tuple of (float, float)
            The difference (new minus stored share of utterances with at
            most that score; positive: the new data are less ready), and the
            score where it is.
        """
        ordered_N = np.sort(np.asarray(scores_N, dtype=np.float64))
        knots = np.array(self.scores)
        change = _shares(ordered_N, knots) - np.array(self.shares)
        place = int(np.abs(change).argmax())
        return float(change[place]), float(knots[place])


class HasDistributions(Protocol):
    """A policy that remembers the scores of its calibration set."""

    @property
    def criterion(self) -> str:
        """Name of the criterion."""

    @property
    def exit_layers(self) -> tuple[int, ...]:
        """Encoder layer of each exit."""

    @property
    def distributions(self) -> tuple[ScoreDistribution, ...]:
        """Of the scores at every exit but the last; may be empty."""

    @property
    def calibration_utterances(self) -> int:
        """Utterances that they come from."""


def distributions(
    scores_NE: NDArray[np.floating],
) -> tuple[ScoreDistribution, ...]:
    """What a policy stores of the scores of its calibration set.

    Arguments
    ---------
    scores_NE : array of shape (N, E)
        Scores.

    Returns
    -------
    tuple of E - 1 ScoreDistribution
        The last exit decides nothing.
    """
    return tuple(ScoreDistribution.of(c) for c in scores_NE[:, :-1].T)


def score_warnings(
    stored: Sequence[ScoreDistribution],
    utterances: int,
    scores_NE: NDArray[np.floating],
    exit_layers: Sequence[int],
) -> list[str]:
    """Compare scores with stored distributions.

    Arguments
    ---------
    stored : sequence of E - 1 ScoreDistribution
        Of the calibration set.
    utterances : int
        Their number there.
    scores_NE : array of shape (N, E)
        New scores.
    exit_layers : sequence of int
        Encoder layer of each exit.

    Returns
    -------
    list of str
        Empty if nothing stands out; else a sentence for the exit that
        differs most and how many others differ.
    """
    new = len(scores_NE)
    if not stored or not new:
        return []
    alarm = FALSE_ALARMS / len(stored)
    critical = math.sqrt(-math.log(alarm / 2) / 2 * (1 / utterances + 1 / new))
    limit = max(critical, SMALLEST_EFFECT)
    found = []
    for layer, each, scores_N in zip(exit_layers, stored, scores_NE.T):
        change, score = each.distance(scores_N)
        if abs(change) > limit:
            found.append((abs(change), change, score, layer, each))
    if not found:
        return []
    _, change, score, layer, each = max(found, key=lambda item: item[0])
    before = each.shares[each.scores.index(score)]
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


def shift_warnings(policy: HasDistributions, evidence: Evidence) -> list[str]:
    """Warn if data look different from what a policy was calibrated on.

    Arguments
    ---------
    policy : HasDistributions
        For example a policy read from a file.
    evidence : Evidence
        Of the new data, with what the policy's criterion needs.

    Returns
    -------
    list of str
        Sentences for the user; empty if nothing stands out.

    Raises
    ------
    InputError
        If the data have other exits, or evidence is missing.
    """
    layers = tuple(int(layer) for layer in evidence.layers_E)
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
        policy.calibration_utterances,
        get_criterion(policy.criterion).scores(evidence),
        layers,
    )


def fingerprint(records: Sequence[UtteranceRecord]) -> tuple[str, ...]:
    """By what the utterances of a calibration set are known again.

    Arguments
    ---------
    records : sequence of UtteranceRecord
        The utterances.

    Returns
    -------
    tuple of str
        The smallest of their hashes, at most :data:`FINGERPRINT`: a sample
        that is the same for the same utterances, in whatever order and
        whatever was measured on them.
    """
    return tuple(sorted({*map(_hash, records)})[:FINGERPRINT])


def seen_share(
    known: Sequence[str], records: Sequence[UtteranceRecord]
) -> float:
    """How much of the calibration data is in a set.

    Arguments
    ---------
    known : sequence of str
        A policy's fingerprint.
    records : sequence of UtteranceRecord
        The set.

    Returns
    -------
    float
        An estimate from the fingerprint, 0 to 1; 0 without one, or where so
        few are there that it may be chance.
    """
    found = len({*known} & {*map(_hash, records)})
    return found / len(known) if found > len(known) * SMALLEST_EFFECT else 0.0


def seen_warnings(share: float) -> list[str]:
    """Warn if a policy was calibrated on what it is measured on.

    Arguments
    ---------
    share : float
        See :func:`seen_share`.

    Returns
    -------
    list of str
        Sentences for the user; empty if nothing was seen.
    """
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


def _shares(
    ordered_N: NDArray[np.floating], knots: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Share of sorted values that are at most each knot."""
    return np.searchsorted(ordered_N, knots, side="right") / len(ordered_N)
