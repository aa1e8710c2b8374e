"""Words of the transcripts as rows: what each exit shows about each word.

Whether going on pays is decided by single words: a spelling that nobody
writes, or a word that changed since the last exit, is one that a later exit
may put right. The rows are features for
:mod:`speechbrain_ee.exits.selector.value`.

Axes: N utterances, E exits, M words (of all utterances and exits), F
features, Q values per word.

Authors
 * The speechbrain-ee contributors 2026
"""

import math
from collections.abc import Hashable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein

from speechbrain_ee.exits.criteria.text import CharNgram
from speechbrain_ee.exits.evidence import Evidence

# The order that networks are trained in.
WORD_FEATURES = (
    # of the word itself
    "letters",
    "spelling",
    "spelling_total",
    "log_count",
    "unseen",
    # of what became of it since the exit before
    "stable_exits",
    "is_stable",
    "change",
    "spelling_gain",
    "log_count_gain",
    # of where it stands
    "spelling_before",
    "log_count_before",
    "spelling_after",
    "log_count_after",
    "place",
    # of the transcript, the same for all its words
    "log_words",
    "log_entropy",
    "log_entropy_earlier",
    "unstable_share",
    "unseen_share",
    "mean_spelling",
    "worst_spelling",
)
_OF_TRANSCRIPT = 7
# What stands for the neighbour of the first and the last word.
_EDGE_SPELLING, _EDGE_LOG_COUNT = 0.0, 8.0
_SMALL = 1e-9  # an entropy of 0 has no logarithm
_REMEMBERED = 10_000  # transcripts: about 30 MB


class Transcript:
    """A transcript that followed another: its words, how each is spelt (as
    :meth:`CharNgram.word_scores` says) and what became of it.
    """

    def __init__(
        self,
        scores: list[tuple[str, float, float]],
        earlier: "Transcript | None" = None,
    ):
        count = len(scores)
        self.words = tuple([word for word, _, _ in scores])
        self.spelling = [spelling for _, spelling, _ in scores]
        self.log_count = [log_count for _, _, log_count in scores]
        self.letters = sum(map(len, self.words))
        self.unseen = self.log_count.count(0)
        self.spelling_total = sum(self._spelling_totals())
        self.worst_spelling = min(self.spelling, default=0.0)
        # exits before this one at which each word stood unchanged
        self.stable = [0] * count
        # edits from the word that it replaces, by that word's letters
        self.edits = [0.0 if earlier is None else 1.0] * count
        # how much better its scores are than those of the word it replaces
        self.spelling_gain, self.log_count_gain = [0.0] * count, [0.0] * count
        # what is known of its words by a selector, see `read_transcripts`
        self.features: dict[Hashable, list[float]] = {}
        if earlier is not None:
            self._compare(earlier)

    def _compare(self, earlier: "Transcript") -> None:
        if earlier.words == self.words:
            self.stable = [exits + 1 for exits in earlier.stable]
            self.edits = [0.0] * len(self.words)
            return
        steps = Levenshtein.opcodes(earlier.words, self.words)
        for tag, start, stop, to, to_stop in steps:
            for old, new in zip(range(start, stop), range(to, to_stop)):
                if tag == "equal":
                    self.stable[new] = earlier.stable[old] + 1
                    self.edits[new] = 0.0
                    continue
                word = earlier.words[old]
                edits = Levenshtein.distance(word, self.words[new])
                self.edits[new] = edits / len(word)
                self.spelling_gain[new] = (
                    self.spelling[new] - earlier.spelling[old]
                )
                self.log_count_gain[new] = (
                    self.log_count[new] - earlier.log_count[old]
                )

    def _spelling_totals(self) -> list[float]:
        pairs = zip(self.spelling, self.words)
        return [spelling * (len(word) + 1) for spelling, word in pairs]

    def columns(self) -> tuple[list[float], ...]:
        """One list for every feature that is not of the whole transcript."""
        spelling, log_count = self.spelling, self.log_count
        count = len(self.words)
        return (
            [len(word) for word in self.words],
            spelling,
            self._spelling_totals(),
            log_count,
            [not value for value in log_count],
            self.stable,
            [exits > 0 for exits in self.stable],
            self.edits,
            self.spelling_gain,
            self.log_count_gain,
            [_EDGE_SPELLING, *spelling][:count],
            [_EDGE_LOG_COUNT, *log_count][:count],
            [*spelling, _EDGE_SPELLING][1:],
            [*log_count, _EDGE_LOG_COUNT][1:],
            [place / count for place in range(count)],
        )

    def shared(self, log_entropies: tuple[float, float]) -> tuple[float, ...]:
        """What all its words share, in the order of the features."""
        count = len(self.words)
        if not count:
            return (0.0,) * _OF_TRANSCRIPT
        return (
            math.log(count),
            *log_entropies,
            self.stable.count(0) / count,
            self.unseen / count,
            self.spelling_total / (self.letters + count),
            self.worst_spelling,
        )

    def sums(self) -> tuple[float, ...]:
        """Words, letters, unseen words, spelling, stable words, worst
        spelling times words.
        """
        count = len(self.words)
        return (
            float(count),
            float(self.letters),
            float(self.unseen),
            self.spelling_total,
            float(count - self.stable.count(0)),
            self.worst_spelling * count,
        )


class WordReader:
    """Reads transcripts, and remembers them for the exits that follow.

    ``model`` tells how words are spelt, and how often each one occurs.
    """

    def __init__(self, model: CharNgram):
        self.model = model
        self._read: dict[tuple[str, ...], Transcript] = {}

    def read(self, texts: tuple[str, ...]) -> Transcript:
        """The last of the transcripts of all exits passed."""
        found = self._read.get(texts)
        if found is None:
            earlier = self.read(texts[:-1]) if len(texts) > 1 else None
            found = Transcript(self.model.word_scores(texts[-1]), earlier)
            if len(self._read) >= _REMEMBERED:
                self._read.clear()
            self._read[texts] = found
        return found


@dataclass(frozen=True)
class WordTable:
    """Words of a set of utterances, features as :data:`WORD_FEATURES`."""

    features_MF: NDArray[np.float32]
    utterance_M: NDArray[np.int64]  # row in the evidence
    exit_M: NDArray[np.int64]  # column, counted from 0

    @classmethod
    def of(
        cls, evidence: Evidence, read: Iterable[tuple[int, int, Transcript]]
    ) -> "WordTable":
        """The words of transcripts, each given with its row and column.

        Example
        -------
        >>> reader = WordReader(CharNgram.train(["the cat sat"]))
        >>> evidence = Evidence(np.array([2, 4]), ["u1"])
        >>> read = reader.read(("the kat", "the cat"))
        >>> table = WordTable.of(evidence, [(0, 1, read)])
        >>> change = WORD_FEATURES.index("change")
        >>> table.features_MF[:, change].round(2).tolist()
        [0.0, 0.33000001311302185]
        """
        entropy_NE = evidence.values.get("entropy")
        columns: list[list[float]]
        columns = [[] for _ in WORD_FEATURES[:-_OF_TRANSCRIPT]]
        places, counts, shared = [], [], []
        for row, column, transcript in read:
            places.append((row, column))
            counts.append(len(transcript.words))
            for values, more in zip(columns, transcript.columns()):
                values += more
            logs = (0.0, 0.0)
            if entropy_NE is not None:
                logs = (
                    _log(entropy_NE[row, column]),
                    _log(entropy_NE[row, max(column - 1, 0)]),
                )
            shared.append(transcript.shared(logs))
        # feature by feature in memory, as the networks read them
        features_FM = np.empty((len(WORD_FEATURES), sum(counts)), np.float32)
        features_FM[:-_OF_TRANSCRIPT] = columns
        if counts:
            shared_FC = np.array(shared, np.float32).T
            features_FM[-_OF_TRANSCRIPT:] = shared_FC.repeat(counts, axis=1)
        places_2C = np.array(places, np.int64).reshape(-1, 2).T
        utterance_M, exit_M = places_2C.repeat(counts or 1, axis=1)
        return cls(features_FM.T, utterance_M, exit_M)

    def select(self, keep_M: NDArray[np.bool_]) -> "WordTable":
        """Some of the words."""
        return WordTable(
            self.features_MF[keep_M],
            self.utterance_M[keep_M],
            self.exit_M[keep_M],
        )

    def sums(
        self, values_MQ: NDArray[np.floating], utterances: int
    ) -> NDArray[np.float64]:
        """Sums (N, Q) over the words of an utterance, of whatever exits."""
        if utterances == 1:
            return values_MQ.sum(axis=0, dtype=float, keepdims=True)
        return _summed(values_MQ, self.utterance_M, utterances)

    def totals(
        self, values_MQ: NDArray[np.floating], shape: tuple[int, int]
    ) -> NDArray[np.float64]:
        """Sums (N, E, Q) over the words of an utterance at an exit."""
        cell_M = self.utterance_M * shape[1] + self.exit_M
        return _summed(values_MQ, cell_M, math.prod(shape)).reshape(*shape, -1)


def _summed(
    values_MQ: NDArray[np.floating], cell_M: NDArray[np.int64], cells: int
) -> NDArray[np.float64]:
    kinds = values_MQ.shape[1]
    places_MQ = (cell_M * kinds)[:, None] + np.arange(kinds)
    sums = np.bincount(places_MQ.ravel(), values_MQ.ravel(), cells * kinds)
    return sums.reshape(cells, kinds)


def _log(entropy: float) -> float:
    return math.log(max(float(entropy), 0.0) + _SMALL)
