"""Words of the transcripts as rows: what each exit shows about each word.

Whether going on pays is decided by single words: a spelling that nobody
writes, or a word that changed since the last exit, is one that a later exit
may put right. The rows are features for :mod:`speechbrain_ee.exits.selector.word_value`.

Axes: N utterances, E exits, M words (of all utterances and exits), F features.

Authors
 * The speechbrain-ee contributors 2026
"""

import math
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.exits.criteria.text import CharNgram
from speechbrain_ee.exits.evidence import Evidence
from speechbrain_ee.exits.selector.word_changes import Transcript
from speechbrain_ee.exits.selector.word_table import (
    OF_TRANSCRIPT,
    WORD_FEATURES,
    WordTable,
)

_OF_WORD = WORD_FEATURES[: -len(OF_TRANSCRIPT)]
_SMALL = 1e-9  # an entropy of 0 has no logarithm
_REMEMBERED = 10_000  # texts: about 50 MB


class WordReader:
    """Reads words, and remembers the texts and changes it has seen.

    Arguments
    ---------
    model : CharNgram
        How words are spelt, and how often each one occurs.

    Example
    -------
    >>> reader = WordReader(CharNgram.train(["the cat sat"]))
    >>> evidence = Evidence(
    ...     np.array([2, 4]), ["u1"], hyps=[["the kat", "the cat"]]
    ... )
    >>> table = reader.table(evidence)
    >>> table.feature("unseen").tolist(), table.feature("change").round(2)
    ([0.0, 1.0, 0.0, 0.0], array([0.  , 0.  , 0.  , 0.33], dtype=float32))
    """

    def __init__(self, model: CharNgram):
        self.model = model
        self._texts: dict[str, Transcript] = {}
        self._stable: dict[tuple[str, ...], list[int]] = {}
        self._owner: object = None
        self._memory: dict[Hashable, Any] = {}

    def table(
        self,
        evidence: Evidence,
        exits: Sequence[int] | None = None,
        utterances: Sequence[int] | None = None,
    ) -> WordTable:
        """Describe the words of every transcript.

        Arguments
        ---------
        evidence : Evidence
            With transcripts; entropies are used if they are there.
        exits : sequence of int, optional
            Columns to describe; by default all.
        utterances : sequence of int, optional
            Rows to describe; by default all.

        Returns
        -------
        WordTable
        """
        columns = range(evidence.shape[1]) if exits is None else exits
        chosen = range(len(evidence)) if utterances is None else utterances
        hyps, entropies = evidence.transcripts(), evidence.values.get("entropy")
        rows = _Rows()
        for utterance in chosen:
            texts = hyps[utterance]
            for column in columns:
                here = self._describe(texts[column])
                earlier = self._describe(texts[column - 1]) if column else here
                stable = self._stability(tuple(texts[: column + 1]))
                rows.append(utterance, column, here, earlier, stable)
                rows.shared.append(
                    _shared(
                        here,
                        stable,
                        _log_entropy(entropies, utterance, column),
                        _log_entropy(entropies, utterance, max(column - 1, 0)),
                    )
                )
            if len(self._texts) > _REMEMBERED:
                self._texts.clear()
                self._stable.clear()
        return rows.table()

    def sums(self, texts: Sequence[str]) -> tuple[float, ...]:
        """Sums over the words of an utterance's transcript.

        Arguments
        ---------
        texts : sequence of str
            Transcripts of all exits passed; the last one is summed up.

        Returns
        -------
        tuple of float
            Words, letters, unseen words, spelling, stable words, worst
            spelling times words.
        """
        here = self._describe(texts[-1])
        stable = self._stability(tuple(texts))
        count = len(here.words)
        return (
            float(count),
            float(here.letters),
            float(here.unseen),
            here.spelling_total,
            float(count - stable.count(0)),
            here.worst_spelling * count,
        )

    def memory(self, owner: object) -> dict[Hashable, Any]:
        """What somebody computed from texts, kept for the next exit.

        Arguments
        ---------
        owner : object
            On what it depends beside the texts and this reader. There is one
            owner at a time; the memory of the one before is lost.

        Returns
        -------
        dict
            Not too large, and the owner's to fill.
        """
        if owner is not self._owner or len(self._memory) > _REMEMBERED:
            self._owner, self._memory = owner, {}
        return self._memory

    def _stability(self, texts: tuple[str, ...]) -> list[int]:
        """At how many exits before the last each word stood unchanged."""
        found = self._stable.get(texts)
        if found is None:
            here = self._describe(texts[-1])
            if len(texts) == 1:
                found = [0] * len(here.words)
            else:
                earlier = self._describe(texts[-2])
                found = here.changes(earlier).stability(
                    self._stability(texts[:-1])
                )
            self._stable[texts] = found
        return found

    def _describe(self, text: str) -> Transcript:
        found = self._texts.get(text)
        if found is None:
            found = self._texts[text] = Transcript(self.model.word_scores(text))
        return found


class _Rows:
    """Lists that grow text by text, and become a table at the end."""

    def __init__(self) -> None:
        self.counts: list[int] = []
        self.places: list[tuple[int, int]] = []
        self.shared: list[tuple[float, ...]] = []
        self.lists: list[list[float]] = [[] for _ in _OF_WORD]

    def append(
        self,
        utterance: int,
        column: int,
        here: Transcript,
        earlier: Transcript,
        stable: list[int],
    ) -> None:
        """Add the words of a transcript."""
        self.counts.append(len(here.words))
        self.places.append((utterance, column))
        changes = here.changes(earlier)
        own, beside = here.columns[:5], here.columns[5:]
        of_change = (
            stable,
            [exits > 0 for exits in stable],
            changes.edits,
            changes.spelling_gain,
            changes.log_count_gain,
        )
        for column_, values in zip(self.lists, (*own, *of_change, *beside)):
            column_ += values

    def table(self) -> WordTable:
        """The features, all words at once."""
        of_words = len(_OF_WORD)
        counts = np.array(self.counts, dtype=np.int64)
        # feature by feature in memory, as the networks read them
        features_FM = np.empty(
            (len(WORD_FEATURES), sum(self.counts)), np.float32
        )
        features_FM[:of_words] = self.lists
        if self.counts:
            shared_FC = np.array(self.shared, np.float32).T
            features_FM[of_words:] = np.repeat(shared_FC, counts, axis=1)
        places_C2 = np.array(self.places, np.int64).reshape(-1, 2)
        utterance_M, exit_M = np.repeat(places_C2.T, counts, axis=1)
        return WordTable(features_FM.T, utterance_M, exit_M)


def _shared(
    here: Transcript, stable: list[int], log_entropy: float, earlier: float
) -> tuple[float, ...]:
    """What all words of a transcript share, as ``OF_TRANSCRIPT``."""
    count = len(here.words)
    if not count:
        return (0.0,) * len(OF_TRANSCRIPT)
    return (
        math.log(count),
        log_entropy,
        earlier,
        stable.count(0) / count,
        here.unseen / count,
        here.spelling_total / (here.letters + count),
        here.worst_spelling,
    )


def _log_entropy(
    entropy_NE: NDArray[np.floating] | None, row: int, column: int
) -> float:
    """0 where there are none."""
    if entropy_NE is None:
        return 0.0
    return math.log(max(float(entropy_NE[row, column]), 0.0) + _SMALL)
