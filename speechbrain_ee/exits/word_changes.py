"""What became of each word of a transcript from one exit to the next.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Sequence

from rapidfuzz.distance import Levenshtein


class Transcript:
    """A transcript's words with their scores, and how others map to them."""

    def __init__(self, scores: list[tuple[str, float, float]]):
        self.words = tuple(score[0] for score in scores)
        self.spelling = [score[1] for score in scores]
        self.log_count = [score[2] for score in scores]
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
    ``spelling`` and ``log_count`` are those of the word it replaces, or its
    own where it replaces none.
    """

    def __init__(self, here: Transcript, earlier: Transcript):
        self.equal = [-1] * len(here.words)
        self.edits = [1.0] * len(here.words)
        self.spelling = list(here.spelling)
        self.log_count = list(here.log_count)
        for tag, start, stop, to, _ in Levenshtein.opcodes(
            earlier.words, here.words
        ):
            if tag == "equal":
                self.equal[to : to + stop - start] = range(start, stop)
                self.edits[to : to + stop - start] = [0.0] * (stop - start)
            elif tag == "replace":
                for source in range(start, stop):
                    place = to + source - start
                    old = earlier.words[source]
                    edits = Levenshtein.distance(old, here.words[place])
                    self.edits[place] = edits / len(old)
                    self.spelling[place] = earlier.spelling[source]
                    self.log_count[place] = earlier.log_count[source]

    def stability(self, before: Sequence[int]) -> list[int]:
        """Exits before this one at which each word stood unchanged.

        ``before`` is the same for the words of the earlier transcript.
        """
        return [before[place] + 1 if place >= 0 else 0 for place in self.equal]
