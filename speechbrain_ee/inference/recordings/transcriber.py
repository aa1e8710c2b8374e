"""From a stream of recordings to a stream of transcripts.

Recordings are read, cut and put into batches only as fast as they are
transcribed, so memory does not grow with their number or their length.

Authors
 * The speechbrain-ee contributors 2026
"""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from speechbrain_ee.errors import InputError
from speechbrain_ee.inference.hypothesis import Hypothesis
from speechbrain_ee.inference.recordings.batches import (
    batches_of_like_length,
    in_order,
)
from speechbrain_ee.inference.recordings.files import (
    Recording,
    open_recording,
)
from speechbrain_ee.inference.recordings.segmentation import (
    Cutting,
    PauseFinder,
    Piece,
    cut_at_pauses,
    quiet_frames,
)
from speechbrain_ee.inference.recordings.stream import shown
from speechbrain_ee.inference.recordings.transcript import (
    Failure,
    Segment,
    Summary,
    Transcript,
)


class Recogniser(Protocol):
    """What is asked of a recogniser."""

    sample_rate: int

    def recognise(self, waves: Any, policy: Any = None) -> list[Hypothesis]:
        """A hypothesis for each of a batch of tensors of shape (samples,)."""


class Controller(Protocol):
    """What is asked of a latency controller."""

    policy: Any

    def observe(
        self, audio_s: float, wall_s: float, macs: float | None = None
    ) -> None:
        """Learn how long a batch took."""


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
    """Transcribes recordings in batches of like length.

    Arguments
    ---------
    asr : Recogniser
        For example an :class:`~speechbrain_ee.inference.asr.EarlyExitASR`.
    cutting : Cutting, optional
        How long recordings are cut.
    batch_s : float
        Bound on a batch in seconds, padding included.
    controller : Controller, optional
        Chooses the policy of every batch.
    find_pauses : callable
        See :func:`~speechbrain_ee.inference.recordings.segmentation.cut_at_pauses`.
    channel : int, optional
        The channel of files that is heard, from 1; see
        :class:`~speechbrain_ee.inference.recordings.stream.AudioStream`.
    policy : optional
        What the recogniser follows where no controller chooses; by default
        its own.
    """

    def __init__(
        self,
        asr: Recogniser,
        cutting: Cutting | None = None,
        batch_s: float = 60.0,
        controller: Controller | None = None,
        find_pauses: PauseFinder = quiet_frames,
        channel: int | None = None,
        policy: Any = None,
    ):
        self.asr = asr
        self.cutting = cutting or Cutting()
        self.batch_s = batch_s
        self.controller = controller
        self.find_pauses = find_pauses
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
        """Transcribe.

        Arguments
        ---------
        recordings : iterable of Recording
            What to transcribe; read no faster than it is transcribed.
        on_batch : callable, optional
            Told after every batch how many recordings are done, with
            fractions, and what the run has done so far.

        Yields
        ------
        Transcript or Failure
            One for every recording, in their order, as soon as it is ready.
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
            self._layer_s / seconds if seconds else float("nan"),
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
        return self._transcript(state)

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
                    for piece in cut_at_pauses(
                        audio, rate, self.cutting, self.find_pauses
                    ):
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
            # One of them is bad, and the others shall not suffer.
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
                result = self._transcript(state)
            else:
                result = self._failures[-1]
            self._due += 1
            state.segments = []
            yield result

    def _transcript(self, state: _Progress) -> Transcript:
        return Transcript(
            state.id,
            state.path,
            state.segments[-1].end_s,
            tuple(state.segments),
            state.fault,
        )

    def _fraction(self) -> float:
        """Recordings that are done, and the part of the next."""
        if self._due == len(self._states):
            return float(self._due)
        state = self._states[self._due]
        done_s = state.segments[-1].end_s if state.segments else 0.0
        whole_s = max(state.announced_s or 2 * state.read_s, done_s, 1e-9)
        return self._due + done_s / whole_s
