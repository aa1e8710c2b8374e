"""Operating points: what a choice of exits gives on a test set.

Axes: N utterances, E exits.

Authors
 * The speechbrain-ee contributors 2026
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.trace import Trace


@dataclass(frozen=True)
class OperatingPoint:
    """A policy measured on a test set.

    Arguments
    ---------
    avg_layer : float
        Encoder layers per utterance, averaged over utterances.
    wer : float
        Word error rate in percent.
    avg_macs : float, optional
        Multiply-accumulates per utterance, averaged.
    threshold : float, optional
        Score threshold of a criterion, price of the oracle.
    """

    avg_layer: float
    wer: float
    avg_macs: float | None = None
    threshold: float | None = None


def measure(
    trace: Trace, choice_N: NDArray[np.integer], threshold: float | None = None
) -> OperatingPoint:
    """Operating point of one choice of exits.

    Arguments
    ---------
    trace : Trace
        One test set.
    choice_N : array of shape (N,)
        Column of the exit that each utterance takes.
    threshold : float, optional
        Kept with the point.

    Returns
    -------
    OperatingPoint
    """
    rows_N = np.arange(len(choice_N))
    macs_NE = trace.macs_NE
    return OperatingPoint(
        avg_layer=float(trace.layers_E[choice_N].mean()),
        wer=100
        * float(trace.errors_NE[rows_N, choice_N].sum())
        / reference_words(trace),
        avg_macs=None
        if macs_NE is None
        else float(macs_NE[rows_N, choice_N].mean()),
        threshold=threshold,
    )


def reference_words(trace: Trace) -> int:
    """Words of all references.

    Arguments
    ---------
    trace : Trace
        One test set.

    Returns
    -------
    int

    Raises
    ------
    InputError
        If there is none, so that no error rate exists.
    """
    words = int(trace.words_N.sum())
    if not words:
        raise InputError(
            f"{trace.source}, set {trace.sets[0]!r}: all references are "
            f"empty, so there is no word error rate; check the transcripts."
        )
    return words
