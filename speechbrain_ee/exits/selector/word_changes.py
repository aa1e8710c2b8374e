"""What became of each word of a transcript from one exit to the next.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Sequence

from rapidfuzz.distance import Levenshtein

# What stands for the neighbour of the first and the last word.
_EDGE_SPELLING, _EDGE_LOG_COUNT = 0.0, 8.0


class Transcript:
    """A transcript's words with their scores, and how others map to them.

    ``columns`` holds one list per feature of a word that depends on this
    text alone, in the order of
    :data:`~speechbrain_ee.exits.selector.word_table.OF_TEXT`; the rest are sums over
    the words.
    """

    def __init__(self, scores: list[tuple[str, float, float]]):
        self.words = tuple([score[0] for score in scores])
        self.spelling = spelling = [score[1] for score in scores]
        self.log_count = log_count = [score[2] for score in scores]
        letters = [len(word) for word in self.words]
        totals = [s * (n + 1) for s, n in zip(spelling, letters)]
        unseen = [not value for value in log_count]
        count = len(scores)
        self.columns = (
            letters,
            spelling,
            totals,
            log_count,
            unseen,
            [_EDGE_SPELLING, *spelling[:-1]] if count else [],
            [_EDGE_LOG_COUNT, *log_count[:-1]] if count else [],
            [*spelling[1:], _EDGE_SPELLING] if count else [],
            [*log_count[1:], _EDGE_LOG_COUNT] if count else [],
            [place / count for place in range(count)],
        )
        self.letters = sum(letters)
        self.unseen = sum(unseen)
        self.spelling_total = sum(totals)
        self.worst_spelling = min(spelling, default=0.0)
        self._changes: dict[tuple[str, ...], Changes] = {}

    def changes(self, earlier: "Transcript") -> "Changes":
        """Against the transcript of an earlier exit."""
        found = self._changes.get(earlier.words)
        if found is None:
            found = self._changes[earlier.words] = Changes(self, earlier)
        return found


class Changes:
    """What each word was in an earlier transcript.

    ``equal`` holds its place there, or -1 where it did not stand there;
    ``edits`` the edits from the word it replaces by that word's letters;
    ``spelling_gain`` and ``log_count_gain`` how much better its scores are
    than those of the word it replaces, 0 where it replaces none.
    """

    def __init__(self, here: Transcript, earlier: Transcript):
        count = len(here.words)
        self.spelling_gain = [0.0] * count
        self.log_count_gain = [0.0] * count
        if earlier.words == here.words:
            self.equal = list(range(count))
            self.edits = [0.0] * count
            return
        self.equal = [-1] * count
        self.edits = [1.0] * count
        for tag, start, stop, to, _ in Levenshtein.opcodes(
            earlier.words, here.words
        ):
            if tag == "equal":
                self.equal[to : to + stop - start] = range(start, stop)
                self.edits[to : to + stop - start] = [0.0] * (stop - start)
            elif tag == "replace":
                for source in range(start, stop):
                    self._replace(here, to + source - start, earlier, source)

    def _replace(
        self, here: Transcript, place: int, earlier: Transcript, source: int
    ) -> None:
        old = earlier.words[source]
        edits = Levenshtein.distance(old, here.words[place])
        self.edits[place] = edits / len(old)
        self.spelling_gain[place] = (
            here.spelling[place] - earlier.spelling[source]
        )
        self.log_count_gain[place] = (
            here.log_count[place] - earlier.log_count[source]
        )

    def stability(self, before: Sequence[int]) -> list[int]:
        """Exits before this one at which each word stood unchanged.

        ``before`` is the same for the words of the earlier transcript.
        """
        return [before[place] + 1 if place >= 0 else 0 for place in self.equal]
