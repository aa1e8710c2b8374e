"""Operating points: what a choice of exits gives on a test set.

Axes: N utterances, E exits.

Authors
 * The speechbrain-ee contributors 2026
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.registry import Criterion
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
    trace: Trace,
    choice_N: NDArray[np.integer],
    threshold: float | None = None,
    criterion_macs_NE: NDArray[np.floating] | float = 0.0,
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
    criterion_macs_NE : array of shape (N, E), optional
        What choosing costs, on top of the exit itself; see
        :func:`criterion_macs`.

    Returns
    -------
    OperatingPoint
    """
    rows_N = np.arange(len(choice_N))
    macs_NE = trace.macs_NE
    if macs_NE is not None:
        macs_NE = macs_NE + criterion_macs_NE
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


def criterion_macs(
    trace: Trace, criterion: Criterion
) -> NDArray[np.float64] | float:
    """What a live policy pays for its criterion.

    It is evaluated at every exit that an utterance comes to, except the last,
    where there is nothing left to decide.

    Arguments
    ---------
    trace : Trace
        A trace whose header has ``vocab_size`` and ``frames_per_s``.
    criterion : Criterion
        With its declared cost.

    Returns
    -------
    array of shape (N, E)
        MACs by utterance and exit taken; 0 where the trace does not tell
        frames or vocabulary.
    """
    header = trace.header
    durations = [record.duration_s for record in trace.records]
    if None in (header.vocab_size, header.frames_per_s, *durations):
        return 0.0
    frames_N = np.ceil(np.array(durations) * header.frames_per_s)
    once_N = criterion.macs(frames_N, header.vocab_size)
    exits = len(header.exit_layers)
    times_E = np.minimum(np.arange(1, exits + 1), exits - 1)
    return once_N[:, None] * times_E


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
