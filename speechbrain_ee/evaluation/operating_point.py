"""Operating points: what a choice of exits gives on a test set.

Axes: N utterances, E exits.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.errors import InputError
from speechbrain_ee.exits.criteria.registry import Criterion
from speechbrain_ee.exits.policy import at_choice, error_rate
from speechbrain_ee.exits.trace import Trace

# What reports ask for: at most so many times the last exit's error rate.
LEVELS = {"equal_wer": 1.0, "plus_1": 1.01, "plus_5": 1.05, "plus_10": 1.1}


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
    (point,) = measure_many(
        trace, choice_N[:, None], [threshold], criterion_macs_NE
    )
    return point


def measure_many(
    trace: Trace,
    choice_NT: NDArray[np.integer],
    thresholds: Sequence[float | None] | NDArray[np.floating],
    criterion_macs_NE: NDArray[np.floating] | float = 0.0,
) -> tuple[OperatingPoint, ...]:
    """Operating points of many choices of exits.

    Arguments
    ---------
    trace : Trace
        One test set.
    choice_NT : array of shape (N, T)
        Column of the exit that each utterance takes, for T thresholds.
    thresholds : sequence of T floats
        Kept with the points.
    criterion_macs_NE : array of shape (N, E), optional
        What choosing costs; see :func:`criterion_macs`.

    Returns
    -------
    tuple of T OperatingPoint
    """
    reference_words(trace)
    wer_T = error_rate(trace.errors_NE, trace.words_N, choice_NT)
    layer_T, macs_T = average_costs(trace, choice_NT, criterion_macs_NE)
    columns = (layer_T, wer_T.tolist(), macs_T, thresholds)
    return tuple(
        OperatingPoint(
            avg_layer=layer,
            wer=wer,
            avg_macs=macs,
            threshold=None if threshold is None else float(threshold),
        )
        for layer, wer, macs, threshold in zip(*columns, strict=True)
    )


def average_costs(
    trace: Trace,
    choice_NT: NDArray[np.integer],
    criterion_macs_NE: NDArray[np.floating] | float = 0.0,
) -> tuple[list[float], list[float | None]]:
    """Layers and MACs per utterance of T choices of exits."""
    layer_T = trace.layers_E[choice_NT].mean(axis=0).tolist()
    if trace.macs_NE is None:
        return layer_T, [None] * len(layer_T)
    macs_NE = trace.macs_NE + criterion_macs_NE
    return layer_T, at_choice(macs_NE, choice_NT).mean(axis=0).tolist()


def criterion_macs(
    trace: Trace, criterion: Criterion
) -> NDArray[np.float64] | float:
    """What a live policy pays for its criterion.

    It is evaluated at every exit that an utterance comes to, except the last,
    where there is nothing left to decide. One that looks at what a beam
    search found pays for a search at all these exits.

    Arguments
    ---------
    trace : Trace
        A trace whose header has ``vocab_size`` and ``frames_per_s``.
    criterion : Criterion
        With its declared cost.

    Returns
    -------
    array of shape (N, E)
        MACs by utterance and exit taken; without the part that depends on
        frames and vocabulary where the trace does not tell these.
    """
    searches_NE = 0.0
    if criterion.decodes and trace.decoding_macs_NE is not None:
        # at the exit taken, it is part of what that exit costs
        total_NE = trace.decoding_macs_NE.cumsum(axis=1)
        searches_NE = total_NE - trace.decoding_macs_NE
    header = trace.header
    known = header.vocab_size, header.frames_per_s
    if None in known or trace.durations_N is None:
        return searches_NE
    frames_N = np.ceil(trace.durations_N * header.frames_per_s)
    once_N = criterion.macs(
        frames_N,
        header.vocab_size,
        width=header.width,
        frames_per_s=header.frames_per_s,
    )
    exits = len(header.exit_layers)
    times_E = np.minimum(np.arange(1, exits + 1), exits - 1)
    return searches_NE + once_N[:, None] * times_E


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
