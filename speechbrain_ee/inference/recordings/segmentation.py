"""Cutting long recordings at pauses, as a stream.

A recording that fits into one piece is not cut. Of a longer one, pieces are
cut off at the front as soon as enough is known: at a pause in the later part
of what fits, or at the quietest place if there is none. The pieces tile the
recording, and do not depend on the blocks in which it comes.

Pauses are found by loudness, against the floor and the peaks of the audio
around; ``find_pauses`` takes anything else that marks frames, for example a
voice activity detector.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from speechbrain_ee.errors import InputError

FRAME_S = 0.01
# (samples, sample_rate) -> one bool per frame: does nobody speak in it?
PauseFinder = Callable[[np.ndarray, int], np.ndarray]

# Of 22 s a tenth of a second: fluent speech pauses little.
FLOOR_PERCENTILE = 0.5
PEAK_PERCENTILE = 95
# Where the two are closer, nothing tells speech from what lies between.
MIN_RANGE_DB = 10.0
# Stretches without any sound are no floor for the noise in other pauses.
MAX_RANGE_DB = 50.0
THRESHOLD_SHARE = 0.3  # of the way from the floor to the peaks
SILENCE_DB = -100.0  # 16 bits reach down to -96
SMOOTHING_FRAMES = 9


@dataclass(frozen=True)
class Cutting:
    """How long pieces are, and what counts as a pause.

    Arguments
    ---------
    max_s : float
        No piece is longer, in seconds; at least 1.
    min_s : float
        No piece of a recording that is cut is shorter; at most half of
        ``max_s``.
    pause_s : float
        The shortest stretch that is a pause.
    good_pause_s : float
        The length from which a pause is certain: the latest of these is
        taken, and where there is none the longest pause.
    """

    max_s: float = 20.0
    min_s: float = 2.0
    pause_s: float = 0.15
    good_pause_s: float = 0.5

    def __post_init__(self) -> None:
        if not (1 <= self.max_s and 0 < 2 * self.min_s <= self.max_s):
            raise InputError(
                f"max_s: {self.max_s} s and min_s: {self.min_s} s; give at "
                "least 1 s, and for min_s at most half of max_s."
            )
        if not 0 < self.pause_s <= self.good_pause_s:
            raise InputError(
                f"pause_s: {self.pause_s} s and good_pause_s: "
                f"{self.good_pause_s} s; give lengths above 0, in order."
            )


@dataclass(frozen=True)
class Piece:
    """A stretch of a recording: its samples and where they begin."""

    samples: np.ndarray
    start: int

    @property
    def end(self) -> int:
        """Where the next piece begins, in samples."""
        return self.start + len(self.samples)


def quiet_frames(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """Frames that are quiet for the audio around them.

    The threshold lies between the floor and the peaks of the loudness in
    dB, so it follows both the noise and the level of the recording.

    Arguments
    ---------
    samples : numpy.ndarray
        Audio, shape (samples,).
    sample_rate : int
        In Hz.

    Returns
    -------
    numpy.ndarray
        One bool per whole frame of 10 ms.

    Example
    -------
    >>> tone = np.sin(np.arange(800) * 0.5)
    >>> audio = np.concatenate([tone, np.zeros(240), tone])
    >>> quiet_frames(audio, 8000).nonzero()[0].tolist()
    [10, 11, 12]
    """
    loudness_T = _loudness_db(samples, sample_rate)
    if not len(loudness_T):
        return np.zeros(0, dtype=bool)
    floor, peak = np.percentile(loudness_T, [FLOOR_PERCENTILE, PEAK_PERCENTILE])
    if peak - floor < MIN_RANGE_DB:
        return np.zeros(len(loudness_T), dtype=bool)
    floor = max(floor, peak - MAX_RANGE_DB)
    return loudness_T < floor + THRESHOLD_SHARE * (peak - floor)


def cut_at_pauses(
    blocks: Iterable[np.ndarray],
    sample_rate: int,
    cutting: Cutting | None = None,
    find_pauses: PauseFinder = quiet_frames,
) -> Iterator[Piece]:
    """Cut a stream of samples into pieces.

    Arguments
    ---------
    blocks : iterable of numpy.ndarray
        The recording, in blocks of any length, each of shape (samples,).
    sample_rate : int
        In Hz.
    cutting : Cutting, optional
        Lengths.
    find_pauses : callable
        From samples and sample rate to one bool per frame of 10 ms: true in
        pauses.

    Yields
    ------
    Piece
        In order; together they are the recording.

    Example
    -------
    >>> blocks = [np.zeros(1000)] * 50
    >>> [len(piece.samples) for piece in cut_at_pauses(blocks, 1000)]
    [20000, 20000, 10000]
    """
    cutting = cutting or Cutting()
    longest = int(cutting.max_s * sample_rate)
    shortest = int(cutting.min_s * sample_rate)
    start = 0
    waiting: list[np.ndarray] = []
    count = 0
    for block in blocks:
        waiting.append(block)
        count += len(block)
        while count >= longest + shortest:
            buffer = np.concatenate(waiting)
            # The same view whatever the blocks are.
            view = buffer[: longest + shortest]
            cut = _cut(view, sample_rate, cutting, find_pauses)
            yield Piece(buffer[:cut].copy(), start)
            start += cut
            count -= cut
            waiting = [buffer[cut:]]
    buffer = np.concatenate(waiting) if waiting else np.zeros(0, np.float32)
    if len(buffer) > longest:
        cut = _cut(buffer, sample_rate, cutting, find_pauses)
        yield Piece(buffer[:cut].copy(), start)
        start, buffer = start + cut, buffer[cut:]
    if len(buffer):
        yield Piece(buffer.copy(), start)


def _cut(
    view: np.ndarray,
    sample_rate: int,
    cutting: Cutting,
    find_pauses: PauseFinder,
) -> int:
    """Where the first piece of a view ends, in samples.

    Both the piece and what is left of the view have the shortest length;
    the piece has at most the longest.
    """
    frame = _frame(sample_rate)
    last = min(
        int(cutting.max_s * sample_rate),
        len(view) - int(cutting.min_s * sample_rate),
    )
    # In the later half, so that pieces are long; not if that is too little.
    first = max(last // 2, int(cutting.min_s * sample_rate))
    pauses = _runs(find_pauses(view, sample_rate))
    middles = pauses.mean(axis=1) * frame
    lengths_s = (pauses[:, 1] - pauses[:, 0]) * frame / sample_rate
    fits = (middles >= first) & (middles <= last)
    fits &= lengths_s >= cutting.pause_s - FRAME_S / 2
    if fits.any():
        value = np.where(fits, lengths_s.clip(max=cutting.good_pause_s), -1.0)
        return int(middles[len(value) - 1 - value[::-1].argmax()])
    return _quietest(view, sample_rate, first, last)


def _quietest(view: np.ndarray, sample_rate: int, first: int, last: int) -> int:
    """The middle of the quietest stretch; the latest, if several are equal."""
    loudness_T = _loudness_db(view, sample_rate)
    frame = _frame(sample_rate)
    low, high = -(-first // frame), min(last // frame, len(loudness_T))
    if high - low < SMOOTHING_FRAMES:
        return last
    window = np.ones(SMOOTHING_FRAMES) / SMOOTHING_FRAMES
    smooth = np.convolve(loudness_T[low:high], window, "valid").round(3)
    latest = len(smooth) - 1 - smooth[::-1].argmin()
    if smooth.max() == smooth.min():
        return last
    return int(low + latest) * frame + SMOOTHING_FRAMES * frame // 2


def _runs(flags_T: np.ndarray) -> np.ndarray:
    """First and behind-the-last index of every run of true, shape (runs, 2)."""
    edges = np.diff(np.concatenate([[0], flags_T.astype(np.int8), [0]]))
    return np.stack([edges == 1, edges == -1]).nonzero()[1].reshape(2, -1).T


def _frame(sample_rate: int) -> int:
    """Samples per frame."""
    return max(int(FRAME_S * sample_rate), 1)


def _loudness_db(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """Loudness of every whole frame."""
    frame = _frame(sample_rate)
    whole = len(samples) // frame * frame
    frames_TF = samples[:whole].reshape(-1, frame).astype(np.float64)
    # Without the offset that some sound cards add, which hides every pause.
    power_T = frames_TF.var(axis=1)
    return 10 * np.log10(power_T + 10 ** (SILENCE_DB / 10))
