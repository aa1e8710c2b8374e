"""From a stream of recordings to a stream of transcripts.

Recordings are read, cut and put into batches of like length only as fast as
they are transcribed, so memory does not grow with their number or length.

Authors
 * The speechbrain-ee contributors 2026
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import torch

from speechbrain_ee.errors import InputError
from speechbrain_ee.inference.controller import LatencyController
from speechbrain_ee.inference.hypothesis import Hypothesis
from speechbrain_ee.inference.recordings import (
    Recording,
    open_recording,
    shown,
)
from speechbrain_ee.inference.segmentation import Cutting, Piece, cut_at_pauses
from speechbrain_ee.inference.transcripts import (
    Failure,
    Segment,
    Summary,
    Transcript,
)

T = TypeVar("T")
R = TypeVar("R")

# Batches' worth of items that are sorted together. More waste less padding,
# and let the first result wait longer.
WINDOW_BATCHES = 4


class Recogniser(Protocol):
    """What is asked of a recogniser."""

    sample_rate: int

    def recognise(self, waves: Any, policy: Any = None) -> list[Hypothesis]:
        """A hypothesis for each of a batch of tensors of shape (samples,)."""


@dataclass
class _Progress:
    """Where a recording stands."""

    id: str
    path: str
    announced_s: float | None = None
    segments: list[Segment] = field(default_factory=list)
    pieces: int = 0
    read_s: float = 0.0
    ended: bool = False
    fault: str | None = None
    failure: str | None = None


_Task = tuple[int, Piece]


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
        self._states: list[_Progress] = []
        self._due = 0
        self._transcribed = 0
        self._failures: list[Failure] = []
        self._segments_s = 0.0
        self._skipped_s = 0.0
        self._layer_s = 0.0
        self._macs = 0
        self._began_s = self._observed_s = time.perf_counter()

    def run(
        self,
        recordings: Iterable[Recording],
        on_batch: Callable[[float, Summary], None] | None = None,
    ) -> Iterator[Transcript | Failure]:
        """A result for every recording, in order, as soon as it is ready.

        ``on_batch`` is told after every batch how many recordings are done,
        with fractions, and what the run has done so far.
        """
        self._reset()
        tasks = batches_of_like_length(
            self._tasks(recordings), self._length_s, self.batch_s
        )
        for task, said in in_order(self._recognised(tasks)):
            self._take(task, said)
            yield from self._ready()
            if on_batch is not None:
                on_batch(self._fraction(), self.summary())
        yield from self._ready()

    def summary(self) -> Summary:
        """What the run has done so far."""
        seconds = self._segments_s
        return Summary(
            self._transcribed,
            tuple(self._failures),
            seconds,
            time.perf_counter() - self._began_s,
            self._layer_s / seconds if seconds else math.nan,
            self._macs,
            self._skipped_s,
        )

    def unfinished(self) -> Transcript | None:
        """What there is of the recording that is being transcribed."""
        if self._due == len(self._states):
            return None
        state = self._states[self._due]
        if not state.segments or state.failure is not None:
            return None
        self._transcribed += 1
        end_s = state.segments[-1].end_s
        state.fault = f"interrupted after {end_s:.2f} s"
        self._failures.append(Failure(state.path, state.fault))
        return _transcript(state)

    def _length_s(self, task: _Task) -> float:
        return len(task[1].samples) / self.asr.sample_rate

    def _tasks(self, recordings: Iterable[Recording]) -> Iterator[_Task]:
        """The pieces of all recordings; notes what is wrong with them."""
        rate = self.asr.sample_rate
        for place, recording in enumerate(recordings):
            state = _Progress(recording.id, recording.path)
            self._states.append(state)
            try:
                with open_recording(recording, rate, self.channel) as audio:
                    state.announced_s = audio.announced_s
                    for piece in cut_at_pauses(audio, rate, self.cutting):
                        state.pieces += 1
                        state.read_s = piece.end / rate
                        yield place, piece
                    state.fault = audio.fault
            except InputError as error:
                state.failure = str(error)
            state.ended = True

    def _recognised(
        self, batches: Iterable[list[tuple[int, _Task]]]
    ) -> Iterator[tuple[int, tuple[_Task, Hypothesis | str]]]:
        """A hypothesis for every task, or why there is none."""
        for batch in batches:
            said = self._batch([task[1] for _, task in batch])
            for (number, task), one in zip(batch, said, strict=True):
                yield number, (task, one)

    def _batch(self, pieces: list[Piece]) -> list[Hypothesis | str]:
        waves = [torch.from_numpy(piece.samples) for piece in pieces]
        policy = self.controller.policy if self.controller else self.policy
        try:
            said = self.asr.recognise(waves, policy)
        except InputError as error:
            if len(pieces) == 1:
                return [str(error)]
            # One of them is bad: each is tried alone.
            return [each for piece in pieces for each in self._batch([piece])]
        now_s = time.perf_counter()
        if self.controller is not None:
            samples = sum(len(piece.samples) for piece in pieces)
            self.controller.observe(
                samples / self.asr.sample_rate,
                # Reading is a part of what has to hold the deadline.
                now_s - self._observed_s,
                sum(one.macs for one in said),
            )
        self._observed_s = now_s
        return list(said)

    def _take(self, task: _Task, said: Hypothesis | str) -> None:
        place, piece = task
        state = self._states[place]
        rate = self.asr.sample_rate
        start_s, end_s = piece.start / rate, piece.end / rate
        if isinstance(said, str):
            path = shown(state.path)
            reason = f"{path}: from {start_s:.2f} to {end_s:.2f} s: {said}"
            state.failure = state.failure or reason
            state.pieces -= 1
            return
        segment = Segment(start_s, end_s, said)
        state.segments.append(segment)
        self._segments_s += end_s - start_s
        self._skipped_s += segment.skipped_s
        self._layer_s += (end_s - start_s) * said.layer
        self._macs += said.macs

    def _ready(self) -> Iterator[Transcript | Failure]:
        """Recordings that are complete, in order."""
        while self._due < len(self._states):
            state = self._states[self._due]
            if not state.ended or len(state.segments) < state.pieces:
                return
            reason = state.failure or state.fault
            if reason is not None:
                self._failures.append(Failure(state.path, reason))
            if state.failure is None:
                self._transcribed += 1
                result = _transcript(state)
            else:
                result = self._failures[-1]
            self._due += 1
            state.segments = []
            yield result

    def _fraction(self) -> float:
        """Recordings that are done, and the part of the next."""
        if self._due == len(self._states):
            return float(self._due)
        state = self._states[self._due]
        done_s = state.segments[-1].end_s if state.segments else 0.0
        whole_s = max(state.announced_s or 2 * state.read_s, done_s, 1e-9)
        return self._due + done_s / whole_s


def _transcript(state: _Progress) -> Transcript:
    segments = tuple(state.segments)
    end_s = segments[-1].end_s
    return Transcript(state.id, state.path, end_s, segments, state.fault)


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
    window = sorted(window, key=lambda numbered: -length_s(numbered[1]))
    batch: list[tuple[int, T]] = []
    for numbered in window:
        if batch and (len(batch) + 1) * length_s(batch[0][1]) > batch_s:
            yield batch
            batch = []
        batch.append(numbered)
    if batch:
        yield batch


def in_order(numbered: Iterable[tuple[int, R]]) -> Iterator[R]:
    """Results in the order of their numbers, as soon as that allows.

    Example
    -------
    >>> list(in_order([(1, "b"), (0, "a"), (2, "c")]))
    ['a', 'b', 'c']
    """
    early: dict[int, R] = {}
    due = 0
    for number, result in numbered:
        early[number] = result
        while due in early:
            yield early.pop(due)
            due += 1
