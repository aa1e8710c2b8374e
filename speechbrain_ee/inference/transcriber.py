"""From a stream of recordings to a stream of transcripts.

A transcript is put together of the segments of a recording. Recordings are read, cut and put into batches of like length only as fast as
they are transcribed, so memory does not grow with their number or length.

Authors
 * The speechbrain-ee contributors 2026
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

import torch

from speechbrain_ee.errors import InputError
from speechbrain_ee.inference.controller import LatencyController
from speechbrain_ee.inference.hypothesis import Hypothesis, Word
from speechbrain_ee.inference.recordings import (
    Recording,
    open_recording,
    shown,
)
from speechbrain_ee.inference.segmentation import Cutting, Piece, cut_at_pauses

T = TypeVar("T")

# Batches' worth of items that are sorted together. More waste less padding,
# and let the first result wait longer.
WINDOW_BATCHES = 4


class Recogniser(Protocol):
    """What is asked of a recogniser."""

    sample_rate: int

    def recognise(self, waves: Any, policy: Any = None) -> list[Hypothesis]:
        """A hypothesis for each of a batch of tensors of shape (samples,)."""


@dataclass(frozen=True)
class Segment:
    """A stretch of a recording and what was said in it."""

    start_s: float  # in the recording
    end_s: float
    hypothesis: Hypothesis  # its times count from start_s

    @property
    def length_s(self) -> float:
        """Its seconds."""
        return self.end_s - self.start_s

    @property
    def skipped_s(self) -> float:
        """Seconds that no model heard."""
        return 0.0 if self.hypothesis.skipped is None else self.length_s

    @property
    def words(self) -> tuple[Word, ...]:
        """The words, their times counted from the recording's beginning.

        Where the recogniser gives no times, the words share the stretch by
        their number of letters.
        """
        return tuple(
            replace(
                word,
                start_s=self.start_s + word.start_s,
                end_s=self.start_s + word.end_s,
            )
            for word in self.hypothesis.words or self._spread()
        )

    def _spread(self) -> Iterator[Word]:
        texts = self.hypothesis.text.split()
        letter_s = self.length_s / max(sum(map(len, texts)), 1)
        start_s = 0.0
        for text in texts:
            end_s = start_s + len(text) * letter_s
            yield Word(text, start_s, end_s, self.hypothesis.confidence)
            start_s = end_s


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
        """Layers that were computed, averaged over its seconds."""
        layers_s = [s.length_s * s.hypothesis.layer for s in self.segments]
        return sum(layers_s) / sum(s.length_s for s in self.segments)

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
        said = [segment.hypothesis for segment in self.segments]
        if len(said) == 1:
            return said[0]
        tokens = tuple(token for one in said for token in one.tokens)
        sure = sum(one.confidence * len(one.tokens) for one in said)
        return replace(
            max(said, key=lambda one: one.layer),
            text=self.text,
            tokens=tokens,
            score=math.nan,
            confidence=sure / max(len(tokens), 1),
            words=self.words,
            nbest=(self.text,),
            macs=self.macs,
            duration_s=self.duration_s,
        )


@dataclass(frozen=True)
class Failure:
    """A recording that could not be transcribed, and why."""

    path: str
    reason: str


@dataclass
class Summary:
    """What a run has done so far."""

    transcribed: int = 0  # recordings with a transcript
    # Recordings without one, or not read to the end.
    failures: list[Failure] = field(default_factory=list)
    duration_s: float = 0.0  # audio that was transcribed
    skipped_s: float = 0.0  # audio that no model heard: nobody speaks
    layers_s: float = 0.0  # layers times seconds
    macs: int = 0
    began_s: float = field(default_factory=time.perf_counter)

    def add(self, segment: Segment) -> None:
        """Count what was transcribed."""
        self.duration_s += segment.length_s
        self.skipped_s += segment.skipped_s
        self.layers_s += segment.length_s * segment.hypothesis.layer
        self.macs += segment.hypothesis.macs

    @property
    def wall_s(self) -> float:
        """Time that it took until now, without loading the model."""
        return time.perf_counter() - self.began_s

    def by_second(self, value: float) -> float:
        """A value over the seconds of audio; NaN if there were none."""
        return value / self.duration_s if self.duration_s else math.nan

    def __str__(self) -> str:
        if not self.duration_s:
            return "nothing transcribed yet"
        return (
            f"{self.duration_s:.0f} s of audio in {self.wall_s:.1f} s, "
            f"real-time factor {self.by_second(self.wall_s):.3f}, "
            f"{self.by_second(self.layers_s):.1f} layers"
        )


@dataclass
class _Progress:
    """Where a recording stands."""

    recording: Recording
    announced_s: float | None = None
    read_s: float = 0.0
    missing: int = 0  # pieces that were read and not yet transcribed
    ended: bool = False
    fault: str | None = None
    failure: str | None = None
    segments: list[Segment] = field(default_factory=list)

    @property
    def share_done(self) -> float:
        """Share of it that is transcribed."""
        done_s = self.segments[-1].end_s if self.segments else 0.0
        whole_s = self.announced_s or 2 * self.read_s
        return done_s / max(whole_s, done_s, 1e-9)


_Task = tuple[_Progress, Piece]


class Transcriber:
    """Transcribes recordings in batches of at most ``batch_s`` seconds,
    padding included.

    A controller, where there is one, chooses the policy of every batch; else
    ``policy`` does, by default the recogniser's own.
    """

    def __init__(
        self,
        asr: Recogniser,
        cutting: Cutting | None = None,
        batch_s: float = 60.0,
        controller: LatencyController | None = None,
        channel: int | None = None,
        policy: Any = None,
    ):
        self.asr = asr
        self.cutting = cutting or Cutting()
        self.batch_s = batch_s
        self.controller = controller
        self.channel = channel
        self.policy = policy
        self._reset()

    def _reset(self) -> None:
        self.summary = Summary()
        self._begun: deque[_Progress] = deque()
        self._done = 0
        self._observed_s = time.perf_counter()

    def run(
        self,
        recordings: Iterable[Recording],
        on_progress: Callable[[float, Summary], None] = lambda *_: None,
    ) -> Iterator[Transcript | Failure]:
        """A result for every recording, in order, as soon as it is ready.

        ``on_progress`` is told how many recordings are done, with fractions,
        and what the run has done so far.
        """
        self._reset()
        batches = batches_of_like_length(
            self._tasks(recordings),
            lambda task: len(task[1].samples) / self.asr.sample_rate,
            self.batch_s,
        )
        recognised = (
            (number, (task, said))
            for batch in batches
            for (number, task), said in zip(
                batch, self._batch([task[1] for _, task in batch]), strict=True
            )
        )
        for task, said in in_order(recognised):
            self._take(*task, said)
            yield from self._ready()
            partly = self._begun[0].share_done if self._begun else 0.0
            on_progress(self._done + partly, self.summary)
        yield from self._ready()

    def unfinished(self) -> Transcript | None:
        """What there is of the recording that is being transcribed."""
        if not self._begun:
            return None
        state = self._begun[0]
        if not state.segments or state.failure is not None:
            return None
        end_s = state.segments[-1].end_s
        state.fault = f"interrupted after {end_s:.2f} s"
        return self._result(state)

    def _tasks(self, recordings: Iterable[Recording]) -> Iterator[_Task]:
        """The pieces of all recordings; notes what is wrong with them."""
        rate = self.asr.sample_rate
        for recording in recordings:
            state = _Progress(recording)
            self._begun.append(state)
            try:
                with open_recording(recording, rate, self.channel) as audio:
                    state.announced_s = audio.announced_s
                    for piece in cut_at_pauses(audio, rate, self.cutting):
                        state.missing += 1
                        state.read_s = piece.end / rate
                        yield state, piece
                    state.fault = audio.fault
            except InputError as error:
                state.failure = str(error)
            state.ended = True

    def _batch(self, pieces: list[Piece]) -> list[Hypothesis | str]:
        """A hypothesis for every piece, or why there is none."""
        waves = [torch.from_numpy(piece.samples) for piece in pieces]
        policy = self.controller.policy if self.controller else self.policy
        try:
            said = self.asr.recognise(waves, policy)
        except InputError as error:
            if len(pieces) == 1:
                return [str(error)]
            # One of them is bad: each is tried alone.
            return [each for piece in pieces for each in self._batch([piece])]
        before_s, self._observed_s = self._observed_s, time.perf_counter()
        if self.controller is not None:
            self.controller.observe(
                sum(map(len, waves)) / self.asr.sample_rate,
                # Reading is a part of what has to hold the deadline.
                self._observed_s - before_s,
                sum(one.macs for one in said),
            )
        return list(said)

    def _take(
        self, state: _Progress, piece: Piece, said: Hypothesis | str
    ) -> None:
        rate = self.asr.sample_rate
        start_s, end_s = piece.start / rate, piece.end / rate
        state.missing -= 1
        if isinstance(said, str):
            path = shown(state.recording.path)
            reason = f"{path}: from {start_s:.2f} to {end_s:.2f} s: {said}"
            state.failure = state.failure or reason
            return
        state.segments.append(Segment(start_s, end_s, said))
        self.summary.add(state.segments[-1])

    def _ready(self) -> Iterator[Transcript | Failure]:
        """Recordings that are complete, in order."""
        while self._begun and self._begun[0].ended:
            if self._begun[0].missing:
                return
            self._done += 1
            yield self._result(self._begun.popleft())

    def _result(self, state: _Progress) -> Transcript | Failure:
        path, segments = state.recording.path, tuple(state.segments)
        reason = state.failure or state.fault
        if reason is not None:
            self.summary.failures.append(Failure(path, reason))
        if state.failure is not None:
            return self.summary.failures[-1]
        self.summary.transcribed += 1
        end_s = segments[-1].end_s
        return Transcript(
            state.recording.id, path, end_s, segments, state.fault
        )


def batches_of_like_length(
    items: Iterable[T],
    length_s: Callable[[T], float],
    batch_s: float,
) -> Iterator[list[tuple[int, T]]]:
    """Batches of at most ``batch_s`` padded seconds, of which a longer item
    is one of its own.

    As many items as make ``WINDOW_BATCHES`` batches are read, sorted by
    length and handed out, longest first, before more are read. Every item
    comes with its place in the stream.

    Example
    -------
    >>> lengths = [3.0, 1.0, 2.9, 1.1]
    >>> for batch in batches_of_like_length(lengths, float, batch_s=6.0):
    ...     print(batch)
    [(0, 3.0), (2, 2.9)]
    [(3, 1.1), (1, 1.0)]
    """
    if not batch_s > 0:
        raise InputError(f"batch_s: {batch_s} s; give seconds above 0.")
    window: list[tuple[int, T]] = []
    waiting_s = 0.0
    for numbered in enumerate(items):
        window.append(numbered)
        waiting_s += length_s(numbered[1])
        if waiting_s >= WINDOW_BATCHES * batch_s:
            yield from _sorted_batches(window, length_s, batch_s)
            window, waiting_s = [], 0.0
    yield from _sorted_batches(window, length_s, batch_s)


def _sorted_batches(
    window: list[tuple[int, T]], length_s: Callable[[T], float], batch_s: float
) -> Iterator[list[tuple[int, T]]]:
    batch: list[tuple[int, T]] = []
    for numbered in sorted(window, key=lambda each: -length_s(each[1])):
        if batch and (len(batch) + 1) * length_s(batch[0][1]) > batch_s:
            yield batch
            batch = []
        batch.append(numbered)
    if batch:
        yield batch


def in_order(numbered: Iterable[tuple[int, T]]) -> Iterator[T]:
    """Results in the order of their numbers, as soon as that allows."""
    early: dict[int, T] = {}
    due = 0
    for number, result in numbered:
        early[number] = result
        while due in early:
            yield early.pop(due)
            due += 1
