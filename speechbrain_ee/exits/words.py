"""Words of the transcripts as rows: what each exit shows about each word.

Whether going on pays is decided by single words: a spelling that nobody
writes, or a word that changed since the last exit, is one that a later exit
may put right. The rows are features for :mod:`speechbrain_ee.exits.word_value`.

Axes: N utterances, E exits, M words (of all utterances and exits), F features.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.exits.evidence import Evidence
from speechbrain_ee.exits.ngram import CharNgram
from speechbrain_ee.exits.word_changes import Transcript, stability

WORD_FEATURES = (
    "letters",
    "spelling",
    "spelling_total",
    "log_count",
    "unseen",
    "stable_exits",
    "is_stable",
    "change",
    "spelling_gain",
    "log_count_gain",
    "spelling_before",
    "log_count_before",
    "spelling_after",
    "log_count_after",
    "place",
    "log_words",
    "log_entropy",
    "log_entropy_earlier",
    "unstable_share",
    "unseen_share",
    "mean_spelling",
    "worst_spelling",
)
# What stands for the neighbour of the first and the last word.
_EDGE_SPELLING, _EDGE_LOG_COUNT = 0.0, 8.0
_SMALL = 1e-9  # an entropy of 0 has no logarithm
_REMEMBERED = 50_000  # texts


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

    def total(
        self, values_M: NDArray[np.floating], shape: tuple[int, int]
    ) -> NDArray[np.float64]:
        """Sum over the words of an utterance at an exit.

        Arguments
        ---------
        values_M : array of shape (M,)
            One value per word.
        shape : tuple of int
            Utterances and exits.

        Returns
        -------
        array of shape (N, E)
        """
        places_M = self.utterance_M * shape[1] + self.exit_M
        sums = np.bincount(places_M, values_M, shape[0] * shape[1])
        return sums.reshape(shape)

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

    def table(
        self, evidence: Evidence, exits: Sequence[int] | None = None
    ) -> WordTable:
        """Describe the words of every transcript.

        Arguments
        ---------
        evidence : Evidence
            With transcripts; entropies are used if they are there.
        exits : sequence of int, optional
            Columns to describe; by default all.

        Returns
        -------
        WordTable
        """
        columns = range(evidence.shape[1]) if exits is None else exits
        rows = _Rows()
        for utterance, texts in enumerate(evidence.transcripts()):
            described = [self._describe(text) for text in texts]
            stable = stability(described)
            for column in columns:
                earlier = described[column - 1] if column else None
                rows.append(
                    utterance,
                    column,
                    described[column],
                    earlier,
                    stable[column],
                )
        if len(self._texts) > _REMEMBERED:
            self._texts.clear()
        return rows.table(evidence)

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
        self.columns: dict[str, list] = {
            name: []
            for name in (
                "letters",
                "spelling",
                "log_count",
                "stable_exits",
                "change",
                "old_spelling",
                "old_log_count",
            )
        }

    def append(
        self,
        utterance: int,
        column: int,
        here: Transcript,
        earlier: Transcript | None,
        stable: list[int],
    ) -> None:
        """Add the words of a transcript."""
        if not here.words:
            return
        self.counts.append(len(here.words))
        self.places.append((utterance, column))
        lists = self.columns
        lists["letters"] += map(len, here.words)
        lists["spelling"] += here.spelling
        lists["log_count"] += here.log_count
        lists["stable_exits"] += stable
        if earlier is None:
            lists["change"] += [0.0] * len(here.words)
            lists["old_spelling"] += here.spelling
            lists["old_log_count"] += here.log_count
        else:
            changes = here.changes(earlier)
            lists["change"] += changes.edits
            lists["old_spelling"] += changes.spelling
            lists["old_log_count"] += changes.log_count

    def table(self, evidence: Evidence) -> WordTable:
        """The features, all words at once."""
        if not self.counts:
            none = np.zeros(0, dtype=np.int64)
            features = np.zeros((0, len(WORD_FEATURES)), dtype=np.float32)
            return WordTable(features, none, none)
        counts = np.array(self.counts)
        utterance_M, exit_M = np.repeat(self.places, counts, axis=0).T
        columns = {n: np.array(v, float) for n, v in self.columns.items()}
        _add_context(columns, counts)
        _add_entropy(columns, evidence, utterance_M, exit_M)
        stacked = np.stack([columns[name] for name in WORD_FEATURES], axis=1)
        return WordTable(stacked.astype(np.float32), utterance_M, exit_M)


def _add_context(
    columns: dict[str, NDArray[np.float64]], counts: NDArray[np.int64]
) -> None:
    """Features that follow from a word's neighbours and transcript."""
    stops = np.cumsum(counts)
    starts = stops - counts
    spelling, log_count = columns["spelling"], columns["log_count"]
    with_space = columns["letters"] + 1
    columns["spelling_total"] = spelling * with_space
    columns["unseen"] = (log_count == 0).astype(float)
    columns["is_stable"] = (columns["stable_exits"] > 0).astype(float)
    columns["spelling_gain"] = spelling - columns["old_spelling"]
    columns["log_count_gain"] = log_count - columns["old_log_count"]
    for name, values, edge in (
        ("spelling", spelling, _EDGE_SPELLING),
        ("log_count", log_count, _EDGE_LOG_COUNT),
    ):
        before, after = np.roll(values, 1), np.roll(values, -1)
        before[starts], after[stops - 1] = edge, edge
        columns[f"{name}_before"], columns[f"{name}_after"] = before, after

    def of_transcript(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.repeat(values, counts)

    total = np.add.reduceat
    positions = np.arange(len(spelling)) - of_transcript(starts)
    columns["place"] = positions / of_transcript(counts)
    columns["log_words"] = of_transcript(np.log(counts))
    unstable = total(1 - columns["is_stable"], starts) / counts
    columns["unstable_share"] = of_transcript(unstable)
    unseen = total(columns["unseen"], starts) / counts
    columns["unseen_share"] = of_transcript(unseen)
    mean = total(columns["spelling_total"], starts) / total(with_space, starts)
    columns["mean_spelling"] = of_transcript(mean)
    worst = np.minimum.reduceat(spelling, starts)
    columns["worst_spelling"] = of_transcript(worst)


def _add_entropy(
    columns: dict[str, NDArray[np.float64]],
    evidence: Evidence,
    utterance_M: NDArray[np.int64],
    exit_M: NDArray[np.int64],
) -> None:
    """Entropies here and at the exit before; 0 where there are none."""
    if "entropy" in evidence.values:
        log_NE = np.log(np.maximum(evidence.column("entropy"), 0) + _SMALL)
    else:
        log_NE = np.zeros(evidence.shape)
    columns["log_entropy"] = log_NE[utterance_M, exit_M]
    earlier_M = np.maximum(exit_M - 1, 0)
    columns["log_entropy_earlier"] = log_NE[utterance_M, earlier_M]
