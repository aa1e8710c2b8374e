"""Words of a development trace, valued without looking at the answer.

Axes: N utterances, E exits, M words.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.exits.criteria.text import CharNgram
from speechbrain_ee.exits.evidence import Evidence
from speechbrain_ee.exits.selector.word_value import WordValue, word_gains
from speechbrain_ee.exits.selector.words import WordReader, WordTable
from speechbrain_ee.exits.trace import Trace

FOLDS = 5


@dataclass(frozen=True)
class ValuedWords:
    """The words of a trace, valued by networks that did not see them.

    Arguments
    ---------
    table : WordTable
        The words.
    gains_NEE : array of shape (N, E, E)
        Expected gains of every utterance, from exit to exit.
    value : WordValue
        Networks that saw all of them, for other utterances.
    model : CharNgram
        How words are spelt.
    """

    table: WordTable
    gains_NEE: NDArray[np.float64]
    value: WordValue
    model: CharNgram

    @classmethod
    def fit(
        cls,
        trace: Trace,
        texts: Sequence[str],
        references: bool,
        seed: int,
    ) -> "ValuedWords":
        """Value words by cross-fitting over speakers.

        Arguments
        ---------
        trace : Trace
            With transcripts.
        texts : sequence of str
            Training transcripts.
        references : bool
            Learn spelling from the references of other folds, too.
        seed : int
            Of the networks' initial weights.

        Returns
        -------
        ValuedWords
        """
        fold_N = trace.clusters.folds(FOLDS)
        refs = [record.ref for record in trace.records]
        model = CharNgram.train([*texts, *(refs if references else ())])
        if references:
            table = _read_folds(trace.evidence, refs, texts, fold_N)
        else:
            table = WordReader(model).table(trace.evidence)
        gains_ME = word_gains(trace.evidence, refs, table)
        shape = trace.evidence.shape
        gains_NEE = np.zeros((*shape, shape[1]))
        for fold in np.unique(fold_N):
            seen_M = fold_N[table.utterance_M] != fold
            other = WordValue.fit(
                table.select(seen_M), gains_ME[seen_M], seed=seed
            )
            unseen = table.select(~seen_M)
            gains_NEE += other.totals(unseen, shape)
        value = WordValue.fit(table, gains_ME, seed=seed)
        return cls(table, gains_NEE, value, model)


def _read_folds(
    evidence: Evidence,
    refs: Sequence[str],
    texts: Sequence[str],
    fold_N: NDArray[np.int64],
) -> WordTable:
    """All words, each read with the texts and other folds' references."""
    parts, places = [], []
    for fold in np.unique(fold_N):
        others = [ref for ref, own in zip(refs, fold_N == fold) if not own]
        rows = np.flatnonzero(fold_N == fold)
        reader = WordReader(CharNgram.train([*texts, *(others or refs)]))
        parts.append(reader.table(evidence.select(rows)))
        places.append(rows)
    return WordTable.joined(parts, places)
