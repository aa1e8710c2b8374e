"""Utterances worth looking at in a report.

Axes: N utterances, E exits.

Authors
 * The speechbrain-ee contributors 2026
"""

from dataclasses import dataclass

import numpy as np

from speechbrain_ee.exits.trace import Trace, UtteranceRecord


@dataclass(frozen=True)
class Example:
    """An utterance worth looking at.

    Arguments
    ---------
    kind : str
        ``overthinking`` or ``typical``.
    record : UtteranceRecord
        With a hypothesis at every exit.
    errors : tuple of int
        Word errors at every exit.
    """

    kind: str
    record: UtteranceRecord
    errors: tuple[int, ...]


def choose_examples(trace: Trace, each: int = 3) -> tuple[Example, ...]:
    """Strongest overthinking, and utterances nearest to the average.

    Arguments
    ---------
    trace : Trace
        One test set.
    each : int
        How many of each kind at most.

    Returns
    -------
    tuple of Example
        None without hypotheses.
    """
    if trace.edits_NE3 is None:
        return ()
    errors_NE, words_N = trace.errors_NE, trace.words_N
    readable_N = (words_N >= 4) & (words_N <= 25)
    harm_N = (errors_NE[:, -1] - errors_NE.min(axis=1)) * readable_N
    over = [i for i in np.argsort(-harm_N, kind="stable") if harm_N[i] > 0]
    rate_NE = errors_NE / np.maximum(words_N, 1)[:, None]
    mean_E = errors_NE.sum(axis=0) / max(words_N.sum(), 1)
    distance_N = np.abs(rate_NE - mean_E).sum(axis=1)
    distance_N[~readable_N] = np.inf
    typical = [
        i for i in np.argsort(distance_N, kind="stable") if i not in over[:each]
    ]
    return tuple(
        Example(kind, trace.records[i], tuple(errors_NE[i].tolist()))
        for kind, rows in (("overthinking", over), ("typical", typical))
        for i in rows[:each]
    )
