"""How plausible a transcript reads: evidence from text alone.

The measurements need a character n-gram model of the training transcripts
and hypotheses, no model output: a finished trace can be given them, and a
live system measures each exit's transcripts with the same function.

Axes: B utterances of a batch, N of a table, E exits.

Authors
 * The speechbrain-ee contributors 2026
"""

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.exits.criteria.ngram import CharNgram
from speechbrain_ee.exits.criteria.registry import criterion
from speechbrain_ee.exits.evidence import Evidence
from speechbrain_ee.exits.trace import Trace

logger = logging.getLogger(__name__)

# Nats per character of the least plausible transcript. A random string of
# letters has about -5; nothing is counted below, and the empty transcript,
# which says nothing, is put here.
FLOOR = -20.0
OF_TEXT = ("plausibility", "unseen_words")
_FOREIGN = 0.9


def measure_texts(
    hyps: Sequence[str], model: CharNgram, names: Sequence[str] = OF_TEXT
) -> dict[str, NDArray[np.float64]]:
    """Measure some transcripts.

    Arguments
    ---------
    hyps : sequence of B str
        The transcripts.
    model : CharNgram
        Of the training transcripts.
    names : sequence of str
        Which of the two measurements.

    Returns
    -------
    dict of str to array of shape (B,)
        ``plausibility``, nats per character, at least :data:`FLOOR`;
        ``unseen_words``, the share of words that are new.

    Example
    -------
    >>> model = CharNgram.train(["the cat sat"])
    >>> measured = measure_texts(["the cat", "txe ct", ""], model)
    >>> measured["plausibility"].round(1).tolist(), measured["unseen_words"]
    ([-0.5, -1.9, -20.0], array([0., 1., 1.]))
    """
    found = {}
    for name in names:
        measure = _MEASURES[name]
        # Exits agree more often than not: each distinct text is read once.
        known = {text: measure(text, model) for text in set(hyps)}
        found[name] = np.array([known[text] for text in hyps], dtype=float)
    return found


def add_plausibility(trace: Trace, model: CharNgram) -> Trace:
    """Give a trace the evidence ``plausibility`` and ``unseen_words``."""
    texts = trace.evidence.transcripts()
    flat = [text for row in texts for text in row]
    measured = measure_texts(flat, model)
    shape = trace.evidence.shape
    unseen_NE = measured["unseen_words"].reshape(shape)
    if len(unseen_NE) and unseen_NE[:, -1].mean() > _FOREIGN:
        logger.warning(
            "%s: %.0f %% of the words at the last exit are not in the "
            "transcripts that the character n-gram model was built from; "
            "plausibility says little here. Build it from transcripts of "
            "the same language.",
            trace.source,
            100 * unseen_NE[:, -1].mean(),
        )
    return trace.with_columns(
        {name: values.reshape(shape) for name, values in measured.items()}
    )


@criterion(
    "plausibility",
    needs=("plausibility",),
    higher_is_ready=True,
    formula="1/(C+1) sum_c ln p(c | characters before), end included",
    source="character n-gram, Witten and Bell 1991, IEEE Trans. IT 37(4)",
)
def plausibility(evidence: Evidence) -> NDArray[np.floating]:
    """Mean log-probability of the transcript's characters."""
    return evidence.column("plausibility")


@criterion(
    "unseen_words",
    needs=("unseen_words",),
    higher_is_ready=False,
    formula="words not in the training transcripts / words",
    source="this project",
)
def unseen_words(evidence: Evidence) -> NDArray[np.floating]:
    """Share of the transcript's words that training did not hold, negated."""
    return -evidence.column("unseen_words")


def _plausibility(text: str, model: CharNgram) -> float:
    return max(model.per_char(text), FLOOR) if text.strip() else FLOOR


def _unseen_words(text: str, model: CharNgram) -> float:
    return model.unseen_words(text)


_MEASURES = {"plausibility": _plausibility, "unseen_words": _unseen_words}
