"""What a learned selector sees at an exit.

Axes: N utterances, E exits, P features.

Authors
 * The speechbrain-ee contributors 2026
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.criteria.combined import LIGHT
from speechbrain_ee.exits.decoding import BY_ATTENTION
from speechbrain_ee.exits.evidence import Evidence
from speechbrain_ee.exits.selector.transcript_features import Transcripts
from speechbrain_ee.exits.trace import Trace

# A feature's name starts with its family.
FAMILIES = ("words", "spelling", "agreement", "length", "frames")
GREEDY = "greedy"


@dataclass(frozen=True)
class ExitFeatures:
    """Features of utterances at one exit.

    Arguments
    ---------
    names : tuple of str
        Family, feature and how many exits back, for example
        ``frames entropy -1``.
    values_NP : array of shape (N, P)
        Their values.
    """

    names: tuple[str, ...]
    values_NP: NDArray[np.float64]

    def check(self, names: Sequence[str], source: str) -> None:
        """Raise an InputError if these are not the features of training.

        Arguments
        ---------
        names : sequence of str
            Features of training.
        source : str
            Where the evidence comes from, for the message.
        """
        if self.names != tuple(names):
            differ = sorted({*self.names} ^ {*names})
            raise InputError(
                f"{source}: {', '.join(differ) or 'the order of features'} "
                f"is not as when the learned selector was trained; train one "
                f"for this model and its evidence."
            )


def exit_features(
    evidence: Evidence,
    measures: Sequence[str],
    exit_: int,
    transcripts: Transcripts,
) -> ExitFeatures:
    """Features at an exit, from what is known there.

    Arguments
    ---------
    evidence : Evidence
        At least up to that exit.
    measures : sequence of str
        Measurements to use.
    exit_ : int
        The exit's column, counted from 0.
    transcripts : mapping of int to TranscriptFeatures
        By column: of that exit and the one before; empty without words.

    Returns
    -------
    ExitFeatures
    """
    # in plain lists, since live there is one utterance at a time
    rows: list[list[float]] = [[] for _ in range(len(evidence))]
    columns = range(exit_, max(exit_ - 2, -1), -1)  # here and before
    shown: list[tuple[str, ...]] = []
    words_N = [1.0] * len(rows)
    if transcripts:
        words_N = [values[0] for values in transcripts[exit_].rows]
        shown = [transcripts[column].names for column in columns]
        for column in columns:
            for row, values in zip(rows, transcripts[column].rows):
                row += values
    measured = []
    for name in measures:
        values_NE = evidence.column(name)
        known = 0
        for column in columns:
            values_N = values_NE[:, column].tolist()
            if any(map(math.isnan, values_N)):
                break  # compares with an exit that is not there
            known += 1
            for row, value, words in zip(rows, values_N, words_N):
                row += (value, value * words)
        measured.append((name, known))
    values_NP = np.array(rows, dtype=float).reshape(len(rows), -1)
    return ExitFeatures(_names(tuple(shown), tuple(measured)), values_NP)


@lru_cache(maxsize=64)
def _names(
    shown: tuple[tuple[str, ...], ...], measured: tuple[tuple[str, int], ...]
) -> tuple[str, ...]:
    """Names of the features, in their order."""
    kinds = ("0", "by words", "-1", "before by words")
    return (
        *(f"{name} {-back}" for back, own in enumerate(shown) for name in own),
        *(
            f"frames {name} {kind}"
            for name, known in measured
            for kind in kinds[: 2 * known]
        ),
    )


def known_in_training(
    evidence: Evidence, exit_layers: Sequence[int], names: Sequence[str]
) -> Evidence:
    """Evidence of the same exits, without what was not there in training.

    Arguments
    ---------
    evidence : Evidence
        Of exits 1 to k.
    exit_layers : sequence of int
        Layers of all exits in training.
    names : sequence of str
        Measurements in training.

    Returns
    -------
    Evidence

    Raises
    ------
    InputError
        If the exits are others.
    """
    layers = evidence.layers_E.tolist()
    if layers != list(exit_layers[: len(layers)]):
        raise InputError(
            f"{evidence.source}: exits after layers {layers}, but the "
            f"learned selector was trained for {list(exit_layers)}; train "
            f"one for this model."
        )
    if "entropy" in names or "entropy" not in evidence.values:
        return evidence
    # words are read with the entropy, if there is one
    return replace(evidence, values={n: evidence.column(n) for n in names})


def family_shares(shares: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Shares of features summed by family.

    Arguments
    ---------
    shares : sequence of mapping of str to float
        By exit: share of the predictions that goes with each feature.

    Returns
    -------
    dict of str to float
        By family, averaged over the exits; largest first, sum 1.
    """
    sums = dict.fromkeys(FAMILIES, 0.0)
    for of_exit in shares:
        for name, share in of_exit.items():
            family = next(f for f in FAMILIES if name.startswith(f))
            sums[family] += share
    total = sum(sums.values()) or 1.0  # 0: nothing was learned
    ordered = sorted(sums.items(), key=lambda item: -item[1])
    return {name: share / total for name, share in ordered}


def usable_evidence(trace: Trace) -> tuple[str, ...]:
    """Evidence that a selector learns from: what costs next to nothing.

    Arguments
    ---------
    trace : Trace
        A development trace.

    Returns
    -------
    tuple of str
        Those in :data:`LIGHT` that the trace has, and what CTC's beam search
        gives, if one was made to decode: the same whatever measures of a
        user's own are registered.
    """
    names = {*LIGHT}
    if trace.header.decoding not in (GREEDY, *BY_ATTENTION):
        names.add("nbest_posterior")
    return tuple(n for n in trace.evidence_names if n in names)
