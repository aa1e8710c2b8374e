"""What was said in a recording: its pieces put together again.

Authors
 * The speechbrain-ee contributors 2026
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from speechbrain_ee.inference.hypothesis import Hypothesis, Word


@dataclass(frozen=True)
class Segment:
    """A stretch of a recording and what was said in it.

    Arguments
    ---------
    start_s, end_s : float
        Where it lies in the recording, in seconds.
    hypothesis : Hypothesis
        What was recognised; its times count from ``start_s``.
    """

    start_s: float
    end_s: float
    hypothesis: Hypothesis

    @property
    def skipped_s(self) -> float:
        """Seconds that no model heard."""
        skipped = self.hypothesis.skipped is not None
        return self.end_s - self.start_s if skipped else 0.0

    @property
    def words(self) -> tuple[Word, ...]:
        """The words, their times counted from the recording's beginning.

        Where the recogniser gives no times, the words share the stretch by
        their number of letters.
        """
        words = self.hypothesis.words or self._spread()
        return tuple(
            replace(
                word,
                start_s=self.start_s + word.start_s,
                end_s=self.start_s + word.end_s,
            )
            for word in words
        )

    def _spread(self) -> list[Word]:
        texts = self.hypothesis.text.split()
        letter_s = (self.end_s - self.start_s) / max(sum(map(len, texts)), 1)
        words = []
        start_s = 0.0
        for text in texts:
            end_s = start_s + len(text) * letter_s
            confidence = self.hypothesis.confidence
            words.append(Word(text, start_s, end_s, confidence))
            start_s = end_s
        return words


@dataclass(frozen=True)
class Transcript:
    """What was said in a recording.

    Arguments
    ---------
    id : str
        Its name in the output.
    path : str
        Where it was read.
    duration_s : float
        How much of it was read, in seconds.
    segments : tuple of Segment
        In order; together they are the recording.
    fault : str, optional
        What is wrong with it, if not all of it could be read.

    Example
    -------
    >>> said = Hypothesis("YES", (), 2, 4, 0.1, 0.9, (), ("YES",), 10, 1.5)
    >>> segments = (Segment(0.0, 1.5, said), Segment(1.5, 3.0, said))
    >>> transcript = Transcript("a", "a.wav", 3.0, segments)
    >>> transcript.text, transcript.macs, transcript.mean_layer
    ('YES YES', 20, 4.0)
    >>> transcript.words[1]
    Word(text='YES', start_s=1.5, end_s=3.0, confidence=0.9)
    """

    id: str
    path: str
    duration_s: float
    segments: tuple[Segment, ...]
    fault: str | None = None

    @property
    def text(self) -> str:
        """All the words."""
        texts = [segment.hypothesis.text.strip() for segment in self.segments]
        return " ".join(text for text in texts if text)

    @property
    def words(self) -> tuple[Word, ...]:
        """All the words with their times in the recording."""
        return tuple(word for each in self.segments for word in each.words)

    @property
    def macs(self) -> int:
        """Multiply-accumulates that were spent on it."""
        return sum(segment.hypothesis.macs for segment in self.segments)

    @property
    def mean_layer(self) -> float:
        """Layers that were computed, per second of it."""
        return mean_layer(self.segments)

    @property
    def skipped_s(self) -> float:
        """Seconds of it that no model heard, because nobody speaks."""
        return sum(each.skipped_s for each in self.segments)

    @property
    def hypothesis(self) -> Hypothesis:
        """All of it as one hypothesis.

        Of several segments the exit and the layer are the deepest, the score
        is NaN, and the confidence is the mean over all tokens.
        """
        if len(self.segments) == 1:
            return self.segments[0].hypothesis
        said = [segment.hypothesis for segment in self.segments]
        tokens = tuple(token for one in said for token in one.tokens)
        sure = sum(one.confidence * len(one.tokens) for one in said)
        deepest = max(said, key=lambda one: one.layer)
        return Hypothesis(
            text=self.text,
            tokens=tokens,
            exit=deepest.exit,
            layer=deepest.layer,
            score=math.nan,
            confidence=sure / max(len(tokens), 1),
            words=self.words,
            nbest=(self.text,),
            macs=self.macs,
            duration_s=self.duration_s,
            skipped=deepest.skipped,
        )


def mean_layer(segments: Sequence[Segment]) -> float:
    """Average of the layers that were computed, weighted by duration.

    Arguments
    ---------
    segments : sequence of Segment
        At least one.

    Returns
    -------
    float
    """
    lengths_s = [segment.end_s - segment.start_s for segment in segments]
    layers = [segment.hypothesis.layer for segment in segments]
    return sum(s * k for s, k in zip(lengths_s, layers)) / sum(lengths_s)


@dataclass(frozen=True)
class Failure:
    """A recording that could not be transcribed, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class Summary:
    """What a run of the command has done.

    Arguments
    ---------
    transcribed : int
        Recordings with a transcript.
    failures : tuple of Failure
        Recordings without one, or of which a part could not be read.
    duration_s : float
        Audio that was transcribed, in seconds.
    wall_s : float
        Time that it took, without loading the model.
    mean_layer : float
        Layers per second of audio; NaN if there was none.
    macs : int
        Multiply-accumulates.
    skipped_s : float
        How much of the audio no model heard, because nobody speaks.
    """

    transcribed: int
    failures: tuple[Failure, ...]
    duration_s: float
    wall_s: float
    mean_layer: float
    macs: int
    skipped_s: float = 0.0

    @property
    def real_time_factor(self) -> float:
        """Seconds of work per second of audio; NaN if there was none."""
        return (
            self.wall_s / self.duration_s if self.duration_s else float("nan")
        )
