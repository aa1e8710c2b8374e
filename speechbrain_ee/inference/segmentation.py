"""Where somebody speaks, and cutting long recordings at pauses.

A recording that fits into one piece is not cut. Of a longer one, pieces are
cut off at the front as soon as enough is known: at a pause in the later part
of what fits, or at the quietest place if there is none. The pieces tile the
recording, and do not depend on the blocks in which it comes. Pauses are found
by loudness, against the floor and the peaks of the audio around.

Whether a piece holds any speech at all is checked before a model hears it,
since a recogniser outputs words for silence: by silero-vad where it is
installed, by loudness alone elsewhere.

Authors
 * The speechbrain-ee contributors 2026
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from itertools import chain
from threading import Lock
from typing import Any

import numpy as np

from speechbrain_ee.errors import InputError

FRAME_S = 0.01

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
PAUSE_S = 0.15  # the shortest stretch that is a pause
# A pause of this length is certain: the latest of these is taken, and where
# there is none the longest pause.
GOOD_PAUSE_S = 0.5

# Does anybody speak in these samples, at this rate in Hz?
SpeechDetector = Callable[[np.ndarray, int], bool]
VADS = ("auto", "silero", "energy", "off")
NO_SPEECH = "no speech"
# The noise of a quiet room lies near -60 dB of full scale, speech that was
# recorded far too low near -50: what is below -70 is a line without sound.
SPEECH_DB = -70.0
SHORTEST_SPEECH_S = 0.1  # no word is shorter
SILERO_HZ = 16000
SILERO_WINDOW = 512  # samples that it judges at once
# Lower than its usual 0.5: a word that is lost is worse than a breath that
# is transcribed.
SILERO_PROBABILITY = 0.3
_SILERO_LOCK = Lock()  # it remembers the window before


@dataclass(frozen=True)
class Cutting:
    """How long pieces are."""

    max_s: float = 20.0  # no piece is longer
    min_s: float = 2.0  # nor shorter, of a recording that is cut

    @classmethod
    def within(cls, max_s: float) -> "Cutting":
        """Pieces of at most ``max_s`` seconds; short ones for a short bound."""
        return cls(max_s=max_s, min_s=min(cls.min_s, max_s / 2))

    def __post_init__(self) -> None:
        if not (1 <= self.max_s and 0 < 2 * self.min_s <= self.max_s):
            raise InputError(
                f"max_s: {self.max_s} s and min_s: {self.min_s} s; give at "
                "least 1 s, and for min_s at most half of max_s."
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
    """Which whole frames of 10 ms are quiet for the audio around them.

    The threshold lies between the floor and the peaks of the loudness in
    dB, so it follows both the noise and the level of the recording.
    """
    loudness_T = _loudness_db(samples, sample_rate)
    if not len(loudness_T):
        return np.zeros(0, dtype=bool)
    floor, peak = np.percentile(loudness_T, [FLOOR_PERCENTILE, PEAK_PERCENTILE])
    if peak - floor < MIN_RANGE_DB:
        return np.zeros(len(loudness_T), dtype=bool)
    floor = max(floor, peak - MAX_RANGE_DB)
    return loudness_T < floor + THRESHOLD_SHARE * (peak - floor)


def speech_detector(vad: str = "auto") -> SpeechDetector:
    """What tells whether anybody speaks in samples of shape (samples,).

    ``silero``: the detector of the package silero-vad, on what is loud
    enough; ``energy``: 0.1 s above -70 dB of full scale; ``auto``: silero
    where it is installed, else energy; ``off``: always true.

    Example
    -------
    >>> speaks = speech_detector("energy")
    >>> tone = 0.1 * np.sin(np.arange(8000) * 0.5)
    >>> speaks(tone, 8000), speaks(tone[:200], 8000), speaks(0 * tone, 8000)
    (True, False, False)
    """
    if vad not in VADS:
        raise InputError(f"vad: {vad!r}; choose one of {', '.join(VADS)}.")
    installed = find_spec("silero_vad") is not None
    if vad == "silero" and not installed:
        raise InputError(
            "vad: silero needs the package silero-vad, which is not "
            "installed; install speechbrain-ee with its extra `vad`, or "
            "choose energy."
        )
    if vad == "off":
        return _always
    return _is_audible if vad == "energy" or not installed else _silero_hears


def _always(samples: np.ndarray, sample_rate: int) -> bool:
    return True  # not a lambda, with which a recogniser cannot be pickled


def _is_audible(samples: np.ndarray, sample_rate: int) -> bool:
    """Are enough frames above the level of a line without sound?"""
    audible = _loudness_db(samples, sample_rate) > SPEECH_DB
    return bool(audible.sum() * FRAME_S >= SHORTEST_SPEECH_S - FRAME_S / 2)


def _silero_hears(samples: np.ndarray, sample_rate: int) -> bool:
    """Does the detector find enough speech? It stops where it has."""
    if not _is_audible(samples, sample_rate):
        return False
    import torch
    from torchaudio.functional import resample

    wave = torch.from_numpy(samples).float()
    wave = resample(wave, sample_rate, SILERO_HZ)
    missing = -len(wave) % SILERO_WINDOW
    windows = torch.nn.functional.pad(wave, (0, missing))
    needed = SHORTEST_SPEECH_S * SILERO_HZ / SILERO_WINDOW
    found = 0
    with _SILERO_LOCK, torch.no_grad():
        model = _silero()
        model.reset_states()
        for window in windows.split(SILERO_WINDOW):
            found += model(window, SILERO_HZ).item() >= SILERO_PROBABILITY
            if found >= needed:
                return True
    return False


@lru_cache(maxsize=1)
def _silero() -> Any:
    import torch

    threads = torch.get_num_threads()
    try:
        # Importing it leaves PyTorch with one thread.
        from silero_vad import load_silero_vad
    finally:
        torch.set_num_threads(threads)
    return load_silero_vad()


def cut_at_pauses(
    blocks: Iterable[np.ndarray],
    sample_rate: int,
    cutting: Cutting | None = None,
) -> Iterator[Piece]:
    """Cut a stream of samples, blocks of any length, into pieces in order."""
    cutting = cutting or Cutting()
    longest = int(cutting.max_s * sample_rate)
    shortest = int(cutting.min_s * sample_rate)
    start = 0
    waiting = [np.zeros(0, np.float32)]
    for block in chain(blocks, [None]):
        at_end = block is None
        if not at_end:
            waiting.append(block)
        enough = longest + (1 if at_end else shortest)
        while sum(map(len, waiting)) >= enough:
            buffer = np.concatenate(waiting)
            # The same view whatever the blocks are.
            cut = _cut(buffer[: longest + shortest], sample_rate, cutting)
            yield Piece(buffer[:cut].copy(), start)
            start += cut
            waiting = [buffer[cut:]]
    rest = np.concatenate(waiting)
    if len(rest):
        yield Piece(rest, start)


def _cut(view: np.ndarray, sample_rate: int, cutting: Cutting) -> int:
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
    pauses = _runs(quiet_frames(view, sample_rate))
    middles = pauses.mean(axis=1) * frame
    lengths_s = (pauses[:, 1] - pauses[:, 0]) * frame / sample_rate
    fits = (middles >= first) & (middles <= last)
    fits &= lengths_s >= PAUSE_S - FRAME_S / 2
    if fits.any():
        value = np.where(fits, lengths_s.clip(max=GOOD_PAUSE_S), -1.0)
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
    """First and one-past-the-last index of each run of true, (runs, 2)."""
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
