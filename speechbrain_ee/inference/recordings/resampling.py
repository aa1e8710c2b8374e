"""Resampling block by block: any length in bounded memory.

Authors
 * The speechbrain-ee contributors 2026
"""

import math
from fractions import Fraction

import numpy as np
import torch
from torchaudio.transforms import Resample

# Both sides of the ratio of two sample rates stay below this: 48000 -> 16000
# is 3 : 1 and 44100 -> 16000 is 441 : 160. A rate like 47999 would need
# filters of gigabytes; it is taken for its neighbour, 0.1 s off in an hour.
MAX_TERM = 2000


class BlockResampler:
    """Resample a stream; equal to resampling the whole of it at once.

    The filter of :class:`torchaudio.transforms.Resample` reaches ``width``
    old samples to either side. Every block is therefore resampled with that
    much of its neighbours, which is cut off again.

    Arguments
    ---------
    old_hz, new_hz : int
        Sample rates before and after.

    Example
    -------
    >>> resampler = BlockResampler(48000, 16000)
    >>> blocks = [resampler.push(np.zeros(1000, np.float32)) for _ in range(3)]
    >>> sum(map(len, blocks)) + len(resampler.finish())
    1000
    """

    def __init__(self, old_hz: int, new_hz: int):
        self.old, self.new = _ratio(old_hz, new_hz)
        self._resample = Resample(self.old, self.new)
        # Context in units of `old` samples, so that the grid stays the same.
        reach = 0 if self.old == self.new else self._resample.width
        self._context = math.ceil(reach / self.old)
        self._buffer = np.zeros(0, dtype=np.float32)
        self._done = 0  # units at the buffer's head that are context only

    def push(self, block: np.ndarray) -> np.ndarray:
        """Take the next samples, give those that are now certain.

        Arguments
        ---------
        block : numpy.ndarray
            Samples at the old rate, shape (samples,), float32.

        Returns
        -------
        numpy.ndarray
            Samples at the new rate; none while the filter waits for more.
        """
        if self.old == self.new:
            return block
        self._buffer = np.concatenate([self._buffer, block])
        units = len(self._buffer) // self.old
        certain = units - self._context
        if certain <= self._done:
            return self._buffer[:0]
        out = self._run(self._buffer[: units * self.old])
        out = out[self._done * self.new : certain * self.new]
        kept_from = max(certain - self._context, 0)
        self._buffer = self._buffer[kept_from * self.old :]
        self._done = certain - kept_from
        return out

    def finish(self) -> np.ndarray:
        """Give what is left when no more samples come.

        Returns
        -------
        numpy.ndarray
            The last samples at the new rate.
        """
        if self.old == self.new or not len(self._buffer):
            return self._buffer[:0]
        rest = self._run(self._buffer)[self._done * self.new :]
        self._buffer = self._buffer[:0]
        return rest

    def _run(self, samples: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return self._resample(torch.from_numpy(samples)).numpy()


def _ratio(old_hz: int, new_hz: int) -> tuple[int, int]:
    """The ratio of two rates in terms that a filter bank can afford."""
    ratio = Fraction(old_hz, new_hz)
    if max(ratio.numerator, ratio.denominator) > MAX_TERM:
        larger = max(ratio, 1 / ratio)
        larger = larger.limit_denominator(int(MAX_TERM / larger) or 1)
        ratio = larger if ratio > 1 else 1 / larger
    return ratio.numerator, ratio.denominator
