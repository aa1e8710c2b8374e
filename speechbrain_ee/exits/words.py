"""Words of the transcripts as rows: what each exit shows about each word.

Whether going on pays is decided by single words: a spelling that nobody
writes, or a word that changed since the last exit, is one that a later exit
may put right. The rows are features for :mod:`speechbrain_ee.exits.word_value`.

Axes: N utterances, E exits, M words (of all utterances and exits), F features.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from speechbrain_ee.exits.evidence import Evidence
from speechbrain_ee.exits.ngram import CharNgram
from speechbrain_ee.exits.word_changes import Transcript
from speechbrain_ee.exits.word_table import WORD_FEATURES, WordTable

# What stands for the neighbour of the first and the last word.
_EDGE_SPELLING, _EDGE_LOG_COUNT = 0.0, 8.0
# What is read off the texts; the rest follows.
_READ = (
    "letters",
    "spelling",
    "log_count",
    "stable_exits",
    "change",
    "old_spelling",
    "old_log_count",
)
_SMALL = 1e-9  # an entropy of 0 has no logarithm
_REMEMBERED = 50_000  # texts


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
            for column in columns:
                rows.append(
                    utterance,
                    column,
                    self._describe(texts[column]),
                    self._describe(texts[column - 1]) if column else None,
                    self._stability(tuple(texts[: column + 1])),
                )
        if len(self._texts) > _REMEMBERED:
            self._texts.clear()
            self._stable.clear()
        return rows.table(evidence)

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
        self.lists: list[list[float]] = [[] for _ in _READ]

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
        letters, spelling, log_count, stables, *of_changes = self.lists
        letters += map(len, here.words)
        spelling += here.spelling
        log_count += here.log_count
        stables += stable
        edits, old_spelling, old_log_count = of_changes
        if earlier is None:
            edits += [0.0] * len(here.words)
            old_spelling += here.spelling
            old_log_count += here.log_count
        else:
            changes = here.changes(earlier)
            edits += changes.edits
            old_spelling += changes.spelling
            old_log_count += changes.log_count

    def table(self, evidence: Evidence) -> WordTable:
        """The features, all words at once."""
        if not self.counts:
            none = np.zeros(0, dtype=np.int64)
            features = np.zeros((0, len(WORD_FEATURES)), dtype=np.float32)
            return WordTable(features, none, none)
        counts = np.array(self.counts)
        utterance_M, exit_M = np.repeat(self.places, counts, axis=0).T
        columns = dict(zip(_READ, np.array(self.lists)))
        _add_words(columns, counts)
        _add_context(columns, counts)
        _add_entropy(columns, evidence, utterance_M, exit_M)
        stacked = np.array([columns[name] for name in WORD_FEATURES])
        features_MF = np.ascontiguousarray(stacked.T, dtype=np.float32)
        return WordTable(features_MF, utterance_M, exit_M)


def _add_words(
    columns: dict[str, NDArray[np.float64]], counts: NDArray[np.int64]
) -> None:
    """Features of a word and of the words beside it."""
    stops = np.cumsum(counts)
    spelling, log_count = columns["spelling"], columns["log_count"]
    columns["spelling_total"] = spelling * (columns["letters"] + 1)
    columns["unseen"] = (log_count == 0).astype(float)
    columns["is_stable"] = (columns["stable_exits"] > 0).astype(float)
    columns["spelling_gain"] = spelling - columns["old_spelling"]
    columns["log_count_gain"] = log_count - columns["old_log_count"]
    for name, values, edge in (
        ("spelling", spelling, _EDGE_SPELLING),
        ("log_count", log_count, _EDGE_LOG_COUNT),
    ):
        before, after = np.empty_like(values), np.empty_like(values)
        before[1:], after[:-1] = values[:-1], values[1:]
        before[stops - counts], after[stops - 1] = edge, edge
        columns[f"{name}_before"], columns[f"{name}_after"] = before, after


def _add_context(
    columns: dict[str, NDArray[np.float64]], counts: NDArray[np.int64]
) -> None:
    """Features that all words of a transcript share, and their place."""
    starts = np.cumsum(counts) - counts
    spelling = columns["spelling"]
    summed = np.array(
        [
            columns["is_stable"],
            columns["unseen"],
            columns["spelling_total"],
            columns["letters"],
        ]
    )
    stable, unseen, total, letters = np.add.reduceat(summed, starts, axis=1)
    shared = {
        "log_words": np.log(counts),
        "unstable_share": 1 - stable / counts,
        "unseen_share": unseen / counts,
        "mean_spelling": total / (letters + counts),
        "worst_spelling": np.minimum.reduceat(spelling, starts),
        "start": starts,
        "words": counts,
    }
    repeated = np.repeat(np.array(list(shared.values())), counts, axis=1)
    columns.update(zip(shared, repeated))
    positions = np.arange(len(spelling)) - columns["start"]
    columns["place"] = positions / columns["words"]


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
