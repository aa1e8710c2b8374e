"""The words of transcripts as a table.

Axes: N utterances, E exits, M words (of all utterances and exits), F
features, Q values per word.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

# What depends on a transcript alone, on what became of its words, and on the
# transcript as a whole.
OF_TEXT = (
    "letters",
    "spelling",
    "spelling_total",
    "log_count",
    "unseen",
    "spelling_before",
    "log_count_before",
    "spelling_after",
    "log_count_after",
    "place",
)
OF_CHANGE = (
    "stable_exits",
    "is_stable",
    "change",
    "spelling_gain",
    "log_count_gain",
)
OF_TRANSCRIPT = (
    "log_words",
    "log_entropy",
    "log_entropy_earlier",
    "unstable_share",
    "unseen_share",
    "mean_spelling",
    "worst_spelling",
)
# The order that networks are trained in: changes after the word itself.
WORD_FEATURES = (*OF_TEXT[:5], *OF_CHANGE, *OF_TEXT[5:], *OF_TRANSCRIPT)


@dataclass(frozen=True)
class WordTable:
    """Words of a set of utterances.

    Arguments
    ---------
    features_MF : array of shape (M, F)
        In the order of :data:`WORD_FEATURES`.
    utterance_M : array of shape (M,)
        Row of the utterance in its evidence.
    exit_M : array of shape (M,)
        Column of the exit, counted from 0.
    """

    features_MF: NDArray[np.float32]
    utterance_M: NDArray[np.int64]
    exit_M: NDArray[np.int64]

    def sums(
        self, values_MQ: NDArray[np.floating], utterances: int
    ) -> NDArray[np.float64]:
        """Sum over the words of an utterance, at whatever exits they stand.

        Arguments
        ---------
        values_MQ : array of shape (M, Q)
            Q values per word.
        utterances : int
            How many utterances N there are.

        Returns
        -------
        array of shape (N, Q)
        """
        if utterances == 1:
            return values_MQ.sum(axis=0, dtype=float, keepdims=True)
        kinds = values_MQ.shape[1]
        cells_MQ = (self.utterance_M * kinds)[:, None] + np.arange(kinds)
        sums = np.bincount(
            cells_MQ.ravel(), values_MQ.ravel(), utterances * kinds
        )
        return sums.reshape(utterances, kinds)

    def totals(
        self, values_MQ: NDArray[np.floating], shape: tuple[int, int]
    ) -> NDArray[np.float64]:
        """Sum over the words of an utterance at an exit.

        Arguments
        ---------
        values_MQ : array of shape (M, Q)
            Q values per word.
        shape : tuple of int
            Utterances and exits.

        Returns
        -------
        array of shape (N, E, Q)
        """
        cells_M = self.utterance_M * shape[1] + self.exit_M
        cells = replace(self, utterance_M=cells_M)
        sums = cells.sums(values_MQ, shape[0] * shape[1])
        return sums.reshape(*shape, values_MQ.shape[1])

    def feature(self, name: str) -> NDArray[np.float32]:
        """One feature of all words, shape (M,)."""
        return self.features_MF[:, WORD_FEATURES.index(name)]

    def select(self, keep_M: NDArray[np.bool_]) -> "WordTable":
        """Some of the words.

        Arguments
        ---------
        keep_M : bool array of shape (M,)
            Which.

        Returns
        -------
        WordTable
        """
        return WordTable(
            self.features_MF[keep_M],
            self.utterance_M[keep_M],
            self.exit_M[keep_M],
        )

    @classmethod
    def joined(
        cls,
        parts: Sequence["WordTable"],
        rows: Sequence[NDArray[np.integer]],
    ) -> "WordTable":
        """One table of tables over different utterances.

        Arguments
        ---------
        parts : sequence of WordTable
            The tables.
        rows : sequence of array
            For each table, the place of its utterances in the whole.

        Returns
        -------
        WordTable
            In the order of utterances, exits, words.
        """
        utterance_M = np.concatenate(
            [r[p.utterance_M] for p, r in zip(parts, rows, strict=True)]
        )
        exit_M = np.concatenate([part.exit_M for part in parts])
        features_MF = np.concatenate([part.features_MF for part in parts])
        # lexsort is stable: the words of a transcript keep their order
        order_M = np.lexsort((exit_M, utterance_M))
        return cls(features_MF[order_M], utterance_M[order_M], exit_M[order_M])
